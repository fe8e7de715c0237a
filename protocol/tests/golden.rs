//! Golden files: the bytes of every frame, as `docs/protocol.md` shows them. A change of a byte here is a change of
//! the protocol. `LEVERET_BLESS=1 cargo test -p leveret-protocol` writes them anew.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by a panic, in its helper functions too"
)]

mod golden_cases;
mod support;

use std::collections::BTreeSet;
use std::fs;

use bytes::BytesMut;
use golden_cases::{control, data, dump};
use leveret_protocol::{Control, ControlError, Frame, FrameWriter, kind, opening};
use support::{blessing, golden_files, golden_frames, in_repository, parse_hex};

/// What a file must hold: its name, its bytes, and its text with comments.
struct Expected {
    name: String,
    bytes: Vec<u8>,
    dump: String,
}

fn expected() -> Vec<Expected> {
    let mut all = Vec::new();
    for (name, version, bytes) in [("opening", "1.0", *b"LVRT\x01\0\0\0"), ("opening-1-1", "1.1", opening())]
    {
        let hex = bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
        let dump = format!("# opening: \"LVRT\", version {version}, two zeros\n{hex}\n");
        all.push(Expected { name: name.to_owned(), bytes: bytes.to_vec(), dump });
    }
    for case in data::cases() {
        let mut out = BytesMut::new();
        (case.encode)(&mut out);
        let fields: Vec<_> = case.fields.iter().map(|(length, name)| (*length, (*name).to_owned())).collect();
        let dump = dump::frame(case.comment, &out, &fields);
        all.push(Expected { name: case.name.to_owned(), bytes: out.to_vec(), dump });
    }
    for case in control::cases() {
        let mut out = BytesMut::new();
        case.all.encode(case.channel, &mut out).unwrap();
        all.push(expected_control(case.name.to_owned(), case.all.name(), &out));
        if let Some((required, min)) = case.min {
            let mut out = BytesMut::new();
            let frame = FrameWriter::begin(&mut out, min.kind(), 0, case.channel);
            frame.out.extend_from_slice(&rmp_serde::to_vec_named(&required).unwrap());
            frame.end();
            let comment = format!("{} without its optional fields", min.name());
            all.push(expected_control(format!("{}-min", case.name), &comment, &out));
        }
    }
    all
}

fn expected_control(name: String, comment: &str, bytes: &[u8]) -> Expected {
    let fields = dump::map_fields(&bytes[leveret_protocol::HEADER_BYTES..]);
    Expected { name, bytes: bytes.to_vec(), dump: dump::frame(comment, bytes, &fields) }
}

fn only_frame(bytes: &[u8]) -> Frame {
    let mut buffer = BytesMut::from(bytes);
    let frame = Frame::decode(&mut buffer, bytes.len()).unwrap().unwrap();
    assert!(buffer.is_empty(), "bytes are left over");
    frame
}

#[test]
fn encoding_gives_the_golden_bytes() {
    if blessing() {
        for expected in expected() {
            let path = in_repository(&format!("protocol/tests/golden/{}.hex", expected.name));
            fs::write(path, expected.dump).unwrap();
        }
    }
    let golden = golden_files();
    let expected = expected();
    let names = |names: &mut dyn Iterator<Item = &String>| names.cloned().collect::<BTreeSet<_>>();
    assert_eq!(
        names(&mut golden.iter().map(|(name, _)| name)),
        names(&mut expected.iter().map(|expected| &expected.name)),
        "a golden file without a case, or a case without a golden file"
    );
    for expected in expected {
        let (_, dump) = golden.iter().find(|(name, _)| *name == expected.name).unwrap();
        assert_eq!(parse_hex(dump), expected.bytes, "{}", expected.name);
        assert_eq!(*dump, expected.dump, "{}: the bytes are right, the comments are not", expected.name);
    }
}

