//! Control frames: everything that is not on the hot path, as MessagePack maps with named fields.
//!
//! Unknown fields are passed over and missing optional ones have defaults, so that peers of different minor
//! versions talk. Every request carries a number that the client chooses, and gets exactly one answer with that
//! number: [`Done`] or [`Failed`].

use bytes::{BufMut, Bytes, BytesMut};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::codes::{Closes, ReplyCode};
use crate::frame::{Frame, FrameWriter};
use crate::name::{ExchangeName, QueueName, RoutingKey, VhostName, floor_char_boundary};
use crate::value::{Table, VALUE_DEPTH_MAX, deserialize_table};

/// What a control frame can be refused for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// No control frame has this kind.
    #[error("there is no control frame of kind {kind:#04x}")]
    UnknownKind {
        /// The kind byte.
        kind: u8,
    },
    /// The payload is not what this kind of frame holds.
    #[error("{frame} cannot be read: {reason}")]
    Malformed {
        /// The frame's name, or "Properties", or "DeathHistory".
        frame: &'static str,
        /// What is wrong, in the decoder's words, which quote the peer: cut, so that the answer fits any frame.
        reason: String,
        /// The request's number, if at least that could be read.
        request: Option<u32>,
    },
    /// A value that MessagePack cannot carry.
    #[error("a value that cannot be encoded: {reason}")]
    Unencodable {
        /// What is wrong, in the encoder's words.
        reason: String,
    },
}

