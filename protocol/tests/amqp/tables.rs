//! Field tables: every type, every length, every depth.

use bytes::Bytes;
use leveret_protocol::amqp::{EncodedTable, FieldTable, FieldValue, TableError};
use leveret_protocol::{Properties, Table, VALUE_DEPTH_MAX, Value};
use proptest::prelude::*;

use crate::golden::bytes_of;
use crate::schema::{long, short, table};

fn one(value: &[u8]) -> Vec<u8> {
    [&short(b"k"), value].concat()
}

/// `levels` tables or arrays in each other, the outermost included.
fn nested(levels: usize, letter: u8, leaf: &[u8]) -> Vec<u8> {
    let mut bytes = leaf.to_vec();
    for level in 1..levels {
        let inside_array = letter == b'A' && level + 1 < levels;
        let value = [&[letter], &long(&bytes)[..]].concat();
        bytes = if inside_array { value } else { one(&value) };
    }
    bytes
}

#[test]
fn each_type_of_rabbitmqs_is_read() {
    let bytes = bytes_of("table.hex", "one of each type");
    let table = FieldTable::parse(&bytes).unwrap().to_table();
    let expected = [
        ("t", Value::Bool(true)),
        ("b", Value::Int(-128)),
        ("B", Value::Int(255)),
        ("s", Value::Int(-2)),
        ("u", Value::Int(65535)),
        ("I", Value::Int(-3)),
        ("i", Value::Int(4_294_967_295)),
        ("l", Value::Int(-4)),
        ("L", Value::Int(-5)),
        ("f", Value::Float(1.5)),
        ("d", Value::Float(-2.25)),
        ("D", Value::Float(123.45)),
        ("S", Value::from("té")),
        ("x", Value::Bytes(vec![255, 0])),
        ("T", Value::Timestamp(1_700_000_000)),
        ("V", Value::Null),
        ("A", Value::List(vec![Value::Int(1), Value::Null])),
        ("F", Value::Table([("k".to_owned(), Value::Bool(false))].into())),
    ];
    let expected: Table = expected.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    assert_eq!(table, expected);
}

