//! The commit thread: takes everything staged, writes it, syncs once, and tells how far the disk is now.
//!
//! There is no timer: while one sync runs the next blocks collect, so the load itself sets how much one sync covers. A
//! failed write or sync is final. The page cache calls clean what a failed sync did not write, so a second try would
//! succeed and prove nothing.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Condvar, Mutex, RwLock};

use crate::error::{CommitError, DiskError, During as _};
use crate::faults::{crash_point, mutant};
use crate::segment::{Folder, Segment};
use crate::stage::{StagedBlock, Staging, Stop};
use crate::{Observer, Stats, Synced};

/// Files that are kept to make segments of: one for the next, one in case both come at once. More would be disk space
/// that nobody can use.
const SPARES_MAX: usize = 2;

/// What the commit thread shares with stagers and readers.
pub(crate) struct Shared {
    pub(crate) folder: Folder,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) staged_bytes_max: usize,
    pub(crate) staging: Mutex<Staging>,
    /// Something was staged or asked for; with `staging`.
    pub(crate) staged: Condvar,
    /// `written` rose, or never will again; with `staging`.
    pub(crate) written_changed: Condvar,
    /// The segments that may be read: those of the journal, in order.
    pub(crate) segments: RwLock<BTreeMap<u64, Arc<Segment>>>,
    /// Bytes of records that are staged and not yet synced.
    pub(crate) staged_bytes: AtomicUsize,
    /// Where the next record would go.
    pub(crate) end: AtomicU64,
    /// Everything below is in its file, though perhaps only in the page cache.
    pub(crate) written: AtomicU64,
    /// Everything below is on disk.
    pub(crate) synced: AtomicU64,
    pub(crate) counters: Counters,
}

#[derive(Default)]
pub(crate) struct Counters {
    commits: AtomicU64,
    bytes: AtomicU64,
    created: AtomicU64,
    recycled: AtomicU64,
}

impl Shared {
    pub(crate) fn stats(&self) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            commits: read(&self.counters.commits),
            bytes: read(&self.counters.bytes),
            segments: self.segments.read().len() as u64,
            segments_created: read(&self.counters.created),
            segments_recycled: read(&self.counters.recycled),
        }
    }

    pub(crate) fn stop(&self, stop: Stop) {
        let mut staging = self.staging.lock();
        // A close that is under way is finished even if the journal is dropped meanwhile.
        staging.stop.get_or_insert(stop);
        self.staged.notify_one();
    }

    fn fail(&self, failure: &CommitError) {
        tracing::error!(%failure, dir = %self.folder.dir.display(), "nothing more is written to the journal");
        let mut staging = self.staging.lock();
        staging.fail(failure.clone());
        self.staged_bytes.store(0, Ordering::Relaxed);
        self.written_changed.notify_all();
        drop(staging);
        self.observer.failed(failure);
    }
}

/// What a turn of the commit thread leaves to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    Worked,
    /// Only without waiting: there was nothing to do.
    Idle,
    Ended,
}

/// The state of the commit thread.
pub(crate) struct Committer {
    shared: Arc<Shared>,
    active: Arc<Segment>,
    /// Made ahead, so that going on to it costs nothing but the name.
    next: Option<Segment>,
    spares: Vec<PathBuf>,
    /// The disk had no room for the next segment. It is asked again when a file comes free or the segment is needed.
    next_refused: bool,
    /// Taken from staging, and reused.
    batch: Vec<StagedBlock>,
    /// Where the last written block ends.
    written: u64,
    /// Segments before this number are to go: everything that was staged when this was asked for is synced.
    release_before: u64,
    ended: bool,
}

impl Committer {
    pub(crate) fn new(shared: Arc<Shared>, active: Arc<Segment>, spares: Vec<PathBuf>) -> Self {
        let written = shared.written.load(Ordering::Relaxed);
        let (batch, release_before) = (Vec::new(), 0);
        Self {
            shared,
            active,
            next: None,
            spares,
            next_refused: false,
            batch,
            written,
            release_before,
            ended: false,
        }
    }

    /// Commits until told to stop, or until the disk fails.
    pub(crate) fn run(mut self) {
        while self.turn(true) != Turn::Ended {}
    }

