//! Reads messages back for queues that had let go of them, on a few threads, since that waits for the disk.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Vhost;
use crate::clock::Clock;
use crate::queue::{Queue, Work};

/// How many reads wait for the disk at one time.
pub const READERS: usize = 2;

/// The queues for which something is to be read. Each is there at most once, as it asks only once.
#[derive(Debug, Default)]
pub struct Readers {
    asked: Mutex<VecDeque<(Weak<Vhost>, Weak<Queue>)>>,
    bell: Notify,
}

impl Readers {
    /// Lets [`Queue::read`] be called soon.
    pub(super) fn ask(&self, vhost: &Arc<Vhost>, queue: &Arc<Queue>) {
        self.asked.lock().push_back((Arc::downgrade(vhost), Arc::downgrade(queue)));
        self.bell.notify_one();
    }

    /// Reads for one queue after the other, for ever. [`READERS`] of these run side by side.
    pub async fn run(&self, clock: Clock) {
        let mut work = Work::default();
        loop {
            let next = self.asked.lock().pop_front();
            let Some((vhost, queue)) = next else {
                self.bell.notified().await;
                continue;
            };
            let (Some(vhost), Some(queue)) = (vhost.upgrade(), queue.upgrade()) else { continue };
            work.now_ms = clock.now_ms();
            let read = tokio::task::spawn_blocking(move || {
                // A queue that was deleted meanwhile needs nothing any more.
                let _ = queue.read(&mut work);
                vhost.finish(&mut work);
                work
            });
            work = read.await.unwrap_or_default();
        }
    }
}
