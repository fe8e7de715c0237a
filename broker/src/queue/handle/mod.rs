//! A queue as everybody else sees it: the rules behind a lock, and what must happen while it is held.
//!
//! Two things happen under the lock, because their order is the queue's order: the journal gets what changed, and
//! connections get their deliveries. Both only append to a buffer. Everything else (dead letters, deletion, timers)
//! is left in [`Work`] for [`crate::topology`], which knows where these go.

mod horizon;
mod moving;
mod reading;
mod transaction;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use leveret_journal::Position;
use leveret_journal::faults::{crash_point, mutant};
use leveret_protocol::QueueName;
use parking_lot::Mutex;

pub use self::moving::MovedOn;
use super::{
    ConsumerSpec, Dead, DeleteReason, Delivery, Effects, HolderId, Refused, Settings, Share, State,
    SubscribeError, UnknownTag, Verb,
};
pub use transaction::Locked;

use crate::store::{
    Batch, Horizon, InMemory, Message, Place, QueueId, Recovered, Seq, Store, StoreError, Stub, Stubs,
};

/// Where deliveries to one consumer go.
pub trait Recipient: Send + Sync + fmt::Debug {
    /// Takes deliveries. Called under the queue's lock: it appends, wakes its connection, and returns.
    fn deliver(&self, deliveries: &mut dyn Iterator<Item = Delivery>);

    /// The queue is gone, and with it the consumer. Called under the queue's lock, too.
    fn cancelled(&self, reason: &str);

    /// Waits a moment for a client that takes deliveries as fast as it can. `false` if that was in vain.
    fn give_way(&self) -> Pin<Box<dyn Future<Output = bool> + Send + '_>> {
        Box::pin(std::future::ready(true))
    }
}

/// The number of a connection on this broker, never used twice in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// A queue.
pub struct Queue {
    /// Its number, which journal records name it by.
    pub id: QueueId,
    /// Its name.
    pub name: QueueName,
    /// What it was declared to be.
    pub settings: Settings,
    /// The connection that alone may use it, if it is exclusive.
    pub owner: Option<ConnectionId>,
    store: Arc<Store>,
    inner: Mutex<Inner>,
}

struct Inner {
    state: State,
    /// Where deliveries go, by the holder's slot.
    recipients: Vec<Option<Arc<dyn Recipient>>>,
    /// How far it may deliver, if it is durable.
    horizon: Horizon,
    /// The time for which the alarm is set; `u64::MAX` if it is not.
    alarm_ms: u64,
    /// What the store's [`Memory`](crate::store::Memory) thinks that the queue's messages take up.
    accounted: InMemory,
    /// A message cannot be read, and nothing is delivered beyond it.
    unreadable: bool,
    /// Set under the lock in the moment in which the queue is decided to go, so that nobody enters it afterwards.
    gone: bool,
}

/// The queue has been deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the queue has been deleted")]
pub struct QueueGone;

/// Why a queue refuses to be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DeleteError {
    /// It has consumers, and should be deleted only without.
    #[error("it is in use by {consumers} consumers")]
    InUse {
        /// How many.
        consumers: usize,
    },
    /// It has messages, and should be deleted only without.
    #[error("it is not empty: {messages} messages are ready in it")]
    NotEmpty {
        /// How many are ready.
        messages: u64,
    },
    /// It is gone already.
    #[error(transparent)]
    Gone(#[from] QueueGone),
}

/// How many messages and consumers a queue has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Messages that wait.
    pub ready: u64,
    /// Deliveries that are not settled.
    pub unacked: u64,
    /// Consumers.
    pub consumers: usize,
}

/// What one task needs to drive queues: the time, buffers that are used again, and what is left to do afterwards.
#[derive(Debug, Default)]
pub struct Work {
    /// The time of this batch, in milliseconds since 1970-01-01 UTC.
    pub now_ms: u64,
    effects: Effects,
    batch: Batch,
    positions: Vec<Position>,
    declined: Vec<Position>,
    /// What the queues left to do, for [`crate::topology::Vhost::finish`].
    pub aftermath: Vec<Aftermath>,
    /// The one queue that the latest batch went to: a publisher that gives way to its consumers (see
    /// [`Queue::crowded`]) gets its messages through while they are in the processor's cache, instead of making a backlog
    /// of them.
    pub only_queue: Option<Arc<Queue>>,
}

