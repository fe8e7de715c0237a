//! Bytes that no client should send: a clear refusal, that connection closed, and nobody else troubled.

use bytes::{BufMut, BytesMut};
use leveret_protocol::{Closed, Control, Frame, ReplyCode, kind, opening};
use leveret_tests::{Peer, broker, table};
use proptest::collection::vec;
use proptest::prelude::any;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, TestRunner};

fn frame(frame_kind: u8, flags: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    Frame { kind: frame_kind, flags, channel, payload: payload.to_vec().into() }.encode(&mut bytes);
    bytes.to_vec()
}

fn control(channel: u16, control: impl Into<Control>) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    control.into().encode(channel, &mut bytes).unwrap();
    bytes.to_vec()
}

fn settle(ranges: &[(u64, u64)]) -> Vec<u8> {
    let mut payload = BytesMut::new();
    payload.put_u32_le(1);
    for (first, last) in ranges {
        payload.put_u64_le(*first);
        payload.put_u64_le(*last);
    }
    payload.to_vec()
}

/// What comes on an open connection, and the code of the close that answers it.
fn violations() -> Vec<(&'static str, Vec<u8>, ReplyCode)> {
    use ReplyCode::{ChannelError, FrameError, SyntaxError, UnexpectedFrame};
    let header = |length: u32| {
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend([kind::PUBLISH, 0, 1, 0]);
        bytes
    };
    let declare = |channel| control(channel, leveret_tests::declare_queue(1, "q", false, table! {}));
    let done =
        leveret_protocol::Done { request: 1, queue: None, messages: None, consumers: None, found: None };
    vec![
        ("a length above the limit", header(u32::MAX), FrameError),
        ("a length one above the limit", header((16 << 20) + 1), FrameError),
        ("an unknown control frame", frame(0x3f, 0, 1, &[0x80]), FrameError),
        ("an unknown data frame", frame(0x7f, 0, 1, b"?"), FrameError),
        ("the highest kind", frame(0xff, 0, 1, b""), FrameError),
        ("a heartbeat with a payload", frame(kind::HEARTBEAT, 0, 0, b"x"), FrameError),
        ("a heartbeat on a channel", frame(kind::HEARTBEAT, 0, 1, b""), FrameError),
        ("a publish that is cut", frame(kind::PUBLISH, 0, 1, b"\x05abc"), FrameError),
        ("an empty publish", frame(kind::PUBLISH, 0, 1, b""), FrameError),
        ("properties that are not there", frame(kind::PUBLISH, 0, 1, b"\0\0\xff\xff\xff\xff"), FrameError),
        ("a credit that is cut", frame(kind::CREDIT, 0, 1, &[1, 0, 0, 0]), FrameError),
        ("a credit that is too long", frame(kind::CREDIT, 0, 1, &[0; 9]), FrameError),
        ("an unknown flag of publish", frame(kind::PUBLISH, 0x40, 1, b"\0\x01q\0\0\0\0"), SyntaxError),
        ("an unknown flag of settle", frame(kind::SETTLE, 0x10, 1, &settle(&[(1, 1)])), SyntaxError),
        ("a name that is not UTF-8", frame(kind::PUBLISH, 0, 1, b"\x01\xff\0\0\0\0\0"), SyntaxError),
        ("65 CC keys", frame(kind::PUBLISH, 0x20, 1, b"\0\x01q\x41\0\0\0\0\0"), SyntaxError),
        ("a settle without ranges", frame(kind::SETTLE, 0, 1, &settle(&[])), SyntaxError),
        ("a settle with half a range", frame(kind::SETTLE, 0, 1, &settle(&[(1, 1)])[..12]), SyntaxError),
        ("a settle backwards", frame(kind::SETTLE, 0, 1, &settle(&[(5, 4)])), SyntaxError),
        ("4,097 ranges", frame(kind::SETTLE, 0, 1, &settle(&[(1, 1); 4097])), SyntaxError),
        ("no MessagePack", frame(0x22, 0, 1, b"\xc1\xc1"), SyntaxError),
        ("a list instead of a map", frame(0x22, 0, 1, b"\x92\x01\xa1q"), SyntaxError),
        ("a request without a number", frame(0x22, 0, 1, b"\x81\xa5queue\xa1q"), SyntaxError),
        ("an empty control frame", frame(0x22, 0, 1, b""), SyntaxError),
        ("a request on a channel that is not open", declare(9), ChannelError),
        (
            "a publish on a channel that is not open",
            frame(kind::PUBLISH, 0, 9, b"\0\x01q\0\0\0\0"),
            ChannelError,
        ),
        ("a channel's request on channel 0", declare(0), UnexpectedFrame),
        ("a publish on channel 0", frame(kind::PUBLISH, 0, 0, b"\0\x01q\0\0\0\0"), UnexpectedFrame),
        ("a connection's frame on a channel", control(1, Closed {}), UnexpectedFrame),
        ("a frame of the broker: Done", control(1, done), UnexpectedFrame),
        ("a frame of the broker: deliver", frame(kind::DELIVER, 0, 1, b""), UnexpectedFrame),
        ("a frame of the broker: confirm", frame(kind::CONFIRM, 0, 1, b""), UnexpectedFrame),
        (
            "a frame of the handshake",
            control(0, leveret_protocol::Response { data: vec![] }),
            UnexpectedFrame,
        ),
    ]
}

