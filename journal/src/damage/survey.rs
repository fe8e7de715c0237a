//! What is in a journal's directory, damage and all. Changes nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, DiskLock};
use crate::error::{Damage, During as _, OpenError};
use crate::path;
use crate::recovery::{Recovery, report};
use crate::scan::{self, OnDamage, Replay, Scan};
use crate::segment::{Folder, Layout, Segment};
use crate::{Position, Record, ReplayError};

/// How many segments may be missing in a row.
const MISSING_MAX: u64 = 1 << 16;

/// What is in a journal's directory.
#[derive(Debug)]
pub struct Survey {
    /// The size of a segment in bytes; 0 if there is none.
    pub segment_bytes: u64,
    /// The segments, in order.
    pub segments: Vec<SegmentFigures>,
    /// Files to make segments of.
    pub spares: u64,
    /// What an opening would report, if it passed over the damage.
    pub recovery: Recovery,
    /// What is damaged, in order. A journal with damage does not open; [`salvage`](crate::salvage()) gives this up.
    pub damage: Vec<Lost>,
}

/// What a segment has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentFigures {
    /// Its number.
    pub number: u64,
    /// Its file.
    pub file: PathBuf,
    /// Records in intact blocks.
    pub records: u64,
    /// Bytes of intact blocks, their headers included.
    pub bytes: u64,
}

/// What is damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// The file, where in it, and what would be right.
    pub damage: Damage,
    /// How many bytes from there on are in doubt. Records among them that are still intact are not lost. 0 if only the
    /// file's header or size is wrong.
    pub bytes: u64,
}

/// Reads the journal in `dir` and gives every record, in order, to `replay`. Where damage is, what is still intact inside
/// comes as it is, and the rest as records of the kind [`LOST`](crate::LOST).
///
/// Nothing is changed, not even a lock file is made. A journal that is open is refused: what is being written looks
/// damaged.
pub fn survey(
    disk: Arc<dyn Disk>,
    dir: &Path,
    replay: &mut dyn FnMut(Record<'_>) -> Result<(), ReplayError>,
) -> Result<Survey, OpenError> {
    let _lock = lock_to_read(disk.as_ref(), dir)?;
    Ok(Surveyed::read(disk, dir, 0, replay)?.survey)
}

/// `None` if there is no lock file: then nobody has ever opened the journal here.
fn lock_to_read(disk: &dyn Disk, dir: &Path) -> Result<Option<DiskLock>, OpenError> {
    let path = path::lock(dir);
    match disk.lock_to_read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        locked => match locked.during("lock", &path)? {
            None => Err(OpenError::Locked { dir: dir.to_owned() }),
            lock => Ok(lock),
        },
    }
}

/// A survey, and what salvaging needs besides.
pub(super) struct Surveyed {
    pub(super) folder: Folder,
    pub(super) segments: Vec<Segment>,
    pub(super) scan: Scan,
    /// By index: the file as such is damaged.
    pub(super) file_damage: Vec<Option<Damage>>,
    pub(super) survey: Survey,
}

impl Surveyed {
    pub(super) fn read(
        disk: Arc<dyn Disk>,
        dir: &Path,
        seed: u64,
        replay: &mut Replay<'_>,
    ) -> Result<Self, OpenError> {
        // A size that no segment has, so that the first intact header tells the right one.
        let mut folder =
            Folder { disk, dir: dir.to_owned(), layout: Layout { segment_bytes: u64::MAX }, seed };
        let (numbers, spares) = folder.list()?;
        let segment_bytes = folder.find_segment_bytes(&numbers)?;
        if segment_bytes.is_none() && !numbers.is_empty() {
            return Err(OpenError::NoSegmentBytes { dir: dir.to_owned() });
        }
        folder.layout = Layout { segment_bytes: segment_bytes.unwrap_or(u64::MAX) };
        check_numbers(&folder, &numbers)?;
        let (mut segments, mut file_damage) = (Vec::new(), Vec::new());
        if let (Some(first), Some(last)) = (numbers.first(), numbers.last()) {
            for number in *first..=*last {
                let (segment, damage) = folder.open_damaged(number)?;
                segments.push(segment);
                file_damage.push(damage);
            }
        }
        let scan = scan::scan(folder.layout, &segments, OnDamage::Pass, replay)?;
        let first = segments
            .first()
            .map_or(Position::default(), |segment| Position(folder.layout.first_block(segment.number)));
        let survey = Survey {
            segment_bytes: segment_bytes.unwrap_or(0),
            segments: segments.iter().zip(&scan.contents).map(SegmentFigures::new).collect(),
            spares: spares.len() as u64,
            recovery: report(&scan, first, segments.len()),
            damage: lost(&scan, &file_damage),
        };
        Ok(Self { folder, segments, scan, file_damage, survey })
    }
}

impl SegmentFigures {
    fn new((segment, contents): (&Segment, &scan::Contents)) -> Self {
        let scan::Contents { records, bytes } = *contents;
        Self { number: segment.number, file: segment.path.clone(), records, bytes }
    }
}

/// A name that some other program made up must not have us look for all the segments before it.
fn check_numbers(folder: &Folder, numbers: &[u64]) -> Result<(), OpenError> {
    let limit = u64::MAX / folder.layout.segment_bytes.max(1);
    for (before, number) in numbers.iter().zip(numbers.iter().skip(1)) {
        if number - before > MISSING_MAX || *number >= limit {
            let expected = format!("a number at most {MISSING_MAX} above that of the segment before");
            return Err(Damage { file: path::segment(&folder.dir, *number), offset: 0, expected }.into());
        }
    }
    Ok(())
}

fn lost(scan: &Scan, file_damage: &[Option<Damage>]) -> Vec<Lost> {
    let mut lost = Vec::new();
    for (index, damage) in file_damage.iter().enumerate() {
        lost.extend(damage.clone().map(|damage| Lost { damage, bytes: 0 }));
        let spans = scan.spans.iter().filter(|span| span.index == index);
        lost.extend(
            spans.map(|span| Lost { damage: span.damage.clone(), bytes: span.range.end - span.range.start }),
        );
    }
    lost
}