impl Work {
    /// Writes the records of a transaction as one group.
    pub fn write(&mut self, store: &Store) -> Result<Position, StoreError> {
        store.write(&mut self.batch)
    }

    /// Messages that were written for a transaction which is not carried out: one mention for each durable queue that
    /// would have got the message.
    pub fn decline(&mut self, positions: &[Position]) {
        if !positions.is_empty() {
            self.batch.declined(positions);
        }
    }
}

/// What a queue cannot do itself.
#[derive(Debug)]
pub struct Aftermath {
    /// The queue.
    pub queue: Arc<Queue>,
    /// Messages on their way to its dead-letter exchange.
    pub dead: Vec<Dead>,
    /// It is to be removed from its vhost.
    pub delete: Option<DeleteReason>,
    /// [`Queue::tick`] is to be called at this time.
    pub alarm_ms: Option<u64>,
    /// [`Queue::read`] is to be called, where one may wait for the disk.
    pub reads: bool,
}

/// How many seqs one record lists at most, so that purging ten million messages, or a consumer that leaves with as many,
/// does not make one record of them: the journal refuses a record that is longer than a segment.
const SEQS_PER_RECORD: usize = 64 * 1024;

impl Queue {
    /// An empty queue.
    pub fn new(
        id: QueueId,
        name: QueueName,
        settings: Settings,
        owner: Option<ConnectionId>,
        store: Arc<Store>,
        now_ms: u64,
    ) -> Arc<Self> {
        let inner = Inner {
            state: State::new(settings.clone(), now_ms),
            recipients: Vec::new(),
            horizon: Horizon::default(),
            alarm_ms: u64::MAX,
            accounted: InMemory::default(),
            unreadable: false,
            gone: false,
        };
        Arc::new(Self { id, name, settings, owner, store, inner: Mutex::new(inner) })
    }

    /// Brings back what the journal knows.
    pub fn restore(self: &Arc<Self>, recovered: &mut Recovered, work: &mut Work) {
        // A queue of which the journal has no messages still needs its alarm, or `x-expires` would never come.
        let content = recovered.queues.remove(&self.id).unwrap_or_default();
        let mut inner = self.inner.lock();
        inner.state.skip_to(content.next);
        inner.horizon = Horizon::recovered(content.horizon.clone(), content.horizon_at);
        let forget = |stubs: Stubs| match stubs {
            Stubs::One(stub) if mutant("seen_forgotten") => Stubs::One(Stub { redelivered: false, ..stub }),
            stubs => stubs,
        };
        inner.state.restore(content.into_stubs().map(forget), work.now_ms);
        inner.state.dispatch(work.now_ms, &mut work.effects);
        self.carry_out(&mut inner, work, None);
    }

