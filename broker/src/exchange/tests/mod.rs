//! The rules, seen from outside: `rules` tells them case by case, `model` compares with a naive router.

mod definitions;
mod model;
mod routing;

use std::collections::BTreeMap;

use leveret_protocol::{ExchangeName, QueueName, RoutingKey, Table, Value};

use super::{
    Binding, Destination, ExchangeError, ExchangeKind, ExchangeSettings, Publisher, Removed, Routable, Route,
    Router,
};
use crate::store::QueueId;

/// A router whose queues and exchanges go by their names.
struct Vhost {
    router: Router,
    queues: BTreeMap<String, QueueId>,
    /// Used for every message, as a connection does.
    route: Route,
}

impl Vhost {
    /// A vhost with these exchanges and queues.
    fn new(exchanges: &[(&str, ExchangeKind)], queues: &[&str]) -> Self {
        let mut vhost = Self { router: Router::new(), queues: BTreeMap::new(), route: Route::default() };
        for (name, kind) in exchanges {
            vhost.declare(name, ExchangeSettings::new(*kind)).unwrap();
        }
        for queue in queues {
            vhost.add_queue(queue);
        }
        vhost
    }

    fn declare(&mut self, name: &str, settings: ExchangeSettings) -> Result<bool, ExchangeError> {
        self.router.declare(&exchange(name), settings)
    }

    fn add_queue(&mut self, name: &str) -> QueueId {
        let id = QueueId(100 + self.queues.len() as u64);
        assert!(self.router.add_queue(&QueueName::new(name).unwrap(), id));
        self.queues.insert(name.to_owned(), id);
        id
    }

    /// A binding to the queue of this name or, if there is none, to the exchange.
    fn binding(&self, source: &str, destination: &str, key: &str) -> Binding {
        let destination = match self.queues.get(destination) {
            Some(queue) => Destination::Queue(*queue),
            None => Destination::Exchange(exchange(destination)),
        };
        let key = RoutingKey::new(key).unwrap();
        Binding { source: exchange(source), destination, key, arguments: Table::new() }
    }

    fn bind(&mut self, source: &str, destination: &str, key: &str) -> Result<bool, ExchangeError> {
        self.router.bind(self.binding(source, destination, key))
    }

    fn unbind(&mut self, source: &str, destination: &str, key: &str) -> Removed {
        let binding = self.binding(source, destination, key);
        self.router.unbind(&binding).unwrap()
    }

    fn bind_all(&mut self, bindings: &[(&str, &str, &str)]) {
        for (source, destination, key) in bindings {
            assert_eq!(self.bind(source, destination, key), Ok(true), "{source} -> {destination} by {key:?}");
        }
    }

    /// The names of the queues that a message reaches, separated by blanks.
    fn routed(&mut self, exchange: &str, key: &str) -> String {
        self.routed_by(exchange, &[key], &Table::new())
    }

    fn routed_by(&mut self, exchange: &str, keys: &[&str], headers: &Table) -> String {
        let further: Vec<RoutingKey> = keys[1..].iter().map(|key| RoutingKey::new(key).unwrap()).collect();
        let message = Routable { key: keys[0], further_keys: &further, headers: &headers };
        self.router.route(Publisher::Client, exchange, &message, &mut self.route).unwrap();
        self.names(self.route.queues())
    }

    fn names(&self, ids: &[QueueId]) -> String {
        let name = |id: &QueueId| self.queues.iter().find(|(_, queue)| *queue == id).unwrap().0.as_str();
        let mut names: Vec<&str> = ids.iter().map(name).collect();
        names.sort_unstable();
        names.join(" ")
    }
}

fn exchange(name: &str) -> ExchangeName {
    ExchangeName::new(name).unwrap()
}

fn table<const N: usize>(values: [(&str, Value); N]) -> Table {
    values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The deleted exchanges' names, in order, separated by blanks.
fn exchanges_of(removed: &Removed) -> String {
    let mut names: Vec<&str> = removed.exchanges.iter().map(ExchangeName::as_str).collect();
    names.sort_unstable();
    names.join(" ")
}

/// The words of a key or pattern; none if it is empty.
pub(in crate::exchange) fn split(text: &str) -> Vec<&str> {
    if text.is_empty() { Vec::new() } else { text.split('.').collect() }
}

/// Matches by trying everything: slow, and too simple to be wrong.
pub(in crate::exchange) fn topic_matches(pattern: &[&str], key: &[&str]) -> bool {
    match (pattern, key) {
        ([], []) => true,
        (["#", rest @ ..], _) => (0..=key.len()).any(|taken| topic_matches(rest, &key[taken..])),
        (["*", rest @ ..], [_, key @ ..]) => topic_matches(rest, key),
        ([word, rest @ ..], [first, key @ ..]) if word == first => topic_matches(rest, key),
        _ => false,
    }
}
