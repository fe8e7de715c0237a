//! One message in one queue.

use std::sync::Arc;

use crate::store::{Message, Seq};

/// The deadline of a message that never expires.
pub(super) const NEVER: u64 = u64::MAX;

/// A message and what this queue knows of it. It moves between ready and unacked as a whole.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) seq: Seq,
    pub(super) message: Arc<Message>,
    /// From this time on it is not delivered any more, in milliseconds since 1970; [`NEVER`] without a limit.
    pub(super) deadline_ms: u64,
    /// How many of its deliveries failed.
    pub(super) failed: u32,
    /// Whether anybody may have seen it before.
    pub(super) redelivered: bool,
}

// Ten million waiting messages are ten million of these.
const _: () = assert!(size_of::<Option<Entry>>() == 32);

impl Entry {
    /// What counts towards a queue's byte limit: the body alone, as in RabbitMQ.
    pub(super) fn bytes(&self) -> u64 {
        self.message.body.len() as u64
    }

    pub(super) fn expired(&self, now_ms: u64) -> bool {
        self.deadline_ms <= now_ms
    }
}
