//! Clients that take too long harm nobody but themselves.

use std::collections::HashSet;

use leveret_protocol::{Outcome, Verb};
use leveret_tests::{Peer, broker_with, config, post, table};

/// Far more than sockets and the outbox of one connection hold.
const MESSAGES: usize = 1_200;
const BODY_BYTES: usize = 64 * 1024;

#[tokio::test]
async fn a_consumer_that_stops_reading_stops_nobody_and_gets_a_bounded_share() {
    let mut config = config();
    config.limits.outbox_bytes_max = 256 * 1024;
    let broker = broker_with(config).await;
    let mut publisher = Peer::connect(&broker).await;
    let mut slow = Peer::connect(&broker).await;
    let mut fast = Peer::connect(&broker).await;
    publisher.queue("q", table! {}).await;
    slow.consume("q", 1).await;
    fast.consume("q", 1).await;
    let filler = "x".repeat(BODY_BYTES);
    let reading = tokio::spawn(async move {
        // Half of all must come to the one that reads, even though the other one never reads.
        let mut seen = HashSet::new();
        while seen.len() < MESSAGES / 2 {
            let received = fast.delivery(1).await;
            seen.insert(received.body.split_once(' ').unwrap().0.to_owned());
            fast.settle(&received, Verb::Ack).await;
        }
        (fast, seen)
    });
    for number in 0..MESSAGES {
        let body = format!("{number} {filler}");
        assert_eq!(publisher.publish(post("", "q", &body)).await, Outcome::Routed(1));
    }
    let (mut fast, mut seen) = reading.await.unwrap();
    // What the slow one holds comes back when it goes, so that nothing is lost.
    slow.vanish();
    while seen.len() < MESSAGES {
        let received = fast.delivery(1).await;
        seen.insert(received.body.split_once(' ').unwrap().0.to_owned());
        fast.settle(&received, Verb::Ack).await;
    }
    assert_eq!(publisher.ready("q").await, 0);
}
