//! Journal -> what is in queues, at the start.
//!
//! Nothing of a message is kept but its stub, so that a start takes as little memory as the backlog that it finds.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use leveret_journal::{LOST, Position, Record};
use rustc_hash::{FxBuildHasher, FxHashMap};
use smallvec::SmallVec;

use super::record::{self, MessageHead, RecordError, kind};
use super::stub::{Pack, STUBS_PER_PACK, Stub};
use super::{Pins, Place, QueueId, Reach, Seq};

/// Takes every record of the journal in order and keeps what is still alive.
#[derive(Debug)]
pub struct Replay {
    pins: Arc<Pins>,
    now_ms: u64,
    /// Messages that queues have yet to take or decline: few at a time, since they do so at once.
    written: FxHashMap<Position, Written>,
    queues: FxHashMap<QueueId, RecoveredQueue>,
    /// The journal's first position: what lies before it was reclaimed because nobody needs it.
    first: Position,
    definitions: Vec<(Position, Vec<u8>)>,
    lost: Lost,
}

/// What is known to be missing since the journal was salvaged after damage.
#[derive(Debug, Default)]
pub struct Lost {
    /// From where to where records may be missing.
    ranges: Vec<Range<Position>>,
    /// Messages that a queue had, and had not settled, and that are gone.
    pub messages: BTreeMap<QueueId, BTreeSet<Seq>>,
    /// Messages that are there although no queue is known to have taken them.
    pub ownerless: usize,
}

#[derive(Debug)]
struct Written {
    place: Place,
    head: MessageHead,
    /// How many queues have yet to take or decline it.
    queues: u32,
}

/// What the journal knows.
#[derive(Debug, Default)]
pub struct Recovered {
    /// The queues' contents, also of queues that were deleted since: the definitions say which exist.
    pub queues: HashMap<QueueId, RecoveredQueue, FxBuildHasher>,
    /// Definition records that the checkpoint has not seen, in order.
    pub definitions: Vec<Vec<u8>>,
    /// What is missing because it was damaged.
    pub lost: Lost,
}

/// One queue's content.
#[derive(Debug, Default)]
pub struct RecoveredQueue {
    /// The messages. Those that were moved come in another order than they have in the queue: each run has its own.
    runs: SmallVec<[Run; 1]>,
    /// How often the deliveries of those failed that came back after one.
    returned: BTreeMap<Seq, u32>,
    /// Seqs below this have been used.
    pub next: Seq,
    /// How far it may have delivered messages of each priority, lowest first. Empty if it never delivered.
    pub horizon: Vec<Reach>,
    /// Where its horizon was written.
    pub horizon_at: Position,
}

/// Messages in the order of their seqs.
#[derive(Debug, Default)]
struct Run {
    packs: VecDeque<Settling>,
    /// Behind the packs, not packed yet.
    open: VecDeque<Stub>,
}

/// A pack of which some have been settled.
#[derive(Debug)]
struct Settling {
    pack: Pack,
    /// Ranges of seqs that are gone (first, one behind the last), none next to another.
    gone: BTreeMap<u64, u64>,
}

impl Replay {
    /// A replay at the time `now_ms`, for a journal whose segments `pins` keeps.
    pub fn new(pins: Arc<Pins>, now_ms: u64) -> Self {
        Self {
            pins,
            now_ms,
            written: FxHashMap::default(),
            queues: FxHashMap::default(),
            first: Position::default(),
            definitions: Vec::new(),
            lost: Lost::default(),
        }
    }

    /// Takes the next record.
    pub fn apply(&mut self, record: &Record<'_>) -> Result<(), RecordError> {
        if self.first == Position::default() {
            self.first = record.position;
        }
        match record.kind {
            kind::MESSAGE => {
                let head = record::decode_message_head(record.payload)?;
                if head.queues > 0 {
                    let place = self.pins.pin(record.position);
                    self.pins.weigh(record.payload.len().saturating_sub(head.body_bytes as usize));
                    self.written.insert(record.position, Written { place, head, queues: head.queues });
                }
            }
            kind::ENQUEUE => self.enqueue(&record::decode_enqueue(record.payload)?)?,
            kind::GONE => {
                let (id, ranges) = record::decode_gone(record.payload)?;
                let queue = self.queues.entry(id).or_default();
                for (first, end) in ranges {
                    queue.gone(first, end);
                    if let Some(lost) = self.lost.messages.get_mut(&id) {
                        // Settled, so nobody misses it.
                        lost.retain(|seq| !(first..end).contains(seq));
                    }
                }
            }
            kind::RETURNED => {
                let (queue, returned) = record::decode_returned(record.payload)?;
                self.queues.entry(queue).or_default().returned.extend(returned);
            }
            kind::DECLINED => {
                for position in record::decode_declined(record.payload)? {
                    self.one_less(position);
                }
            }
            LOST => {
                let end = Position(record.position.0 + record.payload.len() as u64);
                self.lost.ranges.push(record.position..end);
            }
            kind::MOVED => self.moved(record.position, record.payload)?,
            kind::HORIZON => {
                let (queue, next, reach) = record::decode_horizon(record.payload)?;
                let queue = self.queues.entry(queue).or_default();
                queue.next = queue.next.max(next);
                (queue.horizon, queue.horizon_at) = (reach, record.position);
            }
            kind::INTERRUPTED => self.interrupted(),
            kind::DEFINITION => self.definitions.push((record.position, record.payload.to_vec())),
            _ => return Err(RecordError::unknown_kind()),
        }
        Ok(())
    }

