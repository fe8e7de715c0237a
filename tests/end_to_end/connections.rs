//! Channels and connections: how they begin, live and end.

use bytes::BytesMut;
use leveret_protocol::{
    Close, CloseChannel, Closed, Control, Frame, OpenChannel, Outcome, ReplyCode, Verb, kind,
};
use leveret_tests::{Login, Peer, Post, broker, broker_with, config, consume, declare_queue, post, table};

#[tokio::test]
async fn opening_a_channel_that_cannot_be_opened_fails_and_closes_nothing() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    for channel in [0, 1, 17, u16::MAX] {
        let failed = peer.ask_on(channel, |request| OpenChannel { request, confirms: false }.into()).await;
        assert_eq!(failed.unwrap_err().code, ReplyCode::ChannelError, "channel {channel}");
    }
    peer.open_channel(16, true).await;
}

#[tokio::test]
async fn closing_a_channel_gives_back_what_it_held_and_its_number_begins_anew() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    peer.queue("q", table! {}).await;
    peer.fill("q", &["a", "b"]).await;
    peer.consume("q", 1).await;
    assert_eq!(peer.deliveries::<2>(1).await, ["a", "b"]);
    peer.must(|request| CloseChannel { request }.into()).await;
    peer.open_channel(1, true).await;
    assert_eq!(peer.publish(post("", "q", "c")).await, Outcome::Routed(1), "publishes count from 1 again");
    peer.consume("q", 1).await;
    let again = peer.delivery(1).await;
    assert_eq!((again.tag, again.body.as_str(), again.redelivered), (1, "a", Some(1)));
}

#[tokio::test]
async fn an_error_on_a_channel_leaves_the_others_alone() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    peer.queue("q", table! {}).await;
    peer.consume("q", 1).await;
    peer.open_channel(2, false).await;
    peer.send_on(2, &post("nowhere", "", "x")).await;
    peer.channel_closed(2).await;
    peer.fill("q", &["a"]).await;
    assert_eq!(peer.delivery(1).await.body, "a");
}

#[tokio::test]
async fn what_comes_for_a_channel_that_the_broker_closed_is_ignored_until_it_is_opened() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    peer.open_channel(2, false).await;
    let mut bytes = BytesMut::new();
    let mut add = |control: Control| control.encode(2, &mut bytes).unwrap();
    add(declare_queue(901, "before", false, table! {}).into());
    add(CloseChannel { request: 902 }.into());
    add(declare_queue(903, "between", false, table! {}).into());
    add(OpenChannel { request: 904, confirms: false }.into());
    peer.send_on(2, &post("nowhere", "", "x")).await;
    peer.write(&bytes).await;
    assert!(matches!(peer.control().await, Control::ChannelClosed(_)));
    for request in [902, 904] {
        let Control::Done(done) = peer.control().await else {
            panic!("only what closes and opens is answered")
        };
        assert_eq!(done.request, request);
    }
    assert!(peer.counts("before").await.is_err() && peer.counts("between").await.is_err());
}

#[tokio::test]
async fn closed_is_the_last_frame_and_what_is_due_comes_before_it() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    peer.durable_queue("q", table! {}).await;
    peer.consume("q", 1).await;
    for _ in 0..50 {
        peer.send(&Post { persistent: true, ..post("", "q", "x") }).await;
    }
    peer.say(0, Close { code: ReplyCode::Ok, text: String::new() }).await;
    let mut frames = Vec::new();
    while let Some(frame) = peer.frame().await {
        frames.push(frame);
    }
    let last = frames.pop().unwrap();
    assert_eq!(Control::decode(last.kind, &last.payload), Ok(Control::Closed(Closed {})));
    let confirmed = frames.iter().filter(|frame| frame.kind == kind::CONFIRM);
    let confirmed = confirmed.flat_map(|frame| leveret_protocol::Confirm::decode(&frame.payload).unwrap());
    assert_eq!(confirmed.map(|confirm| confirm.count).sum::<u32>(), 50);
}

#[tokio::test]
async fn two_closes_that_cross_are_both_answered() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    let mut bytes = BytesMut::new();
    Frame { kind: 0x3f, flags: 0, channel: 0, payload: bytes::Bytes::new() }.encode(&mut bytes);
    Control::from(Close { code: ReplyCode::Ok, text: String::new() }).encode(0, &mut bytes).unwrap();
    peer.write(&bytes).await;
    let Control::Close(close) = peer.control().await else {
        panic!("the first of the two is about the frame")
    };
    assert_eq!(close.code, ReplyCode::FrameError);
    assert_eq!(peer.control().await, Control::Closed(Closed {}));
    peer.say(0, Closed {}).await;
    assert_eq!(peer.frame().await, None);
}

