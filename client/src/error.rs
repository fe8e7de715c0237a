//! What can go wrong, one type for each kind of operation.
//!
//! Every type is `#[non_exhaustive]`, and each says with `is_retryable` whether the same call may succeed later
//! without anybody changing anything.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use leveret_protocol::sasl::SaslError;
use leveret_protocol::{ControlError, DataError, FrameTooLarge, NameError, OpeningError, ReplyCode};

use crate::message::Message;
use crate::uri::UriError;

/// What the broker said when it refused or ended something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{operation}: {text} (code {code})")]
pub struct Refusal {
    /// The frame that it was about, such as `DeclareQueue`.
    pub operation: String,
    /// The kind of reason.
    pub code: ReplyCode,
    /// What was wrong and what would be right, in a sentence.
    pub text: String,
}

impl Refusal {
    /// Whether the reason passes by itself: a limit that is reached, a resource that another connection still
    /// holds, or a broker that fails or stops.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self.code,
            ReplyCode::ConnectionForced
                | ReplyCode::ResourceLocked
                | ReplyCode::ResourceError
                | ReplyCode::PublishingPaused
                | ReplyCode::InternalError
        )
    }
}

/// Why a connection that was open is so no longer.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionLost {
    /// The broker said that it ends the connection.
    #[error("the broker ended the connection: {0}")]
    Ended(Refusal),
    /// The socket failed.
    #[error("the socket failed: {0}")]
    Io(#[source] Arc<io::Error>),
    /// The socket closed without a word.
    #[error("the broker hung up without a word")]
    HungUp,
    /// Not even heartbeats came.
    #[error("nothing came from the broker for {} ms", .0.as_millis())]
    Silent(Duration),
    /// The broker sent something that it must not send.
    #[error("the broker broke the protocol: {0}")]
    Protocol(#[from] ProtocolError),
}

/// How the other side broke the protocol. Nothing that follows such a frame can be trusted.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// A frame above the agreed limit.
    #[error(transparent)]
    FrameTooLarge(#[from] FrameTooLarge),
    /// A control frame that cannot be read.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A data frame that cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A frame that does not belong where it came.
    #[error("a {frame} frame came where {expected} was expected")]
    Unexpected {
        /// The frame's name.
        frame: String,
        /// What would have been right.
        expected: &'static str,
    },
    /// A consumer got more messages than it has room for.
    #[error("a consumer with a prefetch of {prefetch_max} got more deliveries than that")]
    PrefetchExceeded {
        /// What the consumer asked for.
        prefetch_max: u32,
    },
}

/// Why what was under way has no known outcome.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Interruption {
    /// The connection is gone.
    #[error(transparent)]
    Connection(#[from] ConnectionLost),
    /// The broker closed the channel.
    #[error("the broker closed the channel: {0}")]
    Channel(Refusal),
    /// This side closed the client before an answer came.
    #[error("the client was closed before an answer came")]
    Closed,
}

/// Why no connection came about.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The URL is not one.
    #[error(transparent)]
    Uri(#[from] UriError),
    /// No socket, or it failed during the handshake.
    #[error("cannot talk to {address}: {source}")]
    Io {
        /// Host and port.
        address: String,
        /// What the operating system says.
        source: io::Error,
    },
    /// The other side hung up during the handshake.
    #[error("{address} hung up during the handshake")]
    HungUp {
        /// Host and port.
        address: String,
    },
    /// The handshake was not over in time.
    #[error("{address} was not ready after {} ms", after.as_millis())]
    TimedOut {
        /// Host and port.
        address: String,
        /// How long the client waited.
        after: Duration,
    },
    /// The other side speaks something else.
    #[error(transparent)]
    Opening(#[from] OpeningError),
    /// The broker refused the user, the password, the vhost or the connection as such.
    #[error("the broker refused the connection: {0}")]
    Refused(Refusal),
    /// The user name or the password cannot be one, or the broker could not prove that it knows the user.
    #[error("authentication failed: {0}")]
    Authentication(#[from] SaslError),
    /// The broker offers no way to authenticate that this client has.
    #[error("the broker offers {offered:?} to authenticate, and this client has SCRAM-SHA-256 and PLAIN")]
    NoMechanism {
        /// What the broker offers.
        offered: Vec<String>,
    },
    /// The broker asks for the bare password over a network that others may read.
    #[error(
        "the broker at {address} takes only the bare password (PLAIN); if nobody else can read this network, \
         allow it with `ClientBuilder::plain_password`"
    )]
    PlainPassword {
        /// Host and port.
        address: String,
    },
    /// The other side broke the protocol during the handshake.
    #[error("the handshake failed: {0}")]
    Protocol(#[from] ProtocolError),
    /// The connection was open and was lost before it could be used.
    #[error(transparent)]
    Lost(#[from] ConnectionLost),
    /// The operating system gave no random numbers.
    #[error("the operating system gave no random numbers: {0}")]
    NoRandomness(String),
}

impl ConnectError {
    /// Whether to try again makes sense: the network or the broker may come back, a wrong password stays wrong.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Io { .. } | Self::HungUp { .. } | Self::TimedOut { .. } | Self::Lost(_) => true,
            Self::Refused(refusal) => refusal.is_retryable(),
            _ => false,
        }
    }
}

/// Why a definition was not made, changed, looked at or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeclareError {
    /// A name that cannot be one.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The broker refused it.
    #[error(transparent)]
    Refused(Refusal),
    /// Arguments that MessagePack cannot carry.
    #[error(transparent)]
    Arguments(ControlError),
    /// The arguments do not fit a frame.
    #[error("the request needs a frame of {size} bytes, and the limit of this connection is {limit}")]
    TooLarge {
        /// What it needs, in bytes.
        size: usize,
        /// What was agreed on, in bytes.
        limit: usize,
    },
    /// The connection was lost before the answer: it may or may not have happened. To repeat it is harmless.
    #[error("the connection was lost before the answer: {0}")]
    ConnectionLost(#[from] ConnectionLost),
    /// The client is closed.
    #[error("the client is closed")]
    Closed,
}

impl DeclareError {
    /// Whether the same request may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::ConnectionLost(_) => true,
            Self::Refused(refusal) => refusal.is_retryable(),
            _ => false,
        }
    }
}

