//! The messages that wait to be delivered.

mod level;

use std::collections::VecDeque;

use leveret_journal::Position;
use smallvec::SmallVec;

use self::level::Level;
use super::entry::{Entry, NEVER};
use crate::store::{Message, Pack, Place, STUBS_PER_PACK, Seq, Shortage, Stub, Stubs};

/// Deques below this capacity never give memory back.
const CAPACITY_KEPT: usize = 4096;

/// How many messages, or bytes of them, are read from the journal at once.
/// (In tests a few; see below, too.)
const READ_MESSAGES_MAX: usize = if cfg!(test) { 3 } else { 2048 };
const READ_BYTES_MAX: u64 = 1024 * 1024;
/// More is read when fewer bytes than this wait in memory: half of what is read at once, so that consumers work on one
/// half while the other is on its way. (In tests everything can be read, to compare with a queue that never forgets.)
const READ_AHEAD_BYTES: u64 = if cfg!(test) { u64::MAX } else { READ_BYTES_MAX / 2 };
/// What of a queue stays in memory although memory is short, in bytes of messages: more than is ever read ahead, or what
/// was read would be let go of at once.
const KEPT_BYTES: u64 = if cfg!(test) { 400 } else { 2 * READ_BYTES_MAX };

/// The same while it is not that short: what a consumer that keeps up never has waiting. It is not its queue that lets go
/// for one that has more.
const KEPT_BYTES_TIGHT: u64 = if cfg!(test) { 2 * KEPT_BYTES } else { 8 * KEPT_BYTES };

/// And no more messages than that, however small they are: they are counted whenever some have to go.
const KEPT_MESSAGES_MAX: usize = 8192;

/// How many messages leave memory in one go: more than come with one batch.
const UNLOADED_AT_ONCE: usize = if cfg!(test) { 3 } else { 1024 };

/// All ready messages: a level for each priority, and on each the order of arrival.
#[derive(Debug)]
pub(super) struct Ready {
    /// Lowest priority first; at least one.
    levels: Vec<Level>,
    /// One bit for each level that is not empty, so that 256 levels cost no search.
    occupied: [u64; 4],
    len: u64,
    body_bytes: u64,
    /// What messages that are in memory take up there.
    loaded_bytes: u64,
    /// And those among them that are in the journal as well, so that they could go.
    journaled_bytes: u64,
    /// How many messages are only in the journal.
    stored: u64,
}

/// Messages to be read: those among the next ones that are not in memory.
#[derive(Debug, Default)]
pub struct Wanted {
    /// Their places in the queue.
    pub seqs: Vec<Seq>,
    /// Their places in the journal, in the same order.
    pub places: Vec<Place>,
    bytes: u64,
    loaded_bytes: u64,
    messages_max: usize,
}

impl Wanted {
    /// Takes an entry, the next one in order, into account; whether there is room for more.
    pub(super) fn look_at(&mut self, entry: &Entry) -> bool {
        if let Some(place) = entry.content.place().filter(|_| !entry.is_loaded()) {
            self.seqs.push(entry.seq);
            self.places.push(place.clone());
            self.bytes += u64::from(entry.body_bytes);
        } else {
            self.loaded_bytes += entry.loaded_bytes();
        }
        self.seqs.len() < self.messages_max
            && self.bytes < READ_BYTES_MAX
            && self.loaded_bytes < READ_AHEAD_BYTES
    }
}