    /// Puts messages in, in order. `refused` is told the index of each that the queue did not take.
    ///
    /// `with` is written in one group with what is enqueued: the settle of a dead letter at the place that it came
    /// from, so that a crash leaves it in exactly one of the two queues.
    pub fn enqueue<'a>(
        self: &Arc<Self>,
        messages: impl Iterator<Item = &'a Message>,
        with: Option<(QueueId, Seq)>,
        work: &mut Work,
        mut refused: impl FnMut(usize, Option<Refused>),
    ) {
        let mut inner = self.inner.lock();
        self.admit(&mut inner, messages, work, &mut refused);
        if let Some((origin, seq)) = with {
            work.batch.gone(origin, &mut [seq]);
        }
        if !inner.gone {
            inner.state.dispatch(work.now_ms, &mut work.effects);
        }
        self.carry_out(&mut inner, work, None);
    }

    /// Whom very many messages wait for, if they wait for nothing but room in an outbox.
    pub fn crowded(&self) -> Option<Arc<dyn Recipient>> {
        let inner = self.inner.lock();
        inner.recipients.get(inner.state.waits_for_room_of()? as usize)?.clone()
    }

    /// Lets the rules take messages, and collects the records of that. What else follows is in `work.effects`.
    fn admit<'a>(
        &self,
        inner: &mut Inner,
        messages: impl Iterator<Item = &'a Message>,
        work: &mut Work,
        refused: &mut impl FnMut(usize, Option<Refused>),
    ) {
        let durable = self.settings.durable;
        let mut first = Seq(0);
        for (index, message) in messages.enumerate() {
            let taken = if inner.gone {
                Err(None)
            } else {
                inner.state.enqueue(message.clone(), work.now_ms, &mut work.effects).map_err(Some)
            };
            let place = message.place.as_ref().filter(|_| durable && message.persistent);
            match (taken, place.map(Place::position)) {
                (Ok(seq), Some(position)) => {
                    // A record lists consecutive seqs; a transient message in between ends the run.
                    if seq.0 != first.0 + work.positions.len() as u64 {
                        self.write_enqueued(first, work);
                    }
                    if work.positions.is_empty() {
                        first = seq;
                    }
                    work.positions.push(position);
                }
                (Ok(_), None) => {}
                (Err(reason), position) => {
                    work.declined.extend(position);
                    refused(index, reason);
                }
            }
        }
        self.write_enqueued(first, work);
        if !work.declined.is_empty() {
            work.batch.declined(&work.declined);
            work.declined.clear();
        }
    }

    fn write_enqueued(&self, first: Seq, work: &mut Work) {
        if !work.positions.is_empty() {
            work.batch.enqueue(self.id, first, work.now_ms, &work.positions);
            work.positions.clear();
        }
    }

    /// Lets a consumer in. `admitted` is called before it gets its first delivery.
    pub fn subscribe(
        self: &Arc<Self>,
        spec: ConsumerSpec,
        share: Option<Arc<Share>>,
        recipient: Arc<dyn Recipient>,
        work: &mut Work,
        admitted: impl FnOnce(),
    ) -> Result<Result<HolderId, SubscribeError>, QueueGone> {
        self.act(work, |inner, now_ms, effects| {
            let holder = inner.state.subscribe(spec)?;
            let slot = holder.slot() as usize;
            if inner.recipients.len() <= slot {
                inner.recipients.resize_with(slot + 1, || None);
            }
            if let Some(place) = inner.recipients.get_mut(slot) {
                *place = Some(recipient);
            }
            inner.state.share(holder, share);
            admitted();
            inner.state.dispatch(now_ms, effects);
            Ok(holder)
        })
    }

    /// A holder for messages that a channel gets one by one.
    pub fn open_passive(self: &Arc<Self>, work: &mut Work) -> Result<HolderId, QueueGone> {
        self.act(work, |inner, _, _| inner.state.open_passive())
    }

    /// Settles deliveries of a holder by ranges of tags; a single range that begins with 0 means all up to its end.
    /// Says how many it still holds.
    pub fn settle(
        self: &Arc<Self>,
        holder: HolderId,
        ranges: &[(u64, u64)],
        verb: &Verb,
        work: &mut Work,
    ) -> Result<Result<usize, UnknownTag>, QueueGone> {
        self.act(work, |inner, now_ms, effects| {
            let settled = match ranges {
                [(0, last)] => inner.state.settle_up_to(holder, *last, verb, effects),
                ranges => inner.state.settle(holder, ranges, verb, effects),
            };
            inner.state.dispatch(now_ms, effects);
            settled.map(|()| inner.state.unacked_of(holder))
        })
    }

    /// Allows a consumer without acknowledgements more deliveries.
    pub fn add_credit(
        self: &Arc<Self>,
        holder: HolderId,
        more: u32,
        work: &mut Work,
    ) -> Result<(), QueueGone> {
        self.act(work, |inner, now_ms, effects| {
            inner.state.add_credit(holder, more);
            inner.state.dispatch(now_ms, effects);
        })
    }

    /// A consumer shares its credit with others from now on, or does not any more.
    pub fn share(
        self: &Arc<Self>,
        holder: HolderId,
        share: Option<Arc<Share>>,
        work: &mut Work,
    ) -> Result<(), QueueGone> {
        self.act(work, |inner, _, _| inner.state.share(holder, share))
    }

    /// A connection that was passed over can take deliveries again.
    pub fn resume(self: &Arc<Self>, work: &mut Work) -> Result<(), QueueGone> {
        self.act(work, |inner, now_ms, effects| {
            inner.state.resume();
            inner.state.dispatch(now_ms, effects);
        })
    }

    /// Stops a consumer; what it holds can still be settled. Says how many that are.
    pub fn cancel(self: &Arc<Self>, holder: HolderId, work: &mut Work) -> Result<usize, QueueGone> {
        self.act(work, |inner, now_ms, effects| {
            inner.forget(holder);
            inner.state.cancel(holder, now_ms, effects);
            inner.state.dispatch(now_ms, effects);
            inner.state.unacked_of(holder)
        })
    }

    /// Ends a holder; what it holds comes back as failed.
    pub fn release(self: &Arc<Self>, holder: HolderId, work: &mut Work) -> Result<(), QueueGone> {
        self.act(work, |inner, now_ms, effects| {
            inner.forget(holder);
            inner.state.release(holder, now_ms, effects);
            inner.state.dispatch(now_ms, effects);
        })
    }

    /// Removes all ready messages; says how many.
    pub fn purge(self: &Arc<Self>, work: &mut Work) -> Result<u64, QueueGone> {
        self.act(work, |inner, _, effects| inner.state.purge(effects))
    }

    /// The queue was declared again.
    pub fn touch(self: &Arc<Self>, work: &mut Work) -> Result<Counts, QueueGone> {
        self.act(work, |inner, now_ms, _| {
            inner.state.touch(now_ms);
            inner.counts()
        })
    }

    /// The time has come that an alarm was set for.
    pub fn tick(self: &Arc<Self>, work: &mut Work) -> Result<(), QueueGone> {
        self.act(work, |inner, now_ms, effects| {
            inner.alarm_ms = u64::MAX;
            inner.state.tick(now_ms, effects);
        })
    }

    /// Decides that the queue goes, and tells its consumers. What waits in it is gone, and not dead-lettered. Gives
    /// what it had.
    pub fn delete(&self, if_unused: bool, if_empty: bool, reason: &str) -> Result<Counts, DeleteError> {
        let mut inner = self.inner.lock();
        if inner.gone {
            return Err(QueueGone.into());
        }
        let counts = inner.counts();
        if if_unused && counts.consumers > 0 {
            return Err(DeleteError::InUse { consumers: counts.consumers });
        }
        if if_empty && counts.ready > 0 {
            return Err(DeleteError::NotEmpty { messages: counts.ready });
        }
        inner.leave(reason);
        Ok(counts)
    }

    /// Lets go of what was in a queue that is gone. Connections may remember it for long, and must not keep its
    /// messages in memory and in the journal.
    pub fn clear(&self) {
        let mut inner = self.inner.lock();
        if inner.gone {
            inner.state = State::new(self.settings.clone(), 0);
            self.account(&mut inner);
        }
    }

    /// Whether it has been deleted, with all that was held of it.
    pub fn is_gone(&self) -> bool {
        self.inner.lock().gone
    }

    /// How many deliveries a holder has not settled.
    pub fn unacked_of(&self, holder: HolderId) -> usize {
        self.inner.lock().state.unacked_of(holder)
    }

    /// How much is in it.
    pub fn counts(&self) -> Counts {
        self.inner.lock().counts()
    }

    fn act<R>(
        self: &Arc<Self>,
        work: &mut Work,
        act: impl FnOnce(&mut Inner, u64, &mut Effects) -> R,
    ) -> Result<R, QueueGone> {
        self.act_and_answer(work, act, |_| None)
    }

    /// As [`Self::act`], whose result may be a delivery.
    fn act_and_answer<R>(
        self: &Arc<Self>,
        work: &mut Work,
        act: impl FnOnce(&mut Inner, u64, &mut Effects) -> R,
        delivery: fn(&mut R) -> Option<&mut Delivery>,
    ) -> Result<R, QueueGone> {
        let mut inner = self.inner.lock();
        if inner.gone {
            return Err(QueueGone);
        }
        let mut result = act(&mut inner, work.now_ms, &mut work.effects);
        self.carry_out(&mut inner, work, delivery(&mut result));
        Ok(result)
    }

    /// Journals and delivers what the rules decided, and leaves the rest in `work.aftermath`. `got` is a delivery that is
    /// an answer, and is not delivered here.
    fn carry_out(self: &Arc<Self>, inner: &mut Inner, work: &mut Work, got: Option<&mut Delivery>) {
        let Work { effects, batch, aftermath, .. } = work;
        let extended = self.settings.durable && self.extend_horizon(inner, effects, got.as_deref(), batch);
        let end = self.journal(effects, batch);
        if extended {
            inner.horizon.written(end);
        }
        if self.settings.durable {
            self.hold_back(inner, effects, got);
        }
        crash_point("queue.before_delivery");
        inner.deliver(&mut effects.deliveries);
        if effects.delete.is_some() {
            inner.leave("the queue was deleted");
        }
        self.account(inner);
        let reads = inner.state.asks_for_reading();
        let alarm_ms = inner.state.next_deadline_ms().filter(|at| !inner.gone && *at < inner.alarm_ms);
        if let Some(at) = alarm_ms {
            inner.alarm_ms = at;
        }
        if alarm_ms.is_some() || effects.delete.is_some() || !effects.dead.is_empty() || reads {
            aftermath.push(Aftermath {
                queue: Arc::clone(self),
                dead: std::mem::take(&mut effects.dead),
                delete: effects.delete.take(),
                alarm_ms,
                reads,
            });
        }
        effects.clear();
    }

    /// Journals what the rules decided; gives its end.
    fn journal(&self, effects: &mut Effects, batch: &mut Batch) -> Option<Position> {
        if mutant("gone_not_journaled") {
            effects.gone.clear();
        }
        if mutant("settle_before_publish") && self.settings.durable {
            let publishes = std::mem::take(batch);
            effects.gone.chunks_mut(SEQS_PER_RECORD).for_each(|seqs| batch.gone(self.id, seqs));
            effects.gone.clear();
            self.write(batch);
            *batch = publishes;
        }
        if self.settings.durable {
            for returned in effects.returned.chunks_mut(SEQS_PER_RECORD) {
                batch.returned(self.id, returned);
                if returned.len() == SEQS_PER_RECORD {
                    self.write(batch);
                }
            }
            for seqs in effects.gone.chunks_mut(SEQS_PER_RECORD) {
                batch.gone(self.id, seqs);
                if seqs.len() == SEQS_PER_RECORD {
                    self.write(batch);
                }
            }
        }
        self.write(batch)
    }

    /// A journal that fails has told the broker, which stops; nothing that depends on this write is confirmed.
    fn write(&self, batch: &mut Batch) -> Option<Position> {
        let written = self.store.write(batch);
        if let Err(error) = &written {
            tracing::error!(queue = %self.name, %error, "a queue's changes were not journaled");
        }
        written.ok()
    }
}

