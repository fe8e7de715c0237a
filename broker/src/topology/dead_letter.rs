//! Messages that a queue gave up, on their way to its dead-letter exchange (RabbitMQ's rules).

use std::cell::LazyCell;
use std::sync::Arc;

use leveret_journal::faults::{crash_point, mutant};
use leveret_protocol::{Death, DeathHistory, DeathReason, RoutingKey};

use super::{Resolved, Vhost};
use crate::exchange::{Publisher, Routable, Route};
use crate::queue::{Dead, DeadLetter, Queue, Work};
use crate::store::{Batch, Content, Message, Names, QueueId, Rare, Seq};

impl Vhost {
    /// Carries a message on. Whatever becomes of it, its place in the queue that gave it up is settled: in one
    /// journal record with its new place, so that a crash leaves it in exactly one of the two.
    pub(super) fn dead_letter(self: &Arc<Self>, from: &Arc<Queue>, dead: &Dead, work: &mut Work) {
        let origin = origin(from, dead);
        let Some(old) = self.read_dead(from, &dead.content) else { return };
        if mutant("dead_letter_in_two_steps") {
            self.settle_origin(origin);
        }
        crash_point("dead_letter.begun");
        let targets =
            from.settings.dead_letter.as_ref().and_then(|letter| self.letter(from, letter, dead, &old, work));
        if let Some((mut message, resolved)) = targets {
            let durable = resolved.queues.iter().filter(|queue| queue.settings.durable).count() as u32;
            let written = if message.persistent && durable > 0 {
                self.shared.store.write_messages([(&mut message, durable)], &mut Vec::new())
            } else {
                Ok(())
            };
            if let Err(error) = written {
                // It stays where it was, as far as the journal knows.
                tracing::error!(queue = %from.name, %error, "a dead letter was not journaled");
                return;
            }
            crash_point("dead_letter.written");
            if let Some((last, others)) = resolved.queues.split_last() {
                for queue in others {
                    queue.enqueue(std::iter::once(&message), None, work, |_, _| {});
                }
                last.enqueue(std::iter::once(&message), origin, work, |_, _| {});
                crash_point("dead_letter.moved");
                return;
            }
        }
        self.settle_origin(origin);
    }

    /// The message of a dead letter, which may be in the journal only.
    fn read_dead(&self, from: &Queue, content: &Content) -> Option<Message> {
        let place = match content {
            Content::Loaded(message) => return Some(message.clone()),
            Content::Stored(place) => place,
        };
        let mut found = None;
        self.shared.store.read_messages(std::slice::from_ref(place), &mut |_, message| {
            // It stays where it was, as far as the journal knows.
            found = message
                .inspect_err(
                    |error| tracing::error!(queue = %from.name, %error, "a dead letter cannot be read"),
                )
                .ok();
        });
        found
    }

    /// Lets dead letters go that are too many to be carried on.
    pub(super) fn drop_letters(&self, from: &Queue, dead: &[Dead]) {
        tracing::warn!(queue = %from.name, letters = dead.len(), "dead letters are dropped: one message made too many");
        for dead in dead {
            self.settle_origin(origin(from, dead));
        }
    }

    fn settle_origin(&self, origin: Option<(QueueId, Seq)>) {
        let Some((queue, seq)) = origin else { return };
        let mut batch = Batch::default();
        batch.gone(queue, &mut [seq]);
        if let Err(error) = self.shared.store.write(&mut batch) {
            tracing::error!(%error, "the end of a dead letter was not journaled");
        }
    }

    /// The message as it is published anew, and the queues that it goes to.
    fn letter(
        &self,
        from: &Queue,
        letter: &DeadLetter,
        dead: &Dead,
        old: &Message,
        work: &Work,
    ) -> Option<(Message, Resolved)> {
        let history = DeathHistory::record(old.deaths(), death(from, dead, old, work.now_ms));
        // Without a key of its own the letter goes by all of its message's keys, and keeps the visible ones.
        let (routing_key, cc) = match &letter.routing_key {
            Some(key) => (key, Vec::new()),
            None => (old.routing_key(), old.cc().to_vec()),
        };
        let further_keys: Vec<RoutingKey> = match &letter.routing_key {
            Some(_) => Vec::new(),
            None => old.cc().iter().chain(old.bcc()).cloned().collect(),
        };
        let headers = LazyCell::new(|| old.properties_format.headers(old.properties()).unwrap_or_default());
        let routable = Routable { key: routing_key.as_str(), further_keys: &further_keys, headers: &headers };
        let exchange = letter.exchange.as_str();
        let mut resolved = match self.resolve(Publisher::Broker, exchange, &routable, &mut Route::default()) {
            Ok((resolved, _)) => resolved,
            Err(error) => {
                tracing::debug!(queue = %from.name, %error, "a dead letter is dropped");
                return None;
            }
        };
        if dead.reason != DeathReason::Rejected {
            resolved.queues.retain(|queue| {
                let cycle = history.closes_automatic_cycle(queue.name.as_str());
                if cycle {
                    tracing::debug!(queue = %queue.name, "a dead letter that came round is dropped");
                }
                !cycle
            });
        }
        let names = Names { exchange: letter.exchange.clone(), routing_key: routing_key.clone() };
        let rare = Rare { cc, bcc: Vec::new(), deaths: Some(history) };
        let message = old.clone().with(|head| {
            head.names = Arc::new(names);
            head.rare = rare.unless_empty();
            // It would only expire again.
            head.ttl_ms = None;
            head.place = None;
        });
        Some((message, resolved))
    }
}

/// Where the journal has the message until it has its new place; nowhere, if it never had it.
fn origin(from: &Queue, dead: &Dead) -> Option<(QueueId, Seq)> {
    let seq = dead.seq.filter(|_| from.settings.durable && dead.content.place().is_some());
    seq.map(|seq| (from.id, seq))
}

fn death(from: &Queue, dead: &Dead, message: &Message, now_ms: u64) -> Death {
    let keys: Vec<RoutingKey> = std::iter::once(message.routing_key()).chain(message.cc()).cloned().collect();
    Death {
        queue: from.name.clone(),
        reason: dead.reason,
        count: 1,
        first_at_ms: now_ms,
        exchange: message.exchange().clone(),
        routing_keys: keys,
        original_ttl_ms: message.ttl_ms,
        note: dead.note.as_deref().map(str::to_owned),
    }
}
