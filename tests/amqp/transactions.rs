//! Transactions, as RabbitMQ has them.

use leveret_tests::amqp::{Peer, Post, Target, close};
use leveret_tests::{amqp_table, fields};

/// A queue that holds one message and refuses the next.
async fn full_queue(target: &Target, peer: &mut Peer) -> String {
    let queue = target.name("full");
    peer.queue(&queue, amqp_table! { "x-max-length" => 1, "x-overflow" => "reject-publish" }).await;
    peer.fill(&queue, &["first"]).await;
    queue
}

#[tokio::test]
async fn confirms_and_transactions_exclude_each_other() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    peer.confirm().await;
    let refused = peer.refused("tx.select", fields![]).await;
    assert_eq!(
        refused,
        close(406, "PRECONDITION_FAILED - cannot switch from confirm to tx mode", "tx.select")
    );
    peer.call("tx.select", fields![]).await;
    let refused = peer.refused("confirm.select", fields![false]).await;
    let text = "PRECONDITION_FAILED - cannot switch from tx to confirm mode";
    assert_eq!(refused, close(406, text, "confirm.select"));
    for method in ["tx.commit", "tx.rollback"] {
        let refused = peer.refused(method, fields![]).await;
        assert_eq!(refused, close(406, "PRECONDITION_FAILED - channel is not transactional", method));
    }
}

#[tokio::test]
async fn a_transaction_publishes_at_its_commit_or_not_at_all() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let queue = target.name("tx");
    peer.queue(&queue, amqp_table! {}).await;
    peer.call("tx.select", fields![]).await;
    peer.call("tx.select", fields![]).await;
    peer.publish("", &queue, "rolled back").await;
    peer.call("tx.rollback", fields![]).await;
    peer.publish("", &queue, "a").await;
    peer.publish("", &queue, "b").await;
    peer.nothing_comes_from(&queue).await;
    assert_eq!(peer.counts(&queue).await, (0, 0), "before the commit");
    peer.call("tx.commit", fields![]).await;
    assert_eq!(peer.counts(&queue).await, (2, 0));
    peer.call("tx.commit", fields![]).await;
    peer.publish("", &queue, "never committed").await;
    peer.call("channel.close", fields![200, "", 0, 0]).await;
    peer.open_channel(1).await;
    assert_eq!(peer.drain(&queue).await, ["a", "b"]);
}

#[tokio::test]
async fn a_transaction_settles_at_its_commit_and_a_rollback_leaves_all_unsettled() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let queue = target.name("tx-settle");
    peer.queue(&queue, amqp_table! {}).await;
    peer.fill(&queue, &["a", "b", "c"]).await;
    peer.call("tx.select", fields![]).await;
    peer.consume(&queue, "c").await;
    for _ in 0..3 {
        peer.delivery().await;
    }
    peer.ack(1, false).await;
    peer.nack(2, false, true).await;
    peer.call("tx.rollback", fields![]).await;
    // Nothing is delivered again: what was rolled back is held as before.
    peer.nothing_comes_from(&queue).await;
    peer.call("basic.cancel", fields!["c", false]).await;
    peer.ack(1, false).await;
    peer.nack(2, false, true).await;
    peer.call("tx.commit", fields![]).await;
    peer.until_counts(&queue, (1, 0)).await;
    let again = peer.get(&queue).await.unwrap();
    assert_eq!((again.body.as_str(), again.redelivered), ("b", true));
    peer.call("channel.close", fields![200, "", 0, 0]).await;
    peer.open_channel(1).await;
    peer.until_counts(&queue, (2, 0)).await;
    assert_eq!(peer.drain(&queue).await, ["b", "c"]);
}

#[tokio::test]
async fn a_transaction_settles_each_message_once() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let queue = target.name("tx-twice");
    peer.queue(&queue, amqp_table! {}).await;
    peer.fill(&queue, &["a", "b"]).await;
    peer.call("tx.select", fields![]).await;
    peer.get(&queue).await.unwrap();
    peer.get(&queue).await.unwrap();
    peer.ack(1, false).await;
    let refused = peer.refused("basic.ack", fields![1, false]).await;
    assert_eq!(refused, close(406, "PRECONDITION_FAILED - unknown delivery tag 1", "basic.ack"));
    // Nothing was committed.
    peer.until_counts(&queue, (2, 0)).await;
    assert_eq!(peer.drain(&queue).await, ["a", "b"]);
}

#[tokio::test]
async fn a_transaction_returns_at_its_commit_and_fails_at_once() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    peer.call("tx.select", fields![]).await;
    let key = target.name("nowhere");
    peer.post(&Post { exchange: "amq.direct", key: &key, mandatory: true, body: "back", ..Post::default() })
        .await;
    peer.barrier().await;
    peer.send("tx.commit", fields![]).await;
    assert_eq!(peer.message_on(1, "basic.return").await.body, "back");
    peer.expect("tx.commit-ok").await;
    let refused = peer.refused("basic.ack", fields![7, false]).await;
    assert_eq!(refused, close(406, "PRECONDITION_FAILED - unknown delivery tag 7", "basic.ack"));
    peer.call("tx.select", fields![]).await;
    let missing = target.name("missing");
    peer.publish(&missing, "", "x").await;
    let text = format!("NOT_FOUND - no exchange '{missing}' in vhost '/'");
    assert_eq!(peer.channel_closed().await, close(404, text, "basic.publish"));
}

#[tokio::test]
async fn a_commit_of_which_a_queue_refuses_a_part_is_406() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let queue = full_queue(&target, &mut peer).await;
    let other = target.name("other");
    peer.queue(&other, amqp_table! {}).await;
    peer.call("tx.select", fields![]).await;
    peer.publish("", &other, "taken").await;
    peer.publish("", &queue, "refused").await;
    let refused = peer.refused("tx.commit", fields![]).await;
    assert_eq!((refused.code, refused.method.as_str()), (406, "tx.commit"), "{refused:?}");
    assert_eq!(peer.drain(&queue).await, ["first"]);
    let why = "a commit happens as a whole or not at all; RabbitMQ carries out what it can";
    assert_eq!(peer.counts(&other).await, target.differs((1, 0), (0, 0), why));
}
