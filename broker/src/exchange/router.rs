//! All exchanges and bindings of one vhost.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use leveret_protocol::{ExchangeName, QueueName};
use rustc_hash::FxHashMap;

use super::binding::{Binding, Destination};
use super::error::ExchangeError;
use super::route::{Found, Publisher, Routable, Route};
use super::rules::Rules;
use super::settings::{ExchangeKind, ExchangeSettings};
use super::slab::Slab;
use super::targets::{BindingId, ExchangeId, Target};
use crate::store::QueueId;

/// The exchange that gets the broker's own log, in every vhost.
pub const LOG_EXCHANGE: &str = "amq.leveret.log";

/// Names that begin so are the broker's own.
const RESERVED_PREFIX: &str = "amq.";

/// The exchanges that every vhost has, next to the default one.
const PREDECLARED: [(&str, ExchangeKind); 6] = [
    ("amq.direct", ExchangeKind::Direct),
    ("amq.fanout", ExchangeKind::Fanout),
    ("amq.headers", ExchangeKind::Headers),
    (LOG_EXCHANGE, ExchangeKind::Topic),
    ("amq.match", ExchangeKind::Headers),
    ("amq.topic", ExchangeKind::Topic),
];

/// All exchanges and bindings of one vhost, and the names of its queues.
///
/// A plain value: its owner puts a lock around it. An operation that returns an error has changed nothing.
#[derive(Debug)]
pub struct Router {
    exchanges: Slab<Exchange>,
    exchanges_by_name: HashMap<ExchangeName, ExchangeId>,
    bindings: Slab<StoredBinding>,
    /// A binding is its own identity, see [`Binding`].
    bindings_by_identity: HashMap<Arc<Binding>, BindingId>,
    queues: FxHashMap<QueueId, Queue>,
    /// The default exchange: every queue's name is a routing key.
    queues_by_name: HashMap<QueueName, QueueId>,
    generation: u64,
}

#[derive(Debug)]
struct Exchange {
    name: ExchangeName,
    settings: ExchangeSettings,
    rules: Rules,
    /// The bindings from it.
    outgoing: BTreeSet<BindingId>,
    /// The bindings to it.
    incoming: BTreeSet<BindingId>,
}

#[derive(Debug)]
struct Queue {
    name: QueueName,
    /// The bindings to it: a queue that goes must not search the bindings of the others.
    incoming: BTreeSet<BindingId>,
}

#[derive(Debug)]
struct StoredBinding {
    binding: Arc<Binding>,
    source: ExchangeId,
    target: Target,
    /// Where it stands in the rules of its source.
    place: usize,
}

/// What went with a removal, in the order in which it went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use = "what went has to go from the definitions too"]
pub struct Removed {
    /// The bindings.
    pub bindings: Vec<Arc<Binding>>,
    /// The exchanges: the one that was deleted, and those that deleted themselves with their last binding.
    pub exchanges: Vec<ExchangeName>,
}

impl Router {
    /// A vhost without queues, and with the exchanges that every vhost has.
    pub fn new() -> Self {
        let mut router = Self {
            exchanges: Slab::default(),
            exchanges_by_name: HashMap::new(),
            bindings: Slab::default(),
            bindings_by_identity: HashMap::new(),
            queues: FxHashMap::default(),
            queues_by_name: HashMap::new(),
            generation: 0,
        };
        for (name, kind) in PREDECLARED {
            if let Ok(name) = ExchangeName::new(name) {
                let internal = name.as_str() == LOG_EXCHANGE;
                router.create(name, ExchangeSettings { internal, ..ExchangeSettings::new(kind) });
            }
        }
        router
    }

    /// Rises with every change that can alter where a message goes, so that a route that was resolved at the
    /// same generation still holds.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Creates an exchange, or checks that the one that exists is equivalent. True if it was created.
    pub fn declare(
        &mut self,
        name: &ExchangeName,
        settings: ExchangeSettings,
    ) -> Result<bool, ExchangeError> {
        check_not_default(name)?;
        if let Some((_, current)) = self.find(name.as_str()) {
            current.settings.check_equivalent(name, &settings)?;
            return Ok(false);
        }
        if is_reserved(name) {
            return Err(ExchangeError::ReservedName(name.clone()));
        }
        self.create(name.clone(), settings);
        Ok(true)
    }

