//! Opening: read the journal, replay it, and leave it so that new blocks can follow.
//!
//! Recovery may be killed at any point. Each step either has no effect on what the next recovery finds, or is atomic.

use std::path::PathBuf;

use crate::Position;
use crate::block::{self, BLOCK_HEADER_BYTES, BlockHeader, BlockKind};
use crate::error::{DiskError, During as _, OpenError};
use crate::faults::{crash_point, mutant};
use crate::path;
use crate::scan::{self, OnDamage, Replay, Scan};
use crate::segment::{Folder, Segment};

/// The number of the first segment, so that no record is ever at position 0.
const FIRST_SEGMENT: u64 = 1;

/// What was found when the journal was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovery {
    /// The journal had been closed, or is new. Otherwise the last process was killed or failed.
    pub clean: bool,
    /// Where the oldest record is, if there is one.
    pub first: Position,
    /// Behind the last record.
    pub end: Position,
    /// Records that were replayed.
    pub records: u64,
    /// Bytes behind the end that a crash left of blocks that had not been synced, as far as they can be told.
    pub torn_bytes: u64,
    /// Segments of the journal.
    pub segments: u64,
}

/// A journal that is ready to be appended to.
pub(crate) struct Recovered {
    pub(crate) report: Recovery,
    /// In order, at least one.
    pub(crate) sealed: Vec<Segment>,
    pub(crate) active: Segment,
    pub(crate) spares: Vec<PathBuf>,
}

pub(crate) fn recover(folder: &Folder, replay: &mut Replay<'_>) -> Result<Recovered, OpenError> {
    // A process that was killed may have left names that are not durable. A spare that would be a segment again after a
    // power cut must not be written to.
    crash_point("journal.recovery.begun");
    folder.sync_dir()?;
    let (numbers, spares) = folder.list()?;
    let mut segments = Vec::new();
    if let (Some(first), Some(last)) = (numbers.first(), numbers.last()) {
        for number in *first..=*last {
            segments.push(folder.open(number)?);
        }
    }
    let scan = scan::scan(folder.layout, &segments, OnDamage::Refuse, replay)?;
    crash_point("journal.recovery.scanned");
    Ok(repair(folder, segments, &scan, spares)?)
}

fn begin(folder: &Folder, mut spares: Vec<PathBuf>) -> Result<Recovered, DiskError> {
    let active = folder.make(FIRST_SEGMENT, spares.pop())?;
    let first = Position(folder.layout.first_block(FIRST_SEGMENT));
    let report = Recovery { clean: true, first, end: first, records: 0, torn_bytes: 0, segments: 1 };
    Ok(Recovered { report, sealed: Vec::new(), active, spares })
}

fn repair(
    folder: &Folder,
    mut segments: Vec<Segment>,
    scan: &Scan,
    mut spares: Vec<PathBuf>,
) -> Result<Recovered, DiskError> {
    // The last first, so that no crash leaves a hole. Removed and not kept: such a file would be the next segment again,
    // with what is in it at the same positions, and then only the epoch would tell old blocks from new.
    for unused in segments.iter().skip(scan.last + 1).rev() {
        folder.retire(unused.number, None)?;
    }
    segments.truncate(scan.last + 1);
    let Some(mut active) = segments.pop() else {
        return begin(folder, spares);
    };
    if let Some(mark) = scan.clean_mark {
        retire_mark(folder, &active, mark)?;
        crash_point("journal.recovery.mark_retired");
    } else {
        // What was read may be in the page cache only, if a sync failed: synced in a file of its own it is on disk. The
        // copy has nothing behind the end, so that no torn block can ever follow a new one.
        let bytes = scan.end - active.number * folder.layout.segment_bytes;
        active = loop {
            match folder.replace_by_copy(&active, bytes) {
                // A disk that was full when the process ended still is. What was kept ready is for this, too.
                Err(error) if error.is_allocation() && !spares.is_empty() => {
                    folder.drop_spare(&mut spares)?;
                }
                copied => break copied?,
            }
        };
        spares.retain(|spare| *spare != path::spare(&folder.dir, active.number));
    }
    let first = segments.first().map_or(active.number, |segment| segment.number);
    let report = report(scan, Position(folder.layout.first_block(first)), segments.len() + 1);
    crash_point("journal.recovery.repaired");
    Ok(Recovered { report, sealed: segments, active, spares })
}

/// What a scan found, in a journal that begins at `first`.
pub(crate) fn report(scan: &Scan, first: Position, segments: usize) -> Recovery {
    Recovery {
        clean: scan.clean_mark.is_some() || segments == 0,
        first,
        end: Position(scan.end),
        records: scan.records,
        torn_bytes: scan.torn_bytes,
        segments: segments as u64,
    }
}

/// Replaces the mark of the clean stop by a block without records, and syncs it: from now on this is a journal in use,
/// and whoever finds it so knows that what leaves no trace in it (a delivery) may have happened. Writing there also heals
/// a mark that is in the page cache only, since its sync failed, and would be a hole before blocks that were synced.
fn retire_mark(folder: &Folder, active: &Segment, mark: u64) -> Result<(), DiskError> {
    if mutant("clean_stop_believed_twice") {
        return Ok(());
    }
    let offset = folder.layout.offset(mark);
    let mut bytes = [0; BLOCK_HEADER_BYTES];
    active.file.read_at(&mut bytes, offset).during("read", &active.path)?;
    let header = BlockHeader::decode(&bytes, active.epoch, mark, BLOCK_HEADER_BYTES as u64);
    let synced = header.map_or(mark, |header| header.synced);
    block::seal(&mut bytes, BlockKind::Records, active.epoch, mark, synced, 0);
    active.file.write_at(&bytes, offset).during("write", &active.path)?;
    active.file.sync_data().during("sync", &active.path)
}
