//! Frames: seven bytes of head, the payload, and one byte that must be 0xCE.
//!
//! | offset | size | field                                    |
//! |--------|------|------------------------------------------|
//! | 0      | 1    | kind                                     |
//! | 1      | 2    | channel, big-endian; 0 is the connection |
//! | 3      | 4    | length of the payload, big-endian        |
//! | 7      | n    | payload                                  |
//! | 7 + n  | 1    | 0xCE                                     |

use std::ops::Range;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::methods::Method;
use crate::codes::ReplyCode;

/// What a frame needs beside its payload, in bytes. The negotiated `frame_max` counts it in.
pub const FRAME_OVERHEAD_BYTES: usize = HEAD_BYTES + 1;

/// The least `frame_max` that may be negotiated.
pub const FRAME_MAX_MIN: u32 = 4096;

pub(super) const HEAD_BYTES: usize = 7;
/// The last byte of every frame.
pub const FRAME_END: u8 = 0xCE;

/// How much room for a large frame is made at a time, so that a head that promises much costs nothing until the bytes
/// come.
const GROWTH_BYTES: usize = 256 * 1024;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameKind {
    /// A [`Method`].
    Method = 1,
    /// A [`super::ContentHeader`].
    Header = 2,
    /// A piece of a body.
    Body = 3,
    /// A sign of life: channel 0 and no payload.
    Heartbeat = 8,
}

impl FrameKind {
    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Method, Self::Header, Self::Body, Self::Heartbeat].into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What the payload is.
    pub kind: FrameKind,
    /// The channel; 0 is the connection itself.
    pub channel: u16,
    /// The payload.
    pub payload: Bytes,
}

/// Why bytes are not a frame. Nothing behind them can be read: the connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// A byte that stands for no kind of frame.
    #[error("there is no frame of type {0}")]
    UnknownKind(u8),
    /// The length exceeds what was agreed on.
    #[error("a frame with {length} bytes of payload exceeds the limit of {limit} bytes")]
    TooLarge {
        /// What the head says.
        length: usize,
        /// What is allowed at this point.
        limit: usize,
    },
    /// The byte behind the payload is not 0xCE: the peer has lost count.
    #[error("a frame ends with {0:#04x} instead of 0xCE")]
    WrongEnd(u8),
    /// A heartbeat with a payload or a channel.
    #[error("a heartbeat belongs to channel 0 and has no payload")]
    WrongHeartbeat,
}

impl FrameError {
    /// The code to close the connection with: 501 for all of them.
    pub fn reply_code(self) -> ReplyCode {
        ReplyCode::FrameError
    }
}

impl Frame {
    /// Takes the next whole frame off the front of `buffer`; `None` if more bytes must come first.
    ///
    /// Kind and length are checked as soon as the head is there, before anything is allocated. `frame_max` is what was
    /// negotiated, with the [`FRAME_OVERHEAD_BYTES`] in it, and never 0 (AMQP's "no limit" must have become one).
    pub fn decode(buffer: &mut BytesMut, frame_max: usize) -> Result<Option<Self>, FrameError> {
        let Some(&[kind, c0, c1, l0, l1, l2, l3]) = buffer.first_chunk::<HEAD_BYTES>() else {
            return Ok(None);
        };
        let kind = FrameKind::from_byte(kind).ok_or(FrameError::UnknownKind(kind))?;
        let channel = u16::from_be_bytes([c0, c1]);
        let length = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
        if kind == FrameKind::Heartbeat && (channel, length) != (0, 0) {
            return Err(FrameError::WrongHeartbeat);
        }
        let limit = frame_max.saturating_sub(FRAME_OVERHEAD_BYTES);
        if length > limit {
            return Err(FrameError::TooLarge { length, limit });
        }
        let Some(end) = buffer.get(HEAD_BYTES + length).copied() else {
            let missing = FRAME_OVERHEAD_BYTES + length - buffer.len();
            buffer.reserve(missing.min(GROWTH_BYTES));
            return Ok(None);
        };
        if end != FRAME_END {
            return Err(FrameError::WrongEnd(end));
        }
        buffer.advance(HEAD_BYTES);
        let payload = buffer.split_to(length).freeze();
        buffer.advance(1);
        Ok(Some(Self { kind, channel, payload }))
    }

    /// Appends the frame.
    pub fn encode(&self, out: &mut BytesMut) {
        put_frame(out, self.kind, self.channel, |out| out.put_slice(&self.payload));
    }
}

/// Appends a method frame.
pub fn put_method<'a>(out: &mut BytesMut, channel: u16, method: impl Into<Method<'a>>) {
    let method = method.into();
    put_frame(out, FrameKind::Method, channel, |out| method.encode(out));
}

/// Appends a content header frame. `properties` are encoded ones, flags included (see [`super::BasicProperties`]). It is
/// one frame, whatever its length: AMQP cannot split it.
pub fn put_header(out: &mut BytesMut, channel: u16, body_size: u64, properties: &[u8]) {
    put_frame(out, FrameKind::Header, channel, |out| {
        super::content::put_content_header(out, body_size, properties);
    });
}

/// Appends as many body frames as `frame_max` asks for; none for an empty body. A `frame_max` of 0 is no limit.
pub fn put_body(out: &mut BytesMut, channel: u16, frame_max: usize, body: &[u8]) {
    out.reserve(framed_body_bytes(frame_max, body));
    for (head, part) in body_frames(channel, frame_max, body.len()) {
        out.put_slice(&head);
        out.put_slice(body.get(part).unwrap_or_default());
        out.put_u8(FRAME_END);
    }
}

/// The frames of a body of that length: of each what comes before its part of the body, and which part that is. Behind it
/// comes [`FRAME_END`].
pub fn body_frames(
    channel: u16,
    frame_max: usize,
    body_bytes: usize,
) -> impl Iterator<Item = ([u8; HEAD_BYTES], Range<usize>)> {
    let [c0, c1] = channel.to_be_bytes();
    let piece_bytes = piece_bytes(frame_max);
    (0..body_bytes).step_by(piece_bytes).map(move |start| {
        let part = start..body_bytes.min(start.saturating_add(piece_bytes));
        let [l0, l1, l2, l3] = (part.len() as u32).to_be_bytes();
        ([FrameKind::Body as u8, c0, c1, l0, l1, l2, l3], part)
    })
}

/// What a body takes in frames, in bytes.
pub(super) fn framed_body_bytes(frame_max: usize, body: &[u8]) -> usize {
    body.len() + FRAME_OVERHEAD_BYTES * body.len().div_ceil(piece_bytes(frame_max))
}

/// How much of a body one frame takes.
fn piece_bytes(frame_max: usize) -> usize {
    match frame_max.saturating_sub(FRAME_OVERHEAD_BYTES) {
        0 => u32::MAX as usize,
        limit => limit,
    }
}

/// Appends a heartbeat.
pub fn put_heartbeat(out: &mut BytesMut) {
    put_frame(out, FrameKind::Heartbeat, 0, |_| {});
}

fn put_frame(out: &mut BytesMut, kind: FrameKind, channel: u16, payload: impl FnOnce(&mut BytesMut)) {
    out.put_u8(kind as u8);
    out.put_u16(channel);
    super::table_writer::put_sized(out, payload);
    out.put_u8(FRAME_END);
}
