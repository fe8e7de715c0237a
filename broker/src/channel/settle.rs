//! Ack, requeue, release, reject.

use super::{Channel, ChannelError, Role};
use crate::queue::{Verb, Work};

impl Channel {
    /// Settles deliveries of one consumer by ranges of tags; a single range that begins with 0 means all up to its
    /// end.
    pub fn settle(
        &mut self,
        number: u32,
        ranges: &[(u64, u64)],
        verb: &Verb,
        work: &mut Work,
    ) -> Result<(), ChannelError> {
        let held = self.held.get(&number).ok_or(ChannelError::NoConsumer { consumer: number })?;
        // A queue that was deleted has taken its deliveries along; the client could not know.
        let left = held.queue.settle(held.holder, ranges, verb, work).unwrap_or(Ok(1))?;
        if left == 0 && held.role == Role::Cancelled {
            self.held.remove(&number);
        }
        self.vhost.finish(work);
        Ok(())
    }
}
