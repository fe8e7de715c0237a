//! The handle that everything starts from.

use std::sync::Arc;

use leveret_protocol::{
    Control, DeclareExchange, DeclareQueue, DeleteExchange, DeleteQueue, Done, ExchangeName, PurgeQueue,
    QueueName, Table,
};

use crate::builder::ClientBuilder;
use crate::connection::Shared;
use crate::connection::channels::{CONTROL, Owner};
use crate::consumer::ConsumerBuilder;
use crate::delivery::Delivery;
use crate::error::{CloseError, ConnectError, DeclareError};
use crate::publisher::PublisherBuilder;
use crate::state::{ConnectionState, PublishingWatch, StateWatch};
use crate::topology::{Binding, DeclaredQueue, Exchange, Queue};

/// A connection to a broker. Cheap to clone; all clones share one connection, which closes when the last of
/// them and of their publishers and consumers is dropped. Use [`Client::close`] to be sure that everything
/// arrived.
#[derive(Debug, Clone)]
pub struct Client(pub(crate) Arc<Handle>);

/// Keeps the connection open.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.begin_closing();
        self.shared.hang_up.notify_one();
    }
}

impl Client {
    /// Connects with the defaults to `leveret://user:password@host:port/vhost`. Without them the port is 7672,
    /// the user `guest` with the password `guest`, and the vhost `/`.
    pub async fn connect(uri: &str) -> Result<Self, ConnectError> {
        Self::builder(uri).connect().await
    }

    /// As [`Client::connect`], with more to say.
    pub fn builder(uri: &str) -> ClientBuilder {
        ClientBuilder::new(uri)
    }

    /// Declares an exchange or a queue, or finds that it is there as it is said. Durable ones are on disk when
    /// this returns.
    pub async fn declare<D: Declare>(&self, definition: D) -> Result<D::Declared, DeclareError> {
        definition.declare(self).await
    }

    /// Binds a queue or an exchange to an exchange.
    pub async fn bind(&self, binding: Binding) -> Result<(), DeclareError> {
        let binding = binding.checked()?;
        self.ask(|request| binding.bind(request)).await?;
        self.shared().topology.lock().bound(binding);
        Ok(())
    }

    /// Removes a binding; one that does not exist is fine.
    pub async fn unbind(&self, binding: Binding) -> Result<(), DeclareError> {
        let binding = binding.checked()?;
        self.shared().topology.lock().unbound(&binding);
        self.ask(|request| binding.unbind(request)).await?;
        Ok(())
    }

    /// Whether an exchange is there; an error with the code 404 says that it is not.
    pub async fn check_exchange(&self, name: &str) -> Result<(), DeclareError> {
        let exchange = ExchangeName::new(name)?;
        let check = |request| DeclareExchange {
            request,
            exchange,
            kind: String::new(),
            passive: true,
            durable: false,
            auto_delete: false,
            internal: false,
            arguments: Table::new(),
        };
        self.ask(|request| check(request).into()).await?;
        Ok(())
    }

    /// How many messages and consumers a queue has; an error with the code 404 says that it is not there.
    pub async fn check_queue(&self, name: &str) -> Result<DeclaredQueue, DeclareError> {
        let queue = QueueName::new(name)?;
        let check = |request| DeclareQueue {
            request,
            queue: queue.clone(),
            passive: true,
            durable: false,
            exclusive: false,
            auto_delete: false,
            arguments: Table::new(),
        };
        let done = self.ask(|request| check(request).into()).await?;
        let name = self.shared().topology.lock().shared_name(&queue);
        Ok(DeclaredQueue::new(name, done.messages, done.consumers))
    }

    /// Deletes an exchange; one that does not exist is fine.
    pub async fn delete_exchange(&self, name: &str, condition: DeleteIf) -> Result<(), DeclareError> {
        let exchange = ExchangeName::new(name)?;
        let if_unused = matches!(condition, DeleteIf::Unused | DeleteIf::UnusedAndEmpty);
        let frame = |request| DeleteExchange { request, exchange: exchange.clone(), if_unused }.into();
        self.ask(frame).await?;
        self.shared().topology.lock().exchange_deleted(&exchange);
        Ok(())
    }

    /// Deletes a queue; one that does not exist is fine. Returns how many messages went with it.
    pub async fn delete_queue(&self, name: &str, condition: DeleteIf) -> Result<u64, DeclareError> {
        let queue = QueueName::new(name)?;
        let frame = |request| {
            DeleteQueue {
                request,
                queue: queue.clone(),
                if_unused: matches!(condition, DeleteIf::Unused | DeleteIf::UnusedAndEmpty),
                if_empty: matches!(condition, DeleteIf::Empty | DeleteIf::UnusedAndEmpty),
            }
            .into()
        };
        let done = self.ask(frame).await?;
        self.shared().topology.lock().queue_deleted(&queue);
        Ok(done.messages.unwrap_or_default())
    }

    /// Removes the ready messages of a queue. Returns how many.
    pub async fn purge(&self, queue: &str) -> Result<u64, DeclareError> {
        let queue = QueueName::new(queue)?;
        let done = self.ask(|request| PurgeQueue { request, queue }.into()).await?;
        Ok(done.messages.unwrap_or_default())
    }

