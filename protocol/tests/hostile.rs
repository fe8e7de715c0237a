//! What a hostile peer may send: it is refused with a sentence, it costs no more than its bytes, and it never panics.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by a panic, in its helper functions too"
)]

mod support;

use bytes::{BufMut, BytesMut};
use leveret_protocol::{
    Confirm, Control, ControlError, Credit, DeathHistory, Deliver, Destination, Frame, FrameTooLarge,
    HEADER_BYTES, METADATA_BYTES_MAX, Properties, Publish, Return, SETTLE_RANGES_MAX, Settle, Table,
    VALUE_DEPTH_MAX, Value, kind,
};
use support::golden_frames;

const DECLARE_QUEUE: u8 = 0x22;
const PURGE_QUEUE: u8 = 0x24;
const BIND: u8 = 0x25;
const OPEN_CHANNEL: u8 = 0x10;

/// A MessagePack map of entries that are already encoded.
fn map(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = vec![0x80 | u8::try_from(entries.len()).unwrap()];
    for (name, value) in entries {
        out.push(0xa0 | u8::try_from(name.len()).unwrap());
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(value);
    }
    out
}

fn declare(arguments: &[u8]) -> Vec<u8> {
    map(&[("request", &[7]), ("queue", b"\xa1q"), ("arguments", arguments)])
}

/// A table in which `levels` tables, itself included, stand in each other.
fn nested_tables(levels: usize) -> Table {
    let mut table = Table::new();
    for _ in 1..levels {
        table = [("t".to_owned(), Value::Table(table))].into();
    }
    table
}

fn refusal(kind: u8, payload: &[u8]) -> (String, Option<u32>) {
    match Control::decode(kind, payload) {
        Err(ControlError::Malformed { reason, request, .. }) => (reason, request),
        other => panic!("not refused as malformed: {other:?}"),
    }
}

#[test]
fn a_header_that_promises_16_mib_costs_nothing_until_they_come() {
    let mut buffer = BytesMut::new();
    buffer.put_u32_le(16 * 1024 * 1024);
    buffer.put_slice(&[kind::PUBLISH, 0, 1, 0]);
    assert_eq!(Frame::decode(&mut buffer, 16 * 1024 * 1024), Ok(None));
    assert!(buffer.capacity() <= 512 * 1024, "{} bytes", buffer.capacity());
    // And while they come, never more than twice of what is there, and a step.
    while buffer.len() < 4 * 1024 * 1024 {
        buffer.put_bytes(0, 64 * 1024);
        assert_eq!(Frame::decode(&mut buffer, 16 * 1024 * 1024), Ok(None));
        assert!(buffer.capacity() <= 2 * buffer.len() + 512 * 1024, "{} bytes", buffer.capacity());
    }
}

#[test]
fn a_frame_one_byte_above_the_limit_is_refused_at_its_header() {
    for (length, expected) in [(100, Ok(None)), (101, Err(FrameTooLarge { length: 101, limit: 100 }))] {
        let mut buffer = BytesMut::new();
        buffer.put_u32_le(length);
        buffer.put_slice(&[kind::HEARTBEAT, 0, 0, 0]);
        assert_eq!(Frame::decode(&mut buffer, 100), expected);
    }
    let mut buffer = BytesMut::from(&[0xff; HEADER_BYTES][..]);
    assert_eq!(Frame::decode(&mut buffer, 100), Err(FrameTooLarge { length: u32::MAX as usize, limit: 100 }));
}

#[test]
fn lengths_that_are_not_there_are_refused() {
    let huge: [(&str, &[u8]); 6] = [
        ("array of 2^32-1", &[0xdd, 0xff, 0xff, 0xff, 0xff, 0x01]),
        ("map of 2^32-1", &[0xdf, 0xff, 0xff, 0xff, 0xff, 0xa1, b'k', 0x01]),
        ("str of 2^32-1", &[0xdb, 0xff, 0xff, 0xff, 0xff, b'x']),
        ("bin of 2^32-1", &[0xc6, 0xff, 0xff, 0xff, 0xff, 0x00]),
        ("ext of 2^32-1", &[0xc9, 0xff, 0xff, 0xff, 0xff, 0x01, 0x00]),
        ("array16 of 2^16-1", &[0xdc, 0xff, 0xff]),
    ];
    for (what, value) in huge {
        let (_, request) = refusal(DECLARE_QUEUE, &declare(value));
        assert_eq!(request, None, "{what}: the map has no end, so that no number can be trusted");
        // In a field that nobody knows, and where the map is read twice (`flatten`).
        refusal(DECLARE_QUEUE, &map(&[("request", &[7]), ("queue", b"\xa1q"), ("later", value)]));
        refusal(
            BIND,
            &map(&[("request", &[7]), ("source", b"\xa1s"), ("queue", b"\xa1q"), ("arguments", value)]),
        );
        assert!(Properties::decode(&map(&[("headers", value)])).is_err(), "{what}");
        assert!(DeathHistory::decode(&map(&[("deaths", value)])).is_err(), "{what}");
        // As the whole payload.
        refusal(DECLARE_QUEUE, value);
        assert!(Properties::decode(value).is_err(), "{what}");
    }
}

