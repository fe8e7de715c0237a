//! Replays the fuzz corpora on stable Rust, through the same functions as the fuzz targets.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by a panic, in its helper functions too"
)]

#[path = "../../fuzz/fuzz_targets/amqp.rs"]
mod amqp;
#[path = "../../fuzz/fuzz_targets/shared.rs"]
mod shared;
mod support;

use std::fs;

use leveret_protocol::{Deliver, HEADER_BYTES, Publish, kind};
use support::{blessing, golden_frames, in_repository, parse_hex};

/// The corpus files that the golden files give: (target, name, bytes).
fn seeds() -> Vec<(&'static str, String, Vec<u8>)> {
    let mut seeds = Vec::new();
    for (name, bytes) in golden_frames() {
        let (header, payload) = bytes.split_at(HEADER_BYTES);
        let (frame_kind, flags) = (header[4], header[5]);
        if frame_kind < kind::PUBLISH {
            seeds.push(("control", name.clone(), [&[frame_kind], payload].concat()));
        } else {
            seeds.push(("data", name.clone(), [&[frame_kind, flags], payload].concat()));
        }
        if frame_kind == kind::PUBLISH {
            let properties = Publish::decode(flags, payload).unwrap().properties();
            seeds.push(("value", format!("{name}-properties"), properties.to_vec()));
        }
        if frame_kind == kind::DELIVER {
            seeds.push((
                "value",
                format!("{name}-deaths"),
                Deliver::decode(flags, payload).unwrap().deaths.to_vec(),
            ));
        }
        if name == "declare-queue" {
            // As properties its `arguments` are an unknown field that holds one of each kind of value; as
            // `headers` they are known.
            let arguments = payload.windows(10).position(|window| window == b"\xa9arguments").unwrap();
            let headers = [b"\x81\xa7headers".as_slice(), &payload[arguments + 10..]].concat();
            seeds.push(("value", "every-value".to_owned(), headers));
        }
        seeds.push(("frame", name, bytes));
    }
    seeds.extend(amqp_seeds());
    seeds.retain(|(_, _, bytes)| !bytes.is_empty());
    seeds
}

/// The same from the golden files of AMQP, whose blocks begin with their name and are separated by empty lines.
fn amqp_seeds() -> Vec<(&'static str, String, Vec<u8>)> {
    let mut seeds = Vec::new();
    let (mut conversation, mut publish) = (Vec::new(), Vec::new());
    for class in ["connection", "channel", "exchange", "queue", "basic", "confirm", "tx", "content", "table"]
    {
        let path = in_repository(&format!("protocol/tests/amqp/golden/{class}.hex"));
        for block in fs::read_to_string(path).unwrap().split("\n\n") {
            let name = block.lines().next().unwrap().trim_start_matches("# ").replace(' ', "-");
            let bytes = parse_hex(block);
            match (class, bytes[0]) {
                ("table", _) => seeds.push(("amqp_table", name, bytes)),
                ("content", 2) => {
                    seeds.push(("amqp_content", name.clone(), bytes[7..bytes.len() - 1].to_vec()));
                    if name == "every-property" {
                        publish.extend(bytes);
                    }
                }
                ("content", _) => publish.extend(bytes),
                _ => {
                    seeds.push(("amqp_method", name.clone(), bytes[7..bytes.len() - 1].to_vec()));
                    conversation.extend_from_slice(&bytes);
                    if name == "basic.publish" {
                        publish = bytes;
                    }
                }
            }
        }
    }
    seeds.push(("amqp_frame", "every-method".to_owned(), conversation));
    seeds.push(("amqp_frame", "publish".to_owned(), publish));
    seeds
}

#[test]
fn the_corpora_begin_with_the_golden_frames() {
    for (target, name, bytes) in seeds() {
        let folder = in_repository("fuzz/corpus").join(target);
        let path = folder.join(format!("golden-{name}"));
        if blessing() {
            fs::create_dir_all(&folder).unwrap();
            fs::write(&path, &bytes).unwrap();
        }
        assert_eq!(fs::read(&path).ok(), Some(bytes), "{path:?} is not what the golden file says");
    }
}

#[test]
fn no_input_of_the_corpora_breaks_a_promise() {
    type Target = (&'static str, fn(&[u8]));
    let targets: [Target; 8] = [
        ("frame", shared::frame),
        ("control", shared::control),
        ("data", shared::data),
        ("value", shared::value),
        ("amqp_frame", amqp::frame),
        ("amqp_method", amqp::method),
        ("amqp_table", amqp::table),
        ("amqp_content", amqp::content),
    ];
    for (target, run) in targets {
        let mut files = 0;
        for entry in fs::read_dir(in_repository("fuzz/corpus").join(target)).unwrap() {
            let path = entry.unwrap().path();
            // On failure the test's output ends with the file that did it.
            eprintln!("{}", path.display());
            run(&fs::read(&path).unwrap());
            files += 1;
        }
        assert!(files > 0, "{target} has no corpus");
    }
}
