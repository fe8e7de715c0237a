//! Golden files: frames as hex with comments. Everything from `#` to the end of a line is a comment.
#![allow(dead_code, reason = "each test file uses its part")]

use std::fs;
use std::path::{Path, PathBuf};

/// Set to write golden files, the examples in `docs/protocol.md` and the fuzz seeds anew instead of comparing them.
pub(crate) const BLESS: &str = "LEVERET_BLESS";

/// Whether [`BLESS`] is set.
pub(crate) fn blessing() -> bool {
    std::env::var_os(BLESS).is_some()
}

/// A path in the repository.
pub(crate) fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// The bytes of a hex dump.
pub(crate) fn parse_hex(dump: &str) -> Vec<u8> {
    dump.lines()
        .flat_map(|line| line.split('#').next().unwrap().split_whitespace())
        .map(|byte| u8::from_str_radix(byte, 16).unwrap_or_else(|_| panic!("not a byte: {byte:?}")))
        .collect()
}

/// Every golden file: its name without the ending, and its text. In the order of the names.
pub(crate) fn golden_files() -> Vec<(String, String)> {
    let mut files: Vec<_> = fs::read_dir(in_repository("protocol/tests/golden"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            assert_eq!(path.extension().unwrap(), "hex", "{}", path.display());
            (path.file_stem().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(&path).unwrap())
        })
        .collect();
    files.sort();
    files
}

/// Every golden frame: its name and its bytes. (The opening is not a frame.)
pub(crate) fn golden_frames() -> Vec<(String, Vec<u8>)> {
    golden_files()
        .into_iter()
        .filter(|(name, _)| !name.starts_with("opening"))
        .map(|(name, dump)| (name, parse_hex(&dump)))
        .collect()
}
