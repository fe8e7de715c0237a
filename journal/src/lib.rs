//! Leveret's journal: a write-ahead log with group commit. It knows records (a kind and bytes), never messages.
//!
//! ```text
//!  Journal::stage -> Group::append     any thread: records go into the block under construction, position known at once
//!        |
//!    commit thread, or Journal::lead   takes all that is staged, writes it, syncs once, publishes how far the disk is
//!        |
//!  Observer::committed                 "on disk up to here"
//! ```
//!
//! Promises, each with its tests (`tests/crash.rs`, `failure.rs`, `damage.rs`):
//!
//! - What [`Journal::synced`] covers is recovered, in order, however often the process is killed or the power cut.
//! - A group is recovered whole or not at all; nothing is recovered that was not staged.
//! - After a failed write or sync nothing more is ever called synced.
//! - Damage of what was synced is refused, not skipped, wherever a later block proves that it had been synced. (What the
//!   very last commit before an unclean stop wrote has no such proof: it is taken for torn, as it would be if the sync
//!   had not finished.)
//!
//! The on-disk format is in this crate's `README.md`.

mod block;
mod commit;
mod damage;
mod disk;
mod error;
pub mod faults;
mod path;
mod position;
mod read;
mod record;
mod recovery;
mod scan;
mod segment;
#[cfg(feature = "sim")]
mod sim;
mod stage;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex, RwLock};

use crate::commit::{Committer, Counters, Shared};
use crate::error::During as _;
use crate::segment::{Folder, Layout};
use crate::stage::{Staging, Stop};

pub use commit::Lead;
pub use damage::{Lost, SegmentFigures, Survey, salvage, survey};
pub use disk::{Disk, DiskFile, DiskLock, RealDisk};
pub use error::{CommitError, Damage, DiskError, OpenError, ReadError, ReplayError, StageError};
pub use position::{Position, Synced};
pub use record::{LOST, Record, group_bytes};
pub use recovery::Recovery;
pub use segment::{SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
#[cfg(feature = "sim")]
pub use sim::{Call, Loss, SimDisk, Sink, Stepper};
pub use stage::Group;

/// How a journal is kept.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where its files are. Made if need be; nobody else's files belong there.
    pub dir: PathBuf,
    /// The size of a segment in bytes: a power of two from 8 KiB to 1 GiB, for the life of the journal. A group must fit
    /// one segment. 64 MiB unless set.
    pub segment_bytes: u64,
    /// With this many bytes staged and not yet synced there is no room for more, see [`Journal::has_room`]. 32 MiB unless
    /// set.
    pub staged_bytes_max: usize,
    /// No file is made ahead that would leave less than this free on the file system, in bytes; 0 unless set. See
    /// [`Observer::short_of_room`].
    pub free_bytes_min: u64,
    /// Entropy, fresh for every opening. It salts the checksums, so that a client cannot make up a payload that counts
    /// as a record; it must not be guessable from outside.
    pub seed: u64,
}

impl Options {
    /// The usual sizes.
    pub fn new(dir: impl Into<PathBuf>, seed: u64) -> Self {
        Self { dir: dir.into(), segment_bytes: 64 << 20, staged_bytes_max: 32 << 20, free_bytes_min: 0, seed }
    }
}

/// Told by whoever commits, mostly the commit thread, what became of what was staged. It must not block, nor stage, nor
/// close the journal: nothing is committed meanwhile.
pub trait Observer: Send + Sync + 'static {
    /// The disk has everything up to `synced`. Called after every sync, in order.
    fn committed(&self, synced: Synced);
    /// The journal failed, and nothing more is ever committed. Called once, after the last `committed`.
    fn failed(&self, error: &CommitError);
    /// The disk has no room for the files that the journal keeps ready, and as yet goes on with; or it has it again. Those
    /// files, and what `free_bytes_min` keeps free, are for what makes room: settles, removals, copies of what is still
    /// needed. Producers are to wait. If they do not, and nothing is left, commits wait until the disk has room.
    fn short_of_room(&self, _short: bool) {}
}

/// Figures since the journal was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Syncs that made records durable.
    pub commits: u64,
    /// Bytes written, headers of blocks and records included.
    pub bytes: u64,
    /// Segments of the journal now, the one that is written included.
    pub segments: u64,
    /// Segments made of new files.
    pub segments_created: u64,
    /// Segments made of released files.
    pub segments_recycled: u64,
}

