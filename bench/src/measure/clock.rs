//! The only caller of the clocks.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Times of one run, in nanoseconds since it began: what bodies carry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { start: now() }
    }

    /// Nanoseconds since the start.
    pub(crate) fn nanos(self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    pub(crate) fn elapsed(self) -> Duration {
        self.start.elapsed()
    }
}

#[allow(clippy::disallowed_methods, reason = "a benchmark measures time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Seconds since 1970-01-01 UTC.
#[allow(clippy::disallowed_methods, reason = "a report says when it was made")]
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
