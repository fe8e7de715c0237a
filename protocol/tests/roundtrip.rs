//! What is written is read as the same, for random frames of every kind; and random bytes never panic.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by a panic, in its helper functions too"
)]

#[path = "../../fuzz/fuzz_targets/shared.rs"]
mod shared;
mod strategies;
mod support;

use std::collections::BTreeSet;
use std::sync::LazyLock;

use bytes::{Bytes, BytesMut};
use leveret_protocol::{
    Confirm, Control, ControlError, Credit, Death, DeathHistory, DeathReason, DeathSummary, Deliver,
    DeliverParts, ExchangeName, Frame, Keys, NAME_BYTES_MAX, Outcome, Properties, Publish, PublishParts,
    QueueName, ReplyCode, Return, Route, RoutingKey, Settle, SettleParts, VALUE_DEPTH_MAX, Value, Verb,
    VhostName, check_name, kind,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::strategy::{Union, ValueTree};
use proptest::test_runner::TestRunner;
use strategies::{controls, name, table, value};
use support::golden_frames;

/// The one frame that `encode` writes.
fn written(encode: impl FnOnce(&mut BytesMut)) -> Frame {
    let mut out = BytesMut::new();
    encode(&mut out);
    let frame = Frame::decode(&mut out, usize::MAX).unwrap().unwrap();
    assert!(out.is_empty());
    frame
}

fn blob() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..200)
}

fn strs(strings: &[String]) -> Vec<&str> {
    strings.iter().map(String::as_str).collect()
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        any::<u16>().prop_map(Outcome::Routed),
        Just(Outcome::Unroutable),
        any::<u16>().prop_map(|code| Outcome::Refused(ReplyCode::from(code))),
    ]
}

fn verb() -> impl Strategy<Value = Verb> {
    prop_oneof![Just(Verb::Ack), Just(Verb::Requeue), Just(Verb::Release), Just(Verb::Reject)]
}

fn range() -> impl Strategy<Value = (u64, u64)> {
    (any::<u64>(), any::<u64>()).prop_map(|(a, b)| (a.min(b), a.max(b)))
}

#[test]
fn every_kind_of_control_frame_has_a_strategy() {
    let mut runner = TestRunner::deterministic();
    let made: BTreeSet<u8> =
        controls().iter().map(|strategy| strategy.new_tree(&mut runner).unwrap().current().kind()).collect();
    let all: BTreeSet<u8> = (0..=u8::MAX)
        .filter(|kind| !matches!(Control::decode(*kind, &[]), Err(ControlError::UnknownKind { .. })))
        .collect();
    assert_eq!(made, all);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn control_frames(control in Union::new(controls()), channel: u16) {
        let frame = control.to_frame(channel).unwrap();
        prop_assert_eq!(&written(|out| control.encode(channel, out).unwrap()), &frame);
        prop_assert_eq!((frame.kind, frame.flags, frame.channel), (control.kind(), 0, channel));
        prop_assert_eq!(Control::decode(frame.kind, &frame.payload), Ok(control));
    }
}

