//! Gives the front of the journal back when nobody needs it any more: checkpoints the definitions in it, then lets
//! the segments go.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use leveret_journal::Position;
use leveret_journal::faults::crash_point;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::queue::Work;
use crate::store::{Checkpoint, CheckpointError, Store};
use crate::topology::{Definition, Topology};

/// A checkpoint that was not made.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// It could not be written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The work on the disk was interrupted.
    #[error("the checkpoint was interrupted: {0}")]
    Interrupted(#[from] tokio::task::JoinError),
    /// The journal failed; what it has not synced must not be in a checkpoint.
    #[error("there is no checkpoint of a journal that has failed")]
    JournalFailed,
}

/// How often it looks. Reclaiming a second later costs a second's segments; looking costs a lock.
const PAUSE: Duration = Duration::from_secs(1);

/// Reclaims until the broker stops, but finishes a checkpoint that it has begun: the last one is written into the same
/// file.
pub(crate) async fn run(
    topology: &Arc<Topology>,
    store: &Store,
    clock: Clock,
    path: &Path,
    stopping: &CancellationToken,
) {
    let mut checkpointed = Position::default();
    let mut released = Position::default();
    // The first look comes at once: a broker that is killed again and again within a second would else never reclaim,
    // and read a longer journal at each start.
    let mut looks = tokio::time::interval(PAUSE);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut work = Work::default();
    while stopping.run_until_cancelled(looks.tick()).await.is_some() {
        if store.memory.is_short() {
            work.now_ms = clock.now_ms();
            topology.unload(&mut work);
        }
        // The newest segment is being written, and stays.
        if store.segments() <= 1 {
            continue;
        }
        // Looked at before the checkpoint: what is released must not be newer than what the checkpoint has.
        let needed_from = store.needed_from();
        if store.definitions_end() > checkpointed {
            match checkpoint(topology, store, path).await {
                Ok(position) => checkpointed = position,
                Err(error) => {
                    tracing::warn!(%error, "the journal is not reclaimed, since its definitions cannot be saved");
                    continue;
                }
            }
        }
        // Before the release: what it is to outlive is what was staged until then.
        if needed_from > released {
            topology.keep_horizons(needed_from, &mut work);
            released = needed_from;
        }
        crash_point("reclaim.before_release");
        store.release_before(needed_from);
        crash_point("reclaim.released");
    }
}

/// Saves all definitions; gives the position up to which the journal's are in it.
pub(crate) async fn checkpoint(
    topology: &Arc<Topology>,
    store: &Store,
    path: &Path,
) -> Result<Position, SaveError> {
    let (definitions, next_queue, position) = topology.snapshot();
    if !store.wait_for(position).await {
        return Err(SaveError::JournalFailed);
    }
    crash_point("checkpoint.durable_up_to_it");
    let path = path.to_owned();
    let save = move || {
        let definitions = definitions.iter().map(Definition::encode).collect();
        Checkpoint { position, next_queue, definitions }.save(&path)
    };
    tokio::task::spawn_blocking(save).await??;
    Ok(position)
}
