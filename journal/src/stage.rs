//! Staging: groups of records are put into the block that the next commit writes.
//!
//! A record's position is its place on disk and known at once, because the block under construction already has its own.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use parking_lot::MutexGuard;

use crate::block::{self, BLOCK_HEADER_BYTES, BlockKind};
use crate::commit::{Committer, Shared};
use crate::error::{CommitError, StageError};
use crate::faults::crash_point;
use crate::record::{self, RECORD_HEADER_BYTES};
use crate::segment::Layout;
use crate::{Position, Synced};

/// The most that [`block_bytes`] is.
const BLOCK_BYTES_MAX: usize = 1 << 20;
/// Buffers that are kept for later blocks.
const POOL_BUFFERS: usize = 4;

/// A block takes no further group beyond this many bytes, so that buffers stay small enough to reuse and never grow by
/// copying much under the lock. A larger group has a block of its own. Less in small segments, which only tests have: so
/// there, too, one commit writes several blocks, of which a crash may lose any.
fn block_bytes(layout: Layout) -> usize {
    BLOCK_BYTES_MAX.min(layout.segment_bytes as usize / 16)
}

/// A block under construction, or waiting to be written.
pub(crate) struct StagedBlock {
    pub(crate) start: u64,
    pub(crate) records: u32,
    pub(crate) bytes: Vec<u8>,
}

impl StagedBlock {
    fn begin(start: u64, mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        buffer.resize(BLOCK_HEADER_BYTES, 0);
        Self { start, records: 0, bytes: buffer }
    }

    /// The mark of a clean stop.
    pub(crate) fn clean_stop(start: u64) -> Self {
        Self::begin(start, Vec::new())
    }

    pub(crate) fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// The bytes that staging it added to the staged ones.
    pub(crate) fn record_bytes(&self) -> usize {
        self.bytes.len() - BLOCK_HEADER_BYTES
    }

    /// Makes the bytes those that belong on disk.
    pub(crate) fn seal(&mut self, epoch: u64, synced: Synced) {
        let kind = if self.records == 0 { BlockKind::CleanStop } else { BlockKind::Records };
        block::seal(&mut self.bytes, kind, epoch, self.start, synced.position().0, self.records);
    }
}

/// How the journal is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Commit what is staged, and say on disk that nothing is missing.
    Close,
    /// As if the process had been killed.
    Abandon,
}

/// What the commit thread does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ThreadState {
    /// It works, or rests and looks now and then whether something has waited for long.
    Awake,
    /// It waits to be told: nothing has been staged for long.
    Asleep,
    /// It has something to do, and somebody else has the committer.
    AwaitsCommitter,
}

/// What is staged and not yet taken by the commit thread.
pub(crate) struct Staging {
    layout: Layout,
    /// Takes the next group.
    open: StagedBlock,
    /// Before `open`, in order.
    full: Vec<StagedBlock>,
    pool: Vec<Vec<u8>>,
    /// Something is staged that somebody may wait for.
    pub(crate) urgent: bool,
    pub(crate) stop: Option<Stop>,
    pub(crate) failure: Option<CommitError>,
    /// Segments before this position are to go.
    pub(crate) release_before: u64,
    /// What commits, while the commit thread has nothing to do: whoever needs a commit may use it.
    pub(crate) resting: Option<Box<Committer>>,
    pub(crate) thread: ThreadState,
    /// While the latest commit was under way nothing was staged that somebody waits for. If that is so again, whoever
    /// waits for the next one waits alone.
    pub(crate) quiet: bool,
}

impl Staging {
    /// Begins behind `end`, where the journal ended.
    pub(crate) fn new(layout: Layout, end: u64) -> Self {
        let open = StagedBlock::begin(end, Vec::with_capacity(block_bytes(layout)));
        let mut staging = Self {
            layout,
            open,
            full: Vec::new(),
            pool: Vec::new(),
            urgent: false,
            stop: None,
            failure: None,
            release_before: 0,
            resting: None,
            thread: ThreadState::Awake,
            quiet: true,
        };
        staging.begin_block(end);
        staging
    }

