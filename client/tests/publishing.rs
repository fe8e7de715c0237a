//! Publishers: receipts, the window, and what comes back.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "it is all test code")]

mod support;

use std::time::Duration;

use bytes::BytesMut;
use leveret_client::{
    ConnectionLost, ConnectionState, Interruption, Message, PublishError, Publisher, Recovery, ReplyCode,
};
use leveret_protocol::{ChannelClosed, Close, Confirm, Control, Outcome};
use support::{CONTROL, Conversation, FIRST, Limits, Peer, in_time};

async fn publisher(peer: &Peer) -> (leveret_client::Client, Publisher, Conversation) {
    let (client, mut conversation) = peer.connected().await;
    let (publisher, ()) =
        tokio::join!(client.publisher("orders").in_flight_max(4).open(), conversation.open_publisher(FIRST));
    (client, publisher.unwrap(), conversation)
}

#[tokio::test]
async fn publish_returns_when_the_broker_has_confirmed() {
    let peer = Peer::listen().await;
    let (_client, publisher, mut conversation) = publisher(&peer).await;
    let mut publish = Box::pin(publisher.publish("order.paid", "body"));
    let got = tokio::select! {
        _ = &mut publish => panic!("not before the confirm"),
        got = conversation.published(FIRST) => got,
    };
    assert_eq!((got.exchange.as_str(), got.routing_key.as_str()), ("orders", "order.paid"));
    assert!(got.persistent, "messages survive unless somebody says otherwise");
    assert_eq!(got.body, b"body");
    conversation.confirm(FIRST, &[(1, 1, Outcome::Routed(2))]).await;
    assert_eq!(in_time(publish).await.unwrap().queues, 2);
}

#[tokio::test]
async fn a_confirm_that_comes_with_the_goodbye_wakes_its_publisher() {
    let peer = Peer::listen().await;
    let (_client, publisher, mut conversation) = publisher(&peer).await;
    let publish = tokio::spawn(async move { publisher.publish("order.paid", "body").await });
    conversation.published(FIRST).await;
    let mut both = BytesMut::new();
    Confirm::encode(&[Confirm { first: 1, count: 1, outcome: Outcome::Routed(1) }], FIRST, &mut both);
    let goodbye = Close { code: ReplyCode::ConnectionForced, text: "the broker stops".to_owned() };
    Control::from(goodbye).encode(0, &mut both).unwrap();
    conversation.write(&both).await;
    assert_eq!(in_time(publish).await.unwrap().unwrap().queues, 1);
}

#[tokio::test]
async fn what_is_sent_after_the_goodbye_is_refused_with_the_brokers_reason() {
    let peer = Peer::listen().await;
    let (client, mut conversation) = peer.connected_as(peer.builder().recovery(Recovery::off())).await;
    let (publisher, ()) = tokio::join!(client.publisher("orders").open(), conversation.open_publisher(FIRST));
    let publisher = publisher.unwrap();
    let mut state = client.state();
    conversation
        .send(0, Close { code: ReplyCode::ConnectionForced, text: "the broker stops".to_owned() })
        .await;
    while !matches!(state.current(), ConnectionState::Closed { .. }) {
        in_time(state.changed()).await;
    }
    let error = in_time(publisher.publish("order.paid", "body")).await.unwrap_err();
    let PublishError::NotSent { cause: Interruption::Connection(ConnectionLost::Ended(reason)), .. } = error
    else {
        panic!("{error}")
    };
    assert_eq!(reason.text, "the broker stops");
}

#[tokio::test]
async fn confirms_come_as_ranges_in_any_order() {
    let peer = Peer::listen().await;
    let (_client, publisher, mut conversation) = publisher(&peer).await;
    let mut receipts = Vec::new();
    for body in ["1", "2", "3", "4"] {
        receipts.push(publisher.send("key", body).await.unwrap());
    }
    let refused = Outcome::Refused(ReplyCode::ResourceError);
    conversation
        .confirm(FIRST, &[(3, 2, Outcome::Routed(1)), (2, 1, refused), (1, 1, Outcome::Unroutable)])
        .await;
    let mut outcomes = Vec::new();
    for receipt in receipts {
        outcomes.push(in_time(receipt.confirmed()).await);
    }
    let [first, second, third, fourth] = outcomes.try_into().unwrap();
    match first.unwrap_err() {
        PublishError::Unroutable { routing_key, message } => {
            assert_eq!((routing_key.as_str(), &message.body()[..]), ("key", &b"1"[..]));
        }
        other => panic!("{other}"),
    }
    let second = second.unwrap_err();
    assert!(matches!(&second, PublishError::Refused { code: ReplyCode::ResourceError, .. }), "{second}");
    assert!(second.is_retryable());
    assert_eq!(&second.into_message().body()[..], b"2");
    assert_eq!((third.unwrap().queues, fourth.unwrap().queues), (1, 1));
}