    /// Checks that an exchange exists, and returns what it is.
    pub fn declare_passive(&self, name: &ExchangeName) -> Result<&ExchangeSettings, ExchangeError> {
        check_not_default(name)?;
        Ok(&self.existing(name.as_str())?.1.settings)
    }

    /// Deletes an exchange with all bindings from and to it. One that does not exist is no error.
    pub fn delete(&mut self, name: &ExchangeName, if_unused: bool) -> Result<Removed, ExchangeError> {
        check_not_default(name)?;
        if is_reserved(name) {
            return Err(ExchangeError::SystemExchange(name.clone()));
        }
        let Some((id, exchange)) = self.find(name.as_str()) else {
            return Ok(Removed::default());
        };
        let bindings = exchange.outgoing.len();
        if if_unused && bindings > 0 {
            return Err(ExchangeError::InUse { exchange: name.clone(), bindings });
        }
        Ok(self.remove_exchanges(vec![id], Removed::default()))
    }

    /// Makes a queue known, so that it can be bound and the default exchange finds it.
    ///
    /// False if its name or number is known already; then nothing changes.
    #[must_use = "a queue whose name or number is taken gets no messages"]
    pub fn add_queue(&mut self, name: &QueueName, queue: QueueId) -> bool {
        if self.queues.contains_key(&queue) || self.queues_by_name.contains_key(name) {
            return false;
        }
        self.queues.insert(queue, Queue { name: name.clone(), incoming: BTreeSet::new() });
        self.queues_by_name.insert(name.clone(), queue);
        self.generation += 1;
        true
    }

    /// Forgets a queue and all bindings to it. Costs as much as it has bindings, however many there are in
    /// all.
    pub fn remove_queue(&mut self, queue: QueueId) -> Removed {
        let Some(gone) = self.queues.remove(&queue) else {
            return Removed::default();
        };
        self.queues_by_name.remove(&gone.name);
        self.generation += 1;
        self.remove_bindings(gone.incoming)
    }

    /// Removes up to `most` bindings to a queue that takes no messages any more, so that [`Router::remove_queue`] has less
    /// to do. Says whether there may be more of them; what is left are those with which an exchange would go.
    ///
    /// The generation stays: a route that leads to the queue is as good as one that does not.
    pub fn thin_out(&mut self, queue: QueueId, most: usize) -> bool {
        let Some(going) = self.queues.get(&queue) else { return false };
        let ids: Vec<BindingId> =
            going.incoming.iter().filter(|id| !self.keeps_its_exchange(**id)).take(most).copied().collect();
        let (generation, mut removed) = (self.generation, Removed::default());
        for id in &ids {
            // It may be the last one by now.
            if !self.keeps_its_exchange(*id) {
                self.remove_binding(*id, &mut removed, &mut Vec::new());
            }
        }
        self.generation = generation;
        ids.len() == most
    }

    /// How many bindings a queue has.
    pub fn bindings_to(&self, queue: QueueId) -> usize {
        self.queues.get(&queue).map_or(0, |queue| queue.incoming.len())
    }

    /// Adds a binding. False if it exists already.
    pub fn bind(&mut self, binding: Binding) -> Result<bool, ExchangeError> {
        check_binding(&binding)?;
        let source = self.existing(binding.source.as_str())?.0;
        let target = self.target(&binding.destination)?;
        if self.bindings_by_identity.contains_key(&binding) {
            return Ok(false);
        }
        let Some(exchange) = self.exchanges.get_mut(source.0) else { return Ok(false) };
        let binding = Arc::new(binding);
        let id = BindingId(self.bindings.next_number());
        let place = exchange.rules.insert(&binding, id, target)?;
        exchange.outgoing.insert(id);
        if let Some(incoming) = self.incoming(target) {
            incoming.insert(id);
        }
        self.bindings.insert(StoredBinding { binding: Arc::clone(&binding), source, target, place });
        self.bindings_by_identity.insert(binding, id);
        self.generation += 1;
        Ok(true)
    }

