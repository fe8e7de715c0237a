//! One message in one queue.

use super::effects;
use crate::store::{Content, Message, Place, Seq, Stub};

/// The deadline of a message that never expires.
pub(super) const NEVER: u64 = u64::MAX;

/// A message and what this queue knows of it. It moves between ready and unacked as a whole.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) seq: Seq,
    pub(super) content: Content,
    /// From this time on it is not delivered any more, in milliseconds since 1970; [`NEVER`] without a limit.
    pub(super) deadline_ms: u64,
    /// What counts towards a queue's byte limit: the body alone, as in RabbitMQ.
    pub(super) body_bytes: u32,
    /// What it takes up in memory because its message is there, in bytes. Kept here, so that whoever moves many entries
    /// need not look at their messages, which are long out of the processor's cache.
    loaded_bytes: u32,
    /// Whether its message is in the journal: kept here for the same reason.
    journaled: bool,
    /// How many of its deliveries failed.
    pub(super) failed: u32,
    pub(super) priority: u8,
    /// Whether anybody may have seen it before.
    pub(super) redelivered: bool,
}

// A thousand of these are there for each queue whose backlog is being read, and one for each unsettled delivery.
const _: () = assert!(size_of::<Option<Entry>>() == 48);

impl Entry {
    pub(super) fn new(seq: Seq, message: Message, deadline_ms: u64) -> Self {
        Self {
            seq,
            deadline_ms,
            body_bytes: message.body().len() as u32,
            loaded_bytes: effects::weight(&message) as u32,
            journaled: message.place.is_some(),
            failed: 0,
            priority: message.priority,
            redelivered: false,
            content: Content::Loaded(message),
        }
    }

    pub(super) fn from_stub(stub: Stub) -> Self {
        Self {
            seq: stub.seq,
            deadline_ms: stub.deadline_ms,
            body_bytes: stub.body_bytes,
            loaded_bytes: 0,
            journaled: true,
            failed: stub.failed,
            priority: stub.priority,
            redelivered: stub.redelivered,
            content: Content::Stored(stub.place),
        }
    }

    /// It without its message; `None` for one that is nowhere else.
    pub(super) fn stub(&self) -> Option<Stub> {
        Some(Stub {
            seq: self.seq,
            place: self.content.place()?.clone(),
            body_bytes: self.body_bytes,
            priority: self.priority,
            arrived_ms: 0,
            deadline_ms: self.deadline_ms,
            failed: self.failed,
            redelivered: self.redelivered,
        })
    }

    /// Lets go of the message, if it can be read again; gives how much memory that was, in bytes.
    pub(super) fn unload(&mut self) -> u64 {
        let loaded = self.loaded_bytes();
        match self.content.place().cloned() {
            Some(place) if loaded > 0 => {
                self.content = Content::Stored(place);
                self.loaded_bytes = 0;
                loaded
            }
            _ => 0,
        }
    }

    /// Moves its message's record, if that is still where `stub` says: `put` writes it anew, and gives its new place.
    pub(super) fn relocate(&mut self, stub: &Stub, put: &mut dyn FnMut(&Stub) -> Option<Place>) {
        if let Some(now) = self.stub().filter(|now| now.place == stub.place)
            && let Some(place) = put(&now)
        {
            let before = std::mem::replace(&mut self.content, Content::Stored(place.clone()));
            // Other queues that have the message keep its old place, until it is moved for them.
            if let Content::Loaded(message) = before {
                self.content = Content::Loaded(message.with(|head| head.place = Some(place)));
            }
        }
    }

    /// What it takes up in memory because its message is there, in bytes.
    pub(super) fn loaded_bytes(&self) -> u64 {
        u64::from(self.loaded_bytes)
    }

    /// Its message has been read.
    pub(super) fn load(&mut self, message: Message) {
        self.loaded_bytes = effects::weight(&message) as u32;
        self.content = Content::Loaded(message);
    }

    /// As [`Entry::loaded_bytes`], if its message is in the journal as well.
    pub(super) fn journaled_bytes(&self) -> u64 {
        if self.journaled { self.loaded_bytes() } else { 0 }
    }

    pub(super) fn is_loaded(&self) -> bool {
        matches!(self.content, Content::Loaded(_))
    }

    pub(super) fn expired(&self, now_ms: u64) -> bool {
        self.deadline_ms <= now_ms
    }
}
