//! Exchanges, queues and bindings as values, so that recovery can replay exactly what was declared.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use leveret_protocol::{
    Bind, Control, DeclareExchange, DeclareQueue, Destination, ExchangeName, NameError, QueueName,
    RoutingKey, Table, Unbind, Value,
};
use parking_lot::Mutex;

/// An exchange to declare. Without more it is gone when the broker restarts.
#[derive(Debug, Clone, PartialEq)]
pub struct Exchange {
    name: String,
    kind: String,
    durable: bool,
    auto_delete: bool,
    internal: bool,
    arguments: Table,
}

impl Exchange {
    /// Routes to the queues whose binding key equals the routing key.
    pub fn direct(name: impl Into<String>) -> Self {
        Self::of_type(name, "direct")
    }

    /// Routes to every queue that is bound to it.
    pub fn fanout(name: impl Into<String>) -> Self {
        Self::of_type(name, "fanout")
    }

    /// Routes by patterns of words: `*` is one word, `#` any number of them.
    pub fn topic(name: impl Into<String>) -> Self {
        Self::of_type(name, "topic")
    }

    /// Routes by the message's headers.
    pub fn headers(name: impl Into<String>) -> Self {
        Self::of_type(name, "headers")
    }

    /// An exchange of a type that a later broker has.
    pub fn of_type(name: impl Into<String>, kind: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            kind: kind.into(),
            durable: false,
            auto_delete: false,
            internal: false,
            arguments: Table::new(),
        }
    }

    /// It survives a restart of the broker.
    #[must_use]
    pub fn durable(self) -> Self {
        Self { durable: true, ..self }
    }

    /// It goes with its last binding.
    #[must_use]
    pub fn auto_delete(self) -> Self {
        Self { auto_delete: true, ..self }
    }

    /// Only other exchanges may publish to it.
    #[must_use]
    pub fn internal(self) -> Self {
        Self { internal: true, ..self }
    }

    /// Where messages go that find no queue here.
    #[must_use]
    pub fn alternate(self, exchange: impl Into<String>) -> Self {
        self.argument("alternate-exchange", exchange.into())
    }

    /// Any argument by its name on the wire.
    #[must_use]
    pub fn argument(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.arguments.insert(name.into(), value.into());
        self
    }

    pub(crate) fn checked(self) -> Result<(ExchangeName, Self), NameError> {
        Ok((ExchangeName::new(&self.name)?, self))
    }

    pub(crate) fn frame(&self, name: &ExchangeName, request: u32) -> Control {
        DeclareExchange {
            request,
            exchange: name.clone(),
            kind: self.kind.clone(),
            passive: false,
            durable: self.durable,
            auto_delete: self.auto_delete,
            internal: self.internal,
            arguments: self.arguments.clone(),
        }
        .into()
    }
}

/// What a full queue does with the next message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Overflow {
    /// The oldest messages make room; they are dead-lettered if the queue says where to.
    DropHead,
    /// The new message is refused, and its publisher told so.
    RejectPublish,
    /// As [`Overflow::RejectPublish`], and the new message is dead-lettered.
    RejectPublishDeadLetter,
}

impl Overflow {
    fn as_str(self) -> &'static str {
        match self {
            Self::DropHead => "drop-head",
            Self::RejectPublish => "reject-publish",
            Self::RejectPublishDeadLetter => "reject-publish-dlx",
        }
    }
}

/// A queue to declare.
#[derive(Debug, Clone, PartialEq)]
pub struct Queue {
    name: String,
    durable: bool,
    exclusive: bool,
    auto_delete: bool,
    arguments: Table,
}

impl Queue {
    /// A queue that survives a restart of the broker, with its persistent messages.
    pub fn durable(name: impl Into<String>) -> Self {
        Self { durable: true, ..Self::transient(name) }
    }

