//! Queues that are full.

use leveret_protocol::{Outcome, ReplyCode, Verb};
use leveret_tests::{Peer, Post, broker, post, table};

const FULL: Outcome = Outcome::Refused(ReplyCode::ResourceError);

#[tokio::test]
async fn drop_head_gives_up_the_oldest_and_counts_ready_messages_only() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    let arguments = table! {
        "x-max-length" => 2, "x-dead-letter-exchange" => "", "x-dead-letter-routing-key" => "dead",
    };
    peer.queue("q", arguments).await;
    peer.queue("dead", table! {}).await;
    peer.fill("q", &["held", "a", "b"]).await;
    assert_eq!(peer.pop("dead").await.unwrap().death_counts(), [("q".to_owned(), "maxlen", 1)]);
    let held = peer.get("q").await.unwrap();
    peer.fill("q", &["c"]).await;
    assert_eq!(peer.ready("dead").await, 0, "what is held does not count");
    peer.settle(&held, Verb::Requeue).await;
    assert_eq!(peer.drain("dead").await, ["a"], "it is again the oldest, and makes the queue too long");
    assert_eq!(peer.drain("q").await, ["b", "c"]);
}

#[tokio::test]
async fn the_byte_limit_counts_bodies() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    peer.queue("q", table! { "x-max-length-bytes" => 10, "x-max-length" => 3 }).await;
    let big = Post {
        headers: table! { "long" => "a header that is longer than ten bytes" },
        ..post("", "q", "12345")
    };
    peer.publish(big.clone()).await;
    peer.publish(big).await;
    peer.fill("q", &["6"]).await;
    assert_eq!(peer.drain("q").await, ["12345", "6"]);
    peer.fill("q", &["1", "2", "3", "4"]).await;
    assert_eq!(peer.drain("q").await, ["2", "3", "4"], "both limits count");
    peer.fill("q", &["longer than ten"]).await;
    assert_eq!(peer.ready("q").await, 0);
}

#[tokio::test]
async fn reject_publish_refuses_and_keeps_what_there_is() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    let arguments = table! {
        "x-max-length" => 1, "x-overflow" => "reject-publish",
        "x-dead-letter-exchange" => "", "x-dead-letter-routing-key" => "dead",
    };
    peer.queue("q", arguments).await;
    peer.queue("dead", table! {}).await;
    peer.fill("q", &["a"]).await;
    assert_eq!(peer.publish(post("", "q", "b")).await, FULL);
    assert_eq!(peer.ready("dead").await, 0);
    let held = peer.get("q").await.unwrap();
    peer.fill("q", &["c"]).await;
    peer.settle(&held, Verb::Release).await;
    assert_eq!(peer.publish(post("", "q", "d")).await, FULL);
    assert_eq!(peer.drain("q").await, ["a", "c"], "what comes back is never refused");
}

#[tokio::test]
async fn reject_publish_dlx_refuses_and_dead_letters() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    let arguments = table! {
        "x-max-length" => 1, "x-overflow" => "reject-publish-dlx",
        "x-dead-letter-exchange" => "", "x-dead-letter-routing-key" => "dead",
    };
    peer.queue("q", arguments).await;
    peer.queue("dead", table! {}).await;
    peer.fill("q", &["a"]).await;
    assert_eq!(peer.publish(post("", "q", "b")).await, FULL);
    let dead = peer.pop("dead").await.unwrap();
    assert_eq!((dead.body.as_str(), dead.death_counts()), ("b", vec![("q".to_owned(), "maxlen", 1)]));
    assert_eq!(peer.drain("q").await, ["a"]);
}

#[tokio::test]
async fn one_queue_that_refuses_makes_the_publish_refused_and_the_others_keep_their_copies() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    peer.queue("full", table! { "x-max-length" => 0, "x-overflow" => "reject-publish" }).await;
    peer.queue("q", table! {}).await;
    for queue in ["full", "q"] {
        peer.bind("amq.fanout", queue, "", table! {}).await;
    }
    assert_eq!(peer.publish(post("amq.fanout", "", "x")).await, FULL);
    assert_eq!(peer.drain("q").await, ["x"]);
}

#[tokio::test]
async fn a_full_queue_is_no_obstacle_for_a_waiting_consumer() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    peer.queue("q", table! { "x-max-length" => 0, "x-overflow" => "reject-publish" }).await;
    peer.consume_some("q", 1, 1).await;
    assert_eq!(peer.publish(post("", "q", "a")).await, Outcome::Routed(1));
    assert_eq!(peer.publish(post("", "q", "b")).await, FULL);
    assert_eq!(peer.delivery(1).await.body, "a");
}

#[tokio::test]
async fn a_full_queue_with_priorities_drops_the_oldest_of_the_lowest() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    peer.queue("q", table! { "x-max-length" => 2, "x-max-priority" => 9 }).await;
    for (body, priority) in [("high", 9), ("low", 1), ("middle", 5), ("low again", 1)] {
        peer.publish(Post { priority: Some(priority), ..post("", "q", body) }).await;
    }
    assert_eq!(peer.drain("q").await, ["high", "middle"]);
}

#[tokio::test]
async fn without_confirms_a_full_queue_refuses_silently() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    peer.queue("full", table! { "x-max-length" => 0, "x-overflow" => "reject-publish" }).await;
    peer.open_channel(2, false).await;
    peer.send_on(2, &post("", "full", "x")).await;
    let ask = |request| leveret_tests::passive(request, "full").into();
    assert_eq!(peer.ask_on(2, ask).await.unwrap().messages, Some(0));
}
