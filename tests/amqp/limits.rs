//! Times to live, lengths and priorities of queues.

use leveret_tests::amqp::{Peer, Post, Properties, Table, Target};
use leveret_tests::{amqp_table, fields, within};

/// A queue with these arguments, whose dead letters go to a second one.
async fn watched(target: &Target, peer: &mut Peer, arguments: Table) -> (String, String) {
    let (queue, letters) = (target.name("limits"), target.name("letters"));
    peer.queue(&letters, amqp_table! {}).await;
    let mut all = amqp_table! { "x-dead-letter-exchange" => "", "x-dead-letter-routing-key" => &letters };
    all.0.extend(arguments.0);
    peer.queue(&queue, all).await;
    (queue, letters)
}

fn expiring(ttl_ms: u64) -> Properties {
    Properties { expiration: Some(ttl_ms.to_string()), ..Properties::default() }
}

fn of_priority(priority: u8) -> Properties {
    Properties { priority: Some(priority), ..Properties::default() }
}

#[tokio::test]
async fn the_shorter_time_of_message_and_queue_holds() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let (queue, letters) = watched(&target, &mut peer, amqp_table! { "x-message-ttl" => 1 }).await;
    peer.post(&Post { key: &queue, properties: expiring(600_000), body: "by queue", ..Post::default() })
        .await;
    assert_eq!(peer.get_soon(&letters).await.body, "by queue");
    let (queue, letters) = watched(&target, &mut peer, amqp_table! { "x-message-ttl" => 600_000 }).await;
    peer.post(&Post { key: &queue, properties: expiring(1), body: "by message", ..Post::default() }).await;
    assert_eq!(peer.get_soon(&letters).await.body, "by message");
}

#[tokio::test]
async fn without_time_it_is_delivered_at_once_or_not_at_all() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let (queue, letters) = watched(&target, &mut peer, amqp_table! {}).await;
    peer.post(&Post { key: &queue, properties: expiring(0), body: "nobody waits", ..Post::default() }).await;
    assert_eq!(peer.get_soon(&letters).await.body, "nobody waits");
    peer.consume(&queue, "c").await;
    peer.post(&Post { key: &queue, properties: expiring(0), body: "somebody waits", ..Post::default() })
        .await;
    let message = peer.delivery().await;
    assert_eq!(
        (message.body.as_str(), message.properties.expiration.as_deref()),
        ("somebody waits", Some("0"))
    );
    // Given back it has no time either.
    peer.call("basic.cancel", fields!["c", false]).await;
    peer.nack(message.tag, false, true).await;
    assert_eq!(peer.get_soon(&letters).await.body, "somebody waits");
}

#[tokio::test]
async fn given_back_it_keeps_its_deadline() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let (queue, letters) = watched(&target, &mut peer, amqp_table! {}).await;
    let (clock, over) = watched(&target, &mut peer, amqp_table! {}).await;
    peer.post(&Post { key: &queue, properties: expiring(700), body: "held", ..Post::default() }).await;
    peer.post(&Post { key: &clock, properties: expiring(800), body: "over", ..Post::default() }).await;
    peer.until_counts(&queue, (1, 0)).await;
    let held = peer.get(&queue).await.expect("within its time");
    assert_eq!(peer.get_soon(&over).await.body, "over", "its time is over, and it is held");
    assert_eq!(peer.counts(&letters).await, (0, 0));
    peer.nack(held.tag, false, true).await;
    assert_eq!(peer.get_soon(&letters).await.body, "held");
    assert_eq!(peer.counts(&queue).await, (0, 0));
}

#[tokio::test]
async fn expired_messages_leave_at_the_head_only_and_are_never_delivered() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let (queue, letters) = watched(&target, &mut peer, amqp_table! {}).await;
    let (clock, over) = watched(&target, &mut peer, amqp_table! {}).await;
    peer.publish("", &queue, "first").await;
    peer.post(&Post { key: &queue, properties: expiring(1), body: "behind", ..Post::default() }).await;
    peer.post(&Post { key: &clock, properties: expiring(50), body: "over", ..Post::default() }).await;
    peer.get_soon(&over).await;
    assert_eq!(peer.counts(&queue).await, (2, 0), "it still counts");
    assert_eq!(peer.get_with(&queue, true).await.unwrap().body, "first");
    assert_eq!(peer.get_soon(&letters).await.body, "behind");
    assert_eq!(peer.get(&queue).await, None);
}

