//! Field tables: kept as bytes that were checked once, and read in place.
//!
//! The dialect is RabbitMQ's (the errata of AMQP 0-9-1): `s` and `u` are 16-bit integers, `l` and `L` are both signed,
//! `x` is bytes, `V` is nothing. Keys and long strings may be any bytes, as they may in RabbitMQ.

use super::wire::{FieldProblem, FieldReader};
use crate::value::{Table, VALUE_DEPTH_MAX, Value};

/// Why bytes are not a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// A length that reaches beyond the end, or an entry that ends early.
    #[error("an entry is cut")]
    Cut,
    /// A letter that stands for no type.
    #[error("there is no type {:?}", char::from(*.0))]
    UnknownType(u8),
    /// More levels than [`VALUE_DEPTH_MAX`]. A timestamp counts as a level, because it is a table where the message
    /// may go: in the native protocol.
    #[error("tables and arrays nest at most {VALUE_DEPTH_MAX} deep")]
    TooDeep,
}

impl From<FieldProblem> for TableError {
    fn from(problem: FieldProblem) -> Self {
        match problem {
            FieldProblem::Table(error) => error,
            FieldProblem::Cut | FieldProblem::NotUtf8 => Self::Cut,
        }
    }
}

/// A table whose bytes (without the length in front of them) have been checked to the last level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FieldTable<'a>(&'a [u8]);

/// An array in a table, checked with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FieldArray<'a>(&'a [u8]);

/// One value of a table.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum FieldValue<'a> {
    /// `t`.
    Bool(bool),
    /// `b B s u I i l L`: all integer widths.
    Int(i64),
    /// `f` and `d`.
    Float(f64),
    /// `D`: `unscaled` divided by ten to the power of `scale`.
    Decimal {
        /// How many digits are behind the point.
        scale: u8,
        /// The digits.
        unscaled: u32,
    },
    /// `S`: text by convention, but any bytes.
    LongString(&'a [u8]),
    /// `x`.
    Bytes(&'a [u8]),
    /// `T`: seconds since 1970-01-01 UTC.
    Timestamp(u64),
    /// `V`.
    Void,
    /// `A`.
    Array(FieldArray<'a>),
    /// `F`.
    Table(FieldTable<'a>),
}

impl<'a> FieldTable<'a> {
    /// Checks a table's bytes (without the length in front of them), every length and type in it included.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, TableError> {
        check_table(bytes, 1)?;
        Ok(Self(bytes))
    }

    /// Bytes that this crate has just written.
    pub(crate) fn trusted(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The checked bytes.
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// Whether it has no entries.
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// The entries in their order. A key may stand twice; [`Self::get`] and [`Self::to_table`] take the first.
    pub fn iter(self) -> impl Iterator<Item = (&'a [u8], FieldValue<'a>)> {
        self.entries().map(|entry| (entry.key, entry.value))
    }

    /// The first value under `key`.
    pub fn get(self, key: &str) -> Option<FieldValue<'a>> {
        self.iter().find(|(other, _)| *other == key.as_bytes()).map(|(_, value)| value)
    }

    /// The table as the broker's core knows it: see [`FieldValue::to_value`]. Bytes in a key that are not UTF-8 become
    /// the replacement character.
    pub fn to_table(self) -> Table {
        let mut table = Table::new();
        for (key, value) in self.iter() {
            table.entry(String::from_utf8_lossy(key).into_owned()).or_insert_with(|| value.to_value());
        }
        table
    }

    /// The entries with their bytes, for whoever writes a changed table.
    pub(crate) fn entries(self) -> impl Iterator<Item = Entry<'a>> {
        let mut reader = FieldReader::new(self.0);
        // `parse` has walked all of it, so reading ends only at the end.
        std::iter::from_fn(move || if reader.rest().is_empty() { None } else { read_entry(&mut reader).ok() })
    }
}

/// One entry of a table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) value: FieldValue<'a>,
    /// Key, type and value as they stand in the table.
    pub(crate) raw: &'a [u8],
}

impl<'a> FieldArray<'a> {
    /// The elements in their order.
    pub fn iter(self) -> impl Iterator<Item = FieldValue<'a>> {
        let mut reader = FieldReader::new(self.0);
        std::iter::from_fn(move || if reader.rest().is_empty() { None } else { read_value(&mut reader).ok() })
    }
}