impl Ready {
    pub(super) fn new(priority_max: Option<u8>) -> Self {
        let levels = usize::from(priority_max.unwrap_or(0)) + 1;
        Self {
            levels: (0..levels).map(|_| Level::default()).collect(),
            occupied: [0; 4],
            len: 0,
            body_bytes: 0,
            loaded_bytes: 0,
            journaled_bytes: 0,
            stored: 0,
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The bytes of all bodies.
    pub(super) fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    /// What messages take up in memory.
    pub(super) fn loaded_bytes(&self) -> u64 {
        self.loaded_bytes
    }

    /// What those among them take up that are in the journal as well.
    pub(super) fn journaled_bytes(&self) -> u64 {
        self.journaled_bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Puts a message at its place: a new one at the end of its level, one that comes back where it was.
    pub(super) fn put(&mut self, entry: Entry) {
        let at = self.level_of(entry.priority);
        let Some(level) = self.levels.get_mut(at) else { return };
        self.len += 1;
        self.body_bytes += u64::from(entry.body_bytes);
        self.loaded_bytes += entry.loaded_bytes();
        self.journaled_bytes += entry.journaled_bytes();
        self.stored += u64::from(!entry.is_loaded());
        level.put(entry);
        self.occupy(at);
    }

    /// Puts messages in that are only in the journal, in the order of their seqs, and behind all that are there.
    pub(super) fn put_stubs(&mut self, stubs: impl Iterator<Item = Stubs>) {
        let mut waiting: Vec<Vec<Stub>> = self.levels.iter().map(|_| Vec::new()).collect();
        for stubs in stubs {
            match (stubs, waiting.as_mut_slice()) {
                // On the only level a pack stays as it is.
                (Stubs::Pack(pack), [before]) => {
                    self.pack(0, before);
                    self.put_pack(0, pack);
                }
                (stubs, waiting) => {
                    for stub in stubs {
                        let at = self.level_of(stub.priority);
                        let Some(of_level) = waiting.get_mut(at) else { continue };
                        of_level.push(stub);
                        if of_level.len() == STUBS_PER_PACK {
                            self.pack(at, of_level);
                        }
                    }
                }
            }
        }
        for (at, mut of_level) in waiting.into_iter().enumerate() {
            self.pack(at, &mut of_level);
        }
    }

    /// Takes the message that is to be delivered next: the oldest of the highest level.
    pub(super) fn pop_next(&mut self) -> Option<Entry> {
        self.pop_from(self.highest()?)
    }

    /// Takes the message that a full queue drops first: the oldest of the lowest level. (RabbitMQ drops the oldest of
    /// the highest, which loses what matters most; this differs on purpose.)
    pub(super) fn pop_least(&mut self) -> Option<Entry> {
        self.pop_from(self.lowest()?)
    }

    /// Takes the message that is to be delivered next, if it has expired.
    pub(super) fn pop_next_expired(&mut self, now_ms: u64) -> Option<Entry> {
        let at = self.highest()?;
        if self.levels.get(at)?.head_deadline_ms() <= now_ms { self.pop_from(at) } else { None }
    }

    /// Takes the first of all heads that has expired. Behind the heads nobody looks: that would need an index of all
    /// deadlines to gain nothing but space.
    pub(super) fn pop_expired(&mut self, now_ms: u64) -> Option<Entry> {
        let at = self.head_deadlines().find(|(_, deadline_ms)| *deadline_ms <= now_ms).map(|(at, _)| at)?;
        self.pop_from(at)
    }

    /// Each level's first message, lowest priority first; none if the level is empty.
    pub(super) fn firsts(&self) -> impl Iterator<Item = Option<Seq>> {
        self.levels.iter().map(Level::head_seq)
    }

    /// On which level the messages of a priority are.
    pub(super) fn level_of(&self, priority: u8) -> usize {
        usize::from(priority).min(self.levels.len() - 1)
    }

    /// When the first of the heads expires.
    pub(super) fn next_deadline_ms(&self) -> Option<u64> {
        self.head_deadlines().map(|(_, deadline_ms)| deadline_ms).min().filter(|deadline| *deadline != NEVER)
    }

    /// Whether the message that is to be delivered next is in memory.
    pub(super) fn next_is_loaded(&self) -> bool {
        self.stored == 0
            || self.highest().and_then(|at| self.levels.get(at)).is_some_and(Level::head_is_loaded)
    }

    /// Whether something is to be read. What it costs depends on what is ready in memory, not on the backlog.
    pub(super) fn wants(&self) -> bool {
        let mut ahead_bytes = READ_AHEAD_BYTES;
        self.stored > 0
            && self.levels.iter().rev().any(|level| ahead_bytes > 0 && level.wants(&mut ahead_bytes))
    }

    /// What is to be read, so that there is something to deliver: at most that many messages.
    pub(super) fn wanted(&mut self, messages_max: usize) -> Wanted {
        let messages_max = messages_max.min(READ_MESSAGES_MAX);
        let mut wanted = Wanted { messages_max, ..Wanted::default() };
        if self.stored > 0 {
            // The result says only who was the first to have enough.
            let _ = self.levels.iter_mut().rev().all(|level| level.want(&mut wanted));
        }
        wanted
    }

    /// A message has been read.
    pub(super) fn load(&mut self, seq: Seq, message: Message) {
        let at = self.level_of(message.priority);
        let bytes = self.levels.get_mut(at).map_or(0, |level| level.load(seq, message));
        if bytes > 0 {
            self.loaded_bytes += bytes;
            self.journaled_bytes += bytes;
            self.stored -= 1;
        }
    }

    /// Those among the first messages from `from` on whose records are before a position: at most so many.
    pub(super) fn before(&self, position: Position, from: Seq, most: usize) -> Vec<Stub> {
        self.levels.iter().flat_map(|level| level.before(position, from, most)).collect()
    }

    /// Moves the records of messages, which are in the order of their seqs: see [`Entry::relocate`].
    pub(super) fn relocate(&mut self, stubs: &[&Stub], put: &mut dyn FnMut(&Stub) -> Option<Place>) {
        let highest = self.levels.len() - 1;
        for (at, level) in self.levels.iter_mut().enumerate() {
            let of_level = |stub: &&&Stub| usize::from(stub.priority).min(highest) == at;
            let of_level: Vec<&Stub> = stubs.iter().filter(of_level).copied().collect();
            level.relocate(&of_level, put);
        }
    }

    /// Memory is short: lets go of messages that are in the journal, but for the next ones; of those as well if
    /// nobody waits for them. Of so many at a time that whoever waits for the queue's lock does not notice. Whether there
    /// may be more.
    pub(super) fn unload(&mut self, shortage: Shortage, awaited: bool) -> bool {
        let mut keep_bytes = match shortage {
            Shortage::None => return false,
            _ if !awaited => 0,
            Shortage::Severe => KEPT_BYTES,
            Shortage::Tight => KEPT_BYTES_TIGHT,
        };
        if self.journaled_bytes <= keep_bytes {
            return false;
        }
        let mut keep_messages = if awaited { KEPT_MESSAGES_MAX } else { 0 };
        let kept = self.levels.iter().rev().map(|level| {
            let (messages, bytes) = level.first_with(keep_bytes, keep_messages);
            keep_bytes -= bytes;
            keep_messages -= messages;
            messages
        });
        let kept: SmallVec<[usize; 1]> = kept.collect();
        let (mut most, mut goes_on) = (UNLOADED_AT_ONCE, false);
        for (level, kept) in self.levels.iter_mut().zip(kept.into_iter().rev()) {
            if most == 0 {
                return true;
            }
            let freed = level.unload(kept, most);
            self.loaded_bytes -= freed.bytes;
            self.journaled_bytes -= freed.bytes;
            self.stored += freed.messages;
            most = most.saturating_sub(freed.messages as usize);
            goes_on |= freed.goes_on();
        }
        goes_on
    }

    fn occupy(&mut self, at: usize) {
        if let Some(word) = self.occupied.get_mut(at / 64) {
            *word |= 1 << (at % 64);
        }
    }

    /// Packs the stubs, and empties them.
    fn pack(&mut self, at: usize, stubs: &mut Vec<Stub>) {
        if let Some(pack) = Pack::new(&*stubs) {
            self.put_pack(at, pack);
        }
        stubs.clear();
    }

    fn put_pack(&mut self, at: usize, pack: Pack) {
        let Some(level) = self.levels.get_mut(at) else { return };
        self.len += pack.count();
        self.body_bytes += pack.body_bytes();
        self.stored += pack.count();
        level.put_pack(pack);
        self.occupy(at);
    }

    /// The deadline of the head of each level that is not empty, highest first.
    fn head_deadlines(&self) -> impl Iterator<Item = (usize, u64)> {
        let levels = self.levels.iter().enumerate().rev();
        levels.filter(|(at, _)| self.is_occupied(*at)).map(|(at, level)| (at, level.head_deadline_ms()))
    }

    fn pop_from(&mut self, at: usize) -> Option<Entry> {
        let level = self.levels.get_mut(at)?;
        let entry = level.pop()?;
        if level.is_empty()
            && let Some(word) = self.occupied.get_mut(at / 64)
        {
            *word &= !(1 << (at % 64));
        }
        self.len -= 1;
        self.body_bytes -= u64::from(entry.body_bytes);
        self.loaded_bytes -= entry.loaded_bytes();
        self.journaled_bytes -= entry.journaled_bytes();
        self.stored -= u64::from(!entry.is_loaded());
        Some(entry)
    }

    fn is_occupied(&self, at: usize) -> bool {
        self.occupied.get(at / 64).is_some_and(|word| word & (1 << (at % 64)) != 0)
    }

    fn highest(&self) -> Option<usize> {
        let (at, word) = self.occupied.iter().enumerate().rfind(|(_, word)| **word != 0)?;
        Some(at * 64 + word.ilog2() as usize)
    }

    fn lowest(&self) -> Option<usize> {
        let (at, word) = self.occupied.iter().enumerate().find(|(_, word)| **word != 0)?;
        Some(at * 64 + word.trailing_zeros() as usize)
    }
}

/// Gives back half of a deque that is nearly empty, so that a long backlog does not occupy memory for ever. Each
/// shrinking pays for itself: as many pops went before it.
pub(in crate::queue) fn shrink_if_sparse<T>(deque: &mut VecDeque<T>) {
    let capacity = deque.capacity();
    if capacity > CAPACITY_KEPT && deque.len() < capacity / 8 {
        deque.shrink_to(capacity / 2);
    }
}
