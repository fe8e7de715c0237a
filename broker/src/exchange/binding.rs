//! A binding, and when two of them are the same one.

use std::hash::{Hash, Hasher};

use leveret_protocol::{ExchangeName, RoutingKey, Table, Value};

use crate::store::QueueId;

/// Where a binding leads.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Destination {
    /// A queue.
    Queue(QueueId),
    /// Another exchange, which routes the unchanged message by its own bindings.
    Exchange(ExchangeName),
}

/// One rule of an exchange. All four parts are its identity: bindings that differ in one of them coexist.
#[derive(Debug, Clone)]
pub struct Binding {
    /// The exchange that follows it.
    pub source: ExchangeName,
    /// Where it leads.
    pub destination: Destination,
    /// The key or pattern; a fanout and a headers exchange ignore it.
    pub key: RoutingKey,
    /// What a headers exchange compares; the others ignore them.
    pub arguments: Table,
}

impl PartialEq for Binding {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
            && self.destination == other.destination
            && self.key == other.key
            && same_table(&self.arguments, &other.arguments)
    }
}

impl Eq for Binding {}

impl Hash for Binding {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.source.hash(state);
        self.destination.hash(state);
        self.key.hash(state);
        hash_table(&self.arguments, state);
    }
}

/// Equality by bits: with NaN unequal to itself, a binding that holds one could be made again and again, and
/// never be unbound.
fn same_value(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Float(one), Value::Float(other)) => one.to_bits() == other.to_bits(),
        (Value::List(one), Value::List(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same_value(one, other))
        }
        (Value::Table(one), Value::Table(other)) => same_table(one, other),
        (one, other) => one == other,
    }
}

fn same_table(one: &Table, other: &Table) -> bool {
    one.len() == other.len()
        && one
            .iter()
            .zip(other)
            .all(|((name, one), (other_name, other))| name == other_name && same_value(one, other))
}

fn hash_table<H: Hasher>(table: &Table, state: &mut H) {
    table.len().hash(state);
    for (name, value) in table {
        name.hash(state);
        hash_value(value, state);
    }
}

fn hash_value<H: Hasher>(value: &Value, state: &mut H) {
    std::mem::discriminant(value).hash(state);
    match value {
        Value::Bool(bool) => bool.hash(state),
        Value::Int(int) | Value::Timestamp(int) => int.hash(state),
        Value::Uint(uint) => uint.hash(state),
        Value::Float(float) => float.to_bits().hash(state),
        Value::Text(text) => text.hash(state),
        Value::Bytes(bytes) => bytes.hash(state),
        Value::List(list) => {
            list.len().hash(state);
            for value in list {
                hash_value(value, state);
            }
        }
        Value::Table(table) => hash_table(table, state),
        // `Null`, and any kind of value that is added later: the kind alone is a valid, if weak, hash.
        _ => {}
    }
}
