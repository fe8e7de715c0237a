//! What waits to be written: frames, and settles that are still to become frames.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::BytesMut;
use leveret_protocol::{
    Control, Credit, FRAME_BYTES_BEFORE_OPEN, HEADER_BYTES, METADATA_BYTES_MAX, PublishParts, Ranges, Verb,
};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::sync::{Notify, oneshot};

use super::settles::{SettledSender, Settles};
use crate::error::{ControlFailure, Interruption, SettleError};

/// Publishers wait while this many bytes wait for the socket. One message may exceed it, so that any message
/// that fits a frame can be sent.
const OUTBOX_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Where everything that is sent meets. Callers append under a short lock and ring the driver only if it sleeps,
/// so that a burst of messages costs one wake-up and one write.
#[derive(Debug)]
pub(crate) struct Outbox {
    pending: Mutex<Pending>,
    /// Rung when the driver sleeps and there is something to write.
    doorbell: Notify,
    /// Rung when a full outbox was emptied, and when the broker takes publishes again.
    pub(crate) room: Notify,
    /// The broker takes no publishes for now.
    paused: AtomicBool,
    /// Rung when the last caller of `ack_durably` got its answer.
    pub(crate) quiet: Notify,
}

#[derive(Debug)]
struct Pending {
    frames: BytesMut,
    /// By channel and consumer number. A settle for a subscription that is not here, or that is of another
    /// incarnation, is of a connection that was lost: the broker has taken the message back, and a settle with
    /// its tag would now mean another message.
    settles: FxHashMap<(u16, u32), Settles>,
    /// Who of them has something to tell.
    unflushed: Vec<(u16, u32)>,
    /// The driver found nothing to write, and waits.
    asleep: bool,
    /// Somebody waits for [`Outbox::room`].
    room_wanted: bool,
    online: bool,
    frame_bytes_max: usize,
}

/// Why a message was not appended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Rejected {
    /// Wait for [`Outbox::room`].
    Full,
    /// Wait for the broker to take publishes again.
    Paused,
    /// Wait for the connection to come back.
    Offline,
    /// It fits no frame.
    TooLarge { size: usize, limit: usize },
}

impl Outbox {
    pub(crate) fn new() -> Self {
        let pending = Pending {
            frames: BytesMut::new(),
            settles: FxHashMap::default(),
            unflushed: Vec::new(),
            asleep: false,
            room_wanted: false,
            online: false,
            frame_bytes_max: FRAME_BYTES_BEFORE_OPEN,
        };
        Self {
            pending: Mutex::new(pending),
            doorbell: Notify::new(),
            room: Notify::new(),
            paused: AtomicBool::new(false),
            quiet: Notify::new(),
        }
    }

    /// Appends a message, unless it must wait.
    pub(crate) fn publish(&self, channel: u16, parts: &PublishParts<'_>) -> Result<(), Rejected> {
        self.with(|pending| {
            if !pending.online {
                return Err(Rejected::Offline);
            }
            if self.paused.load(Ordering::Relaxed) {
                return Err(Rejected::Paused);
            }
            if pending.frames.len() >= OUTBOX_BYTES_MAX {
                pending.room_wanted = true;
                return Err(Rejected::Full);
            }
            let limit = pending.frame_bytes_max;
            // Before it is copied: a body that is far too large must not be appended only to be cut off again.
            let least = parts.body.len() + parts.properties.len();
            if least > limit {
                return Err(Rejected::TooLarge { size: least, limit });
            }
            let start = pending.frames.len();
            let size = parts.encode(channel, &mut pending.frames);
            if size > limit {
                pending.frames.truncate(start);
                return Err(Rejected::TooLarge { size, limit });
            }
            Ok(())
        })
    }

    /// Appends a control frame after all settles that were made before it, so that closing a channel does not
    /// overtake its acks.
    pub(crate) fn control(&self, channel: u16, control: &Control) -> Result<(), ControlFailure> {
        self.with(|pending| {
            if !pending.online {
                return Err(ControlFailure::Offline);
            }
            pending.flush_settles();
            let start = pending.frames.len();
            control.encode(channel, &mut pending.frames)?;
            let size = pending.frames.len() - start - HEADER_BYTES;
            let limit = pending.frame_bytes_max.min(METADATA_BYTES_MAX);
            if size > limit {
                pending.frames.truncate(start);
                return Err(ControlFailure::TooLarge { size, limit });
            }
            Ok(())
        })
    }

    /// Allows a consumer without acknowledgements more messages.
    pub(crate) fn credit(&self, channel: u16, credit: Credit) {
        self.with(|pending| {
            if pending.online {
                credit.encode(channel, &mut pending.frames);
            }
        });
    }

    /// From now on settles of this incarnation count, and those of earlier ones do not.
    pub(crate) fn subscribe(&self, subscription: (u16, u32), incarnation: u64) {
        self.with(|pending| pending.settles.insert(subscription, Settles::new(incarnation)));
    }