    /// A queue that is gone when the broker restarts.
    pub fn transient(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            durable: false,
            exclusive: false,
            auto_delete: false,
            arguments: Table::new(),
        }
    }

    /// A queue of this connection alone that goes with it. The broker chooses its name, which
    /// [`DeclaredQueue::name`] tells; after a reconnection it is another one, to which the bindings and consumers
    /// of this client follow.
    pub fn exclusive() -> Self {
        Self { exclusive: true, ..Self::transient("") }
    }

    /// It goes with its last consumer.
    #[must_use]
    pub fn auto_delete(self) -> Self {
        Self { auto_delete: true, ..self }
    }

    /// The exchange that rejected, expired and displaced messages go to.
    #[must_use]
    pub fn dead_letter_to(self, exchange: impl Into<String>) -> Self {
        self.argument("x-dead-letter-exchange", exchange.into())
    }

    /// The routing key that they get; without one they keep their own.
    #[must_use]
    pub fn dead_letter_key(self, routing_key: impl Into<String>) -> Self {
        self.argument("x-dead-letter-routing-key", routing_key.into())
    }

    /// How many messages may be ready in it.
    #[must_use]
    pub fn length_max(self, messages: u64) -> Self {
        self.argument("x-max-length", messages)
    }

    /// How many bytes the bodies of its ready messages may have together.
    #[must_use]
    pub fn bytes_max(self, bytes: u64) -> Self {
        self.argument("x-max-length-bytes", bytes)
    }

    /// How long a message may wait in it, in whole milliseconds.
    #[must_use]
    pub fn message_ttl(self, ttl: Duration) -> Self {
        self.argument("x-message-ttl", milliseconds(ttl))
    }

    /// It goes when nobody used it for so long, in whole milliseconds.
    #[must_use]
    pub fn expires(self, after: Duration) -> Self {
        self.argument("x-expires", milliseconds(after))
    }

    /// What happens when it is full.
    #[must_use]
    pub fn overflow(self, overflow: Overflow) -> Self {
        self.argument("x-overflow", overflow.as_str())
    }

    /// Messages leave by priority, from 0 to this; higher ones count as this.
    #[must_use]
    pub fn priority_max(self, priority: u8) -> Self {
        self.argument("x-max-priority", u32::from(priority))
    }

    /// One consumer at a time gets messages; another takes over when it goes.
    #[must_use]
    pub fn single_active(self) -> Self {
        self.argument("x-single-active-consumer", true)
    }

    /// How often a message may come back as failed before it is dead-lettered.
    #[must_use]
    pub fn delivery_limit(self, count: u32) -> Self {
        self.argument("x-delivery-limit", count)
    }

    /// Any argument by its name on the wire.
    #[must_use]
    pub fn argument(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.arguments.insert(name.into(), value.into());
        self
    }

    pub(crate) fn checked(self) -> Result<(QueueName, Self), NameError> {
        Ok((QueueName::new(&self.name)?, self))
    }

    pub(crate) fn frame(&self, name: &QueueName, request: u32) -> Control {
        DeclareQueue {
            request,
            queue: name.clone(),
            passive: false,
            durable: self.durable,
            exclusive: self.exclusive,
            auto_delete: self.auto_delete,
            arguments: self.arguments.clone(),
        }
        .into()
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A binding: what a queue or an exchange gets from an exchange.
#[derive(Debug, Clone, PartialEq)]
pub struct Binding {
    destination: String,
    to_exchange: bool,
    source: String,
    key: String,
    arguments: Table,
}

impl Binding {
    /// Binds a queue; say to which exchange with [`Binding::to`].
    pub fn queue(name: impl Into<String>) -> Self {
        Self {
            destination: name.into(),
            to_exchange: false,
            source: String::new(),
            key: String::new(),
            arguments: Table::new(),
        }
    }

    /// Binds an exchange, which then gets what the other one routes to it.
    pub fn exchange(name: impl Into<String>) -> Self {
        Self { to_exchange: true, ..Self::queue(name) }
    }

    /// The exchange that messages come from.
    #[must_use]
    pub fn to(self, exchange: impl Into<String>) -> Self {
        Self { source: exchange.into(), ..self }
    }

    /// The binding's key, or the pattern for a topic exchange.
    #[must_use]
    pub fn key(self, routing_key: impl Into<String>) -> Self {
        Self { key: routing_key.into(), ..self }
    }

    /// For a headers exchange: a header that the message must have.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.arguments.insert(name.into(), value.into());
        self
    }

    /// For a headers exchange: one of the headers is enough.
    #[must_use]
    pub fn any_header(self) -> Self {
        self.header("x-match", "any")
    }

    pub(crate) fn checked(self) -> Result<CheckedBinding, NameError> {
        let destination = if self.to_exchange {
            Destination::Exchange(ExchangeName::new(self.destination)?)
        } else {
            Destination::Queue(QueueName::new(self.destination)?)
        };
        Ok(CheckedBinding {
            source: ExchangeName::new(self.source)?,
            destination,
            routing_key: RoutingKey::new(self.key)?,
            arguments: self.arguments,
        })
    }
}

/// A binding whose names are names.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CheckedBinding {
    source: ExchangeName,
    destination: Destination,
    routing_key: RoutingKey,
    arguments: Table,
}

impl CheckedBinding {
    pub(crate) fn bind(&self, request: u32) -> Control {
        let Self { source, destination, routing_key, arguments } = self.clone();
        Bind { request, source, destination, routing_key, arguments }.into()
    }

    pub(crate) fn unbind(&self, request: u32) -> Control {
        let Self { source, destination, routing_key, arguments } = self.clone();
        Unbind { request, source, destination, routing_key, arguments }.into()
    }
}

