//! The frames of one channel, put together: a method, or a method's content from its header and body frames.

use bytes::{Bytes, BytesMut};

use super::content::{ContentError, ContentHeader};
use super::frame::{Frame, FrameKind};
use super::methods::basic;
use crate::codes::{Closes, ReplyCode};

/// How much room for a body is made before its bytes come: its size is only the peer's word.
const BODY_ROOM_BYTES: usize = 64 * 1024;

/// A message's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// The properties: flags and fields, checked.
    pub properties: Bytes,
    /// The body. If it came in one frame it is a part of the read buffer, as the properties are if there is no body at
    /// all. A part keeps the whole buffer alive: who keeps the message copies it.
    pub body: Bytes,
}

/// What a frame made whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Assembled {
    /// A method's payload. If the method [has content](super::Method::has_content), [`Assembler::expect_content`] must
    /// be called before the next frame.
    Method(Bytes),
    /// The content of the method that came before.
    Content(Content),
    /// Nothing yet.
    Incomplete,
}

/// Why a frame cannot be taken. The words are RabbitMQ's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AssemblyError {
    /// A content frame that no method announced.
    #[error("expected method frame, got non method frame instead")]
    ExpectedMethod,
    /// No content header behind a method that has content.
    #[error("expected content header for class {}, got non content header frame instead", basic::CLASS_ID)]
    ExpectedHeader,
    /// A content header of another class.
    #[error("expected content header for class {expected}, got one for class {class_id} instead", expected = basic::CLASS_ID)]
    OtherClass {
        /// The class that the header names.
        class_id: u16,
    },
    /// Something else before the body is complete.
    #[error("expected content body, got non content body frame instead")]
    ExpectedBody,
    /// More body than the header said.
    #[error("content body frame exceeds remaining content size")]
    BodyTooLong,
    /// A message that is larger than allowed. The channel closes; its body frames come all the same and are to be
    /// thrown away.
    #[error("message size {size} is larger than configured max size {limit}")]
    MessageTooLarge {
        /// What the header says.
        size: u64,
        /// What is allowed.
        limit: u64,
    },
    /// A content header that cannot be read.
    #[error(transparent)]
    Header(#[from] ContentError),
}

impl AssemblyError {
    /// The code to close with.
    pub fn reply_code(&self) -> ReplyCode {
        match self {
            Self::ExpectedMethod | Self::ExpectedHeader | Self::OtherClass { .. } | Self::ExpectedBody => {
                ReplyCode::UnexpectedFrame
            }
            Self::BodyTooLong => ReplyCode::FrameError,
            Self::MessageTooLarge { .. } => ReplyCode::PreconditionFailed,
            Self::Header(error) => error.reply_code(),
        }
    }

    /// What closes: the channel for a message that is too large, else the connection.
    pub fn closes(&self) -> Closes {
        match self {
            Self::MessageTooLarge { .. } => Closes::Channel,
            _ => Closes::Connection,
        }
    }
}

/// Puts the frames of one channel together. After an error it expects a method again.
#[derive(Debug, Default)]
pub struct Assembler {
    expects: Expects,
}

#[derive(Debug, Default)]
enum Expects {
    #[default]
    Method,
    Header,
    Body {
        properties: Bytes,
        /// How many bytes are missing; at least 1.
        missing: u64,
        gathered: BytesMut,
    },
}

impl Assembler {
    /// Says that the method which came last has content.
    pub fn expect_content(&mut self) {
        self.expects = Expects::Header;
    }

    /// Whether it is between two messages.
    pub fn is_idle(&self) -> bool {
        matches!(self.expects, Expects::Method)
    }

    /// How many bytes of an unfinished message are held, so that whoever has many channels can bound their sum.
    pub fn held_bytes(&self) -> usize {
        match &self.expects {
            Expects::Body { properties, gathered, .. } => properties.len() + gathered.len(),
            Expects::Method | Expects::Header => 0,
        }
    }

    /// Takes the channel's next frame. `body_bytes_max` is the largest body that is allowed.
    pub fn accept(&mut self, frame: Frame, body_bytes_max: u64) -> Result<Assembled, AssemblyError> {
        match (std::mem::take(&mut self.expects), frame.kind) {
            (Expects::Method, FrameKind::Method) => Ok(Assembled::Method(frame.payload)),
            (Expects::Method, _) => Err(AssemblyError::ExpectedMethod),
            (Expects::Header, FrameKind::Header) => self.begin(&frame.payload, body_bytes_max),
            (Expects::Header, _) => Err(AssemblyError::ExpectedHeader),
            (Expects::Body { properties, missing, gathered }, FrameKind::Body) => {
                self.add(properties, missing, gathered, frame.payload)
            }
            (Expects::Body { .. }, _) => Err(AssemblyError::ExpectedBody),
        }
    }

    fn begin(&mut self, payload: &Bytes, body_bytes_max: u64) -> Result<Assembled, AssemblyError> {
        let ContentHeader { class_id, body_size, properties } = ContentHeader::decode(payload)?;
        if class_id != basic::CLASS_ID {
            return Err(AssemblyError::OtherClass { class_id });
        }
        if body_size > body_bytes_max {
            return Err(AssemblyError::MessageTooLarge { size: body_size, limit: body_bytes_max });
        }
        if body_size == 0 {
            return Ok(Assembled::Content(Content { properties, body: Bytes::new() }));
        }
        // A copy, because a slice would keep the read buffer alive for as long as the peer takes over the body: with a
        // header on each of a thousand channels, a thousand buffers.
        let properties = Bytes::copy_from_slice(&properties);
        self.expects = Expects::Body { properties, missing: body_size, gathered: BytesMut::new() };
        Ok(Assembled::Incomplete)
    }

    fn add(
        &mut self,
        properties: Bytes,
        missing: u64,
        mut gathered: BytesMut,
        piece: Bytes,
    ) -> Result<Assembled, AssemblyError> {
        let left = missing.checked_sub(piece.len() as u64).ok_or(AssemblyError::BodyTooLong)?;
        if left == 0 && gathered.is_empty() {
            return Ok(Assembled::Content(Content { properties, body: piece }));
        }
        if gathered.is_empty() {
            gathered.reserve(usize::try_from(missing).unwrap_or(usize::MAX).min(BODY_ROOM_BYTES));
        }
        gathered.extend_from_slice(&piece);
        if left == 0 {
            return Ok(Assembled::Content(Content { properties, body: gathered.freeze() }));
        }
        self.expects = Expects::Body { properties, missing: left, gathered };
        Ok(Assembled::Incomplete)
    }
}
