//! The broker from topology to journal, on a simulated disk, without sockets and clocks: one life of it.

use std::path::PathBuf;
use std::sync::Arc;

use leveret_broker::queue::{ConnectionId, Delivery, Queue, Work};
use leveret_broker::store::{Checkpoint, Memory, Pins, Progress, ProgressReporter, Replay, Seq, Store};
use leveret_broker::topology::{Alarms, Definition, Readers, Topology, Vhost, VhostLimits, compact};
use leveret_journal::{Journal, OpenError, Options, Position, Recovery, SimDisk, Stepper};
use leveret_protocol::VhostName;

use crate::checkpoint;

/// Small, but large enough for the groups that the store makes.
const SEGMENT_BYTES: u64 = 512 << 10;
const MEMORY_BYTES: u64 = 20_000;
const JOURNAL: &str = "/data/journal";
pub(crate) const VHOSTS: [&str; 2] = ["/", "other"];
/// All that is done is done by one connection.
pub(crate) const CONNECTION: ConnectionId = ConnectionId(1);

/// Why the broker did not start.
#[derive(Debug)]
pub(crate) enum Failed {
    /// The disk failed, as it was told to.
    Disk,
    /// Anything else is a violation.
    Wrong(String),
}

pub(crate) struct Core {
    pub(crate) disk: SimDisk,
    pub(crate) store: Arc<Store>,
    pub(crate) topology: Topology,
    pub(crate) work: Work,
    pub(crate) recovery: Recovery,
    progress: Progress,
    stepper: Stepper,
    /// All before is known to be on disk.
    checked: u64,
    /// Where the definitions of the last checkpoint end.
    checkpointed: Position,
}

impl Core {
    /// Starts as the broker does.
    pub(crate) fn open(disk: &SimDisk, seed: u64, now_ms: u64) -> Result<Self, Failed> {
        let pins = Arc::new(Pins::new(SEGMENT_BYTES));
        let mut replay = Replay::new(Arc::clone(&pins), now_ms);
        let (reporter, progress) = ProgressReporter::new();
        let options = Options {
            segment_bytes: SEGMENT_BYTES,
            staged_bytes_max: 4 * SEGMENT_BYTES as usize,
            ..Options::new(JOURNAL, seed)
        };
        let opened = Journal::open_stepped(Arc::new(disk.clone()), options, reporter, &mut |record| {
            replay.apply(&record).map_err(Into::into)
        });
        let (journal, stepper, recovery) = opened.map_err(|error| match error {
            OpenError::Disk(_) => Failed::Disk,
            other => Failed::Wrong(format!("the journal: {other}")),
        })?;
        let Checkpoint { position, next_queue, definitions } =
            checkpoint::load(disk).map_err(|error| match error {
                redb::Error::Io(_) | redb::Error::PreviousIo => Failed::Disk,
                other => Failed::Wrong(format!("the checkpoint: {other}")),
            })?;
        let recovered = replay.finish(position, recovery.clean);
        // In every other life nearly all messages leave memory, and are read back.
        let memory = Memory::new(if seed.is_multiple_of(2) { u64::MAX } else { MEMORY_BYTES });
        let store = Store::new(journal, pins, memory, progress.clone());
        if !recovery.clean {
            store.note_interruption().map_err(|_| Failed::Disk)?;
        }
        let limits = VhostLimits { queues_max: 100, exchanges_max: 100, bindings_max: 100 };
        let (alarms, readers) = (Arc::new(Alarms::default()), Arc::new(Readers::default()));
        let topology = Topology::new(Arc::clone(&store), alarms, readers, limits);
        let mut work = Work::default();
        work.now_ms = now_ms;
        let records = definitions.iter().chain(&recovered.definitions);
        let definitions: Result<Vec<_>, _> = records.map(|record| Definition::decode(record)).collect();
        let definitions = definitions.map_err(|error| Failed::Wrong(format!("a definition: {error}")))?;
        topology.use_queue_ids_above(next_queue.saturating_sub(1));
        topology.restore(compact(definitions), &mut work);
        topology.restore_messages(recovered, &mut work);
        for vhost in VHOSTS {
            topology.ensure_vhost(&VhostName::new(vhost).unwrap()).map_err(|_| Failed::Disk)?;
        }
        let (disk, checked) = (disk.clone(), recovery.first.0);
        let checkpointed = Position::default();
        let mut core =
            Self { disk, store, topology, work, recovery, progress, stepper, checked, checkpointed };
        core.check_synced();
        Ok(core)
    }

