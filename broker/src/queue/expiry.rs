//! When a message, or the queue itself, has been there for too long.

use super::entry::NEVER;
use crate::store::Message;

/// When a message expires in a queue that it arrives in at `now_ms`; the shorter of the two times to live counts.
/// A queue's runs from the arrival, a message's own from its publish.
pub(super) fn deadline_ms(message: &Message, queue_ttl_ms: Option<u64>, now_ms: u64) -> u64 {
    let own = message.ttl_ms.map_or(NEVER, |ttl| end_ms(message.published_at_ms, ttl, now_ms));
    let queue = queue_ttl_ms.map_or(NEVER, |ttl| end_ms(now_ms, ttl, now_ms));
    own.min(queue)
}

/// When a time to live ends that began at `start_ms`. If the clock was set back between two runs, the start lies in the
/// future: a message must not wait for longer than its whole time to live because of that.
pub(super) fn end_ms(start_ms: u64, ttl_ms: u64, now_ms: u64) -> u64 {
    let left_ms = start_ms.saturating_add(ttl_ms).saturating_sub(now_ms).min(ttl_ms);
    now_ms.saturating_add(left_ms)
}

/// How long a queue may stay unused (`x-expires`).
#[derive(Debug)]
pub(super) struct Lease {
    length_ms: Option<u64>,
    used_ms: u64,
}

impl Lease {
    pub(super) fn new(length_ms: Option<u64>, now_ms: u64) -> Self {
        Self { length_ms, used_ms: now_ms }
    }

    pub(super) fn renew(&mut self, now_ms: u64) {
        self.used_ms = now_ms;
    }

    /// When it ends, provided that nobody uses the queue.
    pub(super) fn end_ms(&self) -> Option<u64> {
        self.length_ms.map(|length| self.used_ms.saturating_add(length))
    }
}
