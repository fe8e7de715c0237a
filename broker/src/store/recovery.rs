//! Journal -> messages in queues, at the start.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use leveret_journal::{Position, Record};
use rustc_hash::{FxBuildHasher, FxHashMap};

use super::record::{self, RecordError, kind};
use super::{Message, Pins, QueueId, Seq};

/// Takes every record of the journal in order and keeps what is still alive.
///
/// It holds a message only while some queue does, so that replaying a long journal of settled messages takes no
/// more memory than what waits at its end.
#[derive(Debug)]
pub struct Replay {
    pins: Arc<Pins>,
    messages: FxHashMap<Position, Waiting>,
    queues: FxHashMap<QueueId, RecoveredQueue>,
    /// The journal's first position: what lies before it was reclaimed because nobody needs it.
    first: Position,
    definitions: Vec<(Position, Vec<u8>)>,
}

/// A message that queues refer to, or will.
#[derive(Debug)]
struct Waiting {
    message: Arc<Message>,
    /// Queues that have it, and queues that have yet to take or decline it. One may have settled it before another
    /// takes it, so that counting only the first would let go of it too early.
    queues: u32,
}

/// What the journal knows.
#[derive(Debug, Default)]
pub struct Recovered {
    /// The queues' contents, also of queues that were deleted since: the definitions say which exist.
    pub queues: HashMap<QueueId, RecoveredQueue, FxBuildHasher>,
    /// Definition records that the checkpoint has not seen, in order.
    pub definitions: Vec<Vec<u8>>,
}

/// One queue's content.
#[derive(Debug, Default)]
pub struct RecoveredQueue {
    /// The messages, in order.
    pub messages: BTreeMap<Seq, Restored>,
    /// Seqs below this have been used.
    pub next: Seq,
}

/// One message in one queue.
#[derive(Debug, Clone)]
pub struct Restored {
    /// The message.
    pub message: Arc<Message>,
    /// When the queue took it, in milliseconds since 1970-01-01 UTC.
    pub arrived_at_ms: u64,
    /// How often a delivery of it failed, if it came back at all.
    pub returned: Option<u32>,
}

impl Replay {
    /// A replay whose messages get `pins`.
    pub fn new(pins: Arc<Pins>) -> Self {
        Self {
            pins,
            messages: FxHashMap::default(),
            queues: FxHashMap::default(),
            first: Position::default(),
            definitions: Vec::new(),
        }
    }

    /// Takes the next record.
    pub fn apply(&mut self, record: &Record<'_>) -> Result<(), RecordError> {
        if self.first == Position::default() {
            self.first = record.position;
        }
        match record.kind {
            kind::MESSAGE => {
                let (mut message, queues) = record::decode_message(record.position, record.payload)?;
                message.pin = self.pins.pin(record.position);
                self.messages.insert(record.position, Waiting { message: Arc::new(message), queues });
            }
            kind::ENQUEUE => self.enqueue(&record::decode_enqueue(record.payload)?)?,
            kind::GONE => {
                let (queue, ranges) = record::decode_gone(record.payload)?;
                self.gone(queue, &ranges);
            }
            kind::RETURNED => {
                let (queue, returned) = record::decode_returned(record.payload)?;
                self.returned(queue, &returned);
            }
            kind::DECLINED => {
                for position in record::decode_declined(record.payload)? {
                    forget(&mut self.messages, position);
                }
            }
            kind::DEFINITION => self.definitions.push((record.position, record.payload.to_vec())),
            _ => return Err(RecordError::unknown_kind()),
        }
        Ok(())
    }

    /// How many messages it holds.
    #[cfg(test)]
    pub(super) fn messages_held(&self) -> usize {
        self.messages.len()
    }

    /// What is alive at the end. Definitions before `definitions_from` are in the checkpoint.
    pub fn finish(self, definitions_from: Position) -> Recovered {
        let behind = self.definitions.into_iter().filter(|(position, _)| *position >= definitions_from);
        Recovered { queues: self.queues, definitions: behind.map(|(_, payload)| payload).collect() }
    }

    fn enqueue(&mut self, enqueue: &record::Enqueue) -> Result<(), RecordError> {
        let queue = self.queues.entry(enqueue.queue).or_default();
        for (seq, position) in (enqueue.first.0..).zip(&enqueue.positions) {
            queue.next = queue.next.max(Seq(seq + 1));
            let Some(waiting) = self.messages.get(position) else {
                if *position < self.first {
                    // Its segment was reclaimed, so every queue had settled it before.
                    continue;
                }
                return Err(RecordError::dangling());
            };
            let message = Arc::clone(&waiting.message);
            let restored = Restored { message, arrived_at_ms: enqueue.at_ms, returned: None };
            queue.messages.insert(Seq(seq), restored);
        }
        Ok(())
    }

    fn gone(&mut self, queue: QueueId, ranges: &[(Seq, Seq)]) {
        let queue = self.queues.entry(queue).or_default();
        for (first, end) in ranges {
            queue.next = queue.next.max(*end);
            let mut behind = queue.messages.split_off(first);
            let kept = behind.split_off(end);
            queue.messages.extend(kept);
            for settled in behind.into_values() {
                if let Some(position) = settled.message.position {
                    forget(&mut self.messages, position);
                }
            }
        }
    }

    fn returned(&mut self, queue: QueueId, returned: &[(Seq, u32)]) {
        let queue = self.queues.entry(queue).or_default();
        for (seq, failed) in returned {
            if let Some(restored) = queue.messages.get_mut(seq) {
                restored.returned = Some(*failed);
            }
        }
    }
}

/// One queue less refers to the message; the last one lets it go.
fn forget(messages: &mut FxHashMap<Position, Waiting>, position: Position) {
    if let Some(waiting) = messages.get_mut(&position) {
        waiting.queues = waiting.queues.saturating_sub(1);
        if waiting.queues == 0 {
            messages.remove(&position);
        }
    }
}