/// A queue that is there.
#[derive(Clone)]
pub struct DeclaredQueue {
    name: SharedName,
    messages: u64,
    consumers: u32,
}

impl DeclaredQueue {
    pub(crate) fn new(name: SharedName, messages: Option<u64>, consumers: Option<u32>) -> Self {
        Self { name, messages: messages.unwrap_or_default(), consumers: consumers.unwrap_or_default() }
    }

    /// Its name; of a queue that the broker named, the one that it has at present.
    pub fn name(&self) -> String {
        self.name.lock().as_str().to_owned()
    }

    /// How many messages were ready in it when it was declared.
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// How many consumers it had when it was declared.
    pub fn consumers(&self) -> u32 {
        self.consumers
    }
}

impl std::fmt::Debug for DeclaredQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeclaredQueue")
            .field("name", &self.name())
            .field("messages", &self.messages)
            .field("consumers", &self.consumers)
            .finish()
    }
}

/// A queue's name that recovery may change, as far as the broker chose it.
pub(crate) type SharedName = Arc<Mutex<QueueName>>;

/// What this client declared and did not delete: what recovery replays.
#[derive(Debug, Default)]
pub(crate) struct Topology {
    exchanges: BTreeMap<ExchangeName, Exchange>,
    queues: BTreeMap<QueueName, RecordedQueue>,
    bindings: Vec<CheckedBinding>,
}

#[derive(Debug, Clone)]
pub(crate) struct RecordedQueue {
    definition: Queue,
    /// The name that was asked for: empty if the broker is to choose.
    declared_as: QueueName,
    /// The name that it has.
    pub(crate) name: SharedName,
}

impl RecordedQueue {
    /// The declaration again; a queue that the broker named gets a new name.
    pub(crate) fn frame(&self, request: u32) -> Control {
        self.definition.frame(&self.declared_as, request)
    }
}

impl Topology {
    pub(crate) fn exchange_declared(&mut self, name: ExchangeName, definition: Exchange) {
        self.exchanges.insert(name, definition);
    }

    pub(crate) fn queue_declared(
        &mut self,
        name: &QueueName,
        declared_as: QueueName,
        definition: Queue,
    ) -> SharedName {
        let recorded = self.queues.entry(name.clone()).or_insert_with(|| RecordedQueue {
            definition: definition.clone(),
            declared_as,
            name: Arc::new(Mutex::new(name.clone())),
        });
        recorded.definition = definition;
        recorded.name.clone()
    }

    /// The last consumer of this client is gone; the broker deletes such a queue then, and it must not come back
    /// with the next recovery.
    pub(crate) fn queue_unused(&mut self, name: &QueueName) {
        if self.queues.get(name).is_some_and(|recorded| recorded.definition.auto_delete) {
            self.queue_deleted(name);
        }
    }

    pub(crate) fn bound(&mut self, binding: CheckedBinding) {
        if !self.bindings.contains(&binding) {
            self.bindings.push(binding);
        }
    }

    pub(crate) fn unbound(&mut self, binding: &CheckedBinding) {
        self.bindings.retain(|recorded| recorded != binding);
    }

    pub(crate) fn exchange_deleted(&mut self, name: &ExchangeName) {
        self.exchanges.remove(name);
        self.bindings.retain(|binding| {
            binding.source != *name && binding.destination != Destination::Exchange(name.clone())
        });
    }

    pub(crate) fn queue_deleted(&mut self, name: &QueueName) {
        self.queues.remove(name);
        self.bindings.retain(|binding| binding.destination != Destination::Queue(name.clone()));
    }

    /// The broker chose another name for a queue that it names: the bindings follow.
    pub(crate) fn renamed(&mut self, old: &QueueName, new: &QueueName) {
        if let Some(recorded) = self.queues.remove(old) {
            *recorded.name.lock() = new.clone();
            self.queues.insert(new.clone(), recorded);
        }
        for binding in &mut self.bindings {
            if binding.destination == Destination::Queue(old.clone()) {
                binding.destination = Destination::Queue(new.clone());
            }
        }
    }

    /// The shared name of a queue that was declared here, so that its consumers follow a new name.
    pub(crate) fn shared_name(&self, name: &QueueName) -> SharedName {
        match self.queues.get(name) {
            Some(recorded) => recorded.name.clone(),
            None => Arc::new(Mutex::new(name.clone())),
        }
    }

    pub(crate) fn exchanges(&self) -> Vec<(ExchangeName, Exchange)> {
        self.exchanges.iter().map(|(name, exchange)| (name.clone(), exchange.clone())).collect()
    }

    pub(crate) fn queues(&self) -> Vec<RecordedQueue> {
        self.queues.values().cloned().collect()
    }

    pub(crate) fn bindings(&self) -> Vec<CheckedBinding> {
        self.bindings.clone()
    }
}
