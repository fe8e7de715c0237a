//! Tables of the broker's core, written as field tables.

use bytes::{BufMut, Bytes, BytesMut};

use super::table::{FieldTable, TableError};
use super::wire::put_long_bytes;
use crate::name::NAME_BYTES_MAX;
use crate::value::{Table, VALUE_DEPTH_MAX, Value, table_depth};

/// A field table that owns its bytes, for methods and properties that are made here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EncodedTable(Bytes);

impl EncodedTable {
    /// Encodes a table. Integers are `l`, floating-point numbers `d`, text `S`, bytes `x`. An integer above `i64::MAX`,
    /// which AMQP as RabbitMQ speaks it cannot say, is written as text with its digits; an entry whose key is longer
    /// than 255 bytes has no place in a field table and is left out.
    pub fn new(table: &Table) -> Result<Self, TableError> {
        if table_depth(table) > VALUE_DEPTH_MAX {
            return Err(TableError::TooDeep);
        }
        let mut out = BytesMut::new();
        put_entries(&mut out, table);
        Ok(Self(out.freeze()))
    }

    /// The table to put into a method or into properties.
    pub fn as_table(&self) -> FieldTable<'_> {
        FieldTable::trusted(&self.0)
    }
}

/// Appends `key`, the type and the value; nothing if the key is too long.
pub(crate) fn put_entry(out: &mut BytesMut, key: &str, value: &Value) {
    if key.len() <= NAME_BYTES_MAX {
        out.put_u8(key.len() as u8);
        out.put_slice(key.as_bytes());
        put_value(out, value);
    }
}

fn put_entries(out: &mut BytesMut, table: &Table) {
    for (key, value) in table {
        put_entry(out, key, value);
    }
}

fn put_value(out: &mut BytesMut, value: &Value) {
    match value {
        Value::Null => out.put_u8(b'V'),
        Value::Bool(bool) => out.put_slice(&[b't', u8::from(*bool)]),
        Value::Int(int) => {
            out.put_u8(b'l');
            out.put_i64(*int);
        }
        Value::Uint(uint) => put_text(out, uint.to_string().as_bytes()),
        Value::Float(float) => {
            out.put_u8(b'd');
            out.put_f64(*float);
        }
        Value::Text(text) => put_text(out, text.as_bytes()),
        Value::Bytes(bytes) => {
            out.put_u8(b'x');
            put_long_bytes(out, bytes);
        }
        Value::Timestamp(seconds) => {
            out.put_u8(b'T');
            out.put_i64(*seconds);
        }
        Value::List(list) => {
            out.put_u8(b'A');
            put_sized(out, |out| list.iter().for_each(|value| put_value(out, value)));
        }
        Value::Table(table) => {
            out.put_u8(b'F');
            put_sized(out, |out| put_entries(out, table));
        }
    }
}

fn put_text(out: &mut BytesMut, text: &[u8]) {
    out.put_u8(b'S');
    put_long_bytes(out, text);
}

/// Writes a length, and behind it what it counts.
pub(crate) fn put_sized(out: &mut BytesMut, write: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_u32(0);
    write(out);
    let length = (out.len() - start - size_of::<u32>()) as u32;
    if let Some(field) = out.get_mut(start..start + size_of::<u32>()) {
        field.copy_from_slice(&length.to_be_bytes());
    }
}
