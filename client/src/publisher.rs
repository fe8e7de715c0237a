//! Publishers: every message is confirmed, or the publisher is of another type.

use std::sync::Arc;

use leveret_protocol::{ExchangeName, ReplyCode};

use crate::client::Handle;
use crate::connection::Shared;
use crate::connection::channels::Owner;
use crate::connection::window::{Window, WindowOptions};
use crate::error::{Interruption, OpenError, PublishError};
use crate::message::Message;
use crate::receipt::{Confirmed, Receipt};

/// How many messages a publisher may have in flight unless it says otherwise: enough to keep a broker busy
/// through one sync of its disk at some 500,000 messages a second, and little enough to be sent again.
pub const IN_FLIGHT_MAX_DEFAULT: usize = 4096;

/// Builds a [`Publisher`].
#[derive(Debug)]
#[must_use = "a builder does nothing until `open`"]
pub struct PublisherBuilder {
    shared: Arc<Shared>,
    handle: Option<Arc<Handle>>,
    exchange: String,
    options: WindowOptions,
}

impl PublisherBuilder {
    pub(crate) fn new(shared: Arc<Shared>, handle: Option<Arc<Handle>>, exchange: String) -> Self {
        let options = WindowOptions {
            in_flight_max: IN_FLIGHT_MAX_DEFAULT,
            persistent: true,
            mandatory: true,
            confirms: true,
        };
        Self { shared, handle, exchange, options }
    }

    /// How many messages may be sent and not confirmed; at least 1, and by default
    /// [`IN_FLIGHT_MAX_DEFAULT`]. [`Publisher::send`] waits when there are as many. Whatever this says, their
    /// bodies have at most 64 MiB together, unless it is one larger one.
    pub fn in_flight_max(mut self, messages: usize) -> Self {
        self.options.in_flight_max = messages.max(1);
        self
    }

    /// Whether messages survive a restart of the broker, if they do not say so themselves. By default they do.
    pub fn persistent(mut self, persistent: bool) -> Self {
        self.options.persistent = persistent;
        self
    }

    /// Whether a message that no queue gets is an error, [`PublishError::Unroutable`]. By default it is, because
    /// nobody has such a message; say `false` where it is normal that nobody listens.
    pub fn mandatory(mut self, mandatory: bool) -> Self {
        self.options.mandatory = mandatory;
        self
    }

    /// A publisher that is never told what became of its messages.
    pub fn unconfirmed(mut self) -> UnconfirmedPublisherBuilder {
        self.options.confirms = false;
        UnconfirmedPublisherBuilder(self)
    }

    /// Opens it.
    pub async fn open(self) -> Result<Publisher, OpenError> {
        self.open_inner().await.map(Publisher)
    }

    async fn open_inner(self) -> Result<Arc<Inner>, OpenError> {
        let Self { shared, handle, exchange, options } = self;
        let exchange = ExchangeName::new(exchange)?;
        shared.ready().await?;
        let mut made = None;
        let taken = shared.take_channel(|channel| {
            let window = Arc::new(Window::new(channel, options));
            made = Some(window.clone());
            Owner::Publisher(window)
        });
        let (Ok(_), Some(window)) = (&taken, made) else {
            return Err(OpenError::ChannelLimit { max: taken.err().map_or(0, |none| none.max) });
        };
        // From here on a drop, as of a cancelled `open`, gives the channel back.
        let inner = Arc::new(Inner { shared, _handle: handle, window, exchange });
        inner.window.opened().await?;
        Ok(inner)
    }
}

/// Builds an [`UnconfirmedPublisher`].
#[derive(Debug)]
#[must_use = "a builder does nothing until `open`"]
pub struct UnconfirmedPublisherBuilder(PublisherBuilder);

impl UnconfirmedPublisherBuilder {
    /// Opens it.
    pub async fn open(self) -> Result<UnconfirmedPublisher, OpenError> {
        self.0.open_inner().await.map(UnconfirmedPublisher)
    }
}

