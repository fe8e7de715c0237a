//! Messages as AMQP 0-9-1 carries them: a method, a header, and the body in frames.

use super::methods::Field;
use super::wire::{Reading, Table, put_short_text, put_table};

/// The properties of a message.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Properties {
    /// The MIME type of the body.
    pub content_type: Option<String>,
    /// How the body is encoded.
    pub content_encoding: Option<String>,
    /// The application's headers.
    pub headers: Option<Table>,
    /// 2 is persistent.
    pub delivery_mode: Option<u8>,
    /// From 0 up.
    pub priority: Option<u8>,
    /// Which request it answers.
    pub correlation_id: Option<String>,
    /// Where the answer goes.
    pub reply_to: Option<String>,
    /// Milliseconds to live, as a text.
    pub expiration: Option<String>,
    /// The application's number of it.
    pub message_id: Option<String>,
    /// Seconds since 1970.
    pub timestamp: Option<u64>,
    /// The application's name for its kind.
    pub message_type: Option<String>,
    /// Who published it.
    pub user_id: Option<String>,
    /// Which application did.
    pub app_id: Option<String>,
    /// Of AMQP 0-9, and no longer used.
    pub cluster_id: Option<String>,
}

impl Properties {
    /// The flags, and the properties that they announce.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut flags = 0_u16;
        let mut body = Vec::new();
        let mut text = |place: u32, value: &Option<String>, body: &mut Vec<u8>| {
            if let Some(value) = value {
                flags |= 1 << place;
                put_short_text(body, value);
            }
        };
        text(15, &self.content_type, &mut body);
        text(14, &self.content_encoding, &mut body);
        if let Some(headers) = &self.headers {
            put_table(&mut body, headers);
        }
        body.extend(self.delivery_mode);
        body.extend(self.priority);
        text(10, &self.correlation_id, &mut body);
        text(9, &self.reply_to, &mut body);
        text(8, &self.expiration, &mut body);
        text(7, &self.message_id, &mut body);
        body.extend(self.timestamp.map(u64::to_be_bytes).into_iter().flatten());
        text(5, &self.message_type, &mut body);
        text(4, &self.user_id, &mut body);
        text(3, &self.app_id, &mut body);
        text(2, &self.cluster_id, &mut body);
        let others = [
            (13, self.headers.is_some()),
            (12, self.delivery_mode.is_some()),
            (11, self.priority.is_some()),
            (6, self.timestamp.is_some()),
        ];
        for (place, there) in others {
            flags |= u16::from(there) << place;
        }
        out.extend(flags.to_be_bytes());
        out.extend(body);
    }

    fn read(rest: &mut Reading<'_>) -> Self {
        let flags = rest.short();
        assert_eq!(flags & 3, 0, "there are no further flags and no bit 1: {flags:#x}");
        let has = |place: u32| flags & (1 << place) != 0;
        let properties = Self {
            content_type: has(15).then(|| rest.short_text()),
            content_encoding: has(14).then(|| rest.short_text()),
            headers: has(13).then(|| rest.table()),
            delivery_mode: has(12).then(|| rest.octet()),
            priority: has(11).then(|| rest.octet()),
            correlation_id: has(10).then(|| rest.short_text()),
            reply_to: has(9).then(|| rest.short_text()),
            expiration: has(8).then(|| rest.short_text()),
            message_id: has(7).then(|| rest.short_text()),
            timestamp: has(6).then(|| rest.longlong()),
            message_type: has(5).then(|| rest.short_text()),
            user_id: has(4).then(|| rest.short_text()),
            app_id: has(3).then(|| rest.short_text()),
            cluster_id: has(2).then(|| rest.short_text()),
        };
        assert!(rest.0.is_empty(), "the header is longer than its properties: {:?}", rest.0);
        properties
    }
}

/// The payload of the header frame of a message of `body_bytes`.
pub fn header_payload(body_bytes: u64, properties: &Properties) -> Vec<u8> {
    let mut out = vec![0, 60, 0, 0];
    out.extend(body_bytes.to_be_bytes());
    properties.encode(&mut out);
    out
}

/// The length of the body, and the properties.
pub(super) fn read_header(payload: &[u8]) -> (u64, Properties) {
    let mut rest = Reading(payload);
    assert_eq!((rest.short(), rest.short()), (60, 0), "class and weight");
    (rest.longlong(), Properties::read(&mut rest))
}

/// A message to publish.
#[derive(Debug, Clone, Default)]
pub struct Post<'a> {
    /// The exchange; empty is the default exchange.
    pub exchange: &'a str,
    /// The routing key.
    pub key: &'a str,
    /// Whether it comes back if no queue gets it.
    pub mandatory: bool,
    /// What no broker offers any more.
    pub immediate: bool,
    /// Its properties.
    pub properties: Properties,
    /// The body.
    pub body: &'a str,
}

/// A message that came: delivered, got or returned.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// The arguments of the method that brought it.
    pub fields: Vec<Field>,
    /// The delivery tag; 0 for a returned one.
    pub tag: u64,
    /// Whether it was handed out before.
    pub redelivered: bool,
    /// The consumer's tag; empty if it was got or returned.
    pub consumer: String,
    /// The exchange that it was published to.
    pub exchange: String,
    /// The routing key.
    pub key: String,
    /// Its properties.
    pub properties: Properties,
    /// The body.
    pub body: String,
}

impl Message {
    pub(super) fn new(method: &str, fields: Vec<Field>, properties: Properties, body: Vec<u8>) -> Self {
        let text = |at: usize| fields[at].text().to_owned();
        let (tag, redelivered, consumer, exchange, key) = match method {
            "basic.deliver" => (fields[1].number(), fields[2].bit(), text(0), text(3), text(4)),
            "basic.get-ok" => (fields[0].number(), fields[1].bit(), String::new(), text(2), text(3)),
            _ => (0, false, String::new(), text(2), text(3)),
        };
        let body = String::from_utf8(body).unwrap();
        Self { fields, tag, redelivered, consumer, exchange, key, properties, body }
    }

    /// Its headers; none are an empty table.
    pub fn headers(&self) -> Table {
        self.properties.headers.clone().unwrap_or_default()
    }
}
