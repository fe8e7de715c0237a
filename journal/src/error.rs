//! What can go wrong, and what would be right.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::Position;

/// A call to the disk that failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("could not {operation} {}: {reason}", path.display())]
pub struct DiskError {
    /// The operation, as a verb: "sync", "write".
    pub operation: &'static str,
    /// The file or directory.
    pub path: PathBuf,
    /// What the system said.
    pub reason: Arc<io::Error>,
}

impl DiskError {
    /// There was no room for another file. Nothing that was written is in doubt, unlike after a write or a sync that
    /// found no room.
    pub(crate) fn is_allocation(&self) -> bool {
        let full = matches!(self.reason.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        full && matches!(self.operation, "create" | "allocate")
    }
}

/// Names the operation and the file of a failed call.
pub(crate) trait During<T> {
    fn during(self, operation: &'static str, path: &Path) -> Result<T, DiskError>;
}

impl<T> During<T> for io::Result<T> {
    fn during(self, operation: &'static str, path: &Path) -> Result<T, DiskError> {
        self.map_err(|reason| DiskError { operation, path: path.to_owned(), reason: Arc::new(reason) })
    }
}

/// Bytes that should be there and are not.
#[derive(Debug, Clone, Default, PartialEq, Eq, thiserror::Error)]
#[error("{} is damaged at byte {offset}: expected {expected}", file.display())]
pub struct Damage {
    /// The file.
    pub file: PathBuf,
    /// Where in the file, in bytes.
    pub offset: u64,
    /// What would be right.
    pub expected: String,
}

/// Why replaying a record failed; the caller's own.
pub type ReplayError = Box<dyn std::error::Error + Send + Sync>;

/// Why a journal did not open. The segments on disk are untouched unless it is [`OpenError::Disk`], and even then
/// opening again is safe.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process, or another journal of this process, has the directory open.
    #[error("the journal in {} is open elsewhere: only one may have it", dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// The size of a segment is none that works.
    #[error("segment_bytes is {found}: it must be a power of two from {min} to {max}")]
    SegmentBytes {
        /// As configured.
        found: u64,
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
    /// The journal was made with another segment size. Positions depend on it, so it stays for life.
    #[error("{} has segments of {found} bytes, configured are {configured}: keep {found}", file.display())]
    OtherSegmentBytes {
        /// The segment.
        file: PathBuf,
        /// The journal's.
        found: u64,
        /// As configured.
        configured: u64,
    },
    /// The journal was written by another version of the format.
    #[error("{} has format version {found}: this program reads and writes version {supported}", file.display())]
    UnknownVersion {
        /// The segment.
        file: PathBuf,
        /// The file's version.
        found: u32,
        /// Ours.
        supported: u32,
    },
    /// There are segments, and neither their headers nor their sizes tell how large a segment is.
    #[error("nothing in {} tells how large a segment is: all headers are damaged, and no file is whole", dir.display())]
    NoSegmentBytes {
        /// The directory.
        dir: PathBuf,
    },
    /// What was synced is no longer there. Nothing is skipped and nothing guessed: restore the file, or let
    /// [`salvage`](crate::salvage()) give it up.
    #[error(transparent)]
    Damaged(#[from] Damage),
    /// The caller could not take a record.
    #[error("the record at {position} could not be replayed: {reason}")]
    Replay {
        /// The record.
        position: Position,
        /// What the caller said.
        reason: ReplayError,
    },
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// Why a journal committed no more. It is final: nothing is retried, because after a failed sync the page cache calls
/// clean what never reached the disk.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CommitError {
    /// A write or a sync failed.
    #[error("the journal stopped: {0}")]
    Disk(#[from] DiskError),
    /// A commit panicked: a bug, here or in the observer.
    #[error("the journal stopped: a commit panicked")]
    Panicked,
}

/// Why a group was not staged. Nothing of it was.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StageError {
    /// The group, or what was appended to it, has more bytes than it may.
    #[error("a group of {bytes} bytes is larger than its limit of {limit}")]
    TooLarge {
        /// As counted by [`group_bytes`](crate::group_bytes).
        bytes: usize,
        /// The most: what was announced when it was staged, or what fits a segment.
        limit: usize,
    },
    /// The journal was closed.
    #[error("the journal is closed")]
    Closed,
    /// The journal failed before.
    #[error(transparent)]
    Failed(#[from] CommitError),
}

/// Why a record was not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No record was staged there.
    #[error("no record starts at {position}: the journal ends at {end}")]
    NoRecord {
        /// As asked.
        position: Position,
        /// The journal's end.
        end: Position,
    },
    /// The segment is no longer part of the journal.
    #[error("the record at {position} was released")]
    Released {
        /// As asked.
        position: Position,
    },
    /// No intact record starts there.
    #[error(transparent)]
    Damaged(#[from] Damage),
    /// The journal failed before the record was written.
    #[error(transparent)]
    Failed(#[from] CommitError),
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
}
