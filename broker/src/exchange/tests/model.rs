//! Random changes to a router and to a model of it: a list of bindings that is searched for each message.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Change {
    Declare(&'static str, ExchangeSettings),
    Delete {
        name: &'static str,
        if_unused: bool,
    },
    AddQueue(u64),
    RemoveQueue(u64),
    Bind(Binding),
    Unbind(Binding),
    /// Unbinds one that exists, whichever it is.
    UnbindAny(prop::sample::Index),
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Model {
    /// Each with whether it ever had a binding from it.
    exchanges: BTreeMap<String, (ExchangeSettings, bool)>,
    bindings: Vec<Binding>,
    queues: BTreeSet<QueueId>,
}

impl Model {
    fn has(&self, destination: &Destination) -> bool {
        match destination {
            Destination::Queue(queue) => self.queues.contains(queue),
            Destination::Exchange(name) => self.exchanges.contains_key(name.as_str()),
        }
    }

    /// Whether the change is allowed, after making it if so.
    fn apply(&mut self, change: &Change) -> bool {
        match change {
            Change::Declare(name, settings) => match self.exchanges.get(*name) {
                Some((current, _)) => return current == settings,
                None => drop(self.exchanges.insert((*name).to_owned(), (settings.clone(), false))),
            },
            Change::Delete { name, if_unused } => {
                if *if_unused && self.bindings.iter().any(|binding| binding.source.as_str() == *name) {
                    return false;
                }
                self.delete(name);
            }
            Change::AddQueue(queue) => return self.queues.insert(QueueId(*queue)),
            Change::RemoveQueue(queue) => {
                self.queues.remove(&QueueId(*queue));
                self.bindings.retain(|binding| binding.destination != Destination::Queue(QueueId(*queue)));
            }
            Change::Bind(binding) => {
                let Some((settings, _)) = self.exchanges.get(binding.source.as_str()) else { return false };
                let bad = binding.arguments.get("x-match") == Some(&Value::from("bad"));
                if !self.has(&binding.destination) || settings.kind == ExchangeKind::Headers && bad {
                    return false;
                }
                if !self.bindings.contains(binding) {
                    self.bindings.push(binding.clone());
                }
                self.exchanges.get_mut(binding.source.as_str()).unwrap().1 = true;
            }
            Change::Unbind(binding) => self.bindings.retain(|other| other != binding),
            Change::UnbindAny(index) if !self.bindings.is_empty() => {
                self.bindings.remove(index.index(self.bindings.len()));
            }
            Change::UnbindAny(_) => {}
        }
        while let Some(name) = self.unused() {
            self.delete(&name);
        }
        true
    }

    fn delete(&mut self, name: &str) {
        self.exchanges.remove(name);
        let destination = Destination::Exchange(exchange(name));
        self.bindings.retain(|binding| binding.source.as_str() != name && binding.destination != destination);
    }

    fn unused(&self) -> Option<String> {
        let is_unused = |(name, (settings, had)): &(&String, &(ExchangeSettings, bool))| {
            settings.auto_delete && *had && !self.bindings.iter().any(|it| it.source.as_str() == *name)
        };
        self.exchanges.iter().find(is_unused).map(|(name, _)| name.clone())
    }

    fn visit(
        &self,
        name: &str,
        message: &Message,
        seen: &mut BTreeSet<String>,
        queues: &mut BTreeSet<QueueId>,
    ) {
        let Some((settings, _)) = self.exchanges.get(name) else { return };
        if !seen.insert(name.to_owned()) {
            return;
        }
        let matching = self
            .bindings
            .iter()
            .filter(|binding| binding.source.as_str() == name && message.matches(settings.kind, binding));
        let mut matched = false;
        for binding in matching {
            matched = true;
            match &binding.destination {
                Destination::Queue(queue) => drop(queues.insert(*queue)),
                Destination::Exchange(name) => self.visit(name.as_str(), message, seen, queues),
            }
        }
        if let (false, Some(alternate)) = (matched, &settings.alternate) {
            self.visit(alternate.as_str(), message, seen, queues);
        }
    }
}

struct Message {
    keys: Vec<RoutingKey>,
    headers: Table,
}

impl Message {
    fn matches(&self, kind: ExchangeKind, binding: &Binding) -> bool {
        let any_key = |matches: &dyn Fn(&str) -> bool| self.keys.iter().any(|key| matches(key.as_str()));
        match kind {
            ExchangeKind::Fanout => true,
            ExchangeKind::Direct => any_key(&|key| key == binding.key.as_str()),
            ExchangeKind::Topic => any_key(&|key| topic_matches(&split(binding.key.as_str()), &split(key))),
            ExchangeKind::Headers => {
                let mut asked = binding.arguments.clone();
                let mode = asked.remove("x-match");
                let fits = |(name, value): (&String, &Value)| {
                    self.headers.get(name).is_some_and(|it| *value == Value::Null || it == value)
                };
                if mode == Some(Value::from("any")) { asked.iter().any(fits) } else { asked.iter().all(fits) }
            }
        }
    }
}

/// The outcome of a change: whether it was allowed, and what went.
fn apply(router: &mut Router, change: &Change) -> Result<Removed, ExchangeError> {
    match change {
        Change::Declare(name, settings) => {
            router.declare(&exchange(name), settings.clone()).map(|_| Removed::default())
        }
        Change::Delete { name, if_unused } => router.delete(&exchange(name), *if_unused),
        Change::AddQueue(queue) => {
            let added = router.add_queue(&queue_name(*queue), QueueId(*queue));
            if added { Ok(Removed::default()) } else { Err(ExchangeError::NoQueue(QueueId(*queue))) }
        }
        Change::RemoveQueue(queue) => Ok(remove_queue(router, QueueId(*queue))),
        Change::Bind(binding) => router.bind(binding.clone()).map(|_| Removed::default()),
        Change::Unbind(binding) => router.unbind(binding),
        Change::UnbindAny(_) => unreachable!("is replaced by `Unbind`"),
    }
}

/// Every other queue goes bit by bit, which must come to the same.
fn remove_queue(router: &mut Router, queue: QueueId) -> Removed {
    let before: Vec<_> = router.bindings().cloned().collect();
    if queue.0 % 2 == 1 {
        let generation = router.generation();
        while router.thin_out(queue, 1 + queue.0 as usize / 2) {}
        assert_eq!(router.generation(), generation);
    }
    let thinned: Vec<_> = before.into_iter().filter(|binding| !router.is_bound(binding)).collect();
    let mut removed = router.remove_queue(queue);
    removed.bindings.extend(thinned);
    removed
}

fn queue_name(queue: u64) -> QueueName {
    QueueName::new(format!("q{queue}")).unwrap()
}

/// Bindings in an order that does not depend on how they are stored.
fn sorted<'a>(bindings: impl Iterator<Item = &'a Binding>) -> Vec<String> {
    let mut texts: Vec<String> = bindings.map(|binding| format!("{binding:?}")).collect();
    texts.sort_unstable();
    texts
}

