//! The only caller of `Instant::now` and `SystemTime::now`.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970-01-01 UTC that never go back while the broker runs.
///
/// The wall clock is read once, at the start; from then on the monotonic clock counts. A wall clock that jumps
/// therefore neither expires a message early nor keeps one for ever.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    started: Instant,
    wall_at_start_ms: u64,
}

impl Clock {
    /// A clock that starts at the wall's time.
    #[allow(clippy::disallowed_methods, reason = "this is the one place that reads the clocks")]
    pub fn start() -> Self {
        let wall_at_start_ms =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        Self { started: Instant::now(), wall_at_start_ms }
    }

    /// The time now. Read it once for a batch, not for a message.
    pub fn now_ms(&self) -> u64 {
        self.wall_at_start_ms + self.started.elapsed().as_millis() as u64
    }
}
