//! The format on disk, as the README has it: what the folder `golden/v1` has is written, byte for byte, and read.
//!
//! If this fails the format has changed: then it needs a new version number and a folder of its own, and this one must
//! still be read.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "the lints excuse test functions, but not what they call"
)]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{Opened, Stored, open_on, stage};
use leveret_journal::RealDisk;

const SEED: u64 = 0x0102_0304_0506_0708;

/// Two segments: commits of one and of several groups, empty and long records, a clean stop.
fn write(dir: &Path) -> Vec<Stored> {
    let Opened { journal, mut stepper, .. } = open_on(Arc::new(RealDisk), dir, SEED).unwrap();
    let mut staged = stage(&journal, &[b"hare".to_vec(), b"".to_vec(), b"leveret".to_vec()]);
    stepper.step();
    staged.extend(stage(&journal, &[vec![0xaa; 3000]]));
    staged.extend(stage(&journal, &[b"12345678".to_vec()]));
    stepper.step();
    staged.extend(stage(&journal, &[vec![0xbb; 1500]]));
    stepper.close().unwrap();
    staged
}

fn golden(dir: &str) -> Vec<(PathBuf, PathBuf)> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1");
    ["0000000000000001.segment", "0000000000000002.segment"]
        .map(|name| (golden.join(name), Path::new(dir).join(name)))
        .to_vec()
}

#[test]
fn the_journal_is_written_as_the_golden_one() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path());
    for (golden, written) in golden(dir.path().to_str().unwrap()) {
        assert!(std::fs::read(&golden).unwrap() == std::fs::read(&written).unwrap(), "{}", golden.display());
    }
}

#[test]
fn the_golden_journal_is_read() {
    let (written, copied) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let staged = write(written.path());
    for (golden, copy) in golden(copied.path().to_str().unwrap()) {
        std::fs::copy(golden, copy).unwrap();
    }
    let opened = open_on(Arc::new(RealDisk), copied.path(), SEED).unwrap();
    assert!(opened.recovery.clean);
    assert!(opened.records == staged);
}
