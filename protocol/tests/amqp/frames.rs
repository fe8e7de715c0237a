//! Framing: limits, ends, pieces.

use bytes::{BufMut, Bytes, BytesMut};
use leveret_protocol::ReplyCode;
use leveret_protocol::amqp::{
    FRAME_OVERHEAD_BYTES, Frame, FrameError, FrameKind, put_body, put_header, put_heartbeat,
};

use crate::golden::{self, blocks, bytes_of, only_frame};

fn head(kind: u8, channel: u16, length: u32) -> BytesMut {
    let mut buffer = BytesMut::new();
    buffer.put_u8(kind);
    buffer.put_u16(channel);
    buffer.put_u32(length);
    buffer
}

#[test]
fn content_frames_are_written_as_pika_writes_them() {
    for name in ["every property", "some properties", "no properties"] {
        let bytes = bytes_of("content.hex", name);
        let frame = only_frame(&bytes);
        assert_eq!((frame.kind, frame.channel), (FrameKind::Header, 258));
        let header = leveret_protocol::amqp::ContentHeader::decode(&frame.payload).unwrap();
        let mut out = BytesMut::new();
        put_header(&mut out, 258, header.body_size, &header.properties);
        assert_eq!(out, bytes, "{name}");
    }
    let mut out = BytesMut::new();
    put_body(&mut out, 258, 4096, b"hello");
    assert_eq!(out, bytes_of("content.hex", "body"));
    let mut out = BytesMut::new();
    put_heartbeat(&mut out);
    assert_eq!(out, bytes_of("content.hex", "heartbeat"));
}

#[test]
fn frames_that_come_byte_by_byte_are_read_as_those_that_come_at_once() {
    let mut stream: Vec<u8> = golden::methods().into_iter().flat_map(|golden| golden.bytes).collect();
    stream.extend(
        blocks("content.hex").into_iter().filter(|block| block.name != "opening").flat_map(|b| b.bytes),
    );
    let mut whole = BytesMut::from(&stream[..]);
    let mut at_once = Vec::new();
    while let Some(frame) = Frame::decode(&mut whole, 4096).unwrap() {
        at_once.push(frame);
    }
    let (mut buffer, mut bytewise) = (BytesMut::new(), Vec::new());
    for byte in &stream {
        buffer.put_u8(*byte);
        bytewise.extend(Frame::decode(&mut buffer, 4096).unwrap());
    }
    assert_eq!((at_once.len(), bytewise.len()), (64 + 5, 64 + 5));
    assert_eq!(at_once, bytewise);
    let mut written = BytesMut::new();
    for frame in &at_once {
        frame.encode(&mut written);
    }
    assert_eq!(written, stream);
}

#[test]
fn a_frame_of_frame_max_is_taken_and_one_byte_more_is_refused_at_its_head() {
    let fits = u32::try_from(4096 - FRAME_OVERHEAD_BYTES).unwrap();
    assert_eq!(Frame::decode(&mut head(3, 1, fits), 4096), Ok(None));
    let error = Frame::decode(&mut head(3, 1, fits + 1), 4096).unwrap_err();
    assert_eq!(error, FrameError::TooLarge { length: 4089, limit: 4088 });
    assert_eq!(error.reply_code(), ReplyCode::FrameError);
    let error = Frame::decode(&mut head(1, 1, u32::MAX), 4096).unwrap_err();
    assert_eq!(error, FrameError::TooLarge { length: u32::MAX as usize, limit: 4088 });
    assert!(Frame::decode(&mut head(3, 1, 1), 0).is_err(), "no limit is no limit of ours");
}

#[test]
fn a_head_that_promises_much_costs_nothing_until_it_comes() {
    let mut buffer = head(3, 1, 256 * 1024 * 1024);
    assert_eq!(Frame::decode(&mut buffer, usize::MAX), Ok(None));
    assert!(buffer.capacity() <= 512 * 1024, "{} bytes", buffer.capacity());
}

#[test]
fn unknown_kinds_and_wrong_heartbeats_are_refused_at_the_head() {
    for kind in (0..=u8::MAX).filter(|kind| ![1, 2, 3, 8].contains(kind)) {
        assert_eq!(Frame::decode(&mut head(kind, 0, 0), 4096), Err(FrameError::UnknownKind(kind)));
    }
    for (channel, length) in [(1, 0), (0, 1)] {
        assert_eq!(Frame::decode(&mut head(8, channel, length), 4096), Err(FrameError::WrongHeartbeat));
    }
}

#[test]
fn a_wrong_frame_end_is_refused_whatever_it_is() {
    let good = bytes_of("content.hex", "body");
    for end in (0..=u8::MAX).filter(|end| *end != 0xCE) {
        let mut bad = BytesMut::from(&good[..]);
        *bad.last_mut().unwrap() = end;
        let error = Frame::decode(&mut bad, 4096).unwrap_err();
        assert_eq!((error, error.reply_code()), (FrameError::WrongEnd(end), ReplyCode::FrameError));
    }
}

#[test]
fn a_body_is_cut_at_frame_max() {
    let body: Vec<u8> = (0..10_000_u32).map(|at| at.to_le_bytes()[0]).collect();
    for (length, frames) in [(0, 0), (1, 1), (4088, 1), (4089, 2), (8176, 2), (8177, 3), (10_000, 3)] {
        let mut out = BytesMut::new();
        put_body(&mut out, 7, 4096, &body[..length]);
        let mut pieces = Vec::new();
        while let Some(frame) = Frame::decode(&mut out, 4096).unwrap() {
            assert_eq!((frame.kind, frame.channel), (FrameKind::Body, 7));
            pieces.push(frame.payload);
        }
        assert_eq!(pieces.len(), frames, "{length} bytes");
        assert_eq!(pieces.concat(), &body[..length]);
    }
    let mut out = BytesMut::new();
    put_body(&mut out, 7, 0, &body);
    assert_eq!(only_frame(&out).payload, Bytes::from(body), "0 is no limit");
}
