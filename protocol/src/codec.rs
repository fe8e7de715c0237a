//! `tokio_util` glue: frames on a byte stream.

use std::io;

use bytes::BytesMut;
use tokio_util::codec::{Decoder, Encoder};

use crate::frame::{FRAME_BYTES_BEFORE_OPEN, Frame};

/// Splits a byte stream into frames.
#[derive(Debug, Clone)]
pub struct FrameCodec {
    /// The largest payload in bytes; set it to what was agreed on when the connection is open.
    pub payload_bytes_max: usize,
}

impl Default for FrameCodec {
    fn default() -> Self {
        Self { payload_bytes_max: FRAME_BYTES_BEFORE_OPEN }
    }
}

impl Decoder for FrameCodec {
    type Item = Frame;
    type Error = io::Error;

    fn decode(&mut self, buffer: &mut BytesMut) -> io::Result<Option<Frame>> {
        Frame::decode(buffer, self.payload_bytes_max)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

impl Encoder<&Frame> for FrameCodec {
    type Error = io::Error;

    fn encode(&mut self, frame: &Frame, out: &mut BytesMut) -> io::Result<()> {
        frame.encode(out);
        Ok(())
    }
}
