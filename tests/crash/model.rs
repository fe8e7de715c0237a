//! The topology of the test, with what the broker must make of it: a table that shares no code with the router.

use std::ops::Range;
use std::time::Duration;

use leveret_client::{Binding, Client, DeclareError, Exchange, Overflow, Queue};

/// The queues; elsewhere a queue is its index here.
pub(crate) const QUEUES: [&str; 13] = [
    "topic.all",
    "topic.paid",
    "topic.eu",
    "fan.one",
    "fan.two",
    "work",
    "dead.one",
    "dead.two",
    "bin",
    "single",
    "brief",
    "late",
    "small",
];

/// The first queue of the chain of dead letters. What is rejected here goes on to the next one.
pub(crate) const WORK: u8 = 5;
/// Purged and deleted by its only client, which publishes to it, too.
pub(crate) const BIN: u8 = 8;
/// One consumer at a time gets all of it.
pub(crate) const SINGLE: u8 = 9;
/// Messages wait here for [`TTL`] at most, and go on to the next queue then.
pub(crate) const BRIEF: u8 = 10;
/// Takes [`SMALL_MAX`] messages, and refuses more.
pub(crate) const SMALL: u8 = 12;

/// How long a message may wait in [`BRIEF`].
pub(crate) const TTL: Duration = Duration::from_millis(300);
const SMALL_MAX: u64 = 10;

/// What a message can be published to, and the queues that must get it.
pub(crate) struct Route {
    pub(crate) exchange: &'static str,
    pub(crate) key: &'static str,
    pub(crate) queues: &'static [u8],
}

pub(crate) const ROUTES: [Route; 10] = [
    Route { exchange: "crash.topic", key: "eu.paid", queues: &[0, 1, 2] },
    Route { exchange: "crash.topic", key: "us.paid", queues: &[0, 1] },
    Route { exchange: "crash.topic", key: "eu.open", queues: &[0, 2] },
    Route { exchange: "crash.topic", key: "us.open", queues: &[0] },
    Route { exchange: "crash.fan", key: "", queues: &[3, 4] },
    Route { exchange: "", key: "work", queues: &[WORK] },
    Route { exchange: "", key: "bin", queues: &[BIN] },
    Route { exchange: "", key: "single", queues: &[SINGLE] },
    Route { exchange: "", key: "brief", queues: &[BRIEF] },
    Route { exchange: "", key: "small", queues: &[SMALL] },
];

/// Where the dead letters of a queue go.
pub(crate) fn dead_letter(queue: u8) -> Option<u8> {
    matches!(queue, WORK | 6 | BRIEF).then(|| queue + 1)
}

/// The queues that a message from this one can still go on to, if the queue is part of a chain of dead letters.
pub(crate) fn chain_behind(queue: u8) -> Option<Range<usize>> {
    match queue {
        WORK..=7 => Some(usize::from(queue) + 1..8),
        BRIEF | 11 => Some(usize::from(queue) + 1..12),
        _ => None,
    }
}

/// What a queue is declared as.
pub(crate) fn definition(queue: u8) -> Queue {
    let definition = Queue::durable(QUEUES[usize::from(queue)]);
    let definition = match dead_letter(queue) {
        Some(to) => definition.dead_letter_to("crash.dead").dead_letter_key(QUEUES[usize::from(to)]),
        None => definition,
    };
    match queue {
        SINGLE => definition.single_active(),
        BRIEF => definition.message_ttl(TTL),
        SMALL => definition.length_max(SMALL_MAX).overflow(Overflow::RejectPublish),
        _ => definition,
    }
}

/// Declares everything, by a client that does not stay: what is there later has survived by itself.
pub(crate) async fn declare(client: &Client) -> Result<(), DeclareError> {
    client.declare(Exchange::topic("crash.topic").durable()).await?;
    client.declare(Exchange::fanout("crash.fan").durable()).await?;
    client.declare(Exchange::direct("crash.dead").durable()).await?;
    for queue in (0..QUEUES.len() as u8).filter(|queue| *queue != BIN) {
        client.declare(definition(queue)).await?;
    }
    for (queue, exchange, key) in [
        ("topic.all", "crash.topic", "#"),
        ("topic.paid", "crash.topic", "*.paid"),
        ("topic.eu", "crash.topic", "eu.#"),
        ("fan.one", "crash.fan", ""),
        ("fan.two", "crash.fan", ""),
        ("dead.one", "crash.dead", "dead.one"),
        ("dead.two", "crash.dead", "dead.two"),
        ("late", "crash.dead", "late"),
    ] {
        client.bind(Binding::queue(queue).to(exchange).key(key)).await?;
    }
    Ok(())
}
