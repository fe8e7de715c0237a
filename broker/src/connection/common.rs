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
        if std::mem::take(&mut self.published) {
            // If the journal has failed the broker is about to stop, and this connection with it.
            self.context.store.wait_for_room().await;
        }
    }

    /// Sends an encoded frame behind everything that was due, such as confirms that wait for the disk.
    pub(super) fn send_behind_all(&self, frame: bytes::Bytes) {
        let failed = self.context.store.progress().borrow().failure.is_some();
        // A journal that has failed reaches no position any more.
        let position = (!failed).then(|| self.context.store.end());
        self.outbox.send_frame(frame, position);
    }
}
