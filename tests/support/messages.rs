//! Messages as tests write and read them.

use leveret_protocol::{DeathHistory, Deliver, Frame, Properties, PublishParts, Route, Table};

/// A message to publish.
#[derive(Debug, Clone, Default)]
pub struct Post<'a> {
    /// The exchange; empty is the default exchange.
    pub exchange: &'a str,
    /// The routing key.
    pub key: &'a str,
    /// The body.
    pub body: &'a str,
    /// Whether it comes back if no queue gets it.
    pub mandatory: bool,
    /// Whether it survives a restart.
    pub persistent: bool,
    /// Its priority.
    pub priority: Option<u8>,
    /// Its time to live in milliseconds.
    pub ttl_ms: Option<u64>,
    /// Further keys that consumers see.
    pub cc: &'a [&'a str],
    /// Further keys that nobody sees.
    pub bcc: &'a [&'a str],
    /// The application's headers.
    pub headers: Table,
}

/// A plain message.
pub fn post<'a>(exchange: &'a str, key: &'a str, body: &'a str) -> Post<'a> {
    Post { exchange, key, body, ..Post::default() }
}

impl Post<'_> {
    pub(crate) fn encode(&self, channel: u16, out: &mut bytes::BytesMut) {
        let properties = Properties { headers: self.headers.clone(), ..Properties::default() };
        let properties = properties.encode().unwrap();
        let parts = PublishParts {
            route: Route::Named { exchange: self.exchange, routing_key: self.key },
            mandatory: self.mandatory,
            persistent: self.persistent,
            priority: self.priority,
            ttl_ms: self.ttl_ms,
            cc: self.cc,
            bcc: self.bcc,
            properties: &properties,
            body: self.body.as_bytes(),
        };
        parts.encode(channel, out);
    }
}

/// A delivery, read whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Received {
    /// The consumer's number.
    pub consumer: u32,
    /// The delivery tag.
    pub tag: u64,
    /// The exchange that it was published to.
    pub exchange: String,
    /// The routing key.
    pub key: String,
    /// The body.
    pub body: String,
    /// If it was handed out before: how often it came back as failed.
    pub redelivered: Option<u32>,
    /// Whether it survives a restart.
    pub persistent: bool,
    /// Its priority, if it is not 0.
    pub priority: Option<u8>,
    /// The time to live that it was published with, in milliseconds.
    pub ttl_ms: Option<u64>,
    /// The CC keys.
    pub cc: Vec<String>,
    /// What happened to it before.
    pub deaths: Option<DeathHistory>,
    /// The application's headers.
    pub headers: Table,
}

impl Received {
    pub(crate) fn read(frame: &Frame) -> Self {
        let deliver = Deliver::decode(frame.flags, &frame.payload).unwrap();
        let deaths = Some(deliver.deaths).filter(|deaths| !deaths.is_empty());
        Self {
            consumer: deliver.consumer,
            tag: deliver.tag,
            exchange: deliver.exchange.to_owned(),
            key: deliver.routing_key.to_owned(),
            body: String::from_utf8(deliver.body.to_vec()).unwrap(),
            redelivered: deliver.redelivered,
            persistent: deliver.persistent,
            priority: deliver.priority,
            ttl_ms: deliver.ttl_ms,
            cc: deliver.cc.iter().map(str::to_owned).collect(),
            deaths: deaths.map(|deaths| DeathHistory::decode(deaths).unwrap()),
            headers: Properties::decode(deliver.properties).unwrap().headers,
        }
    }

    /// The deaths as (queue, reason, count), newest first.
    pub fn death_counts(&self) -> Vec<(String, &'static str, u64)> {
        let deaths = self.deaths.iter().flat_map(|history| &history.deaths);
        deaths.map(|death| (death.queue.to_string(), death.reason.as_str(), death.count)).collect()
    }
}
