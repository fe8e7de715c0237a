//! What a publisher says about its message.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::control::ControlError;
use crate::value::Table;

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
    #[serde(skip_serializing_if = "Table::is_empty")]
    pub headers: Table,
}

impl Properties {
    /// The blob for a frame; empty if nothing is set.
    pub fn encode(&self) -> Result<Bytes, ControlError> {
        if *self == Self::default() {
            return Ok(Bytes::new());
        }
        crate::control::to_message_pack(self).map(Bytes::from)
    }

    /// Reads a blob. Unknown names are passed over, so that peers of different versions talk.
    pub fn decode(blob: &[u8]) -> Result<Self, ControlError> {
        if blob.is_empty() {
            return Ok(Self::default());
        }
        crate::control::from_message_pack(blob)
    }
}
