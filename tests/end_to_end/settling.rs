//! Ack, requeue, release, reject.

use leveret_protocol::{ReplyCode, Settle, SettleParts, Verb, kind};
use leveret_tests::{Peer, broker, table};

#[tokio::test]
async fn settling_twice_closes_the_channel_and_gives_back_what_it_held() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    peer.queue("q", table! {}).await;
    peer.fill("q", &["a", "b"]).await;
    let first = peer.get("q").await.unwrap();
    peer.get("q").await.unwrap();
    peer.settle(&first, Verb::Ack).await;
    peer.settle(&first, Verb::Ack).await;
    let closed = peer.channel_closed(1).await;
    assert_eq!((closed.code, closed.operation.as_str()), (ReplyCode::PreconditionFailed, "Settle"));
    assert!(closed.text.contains("unknown delivery tag 1"), "{}", closed.text);
    peer.open_channel(1, true).await;
    let again = peer.get("q").await.unwrap();
    assert_eq!((again.body.as_str(), again.tag, again.redelivered), ("b", 1, Some(1)));
}

#[tokio::test]
async fn settling_what_was_never_delivered_closes_the_channel() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    peer.queue("q", table! {}).await;
    // Consumer, range: a tag to come, all up to one, every tag there is, and a consumer that is not there.
    for (consumer, range) in
        [(1, (4, 4)), (1, (0, 4)), (1, (1, u64::MAX)), (1, (u64::MAX, u64::MAX)), (9, (1, 1))]
    {
        peer.fill("q", &["a", "b", "c"]).await;
        peer.consume("q", 1).await;
        assert_eq!(peer.deliveries::<3>(1).await, ["a", "b", "c"]);
        peer.settle_range(consumer, Verb::Ack, None, range).await;
        let closed = peer.channel_closed(1).await;
        assert_eq!(closed.code, ReplyCode::PreconditionFailed, "consumer {consumer}, {range:?}");
        peer.open_channel(1, true).await;
        assert_eq!(peer.purge("q").await, 3, "nothing of it was settled");
    }
}

#[tokio::test]
async fn up_to_a_tag_settles_all_before_it_and_is_no_mistake_when_nothing_is_left() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    peer.queue("q", table! {}).await;
    peer.fill("q", &["a", "b", "c"]).await;
    peer.consume("q", 1).await;
    assert_eq!(peer.deliveries::<3>(1).await, ["a", "b", "c"]);
    peer.settle_range(1, Verb::Ack, None, (0, 2)).await;
    peer.settle_range(1, Verb::Ack, None, (0, 2)).await;
    peer.settle_range(1, Verb::Requeue, None, (3, 3)).await;
    assert_eq!(peer.delivery(1).await.body, "c");
}

#[tokio::test]
async fn requeue_and_release_put_messages_back_to_their_places() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    peer.queue("q", table! {}).await;
    peer.fill("q", &["a", "b", "c", "d"]).await;
    let a = peer.get("q").await.unwrap();
    let b = peer.get("q").await.unwrap();
    let c = peer.get("q").await.unwrap();
    peer.settle(&c, Verb::Release).await;
    peer.settle(&a, Verb::Requeue).await;
    peer.settle(&b, Verb::Release).await;
    assert_eq!(peer.drain("q").await, ["a", "b", "c", "d"]);
}

#[tokio::test]
async fn only_requeues_and_lost_channels_count_as_failures() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    peer.queue("q", table! {}).await;
    peer.fill("q", &["a"]).await;
    let first = peer.get("q").await.unwrap();
    assert_eq!(first.redelivered, None);
    peer.settle(&first, Verb::Release).await;
    let released = peer.get("q").await.unwrap();
    assert_eq!(released.redelivered, Some(0), "it was handed out before, and nobody failed");
    peer.settle(&released, Verb::Requeue).await;
    assert_eq!(peer.get("q").await.unwrap().redelivered, Some(1));
    peer.must(|request| leveret_protocol::CloseChannel { request }.into()).await;
    peer.open_channel(1, true).await;
    assert_eq!(peer.get("q").await.unwrap().redelivered, Some(2));
}

