//! What waits to be sent to one client, in order: the place where queues, which other connections drive, and this
//! connection's own answers meet.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use leveret_journal::faults::{crash_point, mutant};
use leveret_journal::{Position, Synced};
use leveret_protocol::Confirm;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::protocol::{Protocol, Unfit};
use crate::channel::ConfirmRuns;
use crate::queue::{Delivery, Gate, Outlet, Recipient};

/// One thing to send.
#[derive(Debug)]
pub(super) enum Outgoing<P: Protocol> {
    /// A frame that is encoded already: an answer, or news.
    Frame(Bytes),
    /// What became of publishes; neighbours are merged.
    Confirm(u16, Confirm),
    /// An answer that is encoded when its turn has come.
    Late { answer: P::Late, bytes: usize },
    /// The deliveries that follow are for this consumer.
    For(P::Consumer),
    /// A message for a consumer.
    Deliver(Delivery),
}

/// The outbox of one connection.
#[derive(Debug)]
pub(super) struct Outbox<P: Protocol> {
    queued: Mutex<Queued<P>>,
    /// Rung when there is something to send after there was nothing.
    bell: Notify,
    /// Rung when answers have been sent after there were too many, and when nothing waits for the disk any more.
    room: Notify,
    /// Rung when half of what was too much for more deliveries has been written.
    drained: Notify,
    /// The deliveries that wait, in bytes; queues pass consumers over while it is full.
    pub(super) outlet: Arc<Outlet>,
    answer_bytes_max: usize,
}

#[derive(Debug)]
struct Queued<P: Protocol> {
    ready: Vec<Outgoing<P>>,
    /// What may be sent only when the journal is durable up to a position. Positions never fall.
    waiting: VecDeque<(Position, Outgoing<P>)>,
    /// A delivery waits until then, and all that comes meanwhile waits behind it: an answer to a cancel, say, must not
    /// come before what the consumer still gets.
    held_until: Option<Position>,
    /// The bytes of all that is not a delivery. A client that asks and does not read is not listened to any more.
    answer_bytes: usize,
    /// Deliveries that are larger than the client takes.
    unfit: Vec<Unfit>,
    /// News of consumers that have ended, if it has to come behind an answer that is being made.
    deferred: Option<Vec<Bytes>>,
    ending: bool,
}

impl<P: Protocol> Default for Queued<P> {
    fn default() -> Self {
        let (ready, waiting, unfit) = (Vec::new(), VecDeque::new(), Vec::new());
        Self { ready, waiting, held_until: None, answer_bytes: 0, unfit, deferred: None, ending: false }
    }
}

/// What a look into the outbox found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Left {
    /// Something waits for the next commit.
    pub(super) waiting: bool,
    /// Nothing new will come.
    pub(super) ending: bool,
}

/// How long a publisher waits for the consumer of its messages.
const GIVE_WAY_MAX: Duration = Duration::from_millis(5);

/// What a confirm counts for among the bytes of answers.
const CONFIRM_BYTES: usize = 24;

impl<P: Protocol> Outbox<P> {
    pub(super) fn new(bytes_max: usize, gate: Arc<Gate>) -> Arc<Self> {
        Arc::new(Self {
            queued: Mutex::default(),
            bell: Notify::new(),
            room: Notify::new(),
            drained: Notify::new(),
            outlet: Arc::new(Outlet::behind(gate, bytes_max)),
            answer_bytes_max: bytes_max,
        })
    }

    /// Sends an encoded frame, after `position` is durable if there is one.
    pub(super) fn send_frame(&self, frame: Bytes, position: Option<Position>) {
        let mut queued = self.queued.lock();
        queued.answer_bytes += frame.len();
        self.put(&mut queued, Outgoing::Frame(frame), position);
    }

    /// Sends an encoded delivery that is an answer, after `after` is durable if there is that.
    pub(super) fn send_delivery(&self, frame: Bytes, after: Option<Position>) {
        let mut queued = self.queued.lock();
        queued.answer_bytes += frame.len();
        self.put_delivery(&mut queued, Outgoing::Frame(frame), after);
    }

    /// Sends a delivery that is an answer and is encoded when its turn has come; it counts for this many bytes.
    pub(super) fn send_late(&self, answer: P::Late, bytes: usize, after: Option<Position>) {
        let mut queued = self.queued.lock();
        queued.answer_bytes += bytes;
        self.put_delivery(&mut queued, Outgoing::Late { answer, bytes }, after);
    }

    /// Sends confirms, after `position` is durable if there is one.
    pub(super) fn confirm(&self, runs: &mut ConfirmRuns, position: Option<Position>) {
        let mut queued = self.queued.lock();
        for (channel, confirm) in runs.drain() {
            queued.answer_bytes += CONFIRM_BYTES;
            self.put(&mut queued, Outgoing::Confirm(channel, confirm), position);
        }
    }

    /// News of consumers that end waits for [`Outbox::send_deferred`].
    pub(super) fn defer_news(&self) {
        self.queued.lock().deferred = Some(Vec::new());
    }

    /// Sends the news that waited.
    pub(super) fn send_deferred(&self) {
        let deferred = self.queued.lock().deferred.take();
        deferred.into_iter().flatten().for_each(|frame| self.send_frame(frame, None));
    }

