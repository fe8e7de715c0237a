//! 3 · Operations: what a client does on a channel, whatever protocol it speaks.
//!
//! A channel numbers publishes, and holds the consumers through which deliveries are settled. Each verb has its file.
//! Nothing here knows of frames: a protocol's connection calls these, and tells its client what came of it.

mod confirm;
mod consume;
mod error;
mod prefetch;
mod publish;
mod settle;
mod transaction;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use confirm::ConfirmRuns;
pub use consume::Consume;
pub use error::ChannelError;
pub use publish::{Publication, Publisher, Ticket};
pub use transaction::{CommitOutcome, TRANSACTION_BYTES_MAX, TransactionBudget};

use self::prefetch::SharedPrefetch;
use self::transaction::Transaction;
use crate::queue::{ConnectionId, HolderId, Queue, Share, Work};
use crate::topology::Vhost;

/// One channel of a connection.
#[derive(Debug)]
pub struct Channel {
    vhost: Arc<Vhost>,
    connection: ConnectionId,
    /// Whether publishes are confirmed.
    pub confirms: bool,
    /// Publishes are numbered from 1.
    next_publish: u64,
    /// By the number that the client chose. In order, so that shared credit can go round.
    held: BTreeMap<u32, Held>,
    consumers_max: usize,
    shared_prefetch: Option<SharedPrefetch>,
    /// What is collected, if the channel is transactional.
    transaction: Option<Transaction>,
}

/// A consumer, or the holder of what was got from one queue.
#[derive(Debug)]
struct Held {
    queue: Arc<Queue>,
    holder: HolderId,
    role: Role,
    /// Its part in the channel's prefetch, if the channel has one.
    share: Option<Arc<Share>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Consumer {
        no_ack: bool,
    },
    Passive,
    /// Gets nothing more; goes with its last settle.
    Cancelled,
}

impl Held {
    /// Whether it has nothing to settle.
    fn is_idle(&self) -> bool {
        self.queue.unacked_of(self.holder) == 0
    }
}

impl Role {
    fn is_consumer(self) -> bool {
        matches!(self, Self::Consumer { .. })
    }
}

impl Channel {
    /// A channel without consumers, that may get up to `consumers_max` of them (queues that are got from included).
    pub fn new(vhost: Arc<Vhost>, connection: ConnectionId, confirms: bool, consumers_max: usize) -> Self {
        Self {
            vhost,
            connection,
            confirms,
            next_publish: 1,
            held: BTreeMap::new(),
            consumers_max,
            shared_prefetch: None,
            transaction: None,
        }
    }

    /// Counts a publish; gives its number.
    pub fn count_publish(&mut self) -> u64 {
        let number = self.next_publish;
        self.next_publish += 1;
        number
    }

    /// Ends the channel: what it has not settled goes back to the queues, as failed.
    pub fn close(self, work: &mut Work) {
        for held in self.held.into_values() {
            // A queue that is gone has nothing to take back.
            let _ = held.queue.release(held.holder, work);
            self.vhost.finish(work);
        }
    }
}
