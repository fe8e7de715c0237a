//! How much memory messages may take up before they are left to the journal.

use std::sync::atomic::{AtomicU64, Ordering};

/// The one budget of all queues, in bytes of messages that are in memory. Queues account for what they have once a batch.
///
/// A message in several queues counts in each, and what a queue keeps ready for its consumers stays in memory whatever
/// the budget says: it is a threshold, and what exceeds it is bounded by the number of queues that are consumed from.
#[derive(Debug)]
pub struct Memory {
    max: u64,
    used: AtomicU64,
}

impl Memory {
    /// A budget of that many bytes.
    pub fn new(max: u64) -> Self {
        Self { max, used: AtomicU64::new(0) }
    }

    /// A queue that had `before` bytes in memory has `now`.
    pub fn account(&self, before: u64, now: u64) {
        if before != now {
            self.used.fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
        }
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

    /// Whether queues are to let go of what they need not have in memory.
    pub fn is_short(&self) -> bool {
        self.used() > self.max
    }
}
