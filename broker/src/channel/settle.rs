//! Ack, requeue, release, reject.

use super::{Channel, ChannelError, Role};
use crate::queue::{QueueGone, Verb, Work};

impl Channel {
    /// Settles deliveries of one consumer by ranges of tags; a single range that begins with 0 means all up to its
    /// end. On a transactional channel it is only checked now, and takes effect with the commit.
    pub fn settle(
        &mut self,
        number: u32,
        ranges: &[(u64, u64)],
        verb: &Verb,
        work: &mut Work,
    ) -> Result<(), ChannelError> {
        if self.transaction.is_some() {
            return self.settle_later(number, ranges, verb, work);
        }
        self.settle_now(number, ranges, verb, work)
    }

    /// As [`Channel::settle`], at once even if the channel is transactional.
    pub fn settle_now(
        &mut self,
        number: u32,
        ranges: &[(u64, u64)],
        verb: &Verb,
        work: &mut Work,
    ) -> Result<(), ChannelError> {
        let held = self.held.get(&number).ok_or(ChannelError::NoConsumer { consumer: number })?;
        match held.queue.settle(held.holder, ranges, verb, work) {
            Ok(Ok(0)) if held.role == Role::Cancelled => drop(self.held.remove(&number)),
            Ok(settled) => drop(settled?),
            // A queue that was deleted has taken its deliveries along; the client could not know.
            Err(QueueGone) => held.abandon(),
        }
        self.vhost.finish(work);
        self.pass_credit_on(work);
        Ok(())
    }
}
