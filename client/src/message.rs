//! A message: a body, and what is said about it.

use std::time::Duration;

use bytes::Bytes;
use leveret_protocol::{COPIES_MAX, Properties, RoutingKey, Value};
use serde::Serialize;

use crate::error::{BodyError, InvalidMessage};

/// The content type of [`Message::json`].
pub(crate) const JSON: &str = "application/json";

/// The content type of [`Message::message_pack`].
pub(crate) const MESSAGE_PACK: &str = "application/vnd.msgpack";

/// A message to publish. Cheap to clone: the body is shared.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Message {
    body: Bytes,
    ttl_ms: Option<u64>,
    priority: Option<u8>,
    persistent: Option<bool>,
    // Most messages say nothing about themselves; a pointer keeps those small.
    details: Option<Box<Details>>,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Details {
    properties: Properties,
    cc: Vec<String>,
    bcc: Vec<String>,
}

static NO_PROPERTIES: Properties = Properties {
    content_type: None,
    content_encoding: None,
    correlation_id: None,
    reply_to: None,
    message_id: None,
    timestamp: None,
    kind: None,
    user_id: None,
    app_id: None,
    headers: std::collections::BTreeMap::new(),
};

impl Message {
    /// A message with this body and no properties.
    pub fn new(body: impl Into<Bytes>) -> Self {
        Self { body: body.into(), ..Self::default() }
    }

    /// A value as JSON, with the content type to say so.
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<Self, BodyError> {
        Ok(Self::new(serde_json::to_vec(value)?).content_type(JSON))
    }

    /// A value as MessagePack (structs as maps with named fields), with the content type to say so.
    pub fn message_pack<T: Serialize + ?Sized>(value: &T) -> Result<Self, BodyError> {
        Ok(Self::new(rmp_serde::to_vec_named(value)?).content_type(MESSAGE_PACK))
    }

    /// MIME type of the body.
    #[must_use]
    pub fn content_type(self, content_type: impl Into<String>) -> Self {
        self.with(|properties| properties.content_type = Some(content_type.into()))
    }

    /// MIME encoding of the body, such as `gzip`.
    #[must_use]
    pub fn content_encoding(self, encoding: impl Into<String>) -> Self {
        self.with(|properties| properties.content_encoding = Some(encoding.into()))
    }

    /// What a reply refers to.
    #[must_use]
    pub fn correlation_id(self, id: impl Into<String>) -> Self {
        self.with(|properties| properties.correlation_id = Some(id.into()))
    }

    /// The queue that a reply is to go to.
    #[must_use]
    pub fn reply_to(self, queue: impl Into<String>) -> Self {
        self.with(|properties| properties.reply_to = Some(queue.into()))
    }

    /// The publisher's own id of this message.
    #[must_use]
    pub fn message_id(self, id: impl Into<String>) -> Self {
        self.with(|properties| properties.message_id = Some(id.into()))
    }

    /// When it was made, in seconds since 1970-01-01 UTC.
    #[must_use]
    pub fn timestamp(self, seconds: i64) -> Self {
        self.with(|properties| properties.timestamp = Some(seconds))
    }

    /// The kind of message, by the application's own names (AMQP's property `type`).
    #[must_use]
    pub fn kind(self, kind: impl Into<String>) -> Self {
        self.with(|properties| properties.kind = Some(kind.into()))
    }

    /// The publishing application.
    #[must_use]
    pub fn app_id(self, app: impl Into<String>) -> Self {
        self.with(|properties| properties.app_id = Some(app.into()))
    }

    /// A header, which headers exchanges route by.
    #[must_use]
    pub fn header(self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.with(|properties| {
            properties.headers.insert(name.into(), value.into());
        })
    }

    /// All properties at once; replaces those that were set before.
    #[must_use]
    pub fn with_properties(self, all: Properties) -> Self {
        self.with(|properties| *properties = all)
    }

    /// Messages with a higher priority leave a priority queue first; without one it is 0.
    #[must_use]
    pub fn priority(self, priority: u8) -> Self {
        Self { priority: Some(priority), ..self }
    }