#[tokio::test]
async fn who_is_silent_for_two_heartbeats_is_gone_and_its_messages_are_back() {
    let broker = broker().await;
    let mut other = Peer::connect(&broker).await;
    // Long enough for a busy machine to get the messages across before.
    let login = Login { heartbeat_ms: 400, ..Login::default() };
    let mut silent = Peer::login(&broker, &login).await;
    other.queue("q", table! {}).await;
    other.fill("q", &["a"]).await;
    silent.consume("q", 1).await;
    assert_eq!(silent.delivery(1).await.body, "a");
    other.consume("q", 1).await;
    let back = other.delivery(1).await;
    assert_eq!((back.body.as_str(), back.redelivered), ("a", Some(1)));
    assert_eq!(silent.frame().await, None);
}

#[tokio::test]
async fn heartbeats_keep_an_idle_connection() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    let login = Login { heartbeat_ms: 600, ..Login::default() };
    let mut idle = Peer::login(&broker, &login).await;
    for _ in 0..6 {
        idle.heartbeat().await;
        idle.write_frame(kind::HEARTBEAT, 0, 0, &[]).await;
    }
    peer.queue("q", table! {}).await;
    assert_eq!(idle.ready("q").await, 0);
}

#[tokio::test]
async fn a_message_that_does_not_fit_the_frames_of_a_client_stays_and_its_consumer_is_cancelled() {
    let broker = broker().await;
    let mut large = Peer::connect(&broker).await;
    let login = Login { frame_bytes_max: 8192, ..Login::default() };
    let mut small = Peer::login(&broker, &login).await;
    large.queue("q", table! {}).await;
    large.fill("q", &["small", &"x".repeat(10_000), "after"]).await;
    assert_eq!(small.pop("q").await.unwrap().body, "small");
    assert_eq!(small.get_as("q", 5).await.unwrap_err().code, ReplyCode::ContentTooLarge);
    small.must(|request| consume(request, "q", 1).into()).await;
    let cancelled = small
        .take_control("ConsumerCancelled", 1, |control| match control {
            Control::ConsumerCancelled(cancelled) => Some(cancelled),
            _ => None,
        })
        .await;
    assert_eq!((cancelled.consumer, cancelled.code), (1, ReplyCode::ContentTooLarge));
    let stayed = large.get("q").await.unwrap();
    assert_eq!((stayed.body.len(), stayed.redelivered), (10_000, Some(0)), "nobody failed");
    large.settle(&stayed, Verb::Ack).await;
    let after = small.delivery(1).await;
    assert_eq!(after.body, "after", "what fits was sent, and can still be settled");
    small.settle(&after, Verb::Ack).await;
    assert_eq!(small.counts("q").await.unwrap(), (0, 0));
}

#[tokio::test]
async fn vhosts_and_channels_hold_as_much_as_is_configured() {
    let mut config = config();
    config.limits.queues_max = 1;
    config.limits.exchanges_max = 8;
    config.limits.bindings_max = 1;
    config.limits.consumers_max = 1;
    let broker = broker_with(config).await;
    let mut peer = Peer::connect(&broker).await;
    let full = ReplyCode::ResourceError;
    peer.queue("q", table! {}).await;
    let (code, text) = peer.refused(|request| declare_queue(request, "q2", false, table! {}).into()).await;
    assert_eq!((code, text.as_str()), (full, "vhost '/' has 1 queues, which is as many as it may have"));
    peer.queue("q", table! {}).await;
    peer.bind("amq.topic", "q", "a", table! {}).await;
    let queue = || leveret_protocol::Destination::Queue("q".try_into().unwrap());
    let bind = |key: &'static str| {
        move |request| leveret_tests::binding(request, "amq.topic", queue(), key, table! {}).into()
    };
    assert_eq!(peer.refused(bind("b")).await.0, full);
    peer.must(bind("a")).await;
    peer.consume("q", 1).await;
    assert_eq!(peer.refused(|request| consume(request, "q", 2).into()).await.0, full);
    // Every vhost has six exchanges from the beginning.
    peer.exchange("e1", "fanout", table! {}).await;
    peer.exchange("e2", "fanout", table! {}).await;
    peer.exchange("e2", "fanout", table! {}).await;
    let third = |request| leveret_tests::declare_exchange(request, "e3", "fanout", false, table! {}).into();
    assert_eq!(peer.refused(third).await.0, full);
}

#[tokio::test]
async fn who_comes_when_there_are_as_many_connections_as_may_be_waits_for_one_to_end() {
    let mut config = config();
    config.limits.connections_max = 2;
    let broker = broker_with(config).await;
    let mut first = Peer::connect(&broker).await;
    let second = Peer::connect(&broker).await;
    let third = Peer::connect(&broker);
    tokio::pin!(third);
    let others_go_on = async {
        for _ in 0..100 {
            first.queue("q", table! {}).await;
        }
    };
    tokio::select! {
        biased;
        _ = &mut third => panic!("a third connection was served"),
        () = others_go_on => {}
    }
    second.vanish();
    third.await.queue("q", table! {}).await;
}
