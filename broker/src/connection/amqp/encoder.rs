//! Outbox -> AMQP frames.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::BytesMut;
use leveret_protocol::Outcome;
use leveret_protocol::amqp::{
    self, Envelope, FRAME_END, FRAME_OVERHEAD_BYTES, NO_PROPERTIES, basic, body_frames, put_body,
    put_deliver, put_header, put_heartbeat, put_method,
};

use super::super::gather::Gather;
use super::super::protocol::{Encoder, Unfit};
use super::get::GetOk;
use super::ledger::Place;
use super::{Amqp, Consumer};
use crate::channel::ConfirmRuns;
use crate::queue::Delivery;
use crate::store::Message;

/// A content header's class, weight and body size, in bytes.
const HEADER_FIXED_BYTES: usize = 12;

/// Outbox -> AMQP frames.
pub(in super::super) struct AmqpEncoder {
    /// The largest frame that the client takes, its overhead included, in bytes.
    pub(super) frame_bytes_max: usize,
}

impl Encoder<Amqp> for AmqpEncoder {
    fn deliver(
        &mut self,
        consumer: &Arc<Consumer>,
        delivery: &Delivery,
        out: &mut Gather,
    ) -> Result<(), Unfit> {
        let Consumer { channel, number, .. } = **consumer;
        let properties = properties(delivery);
        if !fits(&properties, self.frame_bytes_max) {
            return Err(Unfit { channel, consumer: number, tag: delivery.tag });
        }
        let place = Place { consumer: number, tag: delivery.tag };
        let deliver = basic::Deliver {
            consumer_tag: &consumer.tag,
            delivery_tag: consumer.ledger.give((!consumer.no_ack).then_some(place)),
            redelivered: delivery.redelivered,
            exchange: delivery.message.exchange().as_str(),
            routing_key: delivery.message.routing_key().as_str(),
        };
        let body_bytes = delivery.message.body().len();
        put_deliver(&mut out.bytes, channel, &deliver, &properties, body_bytes as u64);
        for (head, part) in body_frames(channel, self.frame_bytes_max, body_bytes) {
            out.bytes.extend_from_slice(&head);
            out.put_body(&delivery.message, part);
            out.bytes.extend_from_slice(&[FRAME_END]);
        }
        Ok(())
    }

    fn late(&mut self, late: GetOk, buffer: &mut BytesMut) {
        let GetOk { channel, ledger, place, delivery, ready_left } = late;
        let get_ok = basic::GetOk {
            delivery_tag: ledger.give(place),
            redelivered: delivery.redelivered,
            exchange: delivery.message.exchange().as_str(),
            routing_key: delivery.message.routing_key().as_str(),
            message_count: u32::try_from(ready_left).unwrap_or(u32::MAX),
        };
        put_method(buffer, channel, get_ok);
        put_content(buffer, channel, self.frame_bytes_max, &properties(&delivery), delivery.message.body());
    }

    fn confirms(&mut self, runs: &mut ConfirmRuns, buffer: &mut BytesMut) {
        let mut runs = runs.drain().peekable();
        while let Some((channel, mut run)) = runs.next() {
            let taken = |outcome| !matches!(outcome, Outcome::Refused(_));
            while let Some((_, next)) =
                runs.next_if(|(other, next)| *other == channel && taken(next.outcome) == taken(run.outcome))
            {
                run.count = run.count.saturating_add(next.count);
            }
            let delivery_tag = run.first + u64::from(run.count) - 1;
            // Answers keep their order, so everything before the run has had its confirm.
            let multiple = run.count > 1;
            if taken(run.outcome) {
                put_method(buffer, channel, basic::Ack { delivery_tag, multiple });
            } else {
                put_method(buffer, channel, basic::Nack { delivery_tag, multiple, requeue: false });
            }
        }
    }

    fn heartbeat(&mut self, buffer: &mut BytesMut) {
        put_heartbeat(buffer);
    }
}

/// Appends header and body.
pub(super) fn put_content(
    buffer: &mut BytesMut,
    channel: u16,
    frame_bytes_max: usize,
    properties: &[u8],
    body: &[u8],
) {
    put_header(buffer, channel, body.len() as u64, properties);
    put_body(buffer, channel, frame_bytes_max, body);
}

/// Whether these properties fit into the one frame that they may take.
pub(super) fn fits(properties: &[u8], frame_bytes_max: usize) -> bool {
    FRAME_OVERHEAD_BYTES + HEADER_FIXED_BYTES + properties.len() <= frame_bytes_max
}

/// The properties as a consumer gets them: as they came, unless the broker has something to add.
pub(super) fn properties(delivery: &Delivery) -> Cow<'_, [u8]> {
    message_properties(&delivery.message, delivery.delivery_count)
}

/// As [`properties`], of a message so many of whose deliveries have failed.
pub(super) fn message_properties(message: &Message, delivery_count: u32) -> Cow<'_, [u8]> {
    let count = [("x-delivery-count", i64::from(delivery_count).into())];
    let envelope = Envelope {
        persistent: message.persistent,
        priority: message.priority,
        ttl_ms: message.ttl_ms,
        cc: message.cc(),
        deaths: message.deaths(),
        headers: if delivery_count > 0 { &count } else { &[] },
    };
    amqp::to_amqp(message.properties_format, message.properties(), &envelope).unwrap_or_else(|error| {
        // Both were checked when they came. A message without its properties is better than none.
        tracing::error!(%error, "properties could not be converted");
        Cow::Borrowed(NO_PROPERTIES)
    })
}
