//! Where the bindings of one key, one pattern or one whole exchange lead.

use smallvec::SmallVec;

use crate::store::QueueId;

/// An exchange's number inside its router.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ExchangeId(pub(super) usize);

/// A binding's number inside its router.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct BindingId(pub(super) usize);

/// A binding's destination, looked up.
#[derive(Debug, Clone, Copy)]
pub(super) enum Target {
    Queue(QueueId),
    Exchange(ExchangeId),
}

/// A list of bindings' targets, mostly of one.
///
/// A binding remembers its place in the list, and removal fills the gap with the last one: a queue that
/// leaves a fanout exchange with 100 000 bindings must not search them.
#[derive(Debug, Default)]
pub(super) struct Targets(SmallVec<[(BindingId, Target); 1]>);

impl Targets {
    /// Adds one and returns its place.
    pub(super) fn insert(&mut self, binding: BindingId, target: Target) -> usize {
        self.0.push((binding, target));
        self.0.len() - 1
    }

    /// Removes the one at `place` and returns the binding that has moved to it.
    pub(super) fn remove(&mut self, place: usize) -> Option<BindingId> {
        if place < self.0.len() {
            self.0.swap_remove(place);
        }
        self.0.get(place).map(|(moved, _)| *moved)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Target> {
        self.0.iter().map(|(_, target)| *target)
    }
}
