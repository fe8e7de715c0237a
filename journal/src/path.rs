//! The names of the journal's files: the only place that makes or parses one.
//!
//! | file | is |
//! |---|---|
//! | `0000000000000001.segment` | segment 1 (hexadecimal, 16 digits): complete, its header synced before it got this name |
//! | `0000000000000001.spare` | a file to make a segment of; what it contains means nothing |
//! | `lock` | locked (`flock`) by the process that has the journal open |

use std::path::{Path, PathBuf};

/// What a file in the journal's directory is, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name {
    Segment(u64),
    Spare(u64),
}

pub(crate) fn segment(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:016x}.segment"))
}

pub(crate) fn spare(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:016x}.spare"))
}

pub(crate) fn lock(dir: &Path) -> PathBuf {
    dir.join("lock")
}

/// `None` for a file that is none of ours, which is left alone. Only the exact spelling that we write is ours: two names
/// for one segment number could not both be right.
pub(crate) fn parse(file_name: &str) -> Option<Name> {
    let (digits, kind) = file_name.split_once('.')?;
    let canonical = digits.len() == 16 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let number = u64::from_str_radix(digits, 16).ok().filter(|_| canonical)?;
    match kind {
        "segment" => Some(Name::Segment(number)),
        "spare" => Some(Name::Spare(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_was_made_is_parsed_back() {
        for number in [0, 1, 0xabc, u64::MAX] {
            let dir = Path::new("d");
            let name = |path: PathBuf| parse(path.file_name().unwrap().to_str().unwrap());
            assert_eq!(name(segment(dir, number)), Some(Name::Segment(number)));
            assert_eq!(name(spare(dir, number)), Some(Name::Spare(number)));
        }
    }

    #[test]
    fn any_other_name_is_none_of_ours() {
        for other in [
            "",
            "lock",
            "1.segment",
            "000000000000000A.segment",
            "0000000000000001.segment.bak",
            "+000000000000001.spare",
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
