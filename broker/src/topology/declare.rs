//! Making and removing exchanges, queues and bindings.
//!
//! What is durable is journaled while the vhost's table is locked, so that the journal has the definitions in the
//! order in which they took effect. Each function gives the position that must be synced before the client is told.

use std::sync::Arc;

use leveret_journal::Position;
use leveret_protocol::{ExchangeName, QueueName, Table};

use super::definitions::{BindingDefinition, Definition};
use super::vhost::Registry;
use super::{TopologyError, Vhost};
use crate::exchange::{self, ExchangeKind, ExchangeSettings};
use crate::queue::{
    ArgumentError, ConnectionId, Counts, DeleteError, DeleteReason, Queue, QueueType, Settings, Work,
};

/// A declaration of an exchange.
#[derive(Debug, Clone)]
pub struct DeclareExchange {
    /// Its name.
    pub name: ExchangeName,
    /// What it is to be.
    pub settings: ExchangeSettings,
}

/// A declaration of a queue.
#[derive(Debug, Clone)]
pub struct DeclareQueue {
    /// Its name; empty asks the broker to choose one.
    pub name: QueueName,
    /// What it is to be.
    pub settings: Settings,
}

impl DeclareExchange {
    /// Reads a declaration.
    pub fn new(
        name: ExchangeName,
        kind: &str,
        durable: bool,
        auto_delete: bool,
        internal: bool,
        arguments: &Table,
    ) -> Result<Self, TopologyError> {
        let kind: ExchangeKind = kind.parse()?;
        let settings = ExchangeSettings { durable, auto_delete, internal, ..ExchangeSettings::new(kind) };
        Ok(Self { name, settings: settings.with_arguments(arguments)? })
    }
}

/// Queue names that begin so are the broker's to give.
const RESERVED_PREFIX: &str = "amq.";

impl Vhost {
    /// Declares an exchange.
    pub fn declare_exchange(&self, declare: DeclareExchange) -> Result<Position, TopologyError> {
        let DeclareExchange { name, settings } = declare;
        let mut change = self.change();
        if change.registry.router.declare_passive(&name).is_err() {
            self.check_room(
                "exchanges",
                change.registry.router.exchanges_len(),
                self.shared.limits.exchanges_max,
            )?;
        }
        let definition = settings.durable.then(|| self.exchange_definition(&name, &settings));
        let created = change.registry.router.declare(&name, settings)?;
        // An equivalent one may have been declared a moment ago by somebody else, and not be on disk yet.
        let definitions: Vec<_> = definition.filter(|_| created).into_iter().collect();
        Ok(self.shared.write(&definitions)?)
    }

    /// Checks that an exchange exists.
    pub fn check_exchange(&self, name: &ExchangeName) -> Result<(), TopologyError> {
        Ok(self.read(|registry| registry.router.declare_passive(name).map(drop))?)
    }

    /// Deletes an exchange.
    pub fn delete_exchange(&self, name: &ExchangeName, if_unused: bool) -> Result<Position, TopologyError> {
        let mut change = self.change();
        let removed = change.registry.router.delete(name, if_unused)?;
        Ok(self.shared.write(&self.exchanges_deleted(removed).collect::<Vec<_>>())?)
    }

    /// Binds.
    pub fn bind(
        &self,
        binding: &BindingDefinition,
        connection: ConnectionId,
    ) -> Result<Position, TopologyError> {
        let mut change = self.change();
        let registry = &mut *change.registry;
        self.check_bound_queue(registry, binding, connection)?;
        let binding = self.binding(registry, binding)?;
        if !registry.router.is_bound(&binding) {
            self.check_room("bindings", registry.router.bindings_len(), self.shared.limits.bindings_max)?;
        }
        let created = registry.router.bind(binding.clone())?;
        let durable = if created { self.durable_binding(registry, &binding) } else { None };
        let definitions: Vec<_> = durable.map(Definition::Bound).into_iter().collect();
        Ok(self.shared.write(&definitions)?)
    }

    /// Unbinds.
    pub fn unbind(
        &self,
        binding: &BindingDefinition,
        connection: ConnectionId,
    ) -> Result<Position, TopologyError> {
        let mut change = self.change();
        let registry = &mut *change.registry;
        self.check_bound_queue(registry, binding, connection)?;
        // What leads to a queue that does not exist is not bound.
        let Ok(binding) = self.binding(registry, binding) else { return Ok(self.shared.store.end()) };
        let durable = self.durable_binding(registry, &binding);
        let removed = registry.router.unbind(&binding)?;
        let unbound = durable.filter(|_| !removed.bindings.is_empty()).map(Definition::Unbound);
        let definitions: Vec<_> = unbound.into_iter().chain(self.exchanges_deleted(removed)).collect();
        Ok(self.shared.write(&definitions)?)
    }

    fn check_bound_queue(
        &self,
        registry: &Registry,
        binding: &BindingDefinition,
        connection: ConnectionId,
    ) -> Result<(), TopologyError> {
        match &binding.destination {
            leveret_protocol::Destination::Queue(name) => match registry.queues.get(name) {
                Some(queue) => self.check_owner(queue, connection),
                None => Ok(()),
            },
            leveret_protocol::Destination::Exchange(_) => Ok(()),
        }
    }

