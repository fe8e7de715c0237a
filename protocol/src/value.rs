//! Typed values: message headers, and the arguments of declarations and bindings.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};

/// How deep tables and lists may nest in what a peer sends.
pub const VALUE_DEPTH_MAX: usize = 16;

/// Named values in the order of their names, so that equal tables have equal bytes.
pub type Table = BTreeMap<String, Value>;

/// One typed value.
///
/// On the wire each is its MessagePack counterpart; a timestamp is the one-entry map `{"$timestamp": seconds}`.
/// All integer widths are one type, because RabbitMQ compares them so.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub enum Value {
    /// Nothing; in a headers binding, "the header is there".
    #[default]
    Null,
    /// True or false.
    Bool(bool),
    /// Any integer that fits 64 signed bits.
    Int(i64),
    /// An integer above `i64::MAX`.
    Uint(u64),
    /// A floating-point number.
    Float(f64),
    /// Text.
    Text(String),
    /// Bytes that need not be text.
    Bytes(Vec<u8>),
    /// Seconds since 1970-01-01 UTC.
    Timestamp(i64),
    /// A list.
    List(Vec<Value>),
    /// Named values.
    Table(Table),
}

/// The key of the one-entry map that stands for a timestamp.
const TIMESTAMP_KEY: &str = "$timestamp";

impl Value {
    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The integer, if it is one and fits.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(int) => Some(*int),
            Self::Uint(uint) => i64::try_from(*uint).ok(),
            _ => None,
        }
    }

    /// The truth value, if it is one.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(bool) => Some(*bool),
            _ => None,
        }
    }

    /// What kind of value this is, for error messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "a truth value",
            Self::Int(_) | Self::Uint(_) => "an integer",
            Self::Float(_) => "a floating-point number",
            Self::Text(_) => "text",
            Self::Bytes(_) => "bytes",
            Self::Timestamp(_) => "a timestamp",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(bool) => write!(f, "{bool}"),
            Self::Int(int) => write!(f, "{int}"),
            Self::Uint(uint) => write!(f, "{uint}"),
            Self::Float(float) => write!(f, "{float}"),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
            Self::Timestamp(seconds) => write!(f, "timestamp {seconds}"),
            Self::List(list) => f.debug_list().entries(list.iter().map(AsDisplayed)).finish(),
            Self::Table(table) => {
                f.debug_map().entries(table.iter().map(|(key, value)| (key, AsDisplayed(value)))).finish()
            }
        }
    }
}

/// Lets `debug_list` and `debug_map` show values as they are displayed. Through strings, each level would escape the
/// quotes of the one below, and 16 levels of a hostile table would take 65,536 times its bytes.
struct AsDisplayed<'a>(&'a Value);

impl fmt::Debug for AsDisplayed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.0, f)
    }
}

/// How many tables and lists stand in each other, the table itself included. A timestamp is a table on the wire.
pub(crate) fn table_depth(table: &Table) -> usize {
    1 + table.values().map(value_depth).max().unwrap_or_default()
}

fn value_depth(value: &Value) -> usize {
    match value {
        Value::Timestamp(_) => 1,
        Value::List(list) => 1 + list.iter().map(value_depth).max().unwrap_or_default(),
        Value::Table(table) => table_depth(table),
        _ => 0,
    }
}

macro_rules! value_from {
    ($($from:ty => |$value:ident| $into:expr),* $(,)?) => {$(
        impl From<$from> for Value {
            fn from($value: $from) -> Self {
                $into
            }
        }
    )*};
}

value_from! {
    bool => |value| Self::Bool(value),
    i64 => |value| Self::Int(value),
    i32 => |value| Self::Int(value.into()),
    u32 => |value| Self::Int(value.into()),
    u64 => |value| i64::try_from(value).map_or(Self::Uint(value), Self::Int),
    f64 => |value| Self::Float(value),
    &str => |value| Self::Text(value.to_owned()),
    String => |value| Self::Text(value),
    Vec<Value> => |value| Self::List(value),
    Table => |value| Self::Table(value),
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(bool) => serializer.serialize_bool(*bool),
            Self::Int(int) => serializer.serialize_i64(*int),
            Self::Uint(uint) => serializer.serialize_u64(*uint),
            Self::Float(float) => serializer.serialize_f64(*float),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Bytes(bytes) => serializer.serialize_bytes(bytes),
            Self::Timestamp(seconds) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry(TIMESTAMP_KEY, seconds)?;
                map.end()
            }
            Self::List(list) => list.serialize(serializer),
            Self::Table(table) => table.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a truth value, a number, text, bytes, a list or a table")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_bytes<E>(self, value: &[u8]) -> Result<Value, E> {
        Ok(Value::Bytes(value.to_vec()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Value, A::Error> {
        // No `with_capacity`: the length is the peer's word, the elements are what was really sent.
        let mut list = Vec::new();
        while let Some(value) = sequence.next_element()? {
            list.push(value);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Value, A::Error> {
        let table = read_table(map)?;
        match table.get(TIMESTAMP_KEY).and_then(Value::as_int) {
            Some(seconds) if table.len() == 1 => Ok(Value::Timestamp(seconds)),
            _ => Ok(Value::Table(table)),
        }
    }
}

/// Reads a field that is a table, with the checks of a table inside a value. What `serde` does for maps would let a
/// key stand twice, and two readers could take different ones of them.
pub(crate) fn deserialize_table<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Table, D::Error> {
    struct TableVisitor;

    impl<'de> Visitor<'de> for TableVisitor {
        type Value = Table;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a table")
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Table, A::Error> {
            read_table(map)
        }
    }

    deserializer.deserialize_map(TableVisitor)
}

fn read_table<'de, A: MapAccess<'de>>(mut map: A) -> Result<Table, A::Error> {
    let mut table = Table::new();
    while let Some(key) = map.next_key::<String>()? {
        if table.contains_key(&key) {
            return Err(de::Error::custom(format_args!("the key {key:?} stands twice in one table")));
        }
        let value = map.next_value()?;
        table.insert(key, value);
    }
    Ok(table)
}
