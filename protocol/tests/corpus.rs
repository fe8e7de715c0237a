//! Replays the fuzz corpora on stable Rust, through the same functions as the fuzz targets.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by a panic, in its helper functions too"
)]

#[path = "../../fuzz/fuzz_targets/shared.rs"]
mod shared;
mod support;

use std::fs;

use leveret_protocol::{Deliver, HEADER_BYTES, Publish, kind};
use support::{blessing, golden_frames, in_repository};

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
            let properties = Publish::decode(flags, payload).unwrap().properties;
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
    seeds.retain(|(_, _, bytes)| !bytes.is_empty());
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
    let targets: [Target; 4] = [
        ("frame", shared::frame),
        ("control", shared::control),
        ("data", shared::data),
        ("value", shared::value),
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
