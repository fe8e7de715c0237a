//! Definitions as records: what was declared, bound and deleted, in order.

use std::collections::{BTreeMap, BTreeSet};

use leveret_protocol::{Destination, ExchangeName, QueueName, RoutingKey, Table, VhostName};
use serde::{Deserialize, Serialize};

/// One change of the durable topology. Written to the journal as MessagePack with named fields, so that later
/// versions can add some.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Definition {
    /// A vhost was made.
    Vhost {
        /// Its name.
        vhost: VhostName,
    },
    /// A durable exchange was declared.
    Exchange {
        /// Where.
        vhost: VhostName,
        /// Its name.
        exchange: ExchangeName,
        /// Its type's name.
        #[serde(rename = "type")]
        kind: String,
        /// Whether it goes with its last binding.
        #[serde(default)]
        auto_delete: bool,
        /// Whether clients may not publish to it.
        #[serde(default)]
        internal: bool,
        /// `alternate-exchange`.
        #[serde(default)]
        arguments: Table,
    },
    /// An exchange was deleted, and its bindings with it.
    ExchangeDeleted {
        /// Where.
        vhost: VhostName,
        /// Its name.
        exchange: ExchangeName,
    },
    /// A durable queue was declared.
    Queue {
        /// Where.
        vhost: VhostName,
        /// Its name.
        queue: QueueName,
        /// Its number in other records.
        id: u64,
        /// Whether it goes with its last consumer.
        #[serde(default)]
        auto_delete: bool,
        /// All its arguments.
        #[serde(default)]
        arguments: Table,
    },
    /// A queue was deleted, and its bindings and messages with it.
    QueueDeleted {
        /// Where.
        vhost: VhostName,
        /// Its name.
        queue: QueueName,
        /// Its number.
        id: u64,
    },
    /// A durable exchange was bound to something durable.
    Bound(BindingDefinition),
    /// A binding was removed.
    Unbound(BindingDefinition),
}

/// A binding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BindingDefinition {
    /// Where.
    pub vhost: VhostName,
    /// Where messages come from.
    pub source: ExchangeName,
    /// Where they go.
    pub destination: Destination,
    /// The key.
    pub routing_key: RoutingKey,
    /// The arguments.
    #[serde(default)]
    pub arguments: Table,
}

impl Definition {
    /// The vhost that it belongs to.
    pub fn vhost(&self) -> &VhostName {
        match self {
            Self::Vhost { vhost }
            | Self::Exchange { vhost, .. }
            | Self::ExchangeDeleted { vhost, .. }
            | Self::Queue { vhost, .. }
            | Self::QueueDeleted { vhost, .. } => vhost,
            Self::Bound(binding) | Self::Unbound(binding) => &binding.vhost,
        }
    }

    /// The record.
    pub fn encode(&self) -> Vec<u8> {
        // Names, flags and tables are all that there is, and MessagePack carries them.
        rmp_serde::to_vec_named(self).unwrap_or_default()
    }

    /// Reads a record.
    pub fn decode(payload: &[u8]) -> Result<Self, rmp_serde::decode::Error> {
        rmp_serde::from_slice(payload)
    }
}

/// What is left of definitions in their order: only what makes something, and only what still is. Things come
/// before those that refer to them.
///
/// A removal that another one brought with it (an exchange that deletes itself with its last binding) has a record
/// of its own. Nothing is removed by rule here: the bindings of transient queues are not in the journal, so a replay
/// would find exchanges without bindings that had some.
pub fn compact(definitions: impl IntoIterator<Item = Definition>) -> Vec<Definition> {
    let mut kept = Kept::default();
    definitions.into_iter().for_each(|definition| kept.apply(definition));
    let bindings = kept.bindings.into_values().map(Definition::Bound);
    kept.things.into_values().chain(bindings).collect()
}

/// What a definition is about; vhosts sort before exchanges, and these before queues.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Thing {
    Vhost(VhostName),
    Exchange(VhostName, ExchangeName),
    Queue(VhostName, QueueName),
}

#[derive(Default)]
struct Kept {
    things: BTreeMap<Thing, Definition>,
    /// By their encoding, which is their identity.
    bindings: BTreeMap<Vec<u8>, BindingDefinition>,
    /// The bindings at either end of which a thing is, so that a deletion does not search all bindings.
    bindings_of: BTreeMap<Thing, BTreeSet<Vec<u8>>>,
}