#[tokio::test]
async fn a_full_window_holds_the_sender_until_a_confirm() {
    let peer = Peer::listen().await;
    let (_client, publisher, mut conversation) = publisher(&peer).await;
    let mut receipts = Vec::new();
    for _ in 0..4 {
        receipts.push(publisher.send("key", "x").await.unwrap());
    }
    // The receipts are held, and one is dropped: neither changes what is in flight.
    drop(receipts.pop());
    let mut fifth = Box::pin(publisher.send("key", "fifth"));
    tokio::select! {
        biased;
        _ = &mut fifth => panic!("four are in flight, and that is the window"),
        () = async { for _ in 0..4 { conversation.published(FIRST).await; } } => {}
    }
    // A confirm behind the oldest makes no room, since the window spans from the oldest.
    conversation.confirm(FIRST, &[(2, 1, Outcome::Routed(1))]).await;
    conversation.confirm(FIRST, &[(1, 1, Outcome::Routed(1))]).await;
    let fifth = in_time(fifth).await.unwrap();
    assert_eq!(conversation.published(FIRST).await.body, b"fifth");
    conversation.confirm(FIRST, &[(3, 3, Outcome::Routed(1))]).await;
    in_time(fifth.confirmed()).await.unwrap();
}

#[tokio::test]
async fn a_cancelled_sender_does_not_take_the_wake_up_with_it() {
    let peer = Peer::listen().await;
    let (_client, publisher, mut conversation) = publisher(&peer).await;
    for _ in 0..4 {
        drop(publisher.send("key", "x").await.unwrap());
    }
    let mut cancelled = Box::pin(publisher.send("key", "cancelled"));
    let mut patient = Box::pin(publisher.send("key", "patient"));
    // Polled in this order, so that the one that goes away is the one that is woken.
    assert!(futures_poll(&mut cancelled).await.is_none());
    assert!(futures_poll(&mut patient).await.is_none());
    let confirmed = async {
        for _ in 0..4 {
            conversation.published(FIRST).await;
        }
        conversation.confirm(FIRST, &[(1, 4, Outcome::Routed(1))]).await;
    };
    confirmed.await;
    drop(cancelled);
    drop(in_time(patient).await.unwrap());
}

/// One poll; `None` if it is not ready.
async fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    std::future::poll_fn(|context| match std::pin::Pin::new(&mut *future).poll(context) {
        std::task::Poll::Ready(output) => std::task::Poll::Ready(Some(output)),
        std::task::Poll::Pending => std::task::Poll::Ready(None),
    })
    .await
}

#[tokio::test]
async fn more_receipts_may_be_held_than_the_window_has_room() {
    let peer = Peer::listen().await;
    let (_client, publisher, mut conversation) = publisher(&peer).await;
    let confirming = async {
        for number in 1..=100 {
            conversation.published(FIRST).await;
            conversation.confirm(FIRST, &[(number, 1, Outcome::Routed(1))]).await;
        }
    };
    let sending = async {
        let mut receipts = Vec::new();
        for _ in 0..100 {
            receipts.push(publisher.send("key", "x").await.unwrap());
        }
        for receipt in receipts {
            receipt.confirmed().await.unwrap();
        }
    };
    in_time(async { tokio::join!(confirming, sending) }).await;
}

#[tokio::test]
async fn what_was_in_flight_at_a_loss_comes_back_and_the_publisher_goes_on() {
    let peer = Peer::listen().await;
    let (_client, publisher, mut conversation) = publisher(&peer).await;
    let first = publisher.send("key", "first").await.unwrap();
    let second = publisher.send("key", "second").await.unwrap();
    conversation.published(FIRST).await;
    conversation.confirm(FIRST, &[(1, 1, Outcome::Routed(1))]).await;
    in_time(first.confirmed()).await.unwrap();
    drop(conversation);

    let error = in_time(second.confirmed()).await.unwrap_err();
    assert!(
        matches!(&error, PublishError::OutcomeUnknown { cause: Interruption::Connection(_), .. }),
        "{error}"
    );
    assert!(error.is_retryable());
    let message = error.into_message();
    assert_eq!(&message.body()[..], b"second");

    // During the recovery a send waits; on the new connection the numbers begin anew.
    let again = publisher.publish("key", message);
    let serve = async {
        let mut conversation = peer.accept().await;
        conversation.open_publisher(FIRST).await;
        assert_eq!(conversation.published(FIRST).await.body, b"second");
        conversation.confirm(FIRST, &[(1, 1, Outcome::Routed(1))]).await;
        conversation
    };
    let (again, _conversation) = in_time(async { tokio::join!(again, serve) }).await;
    again.unwrap();
}

