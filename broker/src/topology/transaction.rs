//! A transaction: publishes and settles that all happen, or none of them; also if the broker ends in between.
//!
//! Bodies are written before, in groups of their own: without a queue's record a replay forgets them. Then all queues
//! of the transaction are locked, so that the one group that tells of all of it has its place in every queue's order.

use std::ops::Range;
use std::sync::Arc;

use leveret_journal::Position;
use leveret_protocol::{QueueName, ReplyCode, VhostName};

use super::{Pending, Resolved, Vhost};
use crate::queue::{HolderId, Locked, Queue, Work};
use crate::store::{Message, QueueId, StoreError};

/// A holder of whose deliveries some are set aside, to be settled with the transaction.
#[derive(Debug)]
pub struct Settling {
    /// Its number on its channel.
    pub number: u32,
    /// The queue.
    pub queue: Arc<Queue>,
    /// The holder.
    pub holder: HolderId,
    /// How many deliveries it still holds after the commit; none, if the queue is gone.
    pub left: usize,
}

/// What became of a transaction.
#[derive(Debug)]
pub struct Committed {
    /// What must be synced before anybody is told.
    pub position: Position,
    /// The messages in the order in which they were published, each with the number of queues that have it.
    pub messages: Vec<(Message, usize)>,
}

/// Why a transaction was not carried out. Nothing of it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// A queue would refuse some of its messages.
    #[error(
        "the transaction is not committed, and nothing of it was applied: queue '{queue}' in vhost '{vhost}' is full"
    )]
    QueueFull {
        /// The queue.
        queue: QueueName,
        /// Its vhost.
        vhost: VhostName,
    },
    /// Its records do not fit into one group of the journal, which is what makes them happen together.
    #[error(
        "the transaction is not committed, and nothing of it was applied: its records take up to {bytes} bytes, and \
         the journal takes {max} at once"
    )]
    TooLarge {
        /// An upper bound of what the records take.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The journal takes nothing any more.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl CommitError {
    /// The error's class, by AMQP's numbers.
    pub fn code(&self) -> ReplyCode {
        match self {
            Self::QueueFull { .. } | Self::TooLarge { .. } => ReplyCode::PreconditionFailed,
            Self::Store(_) => ReplyCode::InternalError,
        }
    }
}

/// A message and where it goes.
type Routed = (Message, Arc<Resolved>);
/// A message that goes to a queue, by its index in the transaction.
type Place<'a> = (QueueId, usize, &'a Message);

/// Upper bounds of what things take in a group, in bytes: a message in one queue, which is a varint; an enqueue record,
/// of which there is one for each run of persistent messages; a settled delivery; the two records of one holder.
const PLACE_BYTES: usize = 10;
const RUN_BYTES: usize = 56;
const SETTLED_BYTES: usize = 24;
const HOLDER_BYTES: usize = 64;

impl Vhost {
    /// Carries out a transaction: the messages go into their queues, in order, then the deliveries that are set aside
    /// are settled. Empties `publishes`. Nobody sees a part of it: not other connections, and after a crash not even
    /// these queues.
    ///
    /// A queue that would refuse one message makes the whole transaction fail. It is asked before anything is applied,
    /// so it does not count on consumers that could take some of the messages at once: a transaction that brings a
    /// queue more than its length limit is refused. A message whose TTL begins, begins it now.
    ///
    /// What is rejected and has a dead-letter exchange leaves its queue right behind the transaction, in one group with
    /// its new place: after a crash between the two it is in its queue as if it had not been rejected.
    pub fn commit(
        self: &Arc<Self>,
        publishes: &mut Vec<Pending>,
        settles: &mut [Settling],
        work: &mut Work,
    ) -> Result<Committed, CommitError> {
        settles.sort_unstable_by_key(|settling| settling.queue.id);
        let places = publishes.iter().map(|pending| pending.resolved.queues.len()).sum::<usize>();
        // Before anything is written: what is written has to be declined again, and that must fit, too.
        self.check_size(places.saturating_mul(PLACE_BYTES))?;
        let messages = self.write_bodies(publishes, work.now_ms)?;
        let queues = queues_in_order(&messages, settles);
        let mut locked: Vec<Locked<'_>> = queues.iter().map(|queue| queue.lock()).collect();
        for queue in &mut locked {
            queue.settle_down(work);
        }
        let mut places: Vec<Place<'_>> = messages
            .iter()
            .enumerate()
            .flat_map(|(index, (message, to))| to.queues.iter().map(move |queue| (queue.id, index, message)))
            .collect();
        places.sort_unstable_by_key(|(queue, index, _)| (*queue, *index));
        if let Err(error) = self.check(&locked, &places, settles) {
            drop(locked);
            decline(&messages, work);
            work.write(&self.shared.store)?;
            self.finish(work);
            return Err(error);
        }
        let mut taken: Vec<usize> = messages.iter().map(|(_, to)| to.queues.len()).collect();
        for queue in &mut locked {
            apply(queue, &places, &mut taken, settles, work);
        }
        let written = work.write(&self.shared.store);
        for queue in locked {
            queue.finish(work);
        }
        self.finish(work);
        written?;
        let messages = messages.into_iter().map(|(message, _)| message).zip(taken).collect();
        Ok(Committed { position: self.shared.store.end(), messages })
    }

