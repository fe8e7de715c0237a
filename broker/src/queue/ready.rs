//! The messages that wait to be delivered.

use std::collections::{BTreeMap, VecDeque};

use super::entry::{Entry, NEVER};

/// Deques below this capacity never give memory back.
const CAPACITY_KEPT: usize = 4096;

/// All ready messages: a level for each priority, and on each the order of arrival.
#[derive(Debug)]
pub(super) struct Ready {
    /// Lowest priority first; at least one.
    levels: Vec<Level>,
    /// One bit for each level that is not empty, so that 256 levels cost no search.
    occupied: [u64; 4],
    len: u64,
    bytes: u64,
}

/// The ready messages of one priority, in the order of their arrival, which is that of their `seq`.
#[derive(Debug, Default)]
struct Level {
    /// In order. New messages go to its end, and most of those that come back to its front.
    run: VecDeque<Entry>,
    /// Messages that came back, or were restored, out of order, and whose place is inside the run.
    strays: BTreeMap<u64, Entry>,
}

impl Ready {
    pub(super) fn new(priority_max: Option<u8>) -> Self {
        let levels = usize::from(priority_max.unwrap_or(0)) + 1;
        Self { levels: (0..levels).map(|_| Level::default()).collect(), occupied: [0; 4], len: 0, bytes: 0 }
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The bytes of all bodies.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Puts a message at its place: a new one at the end of its level, one that comes back where it was.
    pub(super) fn put(&mut self, entry: Entry) {
        let at = usize::from(entry.message.priority).min(self.levels.len() - 1);
        let Some(level) = self.levels.get_mut(at) else { return };
        self.len += 1;
        self.bytes += entry.bytes();
        level.put(entry);
        if let Some(word) = self.occupied.get_mut(at / 64) {
            *word |= 1 << (at % 64);
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
        self.pop_expired_from(self.highest()?, now_ms)
    }

    /// Takes the first of all heads that has expired. Behind the heads nobody looks: that would need an index of all
    /// deadlines to gain nothing but space.
    pub(super) fn pop_expired(&mut self, now_ms: u64) -> Option<Entry> {
        let at = self.heads().find(|(_, head)| head.expired(now_ms)).map(|(at, _)| at)?;
        self.pop_from(at)
    }

    /// When the first of the heads expires.
    pub(super) fn next_deadline_ms(&self) -> Option<u64> {
        self.heads().map(|(_, head)| head.deadline_ms).min().filter(|deadline| *deadline != NEVER)
    }

    /// The head of each level that is not empty, highest first.
    fn heads(&self) -> impl Iterator<Item = (usize, &Entry)> {
        let levels = self.levels.iter().enumerate().rev();
        levels.filter(|(at, _)| self.is_occupied(*at)).filter_map(|(at, level)| Some((at, level.head()?)))
    }

    fn pop_expired_from(&mut self, at: usize, now_ms: u64) -> Option<Entry> {
        if self.levels.get(at)?.head()?.expired(now_ms) { self.pop_from(at) } else { None }
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
        self.bytes -= entry.bytes();
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

impl Level {
    fn is_empty(&self) -> bool {
        self.run.is_empty() && self.strays.is_empty()
    }

    fn put(&mut self, entry: Entry) {
        if self.run.back().is_none_or(|back| back.seq < entry.seq) {
            self.run.push_back(entry);
        } else if self.run.front().is_some_and(|front| entry.seq < front.seq) {
            self.run.push_front(entry);
        } else {
            self.strays.insert(entry.seq.0, entry);
        }
    }

    fn head(&self) -> Option<&Entry> {
        if self.stray_is_first() { self.strays.values().next() } else { self.run.front() }
    }

    fn pop(&mut self) -> Option<Entry> {
        if self.stray_is_first() {
            return self.strays.pop_first().map(|(_, entry)| entry);
        }
        let entry = self.run.pop_front();
        shrink_if_sparse(&mut self.run);
        entry
    }

    fn stray_is_first(&self) -> bool {
        match self.strays.first_key_value() {
            None => false,
            Some((seq, _)) => self.run.front().is_none_or(|front| *seq < front.seq.0),
        }
    }
}

/// Gives back half of a deque that is nearly empty, so that a long backlog does not occupy memory for ever. Each
/// shrinking pays for itself: as many pops went before it.
pub(super) fn shrink_if_sparse<T>(deque: &mut VecDeque<T>) {
    let capacity = deque.capacity();
    if capacity > CAPACITY_KEPT && deque.len() < capacity / 8 {
        deque.shrink_to(capacity / 2);
    }
}
