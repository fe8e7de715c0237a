//! Vhosts with their exchanges, queues and bindings; and the ways of messages between them that no single queue or
//! exchange knows: publish to several queues, dead letters, timers.
//!
//! A vhost's table is behind a read-write lock. The hot path takes neither side of it: a connection caches what it
//! resolved, and one relaxed load of the vhost's generation says whether that still holds.

mod alarms;
mod dead_letter;
mod declare;
mod definitions;
mod error;
mod publish;
mod readers;
mod transaction;
mod vhost;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use leveret_journal::Position;
use leveret_journal::faults::{crash_point, mutant};
use leveret_protocol::VhostName;
use parking_lot::RwLock;

pub use alarms::Alarms;
pub use declare::{DeclareExchange, DeclareQueue};
pub use definitions::{BindingDefinition, Definition, compact};
pub use error::TopologyError;
pub use publish::{Pending, Resolved};
pub use readers::{READERS, Readers};
pub use transaction::{CommitError, Committed, Settling};
pub use vhost::Vhost;

use crate::queue::{Queue, Work};
use crate::store::{Batch, QueueId, Recovered, Store, StoreError};

/// All vhosts.
#[derive(Debug)]
pub struct Topology {
    vhosts: RwLock<HashMap<VhostName, Arc<Vhost>>>,
    shared: Arc<Shared>,
}

/// What all vhosts share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) store: Arc<Store>,
    pub(crate) alarms: Arc<Alarms>,
    pub(crate) readers: Arc<Readers>,
    limits: VhostLimits,
    next_queue: AtomicU64,
}

/// How much there may be in one vhost.
#[derive(Debug, Clone, Copy)]
pub struct VhostLimits {
    /// Queues.
    pub queues_max: usize,
    /// Exchanges, the predeclared ones included.
    pub exchanges_max: usize,
    /// Bindings.
    pub bindings_max: usize,
}

impl Topology {
    /// Without vhosts.
    pub fn new(store: Arc<Store>, alarms: Arc<Alarms>, readers: Arc<Readers>, limits: VhostLimits) -> Self {
        let shared = Arc::new(Shared { store, alarms, readers, limits, next_queue: AtomicU64::new(1) });
        Self { vhosts: RwLock::default(), shared }
    }

    /// The vhost of this name, if it exists.
    pub fn vhost(&self, name: &str) -> Option<Arc<Vhost>> {
        if mutant("any_vhost") {
            return self.vhosts.read().values().next().cloned();
        }
        self.vhosts.read().get(name).cloned()
    }

    /// Lets queues to which nothing else happens go of messages that are in the journal.
    pub fn unload(&self, work: &mut Work) {
        for vhost in self.vhosts() {
            for queue in vhost.queues() {
                queue.unload(work);
            }
            vhost.finish(work);
        }
    }

    /// All vhosts.
    pub fn vhosts(&self) -> Vec<Arc<Vhost>> {
        self.vhosts.read().values().cloned().collect()
    }

    /// Makes a vhost unless it exists, and journals that.
    pub fn ensure_vhost(&self, name: &VhostName) -> Result<Arc<Vhost>, StoreError> {
        let mut vhosts = self.vhosts.write();
        if let Some(vhost) = vhosts.get(name) {
            return Ok(Arc::clone(vhost));
        }
        let vhost = Vhost::new(name.clone(), Arc::clone(&self.shared));
        self.shared.write(&[Definition::Vhost { vhost: name.clone() }])?;
        vhosts.insert(name.clone(), Arc::clone(&vhost));
        Ok(vhost)
    }

    /// Takes definitions over that were made before a restart, in their order.
    ///
    /// They held when they were made. One that does not hold now (an exchange of a type that this version does not
    /// know) is reported and left out; it costs only itself.
    pub fn restore(&self, definitions: impl IntoIterator<Item = Definition>, work: &mut Work) {
        for definition in definitions {
            let name = definition.vhost().clone();
            let mut vhosts = self.vhosts.write();
            let vhost =
                vhosts.entry(name.clone()).or_insert_with(|| Vhost::new(name, Arc::clone(&self.shared)));
            if let Err(error) = vhost.restore(&definition, work) {
                tracing::error!(%error, ?definition, "a definition from before the restart does not hold");
            }
        }
    }

    /// Gives the queues their messages back. New queues get numbers above every one that was ever used.
    pub fn restore_messages(&self, mut recovered: Recovered, work: &mut Work) {
        let highest = recovered.queues.keys().map(|queue| queue.0).max().unwrap_or(0);
        self.shared.use_queue_ids_above(highest);
        for vhost in self.vhosts() {
            for queue in vhost.queues() {
                queue.restore(&mut recovered, work);
            }
            vhost.finish(work);
        }
    }

    /// The journal is about to lose what is `before` a position: the queues write again what of it still counts.
    pub fn keep_horizons(&self, before: Position, work: &mut Work) {
        self.queues().iter().for_each(|queue| queue.keep_horizon(before, work));
    }

    /// All queues of all vhosts.
    pub fn queues(&self) -> Vec<Arc<Queue>> {
        self.vhosts().iter().flat_map(|vhost| vhost.queues()).collect()
    }

    /// Everything durable as definitions that make it anew, the number of the next queue, and the position in the
    /// journal that this corresponds to. Nothing can be declared meanwhile.
    pub fn snapshot(&self) -> (Vec<Definition>, u64, Position) {
        let vhosts = self.vhosts.write();
        let tables: Vec<_> = vhosts.values().map(|vhost| (vhost, vhost.lock_for_snapshot())).collect();
        let definitions = tables.iter().flat_map(|(vhost, table)| vhost.durable_definitions(table)).collect();
        (definitions, self.shared.next_queue.load(Ordering::Relaxed), self.shared.store.end())
    }

    /// Numbers up to this one have been used.
    pub fn use_queue_ids_above(&self, used: u64) {
        self.shared.use_queue_ids_above(used);
    }
}

impl Shared {
    fn next_queue_id(&self) -> QueueId {
        QueueId(self.next_queue.fetch_add(1, Ordering::Relaxed))
    }

    fn use_queue_ids_above(&self, used: u64) {
        self.next_queue.fetch_max(used + 1, Ordering::Relaxed);
    }

    /// Journals definitions as one group; gives the position that must be synced before anybody is told.
    fn write(&self, definitions: &[Definition]) -> Result<Position, StoreError> {
        let mut batch = Batch::default();
        for definition in definitions {
            batch.definition(&definition.encode());
        }
        crash_point("definitions.before_write");
        self.store.write(&mut batch)
    }
}