    fn write_bodies(&self, publishes: &mut Vec<Pending>, now_ms: u64) -> Result<Vec<Routed>, StoreError> {
        for pending in publishes.iter_mut() {
            pending.message.change(|head| head.published_at_ms = now_ms);
        }
        self.journal_messages(publishes, &mut Vec::new())?;
        Ok(publishes.drain(..).map(|pending| (pending.message, pending.resolved)).collect())
    }

    /// Whether all of it can be done.
    fn check(
        &self,
        locked: &[Locked<'_>],
        places: &[Place<'_>],
        settles: &[Settling],
    ) -> Result<(), CommitError> {
        let mut bytes = places.len().saturating_mul(PLACE_BYTES);
        for queue in locked {
            let of_queue = places_of(places, queue.queue.id);
            let transient = of_queue.iter().filter(|(.., message)| !message.persistent).count();
            bytes = bytes.saturating_add(RUN_BYTES.saturating_mul(transient + 1));
            let body_bytes = of_queue.iter().map(|(.., message)| message.body().len() as u64).sum();
            if !of_queue.is_empty() && !queue.has_room_for(of_queue.len() as u64, body_bytes) {
                let (queue, vhost) = (queue.queue.name.clone(), self.name.clone());
                return Err(CommitError::QueueFull { queue, vhost });
            }
            for settling in settles.get(range_of(settles, queue.queue.id)).unwrap_or_default() {
                let settled = queue.set_aside_of(settling.holder).saturating_mul(SETTLED_BYTES);
                bytes = bytes.saturating_add(settled).saturating_add(HOLDER_BYTES);
            }
        }
        self.check_size(bytes)
    }

    fn check_size(&self, bytes: usize) -> Result<(), CommitError> {
        let max = self.shared.store.group_bytes_max();
        if bytes > max { Err(CommitError::TooLarge { bytes, max }) } else { Ok(()) }
    }
}

/// Every queue that a transaction touches, once, in the order in which they have to be locked.
fn queues_in_order(messages: &[Routed], settles: &[Settling]) -> Vec<Arc<Queue>> {
    let published = messages.iter().flat_map(|(_, to)| &to.queues);
    let mut queues: Vec<Arc<Queue>> =
        published.chain(settles.iter().map(|settling| &settling.queue)).cloned().collect();
    queues.sort_unstable_by_key(|queue| queue.id);
    queues.dedup_by_key(|queue| queue.id);
    queues
}

fn places_of<'a, 'b>(places: &'b [Place<'a>], queue: QueueId) -> &'b [Place<'a>] {
    let first = places.partition_point(|(other, ..)| *other < queue);
    let end = places.partition_point(|(other, ..)| *other <= queue);
    places.get(first..end).unwrap_or_default()
}

fn range_of(settles: &[Settling], queue: QueueId) -> Range<usize> {
    let first = settles.partition_point(|settling| settling.queue.id < queue);
    first..settles.partition_point(|settling| settling.queue.id <= queue)
}

/// Does the part of one queue.
fn apply(
    locked: &mut Locked<'_>,
    places: &[Place<'_>],
    taken: &mut [usize],
    settles: &mut [Settling],
    work: &mut Work,
) {
    let places = places_of(places, locked.queue.id);
    // One that is gone by now is as if it had never been bound; no other refuses anything, since it was asked before.
    locked.enqueue(places.iter().map(|(.., message)| *message), work, |index, _| {
        if let Some(queues) = places.get(index).and_then(|(_, message, _)| taken.get_mut(*message)) {
            *queues -= 1;
        }
    });
    let settles_of_queue = range_of(settles, locked.queue.id);
    for settling in settles.get_mut(settles_of_queue).unwrap_or_default() {
        // A queue that is gone has taken its deliveries along.
        settling.left = locked.settle(settling.holder, work).unwrap_or(0);
    }
}

/// Notes that no queue took the messages, for each that would have.
fn decline(messages: &[Routed], work: &mut Work) {
    let positions: Vec<Position> = messages
        .iter()
        .filter(|(message, _)| message.persistent)
        .filter_map(|(message, to)| Some((message.place.as_ref()?.position(), to.durable)))
        .flat_map(|(position, queues)| std::iter::repeat_n(position, queues as usize))
        .collect();
    work.decline(&positions);
}
