//! What a declaration asks of a queue: RabbitMQ's `x-` arguments, read once.

use std::ops::RangeInclusive;

use leveret_protocol::{ExchangeName, RoutingKey, Table, Value};

/// How often a message of a queue with a dead-letter exchange may fail, if the queue does not say. Without a
/// dead-letter exchange nothing is thrown away that nobody asked to be.
pub const DELIVERY_LIMIT_DEFAULT: u32 = 20;

/// What a queue is to be like.
#[derive(Debug, Clone, PartialEq, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "the independent yes-or-no questions of AMQP's queue.declare"
)]
pub struct Settings {
    /// Whether it survives a restart. An exclusive queue never does.
    pub durable: bool,
    /// Whether it belongs to the connection that declared it.
    pub exclusive: bool,
    /// Whether it goes when its last consumer goes.
    pub auto_delete: bool,
    /// How long a message may wait in it, in milliseconds (`x-message-ttl`); 0: deliver at once or expire.
    pub message_ttl_ms: Option<u64>,
    /// How long it may stay unused, in milliseconds, at least 1 (`x-expires`).
    pub expires_ms: Option<u64>,
    /// How many messages may be ready (`x-max-length`).
    pub length_max: Option<u64>,
    /// How many bytes the bodies of ready messages may have (`x-max-length-bytes`).
    pub bytes_max: Option<u64>,
    /// What happens when it would get longer than that (`x-overflow`).
    pub overflow: Overflow,
    /// Where the messages go that it gives up (`x-dead-letter-exchange`, `x-dead-letter-routing-key`).
    pub dead_letter: Option<DeadLetter>,
    /// The highest priority, at least 1 (`x-max-priority`). Without one, priorities mean nothing.
    pub priority_max: Option<u8>,
    /// Whether one consumer at a time gets all the messages (`x-single-active-consumer`).
    pub single_active: bool,
    /// How many deliveries of a message may fail; with one more it dies (`x-delivery-limit`).
    pub delivery_limit: Option<u32>,
    /// All arguments as they were given, also those that mean nothing here.
    pub arguments: Table,
}

/// What happens when a queue would exceed its length limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overflow {
    /// It drops the oldest messages of the lowest priority, with reason `maxlen`.
    #[default]
    DropHead,
    /// It refuses the new message.
    RejectPublish,
    /// It refuses the new message and dead-letters it, with reason `maxlen`.
    RejectPublishDeadLetter,
}

/// Where the messages go that a queue gives up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// To which exchange.
    pub exchange: ExchangeName,
    /// By which key; without one, by the message's own keys.
    pub routing_key: Option<RoutingKey>,
}

/// Why arguments make no queue. AMQP: 406, precondition failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ArgumentError {
    /// A value of the wrong type, or out of bounds.
    #[error("invalid arg '{argument}': it has to be {expected}, and this is {received}")]
    Invalid {
        /// The argument.
        argument: &'static str,
        /// What would be right.
        expected: &'static str,
        /// What was given.
        received: String,
    },
    /// A dead-letter key for no exchange.
    #[error("invalid arg 'x-dead-letter-routing-key': it has no effect without 'x-dead-letter-exchange'")]
    KeyWithoutExchange,
    /// A type of queue that this broker does not have.
    #[error("invalid arg 'x-queue-type': this broker has no streams; it has 'classic' and 'quorum'")]
    Stream,
}

/// A queue exists and is not what was asked for. AMQP: 406, precondition failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "inequivalent arg '{argument}' for queue '{queue}' in vhost '{vhost}': received {received} but current is {current}"
)]
pub struct Inequivalent {
    /// What differs: `exclusive`, `durable`, `auto_delete` or the argument.
    pub argument: &'static str,
    /// The queue's name.
    pub queue: String,
    /// The name of its vhost.
    pub vhost: String,
    /// What was asked for.
    pub received: String,
    /// What it is.
    pub current: String,
}

const QUEUE_TYPE: &str = "x-queue-type";
const MESSAGE_TTL: &str = "x-message-ttl";
const EXPIRES: &str = "x-expires";
const LENGTH_MAX: &str = "x-max-length";
const BYTES_MAX: &str = "x-max-length-bytes";
const OVERFLOW: &str = "x-overflow";
const DEAD_LETTER_EXCHANGE: &str = "x-dead-letter-exchange";
const DEAD_LETTER_KEY: &str = "x-dead-letter-routing-key";
const PRIORITY_MAX: &str = "x-max-priority";
const SINGLE_ACTIVE: &str = "x-single-active-consumer";
const DELIVERY_LIMIT: &str = "x-delivery-limit";

/// The arguments that mean something here, in the order in which they are compared.
const KNOWN: [&str; 11] = [
    QUEUE_TYPE,
    MESSAGE_TTL,
    EXPIRES,
    LENGTH_MAX,
    BYTES_MAX,
    OVERFLOW,
    DEAD_LETTER_EXCHANGE,
    DEAD_LETTER_KEY,
    PRIORITY_MAX,
    SINGLE_ACTIVE,
    DELIVERY_LIMIT,
];

