//! 6 · Persistence: queues' messages and the definitions as journal records.
//!
//! What a queue does is written while its lock is held, so that the journal has one queue's records in the order in
//! which they happened. A message's own record is written before any queue takes it, and refers to no queue.

mod checkpoint;
mod horizon;
mod memory;
mod message;
mod moving;
mod pins;
mod progress;
mod record;
mod recovery;
mod runs;
mod stub;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use leveret_journal::faults::crash_point;
use leveret_journal::{CommitError, Journal, Lead, Position, ReadError, Synced, group_bytes};
use tokio::sync::watch;

pub use checkpoint::{Checkpoint, CheckpointError};
pub use horizon::{Horizon, Reach};
pub use memory::{InMemory, Memory, Shortage};
pub use message::{Content, Head, Message, Names, Rare};
pub use moving::Mover;
use pins::Pin;
pub use pins::{Pins, Place};
pub use progress::{Health, Progress, ProgressReporter};
pub use record::{Moved, RecordError, kind};
pub use recovery::{Lost, Recovered, RecoveredQueue, Replay};
pub use stub::{Pack, STUBS_PER_PACK, Stub, Stubs};

/// A queue's number: never used twice in a data directory, so that an old record cannot name a new queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueId(pub u64);

/// A message's place in one queue. Rises with every message that the queue takes, also across restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Seq(pub u64);

