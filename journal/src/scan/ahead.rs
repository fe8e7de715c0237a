//! Reading and checking on one thread, replaying on another: of a journal of many messages each takes about as long.

use std::panic::resume_unwind;
use std::sync::mpsc::{SyncSender, sync_channel};

use bytes::Bytes;

use super::{Replay, Scan};
use crate::Position;
use crate::error::{During as _, OpenError};
use crate::record::{self, Record};
use crate::segment::{Layout, Segment};

/// How many bytes of blocks, or how many blocks, are handed over at once.
const BATCH_BYTES: usize = 1 << 20;
const BATCH_PARTS: usize = 1024;
/// How many batches may wait to be replayed.
const BATCHES_AHEAD: usize = 1;

/// Records as they follow each other in the journal, checked.
pub(super) struct Part {
    /// Of the segment.
    pub(super) index: usize,
    /// Of the first record.
    pub(super) position: u64,
    pub(super) records: u32,
    pub(super) bytes: Bytes,
}

/// What was read and is not handed over yet.
pub(super) struct Ahead {
    parts: Vec<Part>,
    bytes: usize,
    to_replay: SyncSender<Vec<Part>>,
}

/// Lets `read` read on a thread of its own, and replays on this one what it hands over. What is wrong earlier in the
/// journal is what is reported.
pub(super) fn replay_while_reading(
    layout: Layout,
    segments: &[Segment],
    replay: &mut Replay<'_>,
    read: impl FnOnce(Ahead) -> Result<Scan, OpenError> + Send,
) -> Result<Scan, OpenError> {
    let Some(first) = segments.first() else { return Ok(Scan::default()) };
    std::thread::scope(|scope| {
        let (to_replay, batches) = sync_channel(BATCHES_AHEAD);
        let ahead = Ahead { parts: Vec::new(), bytes: 0, to_replay };
        let reader = std::thread::Builder::new()
            .name("scan".to_owned())
            .spawn_scoped(scope, || read(ahead))
            .during("start the thread that reads", &first.path)?;
        let mut parts = batches.iter().flatten();
        let replayed = parts.try_for_each(|part| part.replay(layout, segments, replay));
        // A reader that waits for room learns that nobody wants the rest.
        drop(parts);
        drop(batches);
        let scan = reader.join().unwrap_or_else(|panic| resume_unwind(panic));
        replayed.and(scan)
    })
}

impl Part {
    fn replay(&self, layout: Layout, segments: &[Segment], replay: &mut Replay<'_>) -> Result<(), OpenError> {
        let mut rest: &[u8] = &self.bytes;
        for _ in 0..self.records {
            let position = self.position + (self.bytes.len() - rest.len()) as u64;
            // The checksum of its block covers a record with its own checksum, which so needs no check here.
            let Some((record, payload, after)) = record::split_first(rest) else {
                let expected = "a record, as its block is intact".to_owned();
                let damage =
                    segments.get(self.index).map(|segment| segment.damage(layout, position, expected));
                return Err(damage.unwrap_or_default().into());
            };
            let position = Position(position);
            replay(Record { position, kind: record.kind, payload })
                .map_err(|reason| OpenError::Replay { position, reason })?;
            rest = after;
        }
        Ok(())
    }
}

impl Ahead {
    /// Takes what comes next.
    pub(super) fn add(&mut self, part: Part) -> Result<(), OpenError> {
        self.bytes += part.bytes.len();
        self.parts.push(part);
        if self.bytes < BATCH_BYTES && self.parts.len() < BATCH_PARTS {
            return Ok(());
        }
        self.hand_over()
    }

    /// Hands over what is left.
    pub(super) fn hand_over(&mut self) -> Result<(), OpenError> {
        self.bytes = 0;
        let parts = std::mem::take(&mut self.parts);
        let position = Position(parts.first().map_or(0, |part| part.position));
        // Whoever wants no more has an error of its own, which comes before this one.
        let given_up = |_| OpenError::Replay { position, reason: "an earlier record was not taken".into() };
        self.to_replay.send(parts).map_err(given_up)
    }
}
