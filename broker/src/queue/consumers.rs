//! What a consumer asks for, and how many deliveries it may still get.

use std::sync::Arc;

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
    /// Its outlet was full when its turn came.
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
