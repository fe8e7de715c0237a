//! The commit thread: takes everything staged, writes it, syncs once, and tells how far the disk is now. While it has
//! nothing to do, whoever waits for a commit may do all that in its place.
//!
//! There is no timer: while one sync runs the next blocks collect, so the load itself sets how much one sync covers. A
//! failed write or sync is final. The page cache calls clean what a failed sync did not write, so a second try would
//! succeed and prove nothing.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};

use crate::error::{CommitError, DiskError, During as _};
use crate::faults::{crash_point, mutant};
use crate::path;
use crate::segment::{Folder, Segment};
use crate::stage::{StagedBlock, Staging, Stop, ThreadState};
use crate::{Journal, Observer, Stats, Synced};

/// How long the commit thread waits before it asks a disk that had no room again. Space that others free is not told.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// How often the commit thread looks at what may wait. What it sees twice goes: that has waited for up to twice as long.
const LOOK_EVERY: Duration = Duration::from_millis(Journal::LAZY_MAX.as_millis() as u64 / 2);

/// What the commit thread shares with stagers and readers.
pub(crate) struct Shared {
    pub(crate) folder: Folder,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) staged_bytes_max: usize,
    /// No file is made that would leave less than this free on the disk, unless nothing could be committed without.
    pub(crate) free_bytes_min: u64,
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

    /// See [`Journal::lead`].
    pub(crate) fn lead(&self, bytes_max: usize) -> Option<Lead<'_>> {
        let mut staging = self.staging.lock();
        if staging.urgent || !staging.has_records() {
            // The commit thread knows, or there is nothing to do.
            return None;
        }
        let alone = staging.quiet && staging.stop.is_none() && staging.bytes() <= bytes_max;
        if alone && let Some(committer) = staging.resting.take() {
            if committer.is_for_active(&staging) {
                return Some(Lead { shared: self, committer: Some(committer), committed: false });
            }
            staging.resting = Some(committer);
        }
        self.hurry(&mut staging);
        None
    }

    pub(crate) fn hurry(&self, staging: &mut Staging) {
        if staging.has_records() && !staging.urgent {
            staging.urgent = true;
            self.staged.notify_one();
        }
    }

    /// Gives the commit thread the committer back that rested, if need be when somebody else has done a commit with it.
    fn wake(&self, staging: &mut MutexGuard<'_, Staging>) -> Box<Committer> {
        loop {
            if let Some(committer) = staging.resting.take() {
                staging.thread = ThreadState::Awake;
                return committer;
            }
            staging.thread = ThreadState::AwaitsCommitter;
            self.staged.wait(staging);
        }
    }

    fn fail(&self, failure: &CommitError) {
        tracing::error!(%failure, dir = %self.folder.dir.display(), "nothing more is written to the journal");
        let mut staging = self.staging.lock();
        staging.fail(failure.clone());
        // Whoever was refused and then waits for all that was staged must not find that it is on disk already.
        self.end.store(u64::MAX, Ordering::Release);
        self.staged_bytes.store(0, Ordering::Relaxed);
        self.written_changed.notify_all();
        drop(staging);
        self.observer.failed(failure);
    }
}

/// The right to commit what is staged on the calling thread, see [`Journal::lead`](crate::Journal::lead). Nobody else
/// commits while it lives; dropped, it leaves that to the commit thread.
#[must_use = "nobody else commits while it lives"]
pub struct Lead<'a> {
    shared: &'a Shared,
    committer: Option<Box<Committer>>,
    committed: bool,
}

impl Lead<'_> {
    /// Writes and syncs what is staged. What became of it the [`Observer`] is told, and [`Journal::synced`] says.
    pub fn commit(mut self) {
        if let Some(committer) = &mut self.committer {
            committer.guarded(|committer| {
                committer.take();
                committer.commit()?;
                Ok(Turn::Worked)
            });
            self.committed = true;
        }
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        let Some(mut committer) = self.committer.take() else { return };
        // A panic outside of the commit, of whoever is told of a failure, say.
        committer.ended |= std::thread::panicking();
        let mut staging = self.shared.staging.lock();
        staging.give_back(&mut committer.batch);
        if !self.committed {
            self.shared.hurry(&mut staging);
        }
        // It may have been asked for meanwhile, or there may be more to do than a commit.
        if staging.thread == ThreadState::AwaitsCommitter || committer.has_work(&staging) {
            self.shared.staged.notify_one();
        }
        staging.resting = Some(committer);
    }
}

