//! A message as the broker holds it: shared by all queues that it waits in.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use leveret_protocol::{DeathHistory, ExchangeName, PropertiesFormat, RoutingKey};
use triomphe::ThinArc;

use super::Place;

/// A message as a queue has it.
#[derive(Debug, Clone)]
pub enum Content {
    /// In memory.
    Loaded(Message),
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

    /// The message, if it is in memory.
    pub fn loaded(&self) -> Option<&Message> {
        match self {
            Self::Loaded(message) => Some(message),
            Self::Stored(_) => None,
        }
    }

    /// The message, if it is in memory.
    pub fn into_loaded(self) -> Option<Message> {
        match self {
            Self::Loaded(message) => Some(message),
            Self::Stored(_) => None,
        }
    }
}

/// A message: one allocation with its head and its bytes, which queues share and keep what differs for each of them
/// beside. Cloning it costs a count.
#[derive(Clone, PartialEq)]
pub struct Message(ThinArc<Head, u8>);

/// What a message is beside its bytes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Head {
    /// Where it was published to.
    pub names: Arc<Names>,
    /// What most messages do not have.
    pub rare: Option<Box<Rare>>,
    /// When the broker took it, in milliseconds since 1970-01-01 UTC.
    pub published_at_ms: u64,
    /// How long it may wait, in milliseconds from `published_at_ms`.
    pub ttl_ms: Option<u64>,
    /// Where its record stands in the journal, once it has one.
    pub place: Option<Place>,
    /// Whether it is to survive a restart, in a queue that does.
    pub persistent: bool,
    /// Its priority; without one, 0.
    pub priority: u8,
    /// How its properties are encoded.
    pub properties_format: PropertiesFormat,
    /// How many of its bytes are properties; the others are the body.
    pub properties_bytes: u32,
}

/// Where messages were published to. Those of one batch share it, and not those of all batches: a count that every core
/// writes to costs more than all the rest of a message.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Names {
    /// The exchange.
    pub exchange: ExchangeName,
    /// The routing key.
    pub routing_key: RoutingKey,
}

/// What most messages do not have.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Rare {
    /// Further keys that it was routed by and that consumers may see.
    pub cc: Vec<RoutingKey>,
    /// Further keys that it was routed by and that no consumer sees. A dead letter goes by them once more.
    pub bcc: Vec<RoutingKey>,
    /// Where it died before it came here.
    pub deaths: Option<DeathHistory>,
}

impl Rare {
    /// It, unless there is nothing in it.
    pub fn unless_empty(self) -> Option<Box<Self>> {
        let empty = self.cc.is_empty() && self.bcc.is_empty() && self.deaths.is_none();
        (!empty).then(|| Box::new(self))
    }
}

impl Message {
    /// A message with a copy of these bytes: its properties, and behind them its body.
    pub fn new(head: Head, content: &[u8]) -> Self {
        Self(ThinArc::from_header_and_slice(head, content))
    }

    /// The publisher's properties, encoded as they came.
    pub fn properties(&self) -> &[u8] {
        self.content().get(..self.properties_bytes as usize).unwrap_or_default()
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        self.content().get(self.properties_bytes as usize..).unwrap_or_default()
    }

    /// The properties, and right behind them the body.
    pub fn content(&self) -> &[u8] {
        &self.0.slice
    }

    /// The exchange that it was published to.
    pub fn exchange(&self) -> &ExchangeName {
        &self.names.exchange
    }

    /// Its routing key.
    pub fn routing_key(&self) -> &RoutingKey {
        &self.names.routing_key
    }

    /// Further keys that it was routed by and that consumers may see.
    pub fn cc(&self) -> &[RoutingKey] {
        self.rare.as_deref().map_or(&[], |rare| &rare.cc)
    }

    /// Further keys that it was routed by and that no consumer sees.
    pub fn bcc(&self) -> &[RoutingKey] {
        self.rare.as_deref().map_or(&[], |rare| &rare.bcc)
    }

    /// Where it died before it came here.
    pub fn deaths(&self) -> Option<&DeathHistory> {
        self.rare.as_deref()?.deaths.as_ref()
    }

    /// It with its head changed, see [`Message::change`].
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Head)) -> Self {
        self.change(change);
        self
    }

    /// Changes its head. If others have it, they keep it as it is, and this becomes a copy.
    pub fn change(&mut self, change: impl FnOnce(&mut Head)) {
        let mut change = Some(change);
        self.0.with_arc_mut(|message| {
            if let Some(alone) = triomphe::Arc::get_mut(message)
                && let Some(change) = change.take()
            {
                change(alone.header_mut());
            }
        });
        let Some(change) = change else { return };
        let mut head = Head::clone(self);
        change(&mut head);
        *self = Self(ThinArc::from_header_and_slice(head, self.content()));
    }
}

#[cfg(test)]
impl Message {
    /// How many have it.
    pub(crate) fn holders(&self) -> usize {
        ThinArc::strong_count(&self.0)
    }

    /// Whether it is the same, and not only equal.
    pub(crate) fn is(&self, other: &Self) -> bool {
        std::ptr::eq(self.content(), other.content())
    }
}

impl Deref for Message {
    type Target = Head;

    fn deref(&self) -> &Head {
        &self.0.header.header
    }
}

impl Default for Message {
    fn default() -> Self {
        Self::new(Head::default(), &[])
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.content().len();
        f.debug_struct("Message").field("head", &**self).field("bytes", &bytes).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_changed_in_place_unless_others_have_it() {
        let alone = Message::new(Head { properties_bytes: 2, ..Head::default() }, b"ppbody");
        let place = alone.content().as_ptr();
        let changed = alone.with(|head| head.priority = 3);
        assert_eq!((changed.priority, changed.content().as_ptr()), (3, place));
        let other = changed.clone().with(|head| head.priority = 4);
        assert_eq!((changed.priority, other.priority), (3, 4));
        assert_eq!((other.properties(), other.body()), (b"pp".as_slice(), b"body".as_slice()));
    }
}
