//! What the rules refuse, and with which reply code of AMQP.

use leveret_protocol::ExchangeName;

use super::settings::ExchangeKind;
use crate::store::QueueId;

const ACCESS_REFUSED: u16 = 403;
const NOT_FOUND: u16 = 404;
const PRECONDITION_FAILED: u16 = 406;

/// Why an operation on exchanges or bindings was refused. Nothing has changed when one is returned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExchangeError {
    /// The default exchange is a rule, not an object: it is never declared, deleted, bound or unbound.
    #[error("operation not permitted on the default exchange")]
    DefaultExchange,
    /// A new exchange may not take a name of the broker's own.
    #[error("exchange name '{0}' contains reserved prefix 'amq.*'; choose a name without it")]
    ReservedName(ExchangeName),
    /// The exchanges that every vhost has stay.
    #[error("deletion of system exchange '{0}' not allowed")]
    SystemExchange(ExchangeName),
    /// An internal exchange gets messages only through bindings, as an alternate exchange, or from the
    /// broker.
    #[error("cannot publish to internal exchange '{0}'")]
    Internal(ExchangeName),
    /// No exchange has this name.
    #[error("no exchange '{0}'")]
    NoExchange(String),
    /// No queue has this number.
    #[error("no queue number {}", .0.0)]
    NoQueue(QueueId),
    /// No exchange type has this name.
    #[error("unknown exchange type '{0}'; the types are {kinds}", kinds = ExchangeKind::NAMES.join(", "))]
    UnknownKind(String),
    /// The exchange exists, and differs from what a declaration asks for.
    #[error(
        "inequivalent arg '{argument}' for exchange '{exchange}': received {received} but current is {current}"
    )]
    Inequivalent {
        /// The exchange.
        exchange: ExchangeName,
        /// In what they differ.
        argument: &'static str,
        /// What the declaration asks for.
        received: String,
        /// What is.
        current: String,
    },
    /// A deletion "if unused" of an exchange that has bindings from it.
    #[error("exchange '{exchange}' in use: it has {bindings} bindings")]
    InUse {
        /// The exchange.
        exchange: ExchangeName,
        /// How many bindings lead from it.
        bindings: usize,
    },
    /// An argument that no exchange can follow.
    #[error("invalid arg '{argument}': received {received}, expected {expected}")]
    InvalidArgument {
        /// The argument.
        argument: &'static str,
        /// What it was.
        received: String,
        /// What it should have been.
        expected: &'static str,
    },
}

impl ExchangeError {
    /// The reply code of AMQP 0-9-1 that closes the channel.
    pub fn code(&self) -> u16 {
        match self {
            Self::DefaultExchange | Self::ReservedName(_) | Self::SystemExchange(_) | Self::Internal(_) => {
                ACCESS_REFUSED
            }
            Self::NoExchange(_) | Self::NoQueue(_) => NOT_FOUND,
            Self::UnknownKind(_)
            | Self::Inequivalent { .. }
            | Self::InUse { .. }
            | Self::InvalidArgument { .. } => PRECONDITION_FAILED,
        }
    }
}
