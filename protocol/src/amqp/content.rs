//! Content headers: how long the body is, and the message's properties.
//!
//! The properties stay encoded: the broker checks them once, keeps them as bytes and sends them as they came.

use bytes::{BufMut, Bytes, BytesMut};

use super::methods::basic;
use super::table::FieldTable;
use super::wire::{FieldError, FieldProblem, FieldReader, put_long_bytes, put_short_bytes};
use crate::codes::ReplyCode;

/// The properties of a message that has none.
pub const NO_PROPERTIES: &[u8] = &[0, 0];

/// Where the properties begin in a header's payload: behind class, weight and body size.
const PROPERTIES_AT: usize = 12;

/// The two lowest bits of the flags: one that no property has, and one that says that more flags follow. The only
/// class with content has 14 properties, so neither can be set.
const NO_FLAG: u16 = 0b11;

/// A content header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentHeader {
    /// The class of the method that it belongs to; 60 is the only one with content.
    pub class_id: u16,
    /// How many bytes of body follow.
    pub body_size: u64,
    /// The properties: flags and fields, checked. [`BasicProperties::decode`] reads them.
    pub properties: Bytes,
}

/// Why bytes are not a content header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ContentError {
    /// It ends before its properties.
    #[error("a content header that ends before its properties")]
    Cut,
    /// A field that must be 0.
    #[error("a content header with the weight {0} instead of 0")]
    Weight(u16),
    /// Flags of properties that do not exist.
    #[error("property flags {0:#06x} with bits that mean nothing")]
    Flags(u16),
    /// A property that cannot be read.
    #[error("cannot decode the properties: {0}")]
    Malformed(#[from] FieldError),
    /// Something follows where nothing may.
    #[error("{0} bytes too many behind the properties")]
    Overlong(usize),
}

impl ContentError {
    /// The code to close the connection with: 502 for all of them.
    pub fn reply_code(self) -> ReplyCode {
        ReplyCode::SyntaxError
    }
}

impl ContentHeader {
    /// Reads a header frame's payload and checks the properties to the last byte.
    pub fn decode(payload: &Bytes) -> Result<Self, ContentError> {
        let Some(&[c0, c1, w0, w1, b0, b1, b2, b3, b4, b5, b6, b7]) = payload.first_chunk::<PROPERTIES_AT>()
        else {
            return Err(ContentError::Cut);
        };
        let weight = u16::from_be_bytes([w0, w1]);
        if weight != 0 {
            return Err(ContentError::Weight(weight));
        }
        let properties = payload.slice(PROPERTIES_AT..);
        BasicProperties::decode(&properties)?;
        Ok(Self {
            class_id: u16::from_be_bytes([c0, c1]),
            body_size: u64::from_be_bytes([b0, b1, b2, b3, b4, b5, b6, b7]),
            properties,
        })
    }
}

pub(super) fn put_content_header(out: &mut BytesMut, body_size: u64, properties: &[u8]) {
    out.put_u16(basic::CLASS_ID);
    out.put_u16(0);
    out.put_u64(body_size);
    out.put_slice(properties);
}

macro_rules! properties {
    ($($(#[$doc:meta])* $bit:literal $field:ident: $type:ty, $read:expr, $write:expr;)*) => {
        /// A message's properties, borrowed from their bytes or from whoever makes them.
        ///
        /// Strings are bytes, because RabbitMQ takes any here; they have at most 255, and longer ones are cut.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct BasicProperties<'a> {
            $($(#[$doc])* pub $field: Option<$type>,)*
        }

        impl<'a> BasicProperties<'a> {
            /// Reads flags and fields in place. All of it is checked, the headers to their last level.
            pub fn decode(properties: &'a [u8]) -> Result<Self, ContentError> {
                let mut reader = FieldReader::new(properties);
                let flags = u16::from_be_bytes(reader.array().map_err(|_| ContentError::Cut)?);
                if flags & NO_FLAG != 0 {
                    return Err(ContentError::Flags(flags));
                }
                let decoded = Self {
                    $($field: if flags & (1 << $bit) != 0 {
                        let read: fn(&mut FieldReader<'a>) -> Result<$type, FieldProblem> = $read;
                        Some(read(&mut reader).map_err(|problem| problem.of(stringify!($field)))?)
                    } else {
                        None
                    },)*
                };
                match reader.rest().len() {
                    0 => Ok(decoded),
                    bytes => Err(ContentError::Overlong(bytes)),
                }
            }

            /// Appends flags and fields.
            pub fn encode(&self, out: &mut BytesMut) {
                let flags = 0u16 $(| (u16::from(self.$field.is_some()) << $bit))*;
                out.put_u16(flags);
                $(if let Some(value) = self.$field {
                    let write: fn(&mut BytesMut, $type) = $write;
                    write(out, value);
                })*
            }
        }
    };
}

properties! {
    /// MIME type of the body.
    15 content_type: &'a [u8], FieldReader::short_bytes, put_short_bytes;
    /// MIME encoding of the body.
    14 content_encoding: &'a [u8], FieldReader::short_bytes, put_short_bytes;
    /// The application's headers, and the broker's `x-` ones.
    13 headers: FieldTable<'a>, read_table, put_table;
    /// 2 is persistent; anything else is not.
    12 delivery_mode: u8, read_u8, BytesMut::put_u8;
    /// The priority.
    11 priority: u8, read_u8, BytesMut::put_u8;
    /// What a reply refers to.
    10 correlation_id: &'a [u8], FieldReader::short_bytes, put_short_bytes;
    /// Where a reply is to go.
    9 reply_to: &'a [u8], FieldReader::short_bytes, put_short_bytes;
    /// Time to live: milliseconds as decimal digits (see [`super::parse_expiration`]).
    8 expiration: &'a [u8], FieldReader::short_bytes, put_short_bytes;
    /// The publisher's own id of this message.
    7 message_id: &'a [u8], FieldReader::short_bytes, put_short_bytes;
    /// When the publisher made it, in seconds since 1970-01-01 UTC.
    6 timestamp: u64, read_u64, BytesMut::put_u64;
    /// The kind of message, by the application's own names. AMQP calls it "type".
    5 kind: &'a [u8], FieldReader::short_bytes, put_short_bytes;
    /// The publishing user.
    4 user_id: &'a [u8], FieldReader::short_bytes, put_short_bytes;
    /// The publishing application.
    3 app_id: &'a [u8], FieldReader::short_bytes, put_short_bytes;
    /// Of no use since AMQP 0-9-1; carried all the same.
    2 cluster_id: &'a [u8], FieldReader::short_bytes, put_short_bytes;
}

impl BasicProperties<'_> {
    /// The properties as bytes of their own.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::new();
        self.encode(&mut out);
        out.freeze()
    }
}

fn read_u8(reader: &mut FieldReader<'_>) -> Result<u8, FieldProblem> {
    reader.array().map(u8::from_be_bytes)
}

fn read_u64(reader: &mut FieldReader<'_>) -> Result<u64, FieldProblem> {
    reader.array().map(u64::from_be_bytes)
}

fn read_table<'a>(reader: &mut FieldReader<'a>) -> Result<FieldTable<'a>, FieldProblem> {
    Ok(FieldTable::parse(reader.long_bytes()?)?)
}

fn put_table(out: &mut BytesMut, table: FieldTable<'_>) {
    put_long_bytes(out, table.as_bytes());
}
