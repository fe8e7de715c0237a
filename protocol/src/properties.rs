//! What a publisher says about its message.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::amqp;
use crate::control::{ControlError, METADATA_BYTES_MAX, from_message_pack, to_message_pack};
use crate::value::{Table, VALUE_DEPTH_MAX, deserialize_table, table_depth};

/// A message's properties. On the wire they are one MessagePack map that the broker forwards as it came; an
/// empty blob means "none". What the broker itself acts on (persistence, priority, time to live, CC and BCC keys)
/// is not here but in the fixed part of the frame, so that it need not decode this.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Properties {
    /// MIME type of the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// MIME encoding of the body, such as `gzip`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_encoding: Option<String>,
    /// What a reply refers to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// The queue that a reply is to go to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<String>,
    /// The publisher's own id of this message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// When the publisher made it, in seconds since 1970-01-01 UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<i64>,
    /// The kind of message, by the application's own names.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The publishing user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// The publishing application.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_id: Option<String>,
    /// The application's own headers, which headers exchanges route by.
    #[serde(skip_serializing_if = "Table::is_empty", deserialize_with = "deserialize_table")]
    pub headers: Table,
}

impl Properties {
    /// The blob for a frame; empty if nothing is set.
    ///
    /// Refuses what [`Properties::decode`] would refuse, since the broker does not look into a blob: it would be
    /// the consumers that trip over it.
    pub fn encode(&self) -> Result<Bytes, ControlError> {
        if *self == Self::default() {
            return Ok(Bytes::new());
        }
        let depth = table_depth(&self.headers);
        if depth > VALUE_DEPTH_MAX {
            let reason = format!("headers nest at most {VALUE_DEPTH_MAX} deep, and these nest {depth} deep");
            return Err(ControlError::Unencodable { reason });
        }
        let blob = to_message_pack(self)?;
        if blob.len() > METADATA_BYTES_MAX {
            let reason =
                format!("properties have at most {METADATA_BYTES_MAX} bytes, and these {}", blob.len());
            return Err(ControlError::Unencodable { reason });
        }
        Ok(Bytes::from(blob))
    }

    /// Reads a blob. Unknown names are passed over, so that peers of different versions talk.
    pub fn decode(blob: &[u8]) -> Result<Self, ControlError> {
        if blob.is_empty() {
            return Ok(Self::default());
        }
        from_message_pack("Properties", blob, METADATA_BYTES_MAX)
    }
}

/// How a message's properties are encoded: as the protocol has them that it was published over. The broker keeps them
/// so, and [`amqp::to_amqp`] and [`amqp::to_native`] make one of the other where a message crosses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum PropertiesFormat {
    /// [`Properties`], in MessagePack.
    #[default]
    Native = 0,
    /// Flags and fields of an AMQP 0-9-1 content header ([`amqp::BasicProperties`]).
    Amqp = 1,
}

/// Why stored properties cannot be read, or cannot be written for the other protocol.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PropertiesError {
    /// Native ones.
    #[error(transparent)]
    Native(#[from] ControlError),
    /// AMQP's.
    #[error(transparent)]
    Amqp(#[from] amqp::ContentError),
}

impl PropertiesFormat {
    /// The application's headers, which headers exchanges route by.
    pub fn headers(self, properties: &[u8]) -> Result<Table, PropertiesError> {
        match self {
            Self::Native => Ok(Properties::decode(properties)?.headers),
            Self::Amqp => Ok(amqp::BasicProperties::decode(properties)?.visible_headers()),
        }
    }

    /// The format that a record names by its number (`format as u8`).
    pub fn from_byte(byte: u8) -> Option<Self> {
        [Self::Native, Self::Amqp].into_iter().find(|format| *format as u8 == byte)
    }
}
