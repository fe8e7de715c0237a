//! Acknowledging, giving back and rejecting.

use leveret_tests::amqp::{Peer, Target, close};
use leveret_tests::{amqp_table, fields};

/// A peer that holds so many messages, with tags from 1, named from "a".
async fn holding(target: &Target, count: usize) -> (Peer, String) {
    let mut peer = target.peer().await;
    let queue = target.name("settling");
    peer.queue(&queue, amqp_table! {}).await;
    peer.fill(&queue, &["a", "b", "c", "d"][..count]).await;
    for _ in 0..count {
        peer.get(&queue).await.unwrap();
    }
    (peer, queue)
}

#[tokio::test]
async fn an_unknown_tag_is_406() {
    let target = Target::start().await;
    let settles = [
        ("basic.ack", fields![2, false]),
        ("basic.ack", fields![2, true]),
        ("basic.ack", fields![0, false]),
        ("basic.nack", fields![2, false, true]),
        ("basic.nack", fields![2, true, false]),
        ("basic.reject", fields![2, true]),
    ];
    let (mut peer, queue) = holding(&target, 1).await;
    for (method, fields) in settles {
        let text = format!("PRECONDITION_FAILED - unknown delivery tag {}", fields[0].number());
        assert_eq!(peer.refused(method, fields).await, close(406, text, method));
        // What the channel held has come back.
        peer.until_counts(&queue, (1, 0)).await;
        assert!(peer.get(&queue).await.unwrap().redelivered);
    }
}

#[tokio::test]
async fn settling_twice_is_406() {
    let target = Target::start().await;
    let (mut peer, queue) = holding(&target, 2).await;
    peer.ack(1, false).await;
    let refused = peer.refused("basic.ack", fields![1, false]).await;
    assert_eq!(refused, close(406, "PRECONDITION_FAILED - unknown delivery tag 1", "basic.ack"));
    peer.until_counts(&queue, (1, 0)).await;
    assert_eq!(peer.drain(&queue).await, ["b"]);
}

#[tokio::test]
async fn a_tag_belongs_to_its_channel() {
    let target = Target::start().await;
    let (mut peer, _) = holding(&target, 1).await;
    peer.open_channel(2).await;
    peer.send_on(2, "basic.ack", fields![1, false]).await;
    let refused = peer.expect_on(2, "channel.close").await;
    assert_eq!(refused, fields![406, "PRECONDITION_FAILED - unknown delivery tag 1", 60, 80]);
}

#[tokio::test]
async fn multiple_settles_all_up_to_the_tag_and_zero_all_there_are() {
    let target = Target::start().await;
    let (mut peer, queue) = holding(&target, 4).await;
    peer.ack(2, true).await;
    peer.nack(3, false, true).await;
    peer.until_counts(&queue, (1, 0)).await;
    peer.ack(0, true).await;
    // With nothing held it is no mistake either.
    peer.ack(0, true).await;
    peer.barrier().await;
    peer.call("channel.close", fields![200, "", 0, 0]).await;
    peer.open_channel(1).await;
    assert_eq!(peer.drain(&queue).await, ["c"]);
}

#[tokio::test]
async fn multiple_reaches_over_all_that_a_channel_has_been_given() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let (one, two, three) = (target.name("one"), target.name("two"), target.name("three"));
    for queue in [&one, &two, &three] {
        peer.queue(queue, amqp_table! {}).await;
        peer.fill(queue, &["a", "b"]).await;
    }
    // Tags 1 to 6: two consumers, and two messages got one by one in between.
    peer.consume(&one, "one").await;
    peer.delivery().await;
    peer.delivery().await;
    assert_eq!(peer.get(&three).await.unwrap().tag, 3);
    peer.consume(&two, "two").await;
    peer.delivery().await;
    assert_eq!(peer.delivery().await.tag, 5);
    assert_eq!(peer.get(&three).await.unwrap().tag, 6);
    peer.call("basic.cancel", fields!["one", false]).await;
    peer.call("basic.cancel", fields!["two", false]).await;
    peer.ack(2, false).await;
    peer.ack(4, true).await;
    peer.nack(0, true, true).await;
    peer.until_counts(&two, (1, 0)).await;
    peer.until_counts(&three, (1, 0)).await;
    assert_eq!(peer.drain(&one).await, [""; 0]);
    assert_eq!(peer.drain(&two).await, ["b"]);
    assert_eq!(peer.drain(&three).await, ["b"]);
}

#[tokio::test]
async fn given_back_is_to_its_place_and_marked() {
    let target = Target::start().await;
    let (mut peer, queue) = holding(&target, 3).await;
    peer.fill(&queue, &["later"]).await;
    peer.nack(2, true, true).await;
    peer.reject(3, true).await;
    peer.until_counts(&queue, (4, 0)).await;
    for (body, redelivered) in [("a", true), ("b", true), ("c", true), ("later", false)] {
        let message = peer.get(&queue).await.unwrap();
        assert_eq!((message.body.as_str(), message.redelivered), (body, redelivered));
    }
}

#[tokio::test]
async fn rejected_without_requeue_is_gone() {
    let target = Target::start().await;
    let (mut peer, queue) = holding(&target, 3).await;
    peer.reject(1, false).await;
    peer.nack(3, true, false).await;
    peer.barrier().await;
    peer.call("channel.close", fields![200, "", 0, 0]).await;
    peer.open_channel(1).await;
    assert_eq!(peer.drain(&queue).await, [""; 0]);
}

#[tokio::test]
async fn to_settle_what_a_deleted_queue_had_is_no_mistake() {
    let target = Target::start().await;
    let (mut peer, queue) = holding(&target, 3).await;
    peer.call("queue.delete", fields![&queue, false, false, false]).await;
    peer.ack(1, false).await;
    peer.nack(2, false, true).await;
    peer.reject(3, false).await;
    peer.barrier().await;
}

#[tokio::test]
async fn a_plain_queue_counts_failures_too() {
    let target = Target::start().await;
    let (mut peer, queue) = holding(&target, 1).await;
    peer.reject(1, true).await;
    peer.until_counts(&queue, (1, 0)).await;
    let count = peer.get(&queue).await.unwrap().headers().get("x-delivery-count").cloned();
    let why = "redeliveries of every queue say how often they failed, and not only those of quorum queues";
    assert_eq!(count, target.differs(None, Some(1_i64.into()), why));
}

#[tokio::test]
async fn what_comes_back_carries_how_often_it_failed() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let queue = target.name("count");
    peer.queue(&queue, amqp_table! { "x-queue-type" => "quorum", "x-delivery-limit" => 5 }).await;
    peer.publish("", &queue, "x").await;
    peer.consume(&queue, "c").await;
    let first = peer.delivery().await;
    assert_eq!(first.headers().get("x-delivery-count"), None);
    peer.reject(first.tag, true).await;
    let again = peer.delivery().await;
    assert!(again.redelivered);
    assert_eq!(again.headers().get("x-delivery-count"), Some(&1_i64.into()), "{again:?}");
    // RabbitMQ counts a nack up to 4.2, and no longer from 4.3 on; Leveret always counts it.
    peer.nack(again.tag, false, true).await;
    let third = peer.delivery().await;
    assert_eq!(third.headers().get("x-delivery-count"), Some(&2_i64.into()), "{third:?}");
}