/// The journal takes nothing any more, or not this.
#[derive(Debug, thiserror::Error)]
#[error("the journal cannot take it: {0}")]
pub struct StoreError(#[from] leveret_journal::StageError);

/// A message that was in the journal and cannot be read back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnreadableMessage {
    /// Its record cannot be read.
    #[error(transparent)]
    Record(#[from] ReadError),
    /// The record is none of a message.
    #[error(transparent)]
    Content(#[from] RecordError),
}

/// How many bytes of messages are staged in one go: long enough to spread the lock's cost, short enough that a
/// commit does not wait for a whole batch of large messages.
const GROUP_BYTES_AIM: usize = 256 * 1024;

/// So little is no reason to wake the commit thread: whoever waits for it can as well commit it.
const LITTLE_BYTES: usize = 16 * 1024;

/// The journal, as the broker's parts use it.
pub struct Store {
    journal: Arc<Journal>,
    pins: Arc<Pins>,
    /// What all messages in memory take up together.
    pub memory: Memory,
    progress: Progress,
    /// Behind the last definition that was written.
    definitions_end: AtomicU64,
}

impl Store {
    /// A store over a recovered journal whose observer reports to `progress`, and whose segments `pins` keeps.
    pub fn new(journal: Arc<Journal>, pins: Arc<Pins>, memory: Memory, progress: Progress) -> Arc<Self> {
        // Definitions may have been recovered from anywhere in the journal.
        let definitions_end = AtomicU64::new(journal.end().0);
        Arc::new(Self { journal, pins, memory, progress, definitions_end })
    }

    /// How much of the journal nobody needs any more: all segments before this one, as far as messages go.
    pub fn needed_from(&self) -> Position {
        // Taken first: what is staged meanwhile lies behind it.
        let end = self.journal.end();
        self.pins.first().unwrap_or_else(|| self.pins.start_of_segment(end))
    }

    /// Behind the last definition in the journal: a checkpoint at this position or later has them all.
    pub fn definitions_end(&self) -> Position {
        Position(self.definitions_end.load(Ordering::Relaxed))
    }

    /// How many segments the journal has.
    pub fn segments(&self) -> u64 {
        self.journal.stats().segments
    }

    /// Lets go of whole segments before `position`, as soon as all that was written until now is durable.
    pub fn release_before(&self, position: Position) {
        self.journal.release_before(position);
    }

    /// Everything that has been written so far ends here.
    pub fn end(&self) -> Position {
        self.journal.end()
    }

    /// How far the journal is durable.
    pub fn synced(&self) -> Synced {
        self.journal.synced()
    }

    /// How many bytes of small records may be written as one group.
    pub fn group_bytes_max(&self) -> usize {
        self.journal.group_bytes_max()
    }

    /// Tells of every commit, and of the failure that ends them.
    pub fn commits(&self) -> watch::Receiver<u64> {
        self.progress.commits.clone()
    }

    /// Tells how the journal is.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.progress.health.clone()
    }

    /// Whether nothing is ever committed any more.
    pub fn has_failed(&self) -> bool {
        self.progress.health.borrow().failure.is_some()
    }

    /// Whether the journal can take more before the disk has caught up. Publishers wait while it cannot.
    pub fn has_room(&self) -> bool {
        self.journal.has_room()
    }

    /// Somebody waits for what has been written. (What nobody waits for takes its time.)
    pub fn hurry(&self) {
        self.journal.hurry();
    }

    /// As [`Store::hurry`]; but of a little the caller may see to the commit himself, see [`Journal::lead`].
    pub fn lead(&self) -> Option<Lead<'_>> {
        self.journal.lead(LITTLE_BYTES)
    }

    /// Waits until all up to `position` is durable. `false` if the journal failed before.
    pub async fn wait_for(&self, position: Position) -> bool {
        self.wait_until(|| self.journal.synced().reaches(position)).await
    }

    /// Waits until publishers may go on. `false` if the journal failed before.
    pub async fn wait_for_room(&self) -> bool {
        self.wait_until(|| self.journal.has_room()).await
    }

    async fn wait_until(&self, reached: impl Fn() -> bool) -> bool {
        let mut commits = self.commits();
        if !reached() {
            self.hurry();
        }
        commits.wait_for(|_| self.has_failed() || reached()).await.is_ok() && reached()
    }

    /// Writes the messages' records and notes their positions in them. With each message comes the number of
    /// queues that will then each either take it ([`Batch::enqueue`]) or decline it ([`Batch::declined`]).
    pub fn write_messages<'a>(
        &self,
        messages: impl IntoIterator<Item = (&'a mut Message, u32)>,
        scratch: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        // A group must fit a segment.
        let aim = GROUP_BYTES_AIM.min(self.group_bytes_max() / 4);
        let mut messages = messages.into_iter().peekable();
        while messages.peek().is_some() {
            let mut group = None;
            let mut pin = Pin::default();
            let mut room = 0;
            while let Some((message, queues)) =
                messages.next_if(|(message, _)| group.is_none() || bytes_bound(message) <= room)
            {
                let bound = bytes_bound(message);
                if group.is_none() {
                    room = bound.max(aim);
                    let mut first = self.journal.stage(room)?;
                    // For the queues that take it, which are the next to write: one sync is to cover both.
                    first.may_wait();
                    group = Some(first);
                }
                if let Some(group) = &mut group {
                    scratch.clear();
                    record::encode_message_head(message, queues, scratch);
                    let parts: [&[u8]; 2] = [scratch, message.content()];
                    let position = group.append(kind::MESSAGE, &parts)?;
                    let place = pin.place(&self.pins, position);
                    let overhead = scratch.len() + message.properties().len();
                    message.change(|head| head.place = Some(place));
                    self.pins.weigh(overhead);
                    room -= bound;
                }
            }
            drop(group);
            crash_point("store.messages.written");
        }
        Ok(())
    }

    /// Reads messages back. Waits for the disk: never to be called with a lock held.
    ///
    /// What cannot be read was damaged on the disk after it had been written.
    pub fn read_messages(
        &self,
        places: &[Place],
        told: &mut dyn FnMut(usize, Result<Message, UnreadableMessage>),
    ) {
        let positions: Vec<Position> = places.iter().map(Place::position).collect();
        self.journal.read_each(&positions, |index, record| {
            let message = record
                .map_err(UnreadableMessage::from)
                .and_then(|(kind, payload)| Ok(record::decode_message(record::message_in(kind, payload)?)?));
            let place = places.get(index).cloned();
            told(index, message.map(|message| message.with(|head| head.place = place)));
        });
    }

    /// Writes a batch as one group: after a crash all of it is there, or none. Gives the position that must be
    /// synced before anybody may be told. Clears the batch.
    pub fn write(&self, batch: &mut Batch) -> Result<Position, StoreError> {
        if batch.records.is_empty() {
            return Ok(self.journal.end());
        }
        let mut group = self.journal.stage(group_bytes(batch.records.len(), batch.bytes.len()))?;
        if batch.may_wait() {
            group.may_wait();
        } else if self.journal.staged_bytes() + batch.bytes.len() <= LITTLE_BYTES {
            // The writer that waits for it is soon there.
            group.until_asked();
        }
        let mut rest = batch.bytes.as_slice();
        for (kind, length) in &batch.records {
            let (payload, behind) = rest.split_at_checked(*length).unwrap_or((rest, &[]));
            group.append(*kind, &[payload])?;
            rest = behind;
        }
        let end = group.end();
        // Before anybody can see an end behind it: reclaiming would let go of a definition that it does not know of.
        if batch.records.iter().any(|(kind, _)| *kind == kind::DEFINITION) {
            self.definitions_end.fetch_max(end.0, Ordering::Relaxed);
        }
        drop(group);
        crash_point("store.batch.written");
        batch.clear();
        Ok(end)
    }

    /// The last stop was not orderly. Notes that what may have been delivered before counts as delivered, or the next
    /// orderly stop would make it forgotten.
    pub fn note_interruption(&self) -> Result<Position, StoreError> {
        let mut batch = Batch::default();
        batch.interrupted();
        self.write(&mut batch)
    }

    /// Writes everything out, marks the end as clean and stops the journal.
    pub fn close(&self) -> Result<(), CommitError> {
        self.journal.close()
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("end", &self.end()).finish_non_exhaustive()
    }
}

