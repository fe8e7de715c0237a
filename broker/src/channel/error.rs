//! Why an operation on a channel is refused.

use leveret_protocol::ReplyCode;

use crate::queue::UnknownTag;
use crate::topology::TopologyError;

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
            Self::UnknownTag(_) | Self::NoConsumer { .. } | Self::CreditWithAcks { .. } => {
                ReplyCode::PreconditionFailed
            }
            Self::ConsumerInUse { .. } => ReplyCode::NotAllowed,
            Self::TooManyConsumers { .. } => ReplyCode::ResourceError,
        }
    }
}
