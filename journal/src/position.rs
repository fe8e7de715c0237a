//! A place in the journal.

use std::fmt;

/// A place in the journal: segment number x segment size + offset in the segment, in bytes.
///
/// Positions rise with every record, across segments and restarts. The position of a record that was synced is never
/// used again; that of a record that a crash took before its sync may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Position(pub u64);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// Proof that everything below a position is on disk: only the journal makes one, and only after the sync that covers
/// it, so a confirm that asks for a `Synced` cannot be sent too early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Synced(Position);

impl Synced {
    pub(crate) fn up_to(end: u64) -> Self {
        Self(Position(end))
    }

    /// Whether the record that starts at `record` is on disk, and with it all before it and the rest of its group.
    pub fn covers(self, record: Position) -> bool {
        record < self.0
    }

    /// Whether everything is on disk that was staged before [`Journal::end`](crate::Journal::end) gave this position.
    pub fn reaches(self, end: Position) -> bool {
        end <= self.0
    }

    /// The first position that is not covered.
    pub fn position(self) -> Position {
        self.0
    }
}
