//! Times to live of messages and queues. No test waits by the clock: an expired message arrives as a dead letter.

use leveret_protocol::{DeathReason, Outcome, Verb};
use leveret_tests::{Peer, Post, broker, post, table, within};

/// Far beyond the length of a test.
const LONG_MS: u64 = 3_600_000;

async fn with_dead_letters(peer: &mut Peer, mut arguments: leveret_protocol::Table) {
    arguments.extend(table! { "x-dead-letter-exchange" => "", "x-dead-letter-routing-key" => "dead" });
    peer.queue("q", arguments).await;
    peer.queue("dead", table! {}).await;
    peer.consume("dead", 1).await;
}

#[tokio::test]
async fn the_shorter_of_the_two_times_to_live_counts() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    with_dead_letters(&mut peer, table! { "x-message-ttl" => 1 }).await;
    peer.publish(Post { ttl_ms: Some(LONG_MS), ..post("", "q", "queue") }).await;
    let dead = peer.delivery(1).await;
    let death = dead.deaths.as_ref().unwrap().deaths[0].clone();
    assert_eq!((dead.body.as_str(), death.reason), ("queue", DeathReason::Expired));
    assert_eq!((dead.ttl_ms, death.original_ttl_ms), (None, Some(LONG_MS)), "it would only expire again");
    peer.queue("long", table! { "x-message-ttl" => 3_600_000, "x-dead-letter-exchange" => "", "x-dead-letter-routing-key" => "dead" }).await;
    peer.publish(Post { ttl_ms: Some(1), ..post("", "long", "message") }).await;
    assert_eq!(peer.delivery(1).await.body, "message");
}

#[tokio::test]
async fn a_message_expires_at_the_head_of_its_queue_only() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    with_dead_letters(&mut peer, table! {}).await;
    peer.publish(post("", "q", "blocks")).await;
    peer.publish(Post { ttl_ms: Some(1), ..post("", "q", "expires") }).await;
    assert_eq!(peer.ready("q").await, 2, "behind another one it waits, and is counted");
    assert_eq!(peer.pop("q").await.unwrap().body, "blocks");
    assert_eq!(peer.delivery(1).await.body, "expires");
    assert_eq!(peer.get("q").await, None);
}

#[tokio::test]
async fn a_requeue_keeps_the_deadline() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    with_dead_letters(&mut peer, table! { "x-message-ttl" => 100, "x-delivery-limit" => -1 }).await;
    peer.fill("q", &["x"]).await;
    // If each return began a new time to live, this would never end.
    let rounds = async {
        while let Some(received) = peer.get("q").await {
            peer.settle(&received, Verb::Requeue).await;
        }
        peer.delivery(1).await
    };
    let dead = within("the death", rounds).await;
    assert_eq!(dead.death_counts(), [("q".to_owned(), "expired", 1)]);
}

#[tokio::test]
async fn ttl_zero_is_delivered_at_once_or_expires() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    with_dead_letters(&mut peer, table! {}).await;
    let now = |body| Post { ttl_ms: Some(0), ..post("", "q", body) };
    assert_eq!(peer.publish(now("nobody")).await, Outcome::Routed(1));
    assert_eq!(peer.delivery(1).await.body, "nobody");
    peer.consume_some("q", 2, 1).await;
    assert_eq!(peer.publish(now("taken")).await, Outcome::Routed(1));
    let taken = peer.delivery(2).await;
    assert_eq!(taken.body, "taken");
    assert_eq!(peer.publish(now("busy")).await, Outcome::Routed(1));
    assert_eq!(peer.delivery(1).await.body, "busy");
    peer.nothing_for(2).await;
    // What was taken and comes back has no time left.
    peer.settle(&taken, Verb::Requeue).await;
    assert_eq!(peer.delivery(1).await.body, "taken");
}

#[tokio::test]
async fn an_unused_queue_expires_and_publishes_are_no_use() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    peer.queue("q", table! { "x-expires" => 50 }).await;
    // If a publish renewed the lease, this would never end: nobody waits between two of them.
    let publishing = async { while peer.publish(post("", "q", "x")).await != Outcome::Unroutable {} };
    within("the queue's end", publishing).await;
}

#[tokio::test]
async fn a_queue_with_a_consumer_does_not_expire() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    // The clock of the test is another queue, with a longer lease, that nobody uses.
    peer.queue("used", table! { "x-expires" => 500 }).await;
    peer.consume("used", 1).await;
    peer.queue("clock", table! { "x-expires" => 800 }).await;
    let ticking = async { while peer.publish(post("", "clock", "x")).await != Outcome::Unroutable {} };
    within("the clock", ticking).await;
    assert_eq!(peer.publish(post("", "used", "x")).await, Outcome::Routed(1));
    assert_eq!(peer.delivery(1).await.body, "x");
}

#[tokio::test]
async fn an_unused_queue_expires_after_a_restart_too() {
    let folder = tempfile::tempdir().unwrap();
    let broker = leveret_tests::broker_at(folder.path()).await;
    Peer::connect(&broker).await.durable_queue("q", table! { "x-expires" => 500 }).await;
    broker.stop().await.unwrap();
    let broker = leveret_tests::broker_at(folder.path()).await;
    let mut peer = Peer::connect(&broker).await;
    // A passive declaration is no use of the queue; a publish would set the alarm that this is about.
    within("the queue's end", async { while peer.counts("q").await.is_ok() {} }).await;
}
