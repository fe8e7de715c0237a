//! Outbox -> socket: one write a batch.

use std::future::poll_fn;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Notify;
use tokio::task::block_in_place;

use super::buffers::{self, Lender};
use super::gather::Gather;
use super::outbox::{Outbox, Outgoing};
use super::protocol::{Encoder, Protocol};
use crate::channel::ConfirmRuns;
use crate::store::Store;

/// Everything that a batch encodes to is written once this much is there, in bytes.
const WRITE_BYTES_AIM: usize = 256 * 1024;

/// How many pieces of memory one write takes.
const SLICES_MAX: usize = 512;

/// How long an idle connection keeps the memory that its last batch took.
const BATCH_KEPT: Duration = Duration::from_secs(1);

/// A client that takes nothing for this long is gone, or might as well be.
const STALL_MAX: Duration = Duration::from_secs(60);

/// The writing side of a connection.
pub(super) struct Writer<W, P: Protocol> {
    pub(super) socket: W,
    pub(super) outbox: Arc<Outbox<P>>,
    pub(super) store: Arc<Store>,
    /// Something is sent at least this often, if at all.
    pub(super) heartbeat: Option<Duration>,
    pub(super) encoder: P::Encoder,
    /// Rung when consumers that were passed over can get deliveries again.
    pub(super) resume: Arc<Notify>,
}

impl<W: AsyncWrite + Unpin, P: Protocol> Writer<W, P> {
    /// Sends what the outbox gets, until it ends or the client cannot be reached any more.
    pub(super) async fn run(mut self) -> std::io::Result<()> {
        let may_block = Handle::current().runtime_flavor() == RuntimeFlavor::MultiThread;
        let mut commits = self.store.commits();
        let mut batch = Vec::new();
        loop {
            commits.mark_unchanged();
            let left = self.outbox.take(self.store.synced(), &mut batch);
            if !batch.is_empty() {
                let mut out = Gather::with(buffers::WRITING.with(Lender::lend));
                self.send(&mut batch, &mut out).await?;
                buffers::WRITING.with(|lender| lender.give_back(out.bytes));
                continue;
            }
            let failed = self.store.has_failed();
            if left.ending && (!left.waiting || failed) {
                return self.socket.shutdown().await;
            }
            if left.waiting && self.commit(may_block) {
                continue;
            }
            let idle = self.heartbeat.unwrap_or(Duration::MAX) / 2;
            // What is there of a batch is worth keeping for the next, but not for long.
            let patience = if batch.capacity() > 0 { idle.min(BATCH_KEPT) } else { idle };
            tokio::select! {
                () = self.outbox.rung() => {}
                _ = commits.changed(), if left.waiting && !failed => {}
                () = tokio::time::sleep(patience) => {
                    batch = Vec::new();
                    self.outbox.give_up_memory();
                    if patience == idle {
                        let mut out = Gather::default();
                        self.encoder.heartbeat(&mut out.bytes);
                        self.write(&mut out).await?;
                    }
                }
            }
        }
    }

    /// Sees to it that what is waited for is committed soon; `true` if it is now. A thread that waits for the disk here
    /// gives its other tasks, and the sockets, to another one before.
    fn commit(&self, may_block: bool) -> bool {
        if !may_block {
            self.store.hurry();
            return false;
        }
        self.store.lead().map(|lead| block_in_place(|| lead.commit())).is_some()
    }

    async fn send(&mut self, batch: &mut Vec<Outgoing<P>>, out: &mut Gather) -> std::io::Result<()> {
        let mut delivered = 0;
        let mut answered = 0;
        let mut confirms = ConfirmRuns::default();
        let mut consumer = None;
        for outgoing in batch.drain(..) {
            answered += outgoing.answer_bytes();
            if !confirms.is_empty() && outgoing.is_answer() {
                self.encoder.confirms(&mut confirms, &mut out.bytes);
            }
            match outgoing {
                Outgoing::Confirm(channel, confirm) => confirms.merge(channel, confirm),
                Outgoing::Frame(frame) => out.bytes.extend_from_slice(&frame),
                Outgoing::Late { answer, .. } => self.encoder.late(answer, &mut out.bytes),
                Outgoing::For(next) => consumer = Some(next),
                Outgoing::Deliver(delivery) => {
                    delivered += delivery.weight();
                    if let Some(consumer) = &consumer
                        && let Err(unfit) = self.encoder.deliver(consumer, &delivery, out)
                    {
                        self.outbox.does_not_fit(unfit);
                        self.resume.notify_one();
                    }
                }
            }
            if out.len() >= WRITE_BYTES_AIM {
                self.write(out).await?;
                self.account(&mut delivered, &mut answered);
            }
        }
        self.encoder.confirms(&mut confirms, &mut out.bytes);
        self.write(out).await?;
        self.account(&mut delivered, &mut answered);
        Ok(())
    }

    fn account(&self, delivered: &mut usize, answered: &mut usize) {
        if *delivered > 0 && self.outbox.delivered(std::mem::take(delivered)) {
            self.resume.notify_one();
        }
        self.outbox.sent(std::mem::take(answered));
    }

    async fn write(&mut self, out: &mut Gather) -> std::io::Result<()> {
        while !out.is_empty() {
            let socket = &mut self.socket;
            let write = poll_fn(|cx| {
                if let Some(bytes) = out.without_bodies() {
                    return Pin::new(&mut *socket).poll_write(cx, bytes);
                }
                // On the stack for the length of a call, and not in a task that may be idle for hours.
                let mut slices = [IoSlice::new(&[]); SLICES_MAX];
                let count = out.fill(&mut slices);
                Pin::new(&mut *socket).poll_write_vectored(cx, slices.get(..count).unwrap_or_default())
            });
            // For each piece and not for all: a slow client that reads is not one that stalls.
            match tokio::time::timeout(STALL_MAX, write).await {
                Ok(Ok(0)) => return Err(std::io::ErrorKind::WriteZero.into()),
                Ok(written) => out.advance(written?),
                Err(_) => return Err(std::io::ErrorKind::TimedOut.into()),
            }
        }
        Ok(())
    }
}
