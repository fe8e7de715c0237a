//! Reading a journal from its first block to where it ends, and telling a torn tail from damage. Changes nothing.
//!
//! A crash may keep any part of what was written after the last sync and lose the rest, so the first place where no valid
//! block starts is usually just the end. It is damage if, and only if, a later block says that this place had been synced
//! when it was written.

mod ahead;
mod window;

use std::ops::Range;

use bytes::Bytes;

use self::ahead::{Ahead, Part};
use self::window::Window;
use crate::Position;
use crate::block::{BLOCK_HEADER_BYTES, BlockHeader, BlockKind};
use crate::error::{Damage, DiskError, OpenError, ReplayError};
use crate::record::{self, LOST, RECORD_HEADER_BYTES, Record, RecordHeader};
use crate::segment::{Layout, Segment};

pub(crate) type Replay<'a> = dyn FnMut(Record<'_>) -> Result<(), ReplayError> + 'a;

/// What is done about damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnDamage {
    /// The scan ends with the error.
    Refuse,
    /// It is noted, what is still intact inside is replayed, and the scan goes on behind it.
    Pass,
}

/// Where a journal ends, and how.
#[derive(Debug, Default)]
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
    /// Where blocks are damaged, in order.
    pub(crate) spans: Vec<DamagedSpan>,
    /// What each segment has, by its index.
    pub(crate) contents: Vec<Contents>,
}

/// From where a block should start to where one starts again, or should.
#[derive(Debug)]
pub(crate) struct DamagedSpan {
    /// Of the segment.
    pub(crate) index: usize,
    pub(crate) range: Range<u64>,
    /// What the header of a block here has to say was synced.
    pub(crate) synced: u64,
    pub(crate) damage: Damage,
}

/// What a segment has.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Contents {
    pub(crate) records: u64,
    /// Bytes of valid blocks.
    pub(crate) bytes: u64,
}

/// The first place where no valid block starts: the index of its segment, and the position.
#[derive(Clone, Copy)]
struct Gap {
    index: usize,
    position: u64,
}

/// Replays all records of the journal's segments.
pub(crate) fn scan(
    layout: Layout,
    segments: &[Segment],
    on_damage: OnDamage,
    replay: &mut Replay<'_>,
) -> Result<Scan, OpenError> {
    ahead::replay_while_reading(layout, segments, replay, |ahead| read(layout, segments, on_damage, ahead))
}

fn read(layout: Layout, segments: &[Segment], on_damage: OnDamage, ahead: Ahead) -> Result<Scan, OpenError> {
    let end = segments.first().map_or(0, |segment| layout.first_block(segment.number));
    let found = Scan { end, contents: vec![Contents::default(); segments.len()], ..Scan::default() };
    let mut scanner = Scanner { segments, window: Window::new(layout), found, ahead };
    let mut gap = Gap { index: 0, position: end };
    loop {
        scanner.walk(&mut gap)?;
        if scanner.goes_on_in_next(gap)? {
            gap = scanner.start_of(gap.index + 1);
            continue;
        }
        // What was read so far is replayed meanwhile.
        scanner.ahead.hand_over()?;
        let Some(witness) = scanner.look_behind(gap)? else { break };
        let damage = scanner.damage(gap, witness);
        if on_damage == OnDamage::Refuse {
            return Err(damage.into());
        }
        gap = scanner.pass(gap, damage)?;
    }
    let mut found = scanner.found;
    if found.torn_bytes > 0 {
        found.clean_mark = None;
    }
    Ok(found)
}

