//! Methods of AMQP 0-9-1, by their names: one table says what each consists of.

use super::wire::{Reading, Table, put_long, put_short_text, put_table};

/// An argument of a method. The method says how wide a number is on the wire, and whether a text is short or long.
#[derive(Debug, Clone, PartialEq)]
pub enum Field {
    /// A bit.
    Bit(bool),
    /// An octet, short, long or long-long integer.
    Number(u64),
    /// A short or a long string.
    Text(String),
    /// A field table.
    Table(Table),
}

impl Field {
    /// What is a number.
    pub fn number(&self) -> u64 {
        match self {
            Self::Number(number) => *number,
            other => panic!("{other:?} is no number"),
        }
    }

    /// What is a text.
    pub fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            other => panic!("{other:?} is no text"),
        }
    }

    /// What is a bit.
    pub fn bit(&self) -> bool {
        match self {
            Self::Bit(bit) => *bit,
            other => panic!("{other:?} is no bit"),
        }
    }

    /// What is a table.
    pub fn table(&self) -> &Table {
        match self {
            Self::Table(table) => table,
            other => panic!("{other:?} is no table"),
        }
    }
}

macro_rules! field_from {
    ($($from:ty => $variant:ident),*) => {
        $(impl From<$from> for Field {
            fn from(value: $from) -> Self {
                Self::$variant(value.into())
            }
        })*
    };
}

field_from! {
    bool => Bit, u8 => Number, u16 => Number, u32 => Number, u64 => Number, &str => Text, String => Text,
    &String => Text, Table => Table
}

impl From<i32> for Field {
    fn from(number: i32) -> Self {
        Self::Number(u64::try_from(number).expect("no argument is negative"))
    }
}

impl From<&Table> for Field {
    fn from(table: &Table) -> Self {
        Self::Table(table.clone())
    }
}

/// The arguments of a method, without those that are reserved: `fields![queue, false, 10]`.
#[macro_export]
macro_rules! fields {
    ($($field:expr),* $(,)?) => { vec![$($crate::amqp::Field::from($field)),*] };
}

/// Class, method, name, and arguments: `o` octet, `h` short, `l` long, `L` long-long, `s` short string, `S` long
/// string, `b` bit, `T` table; `r`, `R` and `B` are a reserved short, short string and bit.
#[rustfmt::skip]
const METHODS: &[(u16, u16, &str, &str)] = &[
    (10, 10, "connection.start", "ooTSS"), (10, 11, "connection.start-ok", "TsSs"),
    (10, 20, "connection.secure", "S"), (10, 21, "connection.secure-ok", "S"),
    (10, 30, "connection.tune", "hlh"), (10, 31, "connection.tune-ok", "hlh"),
    (10, 40, "connection.open", "sRB"), (10, 41, "connection.open-ok", "R"),
    (10, 50, "connection.close", "hshh"), (10, 51, "connection.close-ok", ""),
    (10, 60, "connection.blocked", "s"), (10, 61, "connection.unblocked", ""),
    (10, 70, "connection.update-secret", "Ss"), (10, 71, "connection.update-secret-ok", ""),
    (20, 10, "channel.open", "R"), (20, 11, "channel.open-ok", "S"),
    (20, 20, "channel.flow", "b"), (20, 21, "channel.flow-ok", "b"),
    (20, 40, "channel.close", "hshh"), (20, 41, "channel.close-ok", ""),
    (40, 10, "exchange.declare", "rssbbbbbT"), (40, 11, "exchange.declare-ok", ""),
    (40, 20, "exchange.delete", "rsbb"), (40, 21, "exchange.delete-ok", ""),
    (40, 30, "exchange.bind", "rsssbT"), (40, 31, "exchange.bind-ok", ""),
    (40, 40, "exchange.unbind", "rsssbT"), (40, 51, "exchange.unbind-ok", ""),
    (50, 10, "queue.declare", "rsbbbbbT"), (50, 11, "queue.declare-ok", "sll"),
    (50, 20, "queue.bind", "rsssbT"), (50, 21, "queue.bind-ok", ""),
    (50, 30, "queue.purge", "rsb"), (50, 31, "queue.purge-ok", "l"),
    (50, 40, "queue.delete", "rsbbb"), (50, 41, "queue.delete-ok", "l"),
    (50, 50, "queue.unbind", "rsssT"), (50, 51, "queue.unbind-ok", ""),
    (60, 10, "basic.qos", "lhb"), (60, 11, "basic.qos-ok", ""),
    (60, 20, "basic.consume", "rssbbbbT"), (60, 21, "basic.consume-ok", "s"),
    (60, 30, "basic.cancel", "sb"), (60, 31, "basic.cancel-ok", "s"),
    (60, 40, "basic.publish", "rssbb"), (60, 50, "basic.return", "hsss"), (60, 60, "basic.deliver", "sLbss"),
    (60, 70, "basic.get", "rsb"), (60, 71, "basic.get-ok", "Lbssl"), (60, 72, "basic.get-empty", "R"),
    (60, 80, "basic.ack", "Lb"), (60, 90, "basic.reject", "Lb"),
    (60, 100, "basic.recover-async", "b"), (60, 110, "basic.recover", "b"), (60, 111, "basic.recover-ok", ""),
    (60, 120, "basic.nack", "Lbb"),
    (85, 10, "confirm.select", "b"), (85, 11, "confirm.select-ok", ""),
    (90, 10, "tx.select", ""), (90, 11, "tx.select-ok", ""), (90, 20, "tx.commit", ""), (90, 21, "tx.commit-ok", ""),
    (90, 30, "tx.rollback", ""), (90, 31, "tx.rollback-ok", ""),
];

