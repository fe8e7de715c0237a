//! What is read and written in one go is what frames say one by one.

use bytes::BytesMut;
use leveret_protocol::amqp::basic::{self, Basic};
use leveret_protocol::amqp::{
    ACK_FRAME_BYTES, BasicProperties, FRAME_OVERHEAD_BYTES, Frame, FrameKind, Method, WholePublish, peek_ack,
    put_body, put_deliver, put_header, put_method,
};
use proptest::prelude::*;

const FRAME_MAX: usize = 4096;
const BODY_BYTES_MAX: u64 = 8192;

/// The frames of a publish, the body in as many as it needs.
fn publish(channel: u16, method: basic::Publish<'_>, properties: &[u8], body: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    put_method(&mut out, channel, method);
    put_header(&mut out, channel, body.len() as u64, properties);
    put_body(&mut out, channel, FRAME_MAX, body);
    out.to_vec()
}

fn peek(bytes: &[u8]) -> Option<WholePublish<'_>> {
    WholePublish::peek(bytes, FRAME_MAX, BODY_BYTES_MAX)
}

fn properties(message_id: Option<&[u8]>, delivery_mode: Option<u8>) -> Vec<u8> {
    BasicProperties { message_id, delivery_mode, ..BasicProperties::default() }.to_bytes().to_vec()
}

/// A name of up to 255 bytes.
fn name() -> impl Strategy<Value = String> {
    prop_oneof!["", "[a-z.]{1,20}", "[a-zäß]{100,127}"]
}

proptest! {
    #[test]
    fn a_publish_in_three_frames_is_seen_only_when_it_is_all_there(
        channel in 1..=u16::MAX,
        (exchange, routing_key) in (name(), name()),
        (mandatory, immediate) in any::<(bool, bool)>(),
        message_id in prop::option::of(prop::collection::vec(any::<u8>(), 0..200)),
        delivery_mode in any::<Option<u8>>(),
        body in prop::collection::vec(any::<u8>(), 0..300),
        behind in prop::collection::vec(any::<u8>(), 0..30),
    ) {
        let method = basic::Publish { exchange: &exchange, routing_key: &routing_key, mandatory, immediate };
        let properties = properties(message_id.as_deref(), delivery_mode);
        let mut bytes = publish(channel, method, &properties, &body);
        let length = bytes.len();
        for cut in 0..length {
            prop_assert_eq!(peek(&bytes[..cut]), None);
        }
        bytes.extend_from_slice(&behind);
        let expected =
            WholePublish { channel, publish: method, properties: &properties, body: &body, bytes: length };
        prop_assert_eq!(peek(&bytes), Some(expected));
    }

    #[test]
    fn whatever_is_changed_in_a_publish_is_not_seen_or_is_what_its_frames_say(
        body in prop::collection::vec(any::<u8>(), 0..20),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let method = basic::Publish { routing_key: "orders", ..basic::Publish::default() };
        let mut bytes = publish(1, method, &properties(Some(b"7"), Some(2)), &body);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(whole) = peek(&bytes) {
            let WholePublish { channel, publish: method, properties, body, .. } = whole;
            let again = publish(channel, method, properties, body);
            // Reserved fields and bits may be anything, and are not kept.
            prop_assert_eq!(again.len(), whole.bytes);
            prop_assert_eq!(peek(&again), Some(whole));
        }
    }

    #[test]
    fn an_acknowledgement_is_seen_when_it_is_all_there_and_nothing_else_is(
        channel in any::<u16>(),
        (delivery_tag, multiple) in any::<(u64, bool)>(),
        behind in prop::collection::vec(any::<u8>(), 0..30),
        change in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
    ) {
        let ack = basic::Ack { delivery_tag, multiple };
        let mut out = BytesMut::new();
        put_method(&mut out, channel, ack);
        prop_assert_eq!(out.len(), ACK_FRAME_BYTES);
        for cut in 0..out.len() {
            prop_assert_eq!(peek_ack(&out[..cut]), None);
        }
        out.extend_from_slice(&behind);
        prop_assert_eq!(peek_ack(&out), Some((channel, ack)));
        if let Some((at, byte)) = change {
            out[at.index(ACK_FRAME_BYTES)] = byte;
        }
        let seen = peek_ack(&out);
        let said = Frame::decode(&mut out, FRAME_MAX).ok().flatten();
        let said = said.and_then(|frame| match (frame.kind, Method::decode(&frame.payload)) {
            (FrameKind::Method, Ok(Method::Basic(Basic::Ack(ack)))) => Some((frame.channel, ack)),
            _ => None,
        });
        prop_assert_eq!(seen, said);
    }

    #[test]
    fn a_delivery_is_written_as_its_three_parts(
        channel in any::<u16>(),
        (consumer_tag, exchange, routing_key) in (name(), name(), prop_oneof![name(), "[xä]{200,400}"]),
        (delivery_tag, redelivered) in any::<(u64, bool)>(),
        body_bytes in prop_oneof![0..10_usize, 3 * FRAME_MAX - 20..3 * FRAME_MAX + 20],
    ) {
        let deliver = basic::Deliver {
            consumer_tag: &consumer_tag,
            delivery_tag,
            redelivered,
            exchange: &exchange,
            routing_key: &routing_key,
        };
        let (properties, body) = (properties(None, Some(2)), vec![7; body_bytes]);
        let (mut together, mut apart) = (BytesMut::new(), BytesMut::new());
        put_deliver(&mut together, channel, &deliver, &properties, body.len() as u64);
        put_body(&mut together, channel, FRAME_MAX, &body);
        put_method(&mut apart, channel, deliver);
        put_header(&mut apart, channel, body.len() as u64, &properties);
        put_body(&mut apart, channel, FRAME_MAX, &body);
        prop_assert_eq!(together, apart);
    }
}

#[test]
fn what_is_not_just_as_expected_is_left_to_the_frames() {
    let method = basic::Publish { routing_key: "orders", ..basic::Publish::default() };
    let none = properties(None, None);
    let in_two_frames = publish(1, method, &none, &vec![7; FRAME_MAX]);
    assert_eq!(peek(&in_two_frames), None);
    let largest = vec![7; FRAME_MAX - FRAME_OVERHEAD_BYTES];
    assert!(peek(&publish(1, method, &none, &largest)).is_some());
    assert_eq!(WholePublish::peek(&publish(1, method, &none, b"123"), FRAME_MAX, 2), None, "too large");
    let mut other_method = BytesMut::new();
    put_method(&mut other_method, 1, basic::Ack { delivery_tag: 1, multiple: false });
    assert_eq!(peek(&other_method), None);
    let [first, second] = [1, 2].map(|channel| publish(channel, method, &none, b"123"));
    let header_at = first.len() - (7 + 14 + 1) - (7 + 3 + 1);
    let mixed = [&first[..header_at], &second[header_at..]].concat();
    assert_eq!(peek(&mixed), None, "the content of another channel");
}
