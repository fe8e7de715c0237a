//! Consumers: tags, credit, turns, and their end; and getting one by one.

use leveret_tests::amqp::{Login, Peer, Target, close};
use leveret_tests::{amqp_table, fields};

#[tokio::test]
async fn a_consumer_gets_what_is_there_in_order_behind_its_answer() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let queue = target.name("order");
    peer.queue(&queue, amqp_table! {}).await;
    peer.fill(&queue, &["a", "b", "c"]).await;
    peer.consume(&queue, "mine").await;
    for (tag, body) in [(1, "a"), (2, "b"), (3, "c")] {
        let message = peer.delivery().await;
        assert_eq!((message.tag, message.body.as_str(), message.redelivered), (tag, body, false));
        assert_eq!(
            (message.consumer.as_str(), message.exchange.as_str(), &message.key),
            ("mine", "", &queue)
        );
    }
    assert_eq!(peer.counts(&queue).await, (0, 1));
}

#[tokio::test]
async fn the_broker_chooses_a_tag_if_asked() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let queue = target.name("tags");
    peer.queue(&queue, amqp_table! {}).await;
    let consume = fields![&queue, "", false, false, false, false, amqp_table! {}];
    let one = peer.call("basic.consume", consume.clone()).await[0].text().to_owned();
    let two = peer.call("basic.consume", consume).await[0].text().to_owned();
    assert!(one.starts_with("amq.ctag-") && one.len() > 20 && one != two, "{one}, {two}");
}

#[tokio::test]
async fn a_tag_that_is_in_use_on_the_channel_ends_the_connection() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let queue = target.name("reuse");
    peer.queue(&queue, amqp_table! {}).await;
    peer.consume(&queue, "mine").await;
    peer.open_channel(2).await;
    let consume = fields![&queue, "mine", false, false, false, false, amqp_table! {}];
    peer.call_on(2, "basic.consume", consume.clone()).await;
    let closed = peer.fatal("basic.consume", consume).await;
    assert_eq!(closed, close(530, "NOT_ALLOWED - attempt to reuse consumer tag 'mine'", "basic.consume"));
}

#[tokio::test]
async fn consuming_what_is_missing_is_404() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let missing = target.name("missing");
    let text = format!("NOT_FOUND - no queue '{missing}' in vhost '/'");
    let consume = fields![&missing, "c", false, false, false, false, amqp_table! {}];
    assert_eq!(peer.refused("basic.consume", consume).await, close(404, &text, "basic.consume"));
    assert_eq!(peer.refused("basic.get", fields![&missing, false]).await, close(404, &text, "basic.get"));
}

#[tokio::test]
async fn an_exclusive_consumer_is_alone_or_not_at_all() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let queue = target.name("alone");
    peer.queue(&queue, amqp_table! {}).await;
    let exclusive = fields![&queue, "x", false, false, true, false, amqp_table! {}];
    let plain = fields![&queue, "y", false, false, false, false, amqp_table! {}];
    let text = format!("ACCESS_REFUSED - queue '{queue}' in vhost '/' in exclusive use");
    let mut other = target.peer().await;
    peer.call("basic.consume", exclusive.clone()).await;
    assert_eq!(other.refused("basic.consume", plain.clone()).await, close(403, &text, "basic.consume"));
    peer.call("basic.cancel", fields!["x", false]).await;
    peer.call("basic.consume", plain).await;
    assert_eq!(other.refused("basic.consume", exclusive).await, close(403, &text, "basic.consume"));
}

#[tokio::test]
async fn a_cancelled_consumer_gets_no_more_and_settles_what_it_holds() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let queue = target.name("cancel");
    peer.queue(&queue, amqp_table! {}).await;
    peer.consume(&queue, "mine").await;
    peer.publish("", &queue, "held").await;
    let held = peer.delivery().await;
    assert_eq!(peer.call("basic.cancel", fields!["mine", false]).await, fields!["mine"]);
    assert_eq!(peer.call("basic.cancel", fields!["never there", false]).await, fields!["never there"]);
    peer.fill(&queue, &["later"]).await;
    peer.ack(held.tag, false).await;
    peer.nothing_comes_from(&queue).await;
    peer.consume(&queue, "mine").await;
    let later = peer.delivery().await;
    assert_eq!((later.body.as_str(), later.tag, later.redelivered), ("later", 2, false));
}

#[tokio::test]
async fn consumers_and_cancels_that_want_no_answer_get_none() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let queue = target.name("no-wait");
    peer.queue(&queue, amqp_table! {}).await;
    peer.send("basic.consume", fields![&queue, "quiet", false, true, false, true, amqp_table! {}]).await;
    peer.publish("", &queue, "a").await;
    assert_eq!(peer.delivery().await.consumer, "quiet");
    peer.send("basic.cancel", fields!["quiet", true]).await;
    peer.until_counts(&queue, (0, 0)).await;
    peer.fill(&queue, &["b"]).await;
    peer.nothing_comes_from(&queue).await;
}

