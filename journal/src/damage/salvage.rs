//! Going on after damage: what is lost is marked as lost, in place, and everything else stays where it is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::survey::{Survey, Surveyed};
use crate::block::{self, BLOCK_HEADER_BYTES, BlockKind};
use crate::disk::{Disk, DiskFile};
use crate::error::{DiskError, During as _, OpenError};
use crate::path;
use crate::record::{self, LOST};
use crate::scan::{self, DamagedSpan};
use crate::segment::{COPY_BYTES, Folder, HEADER_BYTES, SEGMENT_HEADER_BYTES, Segment};
use crate::{Record, ReplayError};

/// Makes a damaged journal one that opens, and tells what that cost. Each segment that is damaged is kept as it was, under
/// its name with `.damaged` behind it, and replaced by a copy in which valid blocks say what is lost (records of the kind
/// [`LOST`]). What is intact keeps its position.
///
/// `replay` is given what is left, as by [`survey`](crate::survey()); if it fails, or if nothing is damaged, nothing is
/// changed. Killed at any point it can be repeated. `seed` is as in [`Options`](crate::Options).
pub fn salvage(
    disk: Arc<dyn Disk>,
    dir: &Path,
    seed: u64,
    replay: &mut dyn FnMut(Record<'_>) -> Result<(), ReplayError>,
) -> Result<Survey, OpenError> {
    let lock_path = path::lock(dir);
    let lock = disk.lock(&lock_path).during("lock", &lock_path)?;
    let _lock = lock.ok_or_else(|| OpenError::Locked { dir: dir.to_owned() })?;
    let surveyed = Surveyed::read(disk, dir, seed, replay)?;
    for (index, segment) in surveyed.segments.iter().enumerate() {
        let spans: Vec<_> = surveyed.scan.spans.iter().filter(|span| span.index == index).collect();
        let file_damaged = surveyed.file_damage.get(index).is_some_and(Option::is_some);
        if file_damaged || !spans.is_empty() {
            keep(&surveyed.folder, segment)?;
            replace(&surveyed.folder, segment, &spans)?;
        }
    }
    Ok(surveyed.survey)
}

/// Copies the damaged file to a name of its own.
fn keep(folder: &Folder, segment: &Segment) -> Result<(), DiskError> {
    let size = segment.file.size().during("read the size of", &segment.path)?;
    if size == 0 {
        // It is missing, or as good as that.
        return Ok(());
    }
    let kept_path = unused(folder, &segment.path)?;
    let kept = folder.disk.create(&kept_path).during("create", &kept_path)?;
    copy(segment, kept.as_ref(), &kept_path, size)?;
    kept.sync_data().during("sync", &kept_path)?;
    folder.sync_dir()
}

/// The first of `x.damaged`, `x.damaged.2`, ... that no earlier salvage has used.
fn unused(folder: &Folder, segment: &Path) -> Result<PathBuf, DiskError> {
    let names = folder.disk.list(&folder.dir).during("list", &folder.dir)?;
    let taken =
        |path: &Path| names.iter().any(|name| path.file_name().is_some_and(|file| file == name.as_str()));
    let first = segment.with_extension("segment.damaged");
    let further = (2..).map(|number: u64| segment.with_extension(format!("segment.damaged.{number}")));
    Ok(std::iter::once(first.clone()).chain(further).find(|path| !taken(path)).unwrap_or(first))
}

fn replace(folder: &Folder, segment: &Segment, spans: &[&DamagedSpan]) -> Result<(), DiskError> {
    let copy_path = path::spare(&folder.dir, segment.number);
    let file = folder.create(&copy_path)?;
    copy(segment, file.as_ref(), &copy_path, folder.layout.segment_bytes)?;
    let mut header = [0; SEGMENT_HEADER_BYTES as usize];
    if let Some(place) = header.first_chunk_mut::<HEADER_BYTES>() {
        *place = folder.header(segment.number, segment.epoch);
    }
    file.write_at(&header, 0).during("write", &copy_path)?;
    for span in spans {
        let offset = folder.layout.offset(span.range.start);
        let mut bytes = vec![0; (span.range.end - span.range.start) as usize];
        segment.file.read_at(&mut bytes, offset).during("read", &segment.path)?;
        file.write_at(&marked(&bytes, segment.epoch, span), offset).during("write", &copy_path)?;
    }
    folder.install(file.as_ref(), &copy_path, &segment.path)
}

/// A valid block in place of the damaged ones.
fn marked(bytes: &[u8], epoch: u64, span: &DamagedSpan) -> Vec<u8> {
    let mut block = vec![0; BLOCK_HEADER_BYTES.min(bytes.len())];
    let parts = scan::intact_parts(bytes, epoch, span.range.start);
    let records = parts.len() as u32;
    for (range, kind) in parts {
        let part = bytes.get(range).unwrap_or_default();
        if kind.is_some() {
            block.extend_from_slice(part);
        } else {
            let zeros = vec![0; scan::lost_payload_bytes(part.len())];
            record::encode(&mut block, LOST, zeros.len(), &[&zeros]);
        }
    }
    debug_assert_eq!(block.len(), bytes.len(), "what is behind stays where it is");
    block::seal(&mut block, BlockKind::Records, epoch, span.range.start, span.synced, records);
    block
}

/// Copies a segment's first `size` bytes.
fn copy(segment: &Segment, to: &dyn DiskFile, to_path: &Path, size: u64) -> Result<(), DiskError> {
    let mut buffer = vec![0; COPY_BYTES];
    let mut offset = 0;
    while offset < size {
        buffer.truncate((size - offset).min(COPY_BYTES as u64) as usize);
        segment.file.read_at(&mut buffer, offset).during("read", &segment.path)?;
        to.write_at(&buffer, offset).during("write", to_path)?;
        offset += buffer.len() as u64;
    }
    Ok(())
}