    /// A consumer's delivery is larger than its client takes.
    pub(super) fn does_not_fit(&self, unfit: Unfit) {
        self.queued.lock().unfit.push(unfit);
    }

    /// Takes the deliveries that do not fit.
    pub(super) fn take_unfit(&self) -> Vec<Unfit> {
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

    /// Whether something waits for the disk.
    pub(super) fn holds_back(&self) -> bool {
        !self.queued.lock().waiting.is_empty()
    }

    /// Waits while something waits for the disk.
    pub(super) async fn wait_until_due(&self) {
        loop {
            let room = self.room.notified();
            if !self.holds_back() {
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
    pub(super) fn take(&self, synced: Synced, into: &mut Vec<Outgoing<P>>) -> Left {
        let mut queued = self.queued.lock();
        std::mem::swap(&mut queued.ready, into);
        let held_back = !queued.waiting.is_empty();
        while let Some((position, _)) = queued.waiting.front()
            && (synced.reaches(*position) || mutant("confirm_before_sync"))
            && let Some((_, outgoing)) = queued.waiting.pop_front()
        {
            crash_point("confirm.released");
            into.push(outgoing);
        }
        if held_back && queued.waiting.is_empty() {
            self.room.notify_one();
        }
        // All that was behind the delivery has just been taken.
        queued.held_until = queued.held_until.filter(|held| !synced.reaches(*held));
        Left { waiting: !queued.waiting.is_empty(), ending: queued.ending }
    }

    /// Deliveries of this many bytes have been written. Whether consumers that were passed over can get some again.
    #[must_use]
    pub(super) fn delivered(&self, bytes: usize) -> bool {
        let drained = self.outlet.sub(bytes);
        if drained {
            self.drained.notify_waiters();
        }
        drained
    }

    /// Waits until there is room for deliveries again, but not for long. Whether there is.
    async fn give_way(&self) -> bool {
        let drained = self.drained.notified();
        self.outlet.has_room() || tokio::time::timeout(GIVE_WAY_MAX, drained).await.is_ok()
    }

    /// Keeps no memory for what may come, if nothing is there.
    pub(super) fn give_up_memory(&self) {
        let mut queued = self.queued.lock();
        queued.ready.shrink_to_fit();
        queued.waiting.shrink_to_fit();
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

    fn put_delivery(&self, queued: &mut Queued<P>, outgoing: Outgoing<P>, after: Option<Position>) {
        self.put(queued, outgoing, after);
        if after.is_some() {
            queued.held_until = queued.waiting.back().map(|(position, _)| *position);
        }
    }

    fn put(&self, queued: &mut Queued<P>, outgoing: Outgoing<P>, position: Option<Position>) {
        // What was sent before and waits for the disk keeps everything behind it.
        let last = queued.waiting.back().map(|(position, _)| *position);
        let before = last.filter(|_| P::ANSWERS_IN_ORDER);
        let first = if let Some(position) = position.max(queued.held_until).or(before) {
            // A delivery may wait for less than a confirm that waits already.
            let position = position.max(last.unwrap_or_default());
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

impl<P: Protocol> Outgoing<P> {
    /// What it counts for among the bytes of answers.
    pub(super) fn answer_bytes(&self) -> usize {
        match self {
            Self::Frame(frame) => frame.len(),
            Self::Late { bytes, .. } => *bytes,
            Self::Confirm(..) => CONFIRM_BYTES,
            Self::For(_) | Self::Deliver(_) => 0,
        }
    }

    /// Whether it keeps its place among confirms.
    pub(super) fn is_answer(&self) -> bool {
        matches!(self, Self::Frame(_) | Self::Late { .. })
    }
}

/// Where one consumer's deliveries go.
#[derive(Debug)]
pub(super) struct ConsumerOutbox<P: Protocol> {
    pub(super) outbox: Arc<Outbox<P>>,
    pub(super) consumer: P::Consumer,
}

impl<P: Protocol> Recipient for ConsumerOutbox<P> {
    fn deliver(&self, deliveries: &mut dyn Iterator<Item = Delivery>) {
        let mut queued = self.outbox.queued.lock();
        // Whose deliveries these are is said anew whenever something may come in between.
        let mut said = None;
        for delivery in deliveries {
            let after = delivery.after;
            let position = after.max(queued.held_until);
            if said != Some(position) {
                self.outbox.put_delivery(&mut queued, Outgoing::For(self.consumer.clone()), position);
                said = Some(position);
            }
            if position.is_some() {
                self.outbox.put_delivery(&mut queued, Outgoing::Deliver(delivery), position);
            } else {
                queued.ready.push(Outgoing::Deliver(delivery));
            }
        }
    }

    fn give_way(&self) -> Pin<Box<dyn Future<Output = bool> + Send + '_>> {
        Box::pin(self.outbox.give_way())
    }

    fn cancelled(&self, reason: &str) {
        let Some(frame) = P::cancelled(&self.consumer, reason) else { return };
        if let Some(deferred) = &mut self.outbox.queued.lock().deferred {
            deferred.push(frame);
            return;
        }
        self.outbox.send_frame(frame, None);
    }
}
