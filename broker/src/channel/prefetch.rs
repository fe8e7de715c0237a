//! A limit of unsettled deliveries for all consumers of a channel together, beside that of each of them.

use std::ops::Bound;
use std::sync::Arc;

use super::{Channel, Held};
use crate::queue::{Share, SharedCredit, Work};

/// The prefetch that the consumers of one channel share.
#[derive(Debug)]
pub(super) struct SharedPrefetch {
    credit: Arc<SharedCredit>,
    /// The consumer that was given a turn last, so that credit that comes back goes round among the queues.
    last_served: u32,
}

impl SharedPrefetch {
    pub(super) fn share(&self) -> Arc<Share> {
        Arc::new(Share::new(Arc::clone(&self.credit)))
    }
}

impl Held {
    /// Its queue is gone, and has taken its deliveries along.
    pub(super) fn abandon(&self) {
        if let Some(share) = &self.share {
            share.abandon();
        }
    }
}

impl Channel {
    /// Lets all consumers of the channel together, now and later, have at most `max` unsettled deliveries; 0 stands
    /// for no limit. Each keeps its own limit beside. What they have already counts; deliveries without
    /// acknowledgements and single gets do not, as in RabbitMQ.
    pub fn set_shared_prefetch(&mut self, max: u32, work: &mut Work) {
        match &self.shared_prefetch {
            Some(shared) if max > 0 => shared.credit.set_max(max),
            None if max > 0 => {
                let credit = Arc::new(SharedCredit::new(max));
                self.shared_prefetch = Some(SharedPrefetch { credit, last_served: 0 });
                self.share_all(work);
            }
            Some(_) => {
                self.shared_prefetch = None;
                self.share_all(work);
                // Those who waited for the shared credit wait for nothing any more.
                self.resume(work);
            }
            None => {}
        }
        self.pass_credit_on(work);
    }

    /// Gives credit that came back to consumers that were passed over: in turns, so that every queue gets its share.
    pub(super) fn pass_credit_on(&mut self, work: &mut Work) {
        let Some(shared) = self.shared_prefetch.as_mut().filter(|shared| shared.credit.reopen()) else {
            return;
        };
        let last = shared.last_served;
        let behind = self.held.range((Bound::Excluded(last), Bound::Unbounded));
        for (number, held) in behind.chain(self.held.range(..=last)) {
            if !held.role.is_consumer() {
                continue;
            }
            if !shared.credit.has_room() {
                // The others wait for the next settle.
                shared.credit.miss();
                return;
            }
            shared.last_served = *number;
            let _ = held.queue.resume(work);
            self.vhost.finish(work);
        }
    }

    fn share_all(&mut self, work: &mut Work) {
        for held in self.held.values_mut() {
            held.share = self.shared_prefetch.as_ref().map(SharedPrefetch::share);
            // What a queue that is gone had counts for nobody.
            let _ = held.queue.share(held.holder, held.share.clone(), work);
            self.vhost.finish(work);
        }
    }
}