    /// How long it may wait in a queue, in whole milliseconds.
    #[must_use]
    pub fn ttl(self, ttl: Duration) -> Self {
        Self { ttl_ms: Some(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)), ..self }
    }

    /// Whether it survives a restart of the broker (in durable queues), whatever its publisher's default is.
    #[must_use]
    pub fn persistent(self, persistent: bool) -> Self {
        Self { persistent: Some(persistent), ..self }
    }

    /// A further routing key, which consumers see; at most 64.
    #[must_use]
    pub fn cc(mut self, routing_key: impl Into<String>) -> Self {
        self.details_mut().cc.push(routing_key.into());
        self
    }

    /// A further routing key, which nobody sees; at most 64.
    #[must_use]
    pub fn bcc(mut self, routing_key: impl Into<String>) -> Self {
        self.details_mut().bcc.push(routing_key.into());
        self
    }

    /// The body.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// What is said about the body.
    pub fn properties(&self) -> &Properties {
        self.details.as_ref().map_or(&NO_PROPERTIES, |details| &details.properties)
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut Properties)) -> Self {
        change(&mut self.details_mut().properties);
        self
    }

    /// What the wire needs, with everything checked that the broker would refuse.
    pub(crate) fn encoded(&self) -> Result<Encoded<'_>, InvalidMessage> {
        let mut encoded = Encoded {
            priority: self.priority,
            ttl_ms: self.ttl_ms,
            persistent: self.persistent,
            body: &self.body,
            ..Encoded::default()
        };
        if let Some(details) = &self.details {
            encoded.properties = details.properties.encode()?;
            encoded.cc = check_copies("CC", &details.cc)?;
            encoded.bcc = check_copies("BCC", &details.bcc)?;
        }
        Ok(encoded)
    }

    fn details_mut(&mut self) -> &mut Details {
        self.details.get_or_insert_default()
    }
}

impl<T: Into<Bytes>> From<T> for Message {
    fn from(body: T) -> Self {
        Self::new(body)
    }
}

/// The parts of a message as a publish frame takes them.
#[derive(Debug, Default)]
pub(crate) struct Encoded<'a> {
    pub(crate) priority: Option<u8>,
    pub(crate) ttl_ms: Option<u64>,
    pub(crate) persistent: Option<bool>,
    pub(crate) cc: Vec<&'a str>,
    pub(crate) bcc: Vec<&'a str>,
    pub(crate) properties: Bytes,
    pub(crate) body: &'a [u8],
}

fn check_copies<'a>(what: &'static str, keys: &'a [String]) -> Result<Vec<&'a str>, InvalidMessage> {
    if keys.len() > COPIES_MAX {
        return Err(InvalidMessage::TooManyCopies { what, count: keys.len(), max: COPIES_MAX });
    }
    for key in keys {
        leveret_protocol::check_name("routing key", key)?;
    }
    Ok(keys.iter().map(String::as_str).collect())
}

/// A routing key that is checked only when it differs from the one before: most publishers use few.
#[derive(Debug, Default)]
pub(crate) struct LastKey(RoutingKey);

impl LastKey {
    pub(crate) fn check(&mut self, key: &str) -> Result<RoutingKey, InvalidMessage> {
        if self.0.as_str() != key {
            self.0 = RoutingKey::new(key)?;
        }
        Ok(self.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_says_what_was_set_and_nothing_else() {
        let plain = Message::new("body");
        assert!(plain.encoded().unwrap().properties.is_empty(), "no properties are no bytes");

        let message = Message::json(&serde_json::json!({"id": 42}))
            .unwrap()
            .header("tenant", "eu")
            .priority(7)
            .ttl(Duration::from_secs(2));
        let encoded = message.encoded().unwrap();
        let properties = Properties::decode(&encoded.properties).unwrap();
        assert_eq!(properties.content_type.as_deref(), Some(JSON));
        assert_eq!(properties.headers.get("tenant").and_then(Value::as_text), Some("eu"));
        assert_eq!(
            (encoded.priority, encoded.ttl_ms, encoded.body),
            (Some(7), Some(2_000), &br#"{"id":42}"#[..])
        );
    }

    #[test]
    fn copies_are_checked_before_they_are_sent() {
        let too_many = (0..=COPIES_MAX).fold(Message::new("x"), |message, n| message.cc(format!("k{n}")));
        assert!(matches!(
            too_many.encoded(),
            Err(InvalidMessage::TooManyCopies { what: "CC", count: 65, .. })
        ));
        let too_long = Message::new("x").bcc("k".repeat(256));
        assert!(matches!(too_long.encoded(), Err(InvalidMessage::Name(_))));
    }
}
