//! The pieces that methods and headers are laid out from: big-endian integers, packed bits, short and long strings,
//! tables.

use bytes::{BufMut, BytesMut};

use super::table::{FieldTable, TableError};
use crate::layout::put_short_string;

/// Why a field cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the field {field} {problem}")]
pub struct FieldError {
    /// The field, by its name in the code; AMQP's, with underscores.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: FieldProblem,
}

/// What can be wrong with a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FieldProblem {
    /// The payload ends inside it.
    #[error("is cut")]
    Cut,
    /// A name that is not text.
    #[error("is not UTF-8")]
    NotUtf8,
    /// A table that cannot be read.
    #[error("is not a table: {0}")]
    Table(#[from] TableError),
}

impl FieldProblem {
    pub(crate) fn of(self, field: &'static str) -> FieldError {
        FieldError { field, problem: self }
    }
}

/// Reads fields off the front of a payload, in place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FieldReader<'a> {
    rest: &'a [u8],
    /// The octet that packed bits come from.
    octet: u8,
    /// How many bits of it have not been read. Any other field begins a new octet.
    bits_left: u8,
}

impl<'a> FieldReader<'a> {
    pub(crate) fn new(rest: &'a [u8]) -> Self {
        Self { rest, octet: 0, bits_left: 0 }
    }

    /// What has not been read.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], FieldProblem> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(FieldProblem::Cut)?;
        self.rest = rest;
        self.bits_left = 0;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], FieldProblem> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(FieldProblem::Cut)?;
        self.rest = rest;
        self.bits_left = 0;
        Ok(*taken)
    }

    fn bit(&mut self) -> Result<bool, FieldProblem> {
        if self.bits_left == 0 {
            [self.octet] = self.array()?;
            self.bits_left = 8;
        }
        let bit = self.octet & 1 != 0;
        self.octet >>= 1;
        self.bits_left -= 1;
        Ok(bit)
    }

    /// One length byte and that many bytes.
    pub(crate) fn short_bytes(&mut self) -> Result<&'a [u8], FieldProblem> {
        let [length] = self.array()?;
        self.take(usize::from(length))
    }

    /// A four-byte length and that many bytes. The length is checked against what is there, so nothing is allocated
    /// for it.
    pub(crate) fn long_bytes(&mut self) -> Result<&'a [u8], FieldProblem> {
        let length = u32::from_be_bytes(self.array()?);
        self.take(length as usize)
    }
}

/// Appends fields to a buffer.
#[derive(Debug)]
pub(crate) struct FieldWriter<'o> {
    out: &'o mut BytesMut,
    octet: u8,
    bits: u8,
}

impl<'o> FieldWriter<'o> {
    pub(crate) fn new(out: &'o mut BytesMut) -> Self {
        Self { out, octet: 0, bits: 0 }
    }

    fn bit(&mut self, bit: bool) {
        if self.bits == 8 {
            self.end_bits();
        }
        self.octet |= u8::from(bit) << self.bits;
        self.bits += 1;
    }

    /// Where anything but a bit goes.
    fn out(&mut self) -> &mut BytesMut {
        self.end_bits();
        self.out
    }

    fn end_bits(&mut self) {
        if self.bits > 0 {
            self.out.put_u8(self.octet);
            (self.octet, self.bits) = (0, 0);
        }
    }

    /// Writes bits that are still held back.
    pub(crate) fn finish(mut self) {
        self.end_bits();
    }
}

pub(crate) fn put_long_bytes(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u32(bytes.len() as u32);
    out.put_slice(bytes);
}

/// At most 255 bytes: a longer value is cut, which keeps the frame whole. What may be longer is checked before.
pub(crate) fn put_short_bytes(out: &mut BytesMut, bytes: &[u8]) {
    let short = bytes.get(..usize::from(u8::MAX)).unwrap_or(bytes);
    out.put_u8(short.len() as u8);
    out.put_slice(short);
}

/// A type that a method's field can have.
pub(crate) trait Field<'a>: Sized {
    fn read(reader: &mut FieldReader<'a>) -> Result<Self, FieldProblem>;
    fn write(&self, writer: &mut FieldWriter<'_>);
}

macro_rules! integer_fields {
    ($($integer:ty),*) => {$(
        impl<'a> Field<'a> for $integer {
            fn read(reader: &mut FieldReader<'a>) -> Result<Self, FieldProblem> {
                reader.array().map(Self::from_be_bytes)
            }

            fn write(&self, writer: &mut FieldWriter<'_>) {
                writer.out().put_slice(&self.to_be_bytes());
            }
        }
    )*};
}

integer_fields!(u8, u16, u32, u64);

/// A bit; neighbours share an octet, the first in its lowest bit.
impl<'a> Field<'a> for bool {
    fn read(reader: &mut FieldReader<'a>) -> Result<Self, FieldProblem> {
        reader.bit()
    }

    fn write(&self, writer: &mut FieldWriter<'_>) {
        writer.bit(*self);
    }
}

/// A short string. Names are text: RabbitMQ refuses others in methods too.
impl<'a> Field<'a> for &'a str {
    fn read(reader: &mut FieldReader<'a>) -> Result<Self, FieldProblem> {
        std::str::from_utf8(reader.short_bytes()?).map_err(|_| FieldProblem::NotUtf8)
    }

    fn write(&self, writer: &mut FieldWriter<'_>) {
        put_short_string(writer.out(), self);
    }
}

/// A long string, which may be any bytes.
impl<'a> Field<'a> for &'a [u8] {
    fn read(reader: &mut FieldReader<'a>) -> Result<Self, FieldProblem> {
        reader.long_bytes()
    }

    fn write(&self, writer: &mut FieldWriter<'_>) {
        put_long_bytes(writer.out(), self);
    }
}

impl<'a> Field<'a> for FieldTable<'a> {
    fn read(reader: &mut FieldReader<'a>) -> Result<Self, FieldProblem> {
        Ok(FieldTable::parse(reader.long_bytes()?)?)
    }

    fn write(&self, writer: &mut FieldWriter<'_>) {
        put_long_bytes(writer.out(), self.as_bytes());
    }
}