    /// Settles of this subscription no longer count.
    pub(crate) fn unsubscribe(&self, subscription: (u16, u32), cause: &Interruption) {
        if let Some(settles) = self.with(|pending| pending.settles.remove(&subscription)) {
            settles.interrupt(cause);
            self.quiet.notify_waiters();
        }
    }

    /// Settles a delivery, or drops the settle silently if it is of an earlier incarnation.
    pub(crate) fn settle(&self, subscription: (u16, u32), incarnation: u64, tag: u64, verb: Verb) {
        self.with(|pending| {
            pending.change(subscription, incarnation, |settles| match verb {
                Verb::Ack => settles.ack(tag),
                Verb::Requeue => settles.requeue(tag),
                Verb::Release => settles.release(tag),
                Verb::Reject => settles.reject(tag, String::new()),
            });
        });
    }

    /// As [`Outbox::settle`], with the reason of a rejection.
    pub(crate) fn reject(&self, subscription: (u16, u32), incarnation: u64, tag: u64, note: String) {
        self.with(|pending| pending.change(subscription, incarnation, |settles| settles.reject(tag, note)));
    }

    /// Acks, and tells when that is on disk. `None` if the delivery is of an earlier incarnation.
    pub(crate) fn ack_durably(
        &self,
        subscription: (u16, u32),
        incarnation: u64,
        tag: u64,
    ) -> Option<oneshot::Receiver<Result<(), SettleError>>> {
        let (sender, receiver): (SettledSender, _) = oneshot::channel();
        self.with(|pending| {
            pending.change(subscription, incarnation, |settles| settles.ack_durably(tag, sender))
        })
        .map(|()| receiver)
    }

    /// The broker says that these are on disk.
    pub(crate) fn settled(&self, subscription: (u16, u32), ranges: Ranges<'_>) {
        self.with(|pending| {
            if let Some(settles) = pending.settles.get_mut(&subscription) {
                ranges.iter().for_each(|(first, last)| settles.settled(first, last));
            }
        });
        self.quiet.notify_waiters();
    }

    /// How many callers wait for their settles to be on disk.
    pub(crate) fn settles_waiting(&self) -> usize {
        self.pending.lock().settles.values().map(Settles::waiting).sum()
    }

    /// A new connection, with this frame limit.
    pub(crate) fn go_online(&self, frame_bytes_max: usize) {
        let mut pending = self.pending.lock();
        pending.online = true;
        pending.frame_bytes_max = frame_bytes_max;
    }

    /// The connection is gone, and with it what was not written.
    pub(crate) fn go_offline(&self, cause: &Interruption) {
        // The next connection is told anew.
        self.paused.store(false, Ordering::Relaxed);
        let settles = {
            let mut pending = self.pending.lock();
            pending.online = false;
            pending.frames = BytesMut::new();
            pending.unflushed.clear();
            pending.asleep = false;
            std::mem::take(&mut pending.settles)
        };
        for settles in settles.into_values() {
            settles.interrupt(cause);
        }
        self.quiet.notify_waiters();
        self.room.notify_waiters();
    }

    /// The broker takes no publishes for now, or takes them again.
    pub(crate) fn pause(&self, paused: bool) {
        self.paused.store(paused, Ordering::Relaxed);
        if !paused {
            self.room.notify_waiters();
        }
    }

    /// Swaps everything that waits into `out`, which is empty. If that is nothing, the next caller that appends
    /// rings the doorbell.
    pub(crate) fn take(&self, out: &mut BytesMut) {
        if out.capacity() > 2 * OUTBOX_BYTES_MAX {
            // One giant message must not keep its room for ever.
            *out = BytesMut::new();
        }
        let room_wanted = {
            let mut pending = self.pending.lock();
            pending.flush_settles();
            std::mem::swap(&mut pending.frames, out);
            pending.asleep = out.is_empty();
            std::mem::take(&mut pending.room_wanted)
        };
        if room_wanted {
            self.room.notify_waiters();
        }
    }

    /// Waits until somebody rings.
    pub(crate) async fn rung(&self) {
        self.doorbell.notified().await;
    }

    fn with<R>(&self, change: impl FnOnce(&mut Pending) -> R) -> R {
        let mut pending = self.pending.lock();
        let result = change(&mut pending);
        let has_work = !pending.frames.is_empty() || !pending.unflushed.is_empty();
        let ring = pending.asleep && has_work;
        if ring {
            pending.asleep = false;
        }
        drop(pending);
        if ring {
            self.doorbell.notify_one();
        }
        result
    }
}

impl Pending {
    fn change(
        &mut self,
        subscription: (u16, u32),
        incarnation: u64,
        change: impl FnOnce(&mut Settles),
    ) -> Option<()> {
        let settles = self.settles.get_mut(&subscription)?;
        if settles.incarnation != incarnation {
            return None;
        }
        change(settles);
        if !settles.unflushed {
            settles.unflushed = true;
            self.unflushed.push(subscription);
        }
        Some(())
    }

    fn flush_settles(&mut self) {
        for subscription in self.unflushed.drain(..) {
            if let Some(settles) = self.settles.get_mut(&subscription) {
                settles.flush(subscription, self.frame_bytes_max, &mut self.frames);
            }
        }
    }
}