/// What a turn of the commit thread leaves to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    Worked,
    /// There was nothing to do, or no room for it.
    Idle,
    Ended,
}

/// The state of whoever commits: the commit thread, or for one commit somebody else.
pub(crate) struct Committer {
    shared: Arc<Shared>,
    active: Arc<Segment>,
    /// Made ahead, so that going on to it costs nothing but the name.
    next: Option<Segment>,
    spares: Vec<PathBuf>,
    /// The disk had no room for another file. It is asked again after a pause, and when a file comes free.
    refused: bool,
    /// Why there is no segment for what is staged, which waits until the disk has room.
    held_up: Option<DiskError>,
    /// The observer was told that room is short.
    short: bool,
    /// Taken from staging, and reused.
    batch: Vec<StagedBlock>,
    /// Where the last written block ends.
    written: u64,
    /// Bytes of records that are written and not synced.
    unsynced_bytes: usize,
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
            refused: false,
            held_up: None,
            short: false,
            batch,
            written,
            unsynced_bytes: 0,
            release_before,
            ended: false,
        }
    }

    /// Commits until told to stop, or until the disk fails.
    pub(crate) fn run(self) {
        let mut committer = Box::new(self);
        loop {
            committer = committer.rest();
            if committer.turn() == Turn::Ended {
                return;
            }
        }
    }

    /// Commits what is staged, then does one piece of housekeeping, so that however much of it there is no commit waits
    /// for more than one.
    pub(crate) fn turn(&mut self) -> Turn {
        self.guarded(Self::try_turn)
    }

    /// As [`Committer::turn`], for those who do not rest: a disk that had no room is asked again.
    #[cfg(feature = "sim")]
    pub(crate) fn step(&mut self) -> Turn {
        self.refused = false;
        self.turn()
    }

    /// A failure and a panic are final.
    fn guarded(&mut self, act: impl FnOnce(&mut Self) -> Result<Turn, CommitError>) -> Turn {
        if self.ended {
            return Turn::Ended;
        }
        let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| act(self)));
        let turn = outcome.unwrap_or(Err(CommitError::Panicked)).unwrap_or_else(|failure| {
            self.shared.fail(&failure);
            Turn::Ended
        });
        self.ended = turn == Turn::Ended;
        turn
    }

    fn try_turn(&mut self) -> Result<Turn, CommitError> {
        let stop = self.take();
        if stop == Some(Stop::Abandon) {
            return Ok(Turn::Ended);
        }
        let worked = self.commit()?;
        if let Some(reason) = &self.held_up {
            // What is staged cannot be committed, so nothing may be released either. Whoever closes cannot wait for room.
            return if stop == Some(Stop::Close) { Err(reason.clone().into()) } else { Ok(Turn::Idle) };
        }
        if stop == Some(Stop::Close) {
            self.mark_clean_stop()?;
            return Ok(Turn::Ended);
        }
        let kept_house = self.keep_house()?;
        self.tell_room();
        Ok(if kept_house || worked { Turn::Worked } else { Turn::Idle })
    }

    /// Takes what is staged and asked for.
    fn take(&mut self) -> Option<Stop> {
        let shared = Arc::clone(&self.shared);
        let mut staging = shared.staging.lock();
        staging.give_back(&mut self.batch);
        self.release_before = shared.folder.layout.number(staging.release_before);
        self.held_up = None;
        staging.take(&mut self.batch);
        staging.stop
    }

    /// Waits until there is something to do. Meanwhile others may commit, see [`Lead`].
    fn rest(mut self: Box<Self>) -> Box<Self> {
        let shared = Arc::clone(&self.shared);
        let mut staging = shared.staging.lock();
        staging.give_back(&mut self.batch);
        let mut long_idle = false;
        loop {
            self.release_before = shared.folder.layout.number(staging.release_before);
            if self.has_work(&staging) {
                return self;
            }
            let refused = self.refused;
            let (start, had_records) = (staging.start(), staging.has_records());
            staging.resting = Some(self);
            let timed_out = if long_idle && !refused {
                staging.thread = ThreadState::Asleep;
                shared.staged.wait(&mut staging);
                false
            } else {
                let pause = if refused { RETRY_PAUSE } else { LOOK_EVERY };
                shared.staged.wait_for(&mut staging, pause).timed_out()
            };
            self = shared.wake(&mut staging);
            if refused && timed_out {
                (self.refused, self.held_up) = (false, None);
            }
            // What somebody else has committed meanwhile has not waited for long, nor has what came after it.
            let nothing_went = timed_out && staging.start() == start;
            staging.urgent |= nothing_went && had_records && !refused;
            long_idle = nothing_went && !staging.has_records();
        }
    }

    fn has_work(&self, staging: &Staging) -> bool {
        let work = (staging.has_records() && staging.urgent) || self.has_housework();
        self.ended || staging.stop.is_some() || (work && self.held_up.is_none())
    }

    /// Whether what is staged needs nothing but a write and a sync.
    fn is_for_active(&self, staging: &Staging) -> bool {
        let layout = self.shared.folder.layout;
        let fits = staging.starts().all(|start| layout.number(start) == self.active.number);
        !self.ended && self.held_up.is_none() && fits
    }

    /// Writes and syncs what was taken, as far as there are segments for it: the rest goes back to be taken again.
    fn commit(&mut self) -> Result<bool, DiskError> {
        let mut batch = std::mem::take(&mut self.batch);
        let mut written = 0;
        for block in &mut batch {
            if !self.write(block)? {
                break;
            }
            written += 1;
        }
        self.sync()?;
        let rest = batch.split_off(written);
        if !rest.is_empty() {
            self.shared.staging.lock().put_back(rest);
        }
        let worked = !batch.is_empty();
        self.batch = batch;
        Ok(worked)
    }

    /// `false` if it needs another segment, and the disk has no room for one.
    fn write(&mut self, block: &mut StagedBlock) -> Result<bool, DiskError> {
        let layout = self.shared.folder.layout;
        let number = layout.number(block.start);
        if number != self.active.number {
            // A segment is on disk as a whole before the next has its first block: that is how recovery knows where it
            // ends, and why only the last can be torn.
            self.sync()?;
            if !self.go_on_to(number)? {
                return Ok(false);
            }
        }
        block.seal(self.active.epoch, self.synced());
        let active = &self.active;
        crash_point("journal.commit.before_write");
        active.file.write_at(&block.bytes, layout.offset(block.start)).during("write", &active.path)?;
        crash_point("journal.commit.written");
        self.written = block.end();
        self.unsynced_bytes += block.record_bytes();
        self.shared.counters.bytes.fetch_add(block.bytes.len() as u64, Ordering::Relaxed);
        Ok(true)
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
        // Before anybody is told: who waits for room looks when it is told, and perhaps never again.
        self.shared.staged_bytes.fetch_sub(std::mem::take(&mut self.unsynced_bytes), Ordering::Relaxed);
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
        if !self.write(&mut StagedBlock::clean_stop(start))? {
            // Without the mark the next start takes a little longer, and no more.
            return Ok(());
        }
        crash_point("journal.clean_stop.written");
        self.active.file.sync_data().during("sync", &self.active.path)?;
        crash_point("journal.clean_stop.synced");
        Ok(())
    }

    fn go_on_to(&mut self, number: u64) -> Result<bool, DiskError> {
        let next = match self.next.take() {
            Some(next) => next,
            // Now it is needed, so that what the disk has free beyond its limit is there for it.
            None => match self.make(number) {
                Ok(next) => next,
                Err(error) if error.is_allocation() => {
                    (self.refused, self.held_up) = (true, Some(error));
                    self.tell_room();
                    return Ok(false);
                }
                Err(error) => return Err(error),
            },
        };
        crash_point("journal.commit.next_segment");
        self.active = Arc::new(next);
        self.shared.segments.write().insert(number, Arc::clone(&self.active));
        // One commit may take several segments: what is kept ready must not run out before the disk has been asked.
        if !self.refused && self.files_ready() + 1 < self.files_ready_min() {
            self.refused = self.add_spare()?.is_none();
            self.tell_room();
        }
        Ok(true)
    }

    fn has_housework(&self) -> bool {
        self.must_make() || self.to_release().is_some()
    }

    /// Does at most one thing, and returns whether it did.
    fn keep_house(&mut self) -> Result<bool, DiskError> {
        if let Some(number) = self.to_release() {
            self.release(number)?;
            return Ok(true);
        }
        if !self.must_make() {
            return Ok(false);
        }
        let made = if self.next.is_some() {
            self.add_spare()?
        } else if !self.spares.is_empty() || self.has_free_bytes()? {
            unless_full(self.make(self.active.number + 1))?.map(|next| self.next = Some(next))
        } else {
            None
        };
        if made.is_none() && !self.short {
            let dir = self.shared.folder.dir.display();
            tracing::warn!(%dir, "the disk has no room for the journal's next segments");
        }
        self.refused = made.is_none();
        Ok(made.is_some())
    }

    /// The next segment, and files for further ones: all that may be staged must have a place when the disk is full, and
    /// then the settles that make room again.
    fn files_ready_min(&self) -> usize {
        let Shared { staged_bytes_max, folder, .. } = &*self.shared;
        2 + staged_bytes_max / folder.layout.segment_bytes as usize
    }

    fn files_ready(&self) -> usize {
        self.spares.len() + usize::from(self.next.is_some())
    }

    fn must_make(&self) -> bool {
        !self.refused && (self.next.is_none() || self.files_ready() < self.files_ready_min())
    }

    /// Whether another file leaves as much of the disk free as it must.
    fn has_free_bytes(&self) -> Result<bool, DiskError> {
        let Shared { folder, free_bytes_min, .. } = &*self.shared;
        if *free_bytes_min == 0 {
            return Ok(true);
        }
        let free = folder.disk.free_bytes(&folder.dir).during("read the free space of", &folder.dir)?;
        Ok(free >= free_bytes_min.saturating_add(folder.layout.segment_bytes))
    }

    /// Says when the files that are to be ready are not, because the disk has no room, and when they are again.
    fn tell_room(&mut self) {
        let whole = self.next.is_some() && self.files_ready() >= self.files_ready_min();
        let short = !whole && (self.refused || self.short);
        if short != self.short {
            self.short = short;
            self.shared.observer.short_of_room(short);
        }
    }

    /// `None` if there is no room for one.
    fn add_spare(&mut self) -> Result<Option<()>, DiskError> {
        if self.has_free_bytes()? { unless_full(self.make_spare()) } else { Ok(None) }
    }

    fn make_spare(&mut self) -> Result<(), DiskError> {
        let path = self.unused_spare();
        self.shared.folder.create(&path)?;
        self.spares.push(path);
        Ok(())
    }

    /// A name that no spare file has: two for one file would be one file too few, and the second would not be found.
    fn unused_spare(&self) -> PathBuf {
        let mut number = 0;
        loop {
            let path = path::spare(&self.shared.folder.dir, number);
            if !self.spares.contains(&path) {
                return path;
            }
            number += 1;
        }
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
        let keep = (self.spares.len() < self.files_ready_min()).then(|| self.unused_spare());
        self.shared.folder.retire(number, keep.as_deref())?;
        self.spares.extend(keep);
        self.refused = false;
        Ok(())
    }
}

/// `None` if there was no room for another file.
fn unless_full<T>(made: Result<T, DiskError>) -> Result<Option<T>, DiskError> {
    match made {
        Err(error) if error.is_allocation() => Ok(None),
        made => made.map(Some),
    }
}