proptest! {
    #[test]
    fn frames(kind: u8, flags: u8, channel: u16, payload in blob(), cut in 0_usize..208) {
        let frame = Frame { kind, flags, channel, payload: Bytes::from(payload) };
        let mut stream = BytesMut::new();
        frame.encode(&mut stream);
        frame.encode(&mut stream);
        // The bytes come in two reads.
        let rest = stream.split_off(cut.min(stream.len()));
        let mut seen = Vec::new();
        for part in [stream.split(), rest] {
            stream.unsplit(part);
            while let Some(frame) = Frame::decode(&mut stream, 200).unwrap() {
                seen.push(frame);
            }
        }
        prop_assert_eq!(seen, [frame.clone(), frame]);
    }

    #[test]
    fn publishes(
        names in option::of((name(), name())),
        (alias, mandatory, persistent) in any::<(u32, bool, bool)>(),
        priority: Option<u8>,
        ttl_ms: Option<u64>,
        (cc, bcc) in (vec(name(), 0..4), vec(name(), 0..4)),
        (properties, body) in (blob(), blob()),
    ) {
        let route = match &names {
            Some((exchange, routing_key)) => Route::Named { exchange, routing_key },
            None => Route::Alias(alias),
        };
        let (cc, bcc) = (strs(&cc), strs(&bcc));
        let (properties, body) = (properties.as_slice(), body.as_slice());
        let parts = PublishParts {
            route, mandatory, persistent, priority, ttl_ms, cc: &cc, bcc: &bcc, properties, body,
        };
        let frame = written(|out| _ = parts.encode(3, out));
        let publish = Publish::decode(frame.flags, &frame.payload).unwrap();
        prop_assert_eq!(publish.cc.iter().collect::<Vec<_>>(), cc);
        prop_assert_eq!(publish.bcc.iter().collect::<Vec<_>>(), bcc);
        prop_assert_eq!((publish.properties(), publish.body()), (properties, body));
        let expected = Publish {
            route, mandatory, persistent, priority, ttl_ms, cc: publish.cc, bcc: publish.bcc,
            properties_bytes: properties.len(), content: &[properties, body].concat(),
        };
        prop_assert_eq!(publish, expected);
    }

    #[test]
    fn deliveries(
        (consumer, tag, published_at_ms) in any::<(u32, u64, u64)>(),
        redelivered: Option<u32>,
        persistent: bool,
        priority: Option<u8>,
        ttl_ms: Option<u64>,
        (exchange, routing_key, cc) in (name(), name(), vec(name(), 0..4)),
        (deaths, properties, body) in (blob(), blob(), blob()),
    ) {
        let deliver = Deliver {
            consumer, tag, redelivered, persistent, priority, ttl_ms, published_at_ms, exchange: &exchange,
            routing_key: &routing_key, cc: Keys::default(), deaths: &deaths, properties: &properties, body: &body,
        };
        let cc = strs(&cc);
        let frame = written(|out| _ = DeliverParts { deliver, cc: cc.iter().copied() }.encode(3, out));
        let read = Deliver::decode(frame.flags, &frame.payload).unwrap();
        prop_assert_eq!(read.cc.iter().collect::<Vec<_>>(), cc);
        prop_assert_eq!(read, Deliver { cc: read.cc, ..deliver });
    }

    #[test]
    fn settles(
        (consumer, confirm, settled) in any::<(u32, bool, bool)>(),
        verb in verb(),
        note in option::of(name()),
        ranges in vec(range(), 1..6),
    ) {
        let parts = SettleParts { consumer, verb, confirm, note: note.as_deref(), ranges: &ranges };
        let frame_kind = if settled { kind::SETTLED } else { kind::SETTLE };
        let frame = written(|out| parts.encode(frame_kind, 3, out));
        prop_assert_eq!(frame.kind, frame_kind);
        let settle = Settle::decode(frame.flags, &frame.payload).unwrap();
        prop_assert_eq!((settle.consumer, settle.verb, settle.confirm), (consumer, verb, confirm));
        prop_assert_eq!(settle.note, note.as_deref());
        prop_assert_eq!(settle.ranges.iter().collect::<Vec<_>>(), ranges);
    }

    #[test]
    fn a_note_that_is_too_long_is_cut_between_characters(note in "[a-zà-ÿ€😀]{60,300}") {
        let ranges = &[(1, 1)];
        let parts = SettleParts { consumer: 1, verb: Verb::Reject, confirm: false, note: Some(&note), ranges };
        let frame = written(|out| parts.encode(kind::SETTLE, 3, out));
        let cut = Settle::decode(frame.flags, &frame.payload).unwrap().note.unwrap();
        prop_assert!(note.starts_with(cut));
        prop_assert!(cut.len() == note.len() || (NAME_BYTES_MAX - 3..=NAME_BYTES_MAX).contains(&cut.len()));
    }

    #[test]
    fn confirms(confirms in vec((1_u64..1 << 60, 1_u32.., outcome()), 1..6)) {
        let confirms: Vec<_> =
            confirms.into_iter().map(|(first, count, outcome)| Confirm { first, count, outcome }).collect();
        let frame = written(|out| Confirm::encode(&confirms, 3, out));
        prop_assert_eq!(Confirm::decode(&frame.payload).unwrap().collect::<Vec<_>>(), confirms);
    }

    #[test]
    fn returns_and_credits(
        (number, code, consumer, messages) in any::<(u64, u16, u32, u32)>(),
        (exchange, routing_key) in (name(), name()),
        (properties, body) in (blob(), blob()),
    ) {
        let code = ReplyCode::from(code);
        let (properties, body) = (properties.as_slice(), body.as_slice());
        let returned = Return { number, code, exchange: &exchange, routing_key: &routing_key, properties, body };
        let frame = written(|out| returned.encode(3, out));
        prop_assert_eq!(Return::decode(&frame.payload), Ok(returned));
        let credit = Credit { consumer, messages };
        prop_assert_eq!(Credit::decode(&written(|out| credit.encode(3, out)).payload), Ok(credit));
    }

    #[test]
    fn values(value in value()) {
        let bytes = rmp_serde::to_vec_named(&value).unwrap();
        prop_assert_eq!(rmp_serde::from_slice::<Value>(&bytes).unwrap(), value);
    }

    #[test]
    fn properties(
        texts in proptest::array::uniform8(option::of(any::<String>())),
        timestamp: Option<i64>,
        headers in table(),
    ) {
        let [content_type, content_encoding, correlation_id, reply_to, message_id, kind, user_id, app_id] = texts;
        let properties = Properties {
            content_type, content_encoding, correlation_id, reply_to, message_id, timestamp, kind, user_id, app_id,
            headers,
        };
        prop_assert_eq!(Properties::decode(&properties.encode().unwrap()), Ok(properties));
    }

    #[test]
    fn death_histories(
        deaths in vec((name(), 0..4_usize, any::<u64>(), vec(name(), 0..3), any::<Option<u64>>()), 1..5),
        note: Option<String>,
    ) {
        use DeathReason::{DeliveryLimit, Expired, Maxlen, Rejected};
        let deaths: Vec<_> = deaths.into_iter().map(|(name, reason, count, keys, original_ttl_ms)| Death {
            queue: QueueName::new(&name).unwrap(),
            reason: [Rejected, Expired, Maxlen, DeliveryLimit][reason],
            count,
            first_at_ms: count,
            exchange: ExchangeName::new(&name).unwrap(),
            routing_keys: keys.iter().map(|key| RoutingKey::new(key).unwrap()).collect(),
            original_ttl_ms,
            note: note.clone(),
        }).collect();
        let Death { queue, reason, exchange, .. } = deaths[0].clone();
        let last = DeathSummary { queue, reason, exchange };
        let history = DeathHistory { deaths, first: last.clone(), last };
        prop_assert_eq!(DeathHistory::decode(&history.encode().unwrap()), Ok(history));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn random_bytes_break_no_promise(input in vec(any::<u8>(), 0..300)) {
        shared::frame(&input);
        shared::control(&input);
        shared::data(&input);
        shared::value(&input);
    }

    /// Random bytes rarely get past the first field; golden frames with a few bytes changed do.
    #[test]
    fn golden_frames_with_changed_bytes_break_no_promise(
        which: prop::sample::Index,
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        static GOLDEN: LazyLock<Vec<(String, Vec<u8>)>> = LazyLock::new(golden_frames);
        let mut bytes = which.get(&GOLDEN).1.clone();
        for (at, byte) in changes {
            *at.get_mut(&mut bytes) = byte;
        }
        shared::frame(&bytes);
        shared::control(&[&bytes[4..5], &bytes[8..]].concat());
        shared::data(&[&bytes[4..6], &bytes[8..]].concat());
        shared::value(&bytes[8..]);
    }
}

#[test]
fn names_have_255_bytes_and_no_more() {
    // As ASCII, and as characters of two and of three bytes, where 255 is not the number of characters.
    for (fits, too_long) in [
        ("q".repeat(255), "q".repeat(256)),
        ("é".repeat(127) + "q", "é".repeat(128)),
        ("€".repeat(85), "€".repeat(85) + "q"),
    ] {
        assert_eq!((fits.len(), too_long.len()), (NAME_BYTES_MAX, NAME_BYTES_MAX + 1));
        assert!(check_name("name", &fits).is_ok() && check_name("name", &too_long).is_err());
        assert!(QueueName::new(&fits).is_ok() && QueueName::new(&too_long).is_err());
        assert!(ExchangeName::new(&fits).is_ok() && ExchangeName::new(&too_long).is_err());
        assert!(RoutingKey::new(&fits).is_ok() && RoutingKey::new(&too_long).is_err());
        assert!(VhostName::new(&fits).is_ok() && VhostName::new(&too_long).is_err());
        for (name, fine) in [(&fits, true), (&too_long, false)] {
            let fields = [("request", Value::Int(7)), ("queue", name.as_str().into())];
            let payload =
                rmp_serde::to_vec_named(&fields.into_iter().collect::<std::collections::BTreeMap<_, _>>());
            match Control::decode(0x24, &payload.unwrap()) {
                Ok(_) => assert!(fine),
                Err(ControlError::Malformed { reason, request, .. }) => {
                    assert!(!fine && reason.contains("256") && request == Some(7), "{reason}");
                }
                Err(other) => panic!("{other}"),
            }
        }
        let route = Route::Named { exchange: &fits, routing_key: &fits };
        let parts = PublishParts {
            route,
            mandatory: false,
            persistent: false,
            priority: None,
            ttl_ms: None,
            cc: &[],
            bcc: &[],
            properties: &[],
            body: &[],
        };
        let frame = written(|out| _ = parts.encode(1, out));
        assert_eq!(Publish::decode(frame.flags, &frame.payload).unwrap().route, route);
    }
}

#[test]
fn the_depth_that_is_written_is_the_depth_that_is_read() {
    // `hostile.rs` has the other side: one level more is refused both ways.
    let mut value = Value::Int(1);
    for _ in 1..VALUE_DEPTH_MAX {
        value = Value::List(vec![value]);
    }
    let properties = Properties { headers: [("h".to_owned(), value)].into(), ..Properties::default() };
    assert_eq!(Properties::decode(&properties.encode().unwrap()), Ok(properties));
}