#[tokio::test]
async fn without_recovery_a_loss_ends_the_publisher() {
    let peer = Peer::listen().await;
    let (client, mut conversation) = peer.connected_as(peer.builder().recovery(Recovery::off())).await;
    let open = client.publisher("orders").open();
    let (publisher, ()) = tokio::join!(open, conversation.open_publisher(FIRST));
    let publisher = publisher.unwrap();
    let receipt = publisher.send("key", "x").await.unwrap();
    drop(conversation);
    let error = in_time(receipt.confirmed()).await.unwrap_err();
    assert!(matches!(error, PublishError::OutcomeUnknown { .. }), "{error}");
    let error = in_time(publisher.publish("key", "y")).await.unwrap_err();
    assert!(matches!(&error, PublishError::NotSent { .. }), "{error}");
    assert!(!error.is_retryable());
}

#[tokio::test]
async fn a_message_that_fits_no_frame_is_refused_at_once() {
    let peer = Peer::listen().await;
    let serve = async {
        let mut conversation = peer.accept_opening().await;
        conversation.shake_hands(Limits { frame_bytes_max: 8192, ..Limits::default() }).await;
        conversation.answer(CONTROL, "OpenChannel").await;
        conversation.open_publisher(FIRST).await;
        conversation
    };
    let open = async {
        let client = peer.builder().connect().await.unwrap();
        let publisher = client.publisher("orders").open().await.unwrap();
        (client, publisher)
    };
    let ((_client, publisher), mut conversation) = in_time(async { tokio::join!(open, serve) }).await;
    // 7 bytes of exchange, 4 of key and 4 of empty properties leave this much for the body.
    let fits = 8192 - 7 - 4 - 4;
    let error = publisher.send("key", vec![0; fits + 1]).await.unwrap_err();
    assert!(matches!(&error, PublishError::TooLarge { size: 8193, limit: 8192, .. }), "{error}");
    assert!(error.to_string().contains("8193") && error.to_string().contains("8192"), "{error}");
    assert_eq!(error.into_message().body().len(), fits + 1);
    let error = publisher.send("key", vec![0; 100_000]).await.unwrap_err();
    assert!(matches!(error, PublishError::TooLarge { limit: 8192, .. }));

    let receipt = publisher.send("key", vec![0; fits]).await.unwrap();
    assert_eq!(conversation.published(FIRST).await.body.len(), fits, "nothing of the refused ones was sent");
    conversation.confirm(FIRST, &[(1, 1, Outcome::Routed(1))]).await;
    in_time(receipt.confirmed()).await.unwrap();
}

#[tokio::test]
async fn a_key_that_is_no_key_is_refused_and_nothing_is_sent() {
    let peer = Peer::listen().await;
    let (_client, publisher, mut conversation) = publisher(&peer).await;
    let error = publisher.send(&"k".repeat(256), "x").await.unwrap_err();
    assert!(matches!(&error, PublishError::Invalid { .. }), "{error}");
    drop(publisher.send("key", "y").await.unwrap());
    assert_eq!(conversation.published(FIRST).await.body, b"y");
}

#[tokio::test]
async fn unroutable_is_an_error_only_for_a_mandatory_publisher() {
    let peer = Peer::listen().await;
    let (client, mut conversation) = peer.connected().await;
    let open = client.publisher("news").mandatory(false).persistent(false).open();
    let (publisher, ()) = tokio::join!(open, conversation.open_publisher(FIRST));
    let publisher = publisher.unwrap();
    let receipt = publisher.send("key", "x").await.unwrap();
    assert!(!conversation.published(FIRST).await.persistent);
    conversation.confirm(FIRST, &[(1, 1, Outcome::Unroutable)]).await;
    assert_eq!(in_time(receipt.confirmed()).await.unwrap().queues, 0);
    drop(publisher.send("key", Message::new("x").persistent(true)).await.unwrap());
    assert!(conversation.published(FIRST).await.persistent, "the message's own word counts");
}

