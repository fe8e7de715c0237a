//! A place in the journal.

use std::fmt;

/// A place in the journal: segment number x segment size + offset in the segment, in bytes.
///
/// Positions rise with every record, across segments and restarts, and are never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Position(pub u64);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}