    pub(crate) fn end(&self) -> Position {
        Position(self.open.end())
    }

    pub(crate) fn has_records(&self) -> bool {
        self.open.records > 0 || !self.full.is_empty()
    }

    /// How many bytes are staged and not yet taken.
    pub(crate) fn bytes(&self) -> usize {
        self.full.iter().chain([&self.open]).map(StagedBlock::record_bytes).sum()
    }

    /// Where the blocks begin in which something is staged.
    pub(crate) fn starts(&self) -> impl Iterator<Item = u64> {
        let open = Some(&self.open).filter(|open| open.records > 0);
        self.full.iter().chain(open).map(|block| block.start)
    }

    /// Moves everything staged to `batch`, in order.
    pub(crate) fn take(&mut self, batch: &mut Vec<StagedBlock>) {
        self.urgent = false;
        self.quiet = true;
        self.close_block();
        batch.append(&mut self.full);
    }

    /// Takes blocks back that could not be written, before all that was staged since.
    pub(crate) fn put_back(&mut self, blocks: Vec<StagedBlock>) {
        self.urgent = true;
        self.full.splice(..0, blocks);
    }

    /// Takes back buffers of blocks that were written.
    pub(crate) fn give_back(&mut self, written: &mut Vec<StagedBlock>) {
        let room = POOL_BUFFERS.saturating_sub(self.pool.len());
        let usual = written
            .drain(..)
            .map(|block| block.bytes)
            .filter(|buffer| buffer.capacity() <= 2 * BLOCK_BYTES_MAX);
        self.pool.extend(usual.take(room));
    }

    /// Where the mark of a clean stop goes. Nothing is staged by then, nor will be.
    pub(crate) fn place_for_mark(&self) -> u64 {
        self.open.start
    }

    /// Where what is staged and not yet taken begins.
    pub(crate) fn start(&self) -> u64 {
        self.full.first().unwrap_or(&self.open).start
    }

    /// The record that starts at `position`, if it is staged and not yet taken.
    pub(crate) fn find(&self, position: Position) -> Option<(u8, Bytes)> {
        let holds = |block: &&StagedBlock| (block.start..block.end()).contains(&position.0);
        let block = self.full.iter().chain([&self.open]).find(holds)?;
        let body = block.bytes.get((position.0 - block.start) as usize..)?;
        let (header, payload, _) = record::split_first(body)?;
        Some((header.kind, Bytes::copy_from_slice(payload)))
    }

    /// Drops everything staged, and refuses all that comes: nothing of it will ever be written.
    pub(crate) fn fail(&mut self, failure: CommitError) {
        self.take(&mut Vec::new());
        self.failure = Some(failure);
    }

    /// Makes room for a group of `bytes` in the open block. All of a group is in one block, and so is recovered as one.
    fn reserve(&mut self, bytes: usize) {
        if self.open.bytes.len() + bytes > block_bytes(self.layout) {
            self.close_block();
        }
        // Only now: the block that was begun has a header of its own, for which the segment may have no room.
        let number = self.layout.number(self.open.start);
        if self.open.end() + bytes as u64 > self.layout.end(number) {
            self.close_block();
            self.begin_block(self.layout.end(number));
        }
        self.open.bytes.reserve(bytes);
    }

    fn close_block(&mut self) {
        if self.open.records > 0 {
            let end = self.open.end();
            let next = StagedBlock::begin(
                end,
                self.pool.pop().unwrap_or_else(|| Vec::with_capacity(block_bytes(self.layout))),
            );
            self.full.push(std::mem::replace(&mut self.open, next));
            self.begin_block(end);
        }
    }

    /// Moves the open block, still empty, to the first place from `start` on that has room for its header.
    fn begin_block(&mut self, start: u64) {
        let segment_header_or_end = self.layout.offset(start) == 0;
        let number = self.layout.number(start);
        let crosses = start + BLOCK_HEADER_BYTES as u64 > self.layout.end(number);
        self.open.start = match (segment_header_or_end, crosses) {
            (true, _) => self.layout.first_block(number),
            (false, true) => self.layout.first_block(number + 1),
            (false, false) => start,
        };
    }
}

