//! What goes wrong, in RabbitMQ's codes and words.

use leveret_protocol::amqp::{ContentError, FieldValue, FrameError, MethodError};
use leveret_protocol::{Closes, NameError, ReplyCode};

use super::super::Violation;
use super::ledger::UnknownDelivery;
use crate::channel::ChannelError;
use crate::exchange::ExchangeError;
use crate::queue::{ArgumentError, DeleteError, Inequivalent};
use crate::topology::TopologyError;

/// A mistake by its code, which says what it closes: the channel, or the whole connection.
#[allow(clippy::needless_pass_by_value, reason = "it takes errors and texts, which end here")]
pub(super) fn fault(code: ReplyCode, text: impl ToString) -> Violation {
    let closes = match code {
        ReplyCode::ContentTooLarge
        | ReplyCode::AccessRefused
        | ReplyCode::NotFound
        | ReplyCode::ResourceLocked
        | ReplyCode::PreconditionFailed => Closes::Channel,
        _ => Closes::Connection,
    };
    Violation { code, text: text.to_string(), closes }
}

impl From<FrameError> for Violation {
    fn from(error: FrameError) -> Self {
        let code = match error {
            FrameError::WrongHeartbeat => ReplyCode::UnexpectedFrame,
            other => other.reply_code(),
        };
        fault(code, error)
    }
}

impl From<MethodError> for Violation {
    fn from(error: MethodError) -> Self {
        fault(error.reply_code(), error)
    }
}

impl From<ContentError> for Violation {
    fn from(error: ContentError) -> Self {
        fault(error.reply_code(), error)
    }
}

impl From<UnknownDelivery> for Violation {
    fn from(error: UnknownDelivery) -> Self {
        fault(ReplyCode::PreconditionFailed, error)
    }
}

/// A name that cannot be one: AMQP's 406.
impl From<NameError> for Violation {
    fn from(error: NameError) -> Self {
        fault(ReplyCode::PreconditionFailed, error)
    }
}

/// What the core refused, in the words of RabbitMQ where it has some, since people search for them.
pub(super) fn refused(error: &ChannelError, vhost: &str) -> Violation {
    match error {
        ChannelError::Topology(error) => topology(error, vhost),
        ChannelError::TooManyConsumers { max } => {
            let text = format!("reached maximum ({max}) of consumers per channel");
            fault(ReplyCode::NotAllowed, text)
        }
        other => fault(other.code(), other),
    }
}

/// As [`refused`], for what is not about a channel.
pub(super) fn topology(error: &TopologyError, vhost: &str) -> Violation {
    let text = match error {
        TopologyError::Exchange(error) => exchange(error, vhost),
        TopologyError::ReservedName { queue } => {
            format!("queue name '{queue}' contains reserved prefix 'amq.*'")
        }
        TopologyError::NotDeleted { queue, source: DeleteError::InUse { .. }, .. } => {
            format!("queue '{queue}' in vhost '{vhost}' in use")
        }
        TopologyError::NotDeleted { queue, source: DeleteError::NotEmpty { .. }, .. } => {
            format!("queue '{queue}' in vhost '{vhost}' not empty")
        }
        TopologyError::Inequivalent(Inequivalent { argument, queue, received, current, .. }) => {
            format!(
                "inequivalent arg '{argument}' for queue '{queue}' in vhost '{vhost}': received {received} but \
                 current is {current}"
            )
        }
        TopologyError::NotSubscribed { queue, .. } => {
            format!("queue '{queue}' in vhost '{vhost}' in exclusive use")
        }
        other => other.to_string(),
    };
    let code = match error.code() {
        // Names that cannot be, and a vhost that is full, cost the channel; it is not the connection's fault.
        ReplyCode::SyntaxError | ReplyCode::ResourceError => ReplyCode::PreconditionFailed,
        code => code,
    };
    fault(code, text)
}

fn exchange(error: &ExchangeError, vhost: &str) -> String {
    match error {
        ExchangeError::NoExchange(name) => format!("no exchange '{name}' in vhost '{vhost}'"),
        ExchangeError::Internal(name) => {
            format!("cannot publish to internal exchange '{name}' in vhost '{vhost}'")
        }
        ExchangeError::SystemExchange(name) => {
            format!("deletion of system exchange '{name}' in vhost '{vhost}' not allowed")
        }
        ExchangeError::ReservedName(name) => {
            format!("exchange name '{name}' contains reserved prefix 'amq.*'")
        }
        ExchangeError::InUse { exchange, .. } => format!("exchange '{exchange}' in vhost '{vhost}' in use"),
        ExchangeError::UnknownKind(kind) => format!("unknown exchange type '{kind}'"),
        ExchangeError::Inequivalent { exchange, argument, received, current } => {
            format!(
                "inequivalent arg '{argument}' for exchange '{exchange}' in vhost '{vhost}': received {received} but \
                 current is {current}"
            )
        }
        other => other.to_string(),
    }
}

/// A queue that cannot be as its declaration says.
pub(super) fn argument(error: &ArgumentError, queue: &str, vhost: &str) -> Violation {
    let (argument, reason) = match error {
        ArgumentError::Invalid { argument, expected, received } => {
            (*argument, format!("it has to be {expected}, and this is {received}"))
        }
        ArgumentError::KeyWithoutExchange => {
            ("x-dead-letter-routing-key", "routing_key_but_no_dlx_defined".to_owned())
        }
        other => return fault(ReplyCode::PreconditionFailed, other),
    };
    let text = format!("invalid arg '{argument}' for queue '{queue}' in vhost '{vhost}': {reason}");
    fault(ReplyCode::PreconditionFailed, text)
}

/// RabbitMQ's name for a value's type. Integers have lost their width on the way, and are told as the usual one.
pub(super) fn type_name(value: FieldValue<'_>) -> &'static str {
    match value {
        FieldValue::Bool(_) => "bool",
        FieldValue::Int(int) if i32::try_from(int).is_ok() => "signedint",
        FieldValue::Int(_) => "long",
        FieldValue::Float(_) => "double",
        FieldValue::Decimal { .. } => "decimal",
        FieldValue::LongString(_) => "longstr",
        FieldValue::Bytes(_) => "binary",
        FieldValue::Timestamp(_) => "timestamp",
        FieldValue::Void => "void",
        FieldValue::Array(_) => "array",
        FieldValue::Table(_) => "table",
        _ => "unknown",
    }
}