/// The parts of the damaged block or blocks in `bytes`, which begin at `position` with a block's header: records that are
/// intact, and what is not between them. Together the parts are all but that header.
///
/// A record's checksum has the segment's epoch and its own position in it, so that nothing inside of a payload can be
/// taken for one.
pub(crate) fn intact_parts(bytes: &[u8], epoch: u64, position: u64) -> Vec<(Range<usize>, Option<u8>)> {
    // What is not a record is looked at again at the next multiple of 8. A payload that is full of record marks must not
    // make that take for ever.
    let mut patience = bytes.len().saturating_mul(16);
    let mut parts = Vec::new();
    let mut lost_from = BLOCK_HEADER_BYTES.min(bytes.len());
    let mut at = lost_from;
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty() && patience > 0) {
        let header = RecordHeader::decode(rest);
        let payload = header.and_then(|header| {
            let whole = rest.get(..header.whole_bytes())?;
            Some((header, whole.get(RECORD_HEADER_BYTES..)?.get(..header.length)?))
        });
        patience = patience.saturating_sub(payload.map_or(0, |(header, _)| header.length));
        match payload.filter(|(header, payload)| header.is_intact(payload, epoch, position + at as u64)) {
            // A gap that is too small for a record of its own cannot be marked.
            Some((header, _)) if at == lost_from || at - lost_from >= RECORD_HEADER_BYTES => {
                if at > lost_from {
                    parts.push((lost_from..at, None));
                }
                let end = at + header.whole_bytes();
                parts.push((at..end, Some(header.kind)));
                (at, lost_from) = (end, end);
            }
            _ => at += record::ALIGNMENT,
        }
    }
    if lost_from < bytes.len() {
        // As above: what is too small to be marked takes the record before it along.
        let too_small = bytes.len() - lost_from < RECORD_HEADER_BYTES;
        let before = if too_small { parts.pop() } else { None };
        parts.push((before.map_or(lost_from, |(range, _)| range.start)..bytes.len(), None));
    }
    parts
}

/// The length of the payload of the record that stands for lost bytes.
pub(crate) fn lost_payload_bytes(bytes: usize) -> usize {
    bytes.saturating_sub(RECORD_HEADER_BYTES)
}

/// A record that stands for that many lost bytes.
fn lost_record(bytes: usize) -> Bytes {
    let zeros = vec![0; lost_payload_bytes(bytes)];
    let mut record = Vec::new();
    record::encode(&mut record, LOST, zeros.len(), &[&zeros]);
    record.into()
}

struct Scanner<'a> {
    segments: &'a [Segment],
    window: Window,
    found: Scan,
    ahead: Ahead,
}

