//! What a consumer asks for, and how many deliveries it may still get.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use leveret_journal::faults::mutant;

use super::outlet::Outlet;

/// What a consumer asks for.
#[derive(Debug, Clone)]
pub struct ConsumerSpec {
    /// Where its deliveries go: one for all consumers of a connection.
    pub outlet: Arc<Outlet>,
    /// As long as consumers with a higher priority can take messages, those with a lower one get none. Usually 0.
    pub priority: i32,
    /// Whether it wants to be the queue's only consumer.
    pub exclusive: bool,
    /// Whether its deliveries count as settled when they are made.
    pub no_ack: bool,
    /// How many deliveries it may get.
    pub credit: Credit,
}

/// How many deliveries a consumer may get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credit {
    /// As many as there are. (Its outlet still limits it.)
    Unlimited,
    /// As many as leave at most this number unsettled: AMQP's prefetch. Means nothing to a consumer without
    /// acknowledgements.
    Unsettled(u32),
    /// This number, and whatever [`State::add_credit`](super::State::add_credit) adds.
    Counted(u32),
}

impl Credit {
    /// AMQP's `prefetch_count`, where 0 stands for no limit.
    pub fn prefetch(count: u32) -> Self {
        if count == 0 { Self::Unlimited } else { Self::Unsettled(count) }
    }
}

/// How many deliveries consumers may leave unsettled together, whatever their queues: AMQP's prefetch of a channel.
///
/// Who finds nothing left is passed over, and from then on nobody takes anything until [`SharedCredit::reopen`]. The
/// queue that a settle comes to would otherwise always be the first to take what the settle gives back, and the
/// other queues of the channel would get nothing as long as that one has messages.
///
/// One atomic holds all of it, so that nobody can be passed over unseen between two steps of a settle.
#[derive(Debug)]
pub struct SharedCredit(AtomicU64);

/// What a [`SharedCredit`] holds.
#[derive(Debug, Clone, Copy)]
struct Tally {
    /// Deliveries that are not settled.
    unsettled: u32,
    /// How many there may be.
    max: u32,
    /// Whether somebody was passed over and waits.
    missed: bool,
}

/// One holder's part in a [`SharedCredit`].
///
/// It is counted here as well as in the queue, because a queue that is deleted forgets its holders: then the channel
/// gives back what they had.
#[derive(Debug)]
pub struct Share {
    credit: Arc<SharedCredit>,
    unsettled: AtomicU32,
}

/// Why somebody may not consume. AMQP: 403, access refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// The queue has an exclusive consumer.
    #[error("the queue has an exclusive consumer; wait until it has gone")]
    ExclusivelyUsed,
    /// The consumer wants to be the only one and is not.
    #[error("the queue has consumers, so that it has no place for an exclusive one")]
    AlreadyUsed,
    /// Both ways of being the only one at once.
    #[error("the queue serves a single active consumer; consume from it without asking for exclusive use")]
    ExclusiveOnSingleActive,
}

impl SharedCredit {
    /// The highest limit; higher ones count as this.
    pub const MAX: u32 = (1 << 31) - 1;

    /// With nothing unsettled.
    pub fn new(max: u32) -> Self {
        Self(AtomicU64::new(Tally { unsettled: 0, max: max.min(Self::MAX), missed: false }.pack()))
    }

    /// Changes the limit. What exceeds a lower one is settled as it is. [`SharedCredit::reopen`] has to follow.
    pub fn set_max(&self, max: u32) {
        self.update(|tally| tally.max = max.min(Self::MAX));
    }

    /// Whether another delivery would be within the limit.
    pub fn has_room(&self) -> bool {
        Tally::unpack(self.0.load(Ordering::Acquire)).has_room()
    }

    /// To be called when something was settled. `true` if somebody was passed over before and there is room now: the
    /// caller must then call [`State::resume`](super::State::resume), and dispatch, on the queues of those who share
    /// this; and [`SharedCredit::miss`], if it does not come to all of them.
    #[must_use]
    pub fn reopen(&self) -> bool {
        self.update(|tally| {
            let reopened = tally.missed && tally.has_room();
            tally.missed &= !reopened;
            reopened
        })
    }

