//! Transactions: publishes and settles of a channel are collected, and happen together or not at all.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use leveret_journal::Position;

use super::{Channel, ChannelError, Publication, Publisher, Role};
use crate::queue::{QueueGone, Verb, Work};
use crate::store::Message;
use crate::topology::{Pending, Settling};

/// How much all open transactions of one connection may keep in memory.
#[derive(Debug)]
pub struct TransactionBudget {
    used: AtomicUsize,
    max: usize,
}

/// How much that is unless somebody says otherwise, in bytes.
pub const TRANSACTION_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What a collected message takes beside its properties and body, and for each of its queues, in bytes. Estimates.
const MESSAGE_BYTES: usize = 512;
const PLACE_BYTES: usize = 64;

/// What a channel has collected.
#[derive(Debug)]
pub(super) struct Transaction {
    publishes: Vec<Pending>,
    /// Whether each publish is mandatory.
    mandatory: Vec<bool>,
    /// The consumers of which deliveries are set aside.
    settled: BTreeSet<u32>,
    bytes: usize,
    budget: Arc<TransactionBudget>,
}

/// What came of a commit.
#[derive(Debug)]
pub struct CommitOutcome {
    /// What must be synced before the client is told.
    pub position: Position,
    /// Mandatory messages that no queue has, in the order of their publishes. They go back before the answer.
    pub returned: Vec<Message>,
}

impl TransactionBudget {
    /// For transactions with `max` bytes together.
    pub fn new(max: usize) -> Self {
        Self { used: AtomicUsize::new(0), max }
    }

    fn take(&self, bytes: usize) -> Result<(), ChannelError> {
        let add = |used: usize| used.checked_add(bytes).filter(|used| *used <= self.max);
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        taken.map(drop).map_err(|_| ChannelError::TransactionTooLarge { max: self.max })
    }
}

impl Default for TransactionBudget {
    fn default() -> Self {
        Self::new(TRANSACTION_BYTES_MAX)
    }
}

impl Transaction {
    fn new(budget: Arc<TransactionBudget>) -> Self {
        let (publishes, mandatory) = (Vec::new(), Vec::new());
        Self { publishes, mandatory, settled: BTreeSet::new(), bytes: 0, budget }
    }

    fn add(&mut self, pending: Pending, mandatory: bool) -> Result<(), ChannelError> {
        let message = &pending.message;
        let bytes = MESSAGE_BYTES + pending.resolved.queues.len() * PLACE_BYTES + message.content().len();
        self.budget.take(bytes)?;
        self.bytes += bytes;
        self.publishes.push(pending);
        self.mandatory.push(mandatory);
        Ok(())
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Channel {
    /// Makes the channel one with confirms. That it is one already is no error.
    pub fn select_confirms(&mut self) -> Result<(), ChannelError> {
        if self.transaction.is_some() {
            return Err(ChannelError::NoConfirmsWithTransactions);
        }
        self.confirms = true;
        Ok(())
    }

    /// Makes the channel transactional, for the rest of its life. That it is already is no error.
    pub fn select_transactions(&mut self, budget: &Arc<TransactionBudget>) -> Result<(), ChannelError> {
        if self.confirms {
            return Err(ChannelError::NoTransactionsWithConfirms);
        }
        if self.transaction.is_none() {
            self.transaction = Some(Transaction::new(Arc::clone(budget)));
        }
        Ok(())
    }

    /// Whether publishes have to go to [`Channel::collect`], and settles wait for [`Channel::commit`].
    pub fn is_transactional(&self) -> bool {
        self.transaction.is_some()
    }

    /// Adds a publish to the transaction. It is routed now, as in RabbitMQ: what is bound until the commit gets
    /// nothing of it.
    ///
    /// One that exceeds the connection's [`TransactionBudget`] is refused.
    pub fn collect(
        &mut self,
        publisher: &mut Publisher,
        publication: Publication<'_>,
        mandatory: bool,
        work: &Work,
    ) -> Result<(), ChannelError> {
        let transaction = self.transaction.as_mut().ok_or(ChannelError::NotTransactional)?;
        transaction.add(publisher.prepare(&self.vhost, publication, work.now_ms)?, mandatory)
    }

    /// Lets the transaction happen and begins the next one. If that fails nothing of it has happened, it is rolled
    /// back, and the next one begins, too.
    pub fn commit(&mut self, work: &mut Work) -> Result<CommitOutcome, ChannelError> {
        let mut transaction = self.end_transaction()?;
        let settling = |number: &u32| {
            let held = self.held.get(number)?;
            Some(Settling { number: *number, queue: Arc::clone(&held.queue), holder: held.holder, left: 0 })
        };
        let mut settles: Vec<Settling> = transaction.settled.iter().filter_map(settling).collect();
        let committed = match self.vhost.commit(&mut transaction.publishes, &mut settles, work) {
            Ok(committed) => committed,
            Err(error) => {
                self.put_back(&transaction.settled, work);
                return Err(error.into());
            }
        };
        for Settling { number, left, .. } in settles {
            let Some(held) = self.held.get(&number) else { continue };
            if held.queue.is_gone() {
                held.abandon();
            }
            if left == 0 && held.role == Role::Cancelled {
                self.held.remove(&number);
            }
        }
        self.pass_credit_on(work);
        let unrouted = committed.messages.into_iter().zip(&transaction.mandatory);
        let returned = unrouted.filter(|((_, queues), mandatory)| **mandatory && *queues == 0);
        Ok(CommitOutcome {
            position: committed.position,
            returned: returned.map(|((message, _), _)| message).collect(),
        })
    }

    /// Forgets the transaction's publishes, and gives its deliveries back to their consumers: they are unsettled, and
    /// not delivered again. Begins the next transaction.
    pub fn rollback(&mut self, work: &mut Work) -> Result<(), ChannelError> {
        let transaction = self.end_transaction()?;
        self.put_back(&transaction.settled, work);
        Ok(())
    }

    /// Keeps a settle for the commit.
    pub(super) fn settle_later(
        &mut self,
        number: u32,
        ranges: &[(u64, u64)],
        verb: &Verb,
        work: &mut Work,
    ) -> Result<(), ChannelError> {
        let held = self.held.get(&number).ok_or(ChannelError::NoConsumer { consumer: number })?;
        match held.queue.set_aside(held.holder, ranges, verb, work) {
            Ok(set_aside) => set_aside?,
            // A queue that was deleted has taken its deliveries along; the client could not know.
            Err(QueueGone) => held.abandon(),
        }
        self.vhost.finish(work);
        if let Some(transaction) = &mut self.transaction {
            transaction.settled.insert(number);
        }
        self.pass_credit_on(work);
        Ok(())
    }

    fn end_transaction(&mut self) -> Result<Transaction, ChannelError> {
        let current = self.transaction.as_mut().ok_or(ChannelError::NotTransactional)?;
        let next = Transaction::new(Arc::clone(&current.budget));
        Ok(std::mem::replace(current, next))
    }

    fn put_back(&mut self, settled: &BTreeSet<u32>, work: &mut Work) {
        for held in settled.iter().filter_map(|number| self.held.get(number)) {
            let _ = held.queue.put_back(held.holder, work);
            self.vhost.finish(work);
        }
    }
}
