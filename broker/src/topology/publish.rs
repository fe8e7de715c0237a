//! From routes to queues: a batch of messages, each to all of its queues.

use std::sync::Arc;

use leveret_journal::Position;
use leveret_journal::faults::crash_point;
use leveret_protocol::{ExchangeName, Outcome, ReplyCode, RoutingKey, Table};
use smallvec::SmallVec;

use super::Vhost;
use crate::exchange::{LOG_EXCHANGE, Publisher, Routable, Route};
use crate::queue::{Queue, Work};
use crate::store::{Head, Message, Names, QueueId, StoreError};

/// Where messages with one exchange and routing key go.
#[derive(Debug)]
pub struct Resolved {
    /// The exchange, as messages carry its name.
    pub exchange: ExchangeName,
    /// The key, as messages carry it.
    pub routing_key: RoutingKey,
    /// The queues, each once.
    pub queues: SmallVec<[Arc<Queue>; 2]>,
    /// How many of them are durable.
    pub(super) durable: u32,
}

/// A message with its way.
#[derive(Debug)]
pub struct Pending {
    /// The message.
    pub message: Message,
    /// Where it goes.
    pub resolved: Arc<Resolved>,
}

impl Pending {
    /// In how many queues it is to survive a restart.
    fn durable_queues(&self) -> u32 {
        if self.message.persistent { self.resolved.durable } else { 0 }
    }
}

impl Resolved {
    pub(super) fn new(
        exchange: ExchangeName,
        routing_key: RoutingKey,
        queues: SmallVec<[Arc<Queue>; 2]>,
    ) -> Self {
        let durable = queues.iter().filter(|queue| queue.settings.durable).count() as u32;
        Self { exchange, routing_key, queues, durable }
    }

    /// What messages carry of this.
    pub fn names(&self) -> Names {
        Names { exchange: self.exchange.clone(), routing_key: self.routing_key.clone() }
    }
}

/// How many dead letters that a dead-letter queue gives up in its turn are carried on in one go.
const ONWARD_LETTERS_MAX: usize = 64 * 1024;

impl Vhost {
    /// Puts a batch of messages into their queues, in order, and empties the batch. `outcomes` is filled with what
    /// became of each. Gives the position that must be synced before the publishers may be told, if anything of
    /// this was journaled.
    ///
    /// Messages are journaled before any queue takes them, so that no acknowledgement can be in the journal before
    /// its message. If the journal refuses, no queue gets anything.
    pub fn publish(
        self: &Arc<Self>,
        batch: &mut Vec<Pending>,
        outcomes: &mut Vec<Outcome>,
        scratch: &mut Vec<u8>,
        work: &mut Work,
    ) -> Result<Option<Position>, StoreError> {
        let journaled = batch.iter().any(|pending| pending.durable_queues() > 0);
        self.journal_messages(batch, scratch)?;
        outcomes.clear();
        outcomes.extend(batch.iter().map(|pending| match pending.resolved.queues.len() {
            0 => Outcome::Unroutable,
            queues => Outcome::Routed(queues.min(usize::from(u16::MAX)) as u16),
        }));
        crash_point("publish.before_enqueue");
        enqueue_all(batch, outcomes, work);
        batch.clear();
        crash_point("publish.enqueued");
        self.finish(work);
        Ok(journaled.then(|| self.shared.store.end()))
    }

    /// Writes the messages' records. What need not be safe gets one, too, when memory is scarce: only then can it leave
    /// memory.
    pub(super) fn journal_messages(
        &self,
        batch: &mut [Pending],
        scratch: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        let store = &self.shared.store;
        let scarce = store.memory.is_scarce();
        let to_write = batch.iter_mut().filter_map(|pending| {
            let queues = pending.durable_queues();
            let waits = scarce && !pending.resolved.queues.is_empty();
            (queues > 0 || waits).then_some((&mut pending.message, queues))
        });
        store.write_messages(to_write, scratch)
    }