fn check_routes(router: &Router, model: &Model, messages: &[Message], route: &mut Route) {
    for message in messages {
        let routable = Routable {
            key: message.keys[0].as_str(),
            further_keys: &message.keys[1..],
            headers: &&message.headers,
        };
        for name in model.exchanges.keys() {
            let mut expected = BTreeSet::new();
            model.visit(name, message, &mut BTreeSet::new(), &mut expected);
            router.route(Publisher::Broker, name, &routable, route).unwrap();
            let expected: Vec<QueueId> = expected.into_iter().collect();
            assert_eq!(route.queues(), expected, "{name} {:?}", message.keys);
        }
        let by_name = model.queues.iter().copied();
        let expected: Vec<QueueId> = by_name
            .filter(|queue| message.keys.iter().any(|key| key.as_str() == format!("q{}", queue.0)))
            .collect();
        router.route(Publisher::Client, "", &routable, route).unwrap();
        assert_eq!(route.queues(), expected);
    }
}

fn check_history(changes: Vec<Change>) {
    let mut router = Router::new();
    let mut model = Model::default();
    for (name, settings) in router.exchanges() {
        model.exchanges.insert(name.as_str().to_owned(), (settings.clone(), false));
    }
    let message = |keys: &[&str], headers| Message {
        keys: keys.iter().map(|key| RoutingKey::new(key).unwrap()).collect(),
        headers,
    };
    let messages = [
        message(&[""], Table::new()),
        message(&["a"], table([("h", Value::Int(1))])),
        message(&["a.b"], table([("h", Value::Int(2)), ("i", Value::Int(1))])),
        message(&["b", "q1", "a.b.a"], Table::new()),
    ];
    let mut route = Route::default();
    for mut change in changes {
        if let (Change::UnbindAny(index), false) = (&change, model.bindings.is_empty()) {
            change = Change::Unbind(model.bindings[index.index(model.bindings.len())].clone());
        } else if let Change::UnbindAny(_) = change {
            continue;
        }
        let (before, generation) = (model.clone(), router.generation());
        let allowed = model.apply(&change);
        let outcome = apply(&mut router, &change);
        assert_eq!(outcome.is_ok(), allowed, "{change:?}: {outcome:?}");
        let removed = outcome.unwrap_or_default();
        let gone = before.bindings.iter().filter(|binding| !model.bindings.contains(binding));
        assert_eq!(sorted(removed.bindings.iter().map(AsRef::as_ref)), sorted(gone), "{change:?}");
        let gone = before.exchanges.keys().filter(|name| !model.exchanges.contains_key(*name));
        assert_eq!(exchanges_of(&removed), gone.cloned().collect::<Vec<_>>().join(" "), "{change:?}");
        assert_eq!(router.generation() > generation, model != before, "{change:?}");
        assert_eq!(sorted(router.bindings().map(AsRef::as_ref)), sorted(model.bindings.iter()));
        check_routes(&router, &model, &messages, &mut route);
    }
}

