//! Who gets which message when.

use leveret_protocol::{Consume, Credit, Get, QueueName, ReplyCode, Verb};
use leveret_tests::{Peer, Post, broker, consume, post, table};

#[tokio::test]
async fn messages_of_a_channel_are_delivered_in_the_order_of_their_publish() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    peer.queue("q", table! {}).await;
    peer.consume("q", 1).await;
    let bodies: Vec<String> = (0..500).map(|number| number.to_string()).collect();
    let mut last = 0;
    for body in &bodies {
        last = peer.send(&post("", "q", body)).await;
    }
    for body in &bodies {
        assert_eq!(&peer.delivery(1).await.body, body);
    }
    peer.confirm(1, last).await;
}

#[tokio::test]
async fn prefetch_bounds_what_a_consumer_holds() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    peer.queue("q", table! {}).await;
    peer.fill("q", &["a", "b", "c", "d"]).await;
    peer.consume_some("q", 1, 2).await;
    let a = peer.delivery(1).await;
    assert_eq!(peer.delivery(1).await.body, "b");
    peer.nothing_for(1).await;
    peer.settle(&a, Verb::Ack).await;
    assert_eq!(peer.delivery(1).await.body, "c");
    peer.nothing_for(1).await;
}

#[tokio::test]
async fn without_acknowledgements_credit_is_used_up_and_granted_anew() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    peer.queue("q", table! {}).await;
    peer.fill("q", &["a", "b", "c", "d", "e"]).await;
    let some = |request| Consume { no_ack: true, prefetch: 2, ..consume(request, "q", 1) };
    peer.must(|request| some(request).into()).await;
    assert_eq!(peer.deliveries::<2>(1).await, ["a", "b"]);
    peer.nothing_for(1).await;
    grant(&mut peer, 1, 2).await;
    assert_eq!(peer.deliveries::<2>(1).await, ["c", "d"]);
    peer.nothing_for(1).await;
    grant(&mut peer, 1, u32::MAX).await;
    grant(&mut peer, 1, u32::MAX).await;
    assert_eq!(peer.delivery(1).await.body, "e");
}

#[tokio::test]
async fn credit_for_a_consumer_that_is_gone_is_ignored_and_with_acknowledgements_a_mistake() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    peer.queue("q", table! {}).await;
    grant(&mut peer, 9, 5).await;
    peer.consume("q", 1).await;
    grant(&mut peer, 1, 5).await;
    let closed = peer.channel_closed(1).await;
    assert_eq!((closed.code, closed.operation.as_str()), (ReplyCode::PreconditionFailed, "Credit"));
}

async fn grant(peer: &mut Peer, consumer: u32, messages: u32) {
    let mut bytes = bytes::BytesMut::new();
    Credit { consumer, messages }.encode(1, &mut bytes);
    peer.write(&bytes).await;
}

#[tokio::test]
async fn the_consumers_of_a_queue_take_turns() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    peer.queue("q", table! {}).await;
    peer.consume("q", 1).await;
    peer.consume("q", 2).await;
    peer.fill("q", &["a", "b", "c", "d"]).await;
    assert_eq!(peer.deliveries::<2>(1).await, ["a", "c"]);
    assert_eq!(peer.deliveries::<2>(2).await, ["b", "d"]);
}

#[tokio::test]
async fn consumers_of_higher_priority_are_served_first_while_they_have_room() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    peer.queue("q", table! {}).await;
    for (number, priority, prefetch) in [(1, -1, 0), (2, 0, 1), (3, 10, 2)] {
        let with = |request| Consume { priority, prefetch, ..consume(request, "q", number) };
        peer.must(|request| with(request).into()).await;
    }
    peer.fill("q", &["a", "b", "c", "d", "e"]).await;
    assert_eq!(peer.deliveries::<2>(3).await, ["a", "b"]);
    assert_eq!(peer.deliveries::<1>(2).await, ["c"]);
    assert_eq!(peer.deliveries::<2>(1).await, ["d", "e"]);
}

#[tokio::test]
async fn messages_of_higher_priority_come_first_strictly() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    peer.queue("q", table! { "x-max-priority" => 5 }).await;
    peer.queue("plain", table! {}).await;
    for (body, priority) in
        [("none", None), ("3", Some(3)), ("200", Some(200)), ("0", Some(0)), ("5", Some(5))]
    {
        peer.publish(Post { priority, ..post("", "q", body) }).await;
        peer.publish(Post { priority, ..post("", "plain", body) }).await;
    }
    assert_eq!(peer.drain("q").await, ["200", "5", "3", "none", "0"], "above the maximum is the maximum");
    assert_eq!(
        peer.drain("plain").await,
        ["none", "3", "200", "0", "5"],
        "without a maximum it means nothing"
    );
}

