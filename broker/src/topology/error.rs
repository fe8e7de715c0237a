//! Why a declaration or another request about the topology is refused.

use leveret_protocol::{NameError, ReplyCode, VhostName};

use crate::exchange::ExchangeError;
use crate::queue::{ArgumentError, DeleteError, Inequivalent, SubscribeError};
use crate::store::StoreError;

/// Why a request about exchanges, queues and bindings is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TopologyError {
    /// Something about an exchange or a binding.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// There is no such queue.
    #[error("no queue '{queue}' in vhost '{vhost}'")]
    NoQueue {
        /// The name that was asked for.
        queue: String,
        /// The vhost.
        vhost: VhostName,
    },
    /// The queue belongs to another connection; or a declaration wants it for this one, and it is shared, or the other
    /// way round. RabbitMQ's words, which people search for.
    #[error(
        "cannot obtain exclusive access to locked queue '{queue}' in vhost '{vhost}'. It could be originally declared \
         on another connection or the exclusive property value does not match that of the original declaration."
    )]
    Locked {
        /// The queue's name.
        queue: String,
        /// The vhost.
        vhost: VhostName,
    },
    /// The name is the broker's to give.
    #[error("queue name '{queue}' begins with 'amq.', which is reserved for names that the broker chooses")]
    ReservedName {
        /// The name that was asked for.
        queue: String,
    },
    /// An argument that cannot be.
    #[error(transparent)]
    Argument(#[from] ArgumentError),
    /// The queue exists, but is not like that.
    #[error(transparent)]
    Inequivalent(#[from] Inequivalent),
    /// The queue may not be deleted as things are.
    #[error("queue '{queue}' in vhost '{vhost}' is not deleted: {source}")]
    NotDeleted {
        /// The queue's name.
        queue: String,
        /// The vhost.
        vhost: VhostName,
        /// Why.
        source: DeleteError,
    },
    /// The consumer is not let in.
    #[error("cannot consume from queue '{queue}' in vhost '{vhost}': {source}")]
    NotSubscribed {
        /// The queue's name.
        queue: String,
        /// The vhost.
        vhost: VhostName,
        /// Why.
        source: SubscribeError,
    },
    /// A vhost is full.
    #[error("vhost '{vhost}' has {max} {what}, which is as many as it may have")]
    TooMany {
        /// What there are too many of.
        what: &'static str,
        /// The limit.
        max: usize,
        /// The vhost.
        vhost: VhostName,
    },
    /// The system gave no randomness to make a name from.
    #[error("the broker could not choose a name; choose one and declare the queue by it")]
    NoName,
    /// Not a name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The journal cannot take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl TopologyError {
    /// The error's class, by AMQP's numbers.
    pub fn code(&self) -> ReplyCode {
        match self {
            Self::Exchange(error) => ReplyCode::from(error.code()),
            Self::NoQueue { .. } => ReplyCode::NotFound,
            Self::Locked { .. } => ReplyCode::ResourceLocked,
            Self::ReservedName { .. } | Self::NotSubscribed { .. } => ReplyCode::AccessRefused,
            Self::Argument(_) | Self::Inequivalent(_) | Self::NotDeleted { .. } => {
                ReplyCode::PreconditionFailed
            }
            Self::Name(_) => ReplyCode::SyntaxError,
            Self::TooMany { .. } => ReplyCode::ResourceError,
            Self::Store(_) | Self::NoName => ReplyCode::InternalError,
        }
    }
}
