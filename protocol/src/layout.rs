//! The pieces that data frames are laid out from: little-endian integers, short strings, blobs.

use bytes::{BufMut, BytesMut};

use crate::name::{NAME_BYTES_MAX, floor_char_boundary};

/// Why a data frame cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The payload ends too early.
    #[error("a {frame} frame that ends inside its {field}")]
    Truncated {
        /// The frame's name.
        frame: &'static str,
        /// The field that is cut.
        field: &'static str,
    },
    /// Something follows where nothing may.
    #[error("a {frame} frame with {bytes} bytes too many")]
    Overlong {
        /// The frame's name.
        frame: &'static str,
        /// How many.
        bytes: usize,
    },
    /// A field holds what it cannot hold.
    #[error("a {frame} frame whose {field} is not {expected}")]
    Invalid {
        /// The frame's name.
        frame: &'static str,
        /// The field.
        field: &'static str,
        /// What it should be.
        expected: &'static str,
    },
}

/// Names are checked to be at most 255 bytes where they enter (see `crate::name`), notes are not; the cut keeps the
/// frame whole, and it is between characters, since half of one would cost the sender its connection.
pub(crate) fn put_short_string(out: &mut BytesMut, text: &str) {
    let length = floor_char_boundary(text, NAME_BYTES_MAX);
    out.put_u8(length as u8);
    out.put_slice(text.as_bytes().get(..length).unwrap_or_default());
}

pub(crate) fn put_blob(out: &mut BytesMut, blob: &[u8]) {
    out.put_u32_le(blob.len() as u32);
    out.put_slice(blob);
}

pub(crate) fn le_u16(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |chunk| u16::from_le_bytes(*chunk))
}

pub(crate) fn le_u32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |chunk| u32::from_le_bytes(*chunk))
}

pub(crate) fn le_u64(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |chunk| u64::from_le_bytes(*chunk))
}

/// Reads fields off the front of a payload and names the one that is cut.
pub(crate) struct Reader<'a> {
    /// For errors.
    pub(crate) frame: &'static str,
    /// What has not been read.
    pub(crate) rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize, field: &'static str) -> Result<&'a [u8], DataError> {
        let (taken, rest) =
            self.rest.split_at_checked(length).ok_or(DataError::Truncated { frame: self.frame, field })?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, DataError> {
        self.take(1, field).map(|bytes| bytes.first().copied().unwrap_or_default())
    }

    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, DataError> {
        self.take(2, field).map(|bytes| le_u16(bytes, 0))
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, DataError> {
        self.take(4, field).map(|bytes| le_u32(bytes, 0))
    }

    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64, DataError> {
        self.take(8, field).map(|bytes| le_u64(bytes, 0))
    }

    pub(crate) fn short_string(&mut self, field: &'static str) -> Result<&'a str, DataError> {
        let length = self.u8(field)?;
        let bytes = self.take(usize::from(length), field)?;
        std::str::from_utf8(bytes).map_err(|_| self.invalid(field, "UTF-8"))
    }

    pub(crate) fn blob(&mut self, field: &'static str) -> Result<&'a [u8], DataError> {
        let length = self.u32(field)?;
        self.take(length as usize, field)
    }

    pub(crate) fn check_flags(&self, flags: u8, known: u8) -> Result<(), DataError> {
        if flags & !known == 0 { Ok(()) } else { Err(self.invalid("flags", "known to this version")) }
    }

    pub(crate) fn finish(&self) -> Result<(), DataError> {
        match self.rest.len() {
            0 => Ok(()),
            bytes => Err(DataError::Overlong { frame: self.frame, bytes }),
        }
    }

    pub(crate) fn invalid(&self, field: &'static str, expected: &'static str) -> DataError {
        DataError::Invalid { frame: self.frame, field, expected }
    }
}
