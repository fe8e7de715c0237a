//! A message that was handed to a consumer, and what becomes of it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use leveret_protocol::{ControlError, DeathHistory, Properties, Verb};
use serde::de::DeserializeOwned;

use crate::connection::Shared;
use crate::connection::subscription::RawDelivery;
use crate::error::{BodyError, Interruption, ReplyError, SettleError};
use crate::message::Message;
use crate::receipt::Confirmed;

/// A message, on loan: settle it with [`ack`](Self::ack), [`requeue`](Self::requeue), [`release`](Self::release)
/// or [`reject`](Self::reject).
///
/// Settling is a hand-over to the connection's driver that neither waits nor fails. If the connection was lost
/// since the delivery came, the settle is dropped silently: the broker has given the message back to its queue
/// and delivers it again.
///
/// **A delivery that is dropped is requeued**, which counts towards the queue's delivery limit, and is not
/// released, which would not. The usual reasons for a drop are a panic and an early return with `?`, that is, a
/// message that was begun and failed. Uncounted, a message that makes its consumer panic would come back for ever.
/// (Messages that the library holds and has not handed out are released.)
#[must_use = "an unsettled delivery goes back to its queue when dropped"]
pub struct Delivery {
    raw: RawDelivery,
    lease: Arc<Lease>,
    /// Settled, or in need of no settling.
    settled: bool,
}

impl Delivery {
    pub(crate) fn new(raw: RawDelivery, lease: Arc<Lease>, no_ack: bool) -> Self {
        Self { raw, lease, settled: no_ack }
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        self.raw.body()
    }

    /// The body, to be kept longer than the delivery. Nothing is copied.
    pub fn body_bytes(&self) -> Bytes {
        self.raw.body_bytes()
    }

    /// The body read as JSON.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, BodyError> {
        Ok(serde_json::from_slice(self.body())?)
    }

    /// The body read as MessagePack.
    pub fn message_pack<T: DeserializeOwned>(&self) -> Result<T, BodyError> {
        Ok(rmp_serde::from_slice(self.body())?)
    }

    /// The exchange that the message was published to; empty is the default exchange.
    pub fn exchange(&self) -> &str {
        self.raw.fields().exchange
    }

    /// Its routing key.
    pub fn routing_key(&self) -> &str {
        self.raw.fields().routing_key
    }

    /// Its CC keys.
    pub fn cc(&self) -> impl Iterator<Item = &str> {
        self.raw.fields().cc.iter()
    }

    /// What its publisher said about it. Read anew at each call.
    pub fn properties(&self) -> Result<Properties, ControlError> {
        Properties::decode(self.raw.fields().properties)
    }

    /// What happened to it in other queues before it came here, if it is a dead letter.
    pub fn deaths(&self) -> Result<Option<DeathHistory>, ControlError> {
        match self.raw.fields().deaths {
            [] => Ok(None),
            deaths => DeathHistory::decode(deaths).map(Some),
        }
    }

    /// Whether it may have been handed out before.
    pub fn is_redelivered(&self) -> bool {
        self.raw.fields().redelivered.is_some()
    }

    /// How often it came back as failed.
    pub fn failures(&self) -> u32 {
        self.raw.fields().redelivered.unwrap_or_default()
    }

    /// Whether it survives a restart of the broker.
    pub fn is_persistent(&self) -> bool {
        self.raw.fields().persistent
    }

    /// Its priority.
    pub fn priority(&self) -> u8 {
        self.raw.fields().priority.unwrap_or_default()
    }

    /// The time to live that it was published with.
    pub fn ttl(&self) -> Option<Duration> {
        self.raw.fields().ttl_ms.map(Duration::from_millis)
    }

    /// When the broker took it, to the millisecond by the broker's clock.
    pub fn published_at(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.raw.fields().published_at_ms)
    }

    /// Its number among those of its consumer on this connection, from 1; for logs.
    pub fn tag(&self) -> u64 {
        self.raw.tag
    }

    /// Done: the message leaves the queue.
    pub fn ack(mut self) {
        self.settle(Verb::Ack);
    }

    /// Done, and waits until the broker has that on disk, so that the message does not come again even if the
    /// broker's machine fails now. Cancelling the wait does not take the ack back.
    pub async fn ack_durably(mut self) -> Result<(), SettleError> {
        if self.settled {
            return Ok(());
        }
        self.settled = true;
        let shared = &self.lease.shared;
        let settled = shared
            .outbox
            .ack_durably(self.address(), self.raw.incarnation, self.raw.tag)
            .ok_or(SettleError::Stale)?;
        settled.await.unwrap_or(Err(SettleError::OutcomeUnknown(Interruption::Closed)))
    }

    /// It failed: the message goes back to its place in the queue, and that counts towards the queue's delivery
    /// limit. (AMQP's nack with requeue.)
    pub fn requeue(mut self) {
        self.settle(Verb::Requeue);
    }

    /// It was not begun: the message goes back to its place in the queue, and nothing is counted.
    pub fn release(mut self) {
        self.settle(Verb::Release);
    }

    /// Never again: the message goes to the queue's dead-letter exchange, or away if there is none. The reason is
    /// kept in its death history, up to 255 bytes of it. (AMQP's reject, or nack without requeue.)
    pub fn reject(mut self, reason: impl Into<String>) {
        if !self.settled {
            self.settled = true;
            let outbox = &self.lease.shared.outbox;
            outbox.reject(self.address(), self.raw.incarnation, self.raw.tag, reason.into());
        }
    }

    /// Publishes a reply to the queue that the message names in `reply_to`, with its correlation id. The reply is
    /// not persistent unless it says so itself, because the one who waits for it does not survive a restart
    /// either. Settle the delivery afterwards.
    pub async fn reply(&self, reply: impl Into<Message>) -> Result<Confirmed, ReplyError> {
        let properties = self.properties().map_err(|_| ReplyError::NotARequest)?;
        let queue = properties.reply_to.ok_or(ReplyError::NotARequest)?;
        let reply = match properties.correlation_id {
            Some(id) => reply.into().correlation_id(id),
            None => reply.into(),
        };
        let replies = self.lease.shared.direct_publisher().await?;
        Ok(replies.publish(&queue, reply).await?)
    }

    fn settle(&mut self, verb: Verb) {
        if !self.settled {
            self.settled = true;
            self.lease.shared.outbox.settle(self.address(), self.raw.incarnation, self.raw.tag, verb);
        }
    }

    fn address(&self) -> (u16, u32) {
        (self.lease.channel, self.raw.consumer)
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.settle(Verb::Requeue);
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("tag", &self.raw.tag)
            .field("routing_key", &self.routing_key())
            .field("body_bytes", &self.body().len())
            .finish_non_exhaustive()
    }
}

/// Keeps the channel open that deliveries came on, as long as one of them or their consumer is alive: a channel
/// that closes gives unsettled messages back.
pub(crate) struct Lease {
    pub(crate) shared: Arc<Shared>,
    pub(crate) channel: u16,
    /// The control channel is nobody's to close.
    pub(crate) closes: bool,
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.closes {
            self.shared.close_channel(self.channel);
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("channel", &self.channel).finish_non_exhaustive()
    }
}
