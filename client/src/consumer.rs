//! Consumers: a stream of deliveries that outlives its connection.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;
use leveret_protocol::{Cancel, Credit, QueueName};

use crate::client::Handle;
use crate::connection::Shared;
use crate::connection::channels::Owner;
use crate::connection::dispatch::release;
use crate::connection::subscription::{CONSUMER, ConsumeOptions, Subscription, Taken};
use crate::delivery::{Delivery, Lease};
use crate::error::{ConsumeError, RequestFailure};
use crate::topology::SharedName;

/// How many messages a consumer may have unsettled unless it says otherwise: enough that a fast consumer never
/// waits for the network, and little enough that a slow one does not hoard what others could do.
pub const PREFETCH_MAX_DEFAULT: u32 = 1024;

/// Builds a [`Consumer`].
#[derive(Debug)]
#[must_use = "a builder does nothing until `open`"]
pub struct ConsumerBuilder {
    shared: Arc<Shared>,
    handle: Option<Arc<Handle>>,
    queue: String,
    tag: String,
    no_ack: bool,
    exclusive: bool,
    prefetch_max: u32,
    priority: i32,
}

impl ConsumerBuilder {
    pub(crate) fn new(shared: Arc<Shared>, handle: Option<Arc<Handle>>, queue: String) -> Self {
        Self {
            shared,
            handle,
            queue,
            tag: String::new(),
            no_ack: false,
            exclusive: false,
            prefetch_max: PREFETCH_MAX_DEFAULT,
            priority: 0,
        }
    }

    /// How many messages may be unsettled, in the application and on the way to it; at least 1, and by default
    /// [`PREFETCH_MAX_DEFAULT`]. Take a small number for messages that take long.
    pub fn prefetch_max(self, messages: u32) -> Self {
        Self { prefetch_max: messages.max(1), ..self }
    }

    /// What an operator is shown as the consumer's name.
    pub fn tag(self, tag: impl Into<String>) -> Self {
        Self { tag: tag.into(), ..self }
    }

    /// Messages count as acknowledged when they are sent: those on the way are lost with the connection. What
    /// comes is bounded all the same; [`ConsumerBuilder::prefetch_max`] then counts messages that the
    /// application has not taken.
    pub fn without_acks(self) -> Self {
        Self { no_ack: true, ..self }
    }

    /// No other consumer may have this queue.
    pub fn exclusive(self) -> Self {
        Self { exclusive: true, ..self }
    }

    /// Consumers with a higher priority get messages first, as long as they have room.
    pub fn priority(self, priority: i32) -> Self {
        Self { priority, ..self }
    }

    /// Starts it.
    pub async fn open(self) -> Result<Consumer, ConsumeError> {
        let name = self.shared.topology.lock().shared_name(&QueueName::new(&self.queue)?);
        self.shared.ready().await?;
        let mut made = None;
        let options = ConsumeOptions {
            queue: name,
            tag: self.tag,
            no_ack: self.no_ack,
            exclusive: self.exclusive,
            prefetch_max: self.prefetch_max,
            priority: self.priority,
        };
        let taken = self.shared.take_channel(|channel| {
            let subscription = Arc::new(Subscription::new(channel, options));
            made = Some(subscription.clone());
            Owner::Consumer(subscription)
        });
        let (Ok(channel), Some(subscription)) = (&taken, made) else {
            return Err(ConsumeError::ChannelLimit { max: taken.err().map_or(0, |none| none.max) });
        };
        let lease = Lease { shared: self.shared.clone(), channel: *channel, closes: true };
        // From here on a drop, as of a cancelled `open`, stops the consumer.
        let consumer = Consumer { subscription, lease: Arc::new(lease), _handle: self.handle };
        consumer.subscription.wait_started().await?;
        Ok(consumer)
    }
}

/// A stream of deliveries. It survives reconnections, and ends only when it is dropped, when the client is
/// closed, or with an error that says why the broker stopped or refused it.
///
/// Dropping it releases what it has not handed out. Deliveries that the application still holds can be settled
/// afterwards.
#[must_use = "a consumer takes messages that nobody reads"]
pub struct Consumer {
    subscription: Arc<Subscription>,
    lease: Arc<Lease>,
    /// Keeps the connection open.
    _handle: Option<Arc<Handle>>,
}

impl Consumer {
    /// The next delivery; `None` after the end. Cancelling the wait loses nothing.
    pub async fn next(&mut self) -> Option<Result<Delivery, ConsumeError>> {
        poll_fn(|context| self.poll(context)).await
    }

    /// As [`Consumer::next`], for `while let Some(delivery) = consumer.try_next().await?`.
    pub async fn try_next(&mut self) -> Result<Option<Delivery>, ConsumeError> {
        self.next().await.transpose()
    }

    /// The queue's name; if the broker chose it, the one that it has at present.
    pub fn queue(&self) -> String {
        self.subscription.options.queue.lock().as_str().to_owned()
    }

    pub(crate) fn shared_queue(&self) -> &SharedName {
        &self.subscription.options.queue
    }

    fn poll(&self, context: &Context<'_>) -> Poll<Option<Result<Delivery, ConsumeError>>> {
        self.subscription.poll_next(context).map_ok(|taken| self.hand_out(taken))
    }

    fn hand_out(&self, taken: Taken) -> Delivery {
        let Taken { delivery, grant } = taken;
        if grant > 0 {
            let credit = Credit { consumer: CONSUMER, messages: grant };
            self.lease.shared.outbox.credit(self.subscription.channel, credit);
        }
        Delivery::new(delivery, self.lease.clone(), self.subscription.options.no_ack)
    }
}

impl Stream for Consumer {
    type Item = Result<Delivery, ConsumeError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll(context)
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        let shared = &self.lease.shared;
        shared.stop_consumer(&self.subscription);
        let queue = self.subscription.options.queue.lock().clone();
        let used = shared.channels.owners().iter().any(|owner| {
            matches!(owner, Owner::Consumer(other)
                if !Arc::ptr_eq(other, &self.subscription) && *other.options.queue.lock() == queue)
        });
        if !used {
            shared.topology.lock().queue_unused(&queue);
        }
    }
}

impl std::fmt::Debug for Consumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer").field("queue", &self.queue()).finish_non_exhaustive()
    }
}

impl Shared {
    /// Stops a consumer and releases what it has not taken. Nobody waits for the answer.
    pub(crate) fn stop_consumer(&self, subscription: &Subscription) {
        let (left, was_running) = subscription.stop();
        if was_running {
            let channel = subscription.channel;
            drop(self.begin(channel, |request| Cancel { request, consumer: CONSUMER }.into()));
        }
        release(self, subscription, left.into_iter());
    }
}

impl From<RequestFailure> for ConsumeError {
    fn from(failure: RequestFailure) -> Self {
        match failure {
            RequestFailure::Refused(refusal) => Self::Refused(refusal),
            RequestFailure::Lost(lost) => Self::ConnectionLost(lost),
            _ => Self::Closed,
        }
    }
}