    /// Removes a binding. One that does not exist is no error.
    pub fn unbind(&mut self, binding: &Binding) -> Result<Removed, ExchangeError> {
        check_binding(binding)?;
        let id = self.bindings_by_identity.get(binding).copied();
        Ok(id.map_or_else(Removed::default, |id| self.remove_bindings([id])))
    }

    /// Finds the queues of a message. After an error the route is empty.
    pub fn route(
        &self,
        publisher: Publisher,
        exchange: &str,
        message: &Routable<'_>,
        route: &mut Route,
    ) -> Result<(), ExchangeError> {
        let Route { found, walk } = route;
        found.start(message);
        if exchange.is_empty() {
            self.route_by_queue_name(message, found);
        } else {
            let (id, exchange) = self.existing(exchange)?;
            if exchange.settings.internal && publisher == Publisher::Client {
                return Err(ExchangeError::Internal(exchange.name.clone()));
            }
            found.add(Target::Exchange(id));
        }
        while let Some(exchange) = found.next_exchange().and_then(|id| self.exchanges.get(id.0)) {
            exchange.rules.collect(message, walk, found);
            if !found.matched()
                && let Some(alternate) = &exchange.settings.alternate
            {
                self.route_by_alternate(alternate, message, found);
            }
        }
        found.finish();
        Ok(())
    }

    /// All exchanges but the default one.
    pub fn exchanges(&self) -> impl Iterator<Item = (&ExchangeName, &ExchangeSettings)> {
        self.exchanges.iter().map(|exchange| (&exchange.name, &exchange.settings))
    }

    /// All bindings, without those that the default exchange stands for.
    pub fn bindings(&self) -> impl Iterator<Item = &Arc<Binding>> {
        self.bindings.iter().map(|stored| &stored.binding)
    }

    /// How many exchanges there are, without the default one.
    pub fn exchanges_len(&self) -> usize {
        self.exchanges_by_name.len()
    }

    /// How many bindings there are.
    pub fn bindings_len(&self) -> usize {
        self.bindings_by_identity.len()
    }

    /// Whether there is this binding.
    pub fn is_bound(&self, binding: &Binding) -> bool {
        self.bindings_by_identity.contains_key(binding)
    }

    fn create(&mut self, name: ExchangeName, settings: ExchangeSettings) {
        let exchange = Exchange {
            name: name.clone(),
            rules: Rules::new(settings.kind),
            settings,
            outgoing: BTreeSet::new(),
            incoming: BTreeSet::new(),
        };
        let id = ExchangeId(self.exchanges.insert(exchange));
        self.exchanges_by_name.insert(name, id);
        // A message may have missed it as an alternate exchange.
        self.generation += 1;
    }

    fn find(&self, name: &str) -> Option<(ExchangeId, &Exchange)> {
        let id = *self.exchanges_by_name.get(name)?;
        Some((id, self.exchanges.get(id.0)?))
    }

    fn existing(&self, name: &str) -> Result<(ExchangeId, &Exchange), ExchangeError> {
        self.find(name).ok_or_else(|| ExchangeError::NoExchange(name.to_owned()))
    }

    fn target(&self, destination: &Destination) -> Result<Target, ExchangeError> {
        match destination {
            Destination::Queue(queue) if self.queues.contains_key(queue) => Ok(Target::Queue(*queue)),
            Destination::Queue(queue) => Err(ExchangeError::NoQueue(*queue)),
            Destination::Exchange(name) => Ok(Target::Exchange(self.existing(name.as_str())?.0)),
        }
    }