#[tokio::test]
async fn tags_count_from_1_for_each_consumer() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    for (queue, consumer) in [("q1", 1), ("q2", 2)] {
        peer.queue(queue, table! {}).await;
        peer.consume(queue, consumer).await;
    }
    peer.fill("q1", &["a", "b"]).await;
    peer.fill("q2", &["c"]).await;
    assert_eq!(
        (peer.delivery(1).await.tag, peer.delivery(1).await.tag, peer.delivery(2).await.tag),
        (1, 2, 1)
    );
}

#[tokio::test]
async fn a_cancelled_consumer_gets_nothing_more_and_can_settle_what_it_holds() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    peer.queue("q", table! {}).await;
    peer.consume("q", 1).await;
    peer.fill("q", &["a", "b"]).await;
    let (a, b) = (peer.delivery(1).await, peer.delivery(1).await);
    peer.cancel(1).await;
    peer.fill("q", &["c"]).await;
    peer.nothing_for(1).await;
    peer.settle(&a, Verb::Ack).await;
    peer.settle(&b, Verb::Requeue).await;
    assert_eq!(peer.drain("q").await, ["b", "c"]);
}

#[tokio::test]
async fn a_settle_that_asks_is_answered_when_it_is_on_disk() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    peer.durable_queue("q", table! {}).await;
    peer.fill("q", &["a", "b", "c"]).await;
    peer.consume("q", 1).await;
    assert_eq!(peer.deliveries::<3>(1).await, ["a", "b", "c"]);
    let ranges = [(1, 1), (3, 3)];
    let parts =
        SettleParts { consumer: 1, verb: Verb::Reject, confirm: true, note: Some("why"), ranges: &ranges };
    peer.settle_parts(&parts).await;
    let settled = peer.take("Settled", |frame| (frame.kind == kind::SETTLED).then(|| frame.clone())).await;
    assert_eq!(settled.channel, 1);
    assert_eq!(settled.flags, 0b0111, "the verb and `confirm`; the note does not come back");
    let settled = Settle::decode(settled.flags, &settled.payload).unwrap();
    assert_eq!((settled.consumer, settled.verb, settled.note), (1, Verb::Reject, None));
    assert_eq!(settled.ranges.iter().collect::<Vec<_>>(), ranges);
}

#[tokio::test]
async fn what_needs_no_acknowledgement_cannot_be_settled() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    peer.queue("q", table! {}).await;
    let no_ack =
        |request| leveret_protocol::Consume { no_ack: true, ..leveret_tests::consume(request, "q", 1) };
    peer.must(|request| no_ack(request).into()).await;
    peer.fill("q", &["a"]).await;
    let received = peer.delivery(1).await;
    peer.settle(&received, Verb::Requeue).await;
    assert_eq!(peer.channel_closed(1).await.code, ReplyCode::PreconditionFailed);
    peer.open_channel(1, true).await;
    assert_eq!(peer.ready("q").await, 0);
}

#[tokio::test]
async fn a_settle_comes_after_the_publishes_before_it() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    peer.queue("q", table! { "x-max-length" => 1, "x-overflow" => "reject-publish" }).await;
    peer.fill("q", &["old"]).await;
    let old = peer.get("q").await.unwrap();
    // In one write, so that the broker reads both together. Were "old" back first, there would be no room for "new".
    let mut bytes = bytes::BytesMut::new();
    let publish = leveret_protocol::PublishParts {
        route: leveret_protocol::Route::Named { exchange: "", routing_key: "q" },
        mandatory: false,
        persistent: false,
        priority: None,
        ttl_ms: None,
        cc: &[],
        bcc: &[],
        properties: &[],
        body: b"new",
    };
    publish.encode(1, &mut bytes);
    let ranges = [(old.tag, old.tag)];
    let (consumer, verb) = (old.consumer, Verb::Release);
    SettleParts { consumer, verb, confirm: false, note: None, ranges: &ranges }.encode(
        kind::SETTLE,
        1,
        &mut bytes,
    );
    peer.write(&bytes).await;
    assert_eq!(peer.confirm(1, 2).await, leveret_protocol::Outcome::Routed(1));
}