/// An upper bound of what a message takes in a group, in bytes.
fn bytes_bound(message: &Message) -> usize {
    // Names have at most 255 bytes each, and the rare death history is bounded by its entries' names.
    const NAME: usize = 256;
    let deaths = message.deaths().map_or(0, |deaths| {
        let keys: usize = deaths.deaths.iter().map(|death| death.routing_keys.len() + 4).sum();
        (keys + 8) * NAME
    });
    let names = (message.cc().len() + message.bcc().len() + 2) * NAME;
    group_bytes(1, 64 + names + deaths + message.content().len())
}

/// Small records that belong together, encoded and ready to be written.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    records: Vec<(u8, usize)>,
}

impl Batch {
    /// A queue took messages, which have consecutive seqs from `first`.
    pub fn enqueue(&mut self, queue: QueueId, first: Seq, at_ms: u64, positions: &[Position]) {
        self.add(kind::ENQUEUE, |out| record::encode_enqueue(queue, first, at_ms, positions, out));
    }

    /// Messages left a queue for good. Sorts `seqs`.
    pub fn gone(&mut self, queue: QueueId, seqs: &mut [Seq]) {
        self.add(kind::GONE, |out| record::encode_gone(queue, seqs, out));
    }

    /// Messages came back after a delivery, having failed that often. Sorts `returned`.
    pub fn returned(&mut self, queue: QueueId, returned: &mut [(Seq, u32)]) {
        self.add(kind::RETURNED, |out| record::encode_returned(queue, returned, out));
    }

    /// A queue did not take these messages.
    pub fn declined(&mut self, positions: &[Position]) {
        self.add(kind::DECLINED, |out| record::encode_declined(positions, out));
    }

    /// So far may a queue deliver messages of each of its priorities, lowest first. Seqs below `next` have been used.
    pub fn horizon(&mut self, queue: QueueId, next: Seq, reach: &[Reach]) {
        self.add(kind::HORIZON, |out| record::encode_horizon(queue, next, reach, out));
    }

    /// The broker had ended without an orderly stop.
    fn interrupted(&mut self) {
        self.add(kind::INTERRUPTED, |_| ());
    }

    /// A definition changed.
    pub fn definition(&mut self, payload: &[u8]) {
        self.add(kind::DEFINITION, |out| out.extend_from_slice(payload));
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Whether it holds only what the next sync that somebody waits for may take along. The settles of a consumer that
    /// keeps up would otherwise have a sync of their own, and the next publish wait for that, too.
    fn may_wait(&self) -> bool {
        let alone = [kind::GONE, kind::RETURNED, kind::DECLINED, kind::HORIZON];
        self.records.iter().all(|(kind, _)| alone.contains(kind))
    }

    fn add(&mut self, kind: u8, encode: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        encode(&mut self.bytes);
        self.records.push((kind, self.bytes.len() - start));
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.records.clear();
    }
}