const EXCHANGES: &[&str] = &["e0", "e1", "e2", "e3"];
const SOURCES: &[&str] = &["e0", "e0", "e1", "e2", "e3", "amq.topic", "amq.headers", "missing"];
const KEYS: &[&str] = &["", "a", "a.b", "#", "*", "a.#", "#.b.#", "#.a.#.b.#", "*.b", "a.*.#"];

fn settings() -> impl Strategy<Value = ExchangeSettings> {
    use ExchangeKind::{Direct, Fanout, Headers, Topic};
    let kind = prop::sample::select(vec![Direct, Fanout, Topic, Headers]);
    let alternate = prop::option::of(prop::sample::select(EXCHANGES).prop_map(exchange));
    (kind, any::<bool>(), alternate).prop_map(|(kind, auto_delete, alternate)| ExchangeSettings {
        auto_delete,
        alternate,
        ..ExchangeSettings::new(kind)
    })
}

fn binding() -> impl Strategy<Value = Binding> {
    let destination = prop_oneof![
        (0..4_u64).prop_map(|queue| Destination::Queue(QueueId(queue))),
        prop::sample::select(EXCHANGES).prop_map(|name| Destination::Exchange(exchange(name))),
    ];
    let arguments = prop::sample::select(vec![
        Table::new(),
        table([("h", Value::Int(1))]),
        table([("h", Value::Null), ("x-match", "any".into())]),
        table([("x-match", "any".into()), ("h", Value::Int(2)), ("i", Value::Int(2))]),
        table([("x-match", "bad".into())]),
    ]);
    (prop::sample::select(SOURCES), destination, prop::sample::select(KEYS), arguments).prop_map(
        |(source, destination, key, arguments)| Binding {
            source: exchange(source),
            destination,
            key: RoutingKey::new(key).unwrap(),
            arguments,
        },
    )
}

fn change() -> impl Strategy<Value = Change> {
    let name = || prop::sample::select(EXCHANGES);
    prop_oneof![
        3 => (name(), settings()).prop_map(|(name, settings)| Change::Declare(name, settings)),
        1 => (name(), any::<bool>()).prop_map(|(name, if_unused)| Change::Delete { name, if_unused }),
        2 => (0..4_u64).prop_map(Change::AddQueue),
        1 => (0..4_u64).prop_map(Change::RemoveQueue),
        12 => binding().prop_map(Change::Bind),
        1 => binding().prop_map(Change::Unbind),
        3 => any::<prop::sample::Index>().prop_map(Change::UnbindAny),
    ]
}

proptest! {
    #[test]
    fn any_history_of_changes_leaves_the_routes_that_a_search_of_all_bindings_finds(
        changes in prop::collection::vec(change(), 1..80),
    ) {
        check_history(changes);
    }
}
