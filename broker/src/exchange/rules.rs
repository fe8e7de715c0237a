//! The bindings of one exchange, arranged for the way in which its kind looks them up.

use std::sync::Arc;

use super::binding::Binding;
use super::direct::KeyTable;
use super::error::ExchangeError;
use super::headers::HeadersTable;
use super::route::{Found, Routable};
use super::settings::ExchangeKind;
use super::targets::{BindingId, Target, Targets};
use super::topic::{TopicTable, Walk};

/// One exchange's bindings.
#[derive(Debug)]
pub(super) enum Rules {
    Direct(KeyTable),
    Fanout(Targets),
    Topic(Box<TopicTable>),
    Headers(HeadersTable),
}

impl Rules {
    pub(super) fn new(kind: ExchangeKind) -> Self {
        match kind {
            ExchangeKind::Direct => Self::Direct(KeyTable::default()),
            ExchangeKind::Fanout => Self::Fanout(Targets::default()),
            ExchangeKind::Topic => Self::Topic(Box::default()),
            ExchangeKind::Headers => Self::Headers(HeadersTable::default()),
        }
    }

    /// Adds a binding and returns the place that [`remove`](Self::remove) needs to find it.
    pub(super) fn insert(
        &mut self,
        binding: &Arc<Binding>,
        id: BindingId,
        target: Target,
    ) -> Result<usize, ExchangeError> {
        match self {
            Self::Direct(keys) => Ok(keys.insert(&binding.key, id, target)),
            Self::Fanout(targets) => Ok(targets.insert(id, target)),
            Self::Topic(topic) => Ok(topic.insert(&binding.key, id, target)),
            Self::Headers(headers) => headers.insert(binding, id, target),
        }
    }

    /// Removes the binding at `place` and returns the one that has moved there, if any.
    pub(super) fn remove(&mut self, binding: &Binding, place: usize) -> Option<BindingId> {
        match self {
            Self::Direct(keys) => keys.remove(&binding.key, place),
            Self::Fanout(targets) => targets.remove(place),
            Self::Topic(topic) => topic.remove(&binding.key, place),
            Self::Headers(headers) => headers.remove(place),
        }
    }

    /// Adds the targets of all bindings that match the message.
    pub(super) fn collect(&self, message: &Routable<'_>, walk: &mut Walk, found: &mut Found) {
        match self {
            Self::Direct(keys) => message.keys().for_each(|key| keys.collect(key, found)),
            Self::Fanout(targets) => found.add_all(targets),
            Self::Topic(topic) => message.keys().for_each(|key| topic.collect(key, walk, found)),
            Self::Headers(headers) => headers.collect(message.headers, found),
        }
    }
}
