//! Gives the front of the journal back when nobody needs it any more: checkpoints the definitions in it, then lets
//! the segments go.
//!
//! A few messages that nobody settles would keep everything behind them. So when the journal has become much longer than
//! what is in it, the messages at its front are moved to its end, see [`Evacuation`].

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use leveret_journal::Position;
use leveret_journal::faults::crash_point;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::queue::{Queue, Work};
use crate::store::{Checkpoint, CheckpointError, Seq, Shortage, Store};
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
    let mut evacuation = Evacuation::default();
    // The first look comes at once: a broker that is killed again and again within a second would else never reclaim,
    // and read a longer journal at each start.
    let mut looks = tokio::time::interval(PAUSE);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut work = Work::default();
    while stopping.run_until_cancelled(looks.tick()).await.is_some() {
        if store.memory.shortage(false) != Shortage::None {
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
        if let Some(before) = evacuation.look(topology, store) {
            if !move_messages(topology, store, before, stopping).await {
                return;
            }
            // What has just been moved can go at once.
            looks.reset_immediately();
        }
    }
}

/// The journal may have so many segments more than its messages need, twice over. Below it nothing is moved: what is at
/// the front is mostly settled by itself, and then goes for nothing.
const WINDOW_SEGMENTS: u64 = 4;
/// So many bytes are moved between two pauses, so that publishers have most of the disk.
const SLICE_BYTES: u64 = 4 * 1024 * 1024;
/// How long a pause is: with it at most 80 MiB are moved in a second.
const SLICE_PAUSE: Duration = Duration::from_millis(50);

/// Decides how much of the journal's front is to be moved.
///
/// It begins when the journal is longer than twice what its messages need and a window, and goes on until it is not
/// longer than one and a half times that and half of the window. So of what is moved at least a third is gained, and a
/// journal that has just become shorter is not touched for a while.
#[derive(Debug, Default)]
struct Evacuation {
    /// What was there when it began has not all been moved yet: it ends here. None while it rests.
    until: Option<u64>,
    /// It does not begin again before the journal has this length. What messages need is an estimate, and were it far too
    /// low, it would else move the same messages round and round.
    rests_below: u64,
}

impl Evacuation {
    /// Before which position the journal is to be cleared, if it is.
    fn look(&mut self, topology: &Topology, store: &Store) -> Option<Position> {
        let (start, length, segment) = (store.needed_from().0, store.needed_bytes(), store.segment_bytes());
        if length <= WINDOW_SEGMENTS * segment {
            (self.until, self.rests_below) = (None, 0);
            return None;
        }
        let needed = topology.queues().into_iter().map(|queue| queue.footprint());
        let (messages, bodies) =
            needed.fold((0, 0), |sum, (messages, bodies)| (sum.0 + messages, sum.1 + bodies));
        self.clear_before(start, length, store.bytes_of(messages, bodies), segment).map(Position)
    }

    /// As [`Self::look`]: of a journal that begins at `start` and has this length, with messages that need `live` bytes.
    fn clear_before(&mut self, start: u64, length: u64, live: u64, segment: u64) -> Option<u64> {
        let window = WINDOW_SEGMENTS * segment;
        let end = start + length - segment;
        if self.until.is_none() && length > live.saturating_mul(2) + window && length >= self.rests_below {
            self.until = Some(end);
        }
        let until = self.until?;
        let goal = live.saturating_add(live / 2) + window / 2;
        if length <= goal || start >= until {
            (self.until, self.rests_below) = (None, length + window);
            return None;
        }
        // What is moved adds to the end what it takes from the front, less what is gone.
        let too_long = (length - goal).next_multiple_of(segment);
        Some((start + too_long).min(until))
    }
}

/// Moves all messages whose records are before a position. `false`: the broker stops.
async fn move_messages(
    topology: &Arc<Topology>,
    store: &Store,
    before: Position,
    stopping: &CancellationToken,
) -> bool {
    let mut queues = topology.queues();
    let mut from = Seq(0);
    while !queues.is_empty() {
        let slice = tokio::task::spawn_blocking(move || {
            move_slice(&mut queues, &mut from, before);
            (queues, from)
        });
        let Ok(left) = slice.await else { return false };
        (queues, from) = left;
        let pause = async {
            tokio::time::sleep(SLICE_PAUSE).await;
            // Behind publishers, who wait for the same.
            store.wait_for_room().await
        };
        if stopping.run_until_cancelled(pause).await != Some(true) {
            return false;
        }
    }
    true
}

/// Moves messages of the last of the queues, and so on; those that have none left are taken off the list.
fn move_slice(queues: &mut Vec<Arc<Queue>>, from: &mut Seq, before: Position) {
    let mut bytes = 0;
    while bytes < SLICE_BYTES
        && let Some(queue) = queues.last()
    {
        let moved = queue.move_messages(before, *from);
        bytes += moved.bytes;
        *from = moved.next.unwrap_or_default();
        if moved.next.is_none() {
            queues.pop();
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: u64 = 100;

    fn look(evacuation: &mut Evacuation, start: u64, length: u64, live: u64) -> Option<u64> {
        evacuation.clear_before(start, length, live, SEGMENT)
    }

    #[test]
    fn it_begins_at_twice_what_is_needed_and_a_window_and_ends_well_below() {
        let mut evacuation = Evacuation::default();
        assert_eq!(look(&mut evacuation, 1000, 1000, 300), None, "as long as it may be");
        assert_eq!(look(&mut evacuation, 1000, 1100, 300), Some(1500), "450 and half a window may stay");
        assert_eq!(look(&mut evacuation, 1500, 700, 300), Some(1600));
        assert_eq!(look(&mut evacuation, 1600, 600, 300), None);
        assert_eq!(look(&mut evacuation, 1600, 1000, 300), None, "not at once again");
        assert_eq!(look(&mut evacuation, 1600, 1100, 300), Some(2100));
    }

    #[test]
    fn what_it_moved_it_does_not_move_again_before_more_has_been_written() {
        let mut evacuation = Evacuation::default();
        // The messages need far more than is thought.
        assert_eq!(look(&mut evacuation, 0, 2000, 0), Some(1800));
        assert_eq!(look(&mut evacuation, 1900, 2000, 0), None, "all that was there has been moved");
        assert_eq!(look(&mut evacuation, 1900, 2300, 0), None);
        assert_eq!(look(&mut evacuation, 1900, 2400, 0), Some(4100));
    }
}