#[test]
fn tables_nest_16_deep_and_no_deeper() {
    for (levels, fine) in [(1, true), (VALUE_DEPTH_MAX, true), (VALUE_DEPTH_MAX + 1, false)] {
        let table = rmp_serde::to_vec_named(&nested_tables(levels)).unwrap();
        assert_eq!(Control::decode(DECLARE_QUEUE, &declare(&table)).is_ok(), fine, "{levels}");
        let bind =
            map(&[("request", &[7]), ("source", b"\xa1s"), ("queue", b"\xa1q"), ("arguments", &table)]);
        assert_eq!(Control::decode(BIND, &bind).is_ok(), fine, "{levels}");
        assert_eq!(Properties::decode(&map(&[("headers", &table)])).is_ok(), fine, "{levels}");
        let properties = Properties { headers: nested_tables(levels), ..Properties::default() };
        assert_eq!(properties.encode().is_ok(), fine, "{levels}");
    }
}

#[test]
fn timestamps_and_lists_count_as_levels_when_they_are_written_too() {
    for leaf in [Value::Timestamp(1), Value::List(vec![])] {
        for (levels, fine) in [(VALUE_DEPTH_MAX - 1, true), (VALUE_DEPTH_MAX, false)] {
            let mut value = leaf.clone();
            for _ in 1..levels {
                value = Value::List(vec![value]);
            }
            let properties =
                Properties { headers: [("h".to_owned(), value)].into(), ..Properties::default() };
            assert_eq!(properties.encode().is_ok(), fine, "{leaf} in {levels} levels");
            let raw = rmp_serde::to_vec_named(&properties).unwrap();
            assert_eq!(
                Properties::decode(&raw).is_ok(),
                fine,
                "what is written can be read, and the reverse"
            );
        }
    }
}

#[test]
fn deep_nesting_is_refused_without_a_stack_overflow() {
    for opening in [&[0x91][..], b"\x81\xa1k"] {
        let value = opening.repeat(100_000 / opening.len());
        refusal(DECLARE_QUEUE, &declare(&value));
        refusal(DECLARE_QUEUE, &map(&[("request", &[7]), ("queue", b"\xa1q"), ("later", &value)]));
        refusal(BIND, &map(&[("request", &[7]), ("source", b"\xa1s"), ("queue", b"\xa1q"), ("x", &value)]));
        refusal(OPEN_CHANNEL, &value);
        assert!(Properties::decode(&map(&[("headers", &value)])).is_err());
        assert!(Properties::decode(&value).is_err());
    }
}

#[test]
fn keys_that_stand_twice_are_refused() {
    let twice = b"\x82\xa1k\x01\xa1k\x02";
    let (reason, request) = refusal(DECLARE_QUEUE, &declare(twice));
    assert!(reason.contains("\"k\" stands twice"), "{reason}");
    assert_eq!(request, Some(7), "the request can be answered");
    let (reason, request) =
        refusal(PURGE_QUEUE, &map(&[("request", &[7]), ("queue", b"\xa1q"), ("queue", b"\xa1r")]));
    assert!(reason.contains("duplicate field `queue`"), "{reason}");
    assert_eq!(request, Some(7));
    let (_, request) =
        refusal(PURGE_QUEUE, &map(&[("request", &[7]), ("request", &[8]), ("queue", b"\xa1q")]));
    assert_eq!(request, None, "which of the two would be answered?");
    let bind = [("request", &b"\x07"[..]), ("source", b"\xa1s"), ("queue", b"\xa1q"), ("queue", b"\xa1r")];
    refusal(BIND, &map(&bind));
}

#[test]
fn bytes_after_the_map_are_refused() {
    let mut payload = map(&[("request", &[7]), ("queue", b"\xa1q")]);
    assert!(Control::decode(PURGE_QUEUE, &payload).is_ok());
    payload.push(0xc0);
    assert_eq!(refusal(PURGE_QUEUE, &payload).0, "1 bytes are left over");
    assert!(Properties::decode(b"\x80\x80").is_err());
}