#[tokio::test]
async fn only_clients_that_can_take_it_are_told_that_a_queue_went() {
    let target = Target::start().await;
    let queue = target.name("went");
    let mut peer = target.peer().await;
    peer.queue(&queue, amqp_table! {}).await;
    let login = Login { capabilities: amqp_table! {}, ..Login::default() };
    let mut simple = Peer::connect(target.address, &login).await;
    simple.consume(&queue, "simple").await;
    peer.consume(&queue, "able").await;
    peer.open_channel(2).await;
    peer.call_on(2, "queue.delete", fields![&queue, false, false, false]).await;
    assert_eq!(peer.expect("basic.cancel").await, fields!["able", true]);
    simple.barrier().await;
    // A cancel that crosses the broker's is answered all the same.
    assert_eq!(peer.call("basic.cancel", fields!["able", false]).await, fields!["able"]);
}

#[tokio::test]
async fn without_acknowledgement_nothing_is_held_and_nothing_can_be_settled() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let queue = target.name("no-ack");
    peer.queue(&queue, amqp_table! {}).await;
    peer.prefetch(1).await;
    peer.consume_with(&queue, "c", true, amqp_table! {}).await;
    for body in ["a", "b", "c"] {
        peer.publish("", &queue, body).await;
        assert_eq!(peer.delivery().await.body, body);
    }
    let refused = peer.refused("basic.ack", fields![1, false]).await;
    assert_eq!(refused, close(406, "PRECONDITION_FAILED - unknown delivery tag 1", "basic.ack"));
    assert_eq!(peer.counts(&queue).await, (0, 0));
}

#[tokio::test]
async fn the_limit_of_a_consumer_is_the_one_that_held_when_it_began() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let queue = target.name("credit");
    peer.queue(&queue, amqp_table! {}).await;
    peer.fill(&queue, &["a", "b", "c", "d", "e"]).await;
    peer.prefetch(1).await;
    peer.consume(&queue, "one").await;
    assert_eq!(peer.delivery().await.body, "a");
    peer.prefetch(2).await;
    peer.nothing_comes_from(&queue).await;
    assert_eq!(peer.counts(&queue).await, (4, 1), "the first one still holds one at most");
    peer.consume(&queue, "two").await;
    for body in ["b", "c"] {
        let message = peer.delivery().await;
        assert_eq!((message.consumer.as_str(), message.body.as_str()), ("two", body));
    }
    peer.nothing_comes_from(&queue).await;
    peer.ack(1, false).await;
    let next = peer.delivery().await;
    assert_eq!((next.consumer.as_str(), next.body.as_str()), ("one", "d"));
}

#[tokio::test]
async fn a_global_limit_is_shared_by_the_consumers_of_a_channel() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let (one, two) = (target.name("global"), target.name("global"));
    for queue in [&one, &two] {
        peer.queue(queue, amqp_table! {}).await;
        peer.fill(queue, &["a", "b"]).await;
    }
    peer.call("basic.qos", fields![0, 3, true]).await;
    peer.consume(&one, "one").await;
    for body in ["a", "b"] {
        assert_eq!(peer.delivery().await.body, body);
    }
    peer.consume(&two, "two").await;
    assert_eq!(peer.delivery().await.consumer, "two");
    peer.nothing_comes_from(&two).await;
    peer.ack(1, false).await;
    assert_eq!(peer.delivery().await.body, "b");
    peer.call("basic.qos", fields![0, 0, true]).await;
}

#[tokio::test]
async fn both_limits_hold_at_once() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let queue = target.name("both");
    peer.queue(&queue, amqp_table! {}).await;
    peer.fill(&queue, &["a", "b", "c", "d", "e", "f"]).await;
    peer.call("basic.qos", fields![0, 2, false]).await;
    peer.call("basic.qos", fields![0, 3, true]).await;
    peer.consume(&queue, "one").await;
    peer.delivery().await;
    peer.delivery().await;
    peer.nothing_comes_from(&queue).await;
    peer.consume(&queue, "two").await;
    assert_eq!(peer.delivery().await.consumer, "two");
    peer.nothing_comes_from(&queue).await;
    assert_eq!(peer.counts(&queue).await, (3, 2));
    // A message that is got does not count.
    assert_eq!(peer.get(&queue).await.unwrap().body, "d");
    peer.ack(3, true).await;
    let mut takers = Vec::new();
    for _ in 0..2 {
        takers.push(peer.delivery().await.body);
    }
    takers.sort_unstable();
    assert_eq!(takers, ["e", "f"]);
}

#[tokio::test]
async fn what_the_broker_cancelled_leaves_its_tag_free() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let queue = target.name("freed");
    peer.queue(&queue, amqp_table! {}).await;
    peer.consume(&queue, "c").await;
    target.peer().await.call("queue.delete", fields![&queue, false, false, false]).await;
    peer.expect("basic.cancel").await;
    peer.queue(&queue, amqp_table! {}).await;
    peer.consume(&queue, "c").await;
    peer.publish("", &queue, "x").await;
    assert_eq!(peer.delivery().await.body, "x");
}

#[tokio::test]
async fn a_limit_in_bytes_is_540() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let closed = peer.fatal("basic.qos", fields![1, 0, false]).await;
    assert_eq!(closed, close(540, "NOT_IMPLEMENTED - prefetch_size!=0 (1)", "basic.qos"));
}

