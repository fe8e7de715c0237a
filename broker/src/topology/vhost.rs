//! One virtual host.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use leveret_protocol::{Destination, ExchangeName, QueueName, VhostName};
use parking_lot::{Mutex, MutexGuard, RwLock, RwLockWriteGuard};
use rustc_hash::{FxHashMap, FxHashSet};

use super::definitions::{BindingDefinition, Definition};
use super::{Resolved, Shared, TopologyError};
use crate::exchange::{self, Binding, ExchangeSettings, Publisher, Routable, Route, Router};
use crate::queue::{ConnectionId, Queue, Settings, Work};
use crate::store::QueueId;

/// A virtual host: exchanges, queues and bindings that know nothing of those in other vhosts.
#[derive(Debug)]
pub struct Vhost {
    /// Its name.
    pub name: VhostName,
    pub(super) shared: Arc<Shared>,
    /// The router's generation, where the hot path can read it without the lock.
    generation: AtomicU64,
    /// Held while a queue that goes gives its bindings up bit by bit: nobody may take them down before it is gone.
    thinning: Mutex<()>,
    registry: RwLock<Registry>,
}

/// What a vhost's lock guards.
#[derive(Debug)]
pub(super) struct Registry {
    pub(super) router: Router,
    pub(super) queues: HashMap<QueueName, Arc<Queue>>,
    pub(super) queues_by_id: FxHashMap<QueueId, Arc<Queue>>,
    /// The exclusive queues of each connection that has some: most have none, and they come and go by the thousand.
    owned: FxHashMap<ConnectionId, FxHashSet<QueueId>>,
}

/// How many bindings are removed in one turn of the lock, which takes well under a millisecond.
const BINDINGS_PER_TURN: usize = 256;

impl Vhost {
    pub(super) fn new(name: VhostName, shared: Arc<Shared>) -> Arc<Self> {
        let registry = Registry {
            router: Router::new(),
            queues: HashMap::new(),
            queues_by_id: FxHashMap::default(),
            owned: FxHashMap::default(),
        };
        let (generation, thinning) = (AtomicU64::new(0), Mutex::new(()));
        Arc::new(Self { name, shared, generation, thinning, registry: RwLock::new(registry) })
    }

    /// Changes with everything that can change a route. What was resolved at the same generation still holds.
    pub fn generation(&self) -> u64 {
        // A publish that races with a bind may go by the old or the new route; both are right.
        self.generation.load(Ordering::Relaxed)
    }

    /// Finds the queues for a message. With them comes the generation at which that holds, if every message with
    /// the same exchange and key goes the same way.
    pub fn resolve(
        &self,
        publisher: Publisher,
        exchange: &str,
        message: &Routable<'_>,
        route: &mut Route,
    ) -> Result<(Resolved, Option<u64>), TopologyError> {
        let registry = self.registry.read();
        registry.router.route(publisher, exchange, message, route)?;
        for missing in route.missing_alternates() {
            tracing::warn!(exchange, alternate = %missing, "the alternate exchange does not exist");
        }
        let queues = route.queues().iter().filter_map(|id| registry.queues_by_id.get(id).cloned());
        let resolved = Resolved::new(exchange.try_into()?, message.key.try_into()?, queues.collect());
        Ok((resolved, route.is_cacheable().then(|| registry.router.generation())))
    }

    /// The queue of this name, if `connection` may use it.
    pub fn queue(&self, name: &str, connection: ConnectionId) -> Result<Arc<Queue>, TopologyError> {
        let queue = self.registry.read().queues.get(name).cloned();
        let queue = queue.ok_or_else(|| self.no_queue(name))?;
        self.check_owner(&queue, connection)?;
        Ok(queue)
    }

    /// All queues.
    pub fn queues(&self) -> Vec<Arc<Queue>> {
        self.registry.read().queues.values().cloned().collect()
    }

    pub(super) fn check_owner(&self, queue: &Queue, connection: ConnectionId) -> Result<(), TopologyError> {
        match queue.owner {
            Some(owner) if owner != connection => Err(self.locked(queue)),
            _ => Ok(()),
        }
    }

