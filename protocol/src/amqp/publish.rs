//! What the broker acts on in a publisher's properties.

use super::content::{BasicProperties, ContentError};
use super::headers::{BCC, CC, HeaderChanges};
use super::table::FieldValue;
use crate::codes::ReplyCode;
use crate::keys::COPIES_MAX;
use crate::name::{NameError, RoutingKey};

use bytes::Bytes;

/// `delivery_mode` of a message that is to survive a restart. Any other number, or none, means that it need not.
pub const DELIVERY_MODE_PERSISTENT: u8 = 2;

/// What the broker acts on: the counterpart of the fixed part of a native publish frame.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PublishAttributes {
    /// Whether it is to survive a restart.
    pub persistent: bool,
    /// Its priority; 0 if it names none.
    pub priority: u8,
    /// How long it may wait in a queue, in milliseconds.
    pub ttl_ms: Option<u64>,
    /// Further routing keys, which consumers see; at most [`COPIES_MAX`].
    pub cc: Vec<RoutingKey>,
    /// Further routing keys, which nobody sees; at most [`COPIES_MAX`]. The header goes: see [`without_bcc`].
    pub bcc: Vec<RoutingKey>,
}

/// Properties that can be read, but that no message may have. The channel closes with 406, as in RabbitMQ.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidMessage {
    /// The expiration is not a number of milliseconds.
    #[error("invalid expiration '{}': not a number of milliseconds in decimal digits", .0.escape_ascii())]
    Expiration(Vec<u8>),
    /// CC or BCC is not an array of long strings.
    #[error("invalid message: the header {header} is not an array of long strings")]
    Copies {
        /// Which header.
        header: &'static str,
    },
    /// CC or BCC has too many keys.
    #[error("invalid message: the header {header} has more than {COPIES_MAX} keys")]
    TooManyCopies {
        /// Which header.
        header: &'static str,
    },
    /// A key in CC or BCC that no routing key can be.
    #[error("invalid message: the header {header} has a key that is none: {error}")]
    Key {
        /// Which header.
        header: &'static str,
        /// What is wrong with it.
        error: NameError,
    },
}

impl InvalidMessage {
    /// The code to close the channel with.
    pub fn reply_code(&self) -> ReplyCode {
        ReplyCode::PreconditionFailed
    }
}

impl BasicProperties<'_> {
    /// What the broker acts on. An `x-death` is not looked at: a publisher cannot give a message a past.
    pub fn publish_attributes(&self) -> Result<PublishAttributes, InvalidMessage> {
        Ok(PublishAttributes {
            persistent: self.delivery_mode == Some(DELIVERY_MODE_PERSISTENT),
            priority: self.priority.unwrap_or_default(),
            ttl_ms: self.expiration.map(parse_expiration).transpose()?,
            cc: self.copies(CC)?,
            bcc: self.copies(BCC)?,
        })
    }

    fn copies(&self, header: &'static str) -> Result<Vec<RoutingKey>, InvalidMessage> {
        let keys = match self.headers.and_then(|headers| headers.get(header)) {
            None => return Ok(Vec::new()),
            Some(FieldValue::Array(keys)) => keys,
            Some(_) => return Err(InvalidMessage::Copies { header }),
        };
        if keys.iter().nth(COPIES_MAX).is_some() {
            return Err(InvalidMessage::TooManyCopies { header });
        }
        keys.iter()
            .map(|key| {
                let FieldValue::LongString(key) = key else { return Err(InvalidMessage::Copies { header }) };
                let key = std::str::from_utf8(key).map_err(|_| InvalidMessage::Copies { header })?;
                RoutingKey::new(key).map_err(|error| InvalidMessage::Key { header, error })
            })
            .collect()
    }
}

/// The milliseconds of an `expiration`.
pub fn parse_expiration(expiration: &[u8]) -> Result<u64, InvalidMessage> {
    // The standard parser takes a sign; digits alone are what the specification of the property asks for.
    let digits = !expiration.is_empty() && expiration.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(expiration).ok().filter(|_| digits);
    text.and_then(|text| text.parse().ok()).ok_or_else(|| InvalidMessage::Expiration(expiration.to_vec()))
}

/// Encoded properties without the header `BCC`; the same bytes if there is none. To be called before a message is kept,
/// so that no way out of the broker can show it.
pub fn without_bcc(properties: Bytes) -> Result<Bytes, ContentError> {
    let headers = BasicProperties::decode(&properties)?.headers.unwrap_or_default();
    if headers.get(BCC).is_none() {
        return Ok(properties);
    }
    let mut changes = HeaderChanges::default();
    changes.remove(BCC);
    changes.apply(&properties)
}
