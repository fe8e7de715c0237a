//! Consumers and what becomes of their deliveries.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "it is all test code")]

mod support;

use std::pin::Pin;

use bytes::BytesMut;
use futures_core::Stream;
use leveret_client::{Client, ConnectionLost, ConsumeError, Consumer, ConsumerBuilder, Recovery, ReplyCode};
use leveret_protocol::{
    ChannelClosed, Close, ConsumerCancelled, Control, Credit, Done, Get, Properties, Verb, kind,
};
use support::{CONTROL, Conversation, FIRST, Peer, delivery, done, in_time, settled_frame};

async fn open(conversation: &mut Conversation, builder: ConsumerBuilder) -> Consumer {
    let (consumer, ()) = tokio::join!(builder.open(), conversation.open_consumer(FIRST, "invoices"));
    consumer.unwrap()
}

async fn consumer(peer: &Peer) -> (Client, Consumer, Conversation) {
    let (client, mut conversation) = peer.connected().await;
    let consumer = open(&mut conversation, client.consumer("invoices").prefetch_max(8)).await;
    (client, consumer, conversation)
}

async fn next(consumer: &mut Consumer) -> leveret_client::Delivery {
    in_time(consumer.next()).await.expect("a delivery, and not the end").unwrap()
}

#[tokio::test]
async fn acks_of_a_batch_are_one_range() {
    let peer = Peer::listen().await;
    let (_client, mut consumer, mut conversation) = consumer(&peer).await;
    conversation.deliver(FIRST, 1, 1..=8).await;
    for tag in 1..=8u64 {
        let delivery = next(&mut consumer).await;
        assert_eq!((delivery.tag(), delivery.body()), (tag, tag.to_string().as_bytes()));
        assert_eq!((delivery.exchange(), delivery.routing_key()), ("orders", "order.paid"));
        delivery.ack();
    }
    // One thread, and not a single wait since the first delivery: what was acked is told in one go.
    let settled = conversation.settled().await;
    assert_eq!((settled.channel, settled.verb, settled.ranges), (FIRST, Verb::Ack, vec![(1, 8)]));
}

#[tokio::test]
async fn each_way_to_settle_has_its_verb() {
    let peer = Peer::listen().await;
    let (_client, mut consumer, mut conversation) = consumer(&peer).await;
    conversation.deliver(FIRST, 1, 1..=5).await;
    let mut deliveries = Vec::new();
    for _ in 0..5 {
        deliveries.push(next(&mut consumer).await);
    }
    let [first, second, third, fourth, fifth] = deliveries.try_into().unwrap();
    first.ack();
    second.requeue();
    third.release();
    fourth.reject("not an invoice");
    // A panic or an early return: begun, failed, and counted.
    drop(fifth);
    let mut settled = Vec::new();
    for _ in 0..4 {
        let frame = conversation.settled().await;
        settled.push((frame.verb, frame.note, frame.ranges));
    }
    let expected = [
        (Verb::Ack, None, vec![(1, 1)]),
        (Verb::Requeue, None, vec![(2, 2), (5, 5)]),
        (Verb::Release, None, vec![(3, 3)]),
        (Verb::Reject, Some("not an invoice".to_owned()), vec![(4, 4)]),
    ];
    assert_eq!(settled, expected);
}

#[tokio::test]
async fn a_durable_ack_waits_for_the_disk() {
    let peer = Peer::listen().await;
    let (_client, mut consumer, mut conversation) = consumer(&peer).await;
    conversation.deliver(FIRST, 1, 1..=2).await;
    let (first, second) = (next(&mut consumer).await, next(&mut consumer).await);
    let mut acks = Box::pin(async { tokio::join!(first.ack_durably(), second.ack_durably()) });
    let settled = tokio::select! {
        _ = &mut acks => panic!("not before the broker says so"),
        settled = conversation.settled() => settled,
    };
    assert!(settled.confirm);
    assert_eq!(settled.ranges, [(1, 2)]);
    conversation.write(&settled_frame(FIRST, &[(1, 2)])).await;
    let (first, second) = in_time(acks).await;
    first.unwrap();
    second.unwrap();
}

#[tokio::test]
async fn a_durable_ack_that_a_loss_cuts_off_says_so() {
    let peer = Peer::listen().await;
    let (_client, mut consumer, mut conversation) = consumer(&peer).await;
    conversation.deliver(FIRST, 1, 1..=2).await;
    let (first, second) = (next(&mut consumer).await, next(&mut consumer).await);
    let cut_off = async {
        conversation.settled().await;
        drop(conversation);
    };
    let (settled, ()) = in_time(async { tokio::join!(first.ack_durably(), cut_off) }).await;
    assert!(matches!(settled, Err(leveret_client::SettleError::OutcomeUnknown(_))), "{settled:?}");
    let settled = in_time(second.ack_durably()).await;
    assert!(matches!(settled, Err(leveret_client::SettleError::Stale)), "{settled:?}");
}

