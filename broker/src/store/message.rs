//! A message as the broker holds it: shared by all queues that it waits in.

use std::sync::Arc;

use bytes::Bytes;
use leveret_protocol::{DeathHistory, ExchangeName, PropertiesFormat, RoutingKey};

use super::Place;

/// A message as a queue has it.
#[derive(Debug, Clone)]
pub enum Content {
    /// In memory.
    Loaded(Arc<Message>),
    /// In the journal.
    Stored(Place),
}

impl Content {
    /// Where the message is in the journal, if it is there.
    pub fn place(&self) -> Option<&Place> {
        match self {
            Self::Loaded(message) => message.place.as_ref(),
            Self::Stored(place) => Some(place),
        }
    }
}

/// A message. It never changes; queues share it by `Arc` and keep what differs for each of them beside it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Message {
    /// The exchange that it was published to.
    pub exchange: ExchangeName,
    /// Its routing key.
    pub routing_key: RoutingKey,
    /// Further keys that it was routed by and that consumers may see.
    pub cc: Vec<RoutingKey>,
    /// Further keys that it was routed by and that no consumer sees. A dead letter goes by them once more.
    pub bcc: Vec<RoutingKey>,
    /// Whether it is to survive a restart, in a queue that does.
    pub persistent: bool,
    /// Its priority; without one, 0.
    pub priority: u8,
    /// How long it may wait, in milliseconds from `published_at_ms`.
    pub ttl_ms: Option<u64>,
    /// When the broker took it, in milliseconds since 1970-01-01 UTC.
    pub published_at_ms: u64,
    /// Where it died before it came here.
    pub deaths: Option<Box<DeathHistory>>,
    /// How `properties` are encoded.
    pub properties_format: PropertiesFormat,
    /// The publisher's properties, encoded as they came.
    pub properties: Bytes,
    /// The body.
    pub body: Bytes,
    /// Where its record stands in the journal, once it has one.
    pub place: Option<Place>,
}
