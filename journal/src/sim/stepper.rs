//! A journal without a thread, for simulations: it commits when it is told to, so that a seed decides everything.

use std::sync::Arc;

use crate::Journal;
use crate::commit::{Committer, Turn};
use crate::error::CommitError;
use crate::stage::Stop;

/// Stands in for the commit thread of a journal from [`Journal::open_stepped`].
pub struct Stepper {
    journal: Arc<Journal>,
    committer: Committer,
}

impl Stepper {
    pub(crate) fn new(journal: Arc<Journal>, committer: Committer) -> Self {
        Self { journal, committer }
    }

    /// Commits what is staged and does one piece of housekeeping, and returns whether there was anything to do. Never
    /// again after a failure.
    pub fn step(&mut self) -> bool {
        self.committer.step() == Turn::Worked
    }

    /// Closes the journal, as [`Journal::close`] does with a thread.
    pub fn close(mut self) -> Result<(), CommitError> {
        self.journal.shared.stop(Stop::Close);
        while self.step() {}
        self.journal.outcome()
    }
}
