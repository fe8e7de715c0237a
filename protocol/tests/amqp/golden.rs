//! Golden files. The methods, headers and frames in them were written by the Python client pika 1.4.4, the tables by
//! hand from RabbitMQ's list of types, so that they are not this codec's own opinion of itself. `#` begins a comment.

use std::fs;
use std::path::Path;

use bytes::BytesMut;
use leveret_protocol::amqp::{Frame, FrameKind, Method, PROTOCOL_HEADER, check_protocol_header};

use crate::schema::METHODS;

/// One block of a golden file.
pub(crate) struct Golden {
    /// The first comment: what it is.
    pub(crate) name: String,
    /// The second comment, if there is one: what it means, as `{:?}` shows it.
    pub(crate) meaning: String,
    pub(crate) bytes: Vec<u8>,
}

/// The blocks of one file, which empty lines separate.
pub(crate) fn blocks(file: &str) -> Vec<Golden> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/amqp/golden").join(file);
    let text = fs::read_to_string(&path).unwrap();
    text.split("\n\n")
        .map(|block| {
            let mut comments = block.lines().filter_map(|line| line.strip_prefix("# ").map(str::to_owned));
            let hex = block.lines().filter(|line| !line.starts_with('#')).flat_map(str::split_whitespace);
            Golden {
                name: comments.next().unwrap(),
                meaning: comments.next().unwrap_or_default(),
                bytes: hex.map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect(),
            }
        })
        .collect()
}

pub(crate) fn bytes_of(file: &str, name: &str) -> Vec<u8> {
    blocks(file).into_iter().find(|block| block.name == name).unwrap().bytes
}

/// Every method frame.
pub(crate) fn methods() -> Vec<Golden> {
    ["connection", "channel", "exchange", "queue", "basic", "confirm", "tx"]
        .into_iter()
        .flat_map(|class| blocks(&format!("{class}.hex")))
        .collect()
}

pub(crate) fn only_frame(bytes: &[u8]) -> Frame {
    let mut buffer = BytesMut::from(bytes);
    let frame = Frame::decode(&mut buffer, bytes.len()).unwrap().unwrap();
    assert!(buffer.is_empty(), "bytes are left over");
    frame
}

#[test]
fn every_method_means_what_pika_says_and_is_written_as_pika_writes_it() {
    for golden in methods() {
        let frame = only_frame(&golden.bytes);
        let class_channel = if golden.name.starts_with("connection.") { 0 } else { 258 };
        assert_eq!((frame.kind, frame.channel), (FrameKind::Method, class_channel), "{}", golden.name);
        let method = Method::decode(&frame.payload).unwrap();
        assert_eq!(format!("{method:?}"), golden.meaning, "{}", golden.name);
        assert_eq!(method.name(), golden.name);
        let mut out = BytesMut::new();
        leveret_protocol::amqp::put_method(&mut out, frame.channel, method);
        assert_eq!(out, golden.bytes, "{}", golden.name);
    }
}

#[test]
fn the_golden_files_have_every_method() {
    let mut names: Vec<_> = methods().into_iter().map(|golden| golden.name).collect();
    let mut all: Vec<_> = METHODS.iter().map(|schema| schema.name.to_owned()).collect();
    names.sort();
    all.sort();
    assert_eq!(names, all);
    assert_eq!(all.len(), 64);
}

#[test]
fn the_protocol_header_is_pikas() {
    let bytes = bytes_of("content.hex", "opening");
    assert_eq!(bytes, PROTOCOL_HEADER);
    assert_eq!(check_protocol_header(PROTOCOL_HEADER), Ok(()));
}

#[test]
fn other_protocol_headers_are_refused_in_words() {
    let refusal = |bytes: &[u8; 8]| check_protocol_header(*bytes).unwrap_err().to_string();
    assert!(refusal(b"AMQP\x00\x01\x00\x00").contains("0 in version 1.0.0"));
    assert!(refusal(b"AMQP\x03\x01\x00\x00").contains("protocol id 3"));
    assert!(refusal(b"AMQP\x01\x01\x08\x00").contains("version 1.8.0"));
    assert_eq!(refusal(b"GET / HT"), "not AMQP: the first bytes are GET / HT");
    assert!(!refusal(b"\r\n\x00\xff1234").contains('\n'));
}