/// The name of a method; empty for the pair of zeros that a close without a cause has.
pub(super) fn name_of(class: u16, method: u16) -> &'static str {
    if (class, method) == (0, 0) {
        return "";
    }
    let found = METHODS.iter().find(|entry| (entry.0, entry.1) == (class, method));
    found.map_or("a method that does not exist", |entry| entry.2)
}

/// The payload of a method frame.
pub fn method_payload(name: &str, fields: &[Field]) -> Vec<u8> {
    let (class, method, _, kinds) =
        METHODS.iter().find(|entry| entry.2 == name).unwrap_or_else(|| panic!("no method is {name}"));
    let mut out = Vec::new();
    out.extend(class.to_be_bytes());
    out.extend(method.to_be_bytes());
    let mut fields = fields.iter();
    let mut next = || fields.next().unwrap_or_else(|| panic!("{name} has more arguments: {kinds}"));
    let mut bits: Option<(usize, u8)> = None;
    for kind in kinds.chars() {
        if !matches!(kind, 'b' | 'B') {
            bits = None;
        }
        match kind {
            'b' | 'B' => {
                let value = u8::from(kind == 'b' && next().bit());
                if let Some((at, place)) = &mut bits {
                    out[*at] |= value << *place;
                    *place += 1;
                } else {
                    bits = Some((out.len(), 1));
                    out.push(value);
                }
            }
            'r' => out.extend([0, 0]),
            'R' => out.push(0),
            'o' => out.push(next().number() as u8),
            'h' => out.extend((next().number() as u16).to_be_bytes()),
            'l' => out.extend((next().number() as u32).to_be_bytes()),
            'L' => out.extend(next().number().to_be_bytes()),
            's' => put_short_text(&mut out, next().text()),
            'S' => put_long(&mut out, next().text().as_bytes()),
            _ => put_table(&mut out, next().table()),
        }
    }
    assert!(fields.next().is_none(), "{name} has fewer arguments: {kinds}");
    out
}

/// Class, name and arguments of a method frame.
pub(super) fn read_method(payload: &[u8]) -> (&'static str, Vec<Field>) {
    let mut rest = Reading(payload);
    let (class, method) = (rest.short(), rest.short());
    let (_, _, name, kinds) = METHODS
        .iter()
        .find(|entry| (entry.0, entry.1) == (class, method))
        .unwrap_or_else(|| panic!("the broker sent a method that does not exist: {class}, {method}"));
    let mut fields = Vec::new();
    let mut bits: Option<(u8, u8)> = None;
    for kind in kinds.chars() {
        if !matches!(kind, 'b' | 'B') {
            bits = None;
        }
        match kind {
            'b' | 'B' => {
                let (octet, place) =
                    bits.map_or_else(|| (rest.octet(), 0), |(octet, place)| (octet, place + 1));
                bits = Some((octet, place));
                if kind == 'b' {
                    fields.push(Field::Bit(octet & (1 << place) != 0));
                }
            }
            'r' => assert_eq!(rest.short(), 0, "{name}"),
            'R' => assert_eq!(rest.short_text(), "", "{name}"),
            'o' => fields.push(Field::Number(rest.octet().into())),
            'h' => fields.push(Field::Number(rest.short().into())),
            'l' => fields.push(Field::Number(rest.long().into())),
            'L' => fields.push(Field::Number(rest.longlong())),
            's' => fields.push(Field::Text(rest.short_text())),
            'S' => fields.push(Field::Text(rest.long_text())),
            _ => fields.push(Field::Table(rest.table())),
        }
    }
    assert!(rest.0.is_empty(), "{name} is longer than its arguments: {:?}", rest.0);
    (name, fields)
}
