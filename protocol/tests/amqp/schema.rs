//! What the specification says about each method, stated a second time and in its own words: the oracle for the codec.

use proptest::collection::vec;
use proptest::prelude::*;

/// A method's numbers, name and fields.
#[derive(Debug)]
pub(crate) struct Schema {
    pub(crate) class_id: u16,
    pub(crate) method_id: u16,
    pub(crate) name: &'static str,
    /// One letter for each field: `b` bit, `o` octet, `w` 16 bits, `d` 32 bits, `q` 64 bits, `s` short string, `l` long
    /// string, `t` table; a reserved field, which is zero or empty, has a capital.
    pub(crate) fields: &'static str,
}

const fn method(class_id: u16, method_id: u16, name: &'static str, fields: &'static str) -> Schema {
    Schema { class_id, method_id, name, fields }
}

pub(crate) const METHODS: &[Schema] = &[
    method(10, 10, "connection.start", "ootll"),
    method(10, 11, "connection.start-ok", "tsls"),
    method(10, 20, "connection.secure", "l"),
    method(10, 21, "connection.secure-ok", "l"),
    method(10, 30, "connection.tune", "wdw"),
    method(10, 31, "connection.tune-ok", "wdw"),
    method(10, 40, "connection.open", "sSB"),
    method(10, 41, "connection.open-ok", "S"),
    method(10, 50, "connection.close", "wsww"),
    method(10, 51, "connection.close-ok", ""),
    method(10, 60, "connection.blocked", "s"),
    method(10, 61, "connection.unblocked", ""),
    method(10, 70, "connection.update-secret", "ls"),
    method(10, 71, "connection.update-secret-ok", ""),
    method(20, 10, "channel.open", "S"),
    method(20, 11, "channel.open-ok", "L"),
    method(20, 20, "channel.flow", "b"),
    method(20, 21, "channel.flow-ok", "b"),
    method(20, 40, "channel.close", "wsww"),
    method(20, 41, "channel.close-ok", ""),
    method(40, 10, "exchange.declare", "Wssbbbbbt"),
    method(40, 11, "exchange.declare-ok", ""),
    method(40, 20, "exchange.delete", "Wsbb"),
    method(40, 21, "exchange.delete-ok", ""),
    method(40, 30, "exchange.bind", "Wsssbt"),
    method(40, 31, "exchange.bind-ok", ""),
    method(40, 40, "exchange.unbind", "Wsssbt"),
    method(40, 51, "exchange.unbind-ok", ""),
    method(50, 10, "queue.declare", "Wsbbbbbt"),
    method(50, 11, "queue.declare-ok", "sdd"),
    method(50, 20, "queue.bind", "Wsssbt"),
    method(50, 21, "queue.bind-ok", ""),
    method(50, 30, "queue.purge", "Wsb"),
    method(50, 31, "queue.purge-ok", "d"),
    method(50, 40, "queue.delete", "Wsbbb"),
    method(50, 41, "queue.delete-ok", "d"),
    method(50, 50, "queue.unbind", "Wssst"),
    method(50, 51, "queue.unbind-ok", ""),
    method(60, 10, "basic.qos", "dwb"),
    method(60, 11, "basic.qos-ok", ""),
    method(60, 20, "basic.consume", "Wssbbbbt"),
    method(60, 21, "basic.consume-ok", "s"),
    method(60, 30, "basic.cancel", "sb"),
    method(60, 31, "basic.cancel-ok", "s"),
    method(60, 40, "basic.publish", "Wssbb"),
    method(60, 50, "basic.return", "wsss"),
    method(60, 60, "basic.deliver", "sqbss"),
    method(60, 70, "basic.get", "Wsb"),
    method(60, 71, "basic.get-ok", "qbssd"),
    method(60, 72, "basic.get-empty", "S"),
    method(60, 80, "basic.ack", "qb"),
    method(60, 90, "basic.reject", "qb"),
    method(60, 100, "basic.recover-async", "b"),
    method(60, 110, "basic.recover", "b"),
    method(60, 111, "basic.recover-ok", ""),
    method(60, 120, "basic.nack", "qbb"),
    method(85, 10, "confirm.select", "b"),
    method(85, 11, "confirm.select-ok", ""),
    method(90, 10, "tx.select", ""),
    method(90, 11, "tx.select-ok", ""),
    method(90, 20, "tx.commit", ""),
    method(90, 21, "tx.commit-ok", ""),
    method(90, 30, "tx.rollback", ""),
    method(90, 31, "tx.rollback-ok", ""),
];

