//! Why an operation on a channel is refused.

use leveret_protocol::ReplyCode;

use crate::queue::UnknownTag;
use crate::topology::{CommitError, TopologyError};

/// Why an operation on a channel is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// Something about exchanges, queues or bindings.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// A settle names a delivery that is not there to be settled.
    #[error(transparent)]
    UnknownTag(#[from] UnknownTag),
    /// A settle names a consumer that this channel does not have, or that has nothing left to settle.
    #[error("this channel has no consumer {consumer} with unsettled deliveries")]
    NoConsumer {
        /// The number.
        consumer: u32,
    },
    /// Credit for a consumer that has its prefetch.
    #[error("consumer {consumer} acknowledges its deliveries: settling them is what gives it credit")]
    CreditWithAcks {
        /// The number.
        consumer: u32,
    },
    /// A consumer's number is taken.
    #[error("consumer {consumer} exists on this channel; choose a number that is not in use")]
    ConsumerInUse {
        /// The number.
        consumer: u32,
    },
    /// A commit that was not carried out.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// A commit, a rollback or a transaction's publish on a channel without transactions.
    #[error("channel is not transactional")]
    NotTransactional,
    /// Confirms are asked for on a channel with transactions.
    #[error("cannot switch from tx to confirm mode")]
    NoConfirmsWithTransactions,
    /// Transactions are asked for on a channel with confirms.
    #[error("cannot switch from confirm to tx mode")]
    NoTransactionsWithConfirms,
    /// Another publish would exceed what the connection's open transactions may take.
    #[error(
        "the open transactions of this connection have as many bytes as they may, {max}; commit in smaller parts"
    )]
    TransactionTooLarge {
        /// The limit, in bytes.
        max: usize,
    },
    /// A channel may not have any more.
    #[error("a channel has at most {max} consumers")]
    TooManyConsumers {
        /// The limit.
        max: usize,
    },
}

impl ChannelError {
    /// The error's class, by AMQP's numbers.
    pub fn code(&self) -> ReplyCode {
        match self {
            Self::Topology(error) => error.code(),
            Self::Commit(error) => error.code(),
            Self::UnknownTag(_)
            | Self::NoConsumer { .. }
            | Self::CreditWithAcks { .. }
            | Self::NotTransactional
            | Self::NoConfirmsWithTransactions
            | Self::NoTransactionsWithConfirms
            | Self::TransactionTooLarge { .. } => ReplyCode::PreconditionFailed,
            Self::ConsumerInUse { .. } => ReplyCode::NotAllowed,
            Self::TooManyConsumers { .. } => ReplyCode::ResourceError,
        }
    }
}