/// The journal. Dropping it without [`Journal::close`] is as if the process had been killed: what is staged may be lost.
pub struct Journal {
    shared: Arc<Shared>,
    /// The commit thread, until it is joined.
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Released last, after the thread ended.
    _lock: DiskLock,
}

impl Journal {
    /// Locks the directory, reads the journal and gives every record, in order, to `replay`; then it can be appended to.
    ///
    /// Records may be replayed that were never confirmed: a crash need not lose what was not synced. On an error, also of
    /// `replay`, the journal stays as it was.
    pub fn open(
        disk: Arc<dyn Disk>,
        options: Options,
        observer: Arc<dyn Observer>,
        replay: &mut dyn FnMut(Record<'_>) -> Result<(), ReplayError>,
    ) -> Result<(Arc<Self>, Recovery), OpenError> {
        let (journal, committer, recovery) = Self::prepare(disk, options, observer, replay)?;
        let thread = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || committer.run())
            .during("start the commit thread of", &journal.shared.folder.dir)?;
        *journal.thread.lock() = Some(thread);
        Ok((Arc::new(journal), recovery))
    }

    /// As [`Journal::open`], but without a commit thread: the [`Stepper`] commits. [`Journal::close`] has no effect then.
    #[cfg(feature = "sim")]
    pub fn open_stepped(
        disk: Arc<dyn Disk>,
        options: Options,
        observer: Arc<dyn Observer>,
        replay: &mut dyn FnMut(Record<'_>) -> Result<(), ReplayError>,
    ) -> Result<(Arc<Self>, Stepper, Recovery), OpenError> {
        let (journal, committer, recovery) = Self::prepare(disk, options, observer, replay)?;
        let journal = Arc::new(journal);
        let stepper = Stepper::new(Arc::clone(&journal), committer);
        Ok((journal, stepper, recovery))
    }

    /// Begins a group of records: all of them are recovered, or none. `bytes` is [`group_bytes`] of it or more.
    ///
    /// Waits only for other stagers, never for the disk. It stages also when there is no room: what must not wait
    /// (settles, which make room) need not, and who can wait asks [`Journal::has_room`] before.
    pub fn stage(&self, bytes: usize) -> Result<Group<'_>, StageError> {
        Group::begin(&self.shared, bytes)
    }

    /// How long a group that [may wait](Group::may_wait) does at most.
    pub const LAZY_MAX: Duration = Duration::from_millis(10);

    /// Somebody waits for what is staged, whatever it is.
    pub fn hurry(&self) {
        self.shared.hurry(&mut self.shared.staging.lock());
    }