/// Why a message is not known to be stored. The message comes back, so that the caller can decide.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// No queue is bound for it; nobody has it.
    #[error("no queue is bound for routing key {routing_key:?}")]
    Unroutable {
        /// The key that led nowhere.
        routing_key: String,
        /// The message.
        message: Box<Message>,
    },
    /// The broker did not take it, or not all of its queues did.
    #[error("the broker refused the message: {} (code {code})", describe(*.code))]
    Refused {
        /// Why.
        code: ReplyCode,
        /// The message.
        message: Box<Message>,
    },
    /// The connection or the channel was lost before the confirm. To send the message again may make it double.
    #[error("the message may or may not be stored: {cause}")]
    OutcomeUnknown {
        /// The message.
        message: Box<Message>,
        /// What happened.
        cause: Interruption,
    },
    /// It does not fit a frame, and was not sent.
    #[error("the message needs a frame of {size} bytes, and the limit of this connection is {limit}")]
    TooLarge {
        /// What it needs, in bytes.
        size: usize,
        /// What was agreed on, in bytes.
        limit: usize,
        /// The message.
        message: Box<Message>,
    },
    /// Its routing key or another of its parts cannot be sent, and it was not sent.
    #[error("the message cannot be sent: {reason}")]
    Invalid {
        /// What is wrong.
        reason: InvalidMessage,
        /// The message.
        message: Box<Message>,
    },
    /// The publisher or its connection ended for good before it could be sent; it was not sent.
    #[error("the message was not sent: {cause}")]
    NotSent {
        /// The message.
        message: Box<Message>,
        /// What happened.
        cause: Interruption,
    },
}

