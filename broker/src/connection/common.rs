//! What a session has whatever its protocol: who it is, and the publishes that wait for their turn.

use std::sync::Arc;

use leveret_protocol::ReplyCode;

use super::outbox::Outbox;
use super::{Context, Protocol, Violation};
use crate::channel::{ConfirmRuns, Publisher};
use crate::queue::{ConnectionId, Work};
use crate::topology::Vhost;

/// What a session has whatever its protocol.
pub(super) struct Common<P: Protocol> {
    pub(super) id: ConnectionId,
    pub(super) vhost: Arc<Vhost>,
    pub(super) context: Arc<Context>,
    pub(super) outbox: Arc<Outbox<P>>,
    pub(super) publisher: Publisher,
    pub(super) confirms: ConfirmRuns,
    pub(super) work: Work,
    /// Whether something was published since the journal's room was looked at.
    pub(super) published: bool,
    /// Until then it gives way to no consumer: it did so in vain. In milliseconds since 1970.
    gives_way_from_ms: u64,
    /// Why publishes are held back, as the client was last told.
    told_of_pause: Option<Arc<str>>,
}

/// How long a publisher that gave way to a consumer in vain gives way to none, in milliseconds.
const IN_VAIN_MS: u64 = 1000;

/// What a client did not know of a pause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum News {
    Begins(Arc<str>),
    HasAnotherReason(Arc<str>),
    Ends,
}

impl<P: Protocol> Common<P> {
    pub(super) fn new(
        id: ConnectionId,
        vhost: Arc<Vhost>,
        context: Arc<Context>,
        outbox: Arc<Outbox<P>>,
    ) -> Self {
        Self {
            id,
            vhost,
            context,
            outbox,
            publisher: Publisher::default(),
            confirms: ConfirmRuns::default(),
            work: Work::default(),
            published: false,
            gives_way_from_ms: 0,
            told_of_pause: None,
        }
    }

    /// Reads the clock: once a batch.
    pub(super) fn tick(&mut self) {
        self.work.now_ms = self.context.clock.now_ms();
    }

    /// Puts collected publishes into their queues, and sends or queues their confirms.
    pub(super) fn flush(&mut self) -> Result<(), Violation> {
        let mut position = None;
        if !self.publisher.is_empty() {
            let flushed = self.publisher.flush(&self.vhost, &mut self.work, &mut self.confirms);
            position = flushed.map_err(|error| Violation::of_connection(ReplyCode::InternalError, error))?;
        }
        if !self.confirms.is_empty() {
            self.outbox.confirm(&mut self.confirms, position);
        }
        Ok(())
    }

    /// Waits until the client has read its answers, and a publisher until the disk has caught up.
    pub(super) async fn wait_for_room(&mut self) {
        self.outbox.wait_for_room().await;
        // While publishes are held back only settles reach the journal. If there is no disk left even for these, memory
        // must not be what takes them.
        if std::mem::take(&mut self.published) || self.context.pressure.is_on() {
            // If the journal has failed the broker is about to stop, and this connection with it.
            self.context.store.wait_for_room().await;
        }
        // Nothing that a consumer does not read may hold up this client for more than a moment in a while.
        if let Some(queue) = self.work.only_queue.take()
            && self.work.now_ms >= self.gives_way_from_ms
            && let Some(consumer) = queue.crowded()
            && !consumer.give_way().await
        {
            self.gives_way_from_ms = self.work.now_ms + IN_VAIN_MS;
        }
    }

    /// What of this is news for the client; it counts as told.
    pub(super) fn news_of_pause(&mut self, reason: Option<Arc<str>>) -> Option<News> {
        let before = std::mem::replace(&mut self.told_of_pause, reason.clone());
        match (before, reason) {
            (None, Some(reason)) => Some(News::Begins(reason)),
            (Some(before), Some(reason)) if before != reason => Some(News::HasAnotherReason(reason)),
            (Some(_), None) => Some(News::Ends),
            _ => None,
        }
    }

    /// Why publishes are held back, if they are.
    pub(super) fn pause(&self) -> Option<Arc<str>> {
        self.context.pressure.watch().borrow().reason()
    }

    /// Sends an encoded frame behind everything that was due, such as confirms that wait for the disk.
    pub(super) fn send_behind_all(&self, frame: bytes::Bytes) {
        let failed = self.context.store.has_failed();
        // A journal that has failed reaches no position any more.
        let position = (!failed).then(|| self.context.store.end());
        self.outbox.send_frame(frame, position);
    }
}
