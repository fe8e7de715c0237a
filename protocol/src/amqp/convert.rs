//! Messages that cross from one protocol to the other, or that have got headers from the broker.
//!
//! A message keeps the bytes of the protocol that it was published over, and the format beside them. Only what leaves
//! over the other protocol, or is a dead letter, is encoded anew.

use std::borrow::Cow;

use bytes::Bytes;

use super::content::{BasicProperties, ContentError};
use super::headers::{BCC, CC, HeaderChanges};
use super::publish::DELIVERY_MODE_PERSISTENT;
use super::table_writer::EncodedTable;
use super::wire::FieldProblem;
use crate::death::DeathHistory;
use crate::name::{NAME_BYTES_MAX, RoutingKey};
use crate::properties::{Properties, PropertiesError, PropertiesFormat};
use crate::value::{Table, Value};

/// What the broker knows of a message beside its properties.
#[derive(Debug, Clone, Copy, Default)]
pub struct Envelope<'a> {
    /// Whether it survives a restart.
    pub persistent: bool,
    /// Its priority; 0 is none.
    pub priority: u8,
    /// The time to live that it was published with, in milliseconds.
    pub ttl_ms: Option<u64>,
    /// Its CC keys. A dead letter that was routed by another key has none.
    pub cc: &'a [RoutingKey],
    /// What happened to it before.
    pub deaths: Option<&'a DeathHistory>,
    /// Headers that the broker adds, such as `x-delivery-count`. They go over what the publisher said.
    pub headers: &'a [(&'a str, Value)],
}

/// A message's properties for a content header: flags and fields. They are the stored bytes unless the message was
/// published over the native protocol, is a dead letter, or gets headers from the broker.
///
/// A native text that does not fit AMQP's 255 bytes becomes a header `x-` and the property's name, so that it is not
/// lost.
pub fn to_amqp<'a>(
    format: PropertiesFormat,
    properties: &'a [u8],
    envelope: &Envelope<'_>,
) -> Result<Cow<'a, [u8]>, PropertiesError> {
    let amqp = match format {
        PropertiesFormat::Amqp => Cow::Borrowed(properties),
        PropertiesFormat::Native => Cow::Owned(from_native(properties, envelope)?.into()),
    };
    let mut changes = HeaderChanges::default();
    for (key, value) in envelope.headers {
        changes.set(key, value);
    }
    if let Some(deaths) = envelope.deaths {
        changes.set_deaths(deaths);
        if envelope.cc.is_empty() {
            // Another key took the place of all that it was published with, and the header would tell otherwise.
            changes.remove(CC);
        }
    }
    if changes.is_empty() { Ok(amqp) } else { Ok(Cow::Owned(changes.apply(&amqp)?.into())) }
}

/// A message's properties as a native blob (see [`Properties`]). What the native protocol has in the fixed part of its
/// frames (persistence, priority, time to live, death history) is not in it; the header `CC` stays, `BCC` does not. A
/// `cluster_id` is lost, and so are strings' bytes that are not UTF-8.
///
/// Fails if the properties, which AMQP writes shorter, exceed the native limit of 256 KiB.
pub fn to_native(format: PropertiesFormat, properties: &[u8]) -> Result<Cow<'_, [u8]>, PropertiesError> {
    if format == PropertiesFormat::Native {
        return Ok(Cow::Borrowed(properties));
    }
    let amqp = BasicProperties::decode(properties)?;
    let text = |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    let native = Properties {
        content_type: text(amqp.content_type),
        content_encoding: text(amqp.content_encoding),
        correlation_id: text(amqp.correlation_id),
        reply_to: text(amqp.reply_to),
        message_id: text(amqp.message_id),
        timestamp: amqp.timestamp.map(u64::cast_signed),
        kind: text(amqp.kind),
        user_id: text(amqp.user_id),
        app_id: text(amqp.app_id),
        headers: amqp.visible_headers(),
    };
    Ok(Cow::Owned(native.encode()?.into()))
}

impl BasicProperties<'_> {
    /// The headers as the broker's core knows them, without `BCC`.
    pub fn visible_headers(&self) -> Table {
        let mut headers = self.headers.unwrap_or_default().to_table();
        headers.remove(BCC);
        headers
    }
}

fn from_native(properties: &[u8], envelope: &Envelope<'_>) -> Result<Bytes, PropertiesError> {
    let Properties {
        content_type,
        content_encoding,
        correlation_id,
        reply_to,
        message_id,
        timestamp,
        kind,
        user_id,
        app_id,
        mut headers,
    } = Properties::decode(properties)?;
    let mut fitting = |text: Option<String>, name: &str| {
        let text = text?;
        if text.len() <= NAME_BYTES_MAX {
            return Some(text);
        }
        headers.insert(format!("x-{name}"), Value::Text(text));
        None
    };
    let content_type = fitting(content_type, "content-type");
    let content_encoding = fitting(content_encoding, "content-encoding");
    let correlation_id = fitting(correlation_id, "correlation-id");
    let reply_to = fitting(reply_to, "reply-to");
    let message_id = fitting(message_id, "message-id");
    let kind = fitting(kind, "type");
    let user_id = fitting(user_id, "user-id");
    let app_id = fitting(app_id, "app-id");
    if !envelope.cc.is_empty() {
        let keys = envelope.cc.iter().map(|key| Value::from(key.as_str())).collect();
        headers.insert(CC.to_owned(), Value::List(keys));
    }
    let headers = EncodedTable::new(&headers)
        .map_err(|error| ContentError::from(FieldProblem::from(error).of("headers")))?;
    let expiration = envelope.ttl_ms.map(|ttl_ms| ttl_ms.to_string());
    let amqp = BasicProperties {
        content_type: content_type.as_ref().map(String::as_bytes),
        content_encoding: content_encoding.as_ref().map(String::as_bytes),
        headers: Some(headers.as_table()).filter(|headers| !headers.is_empty()),
        delivery_mode: Some(if envelope.persistent { DELIVERY_MODE_PERSISTENT } else { 1 }),
        priority: Some(envelope.priority).filter(|priority| *priority != 0),
        correlation_id: correlation_id.as_ref().map(String::as_bytes),
        reply_to: reply_to.as_ref().map(String::as_bytes),
        expiration: expiration.as_ref().map(String::as_bytes),
        message_id: message_id.as_ref().map(String::as_bytes),
        timestamp: timestamp.map(i64::cast_unsigned),
        kind: kind.as_ref().map(String::as_bytes),
        user_id: user_id.as_ref().map(String::as_bytes),
        app_id: app_id.as_ref().map(String::as_bytes),
        cluster_id: None,
    };
    Ok(amqp.to_bytes())
}
