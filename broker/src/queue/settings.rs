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
    /// What RabbitMQ would make of it (`x-queue-type`).
    pub queue_type: QueueType,
    /// All arguments as they were given, also those that mean nothing here.
    pub arguments: Table,
}

/// The types of queues that clients of RabbitMQ ask for. There is one kind of queue here, which does what either of them
/// promises; the type only says what a declaration may ask for beside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum QueueType {
    /// Anything goes.
    #[default]
    Classic,
    /// Always durable, shared, lasting and named by the client, as in RabbitMQ.
    Quorum,
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
    /// An argument that only streams have.
    #[error("invalid arg '{argument}': only streams have it, and this broker has no streams")]
    OfStreams {
        /// The argument.
        argument: &'static str,
    },
    /// A quorum queue that is to be what quorum queues are not.
    #[error(
        "invalid property '{property}': a queue of type 'quorum' is durable, shared and not deleted automatically"
    )]
    NotForQuorum {
        /// What it was to be, by RabbitMQ's name.
        property: &'static str,
    },
    /// A quorum queue without a name.
    #[error("cannot declare a server-named queue of type 'quorum': choose a name")]
    QuorumWithoutName,
}

/// A queue exists and is not what was asked for. AMQP: 406, precondition failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "inequivalent arg '{argument}' for queue '{queue}' in vhost '{vhost}': received {received} but current is {current}"
)]
pub struct Inequivalent {
    /// What differs: `durable`, `auto_delete` or the argument.
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
const DEAD_LETTER_STRATEGY: &str = "x-dead-letter-strategy";
const CONSUMER_TIMEOUT: &str = "x-consumer-timeout";
const MODE: &str = "x-queue-mode";
const LAYOUT_VERSION: &str = "x-queue-version";
const IN_MEMORY_MAX: &str = "x-max-in-memory-length";
const IN_MEMORY_BYTES_MAX: &str = "x-max-in-memory-bytes";
const GROUP_SIZE: &str = "x-quorum-initial-group-size";
const LEADER_LOCATOR: &str = "x-queue-leader-locator";
const MASTER_LOCATOR: &str = "x-queue-master-locator";

/// Arguments of RabbitMQ's streams.
const OF_STREAMS: [&str; 4] =
    ["x-max-age", "x-stream-max-segment-size-bytes", "x-stream-filter-size-bytes", "x-initial-cluster-size"];

/// The arguments of RabbitMQ's queues, in the order in which they are compared. The last nine are checked and compared,
/// and otherwise without effect: they tune what works differently here, or what is not there to be tuned.
const KNOWN: [&str; 20] = [
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
    DEAD_LETTER_STRATEGY,
    CONSUMER_TIMEOUT,
    MODE,
    LAYOUT_VERSION,
    IN_MEMORY_MAX,
    IN_MEMORY_BYTES_MAX,
    GROUP_SIZE,
    LEADER_LOCATOR,
    MASTER_LOCATOR,
];

impl Settings {
    /// Reads the arguments of a declaration. Arguments that RabbitMQ does not define are kept and mean nothing.
    pub fn from_arguments(
        durable: bool,
        exclusive: bool,
        auto_delete: bool,
        arguments: &Table,
    ) -> Result<Self, ArgumentError> {
        let settings = Self::restored(durable, exclusive, auto_delete, arguments)?;
        settings.queue_type.check_properties(durable, exclusive, auto_delete)?;
        Reader(arguments).without_effect()?;
        Ok(settings)
    }

