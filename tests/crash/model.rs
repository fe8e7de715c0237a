//! The topology of the test, with what the broker must make of it: a table that shares no code with the router.

use leveret_client::{Binding, Client, DeclareError, Exchange, Queue};

/// The queues; elsewhere a queue is its index here.
pub(crate) const QUEUES: [&str; 8] =
    ["topic.all", "topic.paid", "topic.eu", "fan.one", "fan.two", "work", "dead.one", "dead.two"];

/// The first queue of the chain of dead letters. What is rejected here goes on to the next one.
pub(crate) const CHAIN_FIRST: u8 = 5;

/// What a message can be published to, and the queues that must get it.
pub(crate) struct Route {
    pub(crate) exchange: &'static str,
    pub(crate) key: &'static str,
    pub(crate) queues: &'static [u8],
}

pub(crate) const ROUTES: [Route; 6] = [
    Route { exchange: "crash.topic", key: "eu.paid", queues: &[0, 1, 2] },
    Route { exchange: "crash.topic", key: "us.paid", queues: &[0, 1] },
    Route { exchange: "crash.topic", key: "eu.open", queues: &[0, 2] },
    Route { exchange: "crash.topic", key: "us.open", queues: &[0] },
    Route { exchange: "crash.fan", key: "", queues: &[3, 4] },
    Route { exchange: "", key: "work", queues: &[CHAIN_FIRST] },
];

/// Where the dead letters of a queue go.
pub(crate) fn dead_letter(queue: u8) -> Option<u8> {
    (queue >= CHAIN_FIRST && usize::from(queue) + 1 < QUEUES.len()).then(|| queue + 1)
}

/// The place of a queue in the chain of dead letters.
pub(crate) fn chain_place(queue: u8) -> Option<u8> {
    queue.checked_sub(CHAIN_FIRST)
}

/// Declares everything, by a client that does not stay: what is there later has survived by itself.
pub(crate) async fn declare(client: &Client) -> Result<(), DeclareError> {
    client.declare(Exchange::topic("crash.topic").durable()).await?;
    client.declare(Exchange::fanout("crash.fan").durable()).await?;
    client.declare(Exchange::direct("crash.dead").durable()).await?;
    for (queue, name) in (0..).zip(QUEUES) {
        let definition = Queue::durable(name);
        client
            .declare(match dead_letter(queue) {
                Some(to) => definition.dead_letter_to("crash.dead").dead_letter_key(QUEUES[usize::from(to)]),
                None => definition,
            })
            .await?;
    }
    for (queue, exchange, key) in [
        ("topic.all", "crash.topic", "#"),
        ("topic.paid", "crash.topic", "*.paid"),
        ("topic.eu", "crash.topic", "eu.#"),
        ("fan.one", "crash.fan", ""),
        ("fan.two", "crash.fan", ""),
        ("dead.one", "crash.dead", "dead.one"),
        ("dead.two", "crash.dead", "dead.two"),
    ] {
        client.bind(Binding::queue(queue).to(exchange).key(key)).await?;
    }
    Ok(())
}
