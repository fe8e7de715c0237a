//! Moves the records of a queue's messages to the journal's end, so that its front can go.
//!
//! The records are read without the lock and written with it. So what was settled meanwhile is not brought back, and
//! what is settled afterwards has its end behind the moved record.

use bytes::Bytes;
use leveret_journal::Position;

use super::Queue;
use crate::queue::State;
use crate::queue::entry::{Entry, NEVER};
use crate::store::{Moved, Mover, Place, QueueId, Seq, Stub};

/// How many messages are moved in one go at most; fewer if they are large.
const MESSAGES_MAX: usize = 1024;
/// How many bytes of bodies are moved in one go: the lock is held while so many are copied. A larger message goes alone.
const BYTES_MAX: u64 = 256 * 1024;

/// What a call of [`Queue::move_messages`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MovedOn {
    /// How many bytes it wrote, about.
    pub bytes: u64,
    /// Where the next call has to go on; none if nothing is left.
    pub next: Option<Seq>,
}

/// Writes records anew that were read.
struct RecordMover<'a> {
    mover: Mover<'a>,
    /// The queue, if what it has survives a restart.
    queue: Option<QueueId>,
    queue_ttl_ms: Option<u64>,
    /// The records, by the seqs of their messages.
    records: Vec<(Seq, Bytes)>,
}

impl Queue {
    /// Moves messages whose records are before a position, which is a segment's beginning: the first ones from `from` on.
    /// Waits for the disk.
    pub fn move_messages(&self, before: Position, from: Seq) -> MovedOn {
        let mut stubs = self.inner.lock().state.before(before, from, MESSAGES_MAX);
        let all = stubs.len() < MESSAGES_MAX;
        let bytes_max = BYTES_MAX.min(self.store.segment_bytes() / 8);
        let mut sum = 0;
        let fitting = stubs.iter().take_while(|stub| {
            sum += self.store.bytes_of(1, u64::from(stub.body_bytes));
            sum <= bytes_max
        });
        let fitting = fitting.count().max(1);
        let all = all && stubs.len() <= fitting;
        stubs.truncate(fitting);
        let next = stubs.last().filter(|_| !all).map(|stub| Seq(stub.seq.0 + 1));
        MovedOn { bytes: self.move_stubs(&stubs), next }
    }

    /// How many messages it has, delivered ones included, and the bytes of their bodies.
    pub fn footprint(&self) -> (u64, u64) {
        self.inner.lock().state.footprint()
    }

    fn move_stubs(&self, stubs: &[Stub]) -> u64 {
        let places: Vec<Place> = stubs.iter().map(|stub| stub.place.clone()).collect();
        let mut records = Vec::with_capacity(stubs.len());
        self.store.read_records(&places, &mut |index, record| match (stubs.get(index), record) {
            (Some(stub), Ok(record)) => records.push((stub.seq, record)),
            // Whoever consumes it is told. Its segment stays, and with it what can be found out there.
            (_, Err(error)) => tracing::error!(queue = %self.name, %error, "a message cannot be moved"),
            (None, Ok(_)) => {}
        });
        let bytes: usize = records.iter().map(|(_, record)| record.len()).sum();
        if records.is_empty() {
            return 0;
        }
        let mut inner = self.inner.lock();
        if inner.gone {
            return 0;
        }
        // A journal that has failed has told the broker, which stops.
        let Ok(mover) = self.store.move_messages(records.len(), bytes) else { return 0 };
        let mut mover = RecordMover {
            mover,
            queue: self.settings.durable.then_some(self.id),
            queue_ttl_ms: self.settings.message_ttl_ms,
            records,
        };
        inner.state.relocate(stubs, &mut |stub| mover.put(stub));
        bytes as u64
    }
}

/// What of the rules is there for moving alone.
impl State {
    /// How many messages it has, delivered ones included, and the bytes of their bodies.
    fn footprint(&self) -> (u64, u64) {
        let held: u64 = self.holders.held().map(|entry| u64::from(entry.body_bytes)).sum();
        (self.ready.len() + self.unacked, self.ready.body_bytes() + held)
    }

    /// The first messages from `from` on whose records are before a position, a segment's beginning: at most so many, in
    /// the order of their seqs.
    fn before(&self, position: Position, from: Seq, most: usize) -> Vec<Stub> {
        let mut found = self.ready.before(position, from, most);
        let is_before = |stub: &Stub| stub.seq >= from && stub.place.position() < position;
        found.extend(self.holders.held().filter_map(Entry::stub).filter(is_before));
        found.sort_unstable_by_key(|stub| stub.seq);
        found.truncate(most);
        found
    }

    /// Moves the records of messages, which are in the order of their seqs: `put` writes each anew, and gives its new
    /// place. What has left since stays gone.
    fn relocate(&mut self, stubs: &[Stub], put: &mut dyn FnMut(&Stub) -> Option<Place>) {
        let stubs: Vec<&Stub> = stubs.iter().collect();
        self.ready.relocate(&stubs, put);
        for entry in self.holders.held_mut() {
            if let Ok(at) = stubs.binary_search_by_key(&entry.seq, |stub| stub.seq)
                && let Some(stub) = stubs.get(at)
            {
                entry.relocate(stub, put);
            }
        }
    }
}

impl RecordMover<'_> {
    /// Writes a message's record anew; gives its new place.
    fn put(&mut self, stub: &Stub) -> Option<Place> {
        let at = self.records.binary_search_by_key(&stub.seq, |(seq, _)| *seq).ok()?;
        let (_, record) = self.records.get(at)?;
        // A queue's time to live runs from the arrival. If the message's own one ends before it, an earlier arrival makes
        // no difference.
        let arrived_ms = match self.queue_ttl_ms {
            Some(ttl_ms) if stub.deadline_ms != NEVER => stub.deadline_ms.saturating_sub(ttl_ms),
            _ => stub.arrived_ms,
        };
        let Stub { seq, failed, redelivered, .. } = *stub;
        let moved = self.queue.map(|queue| Moved { queue, seq, arrived_ms, failed, redelivered });
        // All that is put was announced, so that the group has room for it.
        self.mover.put(moved.as_ref(), record).ok()
    }
}
