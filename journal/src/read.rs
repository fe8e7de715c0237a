//! Reading one record by its position.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use crate::Position;
use crate::commit::Shared;
use crate::error::{Damage, During as _, ReadError};
use crate::record::{self, RECORD_HEADER_BYTES, RecordHeader};
use crate::segment::Segment;

/// Read at first: the record's header, and with it the whole of a usual record. On the stack, so that only as much is
/// allocated as the payload needs.
const FIRST_READ_BYTES: usize = 4096;

pub(crate) fn read(shared: &Shared, position: Position) -> Result<(u8, Bytes), ReadError> {
    let end = Position(shared.end.load(Ordering::Acquire));
    if position >= end {
        return Err(ReadError::NoRecord { position, end });
    }
    if position.0 >= shared.written.load(Ordering::Acquire)
        && let Some(record) = read_staged(shared, position)?
    {
        return Ok(record);
    }
    let number = shared.folder.layout.number(position.0);
    let find = || shared.segments.read().get(&number).map(Arc::clone);
    let segment = find().ok_or(ReadError::Released { position })?;
    match read_from_file(shared, &segment, position) {
        // Released while it was read, the file may already be another segment.
        Err(_) if find().is_none() => Err(ReadError::Released { position }),
        outcome => outcome,
    }
}

/// Who is told what the record is that stands in that place among the positions.
pub(crate) type Told<'a> = dyn FnMut(usize, Result<(u8, &[u8]), ReadError>) + 'a;

/// Reads many records, and tells what each is, in the order of `positions`. Records near each other, in the order in
/// which they were staged, are read at once.
pub(crate) fn read_each(shared: &Shared, positions: &[Position], told: &mut Told<'_>) {
    let mut window = Window::default();
    for (index, position) in positions.iter().enumerate() {
        if let Some((kind, payload)) = window.find(*position) {
            told(index, Ok((kind, payload)));
            continue;
        }
        let rest = positions.get(index..).unwrap_or_default();
        match window.fill(shared, rest) {
            Some((kind, payload)) => told(index, Ok((kind, payload))),
            // Not in a file yet, or larger than a window, or damaged: what it is, one record alone tells.
            None => match read(shared, *position) {
                Ok((kind, payload)) => told(index, Ok((kind, &payload))),
                Err(error) => told(index, Err(error)),
            },
        }
    }
}

/// How much is read at once, in bytes.
const WINDOW_BYTES: usize = 256 * 1024;

/// A piece of a segment.
#[derive(Default)]
struct Window {
    start: u64,
    epoch: u64,
    bytes: Vec<u8>,
}

impl Window {
    /// The record at a position, if it is here as a whole and intact.
    fn find(&self, position: Position) -> Option<(u8, &[u8])> {
        let at = position.0.checked_sub(self.start)?;
        let (header, payload, _) = record::split_first(self.bytes.get(at as usize..)?)?;
        header.is_intact(payload, self.epoch, position.0).then_some((header.kind, payload))
    }

    /// Reads from the first of `positions` on, as far as the others are not too far behind it, and gives the first.
    fn fill(&mut self, shared: &Shared, positions: &[Position]) -> Option<(u8, &[u8])> {
        let first = *positions.first()?;
        self.bytes.clear();
        let written = shared.written.load(Ordering::Acquire);
        let layout = shared.folder.layout;
        let number = layout.number(first.0);
        let end = layout.end(number).min(written).min(first.0 + WINDOW_BYTES as u64);
        let near = positions.iter().take_while(|position| (first.0..end).contains(&position.0)).last()?;
        // The last of them ends somewhere behind its position; the usual record does within this.
        let end = end.min(near.0 + FIRST_READ_BYTES as u64);
        let segment = shared.segments.read().get(&number).map(Arc::clone)?;
        self.bytes.resize(end.checked_sub(first.0)? as usize, 0);
        segment.file.read_at(&mut self.bytes, layout.offset(first.0)).ok()?;
        (self.start, self.epoch) = (first.0, segment.epoch);
        self.find(first)
    }
}

/// The record from memory; `None` once it is in its file. While it is being written, it is in neither, and
/// this waits for the write, but not for the sync.
fn read_staged(shared: &Shared, position: Position) -> Result<Option<(u8, Bytes)>, ReadError> {
    let mut staging = shared.staging.lock();
    loop {
        if position.0 < shared.written.load(Ordering::Acquire) {
            return Ok(None);
        }
        if position.0 >= staging.start() {
            let end = staging.end();
            return staging.find(position).map(Some).ok_or(ReadError::NoRecord { position, end });
        }
        if let Some(failure) = &staging.failure {
            return Err(failure.clone().into());
        }
        shared.written_changed.wait(&mut staging);
    }
}

fn read_from_file(shared: &Shared, segment: &Segment, position: Position) -> Result<(u8, Bytes), ReadError> {
    let layout = shared.folder.layout;
    let damaged = || -> Damage { segment.damage(layout, position.0, "an intact record".to_owned()) };
    let offset = layout.offset(position.0);
    let room = (layout.end(segment.number) - position.0) as usize;
    let mut first = [0; FIRST_READ_BYTES];
    let first = first.get_mut(..room.min(FIRST_READ_BYTES)).unwrap_or_default();
    segment.file.read_at(first, offset).during("read", &segment.path)?;

    let header =
        RecordHeader::decode(first).filter(|header| header.whole_bytes() <= room).ok_or_else(damaged)?;
    let found = first.get(RECORD_HEADER_BYTES..).unwrap_or_default();
    let payload = if let Some(payload) = found.get(..header.length) {
        Bytes::copy_from_slice(payload)
    } else {
        let mut payload = found.to_vec();
        payload.resize(header.length, 0);
        let rest = payload.get_mut(found.len()..).unwrap_or_default();
        segment.file.read_at(rest, offset + FIRST_READ_BYTES as u64).during("read", &segment.path)?;
        Bytes::from(payload)
    };
    if !header.is_intact(&payload, segment.epoch, position.0) {
        return Err(damaged().into());
    }
    Ok((header.kind, payload))
}
