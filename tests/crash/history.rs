//! What clients saw and did, in one order.
//!
//! What a client begins is written before it begins it, and what it learns is written after it learned it. All clients
//! run on one thread, and the harness writes [`Event::Down`] only when all of them know that the broker is gone: so what
//! stands earlier in the history did happen earlier.

use std::sync::Mutex;

use tokio::time::Instant;

/// A message: its publisher, and its number among that publisher's messages, from 0 without gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Id {
    pub(crate) publisher: u32,
    pub(crate) number: u32,
}

/// One delivery, as far as a settle needs to name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) id: Id,
    pub(crate) queue: u8,
    pub(crate) consumer: u16,
    /// The life of the broker that delivered it: the number of [`Event::Down`] before it.
    pub(crate) life: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// A message is about to be published.
    Begun { id: Id, route: u8 },
    /// The broker has it, in so many queues.
    Confirmed { id: Id, queues: u16 },
    /// It may or may not be stored.
    Unknown { id: Id },
    /// The client library says that it was not sent.
    NotSent { id: Id },
    /// The broker said no.
    Refused { id: Id, why: String },
    /// The queue is full, and the broker said so.
    Full { id: Id },
    /// A consumer came, that may hold so many deliveries at a time.
    Opened { consumer: u16, prefetch: u32 },
    /// A consumer went, and what it held goes to others.
    Left { consumer: u16 },
    /// A purge or a deletion of a queue is about to be asked for.
    EmptyBegun { queue: u8, delete: bool },
    /// It was done, and so many messages went.
    Emptied { queue: u8, delete: bool, removed: u64 },
    /// A queue is about to be declared.
    DeclareBegun { queue: u8 },
    /// It was declared.
    Declared { queue: u8 },
    /// Whether a queue exists was asked.
    Found { queue: u8, exists: bool },
    /// The broker says that so many messages are ready in a queue that nobody uses. All of them are then taken.
    Counted { queue: u8, messages: u64 },
    /// A client got it; `route` is what the body says.
    Delivered { held: Held, route: u8, redelivered: bool, failures: u32 },
    /// A client got something that nobody published.
    Corrupt { queue: u8 },
    /// An ack is about to be sent.
    AckSent { held: Held },
    /// That the ack is on disk was told.
    AckDurable { held: Held },
    /// A requeue is about to be sent.
    Requeued { held: Held },
    /// A rejection is about to be sent.
    Rejected { held: Held },
    /// The broker has ended, and every client knows.
    Down,
}

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Since the history began, in microseconds.
    pub(crate) at_us: u64,
    pub(crate) event: Event,
}

pub(crate) struct History {
    began: Instant,
    entries: Mutex<Vec<Entry>>,
}

impl History {
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), entries: Mutex::default() }
    }

    pub(crate) fn add(&self, event: Event) {
        let at_us = self.began.elapsed().as_micros() as u64;
        self.entries.lock().unwrap().push(Entry { at_us, event });
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.lock().unwrap().len()
    }

    pub(crate) fn take(&self) -> Vec<Entry> {
        std::mem::take(&mut self.entries.lock().unwrap())
    }
}
