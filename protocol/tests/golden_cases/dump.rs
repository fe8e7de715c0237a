//! Writes a frame as a hex dump in which every field has a line of its own.

use std::fmt::Write as _;

use leveret_protocol::{HEADER_BYTES, Value};

const BYTES_PER_LINE: usize = 16;

/// A dump with the header's fields, then the payload's as `fields` gives them: (bytes, name). What is left over is
/// the body.
pub(crate) fn frame(comment: &str, bytes: &[u8], fields: &[(usize, String)]) -> String {
    let mut out = format!("# {comment}\n");
    let (header, payload) = bytes.split_at(HEADER_BYTES);
    line(&mut out, &header[..4], &format!("length: {}", payload.len()));
    line(&mut out, &header[4..5], "kind");
    line(&mut out, &header[5..6], &format!("flags: {:08b}", header[5]));
    line(&mut out, &header[6..], &format!("channel: {}", u16::from_le_bytes([header[6], header[7]])));
    let mut rest = payload;
    for (length, name) in fields {
        let (field, after) = rest.split_at(*length);
        line(&mut out, field, name);
        rest = after;
    }
    if !rest.is_empty() {
        line(&mut out, rest, &format!("body: {:?}", String::from_utf8_lossy(rest)));
    }
    out
}

/// The fields of a MessagePack map.
pub(crate) fn map_fields(payload: &[u8]) -> Vec<(usize, String)> {
    let (entries, head) = match payload[0] {
        marker @ 0x80..=0x8f => (usize::from(marker & 0x0f), 1),
        0xde => (usize::from(u16::from_be_bytes([payload[1], payload[2]])), 3),
        other => panic!("not a map: {other:#04x}"),
    };
    let mut fields = vec![(head, format!("map of {entries}"))];
    let mut rest = &payload[head..];
    for _ in 0..entries {
        let key = value_bytes(rest);
        let length = key + value_bytes(&rest[key..]);
        let name: String = rmp_serde::from_slice(&rest[..key]).unwrap();
        let value: Value = rmp_serde::from_slice(&rest[key..length]).unwrap();
        fields.push((length, format!("{name}: {value}")));
        rest = &rest[length..];
    }
    assert!(rest.is_empty());
    fields
}

/// How many bytes the first MessagePack value in `bytes` has. Written against MessagePack's specification, not with
/// the library under test.
fn value_bytes(bytes: &[u8]) -> usize {
    let wide = |at: usize, size: usize| {
        bytes[at..at + size].iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte))
    };
    let nested =
        |head: usize, count: usize| (0..count).fold(head, |length, _| length + value_bytes(&bytes[length..]));
    match bytes[0] {
        0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => 1,
        marker @ 0x80..=0x8f => nested(1, 2 * usize::from(marker & 0x0f)),
        marker @ 0x90..=0x9f => nested(1, usize::from(marker & 0x0f)),
        marker @ 0xa0..=0xbf => 1 + usize::from(marker & 0x1f),
        0xc4 | 0xd9 => 2 + wide(1, 1),
        0xcc | 0xd0 => 2,
        0xcd | 0xd1 => 3,
        0xca | 0xce | 0xd2 => 5,
        0xcb | 0xcf | 0xd3 => 9,
        other => panic!("no golden file has a value that begins with {other:#04x}"),
    }
}

fn line(out: &mut String, bytes: &[u8], comment: &str) {
    let mut comment = Some(comment);
    for chunk in bytes.chunks(BYTES_PER_LINE) {
        let hex = chunk.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
        match comment.take() {
            Some(comment) => {
                let width = 3 * BYTES_PER_LINE - 1;
                writeln!(out, "{hex:<width$}  # {comment}").unwrap();
            }
            None => writeln!(out, "{hex}").unwrap(),
        }
    }
}