#[tokio::test]
async fn a_single_active_consumer_is_followed_by_the_next_in_line() {
    let broker = broker().await;
    let mut first = Peer::connect(&broker).await;
    let mut second = Peer::connect(&broker).await;
    first.queue("q", table! { "x-single-active-consumer" => true }).await;
    first.consume_some("q", 1, 10).await;
    second.consume("q", 1).await;
    first.fill("q", &["a", "b"]).await;
    assert_eq!(first.deliveries::<2>(1).await, ["a", "b"]);
    second.nothing_for(1).await;
    first.vanish();
    let taken_over = second.delivery(1).await;
    assert_eq!((taken_over.body.as_str(), taken_over.redelivered), ("a", Some(1)));
    assert_eq!(second.delivery(1).await.body, "b");
}

#[tokio::test]
async fn get_works_beside_a_single_active_consumer_and_exclusive_use_does_not() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    peer.queue("q", table! { "x-single-active-consumer" => true }).await;
    peer.consume_some("q", 1, 1).await;
    peer.fill("q", &["a", "b"]).await;
    assert_eq!(peer.delivery(1).await.body, "a");
    assert_eq!(peer.get("q").await.unwrap().body, "b");
    let exclusive = |request| Consume { exclusive: true, ..consume(request, "q", 2) };
    assert_eq!(peer.refused(|request| exclusive(request).into()).await.0, ReplyCode::AccessRefused);
}

#[tokio::test]
async fn a_lost_connection_gives_everything_back_in_order_and_marked() {
    let broker = broker().await;
    let mut lost = Peer::connect(&broker).await;
    let mut other = Peer::connect(&broker).await;
    lost.queue("q", table! {}).await;
    lost.consume_some("q", 1, 2).await;
    lost.fill("q", &["a", "b", "c"]).await;
    assert_eq!(lost.deliveries::<2>(1).await, ["a", "b"]);
    other.consume("q", 1).await;
    assert_eq!(other.delivery(1).await.body, "c");
    lost.vanish();
    for body in ["a", "b"] {
        let received = other.delivery(1).await;
        assert_eq!((received.body.as_str(), received.redelivered), (body, Some(1)));
    }
}

#[tokio::test]
async fn a_message_arrives_as_it_was_sent() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    peer.queue("q", table! {}).await;
    let headers =
        table! { "number" => 1, "float" => 1.5, "text" => "ä", "nothing" => leveret_protocol::Value::Null };
    let sent = Post {
        persistent: true,
        priority: Some(7),
        ttl_ms: Some(60_000),
        headers: headers.clone(),
        ..post("amq.topic", "a.b", "body")
    };
    peer.bind("amq.topic", "q", "#", table! {}).await;
    peer.publish(sent).await;
    let received = peer.pop("q").await.unwrap();
    assert_eq!(
        (received.exchange.as_str(), received.key.as_str(), received.body.as_str()),
        ("amq.topic", "a.b", "body")
    );
    assert_eq!((received.persistent, received.priority, received.ttl_ms), (true, Some(7), Some(60_000)));
    assert_eq!((received.headers, received.deaths, received.redelivered), (headers, None, None));
}

#[tokio::test]
async fn a_message_that_does_not_fit_stays_even_if_it_was_not_to_be_acknowledged() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    peer.queue("q", table! {}).await;
    let large = "x".repeat(20_000);
    peer.fill("q", &[&large]).await;
    let login = leveret_tests::Login { frame_bytes_max: 8_192, ..leveret_tests::Login::default() };
    let mut small = Peer::login(&broker, &login).await;
    let queue = || QueueName::new("q").unwrap();
    let get = |request| Get { request, queue: queue(), consumer: 1, no_ack: true };
    let (code, _) = small.refused(|request| get(request).into()).await;
    assert_eq!(code, ReplyCode::ContentTooLarge);
    assert_eq!(peer.ready("q").await, 1);
    assert_eq!(peer.must(|request| get(request).into()).await.found, Some(true));
    assert_eq!(peer.delivery(1).await.body, large);
    small.vanish();
    peer.settle_range(1, Verb::Ack, None, (1, 1)).await;
    peer.channel_closed(1).await;
}

#[tokio::test]
async fn a_client_that_gets_and_does_not_read_is_not_listened_to() {
    let mut config = leveret_tests::config();
    config.limits.outbox_bytes_max = 64 << 10;
    let broker = leveret_tests::broker_with(config).await;
    let mut peer = Peer::connect(&broker).await;
    peer.queue("q", leveret_protocol::Table::new()).await;
    let large = "x".repeat(1_000_000);
    for _ in 0..40 {
        peer.fill("q", &[&large]).await;
    }
    let mut greedy = Peer::connect(&broker).await;
    let mut gets = bytes::BytesMut::new();
    for request in 100..140 {
        let get = Get { request, queue: QueueName::new("q").unwrap(), consumer: 1, no_ack: false };
        leveret_protocol::Control::from(get).encode(1, &mut gets).unwrap();
    }
    // One write, and so one read.
    greedy.write(&gets).await;
    while peer.ready("q").await == 40 {}
    // More than the sockets' buffers take is asked for, so that some must be left however long this lasts.
    for _ in 0..1_000 {
        assert!(peer.ready("q").await > 0);
    }
    for request in 100..140 {
        assert_eq!(greedy.answer(1, request).await.unwrap().found, Some(true));
    }
}