    /// How many messages it holds that no queue has taken.
    #[cfg(test)]
    pub(super) fn messages_held(&self) -> usize {
        self.written.len()
    }

    /// What is alive at the end. Definitions before `definitions_from` are in the checkpoint. `clean` says whether the
    /// last stop was orderly: if not, each message that a queue may have delivered counts as delivered.
    pub fn finish(mut self, definitions_from: Position, clean: bool) -> Recovered {
        if !clean {
            self.interrupted();
        }
        let Self { mut lost, written, queues, definitions, .. } = self;
        if !lost.is_nothing() {
            lost.ownerless = written.len();
        }
        let behind = definitions.into_iter().filter(|(position, _)| *position >= definitions_from);
        Recovered { queues, definitions: behind.map(|(_, payload)| payload).collect(), lost }
    }

    fn enqueue(&mut self, enqueue: &record::Enqueue) -> Result<(), RecordError> {
        for (seq, position) in (enqueue.first.0..).map(Seq).zip(&enqueue.positions) {
            let queue = self.queues.entry(enqueue.queue).or_default();
            queue.next = queue.next.max(Seq(seq.0 + 1));
            let Some(Written { place, head, .. }) = self.written.get(position) else {
                if *position < self.first {
                    // Its segment was reclaimed, so every queue had settled it before.
                    continue;
                }
                if self.lost.covers(*position) {
                    self.lost.messages.entry(enqueue.queue).or_default().insert(seq);
                    continue;
                }
                return Err(RecordError::dangling());
            };
            queue.take(Stub {
                seq,
                place: place.clone(),
                body_bytes: head.body_bytes,
                priority: head.priority,
                arrived_ms: enqueue.at_ms,
                deadline_ms: deadline_ms(head, self.now_ms),
                failed: 0,
                redelivered: false,
            });
            self.one_less(*position);
        }
        Ok(())
    }

    fn moved(&mut self, position: Position, payload: &[u8]) -> Result<(), RecordError> {
        let (moved, message) = record::decode_moved(payload)?;
        let head = record::decode_message_head(message)?;
        let queue = self.queues.entry(moved.queue).or_default();
        let seq = moved.seq;
        queue.next = queue.next.max(Seq(seq.0.saturating_add(1)));
        queue.leave(seq, Seq(seq.0.saturating_add(1)));
        queue.take(Stub {
            seq,
            place: self.pins.pin(position),
            body_bytes: head.body_bytes,
            priority: head.priority,
            arrived_ms: moved.arrived_ms,
            deadline_ms: deadline_ms(&head, self.now_ms),
            failed: moved.failed,
            redelivered: moved.redelivered,
        });
        Ok(())
    }

    /// The broker ended here with its deliveries unsettled: what may have been delivered until then counts as delivered.
    fn interrupted(&mut self) {
        for RecoveredQueue { next, horizon, .. } in self.queues.values_mut() {
            for reach in horizon {
                reach.delivered = reach.delivered.max(reach.below.min(*next));
            }
        }
    }

    /// One queue less will take or decline the message.
    fn one_less(&mut self, position: Position) {
        if let Some(written) = self.written.get_mut(&position) {
            written.queues -= 1;
            if written.queues == 0 {
                self.written.remove(&position);
            }
        }
    }
}

/// When a message's own time to live is over. If the clock was set back since, it must not wait for longer than its
/// whole time to live because of that.
fn deadline_ms(head: &MessageHead, now_ms: u64) -> u64 {
    let Some(ttl_ms) = head.ttl_ms else { return u64::MAX };
    let left_ms = head.published_at_ms.saturating_add(ttl_ms).saturating_sub(now_ms).min(ttl_ms);
    now_ms.saturating_add(left_ms)
}