/// Records that are recovered all or none. While it lives nobody else stages, so fill it without waiting for anything.
///
/// Dropping it stages it. If it is dropped by a panic, or after an append was refused, nothing of it is staged.
#[must_use = "records are appended to the group"]
pub struct Group<'a> {
    staging: MutexGuard<'a, Staging>,
    shared: &'a Shared,
    bytes_before: usize,
    records_before: u32,
    limit: usize,
    refused: bool,
    haste: Haste,
}

/// When a group is to go to disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Haste {
    Now,
    /// When somebody asks for it, which is soon.
    OnceAsked,
    /// With the next one.
    None,
}

impl<'a> Group<'a> {
    pub(crate) fn begin(shared: &'a Shared, bytes: usize) -> Result<Self, StageError> {
        let limit = shared.folder.layout.body_bytes_max();
        if bytes > limit {
            return Err(StageError::TooLarge { bytes, limit });
        }
        let mut staging = shared.staging.lock();
        if let Some(failure) = &staging.failure {
            return Err(failure.clone().into());
        }
        if staging.stop.is_some() {
            return Err(StageError::Closed);
        }
        staging.reserve(bytes);
        let (bytes_before, records_before) = (staging.open.bytes.len(), staging.open.records);
        Ok(Self {
            staging,
            shared,
            bytes_before,
            records_before,
            limit: bytes,
            refused: false,
            haste: Haste::Now,
        })
    }

    /// Appends a record whose payload is the parts joined, and returns its position, a multiple of 8.
    ///
    /// Refused once the group has more bytes than were announced; then the whole group is void.
    pub fn append(&mut self, kind: u8, parts: &[&[u8]]) -> Result<Position, StageError> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let bytes = self.bytes() + record::padded(RECORD_HEADER_BYTES.saturating_add(length));
        if bytes > self.limit || self.refused {
            self.refused = true;
            return Err(StageError::TooLarge { bytes, limit: self.limit });
        }
        let position = self.end();
        record::encode(&mut self.staging.open.bytes, kind, length, parts);
        self.staging.open.records += 1;
        Ok(position)
    }

    /// Nobody waits for it: it goes to the disk with the next group that somebody waits for, or when it has waited for
    /// [`Journal::LAZY_MAX`](crate::Journal::LAZY_MAX), and costs no sync of its own before.
    pub fn may_wait(&mut self) {
        self.haste = Haste::None;
    }

    /// Whoever waits for it calls [`Journal::hurry`](crate::Journal::hurry) or, what this is for,
    /// [`Journal::lead`](crate::Journal::lead) soon: if commits come one at a time the commit thread is not woken before.
    /// Without such a call it goes to the disk as one that may wait.
    pub fn until_asked(&mut self) {
        self.haste = Haste::OnceAsked;
    }

    /// Where the next record would go.
    pub fn end(&self) -> Position {
        self.staging.end()
    }

    fn bytes(&self) -> usize {
        self.staging.open.bytes.len() - self.bytes_before
    }
}

impl Drop for Group<'_> {
    fn drop(&mut self) {
        let open = &mut self.staging.open;
        if self.refused || std::thread::panicking() {
            open.bytes.truncate(self.bytes_before);
            open.records = self.records_before;
        } else if open.records > self.records_before {
            let bytes = self.bytes();
            self.shared.staged_bytes.fetch_add(bytes, Ordering::Relaxed);
            self.shared.end.store(self.end().0, Ordering::Release);
            if self.haste != Haste::None && self.staging.resting.is_none() {
                self.staging.quiet = false;
            }
            let now = match self.haste {
                Haste::Now => true,
                Haste::OnceAsked => !self.staging.quiet,
                Haste::None => false,
            };
            // A whole block is enough to be worth a write.
            let urgent = now || !self.staging.full.is_empty();
            // With something staged the commit thread looks at the time.
            if urgent || self.staging.thread == ThreadState::Asleep {
                self.shared.staged.notify_one();
            }
            self.staging.urgent |= urgent;
            crash_point("journal.stage.staged");
        }
    }
}