/// Publishes to one exchange. Clones share the window, and with it the order of their messages.
///
/// Nothing is sent twice and nothing is kept silently: a message that was in flight when the connection was lost
/// comes back as [`PublishError::OutcomeUnknown`], and during a recovery [`Publisher::send`] waits.
#[derive(Debug, Clone)]
pub struct Publisher(Arc<Inner>);

impl Publisher {
    /// Publishes and waits until the broker has the message: `Ok` means that every queue it was routed to has
    /// it, and that it is on disk if message and queue are durable.
    ///
    /// If the broker takes no messages for now (see [`Client::publishing`](crate::Client::publishing)) it waits until it
    /// does, and sends a message again that was refused for that reason: no queue had it.
    pub async fn publish(
        &self,
        routing_key: &str,
        message: impl Into<Message>,
    ) -> Result<Confirmed, PublishError> {
        let mut message = message.into();
        loop {
            match self.send(routing_key, message).await?.confirmed().await {
                Err(PublishError::Refused { code: ReplyCode::PublishingPaused, message: back }) => {
                    message = *back;
                }
                outcome => return outcome,
            }
        }
    }

    /// Publishes and waits only for room in the window, and for a broker that takes messages; the receipt tells what
    /// became of the message. One that was on its way when the broker stopped taking messages may be refused with
    /// [`ReplyCode::PublishingPaused`]: no queue has it, and it can be sent again.
    pub async fn send(
        &self,
        routing_key: &str,
        message: impl Into<Message>,
    ) -> Result<Receipt, PublishError> {
        self.send_to(&self.0.exchange, routing_key, message.into()).await
    }

    /// To another exchange on the same channel; for requests.
    pub(crate) async fn send_to(
        &self,
        exchange: &ExchangeName,
        routing_key: &str,
        message: Message,
    ) -> Result<Receipt, PublishError> {
        self.0.send(exchange, routing_key, message).await
    }
}

/// Publishes to one exchange, and never learns what became of its messages. For what may be lost, such as a
/// measurement that the next one replaces.
#[derive(Debug, Clone)]
pub struct UnconfirmedPublisher(Arc<Inner>);

impl UnconfirmedPublisher {
    /// Hands the message over, as soon as there is a connection and room to write. Errors are those that this
    /// side sees.
    pub async fn send(&self, routing_key: &str, message: impl Into<Message>) -> Result<(), PublishError> {
        self.0.send(&self.0.exchange, routing_key, message.into()).await.map(drop)
    }
}

struct Inner {
    shared: Arc<Shared>,
    /// Keeps the connection open.
    _handle: Option<Arc<Handle>>,
    window: Arc<Window>,
    exchange: ExchangeName,
}

impl Inner {
    async fn send(
        &self,
        exchange: &ExchangeName,
        routing_key: &str,
        message: Message,
    ) -> Result<Receipt, PublishError> {
        if self.shared.is_closing() {
            let cause = self.shared.state.borrow().loss().cloned();
            let cause = cause.map_or(Interruption::Closed, Interruption::Connection);
            return Err(PublishError::NotSent { message: Box::new(message), cause });
        }
        let slot = self.window.send(&self.shared.outbox, exchange, routing_key, message).await?;
        Ok(Receipt::new(self.window.clone(), slot))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // With messages in flight the channel stays open for their receipts, and the driver closes it.
        if self.window.retire() {
            self.shared.close_channel(self.window.channel);
        }
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher").field("exchange", &self.exchange).finish_non_exhaustive()
    }
}

impl Shared {
    /// The publisher of replies and requests, to the default exchange.
    pub(crate) async fn direct_publisher(self: &Arc<Self>) -> Result<Publisher, OpenError> {
        if let Some(publisher) = self.direct.lock().clone() {
            return Ok(publisher);
        }
        let opened =
            PublisherBuilder::new(self.clone(), None, String::new()).persistent(false).open().await?;
        // Another caller may have been faster; the second publisher then goes as it came.
        Ok(self.direct.lock().get_or_insert(opened).clone())
    }
}
