//! A part of a segment in memory, so that small blocks cost no call each.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::block::{BLOCK_HEADER_BYTES, BlockHeader, MAGIC};
use crate::error::{DiskError, During as _};
use crate::record;
use crate::segment::{Layout, Segment};

/// Bytes that are read at once.
const WINDOW_BYTES: usize = 1 << 20;
/// How many earlier windows are kept to be filled again, as many as may be on their way to be replayed, and how large
/// they may be: larger ones take so long to fill that new memory does not count.
const SPENT_MAX: usize = 4;
const SPENT_BYTES_MAX: usize = 8 * WINDOW_BYTES;

pub(super) struct Window {
    pub(super) layout: Layout,
    /// Of the first byte of `bytes`.
    start: u64,
    /// How many of `bytes` are filled.
    length: usize,
    bytes: Bytes,
    /// What windows of before were in. Memory that is used again costs much less than new one.
    spent: VecDeque<Bytes>,
}

impl Window {
    pub(super) fn new(layout: Layout) -> Self {
        Self { layout, start: 0, length: 0, bytes: Bytes::new(), spent: VecDeque::new() }
    }

    /// The bytes at `position`, fewer than asked for only at the end of the segment.
    pub(super) fn bytes(
        &mut self,
        segment: &Segment,
        position: u64,
        length: usize,
    ) -> Result<Bytes, DiskError> {
        let length = self.hold(segment, position, length)?;
        let from = (position - self.start) as usize;
        Ok(self.bytes.slice(from..from + length))
    }

    /// The header of the block at `position`, if one starts there.
    pub(super) fn header(
        &mut self,
        segment: &Segment,
        position: u64,
    ) -> Result<Option<BlockHeader>, DiskError> {
        let room = self.layout.end(segment.number) - position;
        if room < BLOCK_HEADER_BYTES as u64 {
            return Ok(None);
        }
        self.hold(segment, position, BLOCK_HEADER_BYTES)?;
        let bytes = self.held_from(position);
        Ok(BlockHeader::decode(bytes, segment.epoch, position, room))
    }

    /// The first header from `position` on.
    pub(super) fn find_header(
        &mut self,
        segment: &Segment,
        position: u64,
    ) -> Result<Option<BlockHeader>, DiskError> {
        let end = self.layout.end(segment.number);
        let mut position = position;
        while position + BLOCK_HEADER_BYTES as u64 <= end {
            if let Some(header) = self.header(segment, position)? {
                return Ok(Some(header));
            }
            // Most of what is looked through is a segment's rest: zeros, or what the file had before.
            let behind = self.held_from(position).get(record::ALIGNMENT..).unwrap_or_default();
            let places = behind.chunks_exact(record::ALIGNMENT);
            let nothing = places.take_while(|bytes| !bytes.starts_with(&MAGIC)).count();
            position += ((1 + nothing) * record::ALIGNMENT) as u64;
        }
        Ok(None)
    }

    /// What is in memory from a position on.
    fn held_from(&self, position: u64) -> &[u8] {
        let from = position.checked_sub(self.start);
        from.and_then(|from| self.bytes.get(from as usize..self.length)).unwrap_or_default()
    }

    /// Sees to it that the bytes at `position` are in memory, and says how many of them the segment has.
    fn hold(&mut self, segment: &Segment, position: u64, length: usize) -> Result<usize, DiskError> {
        let room = (self.layout.end(segment.number) - position) as usize;
        let length = length.min(room);
        if self.held_from(position).len() < length {
            let wanted = length.max(WINDOW_BYTES).min(room);
            let mut bytes =
                self.spent.pop_front().and_then(|spent| spent.try_into_mut().ok()).unwrap_or_default();
            // Never shorter: what is made longer again is filled with zeros first.
            bytes.resize(wanted.max(bytes.len()), 0);
            self.fill(segment, position, bytes.get_mut(..wanted).unwrap_or_default())?;
            let before = std::mem::replace(&mut self.bytes, bytes.freeze());
            (self.start, self.length) = (position, wanted);
            if self.spent.len() < SPENT_MAX && before.len() <= SPENT_BYTES_MAX {
                self.spent.push_back(before);
            }
        }
        Ok(length)
    }

    fn fill(&self, segment: &Segment, position: u64, bytes: &mut [u8]) -> Result<(), DiskError> {
        // What is here already is not read again.
        let held = self.held_from(position);
        let there = held.len().min(bytes.len());
        let (there, missing) = bytes.split_at_mut(there);
        there.copy_from_slice(held.get(..there.len()).unwrap_or_default());
        let offset = position - segment.number * self.layout.segment_bytes + there.len() as u64;
        segment.file.read_at(missing, offset).during("read", &segment.path)
    }
}