#[test]
fn golden_bytes_decode_to_their_frames() {
    let golden = golden_frames();
    let frame = |name: &str| only_frame(&golden.iter().find(|(golden, _)| golden == name).unwrap().1);
    for case in data::cases() {
        (case.check)(&frame(case.name));
    }
    for case in control::cases() {
        let decode = |frame: &Frame| {
            assert_eq!((frame.channel, frame.flags), (case.channel, 0));
            Control::decode(frame.kind, &frame.payload).unwrap()
        };
        assert_eq!(decode(&frame(case.name)), case.all);
        if let Some((_, min)) = &case.min {
            assert_eq!(decode(&frame(&format!("{}-min", case.name))), *min);
        }
    }
}

#[test]
fn every_kind_of_frame_has_a_golden_file() {
    let shown: BTreeSet<u8> = golden_frames().iter().map(|(_, bytes)| bytes[4]).collect();
    let controls = (0..=u8::MAX)
        .filter(|kind| !matches!(Control::decode(*kind, &[]), Err(ControlError::UnknownKind { .. })));
    let others = other_kinds().into_iter().map(|(_, kind)| kind);
    let all: BTreeSet<u8> = controls.chain(others).collect();
    assert!(all.contains(&kind::SETTLED) && all.contains(&0x01), "the kinds were found: {all:?}");
    assert_eq!(shown, all);
}

#[test]
fn a_frame_without_a_required_field_is_refused() {
    for case in control::cases() {
        let Some((required, min)) = case.min else { continue };
        for missing in required.keys() {
            let mut rest = required.clone();
            rest.remove(missing);
            let payload = rmp_serde::to_vec_named(&rest).unwrap();
            let decoded = Control::decode(min.kind(), &payload);
            assert!(decoded.is_err(), "{} is read without its {missing}: {decoded:?}", case.name);
        }
    }
}

/// The text shows golden frames between a line "```hex <name>" and a line "```".
#[test]
fn the_examples_in_the_text_are_the_golden_bytes() {
    let path = in_repository("docs/protocol.md");
    let text = fs::read_to_string(&path).unwrap();
    let golden = golden_files();
    let mut rebuilt = String::new();
    let mut rest = text.as_str();
    let mut examples = 0;
    while let Some((before, after)) = rest.split_once("```hex ") {
        let (name, after) = after.split_once('\n').unwrap();
        let (_, after) = after.split_once("```\n").unwrap();
        let (_, dump) =
            golden.iter().find(|(golden, _)| golden == name).unwrap_or_else(|| panic!("no {name}.hex"));
        rebuilt.extend([before, "```hex ", name, "\n", dump, "```\n"]);
        rest = after;
        examples += 1;
    }
    rebuilt.push_str(rest);
    if blessing() {
        fs::write(path, &rebuilt).unwrap();
    } else {
        assert_eq!(text, rebuilt);
    }
    assert!(examples >= 5, "the text has lost its examples");
}

/// The tables of the text name what the code has, so that neither grows without the other.
#[test]
fn the_text_explains_every_frame_and_every_field() {
    let text = fs::read_to_string(in_repository("docs/protocol.md")).unwrap();
    for case in control::cases() {
        let heading = format!("\n### {:#04x} {}\n", case.all.kind(), case.all.name());
        let (_, section) = text.split_once(&heading).unwrap_or_else(|| panic!("no section {heading:?}"));
        let section = section.split("\n##").next().unwrap();
        let payload = case.all.to_frame(0).unwrap().payload;
        let fields: leveret_protocol::Table = rmp_serde::from_slice(&payload).unwrap();
        for field in fields.keys() {
            assert!(section.contains(&format!("| `{field}` ")), "{heading:?} does not explain `{field}`");
        }
    }
    for (name, kind) in other_kinds() {
        let (first, rest) = name.split_at(1);
        let heading = format!("\n### {kind:#04x} {first}{}\n", rest.to_lowercase());
        assert!(text.contains(&heading), "no section {heading:?}");
    }
}

/// The kinds that are constants, from the source, so that one which somebody adds and forgets here is found.
fn other_kinds() -> Vec<(&'static str, u8)> {
    include_str!("../src/kind.rs")
        .lines()
        .filter_map(|line| {
            let (name, number) = line.strip_prefix("pub const ")?.split_once(": u8 = 0x")?;
            Some((name, u8::from_str_radix(number.trim_end_matches(';'), 16).unwrap()))
        })
        .collect()
}