impl PublishError {
    /// Whether to send the same message again may succeed. After [`PublishError::OutcomeUnknown`] that may make
    /// it double.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::OutcomeUnknown { .. } => true,
            Self::Refused { code, .. } => {
                matches!(
                    code,
                    ReplyCode::ResourceError
                        | ReplyCode::PublishingPaused
                        | ReplyCode::InternalError
                        | ReplyCode::ResourceLocked
                )
            }
            _ => false,
        }
    }

    /// The message that was not stored, or that may not be.
    pub fn message(&self) -> &Message {
        match self {
            Self::Unroutable { message, .. }
            | Self::Refused { message, .. }
            | Self::OutcomeUnknown { message, .. }
            | Self::TooLarge { message, .. }
            | Self::Invalid { message, .. }
            | Self::NotSent { message, .. } => message,
        }
    }

    /// Takes the message back, for another attempt or another place.
    pub fn into_message(self) -> Message {
        match self {
            Self::Unroutable { message, .. }
            | Self::Refused { message, .. }
            | Self::OutcomeUnknown { message, .. }
            | Self::TooLarge { message, .. }
            | Self::Invalid { message, .. }
            | Self::NotSent { message, .. } => *message,
        }
    }
}

/// A confirm carries only a code, so the sentence is made here.
fn describe(code: ReplyCode) -> &'static str {
    match code {
        ReplyCode::NotFound => "there is no such exchange",
        ReplyCode::AccessRefused => "this user may not publish there, or nobody may",
        ReplyCode::PublishingPaused => "the broker is short of disk or memory, and takes no messages for now",
        ReplyCode::ResourceError => "a queue is full, or the broker is out of room",
        ReplyCode::ContentTooLarge => "it is larger than a queue or the broker takes",
        ReplyCode::InternalError => "the broker failed, and its log says more",
        _ => "see the code",
    }
}

/// What is wrong with a message that cannot be sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidMessage {
    /// A routing key, CC key or BCC key that cannot be one.
    #[error(transparent)]
    Name(#[from] NameError),
    /// More than 64 CC keys or 64 BCC keys.
    #[error("a message has at most {max} {what} keys, and this one has {count}")]
    TooManyCopies {
        /// `CC` or `BCC`.
        what: &'static str,
        /// How many it has.
        count: usize,
        /// How many it may have.
        max: usize,
    },
    /// Properties that MessagePack cannot carry.
    #[error(transparent)]
    Properties(#[from] ControlError),
}

/// Why a publisher was not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// An exchange's name that cannot be one.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The broker refused it.
    #[error(transparent)]
    Refused(Refusal),
    /// Every channel that the broker grants is in use.
    #[error(
        "all {max} channels of this connection are in use: close a publisher or a consumer, or share one"
    )]
    ChannelLimit {
        /// How many the broker grants.
        max: u16,
    },
    /// The connection was lost.
    #[error(transparent)]
    ConnectionLost(#[from] ConnectionLost),
    /// The client is closed.
    #[error("the client is closed")]
    Closed,
}

impl OpenError {
    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::ConnectionLost(_) | Self::ChannelLimit { .. } => true,
            Self::Refused(refusal) => refusal.is_retryable(),
            _ => false,
        }
    }
}

/// Why a consumer did not start, or why it ended.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ConsumeError {
    /// A queue's name that cannot be one.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The broker refused the consumer, at its start or when it was started again after a loss.
    #[error(transparent)]
    Refused(Refusal),
    /// The broker stopped the consumer: its queue is gone, for instance.
    #[error("the broker stopped the consumer: {0}")]
    Cancelled(Refusal),
    /// The broker closed the consumer's channel.
    #[error("the broker closed the consumer's channel: {0}")]
    ChannelClosed(Refusal),
    /// Every channel that the broker grants is in use.
    #[error("all {max} channels of this connection are in use: close a publisher or a consumer")]
    ChannelLimit {
        /// How many the broker grants.
        max: u16,
    },
    /// The connection was lost, and recovery is off or gave up.
    #[error(transparent)]
    ConnectionLost(#[from] ConnectionLost),
    /// The client is closed.
    #[error("the client is closed")]
    Closed,
}

impl ConsumeError {
    /// Whether the same consumer may start later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::ConnectionLost(_) | Self::ChannelLimit { .. } => true,
            Self::Refused(refusal) | Self::Cancelled(refusal) | Self::ChannelClosed(refusal) => {
                refusal.is_retryable()
            }
            _ => false,
        }
    }
}

/// Why it is not known that a settle is on disk. The broker gives such a message out again, unless it got the
/// settle after all.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SettleError {
    /// The connection or the channel that the delivery came on was lost.
    #[error("the settle may or may not be stored: {0}")]
    OutcomeUnknown(#[from] Interruption),
    /// The delivery came on a connection or a channel that was lost before; the broker has the message back.
    #[error("the delivery is of a connection that was lost before: the message was given back to its queue")]
    Stale,
}

