//! Where one message goes.

use std::ops::Deref;

use leveret_protocol::{ExchangeName, RoutingKey, Table};
use rustc_hash::FxHashSet;
use smallvec::SmallVec;

use super::targets::{ExchangeId, Target, Targets};
use super::topic::Walk;
use crate::store::QueueId;

/// Who publishes a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Publisher {
    /// A client. Internal exchanges refuse it.
    Client,
    /// The broker itself, with a dead letter or a line of its log.
    Broker,
}

/// What of a message decides where it goes.
#[derive(Clone, Copy)]
pub struct Routable<'a> {
    /// The routing key.
    pub key: &'a str,
    /// The keys of the CC and BCC headers, which the same exchange routes by as well.
    pub further_keys: &'a [RoutingKey],
    /// The headers. They are looked at only if a headers exchange is reached that has bindings, so a
    /// [`LazyCell`](std::cell::LazyCell) here decodes them once or never.
    pub headers: &'a dyn Deref<Target = Table>,
}

impl Routable<'_> {
    /// All keys. One that stands twice finds the same queues twice, which are then one.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.key).chain(self.further_keys.iter().map(RoutingKey::as_str))
    }
}

/// Where one message goes. Made once and used for many messages, it keeps its memory: routing then allocates
/// nothing.
#[derive(Debug, Default)]
pub struct Route {
    pub(super) found: Found,
    pub(super) walk: Walk,
}

impl Route {
    /// The queues, each once, in rising order.
    pub fn queues(&self) -> &[QueueId] {
        self.found.queues()
    }

    /// Whether every message with this exchange and first key goes the same way until the router's generation
    /// changes. False if headers or further keys took part.
    pub fn is_cacheable(&self) -> bool {
        self.found.cacheable
    }

    /// Alternate exchanges that the message should have gone to and that do not exist: worth a log line.
    pub fn missing_alternates(&self) -> &[ExchangeName] {
        &self.found.missing_alternates
    }

    /// What it cost: how many trie nodes of topic exchanges and bindings of headers exchanges were looked at.
    pub fn steps(&self) -> usize {
        self.found.steps()
    }
}

/// The most queues that are collected before duplicates among them are removed for the first time.
const QUEUES_BEFORE_COMPACTION: usize = 64;

/// What routing has found so far, and which exchanges it still has to ask.
#[derive(Debug, Default)]
pub(super) struct Found {
    queues: SmallVec<[QueueId; 4]>,
    /// At how many queues the duplicates among them are removed.
    compact_at: usize,
    cacheable: bool,
    missing_alternates: Vec<ExchangeName>,
    steps: usize,
    /// Whether the exchange being asked has named any destination, known already or not.
    matched: bool,
    /// Exchanges to ask.
    pending: Vec<ExchangeId>,
    /// Exchanges that were ever pending: each is asked once, so that cycles of bindings end.
    seen: FxHashSet<ExchangeId>,
}

impl Found {
    pub(super) fn start(&mut self, message: &Routable<'_>) {
        self.queues.clear();
        self.compact_at = QUEUES_BEFORE_COMPACTION;
        self.cacheable = message.further_keys.is_empty();
        self.missing_alternates.clear();
        self.steps = 0;
        self.pending.clear();
        self.seen.clear();
    }

    pub(super) fn queues(&self) -> &[QueueId] {
        &self.queues
    }

    pub(super) fn steps(&self) -> usize {
        self.steps
    }

    /// The next exchange to ask.
    pub(super) fn next_exchange(&mut self) -> Option<ExchangeId> {
        self.matched = false;
        self.pending.pop()
    }

    /// Whether the exchange that was asked last has named any destination.
    pub(super) fn matched(&self) -> bool {
        self.matched
    }

    pub(super) fn add_all(&mut self, targets: &Targets) {
        for target in targets.iter() {
            self.add(target);
        }
    }

    pub(super) fn add(&mut self, target: Target) {
        self.matched = true;
        match target {
            Target::Queue(queue) => self.add_queue(queue),
            Target::Exchange(exchange) => {
                if self.seen.insert(exchange) {
                    self.pending.push(exchange);
                }
            }
        }
    }

    pub(super) fn add_queue(&mut self, queue: QueueId) {
        if self.queues.len() >= self.compact_at {
            // Many keys or exchanges that name the same queues must not make this list longer than the
            // queues are many; doubling keeps the sorting to a logarithmic share.
            self.compact();
            self.compact_at = QUEUES_BEFORE_COMPACTION.max(self.queues.len() * 2);
        }
        self.queues.push(queue);
    }

    pub(super) fn add_missing_alternate(&mut self, name: &ExchangeName) {
        self.missing_alternates.push(name.clone());
    }

    pub(super) fn used_headers(&mut self, bindings: usize) {
        self.cacheable = false;
        self.steps += bindings;
    }

    pub(super) fn count_step(&mut self) {
        self.steps += 1;
    }

    pub(super) fn finish(&mut self) {
        if self.queues.len() > 1 {
            self.compact();
        }
    }

    fn compact(&mut self) {
        self.queues.sort_unstable();
        self.queues.dedup();
    }
}
