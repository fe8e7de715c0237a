//! What a transaction does to a queue, while that and others are locked.

use std::sync::Arc;

use parking_lot::MutexGuard;

use super::{Inner, Queue, QueueGone, Work};
use crate::queue::{Effects, HolderId, Refused, UnknownTag, Verb};
use crate::store::Message;

/// A queue that stays locked while a transaction is applied to it and to others.
///
/// The transaction's records are collected in [`Work`], to be written as one group ([`Work::write`]) when all queues
/// have what is theirs; only then may [`Locked::finish`] let anybody see it.
pub struct Locked<'a> {
    /// The queue.
    pub queue: &'a Arc<Queue>,
    inner: MutexGuard<'a, Inner>,
    /// What follows for this queue when the records are written.
    effects: Effects,
}

impl Queue {
    /// Locks the queue for a transaction. Whoever locks several does it in the order of their numbers: two transactions
    /// would otherwise wait for each other for ever.
    pub fn lock(self: &Arc<Self>) -> Locked<'_> {
        Locked { queue: self, inner: self.inner.lock(), effects: Effects::default() }
    }

    /// Takes deliveries out of their holder's hands for a transaction. A single range that begins with 0 means all up
    /// to its end.
    pub fn set_aside(
        self: &Arc<Self>,
        holder: HolderId,
        ranges: &[(u64, u64)],
        verb: &Verb,
        work: &mut Work,
    ) -> Result<Result<(), UnknownTag>, QueueGone> {
        self.act(work, |inner, _, _| inner.state.set_aside(holder, ranges, verb))
    }

    /// Gives back to a holder what was set aside.
    pub fn put_back(self: &Arc<Self>, holder: HolderId, work: &mut Work) -> Result<(), QueueGone> {
        self.act(work, |inner, _, _| inner.state.put_back(holder))
    }
}

impl Locked<'_> {
    /// Gives consumers what they can take and drops what has expired, so that the room for more is known.
    pub fn settle_down(&mut self, work: &mut Work) {
        if !self.inner.gone {
            self.inner.state.tick(work.now_ms, &mut work.effects);
            self.inner.state.dispatch(work.now_ms, &mut work.effects);
            self.queue.carry_out(&mut self.inner, work, None);
        }
    }

    /// Whether it takes so many more messages, with bodies of so many bytes, even if no consumer takes any of them. A
    /// queue that is gone refuses nothing: it is as if it had never been bound.
    pub fn has_room_for(&self, messages: u64, bytes: u64) -> bool {
        self.inner.gone || self.inner.state.has_room_for(messages, bytes)
    }

    /// How many deliveries are set aside for this holder.
    pub fn set_aside_of(&self, holder: HolderId) -> usize {
        self.inner.state.set_aside_of(holder)
    }

    /// Puts messages in, in order. `refused` is told the index of each that the queue did not take.
    pub fn enqueue<'a>(
        &mut self,
        messages: impl Iterator<Item = &'a Message>,
        work: &mut Work,
        mut refused: impl FnMut(usize, Option<Refused>),
    ) {
        std::mem::swap(&mut self.effects, &mut work.effects);
        self.queue.admit(&mut self.inner, messages, work, &mut refused);
        std::mem::swap(&mut self.effects, &mut work.effects);
    }

    /// Settles what was set aside for a holder. Says how many deliveries it still holds.
    pub fn settle(&mut self, holder: HolderId, work: &mut Work) -> Result<usize, QueueGone> {
        if self.inner.gone {
            return Err(QueueGone);
        }
        self.inner.state.settle_set_aside(holder, &mut work.effects);
        if self.queue.settings.durable {
            let Work { effects, batch, .. } = work;
            if !effects.returned.is_empty() {
                batch.returned(self.queue.id, &mut effects.returned);
            }
            if !effects.gone.is_empty() {
                batch.gone(self.queue.id, &mut effects.gone);
            }
        }
        // Dead letters go on their way when all of the transaction is written; each writes the end of its old place.
        self.effects.dead.append(&mut work.effects.dead);
        work.effects.clear();
        Ok(self.inner.state.unacked_of(holder))
    }

    /// Lets everybody see what the transaction did, and unlocks the queue.
    pub fn finish(mut self, work: &mut Work) {
        std::mem::swap(&mut self.effects, &mut work.effects);
        if !self.inner.gone {
            self.inner.state.dispatch(work.now_ms, &mut work.effects);
        }
        self.queue.carry_out(&mut self.inner, work, None);
    }
}
