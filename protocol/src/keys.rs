//! Lists of routing keys in data frames.

use bytes::{BufMut, BytesMut};

use crate::layout::{DataError, Reader, put_short_string};

/// How many CC keys, and how many BCC keys, a message may have.
pub const COPIES_MAX: usize = 64;

/// A list of short strings, read in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Keys<'a> {
    count: u8,
    bytes: &'a [u8],
}

impl<'a> Keys<'a> {
    /// The keys, one after the other.
    pub fn iter(self) -> impl Iterator<Item = &'a str> {
        let mut reader = Reader { frame: "", rest: self.bytes };
        // `Keys::read` walked the list once, so nothing here can fail.
        (0..self.count).map_while(move |_| reader.short_string("key").ok())
    }

    /// How many there are.
    pub fn len(self) -> usize {
        usize::from(self.count)
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.count == 0
    }

    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<Self, DataError> {
        let count = reader.u8("number of keys")?;
        if usize::from(count) > COPIES_MAX {
            return Err(reader.invalid("number of keys", "at most 64"));
        }
        let start = reader.rest;
        for _ in 0..count {
            reader.short_string("key")?;
        }
        let bytes = start.get(..start.len() - reader.rest.len()).unwrap_or_default();
        Ok(Self { count, bytes })
    }
}

/// Appends a list, or as much of it as it may have.
pub(crate) fn put_keys<'a>(out: &mut BytesMut, keys: impl ExactSizeIterator<Item = &'a str>) {
    out.put_u8(keys.len().min(COPIES_MAX) as u8);
    keys.take(COPIES_MAX).for_each(|key| put_short_string(out, key));
}