impl Kept {
    fn apply(&mut self, definition: Definition) {
        match &definition {
            Definition::Vhost { vhost } => {
                self.things.insert(Thing::Vhost(vhost.clone()), definition);
            }
            Definition::Exchange { vhost, exchange, .. } => {
                self.things.insert(Thing::Exchange(vhost.clone(), exchange.clone()), definition);
            }
            Definition::Queue { vhost, queue, .. } => {
                self.things.insert(Thing::Queue(vhost.clone(), queue.clone()), definition);
            }
            Definition::ExchangeDeleted { vhost, exchange } => {
                self.remove(&Thing::Exchange(vhost.clone(), exchange.clone()));
            }
            Definition::QueueDeleted { vhost, queue, .. } => {
                self.remove(&Thing::Queue(vhost.clone(), queue.clone()));
            }
            Definition::Bound(binding) => {
                let key = definition.encode();
                for end in binding.ends() {
                    self.bindings_of.entry(end).or_default().insert(key.clone());
                }
                self.bindings.insert(key, binding.clone());
            }
            Definition::Unbound(binding) => {
                let key = Definition::Bound(binding.clone()).encode();
                self.unbind(&key);
            }
        }
    }

    fn remove(&mut self, thing: &Thing) {
        self.things.remove(thing);
        for key in self.bindings_of.remove(thing).unwrap_or_default() {
            self.unbind(&key);
        }
    }

    fn unbind(&mut self, key: &[u8]) {
        let Some(binding) = self.bindings.remove(key) else { return };
        for end in binding.ends() {
            if let Some(keys) = self.bindings_of.get_mut(&end) {
                keys.remove(key);
            }
        }
    }
}

impl BindingDefinition {
    fn ends(&self) -> [Thing; 2] {
        let destination = match &self.destination {
            Destination::Queue(queue) => Thing::Queue(self.vhost.clone(), queue.clone()),
            Destination::Exchange(exchange) => Thing::Exchange(self.vhost.clone(), exchange.clone()),
        };
        [Thing::Exchange(self.vhost.clone(), self.source.clone()), destination]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(name: &str) -> Definition {
        Definition::Exchange {
            vhost: VhostName::new("/").unwrap(),
            exchange: ExchangeName::new(name).unwrap(),
            kind: "topic".to_owned(),
            auto_delete: true,
            internal: false,
            arguments: Table::new(),
        }
    }

    fn queue(name: &str, id: u64) -> Definition {
        let (vhost, queue) = (VhostName::new("/").unwrap(), QueueName::new(name).unwrap());
        Definition::Queue { vhost, queue, id, auto_delete: false, arguments: Table::new() }
    }

    fn queue_deleted(name: &str, id: u64) -> Definition {
        let (vhost, queue) = (VhostName::new("/").unwrap(), QueueName::new(name).unwrap());
        Definition::QueueDeleted { vhost, queue, id }
    }

    fn binding(source: &str, queue: &str) -> BindingDefinition {
        BindingDefinition {
            vhost: VhostName::new("/").unwrap(),
            source: ExchangeName::new(source).unwrap(),
            destination: Destination::Queue(QueueName::new(queue).unwrap()),
            routing_key: RoutingKey::new("#").unwrap(),
            arguments: Table::new(),
        }
    }

    #[test]
    fn only_what_still_is_remains() {
        let bound = |source, queue| Definition::Bound(binding(source, queue));
        let left = compact([
            exchange("logs"),
            queue("a", 1),
            bound("logs", "a"),
            queue("b", 2),
            bound("logs", "b"),
            Definition::Unbound(binding("logs", "b")),
            queue_deleted("a", 1),
            queue("a", 3),
        ]);
        assert_eq!(left, [exchange("logs"), queue("a", 3), queue("b", 2)]);
    }

    #[test]
    fn an_exchange_without_bindings_stays_until_a_record_says_otherwise() {
        let history =
            [exchange("logs"), queue("a", 1), Definition::Bound(binding("logs", "a")), queue_deleted("a", 1)];
        assert_eq!(compact(history.clone()), [exchange("logs")]);
        let deleted = Definition::ExchangeDeleted {
            vhost: VhostName::new("/").unwrap(),
            exchange: ExchangeName::new("logs").unwrap(),
        };
        assert_eq!(compact(history.into_iter().chain([deleted])), []);
    }

    #[test]
    fn definitions_come_back_as_they_were() {
        let vhost = VhostName::new("/").unwrap();
        let definitions = [
            Definition::Vhost { vhost: vhost.clone() },
            Definition::Queue {
                vhost: vhost.clone(),
                queue: QueueName::new("orders").unwrap(),
                id: 7,
                auto_delete: false,
                arguments: Table::from([("x-max-length".to_owned(), 5.into())]),
            },
            Definition::Unbound(BindingDefinition {
                vhost,
                source: ExchangeName::new("logs").unwrap(),
                destination: Destination::Exchange(ExchangeName::new("all").unwrap()),
                routing_key: RoutingKey::new("#").unwrap(),
                arguments: Table::new(),
            }),
        ];
        for definition in definitions {
            assert_eq!(Definition::decode(&definition.encode()).unwrap(), definition);
        }
    }
}