/// A random payload of one of the methods, and which one it is.
pub(crate) fn payload() -> impl Strategy<Value = (&'static Schema, Vec<u8>)> {
    (0..METHODS.len()).prop_flat_map(|at| {
        let schema = &METHODS[at];
        let fields: Vec<_> = schema.fields.chars().map(field).collect();
        fields.prop_map(move |fields| (schema, join(schema, &fields)))
    })
}

/// One field's bytes; a bit's are a byte of 0 or 1 until [`join`] packs them.
fn field(letter: char) -> BoxedStrategy<Vec<u8>> {
    match letter {
        'b' => any::<bool>().prop_map(|bit| vec![u8::from(bit)]).boxed(),
        'o' => vec(any::<u8>(), 1).boxed(),
        'w' => vec(any::<u8>(), 2).boxed(),
        'd' => vec(any::<u8>(), 4).boxed(),
        'q' => vec(any::<u8>(), 8).boxed(),
        's' => "(\\PC{0,20}|[a-z.]{250,255}|[à-ÿ]{127})".prop_map(|text| short(text.as_bytes())).boxed(),
        'l' => vec(any::<u8>(), 0..300).prop_map(|bytes| long(&bytes)).boxed(),
        't' => table(2).prop_map(|entries| long(&entries)).boxed(),
        'B' | 'S' => Just(vec![0]).boxed(),
        'W' => Just(vec![0; 2]).boxed(),
        'L' => Just(vec![0; 4]).boxed(),
        other => panic!("no field {other:?}"),
    }
}

/// Random entries of a table with every type of RabbitMQ's, `depth` levels below this one.
pub(crate) fn table(depth: usize) -> BoxedStrategy<Vec<u8>> {
    vec((vec(any::<u8>(), 0..12), value(depth)), 0..6)
        .prop_map(|entries| {
            entries.iter().flat_map(|(key, value)| [short(key), value.clone()].concat()).collect()
        })
        .boxed()
}

fn value(depth: usize) -> BoxedStrategy<Vec<u8>> {
    let sized = |letter: u8, size: usize| {
        vec(any::<u8>(), size).prop_map(move |bytes| [&[letter], &bytes[..]].concat()).boxed()
    };
    let mut values: Vec<_> = [
        (b't', 1),
        (b'b', 1),
        (b'B', 1),
        (b's', 2),
        (b'u', 2),
        (b'I', 4),
        (b'i', 4),
        (b'l', 8),
        (b'L', 8),
        (b'f', 4),
        (b'd', 8),
        (b'D', 5),
        (b'T', 8),
        (b'V', 0),
    ]
    .into_iter()
    .map(|(letter, size)| sized(letter, size))
    .collect();
    for letter in [b'S', b'x'] {
        values.push(
            vec(any::<u8>(), 0..20).prop_map(move |bytes| [&[letter], &long(&bytes)[..]].concat()).boxed(),
        );
    }
    if depth > 0 {
        values.push(table(depth - 1).prop_map(|entries| [b"F", &long(&entries)[..]].concat()).boxed());
        values.push(
            vec(value(depth - 1), 0..4)
                .prop_map(|elements| [b"A", &long(&elements.concat())[..]].concat())
                .boxed(),
        );
    }
    proptest::strategy::Union::new(values).boxed()
}

pub(crate) fn short(bytes: &[u8]) -> Vec<u8> {
    [&[u8::try_from(bytes.len()).unwrap()], bytes].concat()
}

pub(crate) fn long(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

/// Numbers and fields; neighbouring bits share a byte, the first in its lowest bit.
fn join(schema: &Schema, fields: &[Vec<u8>]) -> Vec<u8> {
    let mut payload = [schema.class_id.to_be_bytes(), schema.method_id.to_be_bytes()].concat();
    let mut bits = 0;
    for (letter, field) in schema.fields.chars().zip(fields) {
        if letter.eq_ignore_ascii_case(&'b') {
            if bits == 0 {
                payload.push(0);
            }
            *payload.last_mut().unwrap() |= field[0] << bits;
            bits += 1;
        } else {
            payload.extend_from_slice(field);
            bits = 0;
        }
    }
    payload
}