macro_rules! control {
    ($($(#[$doc:meta])* $kind:literal $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
            pub struct $name {
                $($(#[$field_doc])* pub $field: $type,)*
            }

            impl From<$name> for Control {
                fn from(frame: $name) -> Self {
                    Self::$name(frame)
                }
            }
        )*

        /// Any control frame.
        #[derive(Debug, Clone, PartialEq)]
        #[non_exhaustive]
        #[allow(missing_docs, reason = "each variant is documented at the struct that it holds")]
        pub enum Control {
            $($name($name),)*
        }

        impl Control {
            /// The frame's kind byte.
            pub fn kind(&self) -> u8 {
                match self {
                    $(Self::$name(_) => $kind,)*
                }
            }

            /// The frame's name, as the documentation calls it.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$name(_) => stringify!($name),)*
                }
            }

            /// Reads a control frame of the given kind.
            pub fn decode(kind: u8, payload: &[u8]) -> Result<Self, ControlError> {
                match kind {
                    $($kind => read(stringify!($name), payload).map(Self::$name),)*
                    _ => Err(ControlError::UnknownKind { kind }),
                }
            }

            fn payload(&self) -> Result<Vec<u8>, ControlError> {
                match self {
                    $(Self::$name(frame) => to_message_pack(frame),)*
                }
            }
        }
    };
}

control! {
    /// The broker's first frame: who it is and what it allows.
    0x01 Hello {
        /// `Leveret`.
        product: String,
        /// The broker's version.
        version: String,
        /// SASL mechanisms, best first.
        mechanisms: Vec<String>,
        /// The largest payload of a frame that the broker takes once the connection is open, in bytes.
        frame_bytes_max: u32,
        /// How many channels a connection may open; they are numbered 1 to this.
        channels_max: u16,
        /// The broker's heartbeat proposal in milliseconds; 0 is none.
        heartbeat_ms: u32,
    }
    /// The client begins to say who it is.
    0x02 Authenticate {
        /// One of [`Hello::mechanisms`].
        mechanism: String,
        /// The mechanism's first message.
        #[serde(with = "bytes_field")]
        initial: Vec<u8>,
    }
    /// The mechanism's next message from the broker.
    0x03 Challenge {
        /// What the mechanism says.
        #[serde(with = "bytes_field")]
        data: Vec<u8>,
    }
    /// The mechanism's next message from the client.
    0x04 Response {
        /// What the mechanism says.
        #[serde(with = "bytes_field")]
        data: Vec<u8>,
    }
    /// The client is who it says it is.
    0x05 Authenticated {
        /// The mechanism's last message, with which the broker proves itself too (SCRAM).
        #[serde(with = "bytes_field", default)]
        data: Vec<u8>,
    }
    /// The client enters a vhost. Of every limit the smaller side's counts.
    0x06 Open {
        /// The virtual host.
        vhost: VhostName,
        /// The largest payload that the client takes, in bytes; at least
        /// [`FRAME_BYTES_MIN`](crate::FRAME_BYTES_MIN).
        frame_bytes_max: u32,
        /// How many channels the client wants.
        channels_max: u16,
        /// The heartbeat that the client wants, in milliseconds; 0 is none.
        heartbeat_ms: u32,
        /// What an operator is shown as the connection's name.
        #[serde(default)]
        client_name: String,
        /// The client library with its version.
        #[serde(default)]
        client_product: String,
    }
    /// The connection is open, with these limits.
    0x07 Opened {
        /// The connection's number on this broker, for logs.
        connection: u64,
        /// The largest payload of a frame in both directions, in bytes.
        frame_bytes_max: u32,
        /// Channels are numbered 1 to this.
        channels_max: u16,
        /// Each side sends something at least this often, and takes twice the time as a loss; 0 is never.
        heartbeat_ms: u32,
    }
    /// The connection ends, with a reason; the other side answers [`Closed`].
    0x09 Close {
        /// Why.
        code: ReplyCode,
        /// Why, in a sentence.
        text: String,
    }
    /// The answer to [`Close`]; the socket closes after it.
    0x0A Closed {}
    /// The broker takes no publishes for now, of anybody; everything else goes on. Since 1.1.
    0x0B PublishingPaused {
        /// What it is short of, in a sentence for people.
        reason: String,
    }
    /// The broker takes publishes again. Since 1.1.
    0x0C PublishingResumed {}
    /// Opens a channel.
    0x10 OpenChannel {
        /// The request's number.
        request: u32,
        /// Whether publishes on this channel are confirmed.
        #[serde(default)]
        confirms: bool,
    }
    /// Closes a channel. What it had not settled goes back to the queues.
    0x11 CloseChannel {
        /// The request's number.
        request: u32,
    }
    /// The broker closed the channel. It ignores what still comes for it until the client opens it anew.
    0x12 ChannelClosed {
        /// Why.
        code: ReplyCode,
        /// Why, in a sentence.
        text: String,
        /// The frame that it was about.
        operation: String,
    }
    /// A request was carried out. Definitions of durable things are on disk by now.
    0x13 Done {
        /// The request's number.
        request: u32,
        /// The queue's name, where the broker chose it or the request is about a queue.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        queue: Option<QueueName>,
        /// Ready messages: in the queue (declare, get), or removed (purge, delete).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        messages: Option<u64>,
        /// Consumers of the queue.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        consumers: Option<u32>,
        /// For [`Get`]: whether a message follows.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        found: Option<bool>,
    }
    /// A request was refused.
    0x14 Failed {
        /// The request's number.
        request: u32,
        /// The request's frame name.
        operation: String,
        /// Why.
        code: ReplyCode,
        /// What was wrong and what would be right, in a sentence.
        text: String,
        /// What else ends with it.
        #[serde(default)]
        closes: Closes,
    }
    /// Declares an exchange, or checks that it is as said.
    0x20 DeclareExchange {
        /// The request's number.
        request: u32,
        /// Its name.
        exchange: ExchangeName,
        /// `direct`, `fanout`, `topic` or `headers`.
        #[serde(rename = "type")]
        kind: String,
        /// Only check that it exists; nothing else is looked at.
        #[serde(default)]
        passive: bool,
        /// Whether it survives a restart.
        #[serde(default)]
        durable: bool,
        /// Whether it goes with its last binding.
        #[serde(default)]
        auto_delete: bool,
        /// Whether only other exchanges may publish to it.
        #[serde(default)]
        internal: bool,
        /// `alternate-exchange`.
        #[serde(default, deserialize_with = "deserialize_table")]
        arguments: Table,
    }
    /// Deletes an exchange; one that does not exist is fine.
    0x21 DeleteExchange {
        /// The request's number.
        request: u32,
        /// Its name.
        exchange: ExchangeName,
        /// Refuse if it has bindings.
        #[serde(default)]
        if_unused: bool,
    }
    /// Declares a queue, or checks that it is as said.
    0x22 DeclareQueue {
        /// The request's number.
        request: u32,
        /// Its name; empty lets the broker choose one.
        queue: QueueName,
        /// Only check that it exists; nothing else is looked at.
        #[serde(default)]
        passive: bool,
        /// Whether it survives a restart.
        #[serde(default)]
        durable: bool,
        /// Whether it belongs to this connection and goes with it.
        #[serde(default)]
        exclusive: bool,
        /// Whether it goes with its last consumer.
        #[serde(default)]
        auto_delete: bool,
        /// `x-message-ttl`, `x-max-length` and so on: see `docs/semantics.md`.
        #[serde(default, deserialize_with = "deserialize_table")]
        arguments: Table,
    }
    /// Deletes a queue; one that does not exist is fine.
    0x23 DeleteQueue {
        /// The request's number.
        request: u32,
        /// Its name.
        queue: QueueName,
        /// Refuse if it has consumers.
        #[serde(default)]
        if_unused: bool,
        /// Refuse if it has messages.
        #[serde(default)]
        if_empty: bool,
    }
    /// Removes the ready messages of a queue.
    0x24 PurgeQueue {
        /// The request's number.
        request: u32,
        /// Its name.
        queue: QueueName,
    }
    /// Binds a queue or an exchange to an exchange.
    0x25 Bind {
        /// The request's number.
        request: u32,
        /// Where messages come from.
        source: ExchangeName,
        /// Where they go.
        #[serde(flatten)]
        destination: Destination,
        /// The binding's key.
        #[serde(default)]
        routing_key: RoutingKey,
        /// What a headers exchange compares.
        #[serde(default, deserialize_with = "deserialize_table")]
        arguments: Table,
    }
    /// Removes a binding; one that does not exist is fine.
    0x26 Unbind {
        /// The request's number.
        request: u32,
        /// Where messages come from.
        source: ExchangeName,
        /// Where they go.
        #[serde(flatten)]
        destination: Destination,
        /// The binding's key.
        #[serde(default)]
        routing_key: RoutingKey,
        /// The binding's arguments.
        #[serde(default, deserialize_with = "deserialize_table")]
        arguments: Table,
    }
    /// Starts a consumer.
    0x27 Consume {
        /// The request's number.
        request: u32,
        /// The queue.
        queue: QueueName,
        /// The consumer's number on this channel, which deliveries carry. The client chooses it.
        consumer: u32,
        /// What an operator is shown.
        #[serde(default)]
        tag: String,
        /// Messages count as acknowledged when they are sent.
        #[serde(default)]
        no_ack: bool,
        /// Refuse other consumers of this queue.
        #[serde(default)]
        exclusive: bool,
        /// How many messages may be unsettled at a time; 0 is no limit. Without acknowledgements: how many
        /// messages may come before the client grants more with a credit frame; 0 is no limit.
        #[serde(default)]
        prefetch: u32,
        /// Consumers with a higher priority get messages first.
        #[serde(default)]
        priority: i32,
    }
    /// Stops a consumer. What it has not settled stays with it and can still be settled.
    0x28 Cancel {
        /// The request's number.
        request: u32,
        /// The consumer's number.
        consumer: u32,
    }
    /// Asks for one message. If [`Done::found`] says so, a deliver frame follows the answer at once.
    0x29 Get {
        /// The request's number.
        request: u32,
        /// The queue.
        queue: QueueName,
        /// The number under which the message is settled: a consumer number that no consumer of this channel
        /// uses. All gets from one queue on one channel may share it.
        consumer: u32,
        /// The message counts as acknowledged when it is sent.
        #[serde(default)]
        no_ack: bool,
    }
    /// The broker stopped a consumer.
    0x2A ConsumerCancelled {
        /// The consumer's number.
        consumer: u32,
        /// Why.
        code: ReplyCode,
        /// Why, in a sentence.
        text: String,
    }
    /// Gives an exchange and a routing key a short number for publishes on this channel.
    0x2B RegisterRoute {
        /// The request's number.
        request: u32,
        /// The number, below [`ROUTE_ALIASES_MAX`]. One that is in use is replaced.
        alias: u32,
        /// The exchange.
        exchange: ExchangeName,
        /// The routing key.
        routing_key: RoutingKey,
    }
}

/// The longest payload of a control frame, and the longest properties of a message, in bytes.
///
/// Read into memory, a list of one-byte values takes more than thirty times its bytes; this bounds what a frame
/// that is full of them can take.
pub const METADATA_BYTES_MAX: usize = 256 * 1024;

/// How much of the decoder's words goes into an error. They quote what the peer sent, which may be a whole frame.
const REASON_BYTES_MAX: usize = 300;

/// How many routes a channel may register.
pub const ROUTE_ALIASES_MAX: u32 = 4096;

/// Where a binding leads.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", try_from = "DestinationFields")]
pub enum Destination {
    /// To a queue.
    #[serde(rename = "queue")]
    Queue(QueueName),
    /// To another exchange.
    #[serde(rename = "exchange")]
    Exchange(ExchangeName),
}

/// Both fields of a [`Destination`] as they may come. The enum alone would take the first and pass over the other.
#[derive(Deserialize)]
struct DestinationFields {
    queue: Option<QueueName>,
    exchange: Option<ExchangeName>,
}

impl TryFrom<DestinationFields> for Destination {
    type Error = &'static str;

    fn try_from(fields: DestinationFields) -> Result<Self, Self::Error> {
        match (fields.queue, fields.exchange) {
            (Some(queue), None) => Ok(Self::Queue(queue)),
            (None, Some(exchange)) => Ok(Self::Exchange(exchange)),
            (Some(_), Some(_)) => {
                Err("a binding leads to a queue or to an exchange, and this one names both")
            }
            (None, None) => {
                Err("a binding leads to a `queue` or to an `exchange`, and this one names neither")
            }
        }
    }
}

impl Control {
    /// Appends the frame to `out`.
    pub fn encode(&self, channel: u16, out: &mut BytesMut) -> Result<(), ControlError> {
        let payload = self.payload()?;
        let frame = FrameWriter::begin(out, self.kind(), 0, channel);
        frame.out.put_slice(&payload);
        frame.end();
        Ok(())
    }

    /// The frame by itself.
    pub fn to_frame(&self, channel: u16) -> Result<Frame, ControlError> {
        Ok(Frame { kind: self.kind(), flags: 0, channel, payload: Bytes::from(self.payload()?) })
    }
}

fn read<T: DeserializeOwned>(frame: &'static str, payload: &[u8]) -> Result<T, ControlError> {
    #[derive(Deserialize)]
    struct OnlyRequest {
        request: u32,
    }
    from_message_pack(frame, payload, METADATA_BYTES_MAX).map_err(|error| match error {
        ControlError::Malformed { frame, reason, .. } => {
            let only = from_message_pack::<OnlyRequest>(frame, payload, METADATA_BYTES_MAX);
            let request = only.ok().map(|only| only.request);
            ControlError::Malformed { frame, reason, request }
        }
        other => other,
    })
}

/// Writes a value as MessagePack, structs as maps with named fields.
pub(crate) fn to_message_pack<T: Serialize>(value: &T) -> Result<Vec<u8>, ControlError> {
    rmp_serde::to_vec_named(value).map_err(|error| ControlError::Unencodable { reason: error.to_string() })
}

/// Reads one MessagePack map that fills `payload` exactly, has at most `bytes_max` bytes, and whose tables and
/// lists nest at most [`VALUE_DEPTH_MAX`] deep. `what` goes into the error.
pub(crate) fn from_message_pack<T: DeserializeOwned>(
    what: &'static str,
    payload: &[u8],
    bytes_max: usize,
) -> Result<T, ControlError> {
    let malformed = |mut reason: String| {
        reason.truncate(floor_char_boundary(&reason, REASON_BYTES_MAX));
        ControlError::Malformed { frame: what, reason, request: None }
    };
    if payload.len() > bytes_max {
        return Err(malformed(format!("{} bytes are more than {bytes_max}", payload.len())));
    }
    // The decoder would also take a list for a struct, field by field; a peer that got used to it would break at
    // the first field that a later version adds.
    if !matches!(payload.first(), Some(0x80..=0x8f | 0xde | 0xdf)) {
        return Err(malformed("it is not a map with named fields".to_owned()));
    }
    // A reader over the slice, because the decoder that borrows from a slice cannot say what it left over.
    let mut deserializer = rmp_serde::Deserializer::new(payload);
    // The map itself is one level, and the decoder refuses the level at which its count reaches zero.
    deserializer.set_max_depth(VALUE_DEPTH_MAX + 2);
    let value = T::deserialize(&mut deserializer).map_err(|error| malformed(error.to_string()))?;
    match deserializer.get_ref().len() {
        0 => Ok(value),
        rest => Err(malformed(format!("{rest} bytes are left over"))),
    }
}

/// Byte fields as MessagePack `bin` instead of a list of numbers.
mod bytes_field {
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        struct BytesVisitor;
        impl serde::de::Visitor<'_> for BytesVisitor {
            type Value = Vec<u8>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }
            fn visit_str<E>(self, text: &str) -> Result<Vec<u8>, E> {
                Ok(text.as_bytes().to_vec())
            }
        }
        deserializer.deserialize_bytes(BytesVisitor)
    }
}
