//! What waits to be sent to one client, in order: the place where queues, which other connections drive, and this
//! connection's own answers meet.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use leveret_journal::{Position, Synced};
use leveret_protocol::{Confirm, ConsumerCancelled, Control, ReplyCode};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::channel::ConfirmRuns;
use crate::queue::{Delivery, Gate, Outlet, Recipient};

/// One thing to send.
#[derive(Debug)]
pub(super) enum Outgoing {
    /// A frame that is encoded already: an answer, or news.
    Frame(Bytes),
    /// What became of publishes; neighbours are merged.
    Confirm(u16, Confirm),
    /// A message for a consumer.
    Deliver { channel: u16, consumer: u32, delivery: Delivery },
}

/// The outbox of one connection.
#[derive(Debug)]
pub(super) struct Outbox {
    queued: Mutex<Queued>,
    /// Rung when there is something to send after there was nothing.
    bell: Notify,
    /// Rung when answers have been sent after there were too many.
    room: Notify,
    /// The deliveries that wait, in bytes; queues pass consumers over while it is full.
    pub(super) outlet: Arc<Outlet>,
    answer_bytes_max: usize,
}

#[derive(Debug, Default)]
struct Queued {
    ready: Vec<Outgoing>,
    /// What may be sent only when the journal is durable up to a position. Positions never fall.
    waiting: VecDeque<(Position, Outgoing)>,
    /// The bytes of all that is not a delivery. A client that asks and does not read is not listened to any more.
    answer_bytes: usize,
    /// Deliveries (channel, consumer, tag) that are larger than the client takes.
    unfit: Vec<(u16, u32, u64)>,
    ending: bool,
}

/// What a look into the outbox found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Left {
    /// Something waits for the next commit.
    pub(super) waiting: bool,
    /// Nothing new will come.
    pub(super) ending: bool,
}

/// What a confirm counts for among the bytes of answers.
const CONFIRM_BYTES: usize = 24;

impl Outbox {
    pub(super) fn new(bytes_max: usize, gate: Arc<Gate>) -> Arc<Self> {
        Arc::new(Self {
            queued: Mutex::default(),
            bell: Notify::new(),
            room: Notify::new(),
            outlet: Arc::new(Outlet::behind(gate, bytes_max)),
            answer_bytes_max: bytes_max,
        })
    }

    /// Sends a control frame, after `position` is durable if there is one.
    pub(super) fn send(&self, channel: u16, control: impl Into<Control>, position: Option<Position>) {
        let control = control.into();
        let mut frame = BytesMut::new();
        match control.encode(channel, &mut frame) {
            Ok(()) => self.send_frame(frame.freeze(), position),
            // Names and numbers can always be encoded; a table that came over the wire can go back over it.
            Err(error) => tracing::error!(%error, frame = control.name(), "an answer could not be encoded"),
        }
    }

    /// Sends an encoded frame, after `position` is durable if there is one.
    pub(super) fn send_frame(&self, frame: Bytes, position: Option<Position>) {
        let mut queued = self.queued.lock();
        queued.answer_bytes += frame.len();
        self.put(&mut queued, Outgoing::Frame(frame), position);
    }

    /// Sends confirms, after `position` is durable if there is one.
    pub(super) fn confirm(&self, runs: &mut ConfirmRuns, position: Option<Position>) {
        let mut queued = self.queued.lock();
        for (channel, confirm) in runs.drain() {
            queued.answer_bytes += CONFIRM_BYTES;
            self.put(&mut queued, Outgoing::Confirm(channel, confirm), position);
        }
    }

    /// A consumer's delivery is larger than its client takes.
    pub(super) fn does_not_fit(&self, channel: u16, consumer: u32, tag: u64) {
        self.queued.lock().unfit.push((channel, consumer, tag));
    }

    /// Takes the deliveries that do not fit: channel, consumer, tag.
    pub(super) fn take_unfit(&self) -> Vec<(u16, u32, u64)> {
        std::mem::take(&mut self.queued.lock().unfit)
    }

    /// Nothing will come after this; the writer sends what there is and ends.
    pub(super) fn end(&self) {
        self.queued.lock().ending = true;
        self.bell.notify_one();
    }

    /// Whether the client has read enough of its answers to get more.
    pub(super) fn has_room(&self) -> bool {
        self.queued.lock().answer_bytes <= self.answer_bytes_max
    }

    /// Waits while too many answers are unread.
    pub(super) async fn wait_for_room(&self) {
        loop {
            let room = self.room.notified();
            if self.has_room() {
                return;
            }
            room.await;
        }
    }

    /// Waits until there is something new to send.
    pub(super) async fn rung(&self) {
        self.bell.notified().await;
    }

    /// Takes all that may be sent now; `into` is empty before.
    pub(super) fn take(&self, synced: Synced, into: &mut Vec<Outgoing>) -> Left {
        let mut queued = self.queued.lock();
        std::mem::swap(&mut queued.ready, into);
        while let Some((position, _)) = queued.waiting.front()
            && synced.reaches(*position)
            && let Some((_, outgoing)) = queued.waiting.pop_front()
        {
            into.push(outgoing);
        }
        Left { waiting: !queued.waiting.is_empty(), ending: queued.ending }
    }

    /// Answers of this many bytes have been sent.
    pub(super) fn sent(&self, answer_bytes: usize) {
        if answer_bytes > 0 {
            let mut queued = self.queued.lock();
            queued.answer_bytes = queued.answer_bytes.saturating_sub(answer_bytes);
            if queued.answer_bytes <= self.answer_bytes_max {
                self.room.notify_one();
            }
        }
    }

    fn put(&self, queued: &mut Queued, outgoing: Outgoing, position: Option<Position>) {
        let first = if let Some(position) = position {
            queued.waiting.push_back((position, outgoing));
            // The writer has to begin to watch the journal.
            queued.waiting.len() == 1
        } else {
            queued.ready.push(outgoing);
            queued.ready.len() == 1
        };
        if first {
            self.bell.notify_one();
        }
    }
}

impl Outgoing {
    /// What it counts for among the bytes of answers.
    pub(super) fn answer_bytes(&self) -> usize {
        match self {
            Self::Frame(frame) => frame.len(),
            Self::Confirm(..) => CONFIRM_BYTES,
            Self::Deliver { .. } => 0,
        }
    }
}

/// Where one consumer's deliveries go.
#[derive(Debug)]
pub(super) struct ConsumerOutbox {
    pub(super) outbox: Arc<Outbox>,
    pub(super) channel: u16,
    pub(super) consumer: u32,
}

impl Recipient for ConsumerOutbox {
    fn deliver(&self, deliveries: &mut dyn Iterator<Item = Delivery>) {
        let (channel, consumer) = (self.channel, self.consumer);
        let mut queued = self.outbox.queued.lock();
        let was_empty = queued.ready.is_empty();
        let deliveries = deliveries.map(|delivery| Outgoing::Deliver { channel, consumer, delivery });
        queued.ready.extend(deliveries);
        if was_empty {
            self.outbox.bell.notify_one();
        }
    }

    fn cancelled(&self, reason: &str) {
        let (consumer, code, text) = (self.consumer, ReplyCode::NotFound, reason.to_owned());
        self.outbox.send(self.channel, ConsumerCancelled { consumer, code, text }, None);
    }
}