    pub(crate) fn vhost(&self, number: usize) -> Arc<Vhost> {
        self.topology.vhost(VHOSTS[number]).unwrap()
    }

    pub(crate) fn queue(&self, vhost: usize, name: &str) -> Option<Arc<Queue>> {
        self.vhost(vhost).queue(name, CONNECTION).ok()
    }

    /// Why the journal has failed, if it has.
    pub(crate) fn failure(&self) -> Option<Arc<str>> {
        self.progress.health.borrow().failure.clone()
    }

    /// What a confirm may be sent for.
    pub(crate) fn synced(&self) -> Position {
        self.store.synced().position()
    }

    /// Lets the journal commit and do a piece of housekeeping; says whether there was anything to do.
    pub(crate) fn step(&mut self) -> bool {
        let failed = self.failure().is_some();
        let before = self.synced();
        let worked = self.stepper.step();
        assert!(!failed || self.synced() == before, "something is confirmed after the journal failed");
        self.check_synced();
        worked
    }

    /// W1: what may be confirmed now would survive a power cut now. Asked of the disk, not of the journal.
    fn check_synced(&mut self) {
        let synced = self.synced().0;
        while self.checked < synced {
            let number = self.checked / SEGMENT_BYTES;
            let end = synced.min((number + 1) * SEGMENT_BYTES);
            let path = PathBuf::from(format!("{JOURNAL}/{number:016x}.segment"));
            let bytes = (self.checked % SEGMENT_BYTES) as usize..(end - number * SEGMENT_BYTES) as usize;
            assert!(
                self.disk.is_durable(&path, bytes.clone()),
                "up to {synced:#x} may be confirmed, and {} would lose some of {bytes:?}",
                path.display()
            );
            self.checked = end;
        }
    }

    /// Commits all that is staged. `false` if the journal fails.
    pub(crate) fn commit(&mut self) -> bool {
        let end = self.store.end();
        while !self.store.synced().reaches(end) && self.failure().is_none() {
            self.step();
        }
        self.failure().is_none()
    }

    /// Gives the front of the journal back, as `reclaim` does.
    pub(crate) fn reclaim(&mut self) {
        if self.store.segments() <= 1 {
            return;
        }
        let needed_from = self.store.needed_from();
        if self.store.definitions_end() > self.checkpointed {
            match self.checkpoint() {
                Some(position) => self.checkpointed = position,
                None => return,
            }
        }
        self.topology.keep_horizons(needed_from, &mut self.work);
        self.store.release_before(needed_from);
    }

    /// Moves the messages of the journal's first segments, as `reclaim` does when few of it is needed.
    pub(crate) fn evacuate(&mut self, segments: u64) {
        let before = Position(self.store.needed_from().0 + segments * SEGMENT_BYTES);
        for queue in self.topology.queues() {
            let mut from = Some(Seq(0));
            while let Some(at) = from {
                from = queue.move_messages(before, at).next;
            }
        }
    }

    /// Whether a delivery reaches its client, who is sent it only when the journal has what it waits for.
    pub(crate) fn sends(&mut self, delivery: &Delivery) -> bool {
        let Some(after) = delivery.after else { return true };
        self.store.synced().reaches(after) || self.commit() && self.store.synced().reaches(after)
    }

    /// Saves the definitions, as `reclaim` does. `None` if it could not.
    pub(crate) fn checkpoint(&mut self) -> Option<Position> {
        let (definitions, next_queue, position) = self.topology.snapshot();
        if !self.commit() {
            return None;
        }
        let definitions = definitions.iter().map(Definition::encode).collect();
        let checkpoint = Checkpoint { position, next_queue, definitions };
        checkpoint::save(&self.disk, &checkpoint).ok().map(|()| position)
    }

    /// Stops in order. `false` if the disk failed meanwhile.
    pub(crate) fn close(mut self) -> bool {
        self.checkpoint();
        let Self { stepper, .. } = self;
        stepper.close().is_ok()
    }
}