impl FieldValue<'_> {
    /// The value as the broker's core knows it.
    ///
    /// - A long string that is not UTF-8 is bytes.
    /// - A decimal is an integer if it has no digits behind the point, else the nearest floating-point number, which
    ///   shows the same digits: 32 bits of them fit 53.
    /// - A timestamp keeps its 64 bits, so that one before 1970 is negative.
    pub fn to_value(self) -> Value {
        match self {
            Self::Bool(bool) => Value::Bool(bool),
            Self::Int(int) => Value::Int(int),
            Self::Float(float) => Value::Float(float),
            Self::Decimal { scale: 0, unscaled } => Value::Int(unscaled.into()),
            // Through the decimal digits, because a division would round a second time.
            Self::Decimal { scale, unscaled } => {
                Value::Float(format!("{unscaled}e-{scale}").parse().unwrap_or(f64::NAN))
            }
            Self::LongString(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => Value::Text(text.to_owned()),
                Err(_) => Value::Bytes(bytes.to_vec()),
            },
            Self::Bytes(bytes) => Value::Bytes(bytes.to_vec()),
            Self::Timestamp(seconds) => Value::Timestamp(seconds.cast_signed()),
            Self::Void => Value::Null,
            Self::Array(array) => Value::List(array.iter().map(FieldValue::to_value).collect()),
            Self::Table(table) => Value::Table(table.to_table()),
        }
    }
}

/// Checks one level; the recursion is bounded by `depth`, so that a frame of nested tables cannot use up the stack.
fn check_table(bytes: &[u8], depth: usize) -> Result<(), TableError> {
    let mut reader = FieldReader::new(bytes);
    while !reader.rest().is_empty() {
        check_value(read_entry(&mut reader)?.value, depth)?;
    }
    Ok(())
}

fn check_value(value: FieldValue<'_>, depth: usize) -> Result<(), TableError> {
    let nested = matches!(value, FieldValue::Timestamp(_) | FieldValue::Array(_) | FieldValue::Table(_));
    if nested && depth >= VALUE_DEPTH_MAX {
        return Err(TableError::TooDeep);
    }
    match value {
        FieldValue::Table(table) => check_table(table.0, depth + 1),
        FieldValue::Array(array) => {
            let mut reader = FieldReader::new(array.0);
            while !reader.rest().is_empty() {
                check_value(read_value(&mut reader)?, depth + 1)?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn read_entry<'a>(reader: &mut FieldReader<'a>) -> Result<Entry<'a>, TableError> {
    let start = reader.rest();
    let key = reader.short_bytes()?;
    let value = read_value(reader)?;
    let raw = start.get(..start.len() - reader.rest().len()).unwrap_or_default();
    Ok(Entry { key, value, raw })
}

/// Reads a type and a value; a table or an array in it is cut out, but not looked into.
fn read_value<'a>(reader: &mut FieldReader<'a>) -> Result<FieldValue<'a>, TableError> {
    let [kind] = reader.array()?;
    Ok(match kind {
        b't' => FieldValue::Bool(reader.array()? != [0]),
        b'b' => FieldValue::Int(i8::from_be_bytes(reader.array()?).into()),
        b'B' => FieldValue::Int(u8::from_be_bytes(reader.array()?).into()),
        b's' => FieldValue::Int(i16::from_be_bytes(reader.array()?).into()),
        b'u' => FieldValue::Int(u16::from_be_bytes(reader.array()?).into()),
        b'I' => FieldValue::Int(i32::from_be_bytes(reader.array()?).into()),
        b'i' => FieldValue::Int(u32::from_be_bytes(reader.array()?).into()),
        b'l' | b'L' => FieldValue::Int(i64::from_be_bytes(reader.array()?)),
        b'f' => FieldValue::Float(f32::from_be_bytes(reader.array()?).into()),
        b'd' => FieldValue::Float(f64::from_be_bytes(reader.array()?)),
        b'D' => {
            let [scale] = reader.array()?;
            FieldValue::Decimal { scale, unscaled: u32::from_be_bytes(reader.array()?) }
        }
        b'S' => FieldValue::LongString(reader.long_bytes()?),
        b'x' => FieldValue::Bytes(reader.long_bytes()?),
        b'T' => FieldValue::Timestamp(u64::from_be_bytes(reader.array()?)),
        b'V' => FieldValue::Void,
        b'A' => FieldValue::Array(FieldArray(reader.long_bytes()?)),
        b'F' => FieldValue::Table(FieldTable(reader.long_bytes()?)),
        unknown => return Err(TableError::UnknownType(unknown)),
    })
}