    /// Whether an exchange would go with this binding.
    fn keeps_its_exchange(&self, binding: BindingId) -> bool {
        let source = self.bindings.get(binding.0).and_then(|stored| self.exchanges.get(stored.source.0));
        source.is_some_and(|source| source.settings.auto_delete && source.outgoing.len() == 1)
    }

    /// The bindings to a destination, if it is still there.
    fn incoming(&mut self, target: Target) -> Option<&mut BTreeSet<BindingId>> {
        match target {
            Target::Queue(queue) => self.queues.get_mut(&queue).map(|queue| &mut queue.incoming),
            Target::Exchange(id) => self.exchanges.get_mut(id.0).map(|exchange| &mut exchange.incoming),
        }
    }

    /// Removes bindings, and the exchanges that delete themselves because of it.
    fn remove_bindings(&mut self, ids: impl IntoIterator<Item = BindingId>) -> Removed {
        let mut removed = Removed::default();
        let mut unused = Vec::new();
        for id in ids {
            self.remove_binding(id, &mut removed, &mut unused);
        }
        self.remove_exchanges(unused, removed)
    }

    /// Removes exchanges with all their bindings, and those that delete themselves because of it. A work
    /// list, because peers choose how long a chain of exchanges is.
    fn remove_exchanges(&mut self, mut unused: Vec<ExchangeId>, mut removed: Removed) -> Removed {
        while let Some(id) = unused.pop() {
            let Some(exchange) = self.exchanges.remove(id.0) else { continue };
            self.exchanges_by_name.remove(&exchange.name);
            self.generation += 1;
            for binding in exchange.outgoing.into_iter().chain(exchange.incoming) {
                self.remove_binding(binding, &mut removed, &mut unused);
            }
            removed.exchanges.push(exchange.name);
        }
        removed
    }

    /// Removes one binding; if it was the last one from an exchange that deletes itself then, that is
    /// `unused`.
    fn remove_binding(&mut self, id: BindingId, removed: &mut Removed, unused: &mut Vec<ExchangeId>) {
        // An exchange that is bound to itself names the same binding from both ends.
        let Some(gone) = self.bindings.remove(id.0) else { return };
        self.bindings_by_identity.remove(&gone.binding);
        self.generation += 1;
        if let Some(incoming) = self.incoming(gone.target) {
            incoming.remove(&id);
        }
        if let Some(source) = self.exchanges.get_mut(gone.source.0) {
            source.outgoing.remove(&id);
            if source.settings.auto_delete && source.outgoing.is_empty() {
                unused.push(gone.source);
            }
            let moved = source.rules.remove(&gone.binding, gone.place);
            if let Some(moved) = moved.and_then(|id| self.bindings.get_mut(id.0)) {
                moved.place = gone.place;
            }
        }
        removed.bindings.push(gone.binding);
    }

    fn route_by_queue_name(&self, message: &Routable<'_>, found: &mut Found) {
        for queue in message.keys().filter_map(|key| self.queues_by_name.get(key)) {
            found.add_queue(*queue);
        }
    }

    fn route_by_alternate(&self, name: &ExchangeName, message: &Routable<'_>, found: &mut Found) {
        match self.find(name.as_str()) {
            _ if name.is_empty() => self.route_by_queue_name(message, found),
            Some((id, _)) => found.add(Target::Exchange(id)),
            None => found.add_missing_alternate(name),
        }
    }
}

impl Default for Router {
    fn default() -> Self {
        Self::new()
    }
}

fn check_not_default(name: &ExchangeName) -> Result<(), ExchangeError> {
    if name.is_empty() { Err(ExchangeError::DefaultExchange) } else { Ok(()) }
}

fn check_binding(binding: &Binding) -> Result<(), ExchangeError> {
    check_not_default(&binding.source)?;
    match &binding.destination {
        Destination::Exchange(name) => check_not_default(name),
        Destination::Queue(_) => Ok(()),
    }
}

/// Whether only the broker makes exchanges of such a name. Those that there are exist in every vhost, always.
pub fn is_reserved(name: &ExchangeName) -> bool {
    name.as_str().starts_with(RESERVED_PREFIX)
}