impl Settings {
    /// Reads the arguments of a declaration. Arguments that RabbitMQ does not define are kept and mean nothing.
    pub fn from_arguments(
        durable: bool,
        exclusive: bool,
        auto_delete: bool,
        arguments: &Table,
    ) -> Result<Self, ArgumentError> {
        let read = Reader(arguments);
        read.queue_type()?;
        let dead_letter = read.dead_letter()?;
        let delivery_limit_default = dead_letter.as_ref().map(|_| DELIVERY_LIMIT_DEFAULT);
        Ok(Self {
            durable: durable && !exclusive,
            exclusive,
            auto_delete,
            message_ttl_ms: read.count(MESSAGE_TTL, "a number of milliseconds from 0", COUNT)?,
            expires_ms: read.count(EXPIRES, "a number of milliseconds from 1", 1..=i64::MAX)?,
            length_max: read.count(LENGTH_MAX, "a number of messages from 0", COUNT)?,
            bytes_max: read.count(BYTES_MAX, "a number of bytes from 0", COUNT)?,
            overflow: read.overflow()?,
            dead_letter,
            priority_max: read.count(PRIORITY_MAX, "a priority from 1 to 255", 1..=255)?.map(|max| max as u8),
            single_active: read.single_active()?,
            delivery_limit: read.delivery_limit(delivery_limit_default)?,
            arguments: arguments.clone(),
        })
    }

    /// Whether a declaration that asks for `asked` may have this queue, in RabbitMQ's order: `exclusive`, `durable`,
    /// `auto_delete`, then the known arguments. Present and absent differ, except for `x-queue-type: classic`.
    ///
    /// That an exclusive queue is locked (405) for every connection but its own is for the caller to check before.
    pub fn check_equivalent(&self, asked: &Self, queue: &str, vhost: &str) -> Result<(), Inequivalent> {
        let differ = |argument: &'static str, received: String, current: String| {
            Err(Inequivalent {
                argument,
                queue: queue.to_owned(),
                vhost: vhost.to_owned(),
                received,
                current,
            })
        };
        let flags = [
            // Whoever asks for a queue of its own must not get one that others use.
            ("exclusive", asked.exclusive, self.exclusive),
            ("durable", asked.durable, self.durable),
            ("auto_delete", asked.auto_delete, self.auto_delete),
        ];
        for (flag, received, current) in flags {
            if received != current {
                return differ(flag, format!("'{received}'"), format!("'{current}'"));
            }
        }
        for argument in KNOWN {
            let (received, current) = (asked.compared(argument), self.compared(argument));
            if received != current {
                return differ(argument, describe(received), describe(current));
            }
        }
        Ok(())
    }

    fn compared(&self, argument: &str) -> Option<&Value> {
        let value = self.arguments.get(argument)?;
        let is_default = argument == QUEUE_TYPE && value.as_text() == Some("classic");
        (!is_default).then_some(value)
    }
}

const COUNT: RangeInclusive<i64> = 0..=i64::MAX;

/// A value in an error message, as RabbitMQ puts it.
fn describe(value: Option<&Value>) -> String {
    match value {
        None => "none".to_owned(),
        Some(Value::Text(text)) => format!("'{text}'"),
        Some(value) => format!("'{value}'"),
    }
}

struct Reader<'a>(&'a Table);

impl Reader<'_> {
    fn value<T>(
        &self,
        argument: &'static str,
        expected: &'static str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, ArgumentError> {
        let Some(value) = self.0.get(argument) else { return Ok(None) };
        let invalid =
            || ArgumentError::Invalid { argument, expected, received: format!("{value} ({})", value.kind()) };
        read(value).map(Some).ok_or_else(invalid)
    }

    fn count(
        &self,
        argument: &'static str,
        expected: &'static str,
        bounds: RangeInclusive<i64>,
    ) -> Result<Option<u64>, ArgumentError> {
        let read = |value: &Value| value.as_int().filter(|count| bounds.contains(count))?.try_into().ok();
        self.value(argument, expected, read)
    }

    fn queue_type(&self) -> Result<(), ArgumentError> {
        if self.0.get(QUEUE_TYPE).and_then(Value::as_text) == Some("stream") {
            return Err(ArgumentError::Stream);
        }
        let known = |value: &Value| matches!(value.as_text()?, "classic" | "quorum").then_some(());
        self.value(QUEUE_TYPE, "'classic' or 'quorum'", known).map(drop)
    }

    fn overflow(&self) -> Result<Overflow, ArgumentError> {
        let read = |value: &Value| match value.as_text()? {
            "drop-head" => Some(Overflow::DropHead),
            "reject-publish" => Some(Overflow::RejectPublish),
            "reject-publish-dlx" => Some(Overflow::RejectPublishDeadLetter),
            _ => None,
        };
        let overflow = self.value(OVERFLOW, "'drop-head', 'reject-publish' or 'reject-publish-dlx'", read)?;
        Ok(overflow.unwrap_or_default())
    }

    fn dead_letter(&self) -> Result<Option<DeadLetter>, ArgumentError> {
        let exchange = |value: &Value| ExchangeName::new(value.as_text()?).ok();
        let exchange = self.value(DEAD_LETTER_EXCHANGE, "an exchange's name", exchange)?;
        let key = |value: &Value| RoutingKey::new(value.as_text()?).ok();
        let routing_key = self.value(DEAD_LETTER_KEY, "a routing key", key)?;
        match (exchange, routing_key) {
            (Some(exchange), routing_key) => Ok(Some(DeadLetter { exchange, routing_key })),
            (None, None) => Ok(None),
            (None, Some(_)) => Err(ArgumentError::KeyWithoutExchange),
        }
    }

    fn single_active(&self) -> Result<bool, ArgumentError> {
        Ok(self.value(SINGLE_ACTIVE, "true or false", Value::as_bool)?.unwrap_or(false))
    }

    /// -1 stands for no limit.
    fn delivery_limit(&self, default: Option<u32>) -> Result<Option<u32>, ArgumentError> {
        let read = |value: &Value| match value.as_int()? {
            -1 => Some(None),
            limit => u32::try_from(limit).ok().map(Some),
        };
        let limit = self.value(DELIVERY_LIMIT, "a number of deliveries from 0, or -1 for no limit", read)?;
        Ok(limit.unwrap_or(default))
    }
}
