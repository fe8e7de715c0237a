//! Reading a journal from its first block to where it ends, and telling a torn tail from damage. Changes nothing.
//!
//! A crash may keep any part of what was written after the last sync and lose the rest, so the first place where no valid
//! block starts is usually just the end. It is damage if, and only if, a later block says that this place had been synced
//! when it was written.

use crate::Position;
use crate::block::{BLOCK_HEADER_BYTES, BlockHeader, BlockKind};
use crate::error::{DiskError, During as _, OpenError, ReplayError};
use crate::record::{self, Record};
use crate::segment::{Layout, Segment};

/// Bytes that are read at once.
const WINDOW_BYTES: usize = 1 << 20;

pub(crate) type Replay<'a> = dyn FnMut(Record<'_>) -> Result<(), ReplayError> + 'a;

/// Where a journal ends, and how.
#[derive(Debug)]
pub(crate) struct Scan {
    /// The index of the segment with the last valid block; those behind it have nothing.
    pub(crate) last: usize,
    /// Behind the last valid block.
    pub(crate) end: u64,
    pub(crate) records: u64,
    /// The bytes of blocks behind the end that can still be told to have been there.
    pub(crate) torn_bytes: u64,
    /// The mark of a clean stop, if it is the last block and nothing of a later one is there.
    pub(crate) clean_mark: Option<u64>,
}

/// The first place where no valid block starts: the index of its segment, and the position.
#[derive(Clone, Copy)]
struct Gap {
    index: usize,
    position: u64,
}

/// Replays all records of the journal's segments.
pub(crate) fn scan(layout: Layout, segments: &[Segment], replay: &mut Replay<'_>) -> Result<Scan, OpenError> {
    let mut window = Window::new(layout);
    let end = segments.first().map_or(0, |segment| layout.first_block(segment.number));
    let mut found = Scan { last: 0, end, records: 0, torn_bytes: 0, clean_mark: None };
    let mut gap = Gap { index: 0, position: end };
    for (index, segment) in segments.iter().enumerate() {
        let first_block = layout.first_block(segment.number);
        if index > 0 {
            match window.header(segment, first_block)? {
                Some(header) if header.synced == found.end => {}
                Some(header) => return Err(damage(layout, segments, gap, header.position)),
                None => break,
            }
        }
        gap = Gap { index, position: first_block };
        if walk(&mut window, segment, &mut gap, &mut found, replay)? == Walked::ToTornBlock {
            break;
        }
    }
    look_behind(&mut window, segments, gap, &mut found)?;
    if found.torn_bytes > 0 {
        found.clean_mark = None;
    }
    Ok(found)
}

#[derive(PartialEq, Eq)]
enum Walked {
    ToEnd,
    /// A block starts there, but its body is not intact.
    ToTornBlock,
}

/// Replays the blocks of one segment, and moves the gap and the end behind each. A segment without a whole block is not
/// part of the journal: the one before it is still the last.
fn walk(
    window: &mut Window,
    segment: &Segment,
    gap: &mut Gap,
    found: &mut Scan,
    replay: &mut Replay<'_>,
) -> Result<Walked, OpenError> {
    let layout = window.layout;
    while let Some(header) = window.header(segment, gap.position)? {
        let block = window.bytes(segment, header.position, header.length as usize)?;
        let mut rest = block.get(BLOCK_HEADER_BYTES..).unwrap_or_default();
        if !header.body_is_intact(rest) {
            return Ok(Walked::ToTornBlock);
        }
        for _ in 0..header.records {
            let position = header.end() - rest.len() as u64;
            let (record, payload, after) = record::split_first(rest)
                .filter(|(record, payload, _)| record.is_intact(payload, segment.epoch, position))
                .ok_or_else(|| {
                    segment.damage(layout, position, "a record, as its block is intact".to_owned())
                })?;
            let position = Position(position);
            replay(Record { position, kind: record.kind, payload })
                .map_err(|reason| OpenError::Replay { position, reason })?;
            rest = after;
            found.records += 1;
        }
        found.clean_mark = (header.kind == BlockKind::CleanStop).then_some(header.position);
        (found.last, found.end) = (gap.index, header.end());
        gap.position = found.end;
    }
    Ok(Walked::ToEnd)
}

/// Looks for blocks from the gap on. Each says what had been synced when it was written: if the gap had been, then what
/// was there is damaged. They serve for nothing else, and are never replayed.
///
/// A valid header tells where its block ends, and nothing inside is looked at. Where there is none, the next multiple of 8
/// is tried: bytes of a payload would have to contain the segment's epoch, which no client knows, and the position at
/// which they happen to be; and then the journal refuses to open, but still replays nothing wrong.
fn look_behind(
    window: &mut Window,
    segments: &[Segment],
    gap: Gap,
    found: &mut Scan,
) -> Result<(), OpenError> {
    let layout = window.layout;
    for segment in segments.iter().skip(gap.index) {
        let start = gap.position.max(layout.first_block(segment.number));
        let mut position = start;
        while let Some(header) = window.find_header(segment, position)? {
            if header.synced > gap.position {
                return Err(damage(layout, segments, gap, header.position));
            }
            position = header.end();
        }
        found.torn_bytes += position - start;
    }
    Ok(())
}

/// The block at `witness` says that what should be at the gap had been synced.
fn damage(layout: Layout, segments: &[Segment], gap: Gap, witness: u64) -> OpenError {
    let witness = Position(witness);
    let expected = format!(
        "a block here, or at the start of the next segment: the block at {witness} was written after it had been synced"
    );
    let damage = segments.get(gap.index).map(|segment| segment.damage(layout, gap.position, expected));
    damage.unwrap_or_default().into()
}

/// A part of a segment in memory, so that small blocks cost no call each.
struct Window {
    layout: Layout,
    /// Of the first byte of `bytes`.
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    fn new(layout: Layout) -> Self {
        Self { layout, start: 0, bytes: Vec::new() }
    }

    /// The bytes at `position`, fewer than asked for only at the end of the segment.
    fn bytes(&mut self, segment: &Segment, position: u64, length: usize) -> Result<&[u8], DiskError> {
        let room = (self.layout.end(segment.number) - position) as usize;
        let length = length.min(room);
        let held = self.start..self.start + self.bytes.len() as u64;
        if !(held.contains(&position) && position + length as u64 <= held.end) {
            self.bytes.resize(length.max(WINDOW_BYTES).min(room), 0);
            self.start = position;
            let offset = position - segment.number * self.layout.segment_bytes;
            segment.file.read_at(&mut self.bytes, offset).during("read", &segment.path)?;
        }
        let from = (position - self.start) as usize;
        Ok(self.bytes.get(from..from + length).unwrap_or_default())
    }

    /// The header of the block at `position`, if one starts there.
    fn header(&mut self, segment: &Segment, position: u64) -> Result<Option<BlockHeader>, DiskError> {
        let room = self.layout.end(segment.number) - position;
        if room < BLOCK_HEADER_BYTES as u64 {
            return Ok(None);
        }
        let bytes = self.bytes(segment, position, BLOCK_HEADER_BYTES)?;
        Ok(BlockHeader::decode(bytes, segment.epoch, position, room))
    }

    /// The first header from `position` on.
    fn find_header(&mut self, segment: &Segment, position: u64) -> Result<Option<BlockHeader>, DiskError> {
        let end = self.layout.end(segment.number);
        let mut position = position;
        while position + BLOCK_HEADER_BYTES as u64 <= end {
            if let Some(header) = self.header(segment, position)? {
                return Ok(Some(header));
            }
            position += record::ALIGNMENT as u64;
        }
        Ok(None)
    }
}