#[tokio::test]
async fn a_consumer_is_a_stream() {
    let peer = Peer::listen().await;
    let (_client, mut consumer, mut conversation) = consumer(&peer).await;
    conversation.deliver(FIRST, 1, 1..=1).await;
    let delivery = in_time(std::future::poll_fn(|context| Pin::new(&mut consumer).poll_next(context))).await;
    delivery.unwrap().unwrap().ack();
}

#[tokio::test]
async fn a_consumer_survives_a_loss_and_stale_acks_are_dropped() {
    let peer = Peer::listen().await;
    let (client, mut consumer, mut conversation) = consumer(&peer).await;
    conversation.deliver(FIRST, 1, 1..=3).await;
    // One is in the application's hands, two are on their way to it.
    let stale = next(&mut consumer).await;
    drop(conversation);
    let mut conversation = peer.accept().await;
    conversation.open_consumer(FIRST, "invoices").await;
    // The tags begin anew: an ack of the old 1 must not settle the new one.
    conversation.deliver(FIRST, 1, 1..=2).await;
    let fresh = next(&mut consumer).await;
    assert_eq!(fresh.tag(), 1, "what was on its way comes again, so it is not handed out twice");
    stale.ack();
    let second = next(&mut consumer).await;
    assert_eq!(second.tag(), 2);
    second.ack();
    assert_eq!(conversation.settled().await.ranges, [(2, 2)]);
    fresh.reject("");
    let settled = conversation.settled().await;
    assert_eq!((settled.verb, settled.note, settled.ranges), (Verb::Reject, None, vec![(1, 1)]));
    drop(client);
}

#[tokio::test]
async fn a_refused_consumer_says_why() {
    let peer = Peer::listen().await;
    let (client, mut conversation) = peer.connected().await;
    let serve = async {
        conversation.answer(FIRST, "OpenChannel").await;
        conversation.refuse(FIRST, "Consume", ReplyCode::NotFound).await;
        conversation.answer(FIRST, "CloseChannel").await;
    };
    let (consumer, ()) = in_time(async { tokio::join!(client.consumer("invoices").open(), serve) }).await;
    let error = consumer.unwrap_err();
    assert!(
        matches!(&error, ConsumeError::Refused(refusal) if refusal.code == ReplyCode::NotFound),
        "{error}"
    );
    assert!(error.to_string().contains("Consume: for a test (code 404)"), "{error}");
}

#[tokio::test]
async fn a_consumer_whose_queue_is_gone_after_a_loss_ends_with_the_reason() {
    let peer = Peer::listen().await;
    let (_client, mut consumer, conversation) = consumer(&peer).await;
    drop(conversation);
    let serve = async {
        let mut conversation = peer.accept().await;
        conversation.answer(FIRST, "OpenChannel").await;
        conversation.refuse(FIRST, "Consume", ReplyCode::NotFound).await;
        conversation
    };
    let (error, _conversation) = in_time(async { tokio::join!(consumer.next(), serve) }).await;
    assert!(matches!(error, Some(Err(ConsumeError::Refused(_)))), "{error:?}");
    assert!(in_time(consumer.next()).await.is_none());
}

