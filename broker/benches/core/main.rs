//! The broker between its sockets and its disk: publish, deliver, settle, by the real channels, queues and journal. What is
//! left out is the system: frames come from nowhere, and the disk forgets.
//!
//! ```sh
//! cargo bench -p leveret-broker --bench core                                  # every case, in ns a message
//! cargo bench -p leveret-broker --bench core -- persistent-acked 2000000 64   # one: messages, messages in a batch
//! broker/benches/core/instructions persistent-acked                           # instructions a message, function by function
//! ```
//!
//! There is one thread and no clock but for the measuring, so that two runs carry out the same instructions.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench, which ends with what fails")]
#![allow(clippy::disallowed_methods, clippy::cast_precision_loss, reason = "time is what it measures")]

mod world;

use std::time::Instant;

use leveret_broker::channel::{ConfirmRuns, Publication, Publisher, Ticket};
use leveret_protocol::PropertiesFormat;

use crate::world::{Consumed, World};

const MESSAGES: u64 = 1_000_000;
/// As large as the broker's own batches get.
const BATCH: u64 = 256;
const BODY: [u8; 256] = [7; 256];
const QUEUE: &str = "orders";
/// The broker does so once a second.
const RECLAIM_EVERY: u64 = 100_000;

/// What is measured.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    /// Persistent messages, confirmed, in a durable queue.
    persistent: bool,
    /// Whether the consumer settles.
    acked: bool,
}

const CASES: [Case; 4] = [
    Case { name: "transient-no-ack", persistent: false, acked: false },
    Case { name: "transient-acked", persistent: false, acked: true },
    Case { name: "persistent-no-ack", persistent: true, acked: false },
    Case { name: "persistent-acked", persistent: true, acked: true },
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let number = |at: usize, default| arguments.get(at).map_or(default, |text| text.parse().unwrap());
    let wanted = arguments.first().map_or("", String::as_str);
    let (messages, batch) = (number(1, MESSAGES), number(2, BATCH).clamp(1, BATCH));
    for case in CASES.iter().filter(|case| wanted.is_empty() || case.name == wanted) {
        let mut world = World::new(QUEUE, case.persistent);
        let consumed = world.consume(QUEUE, case.acked);
        let begun = Instant::now();
        run(*case, messages, batch, &mut world, &consumed);
        let nanoseconds = begun.elapsed().as_nanos() as f64 / messages as f64;
        let Case { name, .. } = case;
        println!("{name:20} {nanoseconds:8.1} ns a message ({messages} messages in batches of {batch})");
    }
}

/// Publishes and consumes so many messages.
fn run(case: Case, messages: u64, batch: u64, world: &mut World, consumed: &Consumed) {
    let mut publisher = Publisher::default();
    let mut confirms = ConfirmRuns::default();
    let (mut sent, mut confirmed, mut settled, mut reclaimed) = (0, 0, 0, 0);
    while sent < messages {
        for _ in 0..batch.min(messages - sent) {
            let number = case.persistent.then(|| world.channel.count_publish());
            let ticket = Ticket { channel: 1, number };
            let routed = publisher.add(&world.vhost, publication(case), ticket, world.work.now_ms).unwrap();
            assert!(routed);
            sent += 1;
        }
        let position = publisher.flush(&world.vhost, &mut world.work, &mut confirms).unwrap();
        assert_eq!(position.is_some(), case.persistent);
        world.commit();
        confirmed += confirms.drain().map(|(_, confirm)| u64::from(confirm.count)).sum::<u64>();
        let last = consumed.take();
        if case.acked && last > settled {
            world.settle(settled + 1, last);
            settled = last;
        }
        if sent - reclaimed >= RECLAIM_EVERY {
            world.reclaim();
            reclaimed = sent;
        }
        world.work.now_ms += 1;
    }
    assert_eq!(confirmed, if case.persistent { messages } else { 0 });
    assert_eq!(consumed.messages(), messages, "every message is delivered");
    assert_eq!(world.left(QUEUE), 0, "and every message is settled");
}

fn publication(case: Case) -> Publication<'static> {
    Publication {
        exchange: "",
        routing_key: QUEUE,
        cc: Vec::new(),
        bcc: Vec::new(),
        persistent: case.persistent,
        priority: 0,
        ttl_ms: None,
        properties_format: PropertiesFormat::default(),
        properties_bytes: 0,
        content: &BODY,
    }
}