#[tokio::test]
async fn what_breaks_the_protocol_closes_its_connection_with_a_code_and_no_other() {
    let broker = broker().await;
    let mut other = Peer::connect(&broker).await;
    other.queue("q", table! {}).await;
    let mut wrong = Vec::new();
    for (what, bytes, expected) in violations() {
        let mut peer = Peer::connect(&broker).await;
        peer.consume("q", 1).await;
        peer.try_write(&bytes).await;
        let close = peer.closed().await;
        if close.code != expected || close.text.is_empty() {
            wrong.push(format!("{what}: {} instead of {expected}: {}", close.code, close.text));
        }
        other.fill("q", &["x"]).await;
        other.purge("q").await;
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(other.counts("q").await.unwrap(), (0, 0), "all their consumers are gone");
}

#[tokio::test]
async fn a_malformed_request_with_a_number_fails_alone() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    let cases: [(u8, &[u8]); 5] = [
        (0x22, b"\x82\xa7request\xcd\x03\x85\xa5queue\x07"),
        (0x22, b"\x81\xa7request\xcd\x03\x85"),
        (0x22, b"\x82\xa7request\xcd\x03\x85\xa5queue\xa2a\x07"),
        (0x25, b"\x83\xa7request\xcd\x03\x85\xa6source\xa1e\xa5other\xa1q"),
        (0x25, b"\x84\xa7request\xcd\x03\x85\xa6source\xa1e\xa5queue\xa1q\xa8exchange\xa1e"),
    ];
    for (frame_kind, payload) in cases {
        peer.write_frame(frame_kind, 0, 1, payload).await;
        let failed = peer.answer(1, 901).await.unwrap_err();
        assert_eq!(failed.code, ReplyCode::SyntaxError, "{payload:?}");
        assert!(failed.text.len() <= 400, "{}", failed.text);
    }
    peer.queue("q", table! {}).await;
}

#[tokio::test]
async fn what_breaks_the_protocol_in_the_handshake_is_refused() {
    let broker = broker().await;
    let cases: [(&str, Vec<u8>, ReplyCode); 5] = [
        ("a frame above 8 KiB", frame(0x02, 0, 0, &[0; 8193]), ReplyCode::FrameError),
        ("an unknown kind", frame(0x3f, 0, 0, &[0x80]), ReplyCode::FrameError),
        ("no MessagePack", frame(0x02, 0, 0, b"\xc1"), ReplyCode::SyntaxError),
        ("a publish", frame(kind::PUBLISH, 0, 0, b"\0\x01q\0\0\0\0"), ReplyCode::CommandInvalid),
        (
            "on a channel",
            control(1, leveret_protocol::Authenticate { mechanism: "PLAIN".into(), initial: vec![] }),
            ReplyCode::UnexpectedFrame,
        ),
    ];
    let mut wrong = Vec::new();
    for (what, bytes, expected) in cases {
        let mut peer = Peer::socket(&broker).await;
        peer.greet().await;
        peer.try_write(&bytes).await;
        let Control::Close(close) = peer.control().await else { panic!("{what} is refused") };
        if close.code != expected {
            wrong.push(format!("{what}: {} instead of {expected}: {}", close.code, close.text));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn a_connection_that_ends_inside_a_frame_is_a_lost_one() {
    let broker = broker().await;
    let mut other = Peer::connect(&broker).await;
    other.queue("q", table! {}).await;
    for length in 0..opening().len() {
        let mut peer = Peer::socket(&broker).await;
        peer.write(&opening()[..length]).await;
        peer.vanish();
    }
    let publish = frame(kind::PUBLISH, 0, 1, b"\0\x01q\0\0\0\0body");
    for length in 1..publish.len() {
        let mut peer = Peer::connect(&broker).await;
        peer.consume_some("q", 1, 1).await;
        other.fill("q", &["held"]).await;
        assert_eq!(peer.delivery(1).await.body, "held");
        peer.write(&publish[..length]).await;
        peer.vanish();
        other.consume("q", 1).await;
        let back = other.delivery(1).await;
        assert_eq!((back.body.as_str(), back.redelivered), ("held", Some(1)), "after {length} bytes");
        other.settle(&back, leveret_protocol::Verb::Ack).await;
        other.cancel(1).await;
    }
    assert_eq!(other.ready("q").await, 0, "half a publish is none");
}

#[test]
fn no_bytes_trouble_anybody_else() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::default() });
    let bytes = vec(any::<u8>(), 1..300);
    // Frames with a header that fits, too, so that the payload is looked at.
    let one_frame = (any::<u8>(), any::<u8>(), 0..3_u16, vec(any::<u8>(), 0..100))
        .prop_map(|(frame_kind, flags, channel, payload)| frame(frame_kind, flags, channel, &payload));
    runtime.block_on(async {
        let broker = broker().await;
        let mut other = Peer::connect(&broker).await;
        other.queue("q", table! {}).await;
        for round in 0..150 {
            let raw = bytes.new_tree(&mut runner).unwrap().current();
            let frames = vec(one_frame.clone(), 1..5).new_tree(&mut runner).unwrap().current().concat();
            let sent = if round % 3 == 0 { raw } else { frames };
            let mut peer =
                if round % 2 == 0 { Peer::connect(&broker).await } else { Peer::socket(&broker).await };
            peer.try_write(&sent).await;
            peer.vanish();
            other.fill("q", &["x"]).await;
            assert_eq!(other.drain("q").await, ["x"], "after {sent:?}");
        }
    });
}
