//! Who waits for the disk may commit by himself, on the thread that he runs on: see `docs/decisions/0015`.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::runtime::Handle;

use crate::clock::Clock;
use crate::store::Store;

/// A sync that takes this long holds up a thread that others need, in milliseconds.
const SYNC_MAX_MS: u64 = 5;

/// How long nobody commits by himself after such a sync, in milliseconds.
const PAUSE_MS: u64 = 1000;

/// Whether writers may commit by themselves. One at a time does.
#[derive(Debug)]
pub struct Committing {
    /// The runtime has another thread, which goes on meanwhile.
    possible: bool,
    /// In milliseconds since 1970.
    from_ms: AtomicU64,
}

impl Committing {
    /// For connections on the runtime of the caller.
    ///
    /// # Panics
    ///
    /// Outside of a runtime.
    pub fn on_this_runtime() -> Self {
        Self { possible: Handle::current().metrics().num_workers() > 1, from_ms: AtomicU64::new(0) }
    }

    /// Sees to it that what has been written is committed soon; `true` if it is now.
    pub(super) fn commit_or_hurry(&self, store: &Store, clock: &Clock) -> bool {
        let before_ms = clock.now_ms();
        if !self.possible || before_ms < self.from_ms.load(Ordering::Relaxed) {
            store.hurry();
            return false;
        }
        let committed = store.commit_or_hurry();
        if committed {
            let now_ms = clock.now_ms();
            if now_ms - before_ms >= SYNC_MAX_MS {
                self.from_ms.store(now_ms + PAUSE_MS, Ordering::Relaxed);
            }
        }
        committed
    }
}
