//! How long a queue may get, and how often a message may fail.

use super::settings::{Overflow, Settings};

/// Why a queue did not take a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// The message would have made it longer than `x-max-length` or `x-max-length-bytes` allow.
    #[error(
        "the queue is full: {ready} messages with {bytes} bytes are ready, and it refuses what exceeds its limits"
    )]
    Full {
        /// The messages that are ready.
        ready: u64,
        /// The bytes of their bodies.
        bytes: u64,
    },
}

/// The limits of a queue. The length limits count ready messages only; all that are set apply.
#[derive(Debug)]
pub(super) struct Limits {
    messages: u64,
    bytes: u64,
    deliveries_failed: u32,
    pub(super) overflow: Overflow,
}

impl Limits {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            messages: settings.length_max.unwrap_or(u64::MAX),
            bytes: settings.bytes_max.unwrap_or(u64::MAX),
            deliveries_failed: settings.delivery_limit.unwrap_or(u32::MAX),
            overflow: settings.overflow,
        }
    }

    pub(super) fn exceeded(&self, messages: u64, bytes: u64) -> bool {
        messages > self.messages || bytes > self.bytes
    }

    pub(super) fn poisonous(&self, failed: u32) -> bool {
        failed > self.deliveries_failed
    }
}
