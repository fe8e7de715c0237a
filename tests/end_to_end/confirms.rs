//! What a publisher is told.

use leveret_protocol::{Control, Outcome, PublishParts, RegisterRoute, ReplyCode, Return, Route, kind};
use leveret_tests::{Peer, Post, broker, post, table};

#[tokio::test]
async fn a_mandatory_message_that_nobody_gets_comes_back_before_its_confirm() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    let lost = Post { mandatory: true, headers: table! { "a" => 1 }, ..post("amq.topic", "lost", "body") };
    peer.send(&lost).await;
    let returned = peer.frame().await.unwrap();
    assert_eq!((returned.kind, returned.channel), (kind::RETURN, 1));
    let returned = Return::decode(&returned.payload).unwrap();
    assert_eq!((returned.number, returned.code), (1, ReplyCode::NoRoute));
    assert_eq!((returned.exchange, returned.routing_key, returned.body), ("amq.topic", "lost", &b"body"[..]));
    assert!(!returned.properties.is_empty());
    assert_eq!(peer.confirm(1, 1).await, Outcome::Unroutable);
}

#[tokio::test]
async fn every_publish_is_confirmed_once_with_the_number_of_its_queues() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    for queue in ["q1", "q2"] {
        peer.durable_queue(queue, table! {}).await;
        peer.bind("amq.direct", queue, queue, table! {}).await;
        peer.bind("amq.direct", queue, "both", table! {}).await;
    }
    let mut expected = Vec::new();
    for round in 0..100 {
        for (key, queues) in [("q1", 1), ("both", 2), ("none", 0)] {
            let sent = Post { persistent: round % 2 == 0, ..post("amq.direct", key, "x") };
            let outcome = if queues == 0 { Outcome::Unroutable } else { Outcome::Routed(queues) };
            expected.push((peer.send(&sent).await, outcome));
        }
    }
    for (number, outcome) in expected {
        assert_eq!(peer.confirm(1, number).await, outcome, "publish {number}");
    }
}

#[tokio::test]
async fn a_message_that_is_too_large_is_refused_and_nothing_closes() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    peer.queue("q", table! {}).await;
    // The brokers of the tests take messages of 1 MiB.
    let (largest, half) = ("x".repeat(1 << 20), "x".repeat(1 << 19));
    assert_eq!(peer.publish(post("", "q", &largest)).await, Outcome::Routed(1));
    let larger = format!("{largest}x");
    let too_large = Outcome::Refused(ReplyCode::ContentTooLarge);
    assert_eq!(peer.publish(post("", "q", &larger)).await, too_large);
    let headers = table! { "large" => "h".repeat(200 << 10).as_str() };
    let sent = Post { headers, ..post("", "q", &half) };
    assert_eq!(peer.publish(sent.clone()).await, Outcome::Routed(1));
    assert_eq!(peer.publish(Post { body: &largest, ..sent }).await, too_large, "properties count");
    assert_eq!(peer.ready("q").await, 2);
}

#[tokio::test]
async fn a_registered_route_stands_for_its_names_on_its_channel() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    let register = |alias, key: &str| {
        let (exchange, routing_key) = ("".try_into().unwrap(), key.try_into().unwrap());
        move |request| Control::from(RegisterRoute { request, alias, exchange, routing_key })
    };
    for queue in ["q1", "q2"] {
        peer.queue(queue, table! {}).await;
    }
    peer.must(register(0, "q1")).await;
    peer.must(register(4095, "q2")).await;
    assert_eq!(peer.refused(register(4096, "q1")).await.0, ReplyCode::PreconditionFailed);
    assert_eq!(publish_to(&mut peer, 1, 0).await, Outcome::Routed(1));
    assert_eq!(publish_to(&mut peer, 2, 4095).await, Outcome::Routed(1));
    peer.must(register(0, "q2")).await;
    assert_eq!(publish_to(&mut peer, 3, 0).await, Outcome::Routed(1), "replaced");
    assert_eq!((peer.ready("q1").await, peer.ready("q2").await), (1, 2));
}

#[tokio::test]
async fn a_route_that_was_not_registered_is_refused_by_the_confirm() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    assert_eq!(publish_to(&mut peer, 1, 5).await, Outcome::Refused(ReplyCode::NotFound));
    assert_eq!(peer.counts("q").await.unwrap_err().code, ReplyCode::NotFound, "the channel is open");
    peer.open_channel(2, false).await;
    peer.write(&aliased(2, 5)).await;
    assert_eq!(peer.channel_closed(2).await.code, ReplyCode::NotFound);
}

#[tokio::test]
async fn a_name_that_cannot_be_is_refused_by_the_confirm() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    peer.queue("q", table! {}).await;
    let refused = Outcome::Refused(ReplyCode::SyntaxError);
    let control = "bad\u{7}";
    assert_eq!(peer.publish(post("amq.topic", control, "x")).await, refused);
    assert_eq!(peer.publish(Post { cc: &[control], ..post("", "q", "x") }).await, refused);
    assert_eq!(peer.publish(Post { bcc: &[control], ..post("", "q", "x") }).await, refused);
    assert_eq!(peer.ready("q").await, 0);
}

async fn publish_to(peer: &mut Peer, number: u64, alias: u32) -> Outcome {
    peer.write(&aliased(1, alias)).await;
    peer.confirm(1, number).await
}

fn aliased(channel: u16, alias: u32) -> bytes::BytesMut {
    let mut bytes = bytes::BytesMut::new();
    let parts = PublishParts {
        route: Route::Alias(alias),
        mandatory: false,
        persistent: false,
        priority: None,
        ttl_ms: None,
        cc: &[],
        bcc: &[],
        properties: &[],
        body: b"x",
    };
    parts.encode(channel, &mut bytes);
    bytes
}