    /// Reads the arguments of a queue that exists. Those without effect are not checked: they may come from a version
    /// that did not know them, and a queue must not be lost for them.
    pub fn restored(
        durable: bool,
        exclusive: bool,
        auto_delete: bool,
        arguments: &Table,
    ) -> Result<Self, ArgumentError> {
        let read = Reader(arguments);
        let queue_type = read.queue_type()?;
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
            queue_type,
            arguments: arguments.clone(),
        })
    }

    /// Whether a declaration that asks for `asked` may have this queue, in RabbitMQ's order: `durable`, `auto_delete`,
    /// then the known arguments. Present and absent differ, except for `x-queue-type: classic`.
    ///
    /// Whether it is exclusive, and to whom, is for the caller to check before: a difference there is no inequivalence,
    /// but a lock (405).
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
        let flags =
            [("durable", asked.durable, self.durable), ("auto_delete", asked.auto_delete, self.auto_delete)];
        for (flag, received, current) in flags {
            if received != current {
                return differ(flag, format!("'{received}'"), format!("'{current}'"));
            }
        }
        for argument in KNOWN {
            if asked.compared(argument) != self.compared(argument) {
                let (received, current) = (asked.arguments.get(argument), self.arguments.get(argument));
                let one_is_absent = received.is_none() || current.is_none();
                return differ(argument, describe(received, one_is_absent), describe(current, one_is_absent));
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

/// A value in an error message, as RabbitMQ puts it: with its type, if the other side has no value at all.
fn describe(value: Option<&Value>, with_type: bool) -> String {
    match value {
        None => "none".to_owned(),
        Some(value) if with_type => format!("the value '{}' of type '{}'", bare(value), type_name(value)),
        Some(value) => format!("'{}'", bare(value)),
    }
}

fn bare(value: &Value) -> String {
    value.as_text().map_or_else(|| value.to_string(), str::to_owned)
}

/// RabbitMQ's name for a value's type. An integer has lost its width on its way, and is told as the one that clients use.
fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Bool(_) => "bool",
        Value::Int(int) if i32::try_from(*int).is_ok() => "signedint",
        Value::Int(_) | Value::Uint(_) => "long",
        Value::Float(_) => "double",
        Value::Text(_) => "longstr",
        Value::Bytes(_) => "binary",
        Value::Timestamp(_) => "timestamp",
        Value::List(_) => "array",
        Value::Table(_) => "table",
        _ => "void",
    }
}

impl QueueType {
    fn check_properties(
        self,
        durable: bool,
        exclusive: bool,
        auto_delete: bool,
    ) -> Result<(), ArgumentError> {
        let wrong = match self {
            Self::Classic => None,
            Self::Quorum if !durable => Some("non-durable"),
            Self::Quorum if exclusive => Some("exclusive-owner"),
            Self::Quorum => auto_delete.then_some("auto-delete"),
        };
        wrong.map_or(Ok(()), |property| Err(ArgumentError::NotForQuorum { property }))
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

    fn queue_type(&self) -> Result<QueueType, ArgumentError> {
        let read = |value: &Value| match value.as_text()? {
            "classic" => Some(QueueType::Classic),
            "quorum" => Some(QueueType::Quorum),
            _ => None,
        };
        if self.0.get(QUEUE_TYPE).and_then(Value::as_text) == Some("stream") {
            return Err(ArgumentError::Stream);
        }
        Ok(self.value(QUEUE_TYPE, "'classic' or 'quorum'", read)?.unwrap_or_default())
    }

    /// Arguments that change nothing here. Their values are checked, so that a declaration means the same to both
    /// brokers.
    fn without_effect(&self) -> Result<(), ArgumentError> {
        if let Some(argument) = OF_STREAMS.into_iter().find(|argument| self.0.contains_key(*argument)) {
            return Err(ArgumentError::OfStreams { argument });
        }
        self.one_of(
            DEAD_LETTER_STRATEGY,
            "'at-most-once' or 'at-least-once'",
            &["at-most-once", "at-least-once"],
        )?;
        self.one_of(MODE, "'default' or 'lazy'", &["default", "lazy"])?;
        self.count(LAYOUT_VERSION, "1 or 2", 1..=2)?;
        self.count(CONSUMER_TIMEOUT, "a number of milliseconds from 0", COUNT)?;
        self.count(IN_MEMORY_MAX, "a number of messages from 0", COUNT)?;
        self.count(IN_MEMORY_BYTES_MAX, "a number of bytes from 0", COUNT)?;
        self.count(GROUP_SIZE, "a number of nodes from 1", 1..=i64::MAX)?;
        let locators = ["client-local", "balanced", "random", "least-leaders"];
        self.one_of(LEADER_LOCATOR, "'client-local' or 'balanced'", &locators)?;
        let locators = ["client-local", "min-masters", "random"];
        self.one_of(MASTER_LOCATOR, "'client-local', 'min-masters' or 'random'", &locators)
    }

    fn one_of(
        &self,
        argument: &'static str,
        expected: &'static str,
        values: &[&str],
    ) -> Result<(), ArgumentError> {
        let read = |value: &Value| values.contains(&value.as_text()?).then_some(());
        self.value(argument, expected, read).map(drop)
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
