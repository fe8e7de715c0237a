//! Frames: a fixed header, then the payload.
//!
//! | offset | size | field                                       |
//! |--------|------|---------------------------------------------|
//! | 0      | 4    | length of the payload in bytes, little-endian |
//! | 4      | 1    | kind                                        |
//! | 5      | 1    | flags, by kind                              |
//! | 6      | 2    | channel, little-endian; 0 is the connection |

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The size of a frame's header in bytes.
pub const HEADER_BYTES: usize = 8;

/// The largest payload before a connection is open, in bytes. Strangers get no more memory than this.
pub const FRAME_BYTES_BEFORE_OPEN: usize = 8 * 1024;

/// The largest payload that a broker accepts unless configured otherwise: a message of 16 MiB with its names.
pub const FRAME_BYTES_DEFAULT: usize = 16 * 1024 * 1024 + 64 * 1024;

/// No peer may negotiate a frame limit below this; declarations must fit.
pub const FRAME_BYTES_MIN: usize = 8 * 1024;

/// How much room for a large frame is made at a time, so that a header that promises 16 MiB costs nothing until
/// the bytes come.
const GROWTH_BYTES: usize = 256 * 1024;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What the payload is: see [`crate::kind`].
    pub kind: u8,
    /// Bits whose meaning depends on the kind.
    pub flags: u8,
    /// The channel; 0 is the connection itself.
    pub channel: u16,
    /// The payload.
    pub payload: Bytes,
}

/// One frame, read where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameRef<'a> {
    /// As of [`Frame`].
    pub kind: u8,
    /// As of [`Frame`].
    pub flags: u8,
    /// As of [`Frame`].
    pub channel: u16,
    /// As of [`Frame`].
    pub payload: &'a [u8],
}

/// A frame's length field exceeds what was agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {length} bytes exceeds the limit of {limit} bytes")]
pub struct FrameTooLarge {
    /// What the header says.
    pub length: usize,
    /// What is allowed at this point.
    pub limit: usize,
}

impl<'a> FrameRef<'a> {
    /// The frame at the front of `bytes`, and what is behind it; `None` if more bytes must come first.
    ///
    /// The length is checked against `payload_bytes_max` before the rest of the frame is there.
    pub fn split_first(
        bytes: &'a [u8],
        payload_bytes_max: usize,
    ) -> Result<Option<(Self, &'a [u8])>, FrameTooLarge> {
        let Some((&[l0, l1, l2, l3, kind, flags, c0, c1], behind)) =
            bytes.split_first_chunk::<HEADER_BYTES>()
        else {
            return Ok(None);
        };
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        if length > payload_bytes_max {
            return Err(FrameTooLarge { length, limit: payload_bytes_max });
        }
        let channel = u16::from_le_bytes([c0, c1]);
        let whole = behind.split_at_checked(length);
        Ok(whole.map(|(payload, behind)| (Self { kind, flags, channel, payload }, behind)))
    }
}

impl Frame {
    /// Takes the next whole frame off the front of `buffer`; `None` if more bytes must come first.
    ///
    /// The length is checked against `payload_bytes_max` before anything is allocated for it.
    pub fn decode(buffer: &mut BytesMut, payload_bytes_max: usize) -> Result<Option<Self>, FrameTooLarge> {
        let Some((frame, _)) = FrameRef::split_first(buffer, payload_bytes_max)? else {
            // With the whole header there its length has been checked.
            if let Some(&[l0, l1, l2, l3, ..]) = buffer.first_chunk::<HEADER_BYTES>() {
                let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
                let missing = (HEADER_BYTES + length).saturating_sub(buffer.len());
                buffer.reserve(missing.min(GROWTH_BYTES));
            }
            return Ok(None);
        };
        let FrameRef { kind, flags, channel, payload } = frame;
        let length = payload.len();
        buffer.advance(HEADER_BYTES);
        let payload = buffer.split_to(length).freeze();
        Ok(Some(Self { kind, flags, channel, payload }))
    }

    /// Appends the frame to `out`.
    pub fn encode(&self, out: &mut BytesMut) {
        let frame = FrameWriter::begin(out, self.kind, self.flags, self.channel);
        frame.out.put_slice(&self.payload);
        frame.end();
    }
}

/// Writes one frame in place: the header first, its length when the payload is there.
#[derive(Debug)]
#[must_use = "a frame without `end` has no length"]
pub struct FrameWriter<'a> {
    /// Where the payload goes.
    pub out: &'a mut BytesMut,
    start: usize,
}

impl<'a> FrameWriter<'a> {
    /// Writes the header of a frame whose payload follows into [`FrameWriter::out`].
    pub fn begin(out: &'a mut BytesMut, kind: u8, flags: u8, channel: u16) -> Self {
        let start = out.len();
        out.put_u32_le(0);
        out.put_u8(kind);
        out.put_u8(flags);
        out.put_u16_le(channel);
        Self { out, start }
    }

    /// Fills the length in. Returns the payload's length in bytes.
    ///
    /// Payloads are built from parts that were checked against the frame limit, which fits 32 bits.
    pub fn end(self) -> usize {
        self.end_before(0)
    }

    /// As [`FrameWriter::end`], of a payload of which so many bytes have yet to come.
    pub fn end_before(self, more: usize) -> usize {
        let length = self.out.len() - self.start - HEADER_BYTES + more;
        if let Some(field) = self.out.get_mut(self.start..self.start + 4) {
            field.copy_from_slice(&(length as u32).to_le_bytes());
        }
        length
    }
}
