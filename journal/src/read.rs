//! Reading one record by its position.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use crate::Position;
use crate::commit::Shared;
use crate::error::{Damage, During as _, ReadError};
use crate::record::{RECORD_HEADER_BYTES, RecordHeader};
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

/// The record from memory; `None` once it is in its file. While the commit thread is writing it, it is in neither, and
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
