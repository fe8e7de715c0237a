//! Frames of one channel, put together; the refusals are those of RabbitMQ's assembler.

use bytes::{Bytes, BytesMut};
use leveret_protocol::amqp::{
    Assembled, Assembler, AssemblyError, Content, Frame, FrameKind, NO_PROPERTIES, put_header,
};
use leveret_protocol::{Closes, ReplyCode};
use proptest::prelude::*;

use crate::golden::only_frame;

fn frame(kind: FrameKind, payload: impl Into<Bytes>) -> Frame {
    Frame { kind, channel: 1, payload: payload.into() }
}

fn header(body_size: u64) -> Frame {
    let mut out = BytesMut::new();
    put_header(&mut out, 1, body_size, NO_PROPERTIES);
    only_frame(&out)
}

fn body(bytes: &[u8]) -> Frame {
    frame(FrameKind::Body, bytes.to_vec())
}

fn expecting_content() -> Assembler {
    let mut assembler = Assembler::default();
    assembler.expect_content();
    assembler
}

#[test]
fn frames_that_do_not_follow_are_refused_in_rabbitmqs_words() {
    let method = || frame(FrameKind::Method, vec![0, 60, 0, 40]);
    let cases: [(&[Frame], Frame, &str); 7] = [
        (&[], header(1), "expected content body, got non content body frame instead"),
        (&[], method(), "expected content body, got non content body frame instead"),
        (&[body(b"1234")], method(), "expected content body, got non content body frame instead"),
        (&[body(b"1234")], body(b"123456"), ""),
        (&[], body(b""), ""),
        (&[body(b"1234")], body(b"1234567"), "content body frame exceeds remaining content size"),
        (&[], body(&[0; 11]), "content body frame exceeds remaining content size"),
    ];
    for (before, last, expected) in cases {
        let mut assembler = expecting_content();
        assert_eq!(assembler.accept(header(10), 10), Ok(Assembled::Incomplete));
        for frame in before {
            assert_eq!(assembler.accept(frame.clone(), 10), Ok(Assembled::Incomplete));
        }
        let error = assembler.accept(last, 10).err().map(|error| error.to_string());
        assert_eq!(error.unwrap_or_default(), expected);
    }
    let refuse = |frame, mut assembler: Assembler| {
        let error = assembler.accept(frame, 10).unwrap_err();
        assert_eq!((error.reply_code(), error.closes()), (ReplyCode::UnexpectedFrame, Closes::Connection));
        error.to_string()
    };
    let no_method = "expected method frame, got non method frame instead";
    assert_eq!(refuse(header(1), Assembler::default()), no_method);
    assert_eq!(refuse(body(b"x"), Assembler::default()), no_method);
    let no_header = "expected content header for class 60, got non content header frame instead";
    assert_eq!(refuse(method(), expecting_content()), no_header);
    assert_eq!(refuse(body(b"x"), expecting_content()), no_header);
    let other_class = frame(FrameKind::Header, [&[0, 50, 0, 0][..], &[0; 8], NO_PROPERTIES].concat());
    assert_eq!(
        refuse(other_class, expecting_content()),
        "expected content header for class 60, got one for class 50 instead"
    );
}

#[test]
fn a_body_that_is_too_long_is_a_frame_error() {
    let mut assembler = expecting_content();
    assembler.accept(header(1), 10).unwrap();
    let error = assembler.accept(body(b"12"), 10).unwrap_err();
    assert_eq!((error.reply_code(), error.closes()), (ReplyCode::FrameError, Closes::Connection));
}

#[test]
fn a_message_that_is_too_large_closes_its_channel_at_the_header() {
    let error = expecting_content().accept(header(11), 10).unwrap_err();
    assert_eq!(error, AssemblyError::MessageTooLarge { size: 11, limit: 10 });
    assert_eq!(error.to_string(), "message size 11 is larger than configured max size 10");
    assert_eq!((error.reply_code(), error.closes()), (ReplyCode::PreconditionFailed, Closes::Channel));
}

#[test]
fn an_empty_body_needs_no_frame() {
    let content = Content { properties: NO_PROPERTIES.into(), body: Bytes::new() };
    assert_eq!(expecting_content().accept(header(0), 0), Ok(Assembled::Content(content)));
}

#[test]
fn a_promised_body_costs_nothing_until_it_comes() {
    let mut assembler = expecting_content();
    let huge = 1 << 60;
    assert_eq!(assembler.accept(header(huge), u64::MAX), Ok(Assembled::Incomplete));
    assert_eq!(assembler.held_bytes(), NO_PROPERTIES.len());
    for _ in 0..1000 {
        assert_eq!(assembler.accept(body(b""), u64::MAX), Ok(Assembled::Incomplete));
    }
    assert_eq!(assembler.accept(body(&[7; 1000]), u64::MAX), Ok(Assembled::Incomplete));
    assert_eq!(assembler.held_bytes(), NO_PROPERTIES.len() + 1000);
}

#[test]
fn an_unfinished_message_does_not_keep_the_read_buffer() {
    let mut out = BytesMut::new();
    put_header(&mut out, 1, 5, NO_PROPERTIES);
    let frame = Frame::decode(&mut out, 4096).unwrap().unwrap();
    let mut assembler = expecting_content();
    let buffer = frame.payload.clone();
    drop(out);
    assembler.accept(frame, 10).unwrap();
    assert!(buffer.is_unique(), "the assembler holds a slice of it");
}

proptest! {
    #[test]
    fn a_body_in_any_pieces_comes_out_whole(
        pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 1..8),
    ) {
        let whole = pieces.concat();
        let mut assembler = Assembler::default();
        // Twice, because the assembler is used for one message after the other.
        for _ in 0..2 {
            let method = frame(FrameKind::Method, vec![1, 2]);
            prop_assert_eq!(assembler.accept(method, 0), Ok(Assembled::Method(vec![1, 2].into())));
            assembler.expect_content();
            let mut last = assembler.accept(header(whole.len() as u64), whole.len() as u64).unwrap();
            for piece in &pieces {
                if last == Assembled::Incomplete {
                    last = assembler.accept(body(piece), 0).unwrap();
                }
            }
            let content = Content { properties: NO_PROPERTIES.into(), body: whole.clone().into() };
            prop_assert_eq!(last, Assembled::Content(content));
            prop_assert_eq!(assembler.held_bytes(), 0);
        }
    }
}