#[test]
fn no_other_letter_is_a_type() {
    for letter in (0..=u8::MAX).filter(|letter| !b"tbBsuIilLfdDSxTVAF".contains(letter)) {
        let bytes = one(&[letter, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(FieldTable::parse(&bytes), Err(TableError::UnknownType(letter)));
        let in_array = one(&[b"A", &long(&[letter, 0, 0, 0, 0, 0, 0, 0, 0])[..]].concat());
        assert_eq!(FieldTable::parse(&in_array), Err(TableError::UnknownType(letter)));
    }
}

#[test]
fn every_cut_of_a_table_is_refused_or_ends_between_entries() {
    let bytes = bytes_of("table.hex", "one of each type");
    let mut ends = vec![0];
    let table = FieldTable::parse(&bytes).unwrap();
    for at in 1..=table.iter().count() {
        let entries: Vec<_> = table.iter().take(at).collect();
        // An entry's end is where exactly that many entries can be read.
        ends.extend((0..=bytes.len()).find(|end| {
            FieldTable::parse(&bytes[..*end]).is_ok_and(|cut| cut.iter().count() == entries.len())
        }));
    }
    assert_eq!(ends.len(), 19);
    for end in 0..=bytes.len() {
        assert_eq!(FieldTable::parse(&bytes[..end]).is_ok(), ends.contains(&end), "cut at {end}");
    }
}

#[test]
fn lengths_that_are_not_there_are_refused() {
    for letter in *b"SxAF" {
        for length in [1, 2, 0x7fff_ffff, u32::MAX] {
            let bytes = one(&[&[letter], &length.to_be_bytes()[..]].concat());
            assert_eq!(FieldTable::parse(&bytes), Err(TableError::Cut), "{letter} {length}");
            let inside = one(&[b"F", &long(&bytes)[..]].concat());
            assert_eq!(FieldTable::parse(&inside), Err(TableError::Cut), "an inner length beyond the outer");
        }
    }
}

#[test]
fn tables_nest_16_deep_and_no_deeper_and_timestamps_count() {
    for letter in *b"AF" {
        assert!(FieldTable::parse(&nested(VALUE_DEPTH_MAX, letter, b"")).is_ok());
        assert_eq!(FieldTable::parse(&nested(VALUE_DEPTH_MAX + 1, letter, b"")), Err(TableError::TooDeep));
    }
    let timestamp = one(&[b"T", &[0; 8][..]].concat());
    assert!(FieldTable::parse(&nested(VALUE_DEPTH_MAX - 1, b'F', &timestamp)).is_ok());
    assert_eq!(FieldTable::parse(&nested(VALUE_DEPTH_MAX, b'F', &timestamp)), Err(TableError::TooDeep));
}

#[test]
fn what_nests_as_deep_as_allowed_fits_the_native_protocol_too() {
    let timestamp = one(&[b"T", &[0; 8][..]].concat());
    let bytes = nested(VALUE_DEPTH_MAX - 1, b'F', &timestamp);
    let headers = FieldTable::parse(&bytes).unwrap().to_table();
    let blob = Properties { headers: headers.clone(), ..Properties::default() }.encode().unwrap();
    assert_eq!(Properties::decode(&blob).unwrap().headers, headers);
    let again = EncodedTable::new(&headers).unwrap();
    assert_eq!(again.as_table().as_bytes(), bytes);
}

#[test]
fn a_frame_full_of_nested_tables_is_refused_on_a_small_stack() {
    for letter in *b"AF" {
        // Built from the inside, six bytes a level, so that every length is right: 21,845 levels in 128 KiB.
        let mut bytes = Vec::with_capacity(132 * 1024);
        let mut backwards = Vec::with_capacity(132 * 1024);
        let mut inner = 0_u32;
        while backwards.len() < 128 * 1024 {
            backwards.extend(inner.to_be_bytes().iter().rev());
            backwards.push(letter);
            if letter == b'F' {
                backwards.push(0);
            }
            inner = u32::try_from(backwards.len()).unwrap();
        }
        if letter == b'A' {
            backwards.push(0);
        }
        bytes.extend(backwards.iter().rev());
        let parse = move || FieldTable::parse(&bytes).map(|_| ()).unwrap_err();
        let thread = std::thread::Builder::new().stack_size(128 * 1024).spawn(parse).unwrap();
        assert_eq!(thread.join().unwrap(), TableError::TooDeep);
    }
}

#[test]
fn of_equal_keys_the_first_counts() {
    let bytes = [one(b"t\x01"), one(b"b\x05")].concat();
    let table = FieldTable::parse(&bytes).unwrap();
    assert_eq!(table.get("k"), Some(FieldValue::Bool(true)));
    assert_eq!(table.to_table(), Table::from([("k".to_owned(), Value::Bool(true))]));
    assert_eq!((table.get("none"), table.iter().count()), (None, 2));
}

#[test]
fn decimals_show_the_same_digits() {
    let decimal = |scale: u8, unscaled: u32| {
        let bytes = one(&[&[b'D', scale], &unscaled.to_be_bytes()[..]].concat());
        FieldTable::parse(&bytes).unwrap().get("k").unwrap().to_value()
    };
    assert_eq!(decimal(0, u32::MAX), Value::Int(4_294_967_295));
    assert_eq!(decimal(1, 3), Value::Float(0.3));
    assert_eq!(decimal(9, u32::MAX).to_string(), "4.294967295");
    assert_eq!(decimal(255, 1), Value::Float(1e-255));
}

#[test]
fn what_amqp_cannot_say_is_written_so_that_it_can_be_read() {
    let table: Table = [
        ("big".to_owned(), Value::Uint(u64::MAX)),
        ("before".to_owned(), Value::Timestamp(-1)),
        ("k".repeat(256), Value::Null),
        ("k".repeat(255), Value::Null),
    ]
    .into();
    let encoded = EncodedTable::new(&table).unwrap();
    assert_eq!(FieldTable::parse(encoded.as_table().as_bytes()), Ok(encoded.as_table()));
    let read = encoded.as_table().to_table();
    assert_eq!(read["big"], Value::from("18446744073709551615"));
    assert_eq!(read["before"], Value::Timestamp(-1));
    assert_eq!(read.len(), 3, "a key of 256 bytes has no place");
}

#[test]
fn a_table_that_nests_too_deep_is_not_written() {
    let mut table = Table::new();
    for _ in 0..VALUE_DEPTH_MAX {
        table = [("t".to_owned(), Value::Table(table))].into();
    }
    assert_eq!(EncodedTable::new(&table), Err(TableError::TooDeep));
}

/// Values whose bytes come back as the same value.
fn same() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e300..1e300).prop_map(Value::Float),
        any::<String>().prop_map(Value::from),
        proptest::collection::vec(any::<u8>(), 0..20).prop_map(Value::Bytes),
        any::<i64>().prop_map(Value::Timestamp),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::List),
            proptest::collection::btree_map("\\PC{0,8}", inner, 0..4).prop_map(Value::Table),
        ]
    })
}

proptest! {
    #[test]
    fn tables_of_the_core_come_back_the_same(table in proptest::collection::btree_map("\\PC{0,8}", same(), 0..5)) {
        let encoded = EncodedTable::new(&table).unwrap();
        let bytes = Bytes::copy_from_slice(encoded.as_table().as_bytes());
        prop_assert_eq!(FieldTable::parse(&bytes).unwrap().to_table(), table);
    }

    #[test]
    fn random_tables_of_all_types_are_read(bytes in table(4)) {
        let table = FieldTable::parse(&bytes).unwrap();
        prop_assert_eq!(table.as_bytes(), &bytes[..]);
        // What the core makes of it is a table like any other.
        let again = EncodedTable::new(&table.to_table()).unwrap();
        prop_assert!(FieldTable::parse(again.as_table().as_bytes()).is_ok());
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        if let Ok(table) = FieldTable::parse(&bytes) {
            let _ = table.to_table();
        }
    }
}
