//! Clients that take too long harm nobody but themselves, and backlogs take no more memory than they may.

use std::collections::HashSet;

use leveret_broker::Broker;
use leveret_broker::config::Config;
use leveret_protocol::{Outcome, SettleParts, Verb};
use leveret_tests::{Peer, Post, broker_with, config, post, table};

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

/// Enough to be packed several times, and more than is read at once.
const BACKLOG: usize = 6_000;

/// What has no room for a hundred of them.
async fn broker_with_little_memory() -> Broker {
    let mut config: Config = config();
    config.memory.messages_bytes_max = 50_000;
    broker_with(config).await
}

/// The body of a message: its number, and enough behind it that it counts.
fn body(number: usize) -> String {
    format!("{number} {}", "x".repeat(300))
}

async fn fill(peer: &mut Peer, queue: &str, persistent: bool) {
    let mut last = 0;
    for number in 0..BACKLOG {
        let body = body(number);
        last = peer.send(&Post { persistent, ..post("", queue, &body) }).await;
    }
    assert_eq!(peer.confirm(1, last).await, Outcome::Routed(1));
}

async fn settle_up_to(peer: &mut Peer, consumer: u32, tag: u64, verb: Verb) {
    let parts = SettleParts { consumer, verb, confirm: false, note: None, ranges: &[(0, tag)] };
    peer.settle_parts(&parts).await;
}

/// Takes the whole backlog through a consumer, and checks that it is whole and in order.
async fn take_all(peer: &mut Peer, queue: &str, consumer: u32) {
    peer.consume_some(queue, consumer, 500).await;
    for number in 0..BACKLOG {
        let received = peer.delivery(consumer).await;
        assert_eq!(received.body, body(number));
        if number % 200 == 199 {
            settle_up_to(peer, consumer, received.tag, Verb::Ack).await;
        }
    }
}

#[tokio::test]
async fn a_backlog_larger_than_the_memory_for_messages_is_delivered_whole_and_in_order() {
    let broker = broker_with_little_memory().await;
    let mut peer = Peer::connect(&broker).await;
    peer.durable_queue("durable", table! {}).await;
    peer.queue("transient", table! {}).await;
    for (queue, persistent, consumer) in [("durable", true, 1), ("transient", false, 2)] {
        fill(&mut peer, queue, persistent).await;
        take_all(&mut peer, queue, consumer).await;
    }
}

#[tokio::test]
async fn what_comes_back_from_a_consumer_while_memory_is_short_keeps_its_place() {
    let broker = broker_with_little_memory().await;
    let mut peer = Peer::connect(&broker).await;
    peer.durable_queue("q", table! {}).await;
    fill(&mut peer, "q", true).await;
    peer.consume("q", 1).await;
    let mut last = 0;
    for number in 0..BACKLOG {
        let received = peer.delivery(1).await;
        assert_eq!(received.body, body(number));
        last = received.tag;
    }
    settle_up_to(&mut peer, 1, last, Verb::Release).await;
    peer.cancel(1).await;
    // Those that the consumer has got once more before it was cancelled.
    peer.vanish();
    let mut peer = Peer::connect(&broker).await;
    take_all(&mut peer, "q", 1).await;
}

#[tokio::test]
async fn a_message_of_a_backlog_can_be_got_one_by_one() {
    let broker = broker_with_little_memory().await;
    let mut peer = Peer::connect(&broker).await;
    peer.durable_queue("q", table! {}).await;
    fill(&mut peer, "q", true).await;
    for number in 0..3 {
        assert_eq!(peer.pop("q").await.unwrap().body, body(number));
    }
    assert_eq!(peer.purge("q").await, BACKLOG as u64 - 3);
    assert_eq!(peer.pop("q").await, None);
}

#[tokio::test]
async fn a_backlog_that_is_not_in_memory_is_dead_lettered_whole_and_in_order() {
    let broker = broker_with_little_memory().await;
    let mut peer = Peer::connect(&broker).await;
    peer.durable_queue("dead", table! {}).await;
    let arguments = table! { "x-max-length" => 10, "x-dead-letter-exchange" => "", "x-dead-letter-routing-key" => "dead" };
    peer.durable_queue("q", arguments).await;
    fill(&mut peer, "q", true).await;
    assert_eq!(peer.ready("q").await, 10);
    assert_eq!(peer.ready("dead").await, BACKLOG as u64 - 10);
    peer.consume_some("dead", 1, 0).await;
    for number in 0..BACKLOG - 10 {
        assert_eq!(peer.delivery(1).await.body, body(number));
    }
}