    /// Commits what is staged, then does one piece of housekeeping, so that however much of it there is no commit waits
    /// for more than one. With `wait` it waits until there is something to do.
    pub(crate) fn turn(&mut self, wait: bool) -> Turn {
        if self.ended {
            return Turn::Ended;
        }
        let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| self.try_turn(wait)));
        let turn = outcome.unwrap_or(Err(CommitError::Panicked)).unwrap_or_else(|failure| {
            self.shared.fail(&failure);
            Turn::Ended
        });
        self.ended = turn == Turn::Ended;
        turn
    }

    fn try_turn(&mut self, wait: bool) -> Result<Turn, CommitError> {
        let stop = self.take(wait);
        if stop == Some(Stop::Abandon) {
            return Ok(Turn::Ended);
        }
        let worked = self.commit()?;
        if stop == Some(Stop::Close) {
            self.mark_clean_stop()?;
            return Ok(Turn::Ended);
        }
        Ok(if self.keep_house()? || worked { Turn::Worked } else { Turn::Idle })
    }

    /// Takes what is staged and asked for.
    fn take(&mut self, wait: bool) -> Option<Stop> {
        let shared = Arc::clone(&self.shared);
        let mut staging = shared.staging.lock();
        staging.give_back(&mut self.batch);
        loop {
            self.release_before = shared.folder.layout.number(staging.release_before);
            let busy = staging.has_records() || staging.stop.is_some() || self.has_housework();
            if busy || !wait {
                staging.take(&mut self.batch);
                return staging.stop;
            }
            shared.staged.wait(&mut staging);
        }
    }

    fn commit(&mut self) -> Result<bool, DiskError> {
        let mut batch = std::mem::take(&mut self.batch);
        for block in &mut batch {
            self.write(block)?;
        }
        self.sync()?;
        let bytes = batch.iter().map(StagedBlock::record_bytes).sum();
        self.shared.staged_bytes.fetch_sub(bytes, Ordering::Relaxed);
        let worked = !batch.is_empty();
        self.batch = batch;
        Ok(worked)
    }

    fn write(&mut self, block: &mut StagedBlock) -> Result<(), DiskError> {
        let layout = self.shared.folder.layout;
        let number = layout.number(block.start);
        if number != self.active.number {
            // A segment is on disk as a whole before the next has its first block: that is how recovery knows where it
            // ends, and why only the last can be torn.
            self.sync()?;
            self.go_on_to(number)?;
        }
        block.seal(self.active.epoch, self.synced());
        let active = &self.active;
        crash_point("journal.commit.before_write");
        active.file.write_at(&block.bytes, layout.offset(block.start)).during("write", &active.path)?;
        crash_point("journal.commit.written");
        self.written = block.end();
        self.shared.counters.bytes.fetch_add(block.bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), DiskError> {
        let synced = self.synced().position().0;
        if self.written == synced {
            return Ok(());
        }
        self.publish_written();
        crash_point("journal.commit.before_sync");
        if mutant("synced_too_early") {
            self.shared.synced.store(self.written, Ordering::Release);
        }
        let mut outcome = self.active.file.sync_data();
        if mutant("retry_after_failed_sync") && outcome.is_err() {
            outcome = self.active.file.sync_data();
        }
        if !mutant("failed_sync_ignored") {
            outcome.during("sync", &self.active.path)?;
        }
        crash_point("journal.commit.synced");
        self.shared.synced.store(self.written, Ordering::Release);
        self.shared.counters.commits.fetch_add(1, Ordering::Relaxed);
        self.shared.observer.committed(self.synced());
        crash_point("journal.commit.told");
        Ok(())
    }

    fn publish_written(&self) {
        let staging = self.shared.staging.lock();
        self.shared.written.store(self.written, Ordering::Release);
        self.shared.written_changed.notify_all();
        drop(staging);
    }

    fn synced(&self) -> Synced {
        Synced::up_to(self.shared.synced.load(Ordering::Relaxed))
    }

    /// Everything is synced. The mark says so, and is worth nothing until it is synced itself.
    fn mark_clean_stop(&mut self) -> Result<(), DiskError> {
        let start = self.shared.staging.lock().place_for_mark();
        self.write(&mut StagedBlock::clean_stop(start))?;
        crash_point("journal.clean_stop.written");
        self.active.file.sync_data().during("sync", &self.active.path)?;
        crash_point("journal.clean_stop.synced");
        Ok(())
    }

    fn go_on_to(&mut self, number: u64) -> Result<(), DiskError> {
        let next = match self.next.take() {
            Some(next) => next,
            None => self.make(number)?,
        };
        crash_point("journal.commit.next_segment");
        self.active = Arc::new(next);
        self.shared.segments.write().insert(number, Arc::clone(&self.active));
        Ok(())
    }

    fn has_housework(&self) -> bool {
        self.must_make_next() || self.to_release().is_some()
    }

    /// Does at most one thing, and returns whether it did.
    fn keep_house(&mut self) -> Result<bool, DiskError> {
        if let Some(number) = self.to_release() {
            self.release(number)?;
        } else if self.must_make_next() {
            match self.make(self.active.number + 1) {
                Ok(next) => self.next = Some(next),
                Err(error) if error.is_allocation() => {
                    tracing::warn!(%error, "no room for the journal's next segment");
                    self.next_refused = true;
                }
                Err(error) => return Err(error),
            }
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    fn must_make_next(&self) -> bool {
        self.next.is_none() && !self.next_refused
    }

    fn make(&mut self, number: u64) -> Result<Segment, DiskError> {
        let spare = self.spares.pop();
        let made =
            if spare.is_some() { &self.shared.counters.recycled } else { &self.shared.counters.created };
        let segment = self.shared.folder.make(number, spare)?;
        made.fetch_add(1, Ordering::Relaxed);
        Ok(segment)
    }

    /// The segment to release next. The lowest first, each for good before the next: recovery finds no hole.
    fn to_release(&self) -> Option<u64> {
        let lowest = *self.shared.segments.read().first_key_value()?.0;
        (lowest < self.release_before.min(self.active.number)).then_some(lowest)
    }

    fn release(&mut self, number: u64) -> Result<(), DiskError> {
        crash_point("journal.release.begun");
        self.shared.segments.write().remove(&number);
        let keep = self.spares.len() < SPARES_MAX;
        self.spares.extend(self.shared.folder.retire(number, keep)?);
        self.next_refused = false;
        Ok(())
    }
}
