//! How full the connection is that deliveries go to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The bytes that wait to be written to one connection, shared by all its consumers and their queues.
///
/// A consumer whose outlet is full is passed over, so that a slow reader holds up nobody and bounds what the broker
/// keeps for it. The cap is soft: each queue may overshoot it by what one turn of one consumer adds after the
/// outlet had room, and a turn stops with the message that reaches the cap as the queue saw it.
#[derive(Debug)]
pub struct Outlet {
    waiting: AtomicUsize,
    cap: usize,
    starved: AtomicBool,
    gate: Arc<Gate>,
}

/// Whether anything is delivered at all, to any connection.
///
/// A broker that stops closes it first: what one connection gives back when it ends must not go out to another one
/// that will end a moment later, counted as failed each time.
#[derive(Debug, Default)]
pub struct Gate {
    closed: AtomicBool,
}

impl Gate {
    /// Nothing is delivered from now on.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }
}

// All orderings are sequentially consistent. `starve` and `sub` each write one of the two atomics and then read the
// other; with anything weaker both could miss the other's write, and the consumer would wait for ever.
impl Outlet {
    /// An empty outlet that is full at `cap` bytes. A cap of 0 counts as 1, since it could never open.
    pub fn new(cap: usize) -> Self {
        Self::behind(Arc::default(), cap)
    }

    /// As [`Outlet::new`], without room once the gate is closed.
    pub fn behind(gate: Arc<Gate>, cap: usize) -> Self {
        Self { waiting: AtomicUsize::new(0), cap: cap.max(1), starved: AtomicBool::new(false), gate }
    }

    /// Whether another delivery may be put in.
    pub fn has_room(&self) -> bool {
        self.room() > 0
    }

    /// The bytes that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// Deliveries of `bytes` were put in.
    pub fn add(&self, bytes: usize) {
        self.waiting.fetch_add(bytes, Ordering::SeqCst);
    }

    /// Deliveries of `bytes` were written. `true` if the outlet has drained to half its cap and a consumer was
    /// passed over: the caller must then call [`State::resume`](super::State::resume), and dispatch, on every queue
    /// that this connection consumes from.
    #[must_use]
    pub fn sub(&self, bytes: usize) -> bool {
        let take = |waiting: usize| Some(waiting.saturating_sub(bytes));
        let before =
            self.waiting.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).unwrap_or_else(|same| same);
        before.saturating_sub(bytes) <= self.cap / 2
            && self.starved.load(Ordering::SeqCst)
            && self.starved.swap(false, Ordering::SeqCst)
    }

    /// How many bytes still go in.
    pub(super) fn room(&self) -> usize {
        if self.gate.closed.load(Ordering::SeqCst) { 0 } else { self.cap.saturating_sub(self.waiting()) }
    }

    /// The room, and if there is none, a note for [`Outlet::sub`] that somebody waits for some.
    pub(super) fn room_or_starve(&self) -> usize {
        match self.room() {
            0 => {
                self.starved.store(true, Ordering::SeqCst);
                // The writer may have emptied it before it could see the note. A call of `resume` too many is harmless.
                self.room()
            }
            room => room,
        }
    }
}
