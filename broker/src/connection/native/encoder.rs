//! Outbox -> native frames.

use std::borrow::Cow;
use std::convert::Infallible;

use bytes::BytesMut;
use leveret_protocol::{Confirm, Deliver, DeliverParts, FrameWriter, Keys, RoutingKey, amqp, kind};

use super::super::gather::Gather;
use super::super::protocol::{Encoder, Unfit};
use super::{Consumer, Native};
use crate::channel::ConfirmRuns;
use crate::queue::Delivery;

/// Outbox -> native frames.
pub(in super::super) struct NativeEncoder {
    /// The largest payload that the client takes, in bytes.
    pub(super) frame_bytes_max: usize,
}

impl Encoder<Native> for NativeEncoder {
    fn deliver(&mut self, consumer: &Consumer, delivery: &Delivery, out: &mut Gather) -> Result<(), Unfit> {
        let Consumer { channel, number } = *consumer;
        let start = out.bytes.len();
        if encode_before_body(channel, number, delivery, &mut out.bytes) > self.frame_bytes_max {
            out.bytes.truncate(start);
            return Err(Unfit { channel, consumer: number, tag: delivery.tag });
        }
        out.put_body(&delivery.message, 0..delivery.message.body().len());
        Ok(())
    }

    fn late(&mut self, late: Infallible, _: &mut BytesMut) {
        match late {}
    }

    fn confirms(&mut self, runs: &mut ConfirmRuns, buffer: &mut BytesMut) {
        let mut runs = runs.drain().peekable();
        while let Some((channel, first)) = runs.next() {
            let mut of_channel = vec![first];
            of_channel.extend(
                std::iter::from_fn(|| runs.next_if(|(other, _)| *other == channel)).map(|(_, run)| run),
            );
            Confirm::encode(&of_channel, channel, buffer);
        }
    }

    fn heartbeat(&mut self, buffer: &mut BytesMut) {
        FrameWriter::begin(buffer, kind::HEARTBEAT, 0, 0).end();
    }
}

/// Appends a deliver frame; gives its payload's length.
pub(super) fn encode_delivery(
    channel: u16,
    consumer: u32,
    delivery: &Delivery,
    buffer: &mut BytesMut,
) -> usize {
    let length = encode_before_body(channel, consumer, delivery, buffer);
    buffer.extend_from_slice(delivery.message.body());
    length
}

/// As [`encode_delivery`], but for the body.
fn encode_before_body(channel: u16, consumer: u32, delivery: &Delivery, buffer: &mut BytesMut) -> usize {
    let message = &delivery.message;
    let deaths = message.deaths().and_then(|deaths| deaths.encode().ok()).unwrap_or_default();
    let properties =
        amqp::to_native(message.properties_format, message.properties()).unwrap_or_else(|error| {
            // AMQP's were checked when they came, but may be longer in the native form than that has room for.
            tracing::warn!(%error, "a message is delivered without its properties");
            Cow::Borrowed(&[])
        });
    let deliver = Deliver {
        consumer,
        tag: delivery.tag,
        redelivered: delivery.redelivered.then_some(delivery.delivery_count),
        persistent: message.persistent,
        priority: (message.priority > 0).then_some(message.priority),
        ttl_ms: message.ttl_ms,
        published_at_ms: message.published_at_ms,
        exchange: message.exchange().as_str(),
        routing_key: message.routing_key().as_str(),
        cc: Keys::default(),
        deaths: &deaths,
        properties: &properties,
        body: message.body(),
    };
    let cc = message.cc().iter().map(RoutingKey::as_str);
    DeliverParts { deliver, cc }.encode_before_body(channel, buffer)
}
