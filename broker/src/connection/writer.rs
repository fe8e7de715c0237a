//! Outbox -> socket: one write a batch.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use leveret_protocol::{Deliver, DeliverParts, FrameWriter, Keys, kind};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;

use super::outbox::{Outbox, Outgoing};
use crate::channel::ConfirmRuns;
use crate::queue::Delivery;
use crate::store::Store;

/// Everything that a batch encodes to is written once this much is there, in bytes.
const WRITE_BYTES_AIM: usize = 256 * 1024;

/// A client that takes nothing for this long is gone, or might as well be.
const STALL_MAX: Duration = Duration::from_secs(60);

/// The writing side of a connection.
pub(super) struct Writer<W> {
    pub(super) socket: W,
    pub(super) outbox: Arc<Outbox>,
    pub(super) store: Arc<Store>,
    /// Something is sent at least this often, if at all.
    pub(super) heartbeat: Option<Duration>,
    /// The largest payload that the client takes, in bytes.
    pub(super) frame_bytes_max: usize,
    /// Rung when consumers that were passed over can get deliveries again.
    pub(super) resume: Arc<Notify>,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    /// Sends what the outbox gets, until it ends or the client cannot be reached any more.
    pub(super) async fn run(mut self) -> std::io::Result<()> {
        let mut progress = self.store.progress();
        let mut batch = Vec::new();
        let mut buffer = BytesMut::new();
        loop {
            progress.mark_unchanged();
            let left = self.outbox.take(self.store.synced(), &mut batch);
            if !batch.is_empty() {
                self.send(&mut batch, &mut buffer).await?;
                continue;
            }
            let failed = progress.borrow().failure.is_some();
            if left.ending && (!left.waiting || failed) {
                return self.socket.shutdown().await;
            }
            // An idle connection keeps no buffers.
            (batch, buffer) = (Vec::new(), BytesMut::new());
            let idle = self.heartbeat.unwrap_or(Duration::MAX) / 2;
            tokio::select! {
                () = self.outbox.rung() => {}
                _ = progress.changed(), if left.waiting && !failed => {}
                () = tokio::time::sleep(idle) => {
                    FrameWriter::begin(&mut buffer, kind::HEARTBEAT, 0, 0).end();
                    self.write(&mut buffer).await?;
                }
            }
        }
    }

    async fn send(&mut self, batch: &mut Vec<Outgoing>, buffer: &mut BytesMut) -> std::io::Result<()> {
        let mut delivered = 0;
        let mut answered = 0;
        let mut confirms = ConfirmRuns::default();
        for outgoing in batch.drain(..) {
            answered += outgoing.answer_bytes();
            match outgoing {
                Outgoing::Confirm(channel, confirm) => confirms.merge(channel, confirm),
                Outgoing::Frame(frame) => {
                    flush_confirms(&mut confirms, buffer);
                    buffer.extend_from_slice(&frame);
                }
                Outgoing::Deliver { channel, consumer, delivery } => {
                    delivered += delivery.weight();
                    let start = buffer.len();
                    if encode_delivery(channel, consumer, &delivery, buffer) > self.frame_bytes_max {
                        buffer.truncate(start);
                        self.outbox.does_not_fit(channel, consumer, delivery.tag);
                        self.resume.notify_one();
                    }
                }
            }
            if buffer.len() >= WRITE_BYTES_AIM {
                self.write(buffer).await?;
                self.account(&mut delivered, &mut answered);
            }
        }
        flush_confirms(&mut confirms, buffer);
        self.write(buffer).await?;
        self.account(&mut delivered, &mut answered);
        Ok(())
    }

    fn account(&self, delivered: &mut usize, answered: &mut usize) {
        if *delivered > 0 && self.outbox.outlet.sub(std::mem::take(delivered)) {
            self.resume.notify_one();
        }
        self.outbox.sent(std::mem::take(answered));
    }

    async fn write(&mut self, buffer: &mut BytesMut) -> std::io::Result<()> {
        while !buffer.is_empty() {
            // For each piece and not for all: a slow client that reads is not one that stalls.
            match tokio::time::timeout(STALL_MAX, self.socket.write_buf(buffer)).await {
                Ok(Ok(0)) => return Err(std::io::ErrorKind::WriteZero.into()),
                Ok(written) => drop(written?),
                Err(_) => return Err(std::io::ErrorKind::TimedOut.into()),
            }
        }
        Ok(())
    }
}

fn flush_confirms(confirms: &mut ConfirmRuns, buffer: &mut BytesMut) {
    let mut runs = confirms.drain().peekable();
    while let Some((channel, first)) = runs.next() {
        let mut of_channel = vec![first];
        of_channel
            .extend(std::iter::from_fn(|| runs.next_if(|(other, _)| *other == channel)).map(|(_, run)| run));
        leveret_protocol::Confirm::encode(&of_channel, channel, buffer);
    }
}

/// Appends a deliver frame; gives its payload's length.
pub(super) fn encode_delivery(
    channel: u16,
    consumer: u32,
    delivery: &Delivery,
    buffer: &mut BytesMut,
) -> usize {
    let message = &*delivery.message;
    let deaths = message.deaths.as_ref().and_then(|deaths| deaths.encode().ok()).unwrap_or_default();
    let deliver = Deliver {
        consumer,
        tag: delivery.tag,
        redelivered: delivery.redelivered.then_some(delivery.delivery_count),
        persistent: message.persistent,
        priority: (message.priority > 0).then_some(message.priority),
        ttl_ms: message.ttl_ms,
        published_at_ms: message.published_at_ms,
        exchange: message.exchange.as_str(),
        routing_key: message.routing_key.as_str(),
        cc: Keys::default(),
        deaths: &deaths,
        properties: &message.properties,
        body: &message.body,
    };
    let cc = message.cc.iter().map(leveret_protocol::RoutingKey::as_str);
    DeliverParts { deliver, cc }.encode(channel, buffer)
}