impl Scanner<'_> {
    fn segment(&self, index: usize) -> Option<&Segment> {
        self.segments.get(index)
    }

    fn start_of(&self, index: usize) -> Gap {
        let first_block = |segment: &Segment| self.window.layout.first_block(segment.number);
        Gap { index, position: self.segment(index).map_or(self.found.end, first_block) }
    }

    /// The header of the first block of a segment.
    fn first_header(&mut self, index: usize) -> Result<Option<BlockHeader>, DiskError> {
        let Some(segment) = self.segments.get(index) else { return Ok(None) };
        self.window.header(segment, self.window.layout.first_block(segment.number))
    }

    /// Replays the blocks of one segment, and moves the gap and the end behind each. A segment without a whole block is
    /// not part of the journal: the one before it is still the last.
    fn walk(&mut self, gap: &mut Gap) -> Result<(), OpenError> {
        let Some(segment) = self.segments.get(gap.index) else { return Ok(()) };
        let layout = self.window.layout;
        while let Some(header) = self.window.header(segment, gap.position)? {
            let block = self.window.bytes(segment, header.position, header.length as usize)?;
            let body = block.slice(BLOCK_HEADER_BYTES.min(block.len())..);
            let out_of_line = gap.position == layout.first_block(segment.number)
                && gap.index > 0
                && header.synced != self.found.end;
            if !header.body_is_intact(&body) || out_of_line {
                return Ok(());
            }
            let position = header.end() - body.len() as u64;
            self.ahead.add(Part { index: gap.index, position, records: header.records, bytes: body })?;
            self.found.records += u64::from(header.records);
            self.found.clean_mark = (header.kind == BlockKind::CleanStop).then_some(header.position);
            if let Some(contents) = self.found.contents.get_mut(gap.index) {
                contents.records += u64::from(header.records);
                contents.bytes += u64::from(header.length);
            }
            (self.found.last, self.found.end) = (gap.index, header.end());
            gap.position = header.end();
        }
        Ok(())
    }

    /// Whether the segment ends at the gap, because the next begins with a block that says so.
    fn goes_on_in_next(&mut self, gap: Gap) -> Result<bool, DiskError> {
        let here = gap.position == self.found.end;
        Ok(here && self.first_header(gap.index + 1)?.is_some_and(|header| header.synced == gap.position))
    }

    /// Looks for blocks from the gap on. Each says what had been synced when it was written: if the gap had been, then
    /// what was there is damaged, and the position of the block is returned. They serve for nothing else here, and are
    /// not replayed.
    ///
    /// A valid header tells where its block ends, and nothing inside is looked at. Where there is none, the next multiple
    /// of 8 is tried: bytes of a payload would have to contain the segment's epoch, which no client knows, and the
    /// position at which they happen to be; and then the journal refuses to open, but still replays nothing wrong.
    fn look_behind(&mut self, gap: Gap) -> Result<Option<u64>, DiskError> {
        self.found.torn_bytes = 0;
        for (index, segment) in self.segments.iter().enumerate().skip(gap.index) {
            let first_block = self.window.layout.first_block(segment.number);
            let start = gap.position.max(first_block);
            let mut position = start;
            while let Some(header) = self.window.find_header(segment, position)? {
                // The first block of a segment is written when all before it is synced, exactly up to the last end.
                let out_of_line =
                    index == gap.index + 1 && header.position == first_block && header.synced != gap.position;
                if header.synced > gap.position || out_of_line {
                    return Ok(Some(header.position));
                }
                position = header.end();
            }
            self.found.torn_bytes += position - start;
        }
        Ok(None)
    }

    /// The block at `witness` says that what should be at the gap had been synced.
    fn damage(&self, gap: Gap, witness: u64) -> Damage {
        let witness = Position(witness);
        let expected = format!(
            "a block here, or at the start of the next segment: the block at {witness} was written after it had been \
             synced"
        );
        let layout = self.window.layout;
        let damage = self.segment(gap.index).map(|segment| segment.damage(layout, gap.position, expected));
        damage.unwrap_or_default()
    }

    /// Notes the damage at the gap, replays what is intact in it, and returns where to go on.
    fn pass(&mut self, gap: Gap, damage: Damage) -> Result<Gap, OpenError> {
        let Some(segment) = self.segments.get(gap.index) else { return Ok(gap) };
        let Some((end, known)) = self.end_of_damage(gap, segment)? else {
            return Ok(self.start_of(gap.index + 1));
        };
        let bytes = self.window.bytes(segment, gap.position, (end - gap.position) as usize)?;
        for (range, kind) in intact_parts(&bytes, segment.epoch, gap.position) {
            let (index, position) = (gap.index, gap.position + range.start as u64);
            let part = bytes.slice(range);
            let bytes = if kind.is_some() { part } else { lost_record(part.len()) };
            self.ahead.add(Part { index, position, records: 1, bytes })?;
            self.found.records += 1;
        }
        self.found.clean_mark = None;
        let (range, synced) = (gap.position..end, self.found.end);
        self.found.spans.push(DamagedSpan { index: gap.index, range, synced, damage });
        (self.found.last, self.found.end) = (gap.index, end);
        Ok(if known { Gap { index: gap.index, position: end } } else { self.start_of(gap.index + 1) })
    }

    /// Where the damage at the gap ends, and whether a block can be told to start there, or the next segment to begin.
    /// `None` if the gap is too near to the segment's end for any block.
    fn end_of_damage(&mut self, gap: Gap, segment: &Segment) -> Result<Option<(u64, bool)>, DiskError> {
        let end_of_segment = self.window.layout.end(segment.number);
        if let Some(header) = self.window.header(segment, gap.position)? {
            return Ok(Some((header.end(), true)));
        }
        let header_bytes = BLOCK_HEADER_BYTES as u64;
        if gap.position + header_bytes > end_of_segment {
            return Ok(None);
        }
        // A block has a header, and then nothing or a record: less, or only a little more, cannot be marked as lost.
        let header_end = gap.position + header_bytes;
        let can_be_marked = |end: u64| end == header_end || end > header_end + RECORD_HEADER_BYTES as u64;
        let mut from = header_end;
        while let Some(header) = self.window.find_header(segment, from)? {
            if can_be_marked(header.position) {
                return Ok(Some((header.position, true)));
            }
            from = header.end();
        }
        let next = self.first_header(gap.index + 1)?.map(|header| header.synced);
        let right = |end: &u64| (header_end..=end_of_segment).contains(end) && can_be_marked(*end);
        Ok(match next.filter(right) {
            Some(end) => Some((end, true)),
            None if can_be_marked(end_of_segment) => Some((end_of_segment, false)),
            None => Some((header_end, false)),
        })
    }
}
