//! What has to happen outside after a queue has changed.

use std::sync::Arc;

use leveret_journal::Position;
use leveret_protocol::DeathReason;

use super::entry::Entry;
use super::holders::HolderId;
use crate::store::{Content, Message, Seq};

/// What one batch of events asks of the outside. Made once and used again: [`Effects::clear`] keeps the memory.
#[derive(Debug, Default)]
pub struct Effects {
    /// Hand-overs, in the order in which they were decided; those of one holder in the order of their tags.
    pub deliveries: Vec<Delivery>,
    /// Messages that have left the queue for good: acknowledged, delivered without acknowledgement, purged, or given
    /// up by a queue that has no dead-letter exchange.
    pub gone: Vec<Seq>,
    /// Messages that came back, with the number of their failed deliveries. All count as redelivered from now on.
    pub returned: Vec<(Seq, u32)>,
    /// Messages that left the queue towards its dead-letter exchange, in the order in which they did.
    pub dead: Vec<Dead>,
    /// The queue is to be deleted, with all that is in it; none of that is dead-lettered.
    pub delete: Option<DeleteReason>,
}

/// One hand-over of a message.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// To whom.
    pub holder: HolderId,
    /// Its number among the holder's deliveries, from 1, without gaps; what the holder settles it by.
    pub tag: u64,
    /// Its place in the queue.
    pub seq: Seq,
    /// The message.
    pub message: Message,
    /// Whether anybody may have seen it before.
    pub redelivered: bool,
    /// How many of its deliveries failed before this one (`x-delivery-count`).
    pub delivery_count: u32,
    /// What the journal must have on disk before the delivery is sent, if it may not be sent at once: that this message
    /// may be delivered. Without that a crash would forget that somebody has seen it.
    pub after: Option<Position>,
}

/// A message that leaves for the dead-letter exchange.
#[derive(Debug, Clone)]
pub struct Dead {
    /// Its place in the queue; none if the queue refused it. Whoever carries the message on settles this place, in
    /// one record with the message's new places, so that a crash leaves it in exactly one queue.
    pub seq: Option<Seq>,
    /// The message, which may have to be read.
    pub content: Content,
    /// Why the queue gave it up.
    pub reason: DeathReason,
    /// What the consumer said when it rejected the message.
    pub note: Option<Arc<str>>,
}

/// Why a queue is to be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeleteReason {
    /// Its last consumer has left, and it was declared `auto_delete`.
    AutoDelete,
    /// Nobody used it for as long as `x-expires` says.
    Expired,
}

/// Vectors that one huge batch (a purge, say) has grown beyond this many items give their memory back.
const KEPT_CAPACITY: usize = 16 * 1024;

/// What a delivery costs beside properties and body: frame header, tag, names, in bytes. An estimate.
const DELIVERY_OVERHEAD: usize = 128;

impl Effects {
    /// Empties it and keeps its memory for the next batch.
    pub fn clear(&mut self) {
        fn reset<T>(items: &mut Vec<T>) {
            items.clear();
            items.shrink_to(KEPT_CAPACITY);
        }
        reset(&mut self.deliveries);
        reset(&mut self.gone);
        reset(&mut self.returned);
        reset(&mut self.dead);
        self.delete = None;
    }

    /// Whether nothing has to be done.
    pub fn is_empty(&self) -> bool {
        self.deliveries.is_empty()
            && self.gone.is_empty()
            && self.returned.is_empty()
            && self.dead.is_empty()
            && self.delete.is_none()
    }

    /// A message leaves its queue without having been acknowledged.
    pub(super) fn bury(
        &mut self,
        entry: Entry,
        reason: DeathReason,
        note: Option<&Arc<str>>,
        dead_letter: bool,
    ) {
        if dead_letter {
            let Entry { seq, content, .. } = entry;
            self.dead.push(Dead { seq: Some(seq), content, reason, note: note.cloned() });
        } else {
            self.gone.push(entry.seq);
        }
    }
}

impl Delivery {
    /// How much of its connection's [`Outlet`](super::Outlet) a delivery to a consumer takes up, in bytes. The queue
    /// adds it when it decides on the delivery; the connection takes it off when it has written the delivery.
    pub fn weight(&self) -> usize {
        weight(&self.message)
    }
}

pub(super) fn weight(message: &Message) -> usize {
    DELIVERY_OVERHEAD + message.content().len()
}