    /// Somebody still waits.
    pub fn miss(&self) {
        self.update(|tally| tally.missed = true);
    }

    fn take(&self) -> bool {
        self.update(|tally| {
            let taken = tally.has_room() && !tally.missed;
            tally.unsettled += u32::from(taken);
            tally.missed = !taken;
            taken
        })
    }

    fn count(&self, unsettled: u32) {
        self.update(|tally| tally.unsettled = tally.unsettled.saturating_add(unsettled));
    }

    fn give_back(&self, settled: u32) {
        self.update(|tally| tally.unsettled = tally.unsettled.saturating_sub(settled));
    }

    fn update<R>(&self, change: impl Fn(&mut Tally) -> R) -> R {
        let mut before = self.0.load(Ordering::Acquire);
        loop {
            let mut tally = Tally::unpack(before);
            let result = change(&mut tally);
            match self.0.compare_exchange_weak(before, tally.pack(), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return result,
                Err(now) => before = now,
            }
        }
    }
}

impl Tally {
    fn has_room(self) -> bool {
        self.unsettled < self.max
    }

    fn pack(self) -> u64 {
        u64::from(self.unsettled) << 32 | u64::from(self.max) << 1 | u64::from(self.missed)
    }

    fn unpack(bits: u64) -> Self {
        Self { unsettled: (bits >> 32) as u32, max: bits as u32 >> 1, missed: bits & 1 == 1 }
    }
}

impl Share {
    /// A part in `credit`, with nothing unsettled.
    pub fn new(credit: Arc<SharedCredit>) -> Self {
        Self { credit, unsettled: AtomicU32::new(0) }
    }

    /// The holder's queue is gone, and with it what the holder had.
    pub fn abandon(&self) {
        self.credit.give_back(self.unsettled.swap(0, Ordering::AcqRel));
    }

    /// Takes credit for one delivery, if there is some; if not, the holder has to be passed over.
    pub(super) fn take(&self) -> bool {
        let taken = self.credit.take();
        self.unsettled.fetch_add(u32::from(taken), Ordering::AcqRel);
        taken
    }

    /// The holder has these deliveries, whatever the limit.
    pub(super) fn count(&self, unsettled: usize) {
        self.unsettled.fetch_add(unsettled as u32, Ordering::AcqRel);
        self.credit.count(unsettled as u32);
    }

    /// So many deliveries of the holder were settled.
    pub(super) fn give_back(&self, settled: usize) {
        self.unsettled.fetch_sub(settled as u32, Ordering::AcqRel);
        self.credit.give_back(settled as u32);
    }
}

/// A consumer in its queue.
#[derive(Debug)]
pub(super) struct Consumer {
    pub(super) outlet: Arc<Outlet>,
    pub(super) priority: i32,
    pub(super) exclusive: bool,
    pub(super) no_ack: bool,
    pub(super) credit: Credit,
    pub(super) place: Place,
}

/// Where a consumer stands when it comes to the next message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// It has no credit, or a single other consumer is active.
    Idle,
    /// It waits for its turn.
    Waiting,
    /// Its outlet was full, or its shared credit used up, when its turn came.
    Starved,
}

impl Consumer {
    pub(super) fn new(spec: ConsumerSpec) -> Self {
        let ConsumerSpec { outlet, priority, exclusive, no_ack, credit } = spec;
        Self { outlet, priority, exclusive, no_ack, credit, place: Place::Idle }
    }

    /// How many deliveries it may get now, if it holds `unsettled`.
    pub(super) fn credit_left(&self, unsettled: usize) -> usize {
        match self.credit {
            Credit::Unlimited => usize::MAX,
            Credit::Unsettled(max) if mutant("prefetch_and_one") => {
                (max as usize + 1).saturating_sub(unsettled)
            }
            Credit::Unsettled(max) => (max as usize).saturating_sub(unsettled),
            Credit::Counted(left) => left as usize,
        }
    }

    pub(super) fn spend_credit(&mut self) {
        if let Credit::Counted(left) = &mut self.credit {
            *left = left.saturating_sub(1);
        }
    }

    pub(super) fn add_credit(&mut self, more: u32) {
        if let Credit::Counted(left) = &mut self.credit {
            *left = left.saturating_add(more);
        }
    }
}