#[tokio::test]
async fn a_queue_expires_when_nobody_uses_it_and_publishing_is_no_use() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let queue = target.name("expires");
    peer.queue(&queue, amqp_table! { "x-expires" => 300 }).await;
    peer.consume(&queue, "c").await;
    peer.publish("", &queue, "x").await;
    peer.delivery().await;
    peer.call("basic.cancel", fields!["c", false]).await;
    peer.call("channel.close", fields![200, "", 0, 0]).await;
    peer.open_channel(1).await;
    peer.confirm().await;
    let post = Post { key: &queue, mandatory: true, body: "x", ..Post::default() };
    let gone = async {
        loop {
            peer.post(&post).await;
            match peer.method_on(1).await {
                ("basic.return", fields) => break peer.content_on(1, "basic.return", fields).await,
                (name, _) => assert_eq!(name, "basic.ack"),
            }
        }
    };
    within("the end of the queue", gone).await;
}

#[tokio::test]
async fn the_length_counts_what_is_ready_and_the_oldest_goes() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let (queue, letters) = watched(&target, &mut peer, amqp_table! { "x-max-length" => 2 }).await;
    peer.fill(&queue, &["held", "b"]).await;
    let held = peer.get(&queue).await.unwrap();
    peer.fill(&queue, &["c"]).await;
    assert_eq!(peer.counts(&letters).await, (0, 0), "what is held does not count");
    peer.publish("", &queue, "d").await;
    assert_eq!(peer.get_soon(&letters).await.body, "b");
    peer.nack(held.tag, false, true).await;
    assert_eq!(peer.get_soon(&letters).await.body, "held", "back at the head it is the oldest");
    assert_eq!(peer.drain(&queue).await, ["c", "d"]);
}

#[tokio::test]
async fn the_length_in_bytes_counts_bodies() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let (queue, letters) = watched(&target, &mut peer, amqp_table! { "x-max-length-bytes" => 10 }).await;
    peer.fill(&queue, &["12345", "67890"]).await;
    peer.publish("", &queue, "1").await;
    assert_eq!(peer.get_soon(&letters).await.body, "12345");
    peer.publish("", &queue, "longer than all that is allowed").await;
    for body in ["67890", "1", "longer than all that is allowed"] {
        assert_eq!(peer.get_soon(&letters).await.body, body);
    }
}

#[tokio::test]
async fn a_refused_message_can_become_a_dead_letter() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let arguments = amqp_table! { "x-max-length" => 1, "x-overflow" => "reject-publish-dlx" };
    let (queue, letters) = watched(&target, &mut peer, arguments).await;
    peer.fill(&queue, &["first"]).await;
    peer.confirm().await;
    peer.publish("", &queue, "refused").await;
    assert_eq!(peer.confirmed().await, ("basic.nack", 1));
    assert_eq!(peer.get_soon(&letters).await.body, "refused");
    assert_eq!(peer.drain(&queue).await, ["first"]);
}

#[tokio::test]
async fn higher_priorities_come_first_and_what_is_above_the_maximum_is_the_maximum() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let queue = target.name("priorities");
    peer.queue(&queue, amqp_table! { "x-max-priority" => 5 }).await;
    for (priority, body) in
        [(Some(1), "1a"), (None, "none"), (Some(9), "9"), (Some(5), "5"), (Some(1), "1b"), (Some(0), "0")]
    {
        let properties = Properties { priority, ..Properties::default() };
        peer.post(&Post { key: &queue, properties, body, ..Post::default() }).await;
    }
    peer.until_counts(&queue, (6, 0)).await;
    let mut got = Vec::new();
    while let Some(message) = peer.get_with(&queue, true).await {
        got.push((message.body, message.properties.priority));
    }
    let expected =
        [("9", Some(9)), ("5", Some(5)), ("1a", Some(1)), ("1b", Some(1)), ("none", None), ("0", Some(0))];
    assert_eq!(
        got,
        expected.map(|(body, priority)| (body.to_owned(), priority)),
        "the property stays as it was"
    );
}

#[tokio::test]
async fn a_full_queue_with_priorities_drops_what_matters_least() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let (queue, letters) =
        watched(&target, &mut peer, amqp_table! { "x-max-priority" => 5, "x-max-length" => 2 }).await;
    for (priority, body) in [(1, "low"), (3, "high"), (2, "middle")] {
        peer.post(&Post { key: &queue, properties: of_priority(priority), body, ..Post::default() }).await;
    }
    let why =
        "a full queue drops the oldest of its lowest priority, where RabbitMQ drops the head, the highest";
    assert_eq!(peer.get_soon(&letters).await.body, target.differs("high", "low", why));
}