    /// As [`Journal::hurry`]. But if the commit thread has nothing to do, no more than `bytes_max` is staged, and nothing
    /// that somebody waits for was staged during the commit before, the caller may commit it himself: then he waits for the
    /// disk, but for no other thread. Waking two of them takes about as long as a fast disk's sync.
    pub fn lead(&self, bytes_max: usize) -> Option<Lead<'_>> {
        self.shared.lead(bytes_max)
    }

    /// How many bytes a group has at most, as counted by [`group_bytes`]: what fits a segment.
    pub fn group_bytes_max(&self) -> usize {
        self.shared.folder.layout.body_bytes_max()
    }

    /// How far the disk is.
    pub fn synced(&self) -> Synced {
        Synced::up_to(self.shared.synced.load(Ordering::Acquire))
    }

    /// Above every record that was staged, and not above any to come. What was staged before this call is durable
    /// once [`Synced::reaches`] it. A journal that has failed has an end that is never reached.
    pub fn end(&self) -> Position {
        Position(self.shared.end.load(Ordering::Acquire))
    }

    /// Whether less is staged than `staged_bytes_max`. If not, producers wait until the next `committed`: this is what
    /// bounds the memory when the disk is slower than they are.
    pub fn has_room(&self) -> bool {
        self.staged_bytes() < self.shared.staged_bytes_max
    }

    /// Bytes of records that are staged and not yet synced.
    pub fn staged_bytes(&self) -> usize {
        self.shared.staged_bytes.load(Ordering::Relaxed)
    }

    /// Reads the record at a position that `append` or `replay` gave.
    ///
    /// A record that is not yet written comes from memory; one that is being written is waited for. One from a file is
    /// returned only if its checksum is right.
    pub fn read(&self, position: Position) -> Result<(u8, Bytes), ReadError> {
        read::read(&self.shared, position)
    }

    /// Reads the records at many positions, as [`Journal::read`] does, and tells what each is in their order. Much cheaper
    /// than one by one if they lie near each other in rising order.
    pub fn read_each(
        &self,
        positions: &[Position],
        mut told: impl FnMut(usize, Result<(u8, &[u8]), ReadError>),
    ) {
        read::read_each(&self.shared, positions, &mut told);
    }

    /// Lets go of all whole segments before `position`: the caller needs no record there, now or when the journal is next
    /// opened. The commit thread reuses or removes their files, once everything staged before this call is synced (so
    /// records that were copied forward are safe before their originals go). The segment being written always stays.
    pub fn release_before(&self, position: Position) {
        let mut staging = self.shared.staging.lock();
        staging.release_before = staging.release_before.max(position.0);
        self.shared.staged.notify_one();
    }

    /// Commits what is staged, notes on disk that nothing is missing, and ends the commit thread. What is staged from now
    /// on is refused. The directory stays locked until the journal is dropped.
    pub fn close(&self) -> Result<(), CommitError> {
        self.shared.stop(Stop::Close);
        self.join();
        self.outcome()
    }

    /// Figures since the journal was opened.
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    fn prepare(
        disk: Arc<dyn Disk>,
        options: Options,
        observer: Arc<dyn Observer>,
        replay: &mut dyn FnMut(Record<'_>) -> Result<(), ReplayError>,
    ) -> Result<(Self, Committer, Recovery), OpenError> {
        let Options { dir, segment_bytes, staged_bytes_max, free_bytes_min, seed } = options;
        if !segment_bytes.is_power_of_two()
            || !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&segment_bytes)
        {
            let (min, max) = (SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
            return Err(OpenError::SegmentBytes { found: segment_bytes, min, max });
        }
        disk.create_dir(&dir).during("create", &dir)?;
        let lock_path = path::lock(&dir);
        let lock = disk.lock(&lock_path).during("lock", &lock_path)?;
        let lock = lock.ok_or_else(|| OpenError::Locked { dir: dir.clone() })?;

        let layout = Layout { segment_bytes };
        let folder = Folder { disk, dir, layout, seed };
        let recovered = recovery::recover(&folder, replay)?;
        let report = recovered.report;
        tracing::info!(dir = %folder.dir.display(), ?report, "opened the journal");

        let active = Arc::new(recovered.active);
        let sealed = recovered.sealed.into_iter().map(Arc::new);
        let segments = sealed.chain([Arc::clone(&active)]).map(|segment| (segment.number, segment)).collect();
        let staging = Staging::new(layout, report.end.0);
        let shared = Arc::new(Shared {
            folder,
            observer,
            staged_bytes_max,
            free_bytes_min,
            end: AtomicU64::new(report.end.0),
            staging: Mutex::new(staging),
            staged: Condvar::new(),
            written_changed: Condvar::new(),
            segments: RwLock::new(segments),
            staged_bytes: AtomicUsize::new(0),
            written: AtomicU64::new(report.end.0),
            synced: AtomicU64::new(report.end.0),
            counters: Counters::default(),
        });
        let committer = Committer::new(Arc::clone(&shared), active, recovered.spares);
        Ok((Self { shared, thread: Mutex::new(None), _lock: lock }, committer, report))
    }

    /// Waits for the commit thread to end. Held while waiting, the lock makes a second caller wait too.
    fn join(&self) {
        let mut thread = self.thread.lock();
        // The observer may hold the last handle for a moment, so that the journal is dropped on the commit thread itself.
        let other = thread.take().filter(|thread| thread.thread().id() != std::thread::current().id());
        if let Some(thread) = other {
            // A panic of the thread is reported as the journal's failure, not as its own.
            let _ = thread.join();
        }
    }

    fn outcome(&self) -> Result<(), CommitError> {
        self.shared.staging.lock().failure.clone().map_or(Ok(()), Err)
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.shared.stop(Stop::Abandon);
        self.join();
    }
}
