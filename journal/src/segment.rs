//! A segment: one file of a fixed size, and the folder that all segments are in.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Buf as _, BufMut as _};

use crate::block::{BLOCK_HEADER_BYTES, BlockHeader};
use crate::disk::{Disk, DiskFile};
use crate::error::{Damage, DiskError, During as _, OpenError};
use crate::faults::{crash_point, mutant};
use crate::path::{self, Name};

/// Bytes before a segment's first block: a page of its own, so that no later write touches the header.
pub(crate) const SEGMENT_HEADER_BYTES: u64 = 4096;
/// The smallest segment, in bytes: its header and one page.
pub const SEGMENT_BYTES_MIN: u64 = 8 << 10;
/// The largest segment, in bytes: lengths in a block are 32 bits, and one group may be read into memory as a whole.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;

const MAGIC: [u8; 8] = *b"LVRTJRNL";
const VERSION: u32 = 1;
pub(crate) const HEADER_BYTES: usize = 44;
/// Where the header's own checksum is: it covers what is before it.
const CHECKSUM_AT: usize = 40;
/// Bytes of a file that are copied at once.
pub(crate) const COPY_BYTES: usize = 1 << 20;

/// Where the parts of a segment are, as positions in the journal.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    pub(crate) segment_bytes: u64,
}

impl Layout {
    pub(crate) fn number(self, position: u64) -> u64 {
        position / self.segment_bytes
    }

    pub(crate) fn offset(self, position: u64) -> u64 {
        position % self.segment_bytes
    }

    /// The first block of a segment.
    pub(crate) fn first_block(self, number: u64) -> u64 {
        number * self.segment_bytes + SEGMENT_HEADER_BYTES
    }

    /// The end of the segment `number`, which is where the next begins.
    pub(crate) fn end(self, number: u64) -> u64 {
        (number + 1) * self.segment_bytes
    }

    /// The most bytes that the records of one block, and so of one group, may have.
    pub(crate) fn body_bytes_max(self) -> usize {
        (self.segment_bytes - SEGMENT_HEADER_BYTES) as usize - BLOCK_HEADER_BYTES
    }
}

/// A segment that is part of the journal, or will be next.
pub(crate) struct Segment {
    pub(crate) number: u64,
    /// Drawn anew whenever a file becomes a segment, and part of every checksum in it: what the file contained before,
    /// and what a client makes up, does not count.
    pub(crate) epoch: u64,
    pub(crate) path: PathBuf,
    pub(crate) file: Box<dyn DiskFile>,
}

impl Segment {
    /// The damage that is at `position`.
    pub(crate) fn damage(&self, layout: Layout, position: u64, expected: String) -> Damage {
        let offset = position - self.number * layout.segment_bytes;
        Damage { file: self.path.clone(), offset, expected }
    }
}

/// The journal's directory.
pub(crate) struct Folder {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: PathBuf,
    pub(crate) layout: Layout,
    /// Where epochs come from.
    pub(crate) seed: u64,
}

impl Folder {
    /// The numbers of the segments, ascending, and the spare files.
    pub(crate) fn list(&self) -> Result<(Vec<u64>, Vec<PathBuf>), DiskError> {
        let (mut segments, mut spares) = (Vec::new(), Vec::new());
        for name in self.disk.list(&self.dir).during("list", &self.dir)? {
            match path::parse(&name) {
                Some(Name::Segment(number)) => segments.push(number),
                Some(Name::Spare(_)) => spares.push(self.dir.join(name)),
                None => {}
            }
        }
        segments.sort_unstable();
        spares.sort_unstable();
        Ok((segments, spares))
    }