#[tokio::test]
async fn an_unconfirmed_publisher_waits_for_nothing() {
    let peer = Peer::listen().await;
    let (client, mut conversation) = peer.connected().await;
    let open = client.publisher("readings").in_flight_max(1).unconfirmed().open();
    let serve = async {
        let control = conversation.answer(FIRST, "OpenChannel").await;
        assert!(matches!(control, Control::OpenChannel(open) if !open.confirms));
    };
    let (publisher, ()) = tokio::join!(open, serve);
    let publisher = publisher.unwrap();
    for _ in 0..100 {
        publisher.send("key", "x").await.unwrap();
    }
    for _ in 0..100 {
        conversation.published(FIRST).await;
    }
    // Its end is all that such a publisher learns, so that it is not opened again behind its back.
    conversation.send(FIRST, no_exchange()).await;
    let (purged, _) = tokio::join!(client.purge("other"), conversation.answer(CONTROL, "PurgeQueue"));
    purged.unwrap();
    let error = publisher.send("key", "x").await.unwrap_err();
    assert!(matches!(&error, PublishError::NotSent { cause: Interruption::Channel(_), .. }), "{error}");
    assert!(error.to_string().contains("no exchange 'orders'"), "{error}");
}

fn no_exchange() -> ChannelClosed {
    ChannelClosed {
        code: ReplyCode::NotFound,
        text: "no exchange 'orders'".to_owned(),
        operation: "Publish".to_owned(),
    }
}

#[tokio::test]
async fn a_closed_channel_gives_its_messages_back_and_is_opened_again() {
    let peer = Peer::listen().await;
    let (_client, publisher, mut conversation) = publisher(&peer).await;
    let receipt = publisher.send("key", "x").await.unwrap();
    conversation.published(FIRST).await;
    conversation.send(FIRST, no_exchange()).await;
    let error = in_time(receipt.confirmed()).await.unwrap_err();
    assert!(error.to_string().contains("no exchange 'orders'"), "{error}");
    conversation.open_publisher(FIRST).await;
    let receipt = publisher.send("key", "y").await.unwrap();
    conversation.published(FIRST).await;
    conversation.confirm(FIRST, &[(1, 1, Outcome::Routed(1))]).await;
    in_time(receipt.confirmed()).await.unwrap();
}

#[tokio::test]
async fn a_dropped_publisher_closes_its_channel_after_the_last_confirm() {
    let peer = Peer::listen().await;
    let (client, publisher, mut conversation) = publisher(&peer).await;
    let receipt = publisher.send("key", "x").await.unwrap();
    drop(publisher);
    conversation.published(FIRST).await;
    conversation.confirm(FIRST, &[(1, 1, Outcome::Routed(1))]).await;
    in_time(receipt.confirmed()).await.unwrap();
    conversation.answer(FIRST, "CloseChannel").await;
    // Behind an answer that comes later the number is free again.
    let (purged, _) = tokio::join!(client.purge("other"), conversation.answer(CONTROL, "PurgeQueue"));
    purged.unwrap();
    let (publisher, ()) = tokio::join!(client.publisher("orders").open(), conversation.open_publisher(FIRST));
    publisher.unwrap();
}

#[tokio::test]
async fn close_waits_for_the_confirms() {
    let peer = Peer::listen().await;
    let (client, publisher, mut conversation) = publisher(&peer).await;
    let receipt = publisher.send("key", "x").await.unwrap();
    let serve = async {
        conversation.published(FIRST).await;
        conversation.confirm(FIRST, &[(1, 1, Outcome::Routed(1))]).await;
        let (_, control) = conversation.control().await;
        assert!(matches!(control, Control::Close(_)), "{control:?}");
        conversation.send(0, leveret_protocol::Closed {}).await;
    };
    let (closed, ()) = in_time(async { tokio::join!(client.close(), serve) }).await;
    closed.unwrap();
    in_time(receipt.confirmed()).await.unwrap();
    let error = publisher.publish("key", "y").await.unwrap_err();
    assert!(matches!(error, PublishError::NotSent { cause: Interruption::Closed, .. }), "{error}");
}

#[tokio::test]
async fn close_gives_up_on_confirms_that_do_not_come() {
    let peer = Peer::listen().await;
    let builder = peer.builder().close_timeout(Duration::from_millis(20));
    let (client, mut conversation) = peer.connected_as(builder).await;
    let (publisher, ()) = tokio::join!(client.publisher("orders").open(), conversation.open_publisher(FIRST));
    let publisher = publisher.unwrap();
    let receipt = publisher.send("key", "x").await.unwrap();
    let serve = async {
        conversation.published(FIRST).await;
        conversation.control().await;
        conversation.send(0, leveret_protocol::Closed {}).await;
    };
    let (closed, ()) = in_time(async { tokio::join!(client.close(), serve) }).await;
    assert!(closed.is_err());
    let error = in_time(receipt.confirmed()).await.unwrap_err();
    assert!(matches!(error, PublishError::OutcomeUnknown { cause: Interruption::Closed, .. }), "{error}");
}
