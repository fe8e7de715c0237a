//! Request and reply: a message with a correlation id, and a queue for the answers.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use leveret_protocol::ExchangeName;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, oneshot};

use crate::client::Client;
use crate::connection::Shared;
use crate::connection::handshake::random_hex;
use crate::consumer::{Consumer, ConsumerBuilder};
use crate::delivery::Delivery;
use crate::error::{DeclareError, RequestError};
use crate::message::Message;
use crate::state::ConnectionState;
use crate::topology::{Queue, SharedName};

/// How many requests of one client may wait for their replies; further ones wait for their turn.
const REQUESTS_WAITING_MAX: usize = 4096;

/// Where the replies to a client's requests come.
#[derive(Clone)]
pub(crate) struct Replies(Arc<Inner>);

struct Inner {
    queue: SharedName,
    /// Makes the ids of this client different from those of any other.
    prefix: String,
    next: AtomicU64,
    turns: Semaphore,
    waiting: Mutex<HashMap<String, oneshot::Sender<Delivery>>>,
}

impl Client {
    /// Publishes a request and waits for the reply, at most `timeout` for all of that. The one who replies uses [`Delivery::reply`], or sends to the queue in `reply_to` a message with
    /// the same correlation id.
    ///
    /// Replies come through one queue of this client, which is made with the first request. If the connection is
    /// lost, so are the replies that were on their way: the request ends with
    /// [`RequestError::ConnectionLost`] and may have been carried out.
    pub async fn request(
        &self,
        exchange: &str,
        routing_key: &str,
        request: impl Into<Message>,
        timeout: Duration,
    ) -> Result<Delivery, RequestError> {
        let exchange = ExchangeName::new(exchange).map_err(DeclareError::from)?;
        let reply = self.request_without_timeout(&exchange, routing_key, request.into());
        tokio::time::timeout(timeout, reply).await.unwrap_or(Err(RequestError::TimedOut(timeout)))
    }

    async fn request_without_timeout(
        &self,
        exchange: &ExchangeName,
        routing_key: &str,
        request: Message,
    ) -> Result<Delivery, RequestError> {
        let shared = self.shared();
        let replies = shared.replies().await?;
        let publisher = shared.direct_publisher().await?;
        let _turn = replies.0.turns.acquire().await;
        shared.ready().await.map_err(DeclareError::from)?;
        let mut state = shared.state.subscribe();
        let expected = replies.expect();
        let request = request.correlation_id(&expected.id).reply_to(replies.queue());
        publisher.send_to(exchange, routing_key, request).await?.confirmed().await?;
        let lost = state.wait_for(|state| !matches!(state, ConnectionState::Connected { .. }));
        tokio::select! {
            reply = expected.reply() => reply.ok_or(RequestError::ConnectionLost),
            _ = lost => Err(RequestError::ConnectionLost),
        }
    }
}

impl Shared {
    /// The queue for replies, made if it is not there.
    async fn replies(self: &Arc<Self>) -> Result<Replies, RequestError> {
        if let Some(replies) = self.replies.lock().clone() {
            return Ok(replies);
        }
        let queue = self.declare_queue(Queue::exclusive().auto_delete()).await?;
        let consumer = ConsumerBuilder::new(self.clone(), None, queue.name()).without_acks().open().await?;
        let replies = Replies::new(&consumer)?;
        let chosen = self.replies.lock().get_or_insert_with(|| replies.clone()).clone();
        // If another caller was faster, the consumer is dropped here, and its queue goes with it.
        if Arc::ptr_eq(&chosen.0, &replies.0) {
            tokio::spawn(hand_out(consumer, replies, self.clone()));
        }
        Ok(chosen)
    }
}

/// Hands replies to those who wait for them, until the client is closed or the queue is gone.
async fn hand_out(mut consumer: Consumer, replies: Replies, shared: Arc<Shared>) {
    while let Some(Ok(reply)) = consumer.next().await {
        let id = reply.properties().ok().and_then(|properties| properties.correlation_id);
        let waiting = id.and_then(|id| replies.0.waiting.lock().remove(&id));
        if let Some(waiting) = waiting {
            // One who no longer waits has timed out.
            let _ = waiting.send(reply);
        }
    }
    // The next request makes another queue; those that wait are told by the drop of their senders.
    let gone = shared.replies.lock().take_if(|current| Arc::ptr_eq(&current.0, &replies.0));
    drop(gone);
    replies.0.waiting.lock().clear();
}

impl Replies {
    fn new(consumer: &Consumer) -> Result<Self, RequestError> {
        let prefix = random_hex().map_err(|error| RequestError::NoRandomness(error.to_string()))?;
        Ok(Self(Arc::new(Inner {
            queue: consumer.shared_queue().clone(),
            prefix,
            next: AtomicU64::new(0),
            turns: Semaphore::new(REQUESTS_WAITING_MAX),
            waiting: Mutex::default(),
        })))
    }

    fn queue(&self) -> String {
        self.0.queue.lock().as_str().to_owned()
    }

    fn expect(&self) -> Expected<'_> {
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        let id = format!("{}-{number}", self.0.prefix);
        let (sender, receiver) = oneshot::channel();
        self.0.waiting.lock().insert(id.clone(), sender);
        Expected { replies: self, id, receiver: Some(receiver) }
    }
}

/// A reply that is waited for; forgotten when the wait ends, however it ends.
struct Expected<'a> {
    replies: &'a Replies,
    id: String,
    receiver: Option<oneshot::Receiver<Delivery>>,
}

impl Expected<'_> {
    async fn reply(mut self) -> Option<Delivery> {
        self.receiver.take()?.await.ok()
    }
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        self.replies.0.waiting.lock().remove(&self.id);
    }
}
