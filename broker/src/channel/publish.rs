//! Publish: resolve the route, copy the message, collect a batch, put it into the queues.

use std::cell::LazyCell;
use std::sync::Arc;

use leveret_journal::Position;
use leveret_protocol::{Outcome, PropertiesFormat, RoutingKey};

use super::ConfirmRuns;
use crate::exchange::{self, Routable, Route, RouteCache};
use crate::queue::Work;
use crate::store::{Head, Message, Names, Rare, StoreError};
use crate::topology::{Pending, Resolved, TopologyError, Vhost};

/// A message as its publisher sent it.
#[derive(Debug)]
pub struct Publication<'a> {
    /// The exchange.
    pub exchange: &'a str,
    /// The routing key.
    pub routing_key: &'a str,
    /// Further keys, visible to consumers.
    pub cc: Vec<RoutingKey>,
    /// Further keys, visible to nobody.
    pub bcc: Vec<RoutingKey>,
    /// Whether it is to survive a restart.
    pub persistent: bool,
    /// Its priority.
    pub priority: u8,
    /// How long it may wait, in milliseconds.
    pub ttl_ms: Option<u64>,
    /// How the properties are encoded.
    pub properties_format: PropertiesFormat,
    /// How many bytes of `content` are properties.
    pub properties_bytes: usize,
    /// The properties, as they came, and right behind them the body.
    pub content: &'a [u8],
}

/// Which publish it was: its channel, and its number there if it is to be confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// The channel.
    pub channel: u16,
    /// The number, if the channel confirms.
    pub number: Option<u64>,
}

/// How many publishes, or how many bytes of them, go into the queues together. Large enough that locks cost next to
/// nothing a message, small enough that nobody waits long for them.
const BATCH_MESSAGES_MAX: usize = 256;
const BATCH_BYTES_MAX: usize = 1024 * 1024;

/// The publishing side of one connection: all of its channels share the cache and the batch.
#[derive(Debug, Default)]
pub struct Publisher {
    cache: RouteCache<Arc<Resolved>>,
    route: Route,
    /// Of this batch.
    latest: Option<Latest>,
    batch: Vec<Pending>,
    tickets: Vec<Ticket>,
    bytes: usize,
    outcomes: Vec<Outcome>,
    scratch: Vec<u8>,
}

/// What the latest message was published to, which is mostly what the next one is.
#[derive(Debug)]
struct Latest {
    /// The router's generation that it holds for, if it holds for all messages with these names.
    generation: Option<u64>,
    resolved: Arc<Resolved>,
    names: Arc<Names>,
}

impl Latest {
    fn is_for(&self, generation: u64, publication: &Publication<'_>) -> bool {
        self.generation == Some(generation)
            && publication.goes_by_key_alone()
            && exchange::same(self.names.exchange.as_str(), publication.exchange)
            && exchange::same(self.names.routing_key.as_str(), publication.routing_key)
    }
}

impl Publisher {
    /// Adds a message to the batch. `false` if no queue is bound for it; it is confirmed as such with the batch.
    pub fn add(
        &mut self,
        vhost: &Vhost,
        publication: Publication<'_>,
        ticket: Ticket,
        now_ms: u64,
    ) -> Result<bool, TopologyError> {
        let latest = self.latest.take().filter(|latest| latest.is_for(vhost.generation(), &publication));
        let latest = if let Some(latest) = latest {
            latest
        } else {
            let (resolved, generation) = self.resolve(vhost, &publication)?;
            Latest { generation, names: Arc::new(resolved.names()), resolved }
        };
        let resolved = Arc::clone(&latest.resolved);
        let routed = !resolved.queues.is_empty();
        self.bytes += publication.content.len();
        let message = if routed {
            publication.into_message(Arc::clone(&latest.names), now_ms)
        } else {
            Message::default()
        };
        self.latest = Some(latest);
        self.batch.push(Pending { message, resolved });
        self.tickets.push(ticket);
        Ok(routed)
    }

    /// Resolves and copies a message that does not go into the batch.
    pub(super) fn prepare(
        &mut self,
        vhost: &Vhost,
        publication: Publication<'_>,
        now_ms: u64,
    ) -> Result<Pending, TopologyError> {
        let (resolved, _) = self.resolve(vhost, &publication)?;
        let names = Arc::new(resolved.names());
        Ok(Pending { message: publication.into_message(names, now_ms), resolved })
    }

    /// Whether the batch is as large as it should get.
    pub fn is_full(&self) -> bool {
        self.batch.len() >= BATCH_MESSAGES_MAX || self.bytes >= BATCH_BYTES_MAX
    }

    /// Whether there is nothing to flush.
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// Puts the batch into the queues. Adds what is to be confirmed to `confirms`, and gives the position that must be
    /// synced before, if it is in the journal at all.
    pub fn flush(
        &mut self,
        vhost: &Arc<Vhost>,
        work: &mut Work,
        confirms: &mut ConfirmRuns,
    ) -> Result<Option<Position>, StoreError> {
        let position = vhost.publish(&mut self.batch, &mut self.outcomes, &mut self.scratch, work);
        if position.is_ok() {
            for (ticket, outcome) in self.tickets.iter().zip(&self.outcomes) {
                if let Some(number) = ticket.number {
                    confirms.add(ticket.channel, number, *outcome);
                }
            }
            if self.tickets.iter().all(|ticket| ticket.number.is_some()) {
                // Who waits for confirms does not run ahead of its consumers.
                work.only_queue = None;
            }
        }
        self.batch.clear();
        self.latest = None;
        self.tickets.clear();
        self.bytes = 0;
        position
    }

    /// Where the message goes, and the router's generation for which this holds for all with its names, if it does.
    fn resolve(
        &mut self,
        vhost: &Vhost,
        publication: &Publication<'_>,
    ) -> Result<(Arc<Resolved>, Option<u64>), TopologyError> {
        let Publication { exchange, routing_key, .. } = *publication;
        let generation = vhost.generation();
        if publication.goes_by_key_alone()
            && let Some(resolved) = self.cache.get(generation, exchange, routing_key)
        {
            return Ok((Arc::clone(resolved), Some(generation)));
        }
        let further_keys: Vec<RoutingKey> = publication.cc.iter().chain(&publication.bcc).cloned().collect();
        let headers = LazyCell::new(|| {
            let properties = publication.content.get(..publication.properties_bytes).unwrap_or_default();
            publication.properties_format.headers(properties).unwrap_or_default()
        });
        let routable = Routable { key: routing_key, further_keys: &further_keys, headers: &headers };
        let client = exchange::Publisher::Client;
        let (resolved, generation) = vhost.resolve(client, exchange, &routable, &mut self.route)?;
        let resolved = Arc::new(resolved);
        if let Some(generation) = generation {
            self.cache.insert(generation, exchange, routing_key, Arc::clone(&resolved));
        }
        Ok((resolved, generation))
    }
}

impl Publication<'_> {
    fn goes_by_key_alone(&self) -> bool {
        self.cc.is_empty() && self.bcc.is_empty()
    }

    /// Copies the message: a slice of the connection's read buffer would keep all of that alive.
    fn into_message(self, names: Arc<Names>, now_ms: u64) -> Message {
        let head = Head {
            names,
            rare: Rare { cc: self.cc, bcc: self.bcc, deaths: None }.unless_empty(),
            persistent: self.persistent,
            priority: self.priority,
            ttl_ms: self.ttl_ms,
            published_at_ms: now_ms,
            properties_format: self.properties_format,
            properties_bytes: self.properties_bytes as u32,
            place: None,
        };
        Message::new(head, self.content)
    }
}