    pub(super) fn locked(&self, queue: &Queue) -> TopologyError {
        TopologyError::Locked { queue: queue.name.to_string(), vhost: self.name.clone() }
    }

    pub(super) fn no_queue(&self, name: &str) -> TopologyError {
        TopologyError::NoQueue { queue: name.to_owned(), vhost: self.name.clone() }
    }

    /// Locks the table for a change; the generation is published when the guard goes.
    pub(super) fn change(&self) -> Change<'_> {
        Change { registry: self.registry.write(), generation: &self.generation }
    }

    pub(super) fn read<R>(&self, read: impl FnOnce(&Registry) -> R) -> R {
        read(&self.registry.read())
    }

    pub(super) fn lock_for_snapshot(&self) -> RwLockWriteGuard<'_, Registry> {
        let _no_queue_has_lost_some = self.thinning.lock();
        self.registry.write()
    }

    /// Lets a queue that is gone give up its bindings, if they are many, in turns of the lock between which others get
    /// theirs. The journal need not know: it is told of the queue's end while the guard is held.
    pub(super) fn thin_out(&self, queue: QueueId) -> Option<MutexGuard<'_, ()>> {
        if self.read(|registry| registry.router.bindings_to(queue)) <= BINDINGS_PER_TURN {
            return None;
        }
        let thinning = self.thinning.lock();
        let mut registry = self.registry.write();
        while registry.router.thin_out(queue, BINDINGS_PER_TURN) {
            RwLockWriteGuard::bump(&mut registry);
        }
        drop(registry);
        Some(thinning)
    }

    /// Definitions that make everything durable of this vhost anew.
    pub(super) fn durable_definitions(&self, registry: &Registry) -> Vec<Definition> {
        let mut definitions = vec![Definition::Vhost { vhost: self.name.clone() }];
        let exchanges = registry.router.exchanges();
        definitions.extend(
            exchanges
                .filter(|(name, settings)| settings.durable && !exchange::is_reserved(name))
                .map(|(name, settings)| self.exchange_definition(name, settings)),
        );
        definitions.extend(
            registry
                .queues
                .values()
                .filter(|queue| queue.settings.durable)
                .map(|queue| self.queue_definition(queue)),
        );
        let bindings =
            registry.router.bindings().filter_map(|binding| self.durable_binding(registry, binding));
        definitions.extend(bindings.map(Definition::Bound));
        definitions
    }

    pub(super) fn exchange_definition(&self, name: &ExchangeName, settings: &ExchangeSettings) -> Definition {
        Definition::Exchange {
            vhost: self.name.clone(),
            exchange: name.clone(),
            kind: settings.kind.as_str().to_owned(),
            auto_delete: settings.auto_delete,
            internal: settings.internal,
            arguments: settings.arguments(),
        }
    }

    pub(super) fn queue_definition(&self, queue: &Queue) -> Definition {
        Definition::Queue {
            vhost: self.name.clone(),
            queue: queue.name.clone(),
            id: queue.id.0,
            auto_delete: queue.settings.auto_delete,
            arguments: queue.settings.arguments.clone(),
        }
    }

    /// The binding as a definition, if both of its ends survive a restart.
    pub(super) fn durable_binding(
        &self,
        registry: &Registry,
        binding: &Binding,
    ) -> Option<BindingDefinition> {
        let durable_exchange = |name: &ExchangeName| {
            registry.router.declare_passive(name).is_ok_and(|settings| settings.durable)
        };
        let destination = match &binding.destination {
            exchange::Destination::Queue(id) => {
                let queue = registry.queues_by_id.get(id).filter(|queue| queue.settings.durable)?;
                Destination::Queue(queue.name.clone())
            }
            exchange::Destination::Exchange(name) if durable_exchange(name) => {
                Destination::Exchange(name.clone())
            }
            exchange::Destination::Exchange(_) => return None,
        };
        durable_exchange(&binding.source).then(|| BindingDefinition {
            vhost: self.name.clone(),
            source: binding.source.clone(),
            destination,
            routing_key: binding.key.clone(),
            arguments: binding.arguments.clone(),
        })
    }

    /// Takes over what was defined before a restart and not removed since.
    pub(super) fn restore(&self, definition: &Definition, work: &mut Work) -> Result<(), TopologyError> {
        let mut change = self.change();
        let registry = &mut *change.registry;
        match definition {
            Definition::Exchange { exchange, kind, auto_delete, internal, arguments, .. } => {
                let settings = ExchangeSettings {
                    auto_delete: *auto_delete,
                    internal: *internal,
                    ..ExchangeSettings::new(kind.parse()?)
                };
                registry.router.declare(exchange, settings.with_arguments(arguments)?)?;
            }
            Definition::Queue { queue, id, auto_delete, arguments, .. } => {
                let settings = Settings::restored(true, false, *auto_delete, arguments)?;
                self.shared.use_queue_ids_above(*id);
                let store = Arc::clone(&self.shared.store);
                registry.add(Queue::new(QueueId(*id), queue.clone(), settings, None, store, work.now_ms));
            }
            Definition::Bound(binding) => {
                registry.router.bind(self.binding(registry, binding)?)?;
            }
            // The vhost itself is there; and `definitions::compact` has left out what was removed, and the removals.
            Definition::Vhost { .. }
            | Definition::ExchangeDeleted { .. }
            | Definition::QueueDeleted { .. }
            | Definition::Unbound(_) => {}
        }
        Ok(())
    }

    pub(super) fn binding(
        &self,
        registry: &Registry,
        definition: &BindingDefinition,
    ) -> Result<Binding, TopologyError> {
        let destination = match &definition.destination {
            Destination::Queue(name) => {
                let queue = registry.queues.get(name).ok_or_else(|| self.no_queue(name.as_str()))?;
                exchange::Destination::Queue(queue.id)
            }
            Destination::Exchange(name) => exchange::Destination::Exchange(name.clone()),
        };
        Ok(Binding {
            source: definition.source.clone(),
            destination,
            key: definition.routing_key.clone(),
            arguments: definition.arguments.clone(),
        })
    }
}

