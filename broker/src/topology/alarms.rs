//! One timer for all queues: who has to be woken when, because a message or the queue itself expires.
//!
//! An idle queue has no entry, and no queue has more than one.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::sync::Notify;

use super::Vhost;
use crate::clock::Clock;
use crate::queue::{Queue, Work};
use crate::store::QueueId;

/// The alarms that are set.
#[derive(Debug, Default)]
pub struct Alarms {
    set: Mutex<Set>,
    /// Rung when an alarm is set before all others.
    earlier: Notify,
}

#[derive(Debug, Default)]
struct Set {
    by_time: BTreeMap<(u64, QueueId), (Weak<Vhost>, Weak<Queue>)>,
    by_queue: FxHashMap<QueueId, u64>,
}

#[cfg(test)]
impl Alarms {
    /// For when each alarm is set, earliest first.
    pub(super) fn times(&self) -> Vec<u64> {
        self.set.lock().by_time.keys().map(|(at_ms, _)| *at_ms).collect()
    }
}

/// How many queues are woken before others get a chance to run.
const DUE_PER_TURN: usize = 256;

impl Alarms {
    /// Sets the queue's alarm to `at_ms`, unless it is set to an earlier time: who decided on an alarm later may come
    /// here before who decided earlier.
    pub fn set(&self, at_ms: u64, vhost: &Arc<Vhost>, queue: &Arc<Queue>) {
        let mut set = self.set.lock();
        match set.by_queue.get(&queue.id).copied() {
            Some(before) if before <= at_ms => return,
            Some(before) => drop(set.by_time.remove(&(before, queue.id))),
            None => {}
        }
        set.by_queue.insert(queue.id, at_ms);
        set.by_time.insert((at_ms, queue.id), (Arc::downgrade(vhost), Arc::downgrade(queue)));
        if set.by_time.first_key_value().is_some_and(|(first, _)| *first == (at_ms, queue.id)) {
            self.earlier.notify_one();
        }
    }

    /// The queue is gone. Its alarm may be years ahead, and would keep its place until then.
    pub fn forget(&self, queue: QueueId) {
        let mut set = self.set.lock();
        if let Some(at_ms) = set.by_queue.remove(&queue) {
            set.by_time.remove(&(at_ms, queue));
        }
    }

    /// Wakes queues when their time has come, for ever.
    pub async fn run(&self, clock: Clock) {
        let mut work = Work::default();
        loop {
            work.now_ms = clock.now_ms();
            let due = self.take_due(work.now_ms);
            if due.is_empty() {
                self.wait(clock).await;
                continue;
            }
            for (vhost, queue) in due {
                // Deleting the queue has ended it otherwise, which is no failure.
                if queue.tick(&mut work).is_ok() {
                    vhost.finish(&mut work);
                }
            }
            tokio::task::yield_now().await;
        }
    }

    async fn wait(&self, clock: Clock) {
        let earlier = self.earlier.notified();
        let next = self.set.lock().by_time.first_key_value().map(|((at, _), _)| *at);
        match next {
            None => earlier.await,
            Some(at) => {
                let pause = Duration::from_millis(at.saturating_sub(clock.now_ms()));
                // Whichever comes first, the loop looks again.
                let _ = tokio::time::timeout(pause, earlier).await;
            }
        }
    }

    fn take_due(&self, now_ms: u64) -> Vec<(Arc<Vhost>, Arc<Queue>)> {
        let mut set = self.set.lock();
        let mut due = Vec::new();
        while due.len() < DUE_PER_TURN
            && let Some(entry) = set.by_time.first_entry()
            && entry.key().0 <= now_ms
        {
            let ((_, id), (vhost, queue)) = entry.remove_entry();
            set.by_queue.remove(&id);
            if let (Some(vhost), Some(queue)) = (vhost.upgrade(), queue.upgrade()) {
                due.push((vhost, queue));
            }
        }
        due
    }
}