impl RecoveredQueue {
    /// The stubs of the messages that are in the queue, in order. Memory is given back on the way.
    pub fn into_stubs(self) -> impl Iterator<Item = Stub> {
        let Self { runs, mut returned, horizon, .. } = self;
        let highest = horizon.len().saturating_sub(1);
        let mut runs: Vec<_> = runs.into_iter().map(|run| run.into_stubs().peekable()).collect();
        let merged = std::iter::from_fn(move || {
            let next = |run: &mut std::iter::Peekable<_>| run.peek().map(|stub: &Stub| stub.seq);
            runs.iter_mut().filter_map(|run| Some((next(run)?, run))).min_by_key(|(seq, _)| *seq)?.1.next()
        });
        merged.map(move |mut stub| {
            if let Some(failed) = returned.remove(&stub.seq) {
                stub.failed = failed;
                stub.redelivered = true;
            }
            let level = usize::from(stub.priority).min(highest);
            stub.redelivered |= horizon.get(level).is_some_and(|reach| stub.seq < reach.delivered);
            stub
        })
    }

    /// Puts a message in. Most come in the order of their seqs, and need one run. What was moved goes behind the
    /// nearest that is before it, so that there are few runs however often messages were moved.
    fn take(&mut self, stub: Stub) {
        let before = |run: &&mut Run| run.last().is_none_or(|last| last < stub.seq);
        if let Some(run) = self.runs.iter_mut().filter(before).max_by_key(|run| run.last()) {
            run.take(stub);
        } else {
            let mut run = Run::default();
            run.take(stub);
            self.runs.push(run);
        }
    }

    /// Everything from `first` to before `end` has left.
    fn gone(&mut self, first: Seq, end: Seq) {
        self.next = self.next.max(end);
        while let Some((&seq, _)) = self.returned.range(first..end.max(first)).next() {
            self.returned.remove(&seq);
        }
        self.leave(first, end);
    }

    fn leave(&mut self, first: Seq, end: Seq) {
        self.runs.iter_mut().for_each(|run| run.leave(first, end));
    }
}

impl Run {
    fn into_stubs(self) -> impl Iterator<Item = Stub> {
        let packed = self.packs.into_iter().flat_map(|Settling { pack, gone }| {
            let is_there = move |stub: &Stub| {
                let before = gone.range(..=stub.seq.0).next_back();
                before.is_none_or(|(_, end)| *end <= stub.seq.0)
            };
            pack.stubs().filter(is_there).collect::<Vec<_>>()
        });
        packed.chain(self.open)
    }

    fn last(&self) -> Option<Seq> {
        let packed = self.packs.back().map(|settling| settling.pack.last());
        self.open.back().map(|stub| stub.seq).or(packed)
    }

    fn take(&mut self, stub: Stub) {
        if self.open.len() == STUBS_PER_PACK {
            let pack = Pack::new(&self.open);
            self.packs.extend(pack.map(|pack| Settling { pack, gone: BTreeMap::new() }));
            self.open.clear();
        }
        self.open.push_back(stub);
    }

    fn leave(&mut self, first: Seq, end: Seq) {
        let from = self.open.partition_point(|stub| stub.seq < first);
        let to = self.open.partition_point(|stub| stub.seq < end);
        self.open.drain(from..to.max(from));
        let mut at = self.packs.partition_point(|settling| settling.pack.last() < first);
        while let Some(settling) = self.packs.get_mut(at)
            && settling.pack.first() < end
        {
            if settling.settle(first.0, end.0) {
                self.packs.remove(at);
            } else {
                at += 1;
            }
        }
    }
}

impl Lost {
    /// Whether nothing is missing.
    pub fn is_nothing(&self) -> bool {
        self.ranges.is_empty()
    }

    fn covers(&self, position: Position) -> bool {
        // Ascending and apart, as the journal is.
        let at = self.ranges.partition_point(|range| range.end <= position);
        self.ranges.get(at).is_some_and(|range| range.contains(&position))
    }
}

impl Settling {
    /// Notes a range as gone; whether nothing is left.
    fn settle(&mut self, first: u64, end: u64) -> bool {
        let (mut first, mut end) = (first, end);
        while let Some((&start, &stop)) = self.gone.range(..=end).next_back()
            && stop >= first
        {
            self.gone.remove(&start);
            (first, end) = (first.min(start), end.max(stop));
        }
        self.gone.insert(first, end);
        first <= self.pack.first().0 && self.pack.last().0 < end
    }
}