    /// Takes one message off a queue, if one is ready. A consumer is much cheaper for more than a few.
    pub async fn get(&self, queue: &str) -> Result<Option<Delivery>, DeclareError> {
        Ok(self.shared().get(QueueName::new(queue)?, false).await?)
    }

    /// As [`Client::get`]; the message counts as acknowledged when it is sent, and is lost if it does not arrive.
    pub async fn get_without_ack(&self, queue: &str) -> Result<Option<Delivery>, DeclareError> {
        Ok(self.shared().get(QueueName::new(queue)?, true).await?)
    }

    /// A publisher to this exchange; empty is the default exchange, whose routing keys are the names of queues.
    pub fn publisher(&self, exchange: impl Into<String>) -> PublisherBuilder {
        PublisherBuilder::new(self.0.shared.clone(), Some(self.0.clone()), exchange.into())
    }

    /// A consumer of this queue.
    pub fn consumer(&self, queue: impl Into<String>) -> ConsumerBuilder {
        ConsumerBuilder::new(self.0.shared.clone(), Some(self.0.clone()), queue.into())
    }

    /// How the connection is doing, and a way to wait for news.
    pub fn state(&self) -> StateWatch {
        StateWatch(self.shared().state.subscribe())
    }

    /// Whether the broker takes messages, and a way to wait for news. While it does not, publishers wait by themselves, and
    /// consumers go on.
    pub fn publishing(&self) -> PublishingWatch {
        PublishingWatch(self.shared().publishing.subscribe())
    }

    /// Closes in good order: consumers end and what they had not handed out is released, everything that was
    /// sent is confirmed, everything that was settled is sent, then the broker is told goodbye. Deliveries that
    /// the application still holds go back to their queues.
    pub async fn close(self) -> Result<(), CloseError> {
        let shared = self.shared();
        shared.begin_closing();
        for owner in shared.channels.owners() {
            if let Owner::Consumer(subscription) = owner {
                shared.stop_consumer(&subscription);
            }
        }
        let timeout = shared.options.close_timeout;
        let timed_out = tokio::time::timeout(timeout, shared.quiet()).await.is_err();
        shared.hang_up.notify_one();
        let mut state = shared.state.subscribe();
        let closed = state.wait_for(|state| matches!(state, ConnectionState::Closed { .. })).await;
        match closed.as_deref() {
            Ok(ConnectionState::Closed { cause: Some(lost) }) => {
                Err(CloseError::ConnectionLost(lost.clone()))
            }
            _ if timed_out => Err(CloseError::TimedOut(timeout)),
            _ => Ok(()),
        }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.0.shared
    }

    async fn ask(&self, frame: impl FnOnce(u32) -> Control) -> Result<Done, DeclareError> {
        Ok(self.shared().ask(CONTROL, frame).await?)
    }
}

/// When a deletion is to be refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum DeleteIf {
    /// Never.
    #[default]
    Exists,
    /// A queue that has consumers, or an exchange that has bindings.
    Unused,
    /// A queue that has messages.
    Empty,
    /// Either.
    UnusedAndEmpty,
}

/// What can be declared: [`Exchange`] and [`Queue`].
pub trait Declare: sealed::Sealed {
    /// What is known once it is declared.
    type Declared;

    #[doc(hidden)]
    fn declare(self, client: &Client) -> impl Future<Output = Result<Self::Declared, DeclareError>> + Send;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for crate::topology::Exchange {}
    impl Sealed for crate::topology::Queue {}
}

impl Declare for Exchange {
    type Declared = ();

    async fn declare(self, client: &Client) -> Result<(), DeclareError> {
        let (name, definition) = self.checked()?;
        client.ask(|request| definition.frame(&name, request)).await?;
        client.shared().topology.lock().exchange_declared(name, definition);
        Ok(())
    }
}

impl Declare for Queue {
    type Declared = DeclaredQueue;

    async fn declare(self, client: &Client) -> Result<DeclaredQueue, DeclareError> {
        client.shared().declare_queue(self).await
    }
}

impl Shared {
    pub(crate) async fn declare_queue(&self, definition: Queue) -> Result<DeclaredQueue, DeclareError> {
        let (declared_as, definition) = definition.checked()?;
        let done = self.ask(CONTROL, |request| definition.frame(&declared_as, request)).await?;
        let name = done.queue.unwrap_or_else(|| declared_as.clone());
        let name = self.topology.lock().queue_declared(&name, declared_as, definition);
        Ok(DeclaredQueue::new(name, done.messages, done.consumers))
    }

    /// Waits until everything that was sent is confirmed and every durable ack is on disk, or until the
    /// connection is gone.
    async fn quiet(&self) {
        for owner in self.channels.owners() {
            if let Owner::Publisher(window) = owner {
                window.idle().await;
            }
        }
        loop {
            let mut settled = std::pin::pin!(self.outbox.quiet.notified());
            settled.as_mut().enable();
            if self.outbox.settles_waiting() == 0 {
                return;
            }
            settled.await;
        }
    }
}