#[tokio::test]
async fn a_cancelled_consumer_gets_what_came_and_then_the_reason() {
    let peer = Peer::listen().await;
    let (_client, mut consumer, mut conversation) = consumer(&peer).await;
    conversation.deliver(FIRST, 1, 1..=1).await;
    let text = "the queue was deleted".to_owned();
    conversation.send(FIRST, ConsumerCancelled { consumer: 1, code: ReplyCode::NotFound, text }).await;
    next(&mut consumer).await.ack();
    let error = in_time(consumer.try_next()).await.unwrap_err();
    assert!(error.to_string().contains("the queue was deleted"), "{error}");
    assert!(in_time(consumer.try_next()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_closed_channel_ends_its_consumer_and_no_other() {
    let peer = Peer::listen().await;
    let (client, mut consumer, mut conversation) = consumer(&peer).await;
    let second = client.consumer("invoices").open();
    let (second, ()) = tokio::join!(second, conversation.open_consumer(FIRST + 1, "invoices"));
    let mut second = second.unwrap();
    let closed = ChannelClosed {
        code: ReplyCode::PreconditionFailed,
        text: "unknown delivery tag 9".to_owned(),
        operation: "Settle".to_owned(),
    };
    conversation.send(FIRST, closed).await;
    conversation.deliver(FIRST + 1, 1, 1..=1).await;
    let error = in_time(consumer.try_next()).await.unwrap_err();
    assert!(matches!(&error, ConsumeError::ChannelClosed(_)), "{error}");
    next(&mut second).await.ack();
    assert_eq!(conversation.settled().await.channel, FIRST + 1);
}

#[tokio::test]
async fn without_recovery_a_loss_ends_the_consumer() {
    let peer = Peer::listen().await;
    let (client, mut conversation) = peer.connected_as(peer.builder().recovery(Recovery::off())).await;
    let mut consumer = open(&mut conversation, client.consumer("invoices")).await;
    drop(conversation);
    let error = in_time(consumer.try_next()).await.unwrap_err();
    assert!(matches!(&error, ConsumeError::ConnectionLost(ConnectionLost::HungUp)), "{error}");
    assert!(error.is_retryable());
    assert!(in_time(consumer.try_next()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_consumer_that_sleeps_is_woken_by_a_goodbye_in_the_batch_of_its_delivery() {
    let peer = Peer::listen().await;
    let (client, mut conversation) = peer.connected_as(peer.builder().recovery(Recovery::off())).await;
    let mut consumer = open(&mut conversation, client.consumer("invoices").prefetch_max(8)).await;
    // In a task of its own, so that it sleeps by the time that the bytes come.
    let consuming = tokio::spawn(async move { consumer.next().await.unwrap().unwrap_err() });
    tokio::task::yield_now().await;
    let mut bytes = BytesMut::new();
    delivery(FIRST, 1, 1, &[], b"1", &mut bytes);
    let close = Close { code: ReplyCode::ConnectionForced, text: "the broker is shutting down".to_owned() };
    Control::from(close).encode(0, &mut bytes).unwrap();
    conversation.write(&bytes).await;
    // The broker has the delivery back already, so that only the reason is left.
    let error = in_time(consuming).await.unwrap();
    assert!(matches!(error, ConsumeError::ConnectionLost(ConnectionLost::Ended(_))), "{error}");
}

#[tokio::test]
async fn a_dropped_consumer_releases_what_it_did_not_hand_out() {
    let peer = Peer::listen().await;
    let (_client, mut consumer, mut conversation) = consumer(&peer).await;
    conversation.deliver(FIRST, 1, 1..=4).await;
    let kept = next(&mut consumer).await;
    drop(consumer);
    conversation.request(FIRST, "Cancel").await;
    assert_eq!(conversation.settled_in_all(Verb::Release, 3).await, [(2, 4)]);
    // Came before the broker knew.
    conversation.deliver(FIRST, 1, 5..=5).await;
    assert_eq!(conversation.settled_in_all(Verb::Release, 1).await, [(5, 5)]);
    // The channel stays open for the one that the application holds, and its ack comes before the end.
    kept.ack();
    assert_eq!(conversation.settled_in_all(Verb::Ack, 1).await, [(1, 1)]);
    conversation.answer(FIRST, "CloseChannel").await;
}

#[tokio::test]
async fn without_acks_credit_is_granted_as_messages_are_taken() {
    let peer = Peer::listen().await;
    let (client, mut conversation) = peer.connected().await;
    let mut consumer =
        open(&mut conversation, client.consumer("invoices").prefetch_max(8).without_acks()).await;
    conversation.deliver(FIRST, 1, 1..=8).await;
    for _ in 0..3 {
        next(&mut consumer).await.ack();
    }
    drop(next(&mut consumer).await);
    let frame = conversation.frame().await.unwrap();
    assert_eq!((frame.kind, frame.channel), (kind::CREDIT, FIRST), "and no settle");
    assert_eq!(Credit::decode(&frame.payload).unwrap(), Credit { consumer: 1, messages: 4 });
}

#[tokio::test]
async fn without_acks_what_came_before_a_loss_is_still_handed_out() {
    let peer = Peer::listen().await;
    let (client, mut conversation) = peer.connected().await;
    let mut consumer =
        open(&mut conversation, client.consumer("invoices").prefetch_max(8).without_acks()).await;
    conversation.deliver(FIRST, 1, 1..=3).await;
    // An answer behind the deliveries says that they are in.
    let (purged, _) = tokio::join!(client.purge("other"), conversation.answer(CONTROL, "PurgeQueue"));
    purged.unwrap();
    drop(conversation);
    let mut conversation = peer.accept().await;
    conversation.answer(FIRST, "OpenChannel").await;
    let Control::Consume(consume) = conversation.answer(FIRST, "Consume").await else { unreachable!() };
    assert_eq!(consume.prefetch, 5, "three places are taken");
    for body in ["1", "2", "3"] {
        assert_eq!(next(&mut consumer).await.body(), body.as_bytes());
    }
}

#[tokio::test]
async fn a_broker_that_exceeds_the_prefetch_is_not_listened_to() {
    let peer = Peer::listen().await;
    let (client, mut conversation) = peer.connected_as(peer.builder().recovery(Recovery::off())).await;
    let mut consumer = open(&mut conversation, client.consumer("invoices").prefetch_max(4)).await;
    conversation.deliver(FIRST, 1, 1..=9).await;
    let error = in_time(consumer.try_next()).await.unwrap_err();
    assert!(error.to_string().contains("prefetch of 4"), "{error}");
}

#[tokio::test]
async fn get_takes_one_message_and_settles_it() {
    let peer = Peer::listen().await;
    let (client, mut conversation) = peer.connected().await;
    let serve = async {
        let (request, _) = conversation.request(CONTROL, "Get").await;
        conversation.send(CONTROL, Done { found: Some(false), ..done(request) }).await;
        let (request, control) = conversation.request(CONTROL, "Get").await;
        let Control::Get(Get { consumer, no_ack: false, .. }) = control else { panic!("{control:?}") };
        conversation.send(CONTROL, Done { found: Some(true), ..done(request) }).await;
        conversation.deliver(CONTROL, consumer, 1..=1).await;
        conversation.settled().await
    };
    let ask = async {
        assert!(client.get("invoices").await.unwrap().is_none());
        let delivery = client.get("invoices").await.unwrap().unwrap();
        assert_eq!(delivery.body(), b"1");
        delivery.ack();
    };
    let (settled, ()) = in_time(async { tokio::join!(serve, ask) }).await;
    assert_eq!((settled.channel, settled.verb, settled.ranges), (CONTROL, Verb::Ack, vec![(1, 1)]));
}

#[tokio::test]
async fn bodies_are_read_as_what_they_are() {
    let peer = Peer::listen().await;
    let (_client, mut consumer, mut conversation) = consumer(&peer).await;
    let properties = Properties { correlation_id: Some("c-1".to_owned()), ..Properties::default() };
    let mut out = BytesMut::new();
    let bodies = [br#"{"id":42}"#.to_vec(), rmp_serde::to_vec_named(&[1, 2]).unwrap(), vec![b'x'; 100_000]];
    for (body, tag) in bodies.iter().zip(1..) {
        delivery(FIRST, 1, tag, &properties.encode().unwrap(), body, &mut out);
    }
    conversation.write(&out).await;
    let json = next(&mut consumer).await;
    assert_eq!(json.json::<serde_json::Value>().unwrap(), serde_json::json!({"id": 42}));
    assert_eq!(json.properties().unwrap(), properties);
    assert!(json.message_pack::<Vec<u32>>().is_err());
    assert_eq!(next(&mut consumer).await.message_pack::<Vec<u32>>().unwrap(), [1, 2]);
    let large = next(&mut consumer).await;
    assert_eq!((large.body_bytes(), large.body()), (bodies[2].clone().into(), &bodies[2][..]));
}

#[tokio::test]
async fn close_ends_consumers_and_releases_what_they_did_not_hand_out() {
    let peer = Peer::listen().await;
    let (client, mut consumer, mut conversation) = consumer(&peer).await;
    conversation.deliver(FIRST, 1, 1..=2).await;
    next(&mut consumer).await.ack();
    let serve = async {
        let mut verbs = Vec::new();
        loop {
            let frame = conversation.frame().await.unwrap();
            match frame.kind {
                kind::SETTLE => {
                    verbs.push(leveret_protocol::Settle::decode(frame.flags, &frame.payload).unwrap().verb);
                }
                _ => match Control::decode(frame.kind, &frame.payload).unwrap() {
                    Control::Close(_) => break,
                    other => assert_eq!(other.name(), "Cancel"),
                },
            }
        }
        conversation.send(0, leveret_protocol::Closed {}).await;
        verbs
    };
    let closing = async {
        client.close().await.unwrap();
        assert!(consumer.next().await.is_none());
    };
    let (verbs, ()) = in_time(async { tokio::join!(serve, closing) }).await;
    assert_eq!(verbs, [Verb::Ack, Verb::Release]);
}
