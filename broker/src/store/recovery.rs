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
use super::runs::{Merged, Run};
use super::stub::{Pack, Stub, Stubs};
use super::{Pins, Place, QueueId, Reach, Seq};

/// Takes every record of the journal in order and keeps what is still alive.
#[derive(Debug)]
pub struct Replay {
    places: Places,
    now_ms: u64,
    written: Untaken,
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

/// Messages that queues have yet to take or decline: few at a time, since they do so at once.
#[derive(Debug, Default)]
struct Untaken {
    /// In the order of their positions, as the journal has them. Some have been taken: those at the front go at once.
    messages: VecDeque<Written>,
    /// How many of them have been taken.
    taken: usize,
    /// Where the next that is looked for usually is: behind the last that was found.
    next: usize,
}

#[derive(Debug)]
struct Written {
    position: Position,
    head: MessageHead,
    /// How many queues have yet to take or decline it.
    queues: u32,
}

/// Places of records, most of which are in the same segment as the one before.
#[derive(Debug)]
struct Places {
    pins: Arc<Pins>,
    last: Option<Place>,
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

/// So many messages that have been taken are kept among the others at least, before it is worth looking for them.
const TAKEN_MAX: usize = if cfg!(test) { 3 } else { 4096 };

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

impl Replay {
    /// A replay at the time `now_ms`, for a journal whose segments `pins` keeps.
    pub fn new(pins: Arc<Pins>, now_ms: u64) -> Self {
        Self {
            places: Places { pins, last: None },
            now_ms,
            written: Untaken::default(),
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
                    self.places.pins.weigh(record.payload.len().saturating_sub(head.body_bytes as usize));
                    self.written.add(Written { position: record.position, head, queues: head.queues });
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
                let queue = self.queues.entry(queue).or_default();
                // Perhaps of a message that is nowhere else in the journal: its place is not used again either.
                let next = returned.last().map_or(0, |(seq, _)| seq.0.saturating_add(1));
                queue.next = queue.next.max(Seq(next));
                queue.returned.extend(returned);
            }
            kind::DECLINED => {
                for position in record::decode_declined(record.payload)? {
                    self.written.take(position);
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

    /// How many messages take up memory although all queues may have taken them.
    #[cfg(test)]
    pub(super) fn messages_kept(&self) -> usize {
        self.written.messages.len()
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
        let queue = self.queues.entry(enqueue.queue).or_default();
        for (seq, position) in (enqueue.first.0..).map(Seq).zip(&enqueue.positions) {
            queue.next = queue.next.max(Seq(seq.0.saturating_add(1)));
            // Whatever came back to this place before was another message, of which only that was journaled.
            queue.returned.remove(&seq);
            let Some(head) = self.written.take(*position) else {
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
                place: self.places.at(*position),
                body_bytes: head.body_bytes,
                priority: head.priority,
                arrived_ms: enqueue.at_ms,
                deadline_ms: deadline_ms(&head, self.now_ms),
                failed: 0,
                redelivered: false,
            });
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
            place: self.places.at(position),
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
}

impl Untaken {
    fn len(&self) -> usize {
        self.messages.len() - self.taken
    }

    fn add(&mut self, written: Written) {
        // One that is never taken (the broker ended in between) must not keep all behind it.
        if self.taken > TAKEN_MAX.max(self.len()) {
            self.messages.retain(|written| written.queues > 0);
            self.taken = 0;
        }
        self.messages.push_back(written);
    }

    /// One queue takes or declines a message: its head, if it is there.
    fn take(&mut self, position: Position) -> Option<MessageHead> {
        let is_it = |at: &usize| self.messages.get(*at).is_some_and(|written| written.position == position);
        let search = || self.messages.binary_search_by_key(&position, |written| written.position).ok();
        let at = Some(self.next).filter(is_it).or_else(search)?;
        let written = self.messages.get_mut(at).filter(|written| written.queues > 0)?;
        written.queues -= 1;
        let head = written.head;
        self.taken += usize::from(written.queues == 0);
        self.next = at + 1;
        while self.messages.front().is_some_and(|first| first.queues == 0) {
            self.messages.pop_front();
            self.taken -= 1;
            self.next = self.next.saturating_sub(1);
        }
        Some(head)
    }
}

impl Places {
    fn at(&mut self, position: Position) -> Place {
        let near = self.last.as_ref().and_then(|last| last.neighbour(position));
        near.unwrap_or_else(|| {
            let place = self.pins.pin(position);
            self.last = Some(place.clone());
            place
        })
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
    /// The messages that are in the queue, in order: packed as they are here, where nothing happened to any of a pack.
    /// Memory is given back on the way.
    pub fn into_stubs(self) -> impl Iterator<Item = Stubs> {
        let Self { runs, mut returned, horizon, .. } = self;
        let mut runs = Merged::new(runs);
        let highest = horizon.len().saturating_sub(1);
        let delivered = horizon.iter().map(|reach| reach.delivered).max().unwrap_or_default();
        std::iter::from_fn(move || {
            let as_it_was = |pack: &Pack| {
                delivered <= pack.first() && returned.range(pack.first()..=pack.last()).next().is_none()
            };
            let mut next = runs.next(as_it_was)?;
            if let Stubs::One(stub) = &mut next {
                if let Some(failed) = returned.remove(&stub.seq) {
                    stub.failed = failed;
                    stub.redelivered = true;
                }
                let level = usize::from(stub.priority).min(highest);
                stub.redelivered |= horizon.get(level).is_some_and(|reach| stub.seq < reach.delivered);
            }
            Some(next)
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