impl SettleError {
    /// Always false: the message comes again, as another delivery, which can be settled.
    pub fn is_retryable(&self) -> bool {
        false
    }
}

/// Why a request got no reply.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The request itself was not stored.
    #[error("the request was not sent: {0}")]
    Publish(#[from] PublishError),
    /// The queue for replies, or its consumer, could not be made.
    #[error("the queue for replies could not be declared: {0}")]
    Declare(#[from] DeclareError),
    /// The consumer for replies was refused.
    #[error("the queue for replies could not be consumed: {0}")]
    Consume(#[from] ConsumeError),
    /// The publisher for requests was refused.
    #[error("no publisher for requests: {0}")]
    Open(#[from] OpenError),
    /// No reply came in time. The request may still be answered; the answer is dropped.
    #[error("no reply came within {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// The connection was lost, and with it the queue that the reply would have come to.
    #[error("the connection was lost before the reply")]
    ConnectionLost,
    /// The operating system gave no random numbers for the correlation ids.
    #[error("the operating system gave no random numbers: {0}")]
    NoRandomness(String),
}

impl RequestError {
    /// Whether the same request may get a reply later. It may already have been carried out.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::TimedOut(_) | Self::ConnectionLost => true,
            Self::Publish(error) => error.is_retryable(),
            Self::Declare(error) => error.is_retryable(),
            Self::Consume(error) => error.is_retryable(),
            Self::Open(error) => error.is_retryable(),
            Self::NoRandomness(_) => false,
        }
    }
}

/// Why a reply was not stored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplyError {
    /// The delivery names no queue to reply to.
    #[error("the message asks for no reply: it has no `reply_to`")]
    NotARequest,
    /// No publisher for replies.
    #[error("no publisher for replies: {0}")]
    Open(#[from] OpenError),
    /// The reply was not stored.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

impl ReplyError {
    /// Whether the same reply may be stored later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::NotARequest => false,
            Self::Open(error) => error.is_retryable(),
            Self::Publish(error) => error.is_retryable(),
        }
    }
}

/// Why a client did not close in good order. It is closed all the same.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CloseError {
    /// The connection was lost before everything was confirmed and settled.
    #[error("the connection was lost before everything was confirmed: {0}")]
    ConnectionLost(#[from] ConnectionLost),
    /// Confirms or the broker's farewell did not come in time.
    #[error("the broker did not confirm everything within {} ms", .0.as_millis())]
    TimedOut(Duration),
}

/// A body that cannot be written or read in the format asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// JSON.
    #[error("a body that is not the JSON of this type: {0}")]
    Json(#[from] serde_json::Error),
    /// A value that MessagePack cannot carry.
    #[error("a value that cannot be MessagePack: {0}")]
    MessagePackEncode(#[from] rmp_serde::encode::Error),
    /// Bytes that are not this value's MessagePack.
    #[error("a body that is not the MessagePack of this type: {0}")]
    MessagePackDecode(#[from] rmp_serde::decode::Error),
}

/// How a request to the broker failed, before it becomes the error of an operation.
#[derive(Debug, Clone)]
pub(crate) enum RequestFailure {
    Refused(Refusal),
    Lost(ConnectionLost),
    Closed,
    TooLarge { size: usize, limit: usize },
    Unencodable(ControlError),
}

impl From<RequestFailure> for DeclareError {
    fn from(failure: RequestFailure) -> Self {
        match failure {
            RequestFailure::Refused(refusal) => Self::Refused(refusal),
            RequestFailure::Lost(lost) => Self::ConnectionLost(lost),
            RequestFailure::Closed => Self::Closed,
            RequestFailure::TooLarge { size, limit } => Self::TooLarge { size, limit },
            RequestFailure::Unencodable(error) => Self::Arguments(error),
        }
    }
}

/// Why a control frame was not appended.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ControlFailure {
    #[error("the connection is not open")]
    Offline,
    #[error("the frame has {size} bytes, and the limit is {limit}")]
    TooLarge { size: usize, limit: usize },
    #[error(transparent)]
    Unencodable(#[from] ControlError),
}