#[test]
fn only_maps_with_named_fields_are_read() {
    for payload in [&b"\x92\x07\xa1q"[..], b"\xc4\x02\x07\x08", b"\xc0", b"\x07", b""] {
        let (reason, request) = refusal(PURGE_QUEUE, payload);
        assert_eq!((reason.as_str(), request), ("it is not a map with named fields", None));
    }
    assert!(Properties::decode(b"\x91\xa1x").is_err());
}

#[test]
fn a_binding_names_one_destination() {
    let bind = |fields: &[(&str, &[u8])]| {
        let mut all: Vec<(&str, &[u8])> = vec![("request", &[7]), ("source", b"\xa1s")];
        all.extend(fields);
        Control::decode(BIND, &map(&all))
    };
    let destination = |control| match control {
        Ok(Control::Bind(bind)) => bind.destination,
        other => panic!("{other:?}"),
    };
    assert!(matches!(destination(bind(&[("queue", b"\xa1q")])), Destination::Queue(_)));
    assert!(matches!(destination(bind(&[("exchange", b"\xa1x")])), Destination::Exchange(_)));
    let one_is_nil: [(&str, &[u8]); 2] = [("queue", &[0xc0]), ("exchange", b"\xa1x")];
    assert!(matches!(destination(bind(&one_is_nil)), Destination::Exchange(_)));
    for (fields, expected) in [
        (&[("queue", &b"\xa1q"[..]), ("exchange", b"\xa1x")][..], "names both"),
        (&[("exchange", b"\xa1x"), ("queue", b"\xa1q")], "names both"),
        (&[], "names neither"),
    ] {
        match bind(fields) {
            Err(ControlError::Malformed { reason, request: Some(7), .. }) if reason.contains(expected) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn unknown_fields_are_passed_over() {
    let later = rmp_serde::to_vec_named(&nested_tables(VALUE_DEPTH_MAX)).unwrap();
    let payload = map(&[("later", &later), ("request", &[7]), ("even_later", &[0xc3])]);
    assert!(
        matches!(Control::decode(OPEN_CHANNEL, &payload), Ok(Control::OpenChannel(open)) if open.request == 7)
    );
    let properties = Properties::decode(&map(&[("later", &[0xd4, 1, 2]), ("app_id", b"\xa1a")])).unwrap();
    assert_eq!(properties.app_id.as_deref(), Some("a"));
}

#[test]
fn an_error_quotes_only_a_little_of_what_the_peer_sent() {
    let name = "é".repeat(100_000);
    let text = rmp_serde::to_vec(&name).unwrap();
    let cases = [
        map(&[("request", &text), ("queue", b"\xa1q")]),
        map(&[("request", &[7]), ("queue", &[0xc3]), ("passive", &text)]),
        declare(&[b"\x82".as_slice(), &text, &[1], &text, &[2]].concat()),
    ];
    for payload in cases {
        let error = Control::decode(DECLARE_QUEUE, &payload).unwrap_err().to_string();
        assert!(error.len() < 400, "{} bytes", error.len());
    }
}

#[test]
fn metadata_has_a_limit_of_its_own() {
    let with_bytes = |length: usize| {
        let mut value = vec![0xc6];
        value.extend_from_slice(&u32::try_from(length).unwrap().to_be_bytes());
        value.resize(value.len() + length, 0);
        map(&[("later", &value)])
    };
    let overhead = with_bytes(0).len();
    let (fits, too_long) =
        (with_bytes(METADATA_BYTES_MAX - overhead), with_bytes(METADATA_BYTES_MAX - overhead + 1));
    assert_eq!(fits.len(), METADATA_BYTES_MAX);
    assert!(Properties::decode(&fits).is_ok());
    assert!(Properties::decode(&too_long).is_err());
    assert!(Control::decode(0x0a, &fits).is_ok());
    assert!(Control::decode(0x0a, &too_long).is_err());
    for (blob, fine) in [(fits, true), (too_long, false)] {
        let mut payload = vec![0, 0];
        payload.put_u32_le(u32::try_from(blob.len()).unwrap());
        payload.extend_from_slice(&blob);
        assert_eq!(Publish::decode(0, &payload).is_ok(), fine);
    }
    let headers: Table = [("h".to_owned(), Value::Bytes(vec![0; METADATA_BYTES_MAX]))].into();
    assert!(Properties { headers, ..Properties::default() }.encode().is_err(), "refused where it is made");
}

#[test]
fn displaying_a_nested_table_takes_no_more_than_its_size() {
    let mut value = Value::Text("\"\\".repeat(100));
    for _ in 0..VALUE_DEPTH_MAX {
        value = Value::List(vec![value]);
    }
    assert!(value.to_string().len() < 1_000);
}

/// What a payload reads as, by its kind; data frames only.
fn reads(kind: u8, flags: u8, payload: &[u8]) -> bool {
    match kind {
        kind::PUBLISH => Publish::decode(flags, payload).is_ok(),
        kind::DELIVER => Deliver::decode(flags, payload).is_ok(),
        kind::SETTLE | kind::SETTLED => Settle::decode(flags, payload).is_ok(),
        kind::CONFIRM => Confirm::decode(payload).is_ok(),
        kind::RETURN => Return::decode(payload).is_ok(),
        kind::CREDIT => Credit::decode(payload).is_ok(),
        other => Control::decode(other, payload).is_ok(),
    }
}

#[test]
fn a_golden_frame_cut_anywhere_is_incomplete_or_refused() {
    for (name, bytes) in golden_frames() {
        for length in 0..bytes.len() {
            let mut cut = BytesMut::from(&bytes[..length]);
            assert_eq!(Frame::decode(&mut cut, 1 << 20), Ok(None), "{name} cut to {length} bytes");
            assert_eq!(cut, bytes[..length], "nothing is taken off");
        }
        let (header, payload) = bytes.split_at(HEADER_BYTES);
        let (kind, flags) = (header[4], header[5]);
        if kind == kind::HEARTBEAT {
            continue;
        }
        assert!(reads(kind, flags, payload), "{name}");
        for length in 0..payload.len() {
            let legitimate = match kind {
                // The body is what is left, so that a cut in it is a shorter body.
                kind::PUBLISH | kind::DELIVER | kind::RETURN => length >= payload.len() - b"hello".len(),
                // A list of 16-byte entries may have fewer of them.
                kind::SETTLE | kind::SETTLED => payload.len() - length == 16 && payload.len() > 32,
                kind::CONFIRM => length > 0 && length.is_multiple_of(16),
                _ => false,
            };
            assert_eq!(
                reads(kind, flags, &payload[..length]),
                legitimate,
                "{name}: payload cut to {length} bytes"
            );
        }
    }
}

#[test]
fn unknown_flags_and_bytes_too_many_are_refused() {
    for (name, bytes) in golden_frames() {
        let (header, payload) = bytes.split_at(HEADER_BYTES);
        let kind = header[4];
        if matches!(kind, kind::PUBLISH | kind::DELIVER | kind::SETTLE | kind::SETTLED) {
            assert!(!reads(kind, header[5] | 0x80, payload), "{name}");
        }
        if matches!(kind, kind::SETTLE | kind::SETTLED | kind::CONFIRM | kind::CREDIT) || kind < kind::PUBLISH
        {
            assert!(!reads(kind, header[5], &[payload, &[0]].concat()), "{name}");
        }
    }
}

#[test]
fn counts_of_data_frames_are_checked() {
    let ranges = |count: usize| [vec![0; 4], [1, 0, 0, 0, 0, 0, 0, 0].repeat(2 * count)].concat();
    assert!(!reads(kind::SETTLE, 0, &ranges(0)));
    assert!(reads(kind::SETTLE, 0, &ranges(SETTLE_RANGES_MAX)));
    assert!(!reads(kind::SETTLE, 0, &ranges(SETTLE_RANGES_MAX + 1)));
    let keys = |count: u8| [vec![0, 0, count], vec![0; count.into()], vec![0, 0, 0, 0, 0]].concat();
    assert!(reads(kind::PUBLISH, 1 << 5, &keys(64)));
    assert!(!reads(kind::PUBLISH, 1 << 5, &keys(65)));
    let confirm = |first: u64, count: u32, outcome: u8| {
        [&first.to_le_bytes()[..], &count.to_le_bytes(), &[outcome, 0, 0, 0]].concat()
    };
    assert!(reads(kind::CONFIRM, 0, &confirm(1, 1, 2)));
    assert!(reads(kind::CONFIRM, 0, &confirm(u64::MAX - 5, 5, 0)));
    for (first, count, outcome) in [(0, 1, 0), (1, 0, 0), (u64::MAX, 1, 0), (1, 1, 3)] {
        assert!(!reads(kind::CONFIRM, 0, &confirm(first, count, outcome)), "{first} {count} {outcome}");
    }
    let backwards = [vec![0; 4], 2_u64.to_le_bytes().to_vec(), 1_u64.to_le_bytes().to_vec()].concat();
    assert!(!reads(kind::SETTLE, 0, &backwards));
}
