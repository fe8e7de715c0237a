//! What became of what was written: the journal's news, for whoever waits for them.

use std::sync::Arc;

use leveret_journal::{CommitError, Observer, Synced};
use tokio::sync::watch;

/// What those listen to who wait for the journal. Commits come thousands of times a second, and wake only those who wait
/// for one; who looks after the broker's health sleeps on.
#[derive(Debug, Clone)]
pub struct Progress {
    /// How many commits there were. It rises with each, and with the failure that is the end of them.
    pub commits: watch::Receiver<u64>,
    /// How the journal is.
    pub health: watch::Receiver<Health>,
}

/// How the journal is.
#[derive(Debug, Clone, Default)]
pub struct Health {
    /// It cannot keep as many files ready as it should: publishers are to wait.
    pub short_of_room: bool,
    /// Why it stopped for good, if it did.
    pub failure: Option<Arc<str>>,
}

/// Passes the journal's news on.
pub struct ProgressReporter {
    commits: watch::Sender<u64>,
    health: watch::Sender<Health>,
    /// Called at once, by whoever commits, when the journal runs short of room: until publishers are held back it uses up
    /// what is reserved for settles.
    on_short: Box<dyn Fn() + Send + Sync>,
}

impl ProgressReporter {
    /// A reporter for a journal, and what the store listens to.
    pub fn new() -> (Arc<Self>, Progress) {
        Self::with(|| {})
    }

    /// As [`ProgressReporter::new`]; `on_short` must not wait for anything.
    pub fn with(on_short: impl Fn() + Send + Sync + 'static) -> (Arc<Self>, Progress) {
        let (commits, commits_receiver) = watch::channel(0);
        let (health, health_receiver) = watch::channel(Health::default());
        let progress = Progress { commits: commits_receiver, health: health_receiver };
        (Arc::new(Self { commits, health, on_short: Box::new(on_short) }), progress)
    }
}

impl Observer for ProgressReporter {
    fn committed(&self, _: Synced) {
        self.commits.send_modify(|commits| *commits += 1);
    }

    fn failed(&self, error: &CommitError) {
        self.health.send_modify(|health| health.failure = Some(error.to_string().into()));
        self.commits.send_modify(|commits| *commits += 1);
    }

    fn short_of_room(&self, short: bool) {
        if short {
            (self.on_short)();
        }
        self.health.send_modify(|health| health.short_of_room = short);
    }
}