    /// Declares a queue. `generated` is the name for one that the broker is to choose.
    pub fn declare_queue(
        &self,
        declare: DeclareQueue,
        generated: &QueueName,
        connection: ConnectionId,
        work: &mut Work,
    ) -> Result<(Arc<Queue>, Counts, Position), TopologyError> {
        let DeclareQueue { name, settings } = declare;
        let mut change = self.change();
        let existing = change.registry.queues.get(&name).cloned();
        if let Some(queue) = existing {
            // Whoever asks for a queue of its own must not get one that others use, nor the other way round.
            if queue.owner != settings.exclusive.then_some(connection) {
                return Err(self.locked(&queue));
            }
            queue.settings.check_equivalent(&settings, name.as_str(), self.name.as_str())?;
            if let Ok(counts) = queue.touch(work) {
                return Ok((queue, counts, self.shared.store.end()));
            }
            // It has decided to go and was not removed yet. The new one takes its place now.
            self.remove(&mut change.registry, &queue)?;
        }
        let name = match name.as_str() {
            "" if settings.queue_type == QueueType::Quorum => {
                return Err(ArgumentError::QuorumWithoutName.into());
            }
            "" => generated.clone(),
            taken if taken.starts_with(RESERVED_PREFIX) => {
                return Err(TopologyError::ReservedName { queue: taken.to_owned() });
            }
            _ => name,
        };
        self.check_room("queues", change.registry.queues.len(), self.shared.limits.queues_max)?;
        let owner = settings.exclusive.then_some(connection);
        let store = Arc::clone(&self.shared.store);
        let queue = Queue::new(self.shared.next_queue_id(), name, settings, owner, store, work.now_ms);
        let definition = queue.settings.durable.then(|| self.queue_definition(&queue));
        let position = self.shared.write(&definition.into_iter().collect::<Vec<_>>())?;
        change.registry.add(Arc::clone(&queue));
        drop(change);
        // For the alarm of `x-expires`, which runs from now on.
        let counts = queue.touch(work).unwrap_or_default();
        Ok((queue, counts, position))
    }

    /// Deletes a queue; gives how many messages were ready in it. One that does not exist has none.
    pub fn delete_queue(
        &self,
        name: &QueueName,
        if_unused: bool,
        if_empty: bool,
        connection: ConnectionId,
    ) -> Result<(u64, Position), TopologyError> {
        let queue = match self.queue(name.as_str(), connection) {
            Ok(queue) => queue,
            Err(TopologyError::NoQueue { .. }) => return Ok((0, self.shared.store.end())),
            Err(error) => return Err(error),
        };
        match queue.delete(if_unused, if_empty, "the queue was deleted") {
            Ok(counts) => Ok((counts.ready, self.remove_queue(&queue)?)),
            Err(DeleteError::Gone(_)) => Ok((0, self.remove_queue(&queue)?)),
            Err(source) => {
                Err(TopologyError::NotDeleted { queue: name.to_string(), vhost: self.name.clone(), source })
            }
        }
    }

    /// Deletes the exclusive queues of a connection that has gone.
    pub fn delete_exclusive(&self, connection: ConnectionId) {
        for queue in self.read(|registry| registry.owned_by(connection)) {
            // Nothing of an exclusive queue is journaled, so nothing of this can fail.
            let _ = queue.delete(false, false, "the queue's connection has gone");
            let _ = self.remove_queue(&queue);
        }
    }

    fn check_room(&self, what: &'static str, there_are: usize, max: usize) -> Result<(), TopologyError> {
        if there_are < max {
            return Ok(());
        }
        Err(TopologyError::TooMany { what, max, vhost: self.name.clone() })
    }

    /// Removes a queue that has decided to go.
    pub(super) fn remove_deleted(&self, queue: &Queue, reason: DeleteReason) {
        tracing::debug!(queue = %queue.name, vhost = %self.name, ?reason, "a queue deleted itself");
        if let Err(error) = self.remove_queue(queue) {
            tracing::error!(queue = %queue.name, %error, "a queue's end was not journaled");
        }
    }

    fn remove_queue(&self, queue: &Queue) -> Result<Position, TopologyError> {
        let _thinning = self.thin_out(queue.id);
        let removed = self.remove(&mut self.change().registry, queue);
        // Only now that the journal knows: a crash before must find the queue with its messages.
        queue.clear();
        self.shared.alarms.forget(queue.id);
        removed
    }

    fn remove(&self, registry: &mut Registry, queue: &Queue) -> Result<Position, TopologyError> {
        let Some((queue, removed)) = registry.remove(queue.id) else { return Ok(self.shared.store.end()) };
        let deleted = queue.settings.durable.then(|| Definition::QueueDeleted {
            vhost: self.name.clone(),
            queue: queue.name.clone(),
            id: queue.id.0,
        });
        let definitions: Vec<_> = deleted.into_iter().chain(self.exchanges_deleted(removed)).collect();
        Ok(self.shared.write(&definitions)?)
    }

    /// What a replay has to forget. Bindings go with either of their ends, and an exchange that was not durable is
    /// not there to be forgotten: both cost nothing to say.
    fn exchanges_deleted(&self, removed: exchange::Removed) -> impl Iterator<Item = Definition> {
        let vhost = self.name.clone();
        let deleted = move |exchange| Definition::ExchangeDeleted { vhost: vhost.clone(), exchange };
        removed.exchanges.into_iter().map(deleted)
    }
}