    /// Opens a segment of the journal. It has its name only since its size and header were synced, so nothing but damage
    /// explains any other size or header.
    pub(crate) fn open(&self, number: u64) -> Result<Segment, OpenError> {
        let path = path::segment(&self.dir, number);
        let damaged = |expected: String| Damage { file: path.clone(), offset: 0, expected };
        if number >= u64::MAX / self.layout.segment_bytes {
            return Err(damaged("a number that leaves positions for what is still to come".to_owned()).into());
        }
        let file = match self.disk.open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(damaged("a file, as there are segments before and after it".to_owned()).into());
            }
            opened => opened.during("open", &path)?,
        };
        let size = file.size().during("read the size of", &path)?;
        let mut header = [0; HEADER_BYTES];
        if size < SEGMENT_BYTES_MIN {
            return Err(damaged(format!("{} bytes, found {size}", self.layout.segment_bytes)).into());
        }
        file.read_at(&mut header, 0).during("read", &path)?;
        let epoch = self.check_header(&header, number, &path)?;
        if size != self.layout.segment_bytes {
            return Err(damaged(format!("{} bytes, found {size}", self.layout.segment_bytes)).into());
        }
        Ok(Segment { number, epoch, path, file })
    }

    /// Opens a segment to read as much of it as there is: what is missing reads as zeros. Also gives what is wrong with
    /// it as a file; the blocks are another matter.
    pub(crate) fn open_damaged(&self, number: u64) -> Result<(Segment, Option<Damage>), OpenError> {
        let path = path::segment(&self.dir, number);
        let file = match self.disk.open_to_read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            opened => Some(opened.during("open", &path)?),
        };
        let size = file.as_ref().map_or(Ok(0), |file| file.size()).during("read the size of", &path)?;
        let file: Box<dyn DiskFile> = Box::new(PaddedFile { file, size });
        let mut header = [0; HEADER_BYTES];
        file.read_at(&mut header, 0).during("read", &path)?;
        let checked = self.check_header(&header, number, &path);
        let (epoch, damage) = match checked {
            Ok(epoch) if size == self.layout.segment_bytes => (epoch, None),
            Ok(epoch) => {
                let expected = format!("{} bytes, found {size}", self.layout.segment_bytes);
                (epoch, Some(Damage { file: path.clone(), offset: size, expected }))
            }
            Err(error) => {
                // A segment's first block is always in the same place, so that its epoch can be believed: no client has
                // a say in what is there. Where it is intact, this is a segment of ours with a damaged header.
                let mut block = [0; BLOCK_HEADER_BYTES];
                file.read_at(&mut block, SEGMENT_HEADER_BYTES).during("read", &path)?;
                let room = self.layout.segment_bytes - SEGMENT_HEADER_BYTES;
                let first = BlockHeader::decode_of_any_epoch(&block, self.layout.first_block(number), room);
                match (error, first) {
                    (OpenError::Damaged(damage), None) => (epoch(self.seed, number), Some(damage)),
                    (OpenError::Damaged(damage), Some(first)) => (first.epoch, Some(damage)),
                    (OpenError::UnknownVersion { .. }, Some(first)) => {
                        let expected = "the header of a segment, with its version".to_owned();
                        (first.epoch, Some(Damage { file: path.clone(), offset: 0, expected }))
                    }
                    (other, _) => return Err(other),
                }
            }
        };
        Ok((Segment { number, epoch, path, file }, damage))
    }

    /// The size of the segments of which these are the numbers; `None` if nothing tells.
    pub(crate) fn find_segment_bytes(&self, numbers: &[u64]) -> Result<Option<u64>, OpenError> {
        let mut sizes = Vec::new();
        for number in numbers {
            let path = path::segment(&self.dir, *number);
            let file = self.disk.open_to_read(&path).during("open", &path)?;
            let size = file.size().during("read the size of", &path)?;
            let mut header = [0; HEADER_BYTES];
            if size >= HEADER_BYTES as u64 {
                file.read_at(&mut header, 0).during("read", &path)?;
            }
            match self.check_header(&header, *number, &path) {
                Err(OpenError::OtherSegmentBytes { found, .. }) => return Ok(Some(found)),
                _ => sizes.push(size),
            }
        }
        // No header is intact, but a file's size tells as much, unless it was cut.
        let right =
            |size: &u64| size.is_power_of_two() && (SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(size);
        Ok(sizes.into_iter().filter(right).max())
    }

    /// Makes a segment of a spare file, or of a new one, and returns once it is there to stay. Interrupted at any point
    /// it leaves a spare.
    pub(crate) fn make(&self, number: u64, spare: Option<PathBuf>) -> Result<Segment, DiskError> {
        let (from, existing) = match spare {
            Some(spare) => (spare.clone(), Some(self.disk.open(&spare).during("open", &spare)?)),
            None => (path::spare(&self.dir, number), None),
        };
        let mut whole = None;
        if let Some(file) = existing {
            let size = file.size().during("read the size of", &from)?;
            whole = (size == self.layout.segment_bytes).then_some(file);
        }
        let file = match whole {
            Some(file) => file,
            None => self.create(&from)?,
        };
        let epoch = epoch(self.seed, number);
        crash_point("journal.make.before_header");
        file.write_at(&self.header(number, epoch), 0).during("write", &from)?;
        crash_point("journal.make.header_written");
        let path = path::segment(&self.dir, number);
        self.install(file.as_ref(), &from, &path)?;
        Ok(Segment { number, epoch, path, file })
    }

    /// Replaces a segment's file by a synced copy of its first `bytes` bytes, the rest zeros. Interrupted at any point it
    /// leaves the segment as it was, or replaced.
    pub(crate) fn replace_by_copy(&self, segment: &Segment, bytes: u64) -> Result<Segment, DiskError> {
        let copy_path = path::spare(&self.dir, segment.number);
        let copy = self.create(&copy_path)?;
        let mut buffer = vec![0; COPY_BYTES.min(bytes as usize)];
        let mut offset = 0;
        while offset < bytes {
            buffer.truncate((bytes - offset) as usize);
            segment.file.read_at(&mut buffer, offset).during("read", &segment.path)?;
            copy.write_at(&buffer, offset).during("write", &copy_path)?;
            offset += buffer.len() as u64;
        }
        crash_point("journal.copy.written");
        self.install(copy.as_ref(), &copy_path, &segment.path)?;
        crash_point("journal.copy.installed");
        Ok(Segment { number: segment.number, epoch: segment.epoch, path: segment.path.clone(), file: copy })
    }

    /// Takes a segment's file out of the journal: kept as the spare file `keep`, or removed.
    pub(crate) fn retire(&self, number: u64, keep: Option<&Path>) -> Result<(), DiskError> {
        let path = path::segment(&self.dir, number);
        match keep {
            Some(spare) => self.disk.rename(&path, spare).during("rename", &path)?,
            None => self.disk.remove(&path).during("remove", &path)?,
        }
        crash_point("journal.retire.before_dir_sync");
        self.sync_dir()?;
        crash_point("journal.retire.done");
        Ok(())
    }

    /// Gives the space of a spare file back.
    pub(crate) fn drop_spare(&self, spares: &mut Vec<PathBuf>) -> Result<(), DiskError> {
        let Some(spare) = spares.pop() else { return Ok(()) };
        self.disk.remove(&spare).during("remove", &spare)
    }

    pub(crate) fn create(&self, path: &Path) -> Result<Box<dyn DiskFile>, DiskError> {
        let file = self.disk.create(path).during("create", path)?;
        crash_point("journal.create.created");
        file.allocate(self.layout.segment_bytes).during("allocate", path).inspect_err(|_| {
            // What the failed attempt reserved may be the room that somebody needs to go on. If this fails too, the
            // file is a spare, and the next start uses it.
            let _ = self.disk.remove(path);
        })?;
        crash_point("journal.create.allocated");
        Ok(file)
    }

    /// Gives a file its name in the journal, but only after what it contains is there to stay.
    pub(crate) fn install(&self, file: &dyn DiskFile, from: &Path, to: &Path) -> Result<(), DiskError> {
        file.sync_data().during("sync", from)?;
        crash_point("journal.install.before_rename");
        self.disk.rename(from, to).during("rename", from)?;
        crash_point("journal.install.before_dir_sync");
        self.sync_dir()
    }

    pub(crate) fn sync_dir(&self) -> Result<(), DiskError> {
        if mutant("directory_not_synced") {
            return Ok(());
        }
        self.disk.sync_dir(&self.dir).during("sync", &self.dir)
    }

    pub(crate) fn header(&self, number: u64, epoch: u64) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut place = bytes.as_mut_slice();
        place.put_slice(&MAGIC);
        place.put_u32_le(VERSION);
        place.put_u32_le(0);
        place.put_u64_le(number);
        place.put_u64_le(self.layout.segment_bytes);
        place.put_u64_le(epoch);
        let checksum = bytes.get(..CHECKSUM_AT).map_or(0, crc32c::crc32c);
        if let Some(place) = bytes.get_mut(CHECKSUM_AT..) {
            place.copy_from_slice(&checksum.to_le_bytes());
        }
        bytes
    }

    /// Returns the epoch of an intact header. The version comes first: what follows it is another version's own affair.
    fn check_header(&self, bytes: &[u8; HEADER_BYTES], number: u64, path: &Path) -> Result<u64, OpenError> {
        let damaged =
            |expected: &str| Damage { file: path.to_owned(), offset: 0, expected: expected.to_owned() };
        let mut rest = bytes.strip_prefix(&MAGIC).ok_or_else(|| damaged("the header of a segment"))?;
        let version = rest.get_u32_le();
        if version != VERSION {
            return Err(OpenError::UnknownVersion {
                file: path.to_owned(),
                found: version,
                supported: VERSION,
            });
        }
        rest.advance(4);
        let (found_number, segment_bytes, epoch) = (rest.get_u64_le(), rest.get_u64_le(), rest.get_u64_le());
        if bytes.get(..CHECKSUM_AT).map(crc32c::crc32c) != Some(rest.get_u32_le()) {
            return Err(damaged("the header of a segment, with its checksum").into());
        }
        if found_number != number {
            return Err(damaged(&format!("segment {number}, found segment {found_number}")).into());
        }
        if segment_bytes != self.layout.segment_bytes {
            let (file, configured) = (path.to_owned(), self.layout.segment_bytes);
            return Err(OpenError::OtherSegmentBytes { file, found: segment_bytes, configured });
        }
        Ok(epoch)
    }
}

/// What there is of a file, and zeros behind it.
struct PaddedFile {
    file: Option<Box<dyn DiskFile>>,
    size: u64,
}

impl DiskFile for PaddedFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.size)
    }

    fn allocate(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let there = self.size.saturating_sub(offset).min(bytes.len() as u64) as usize;
        let (there, missing) = bytes.split_at_mut(there);
        missing.fill(0);
        match &self.file {
            Some(file) if !there.is_empty() => file.read_at(there, offset),
            _ => Ok(()),
        }
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync_data(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Distinct for every number under one seed, and not to be guessed without it.
fn epoch(seed: u64, number: u64) -> u64 {
    mix(seed ^ mix(number))
}

/// The finalizer of splitmix64: a bijection in which every bit of the input changes half of the output's.
pub(crate) fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
