//! What breaks the protocol on an open connection: the frames of a message out of order, and frames that are none.

use leveret_tests::amqp::{
    BODY, HEADER, HEARTBEAT, METHOD, Peer, Properties, Target, close, frame_bytes, header_payload,
    method_bytes, method_payload,
};
use leveret_tests::fields;

fn publish() -> Vec<u8> {
    method_bytes(1, "basic.publish", &fields!["", "nowhere", false, false])
}

fn header(length: u64) -> Vec<u8> {
    frame_bytes(HEADER, 1, &header_payload(length, &Properties::default()))
}

fn body(body: &[u8]) -> Vec<u8> {
    frame_bytes(BODY, 1, body)
}

/// A header of a class that has no messages.
fn header_of_queue() -> Vec<u8> {
    let mut payload = header_payload(0, &Properties::default());
    payload[1] = 50;
    frame_bytes(HEADER, 1, &payload)
}

fn with_frame_end(mut frame: Vec<u8>, end: u8) -> Vec<u8> {
    *frame.last_mut().unwrap() = end;
    frame
}

async fn closed_by(target: &Target, bytes: &[u8]) -> (u16, String, String) {
    let mut peer: Peer = target.peer().await;
    peer.write(bytes).await;
    let closed = peer.end().await.unwrap_or(close(0, "", ""));
    (closed.code, closed.text, closed.method)
}

#[tokio::test]
async fn frames_of_a_message_out_of_order_are_505() {
    let target = Target::start().await;
    let qos = method_bytes(1, "basic.qos", &fields![0, 0, false]);
    let non_header = "expected content header for class 60, got non content header frame instead";
    let non_body = "expected content body, got non content body frame instead";
    let cases: [(&str, Vec<u8>, &str, &str); 7] = [
        ("a method instead of the header", [publish(), qos.clone()].concat(), non_header, "basic.publish"),
        ("a body instead of the header", [publish(), body(b"x")].concat(), non_header, "basic.publish"),
        (
            "a header of another class",
            [publish(), header_of_queue()].concat(),
            "expected content header for class 60, got one for class 50 instead",
            "basic.publish",
        ),
        ("a method instead of the body", [publish(), header(5), qos].concat(), non_body, "basic.publish"),
        ("a second header", [publish(), header(5), header(5)].concat(), non_body, "basic.publish"),
        ("a header without a publish", header(5), "expected method frame, got non method frame instead", ""),
        ("a body without a publish", body(b"x"), "expected method frame, got non method frame instead", ""),
    ];
    let mut wrong = Vec::new();
    for (what, bytes, text, method) in cases {
        let closed = closed_by(&target, &bytes).await;
        if closed != (505, format!("UNEXPECTED_FRAME - {text}"), method.to_owned()) {
            wrong.push(format!("{what}: {closed:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn a_body_that_is_longer_than_its_header_says_ends_the_connection() {
    let target = Target::start().await;
    let qos = method_bytes(1, "basic.qos", &fields![0, 0, false]);
    let closed = closed_by(&target, &[publish(), header(2), body(b"abc"), qos].concat()).await;
    let why = "RabbitMQ notices a body that is too long only by the method behind it";
    assert_eq!(closed.0, target.differs(505, 501, why), "{closed:?}");
}

#[tokio::test]
async fn frames_that_are_none_are_501() {
    let target = Target::start().await;
    let open = method_bytes(2, "channel.open", &[]);
    let cases: [(&str, Vec<u8>); 6] = [
        ("an end that is none", with_frame_end(open.clone(), 0)),
        ("an end that is none, of a heartbeat", with_frame_end(frame_bytes(HEARTBEAT, 0, b""), 0)),
        ("a kind that is none", frame_bytes(4, 1, b"")),
        ("a kind that is none on channel 0", frame_bytes(9, 0, b"x")),
        ("a length above the limit", [&[METHOD, 0, 1], &131_073_u32.to_be_bytes()[..]].concat()),
        ("a length of all ones", [&[METHOD, 0, 1], &u32::MAX.to_be_bytes()[..]].concat()),
    ];
    let mut wrong = Vec::new();
    for (what, bytes) in cases {
        let closed = closed_by(&target, &bytes).await;
        if closed.0 != 501 || !closed.1.starts_with("FRAME_ERROR - ") {
            wrong.push(format!("{what}: {closed:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn methods_that_are_none_end_the_connection() {
    let target = Target::start().await;
    let mut cut = method_payload("basic.qos", &fields![0, 0, false]);
    cut.pop();
    let mut long = method_payload("basic.qos", &fields![0, 0, false]);
    long.push(0);
    let silent = "RabbitMQ hangs up without a word on a method that does not exist";
    let syntax = "what cannot be decoded is a syntax error (502), and RabbitMQ says 501";
    let cases: [(&str, Vec<u8>, u16); 7] = [
        ("a class that is none", vec![0, 77, 0, 10], target.differs(0, 540, silent)),
        ("a method that is none", vec![0, 60, 0, 99], target.differs(0, 540, silent)),
        ("no bytes", vec![], target.differs(501, 502, syntax)),
        ("half an id", vec![0, 60], target.differs(501, 502, syntax)),
        ("arguments that are cut", cut, target.differs(501, 502, syntax)),
        ("arguments that are too many", long, target.differs(501, 502, syntax)),
        ("a method of the broker", method_payload("basic.qos-ok", &[]), 503),
    ];
    let mut wrong = Vec::new();
    for (what, payload, code) in cases {
        let closed = closed_by(&target, &frame_bytes(METHOD, 1, &payload)).await;
        if closed.0 != code {
            wrong.push(format!("{what}: {closed:?} instead of {code}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn tables_that_are_none_end_the_connection() {
    let target = Target::start().await;
    let declare = |table: &[u8]| {
        let mut payload = vec![0, 50, 0, 10, 0, 0, 1, b'q', 0];
        payload.extend((table.len() as u32).to_be_bytes());
        payload.extend(table);
        frame_bytes(METHOD, 1, &payload)
    };
    let cases: [(&str, &[u8]); 6] = [
        ("a tag that is none", b"\x01aZ\0"),
        ("a text that is cut", b"\x01aS\0\0\0\x09x"),
        ("a name that is cut", b"\x09a"),
        ("an array that is longer than the table", b"\x01aA\0\0\0\x09"),
        ("a table of all ones", b"\x01aF\xff\xff\xff\xff"),
        ("a name and nothing", b"\x01a"),
    ];
    let code = target.differs(0, 502, "RabbitMQ hangs up without a word on a table that is none");
    let mut wrong = Vec::new();
    for (what, table) in cases {
        let closed = closed_by(&target, &declare(table)).await;
        if closed.0 != code {
            wrong.push(format!("{what}: {closed:?} instead of {code}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn content_and_heartbeats_have_their_channels() {
    let target = Target::start().await;
    let misplaced = method_bytes(0, "basic.publish", &fields!["", "q", false, false]);
    let cases: [(&str, Vec<u8>, u16); 4] = [
        ("a header on channel 0", frame_bytes(HEADER, 0, &header_payload(0, &Properties::default())), 505),
        ("a body on channel 0", frame_bytes(BODY, 0, b"x"), 505),
        ("a publish on channel 0", misplaced, 504),
        ("a heartbeat on channel 1", frame_bytes(HEARTBEAT, 1, b""), 505),
    ];
    let mut wrong = Vec::new();
    for (what, bytes, code) in cases {
        let closed = closed_by(&target, &bytes).await;
        if closed.0 != code {
            wrong.push(format!("{what}: {closed:?} instead of {code}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