impl Inner {
    fn counts(&self) -> Counts {
        Counts { ready: self.state.ready(), unacked: self.state.unacked(), consumers: self.state.consumers() }
    }

    fn forget(&mut self, holder: HolderId) {
        if let Some(place) = self.recipients.get_mut(holder.slot() as usize) {
            *place = None;
        }
    }

    /// Hands deliveries over, those of one holder in a row together.
    fn deliver(&self, deliveries: &mut Vec<Delivery>) {
        let mut deliveries = deliveries.drain(..).peekable();
        while let Some(holder) = deliveries.peek().map(|delivery| delivery.holder) {
            let mut run = std::iter::from_fn(|| deliveries.next_if(|delivery| delivery.holder == holder));
            match self.recipients.get(holder.slot() as usize) {
                Some(Some(recipient)) => recipient.deliver(&mut run),
                // A passive holder's message is the answer of `get`.
                _ => run.for_each(drop),
            }
        }
    }

    fn leave(&mut self, reason: &str) {
        self.gone = true;
        self.close(reason);
    }

    /// Ends all consumers.
    fn close(&mut self, reason: &str) {
        for recipient in self.recipients.drain(..).flatten() {
            recipient.cancelled(reason);
        }
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("id", &self.id).field("name", &self.name).finish_non_exhaustive()
    }
}
