//! Publishes all of whose frames are there, acknowledgements and deliveries: what most frames are about, read and written
//! in one go.
//!
//! Nothing here decides anything. What is not just as expected is left to [`super::Frame`] and [`super::Assembler`], who
//! find out what is missing or wrong; and what is written is what the `put_` functions write.

use bytes::{BufMut, BytesMut};

use super::frame::{FRAME_END, FRAME_OVERHEAD_BYTES, FrameKind, HEAD_BYTES};
use super::methods::{basic, publish_in};
use crate::name::{NAME_BYTES_MAX, floor_char_boundary};

/// A publish whose method, header and body (none, or one frame) are at the front of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WholePublish<'a> {
    /// The channel.
    pub channel: u16,
    /// The method.
    pub publish: basic::Publish<'a>,
    /// The properties: flags and fields, not looked at; see [`super::BasicProperties::decode`].
    pub properties: &'a [u8],
    /// The body.
    pub body: &'a [u8],
    /// How many bytes of the buffer all of it takes.
    pub bytes: usize,
}

impl<'a> WholePublish<'a> {
    /// Reads the publish at the front of `buffer`, whose channel must be between two messages. `None` for everything that
    /// is not one, is not all there, is in more frames than it need be, or is not right: then its frames are to be taken
    /// one by one. So they are if its properties turn out to be wrong.
    pub fn peek(buffer: &'a [u8], frame_max: usize, body_bytes_max: u64) -> Option<Self> {
        let limit = frame_max.saturating_sub(FRAME_OVERHEAD_BYTES);
        let (channel, payload, rest) = next(buffer, FrameKind::Method, limit)?;
        let publish = publish_in(payload)?;
        let (header_channel, header, mut rest) = next(rest, FrameKind::Header, limit)?;
        let (fixed, properties) = header.split_first_chunk::<12>()?;
        let &[c0, c1, 0, 0, b0, b1, b2, b3, b4, b5, b6, b7] = fixed else { return None };
        let body_size = u64::from_be_bytes([b0, b1, b2, b3, b4, b5, b6, b7]);
        if channel != header_channel
            || u16::from_be_bytes([c0, c1]) != basic::CLASS_ID
            || body_size > body_bytes_max
        {
            return None;
        }
        let mut body: &[u8] = &[];
        if body_size > 0 {
            let body_channel;
            (body_channel, body, rest) = next(rest, FrameKind::Body, limit)?;
            if body_channel != channel || body.len() as u64 != body_size {
                return None;
            }
        }
        let bytes = buffer.len() - rest.len();
        Some(Self { channel, publish, properties, body, bytes })
    }
}

/// What a frame with a `basic.ack` takes, in bytes.
pub const ACK_FRAME_BYTES: usize = FRAME_OVERHEAD_BYTES + 4 + 8 + 1;

/// The `basic.ack` at the front of `buffer` and its channel, if there is one; it takes [`ACK_FRAME_BYTES`].
pub fn peek_ack(buffer: &[u8]) -> Option<(u16, basic::Ack)> {
    let (channel, payload, _) = next(buffer, FrameKind::Method, ACK_FRAME_BYTES - FRAME_OVERHEAD_BYTES)?;
    let &[0, 60, 0, 80, t0, t1, t2, t3, t4, t5, t6, t7, bits] = payload else { return None };
    let delivery_tag = u64::from_be_bytes([t0, t1, t2, t3, t4, t5, t6, t7]);
    Some((channel, basic::Ack { delivery_tag, multiple: bits & 1 != 0 }))
}

/// The frame at the front, if it is of this kind: its channel, its payload, and what follows it.
fn next(buffer: &[u8], kind: FrameKind, limit: usize) -> Option<(u16, &[u8], &[u8])> {
    let (&[found, c0, c1, l0, l1, l2, l3], behind) = buffer.split_first_chunk::<HEAD_BYTES>()?;
    let length = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
    if found != kind as u8 || length > limit {
        return None;
    }
    let (payload, behind) = behind.split_at_checked(length)?;
    let (&end, rest) = behind.split_first()?;
    (end == FRAME_END).then_some((u16::from_be_bytes([c0, c1]), payload, rest))
}

/// Appends a delivery but for its body: the method and its header. As [`super::put_method`] and [`super::put_header`] one
/// after the other.
pub fn put_deliver(
    out: &mut BytesMut,
    channel: u16,
    deliver: &basic::Deliver<'_>,
    properties: &[u8],
    body_bytes: u64,
) {
    let [c0, c1] = channel.to_be_bytes();
    let consumer_tag = short(deliver.consumer_tag);
    let (exchange, routing_key) = (short(deliver.exchange), short(deliver.routing_key));
    // Class, method, three lengths of strings, the tag and the flag.
    let method_bytes = 4 + 3 + 8 + 1 + consumer_tag.len() + exchange.len() + routing_key.len();
    let header_bytes = 12 + properties.len();
    out.reserve(method_bytes + header_bytes + 2 * FRAME_OVERHEAD_BYTES);

    let [l0, l1, l2, l3] = (method_bytes as u32).to_be_bytes();
    let method = FrameKind::Method as u8;
    out.put_slice(&[method, c0, c1, l0, l1, l2, l3, 0, 60, 0, 60, consumer_tag.len() as u8]);
    out.put_slice(consumer_tag);
    let [t0, t1, t2, t3, t4, t5, t6, t7] = deliver.delivery_tag.to_be_bytes();
    let redelivered = u8::from(deliver.redelivered);
    out.put_slice(&[t0, t1, t2, t3, t4, t5, t6, t7, redelivered, exchange.len() as u8]);
    out.put_slice(exchange);
    out.put_u8(routing_key.len() as u8);
    out.put_slice(routing_key);

    let [l0, l1, l2, l3] = (header_bytes as u32).to_be_bytes();
    let [b0, b1, b2, b3, b4, b5, b6, b7] = body_bytes.to_be_bytes();
    let header = FrameKind::Header as u8;
    out.put_slice(&[FRAME_END, header, c0, c1, l0, l1, l2, l3, 0, 60, 0, 0, b0, b1, b2, b3, b4, b5, b6, b7]);
    out.put_slice(properties);
    out.put_u8(FRAME_END);
}

/// As much of a name as fits a short string.
fn short(name: &str) -> &[u8] {
    name.as_bytes().get(..floor_char_boundary(name, NAME_BYTES_MAX)).unwrap_or_default()
}
