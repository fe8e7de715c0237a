//! What the AMQP fuzz targets do with their input, shared with `protocol/tests/corpus.rs`. They panic where the codec
//! breaks a promise.

use bytes::{Bytes, BytesMut};
use leveret_protocol::amqp::{
    Assembled, Assembler, BasicProperties, ContentHeader, EncodedTable, Envelope, FieldTable, Frame, Method,
    WholePublish, check_protocol_header, put_header, put_method, to_amqp, to_native, without_bcc,
};
use leveret_protocol::{METADATA_BYTES_MAX, Properties, PropertiesFormat};

const FRAME_MAX: usize = 8 * 1024;
const BODY_BYTES_MAX: u64 = 64 * 1024;

/// A byte stream from a stranger, on one channel: frames are written as the same bytes, no length field makes a buffer
/// grow beyond what is allowed, the assembler makes of them what it should, and a publish that is seen whole is the one
/// that comes out of its frames.
pub(crate) fn frame(input: &[u8]) {
    if let Some(first) = input.first_chunk()
        && let Err(error) = check_protocol_header(*first)
    {
        assert!(!error.to_string().contains('\n'), "the refusal is one line");
    }
    let (mut buffer, mut written) = (BytesMut::from(input), BytesMut::new());
    let mut assembler = Assembler::default();
    whole(input);
    while let Ok(Some(frame)) = Frame::decode(&mut buffer, FRAME_MAX) {
        assert!(frame.payload.len() + 8 <= FRAME_MAX);
        frame.encode(&mut written);
        match assembler.accept(frame, BODY_BYTES_MAX) {
            Ok(Assembled::Method(payload)) => {
                if Method::decode(&payload).is_ok_and(|method| method.has_content()) {
                    assembler.expect_content();
                }
            }
            Ok(Assembled::Content(content)) => {
                assert!(content.body.len() as u64 <= BODY_BYTES_MAX);
                assert!(BasicProperties::decode(&content.properties).is_ok());
            }
            Ok(Assembled::Incomplete) => assert!(assembler.held_bytes() <= input.len()),
            Err(error) => assert!(!error.to_string().is_empty() && assembler.held_bytes() == 0),
        }
    }
    assert!(buffer.capacity() <= 2 * input.len() + 2 * FRAME_MAX);
    written.extend_from_slice(&buffer);
    assert_eq!(written, input);
}

/// A publish that is seen whole at the front of a stream, if there is one: its frames say the same.
fn whole(input: &[u8]) {
    let Some(whole) = WholePublish::peek(input, FRAME_MAX, BODY_BYTES_MAX) else { return };
    let decoded = BasicProperties::decode(whole.properties);
    let mut frames = BytesMut::from(&input[..whole.bytes]);
    let mut assembler = Assembler::default();
    let mut method = None;
    while let Some(frame) = Frame::decode(&mut frames, FRAME_MAX).unwrap() {
        assert_eq!(frame.channel, whole.channel);
        let accepted = assembler.accept(frame, BODY_BYTES_MAX);
        if decoded.is_err() && accepted.is_err() {
            return;
        }
        match accepted.unwrap() {
            Assembled::Method(payload) => {
                assembler.expect_content();
                method = Some(payload);
            }
            Assembled::Incomplete => {}
            Assembled::Content(content) => {
                assert_eq!((&content.properties[..], &content.body[..]), (whole.properties, whole.body));
                assert!(decoded.is_ok());
                let method = Method::decode(method.as_ref().unwrap()).unwrap();
                assert_eq!(method, Method::from(whole.publish));
                assert!(frames.is_empty());
                return;
            }
        }
    }
    panic!("the frames are no message: {whole:?}");
}

/// A method frame's payload: what can be read can be written, and means the same.
pub(crate) fn method(input: &[u8]) {
    match Method::decode(input) {
        Ok(method) => {
            let mut out = BytesMut::new();
            put_method(&mut out, 1, method);
            let again = Frame::decode(&mut out, usize::MAX).unwrap().unwrap();
            assert_eq!(Method::decode(&again.payload), Ok(method));
        }
        Err(error) => assert!(error.to_string().len() < 255, "an answer fits a short string: {error}"),
    }
}

/// A table's bytes: whatever can be read is a table of the core, which can be written again.
pub(crate) fn table(input: &[u8]) {
    let Ok(table) = FieldTable::parse(input) else { return };
    let core = table.to_table();
    for key in core.keys() {
        assert!(key.contains('\u{fffd}') || table.get(key).is_some());
    }
    let written = EncodedTable::new(&core).unwrap();
    let again = FieldTable::parse(written.as_table().as_bytes()).unwrap().to_table();
    // The bytes and not the values, because a value may be NaN. A key that grew by replaced bytes may have been too
    // long to come back.
    if again.len() == core.len() {
        assert_eq!(EncodedTable::new(&again).unwrap(), written);
    }
}

/// A content header's payload, on its way through the broker and to a consumer of the other protocol.
pub(crate) fn content(input: &[u8]) {
    let payload = Bytes::copy_from_slice(input);
    let Ok(header) = ContentHeader::decode(&payload) else { return };
    let properties = BasicProperties::decode(&header.properties).unwrap();
    assert_eq!(properties.to_bytes(), header.properties);
    if header.class_id == 60 {
        let mut out = BytesMut::new();
        put_header(&mut out, 1, header.body_size, &header.properties);
        assert_eq!(out[7..out.len() - 1], *input);
    }
    let _ = properties.publish_attributes();
    let kept = without_bcc(header.properties.clone()).unwrap();
    assert!(BasicProperties::decode(&kept).is_ok());
    let Ok(blob) = to_native(PropertiesFormat::Amqp, &kept) else {
        // Only its length can keep it from crossing.
        assert!(kept.len() > METADATA_BYTES_MAX / 4);
        return;
    };
    assert!(Properties::decode(&blob).is_ok());
    let back = to_amqp(PropertiesFormat::Native, &blob, &Envelope::default()).unwrap();
    assert!(BasicProperties::decode(&back).is_ok());
}
