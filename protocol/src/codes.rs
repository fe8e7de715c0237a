//! Reply codes: the only list of what can go wrong between a client and the broker.

use serde::{Deserialize, Serialize};

/// Why an operation, a channel or a connection was refused. The numbers are AMQP 0-9-1's (section 1.2 of its
/// specification), so that both of the broker's protocols speak of the same things.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "u16", from = "u16")]
#[non_exhaustive]
pub enum ReplyCode {
    /// 200: nothing is wrong; a normal end.
    Ok,
    /// 311: the message is larger than this broker takes.
    ContentTooLarge,
    /// 312: a mandatory message found no queue.
    NoRoute,
    /// 320: the operator or the broker ends the connection.
    ConnectionForced,
    /// 402: the vhost does not exist.
    InvalidPath,
    /// 403: it is not allowed to this user, or not to anybody.
    AccessRefused,
    /// 404: there is no such exchange or queue.
    NotFound,
    /// 405: it belongs to another connection.
    ResourceLocked,
    /// 406: it is there, but not as the request says.
    PreconditionFailed,
    /// 501: a frame that cannot be read.
    FrameError,
    /// 502: a field with a value that cannot be.
    SyntaxError,
    /// 503: a command that is not allowed at this point.
    CommandInvalid,
    /// 504: a channel that is not open, or is already open.
    ChannelError,
    /// 505: a frame that does not belong here.
    UnexpectedFrame,
    /// 506: a limit of the broker is reached.
    ResourceError,
    /// 507: the broker takes no publishes for now, because it is short of disk or memory. No queue has the message, and
    /// the same publish may succeed later. Since 1.1; 506 for those who speak 1.0. (AMQP has no such code; this is HTTP's.)
    PublishingPaused,
    /// 530: not allowed in the state that things are in.
    NotAllowed,
    /// 540: this broker does not do that.
    NotImplemented,
    /// 541: the broker failed; its log says more.
    InternalError,
    /// A code of a later version.
    Other(u16),
}

macro_rules! codes {
    ($($code:ident = $number:literal),* $(,)?) => {
        impl From<ReplyCode> for u16 {
            fn from(code: ReplyCode) -> u16 {
                match code {
                    $(ReplyCode::$code => $number,)*
                    ReplyCode::Other(number) => number,
                }
            }
        }

        impl From<u16> for ReplyCode {
            fn from(number: u16) -> ReplyCode {
                match number {
                    $($number => ReplyCode::$code,)*
                    other => ReplyCode::Other(other),
                }
            }
        }
    };
}

codes! {
    Ok = 200,
    ContentTooLarge = 311,
    NoRoute = 312,
    ConnectionForced = 320,
    InvalidPath = 402,
    AccessRefused = 403,
    NotFound = 404,
    ResourceLocked = 405,
    PreconditionFailed = 406,
    FrameError = 501,
    SyntaxError = 502,
    CommandInvalid = 503,
    ChannelError = 504,
    UnexpectedFrame = 505,
    ResourceError = 506,
    PublishingPaused = 507,
    NotAllowed = 530,
    NotImplemented = 540,
    InternalError = 541,
}

impl std::fmt::Display for ReplyCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", u16::from(*self))
    }
}

/// What an error ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Closes {
    /// Only the operation failed.
    #[default]
    Nothing,
    /// The channel is closed; what it had not settled goes back to the queues.
    Channel,
    /// The connection is closed.
    Connection,
}
