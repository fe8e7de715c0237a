//! The direct exchange: the routing key equals the binding's key.

use std::collections::HashMap;

use leveret_protocol::RoutingKey;

use super::route::Found;
use super::targets::{BindingId, Target, Targets};

/// Targets by exact key. Clients choose the keys, so they are hashed with a secret seed.
#[derive(Debug, Default)]
pub(super) struct KeyTable(HashMap<RoutingKey, Targets>);

impl KeyTable {
    /// Adds a binding and returns its place among those of the same key.
    pub(super) fn insert(&mut self, key: &RoutingKey, binding: BindingId, target: Target) -> usize {
        self.0.entry(key.clone()).or_default().insert(binding, target)
    }

    /// Removes a binding and returns the one that has moved to its place.
    pub(super) fn remove(&mut self, key: &RoutingKey, place: usize) -> Option<BindingId> {
        let targets = self.0.get_mut(key)?;
        let moved = targets.remove(place);
        if targets.is_empty() {
            self.0.remove(key);
        }
        moved
    }

    pub(super) fn collect(&self, key: &str, found: &mut Found) {
        if let Some(targets) = self.0.get(key) {
            found.add_all(targets);
        }
    }
}