/// A change of a vhost's table.
pub(super) struct Change<'a> {
    pub(super) registry: RwLockWriteGuard<'a, Registry>,
    generation: &'a AtomicU64,
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        self.generation.store(self.registry.router.generation(), Ordering::Relaxed);
    }
}

impl Registry {
    pub(super) fn add(&mut self, queue: Arc<Queue>) {
        if self.router.add_queue(&queue.name, queue.id) {
            self.queues_by_id.insert(queue.id, Arc::clone(&queue));
            if let Some(owner) = queue.owner {
                self.owned.entry(owner).or_default().insert(queue.id);
            }
            self.queues.insert(queue.name.clone(), queue);
        }
    }

    /// The exclusive queues of a connection.
    pub(super) fn owned_by(&self, connection: ConnectionId) -> Vec<Arc<Queue>> {
        let owned = self.owned.get(&connection).into_iter().flatten();
        owned.filter_map(|id| self.queues_by_id.get(id).cloned()).collect()
    }

    /// How many connections have exclusive queues.
    #[cfg(test)]
    pub(super) fn owners(&self) -> usize {
        self.owned.len()
    }

    /// Forgets a queue; gives the exchanges that went with their last binding.
    pub(super) fn remove(&mut self, id: QueueId) -> Option<(Arc<Queue>, exchange::Removed)> {
        let queue = self.queues_by_id.remove(&id)?;
        self.queues.remove(&queue.name);
        if let Some(owner) = queue.owner
            && let Entry::Occupied(mut owned) = self.owned.entry(owner)
        {
            owned.get_mut().remove(&id);
            if owned.get().is_empty() {
                owned.remove();
            }
        }
        Some((queue, self.router.remove_queue(id)))
    }
}
