//! How much memory messages may take up before they are left to the journal.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What of the budget ready messages that are in the journal take up at most, in bytes, before queues without consumers
/// let go of theirs. To have more of them in memory is no faster: they are read ahead of the consumers, and the system keeps
/// the journal's pages for as long as there is room.
const JOURNALED_BYTES_MAX: u64 = 48 << 20;

/// The same for queues with consumers, which are about to take them.
const JOURNALED_BYTES_MAX_AWAITED: u64 = 192 << 20;

/// How short memory is for a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shortage {
    /// There is enough.
    #[default]
    None,
    /// What is in the journal anyway takes up more than it should: who has much of it lets go of some.
    Tight,
    /// All that can go has to.
    Severe,
}

/// The one budget of all queues, in bytes of messages that are in memory. Queues account for what they have once a batch.
///
/// A message in several queues counts in each, and what a queue keeps ready for its consumers stays in memory whatever
/// the budget says: it is a threshold, and what exceeds it is bounded by the number of queues that are consumed from.
#[derive(Debug)]
pub struct Memory {
    max: u64,
    used: AtomicU64,
    journaled: AtomicU64,
    tight: Tight,
    tight_awaited: Tight,
}

/// Whether a limit was exceeded and a quarter below it has not been reached since: he who lets go makes room for a while,
/// and for others, too.
#[derive(Debug)]
struct Tight {
    max: u64,
    is: AtomicBool,
}

impl Tight {
    fn new(max: u64) -> Self {
        Self { max, is: AtomicBool::new(false) }
    }

    fn at(&self, bytes: u64) -> bool {
        let was = self.is.load(Ordering::Relaxed);
        let is = bytes > if was { self.max / 4 * 3 } else { self.max };
        if is != was {
            self.is.store(is, Ordering::Relaxed);
        }
        is
    }
}

/// What the messages of a queue take up in memory, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InMemory {
    /// All of them.
    pub bytes: u64,
    /// Those that wait to be delivered and are in the journal as well.
    pub journaled_bytes: u64,
}

impl Memory {
    /// A budget of that many bytes.
    pub fn new(max: u64) -> Self {
        Self {
            max,
            used: AtomicU64::new(0),
            journaled: AtomicU64::new(0),
            tight: Tight::new(JOURNALED_BYTES_MAX),
            tight_awaited: Tight::new(JOURNALED_BYTES_MAX_AWAITED),
        }
    }

    /// A queue that had `before` in memory has `now`.
    pub fn account(&self, before: InMemory, now: InMemory) {
        let add = |sum: &AtomicU64, before: u64, now: u64| {
            if before != now {
                sum.fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
            }
        };
        add(&self.used, before.bytes, now.bytes);
        add(&self.journaled, before.journaled_bytes, now.journaled_bytes);
    }

    /// How much messages take up.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Whether messages are to be given a record, even those that need none to be safe: only what has one can leave
    /// memory. Half of the budget is left when this begins, so that a queue of such messages never fills it.
    pub fn is_scarce(&self) -> bool {
        self.used() > self.max / 2
    }

    /// How short it is for queues, those with consumers or those without.
    pub fn shortage(&self, consumed: bool) -> Shortage {
        let tight = if consumed { &self.tight_awaited } else { &self.tight };
        if self.used() > self.max {
            Shortage::Severe
        } else if tight.at(self.journaled.load(Ordering::Relaxed)) {
            Shortage::Tight
        } else {
            Shortage::None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_the_journal_anyway_gets_a_small_part_of_a_large_budget() {
        let memory = Memory::new(1 << 30);
        let transient = InMemory { bytes: 100 << 20, journaled_bytes: 0 };
        memory.account(InMemory::default(), transient);
        assert!(memory.shortage(false) == Shortage::None && !memory.is_scarce());
        let journaled = InMemory { bytes: 60 << 20, journaled_bytes: 60 << 20 };
        memory.account(InMemory::default(), journaled);
        assert!(memory.shortage(false) == Shortage::Tight, "for those without consumers");
        assert!(!memory.is_scarce(), "what needs no record gets none for that");
        assert_eq!(memory.shortage(true), Shortage::None, "what consumers are about to take stays longer");
        let less = InMemory { bytes: 40 << 20, journaled_bytes: 40 << 20 };
        memory.account(journaled, less);
        assert_eq!(memory.shortage(false), Shortage::Tight, "until there is room for a while");
        memory.account(less, InMemory { bytes: 20 << 20, journaled_bytes: 20 << 20 });
        assert_eq!(memory.shortage(false), Shortage::None);
        assert_eq!(memory.used(), 120 << 20);
        memory.account(InMemory::default(), InMemory { bytes: 1 << 30, journaled_bytes: 0 });
        assert_eq!(memory.shortage(true), Shortage::Severe);
    }
}
