//! How far a queue may deliver: what keeps the flag `redelivered` honest after a crash without a record for each
//! delivery.
//!
//! Before a queue delivers a place it has written that it may deliver all places up to one that lies a window ahead; a
//! delivery is not sent before that record is on disk. So after a crash each message that a client can have seen lies
//! below a recorded horizon, and at most a window of those that none has seen. A new record is written when half of the
//! window is used up, long before a delivery would have to wait for it.
//!
//! Each priority has a horizon of its own: what is urgent is delivered far ahead of a backlog that nobody has touched.

use leveret_journal::faults::mutant;
use leveret_journal::{Position, Synced};

use super::Seq;

/// The window of a queue that delivers slowly, in places. So many messages at most are flagged without need. (In tests a
/// few, so that random operations get to its end.)
const WINDOW_MIN: u64 = if cfg!(test) { 8 } else { 1024 };
/// The window of the fastest queue, in places.
const WINDOW_MAX: u64 = if cfg!(test) { 32 } else { 64 * 1024 };

/// How far a queue may have delivered messages of one priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reach {
    /// Places below may be delivered.
    pub below: Seq,
    /// Places below count as delivered since the broker was interrupted. Kept here, because the record of the horizon
    /// that held then may be gone with its segment.
    pub delivered: Seq,
}

/// The horizon of one queue.
#[derive(Debug)]
pub struct Horizon {
    /// What the last record says, by priority. Empty before the first record.
    staged: Vec<Reach>,
    /// What was on disk when that was last looked at.
    durable: Vec<Seq>,
    /// Behind the last record, if that is not known to be on disk.
    pending: Option<Position>,
    /// Where the last record is.
    written_at: Position,
    /// How far ahead of the next delivery a record reaches. Doubled when half of it is used up faster than the disk
    /// syncs: then deliveries of a queue this fast do not wait for the disk either.
    window: u64,
    /// When the queue has used this many places it is time to look ahead, whatever was delivered.
    look_at: u64,
}

impl Default for Horizon {
    fn default() -> Self {
        Self {
            staged: Vec::new(),
            durable: Vec::new(),
            pending: None,
            written_at: Position::default(),
            window: WINDOW_MIN,
            look_at: 0,
        }
    }
}

impl Horizon {
    /// As a recovered journal has it, whose last record of it is at `written_at`.
    pub fn recovered(reach: Vec<Reach>, written_at: Position) -> Self {
        let durable = reach.iter().map(|reach| reach.below).collect();
        Self { durable, staged: reach, written_at, ..Self::default() }
    }

    /// Whether a delivery of a place is so near to the horizon of its level, or beyond, that [`Self::extend`] has to
    /// follow. A level is a priority, as far as the queue tells them apart.
    pub fn is_near(&self, level: usize, seq: Seq) -> bool {
        let near = |reach: &Reach| seq.0.saturating_add(self.window / 2) >= reach.below.0;
        self.staged.get(level).is_none_or(near)
    }

    /// Whether a queue that has used so many places should [extend](Self::extend) its horizon although it may not have
    /// delivered any: so that the next message finds one that is on disk.
    pub fn is_stale(&self, next: Seq) -> bool {
        next.0 >= self.look_at
    }

    /// Moves the horizon ahead. `upcoming` has for each level the place that is delivered next; all that were delivered
    /// are below it. Gives the new horizon if one has to be written; then [`Self::written`] has to follow.
    pub fn extend(&mut self, next: Seq, upcoming: &[Seq]) -> Option<&[Reach]> {
        self.look_at = next.0.saturating_add(self.window / 4);
        self.staged.resize(upcoming.len().max(self.staged.len()), Reach::default());
        let far =
            |(reach, upcoming): (&Reach, &Seq)| reach.below.0 >= upcoming.0.saturating_add(self.window / 2);
        if self.staged.iter().zip(upcoming).all(far) {
            return None;
        }
        for (reach, upcoming) in self.staged.iter_mut().zip(upcoming) {
            reach.below = Seq(reach.below.0.max(upcoming.0.saturating_add(self.window)));
        }
        Some(&self.staged)
    }

    /// The record is written, and on disk when the journal has reached `end`.
    ///
    /// What a journal that has failed does not take is never on disk: it has no `end`, and what it covers is not sent.
    pub fn written(&mut self, end: Option<Position>) {
        let end = end.unwrap_or(Position(u64::MAX));
        if self.pending.replace(end).is_some() {
            self.window = (self.window * 2).min(WINDOW_MAX);
        }
        self.written_at = inside(end);
    }

    /// The horizon as it has to be written again, before the journal loses what is `before` a position.
    pub fn lost_before(&self, before: Position) -> Option<&[Reach]> {
        let lost = self.written_at < before && !mutant("horizon_forgotten");
        (lost && !self.staged.is_empty()).then_some(&self.staged)
    }

    /// It was written again, up to `end`.
    pub fn written_again(&mut self, end: Option<Position>) {
        self.written_at = end.map_or(self.written_at, inside);
    }

    /// Notes how far the disk is.
    pub fn look_at_disk(&mut self, synced: impl FnOnce() -> Synced) {
        if let Some(end) = self.pending
            && synced().reaches(end)
        {
            self.durable.clear();
            self.durable.extend(self.staged.iter().map(|reach| reach.below));
            self.pending = None;
        }
    }

    /// What must be on disk before a delivery may be sent, if anything is missing.
    pub fn wait_for(&self, level: usize, seq: Seq) -> Option<Position> {
        self.pending.filter(|_| self.durable.get(level).is_none_or(|below| seq >= *below))
    }
}

/// A place in the segment of the record that ends there; the end itself may be the next one's beginning.
fn inside(end: Position) -> Position {
    Position(end.0.saturating_sub(1))
}
