//! Beside the broker: what is in a data directory on which no broker runs, and how to go on after damage.
//!
//! `leveret inspect` and `leveret salvage` are made of this. Looking changes nothing; see `docs/decisions/0010-damage.md`.

mod command;
mod report;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use leveret_journal::{OpenError, Position, RealDisk, Record, ReplayError, Survey};

pub use command::{Command, CommandError};

use crate::store::{Checkpoint, CheckpointError, Pins, QueueId, Recovered, RecoveredQueue, Replay};
use crate::topology::{self, Definition};

/// What is in a data directory.
#[derive(Debug)]
pub struct Inspection {
    /// Where it is.
    pub data_dir: PathBuf,
    /// The journal, with its damage.
    pub journal: Survey,
    /// Bytes in each of the journal's segments that some queue still needs, about: bodies, and [`AROUND_BODY_BYTES`] for
    /// each. By the segment's number.
    pub live_bytes: BTreeMap<u64, u64>,
    /// Definitions that are in force, vhosts included.
    pub definitions: usize,
    /// Durable queues, by vhost and name.
    pub queues: Vec<QueueFigures>,
    /// Messages that are there although no queue is known to have had them: what says so is lost.
    pub ownerless: usize,
    /// Why the checkpoint of definitions cannot be read, if it cannot.
    pub checkpoint_damage: Option<CheckpointError>,
}

/// A durable queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueFigures {
    /// Its vhost, or nothing if its definition is lost.
    pub vhost: String,
    /// Its name, or its number if its definition is lost.
    pub name: String,
    /// Its messages. Which of them consumers hold is not on disk.
    pub messages: usize,
    /// Their bodies, in bytes.
    pub bytes: u64,
    /// The places in the queue of messages that are lost, ascending.
    pub lost: Vec<u64>,
}

/// Why a data directory cannot be looked at.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InspectError {
    /// The directory has no journal.
    #[error("there is no data of a broker in {}: it has no folder journal", .0.display())]
    NoData(PathBuf),
    /// The journal cannot be read, or a broker runs on it.
    #[error(transparent)]
    Journal(#[from] OpenError),
    /// The system gave no randomness.
    #[error("the system gives no randomness: {0}")]
    Entropy(#[source] std::io::Error),
}

/// Looks at a data directory, and changes nothing. All checksums of the journal are checked; with `verify` also those of
/// the checkpoint.
pub fn inspect(data_dir: &Path, verify: bool) -> Result<Inspection, InspectError> {
    look(data_dir, verify, |journal, replay| {
        Ok(leveret_journal::survey(Arc::new(RealDisk), journal, replay)?)
    })
}

/// Gives up what is damaged in the journal, so that a broker starts, and says what that was. The damaged files are kept
/// beside the others. The checkpoint of definitions is not touched: if it is damaged, nothing is done.
pub fn salvage(data_dir: &Path) -> Result<Inspection, InspectError> {
    let looked = inspect(data_dir, true)?;
    if looked.journal.damage.is_empty() || looked.checkpoint_damage.is_some() {
        return Ok(looked);
    }
    let seed = crate::auth::seed().map_err(InspectError::Entropy)?;
    look(data_dir, true, |journal, replay| {
        Ok(leveret_journal::salvage(Arc::new(RealDisk), journal, seed, replay)?)
    })
}

type Replaying<'a> = dyn FnMut(Record<'_>) -> Result<(), ReplayError> + 'a;

fn look(
    data_dir: &Path,
    verify: bool,
    read: impl FnOnce(&Path, &mut Replaying<'_>) -> Result<Survey, InspectError>,
) -> Result<Inspection, InspectError> {
    let journal_dir = data_dir.join("journal");
    if !journal_dir.is_dir() {
        return Err(InspectError::NoData(data_dir.to_owned()));
    }
    // Nothing is released here, so that the pins may all be on one segment.
    let mut replay = Replay::new(Arc::new(Pins::new(u64::MAX)), 0);
    let journal = read(&journal_dir, &mut |record| replay.apply(&record).map_err(Into::into))?;
    let loaded = Checkpoint::inspect(&data_dir.join("definitions.redb"), verify);
    let (checkpoint, checkpoint_damage) = match loaded {
        Ok(checkpoint) => (checkpoint, None),
        Err(error) => (Checkpoint::default(), Some(error)),
    };
    let mut recovered = replay.finish(checkpoint.position, journal.recovery.clean);
    let records = checkpoint.definitions.iter().chain(&recovered.definitions);
    let definitions = topology::compact(records.filter_map(|record| Definition::decode(record).ok()));
    let damaged = checkpoint_damage.is_some() || !recovered.lost.is_nothing();
    let mut count = Count { segment_bytes: journal.segment_bytes, ..Count::default() };
    for definition in &definitions {
        if let Definition::Queue { vhost, queue, id, .. } = definition {
            count.queue(vhost.to_string(), queue.to_string(), QueueId(*id), &mut recovered);
        }
    }
    if damaged {
        // Those too that have messages and no definition: it may be lost.
        let unknown: Vec<_> = recovered.queues.keys().copied().collect();
        for id in unknown {
            count.queue(String::new(), format!("number {}", id.0), id, &mut recovered);
        }
        count.queues.retain(|queue| !queue.vhost.is_empty() || queue.messages > 0);
    }
    count.queues.sort_by(|a, b| (&a.vhost, &a.name).cmp(&(&b.vhost, &b.name)));
    Ok(Inspection {
        data_dir: data_dir.to_owned(),
        journal,
        live_bytes: count.live_bytes,
        definitions: definitions.len(),
        queues: count.queues,
        ownerless: recovered.lost.ownerless,
        checkpoint_damage,
    })
}

/// What messages take up in the journal beside their bodies, about, in bytes.
pub const AROUND_BODY_BYTES: u64 = 64;

/// Figures as they add up, queue by queue.
#[derive(Default)]
struct Count {
    segment_bytes: u64,
    queues: Vec<QueueFigures>,
    live_bytes: BTreeMap<u64, u64>,
    /// Messages that were counted already, in another queue.
    counted: HashSet<Position>,
}

impl Count {
    /// Counts a queue, and forgets what is in it.
    fn queue(&mut self, vhost: String, name: String, id: QueueId, recovered: &mut Recovered) {
        let lost = recovered.lost.messages.get(&id).into_iter().flatten().map(|seq| seq.0).collect();
        let mut figures = QueueFigures { vhost, name, messages: 0, bytes: 0, lost };
        for stub in recovered.queues.remove(&id).into_iter().flat_map(RecoveredQueue::into_stubs).flatten() {
            figures.messages += 1;
            figures.bytes += u64::from(stub.body_bytes);
            let position = stub.place.position();
            if self.counted.insert(position)
                && let Some(number) = position.0.checked_div(self.segment_bytes)
            {
                *self.live_bytes.entry(number).or_default() += u64::from(stub.body_bytes) + AROUND_BODY_BYTES;
            }
        }
        self.queues.push(figures);
    }
}