#[tokio::test]
async fn getting_says_what_is_left() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let queue = target.name("get");
    peer.queue(&queue, amqp_table! {}).await;
    peer.fill(&queue, &["a", "b"]).await;
    let first = peer.get(&queue).await.unwrap();
    assert_eq!(
        first.fields,
        fields![1, false, "", &queue, 1],
        "tag, redelivered, exchange, key, messages left"
    );
    assert_eq!(peer.counts(&queue).await, (1, 0), "it is no consumer");
    let second = peer.get_with(&queue, true).await.unwrap();
    assert_eq!((second.tag, second.body.as_str()), (2, "b"));
    assert_eq!(peer.get(&queue).await, None);
    peer.nack(1, false, true).await;
    let again = peer.get_soon(&queue).await;
    assert_eq!((again.tag, again.redelivered, again.body.as_str()), (3, true, "a"));
}

#[tokio::test]
async fn recovering_puts_back_all_that_the_channel_holds() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let queue = target.name("recover");
    peer.queue(&queue, amqp_table! {}).await;
    peer.fill(&queue, &["a", "b", "c"]).await;
    peer.get(&queue).await;
    peer.get(&queue).await;
    peer.call("basic.recover", fields![true]).await;
    peer.until_counts(&queue, (3, 0)).await;
    for (tag, body, redelivered) in [(3, "a", true), (4, "b", true), (5, "c", false)] {
        let message = peer.get(&queue).await.unwrap();
        assert_eq!((message.tag, message.body.as_str(), message.redelivered), (tag, body, redelivered));
    }
    peer.send("basic.recover-async", fields![true]).await;
    peer.until_counts(&queue, (3, 0)).await;
    let closed = peer.fatal("basic.recover", fields![false]).await;
    assert_eq!(closed, close(540, "NOT_IMPLEMENTED - requeue=false", "basic.recover"));
}

#[tokio::test]
async fn higher_consumers_come_first_while_they_have_room() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let queue = target.name("priorities");
    peer.queue(&queue, amqp_table! {}).await;
    peer.prefetch(1).await;
    peer.consume(&queue, "plain").await;
    peer.consume_with(&queue, "high", false, amqp_table! { "x-priority" => 10 }).await;
    peer.consume_with(&queue, "low", false, amqp_table! { "x-priority" => -1 }).await;
    let mut takers = Vec::new();
    for body in ["a", "b", "c"] {
        peer.publish("", &queue, body).await;
        takers.push(peer.delivery().await.consumer);
    }
    assert_eq!(takers, ["high", "plain", "low"]);
    peer.ack(1, false).await;
    peer.publish("", &queue, "d").await;
    assert_eq!(peer.delivery().await.consumer, "high");
}

#[tokio::test]
async fn a_priority_of_a_consumer_is_an_integer() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let queue = target.name("priority");
    peer.queue(&queue, amqp_table! {}).await;
    let arguments = amqp_table! { "x-priority" => "high" };
    let refused =
        peer.refused("basic.consume", fields![&queue, "c", false, false, false, false, arguments]).await;
    assert_eq!((refused.code, refused.method.as_str()), (406, "basic.consume"), "{refused:?}");
}

#[tokio::test]
async fn a_single_active_consumer_hands_over_when_it_goes() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let queue = target.name("single");
    peer.queue(&queue, amqp_table! { "x-single-active-consumer" => true }).await;
    peer.consume(&queue, "first").await;
    peer.consume(&queue, "second").await;
    for body in ["a", "b"] {
        peer.publish("", &queue, body).await;
        assert_eq!(peer.delivery().await.consumer, "first");
    }
    peer.call("basic.cancel", fields!["first", false]).await;
    peer.publish("", &queue, "c").await;
    let message = peer.delivery().await;
    assert_eq!((message.consumer.as_str(), message.body.as_str()), ("second", "c"));
    // Getting goes past it, as RabbitMQ's classic queues have it.
    peer.call("basic.cancel", fields!["second", false]).await;
    peer.fill(&queue, &["d"]).await;
    assert_eq!(peer.get(&queue).await.unwrap().body, "d");
    let exclusive = fields![&queue, "x", false, false, true, false, amqp_table! {}];
    let refused = peer.refused("basic.consume", exclusive).await;
    assert_eq!((refused.code, refused.method.as_str()), (403, "basic.consume"), "{refused:?}");
}

#[tokio::test]
async fn a_lost_connection_gives_back_what_it_held_in_order_and_marked() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let queue = target.name("lost");
    peer.queue(&queue, amqp_table! {}).await;
    peer.fill(&queue, &["a", "b", "c"]).await;
    let mut other = target.peer().await;
    other.prefetch(2).await;
    other.consume(&queue, "c").await;
    other.delivery().await;
    other.delivery().await;
    drop(other);
    peer.until_counts(&queue, (3, 0)).await;
    for (body, redelivered) in [("a", true), ("b", true), ("c", false)] {
        let message = peer.get(&queue).await.unwrap();
        assert_eq!((message.body.as_str(), message.redelivered), (body, redelivered));
    }
}