    /// Publishes a line of the broker's own log, to those who asked for it. Nothing of it is stored.
    pub fn publish_log(self: &Arc<Self>, routing_key: &RoutingKey, line: &str, work: &mut Work) {
        let no_headers = Box::new(Table::new());
        let routable = Routable { key: routing_key.as_str(), further_keys: &[], headers: &no_headers };
        let resolved = self.resolve(Publisher::Broker, LOG_EXCHANGE, &routable, &mut Route::default());
        let Ok((resolved, _)) = resolved else { return };
        let head =
            Head { names: Arc::new(resolved.names()), published_at_ms: work.now_ms, ..Head::default() };
        let message = Message::new(head, line.as_bytes());
        for queue in &resolved.queues {
            queue.enqueue(std::iter::once(&message), None, work, |_, _| {});
        }
        self.finish(work);
    }

    /// Does what queues left to do: carries dead letters on, sets alarms, removes queues that decided to go.
    pub fn finish(self: &Arc<Self>, work: &mut Work) {
        // Dead letters that reach a full queue may push out others, and so on. It ends: a message that comes to a
        // queue a second time without a consumer's doing is dropped. But it may end late: among queues that all give
        // up what a fanout brings to all of them, one message would take every path there is.
        let mut onward = 0;
        let mut first_hand = work.aftermath.len();
        // A stack with the oldest on top: the newest first would reverse letters that a full queue passes on.
        work.aftermath.reverse();
        while let Some(aftermath) = work.aftermath.pop() {
            if work.aftermath.len() < first_hand {
                first_hand = work.aftermath.len();
            } else {
                onward += aftermath.dead.len();
            }
            if let Some(at_ms) = aftermath.alarm_ms {
                self.shared.alarms.set(at_ms, self, &aftermath.queue);
            }
            if aftermath.reads {
                self.shared.readers.ask(self, &aftermath.queue);
            }
            if let Some(reason) = aftermath.delete {
                self.remove_deleted(&aftermath.queue, reason);
            }
            if onward > ONWARD_LETTERS_MAX {
                self.drop_letters(&aftermath.queue, &aftermath.dead);
                continue;
            }
            let older = work.aftermath.len();
            for dead in aftermath.dead {
                self.dead_letter(&aftermath.queue, &dead, work);
            }
            work.aftermath.get_mut(older..).unwrap_or_default().reverse();
        }
    }
}

/// Locks each queue once for all of its messages.
fn enqueue_all(batch: &[Pending], outcomes: &mut [Outcome], work: &mut Work) {
    if let [Pending { resolved: first, .. }, rest @ ..] = batch
        && let [queue] = first.queues.as_slice()
        && rest.iter().all(|pending| Arc::ptr_eq(&pending.resolved, first))
    {
        enqueue(queue, batch.iter().map(|pending| &pending.message), |index| index, outcomes, work);
        work.only_queue = Some(Arc::clone(queue));
        return;
    }
    let places = batch.iter().enumerate();
    let places = places.flat_map(|(index, pending)| {
        pending.resolved.queues.iter().map(move |queue| (queue.id, index, queue))
    });
    let mut places: Vec<(QueueId, usize, &Arc<Queue>)> = places.collect();
    places.sort_unstable_by_key(|(queue, index, _)| (*queue, *index));
    for group in places.chunk_by(|(a, ..), (b, ..)| a == b) {
        let Some((_, _, queue)) = group.first() else { continue };
        let group_messages =
            group.iter().filter_map(|(_, index, _)| batch.get(*index)).map(|pending| &pending.message);
        let message_index = |index: usize| group.get(index).map_or(usize::MAX, |(_, message, _)| *message);
        enqueue(queue, group_messages, message_index, outcomes, work);
    }
    // With several queues nobody gives way: one slow consumer would hold up those of the others.
    work.only_queue = None;
}

fn enqueue<'a>(
    queue: &Arc<Queue>,
    messages: impl Iterator<Item = &'a Message>,
    message_index: impl Fn(usize) -> usize,
    outcomes: &mut [Outcome],
    work: &mut Work,
) {
    queue.enqueue(messages, None, work, |index, reason| {
        let Some(outcome) = outcomes.get_mut(message_index(index)) else { return };
        *outcome = match (reason, *outcome) {
            // One queue that refuses makes the whole publish refused, as in RabbitMQ; the others keep it.
            (Some(_), _) => Outcome::Refused(ReplyCode::ResourceError),
            // The queue was deleted between routing and now: as if it had never been bound.
            (None, Outcome::Routed(1)) => Outcome::Unroutable,
            (None, Outcome::Routed(queues)) => Outcome::Routed(queues - 1),
            (None, other) => other,
        };
    });
}
