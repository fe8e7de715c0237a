//! A broker that is short of disk or memory takes no publishes, says so, and does everything else.

use leveret_broker::Broker;
use leveret_broker::pressure::Cause;
use leveret_client::{Client, Publishing};
use leveret_protocol::{ChannelClosed, Control, Outcome, ReplyCode, Verb};
use leveret_tests::{Login, Peer, broker, broker_with, config, post, table, within};

const REASON: &str = "the disk is almost full";

async fn paused(peer: &mut Peer) -> String {
    let pick = |control| match control {
        Control::PublishingPaused(paused) => Some(paused.reason),
        _ => None,
    };
    peer.take_control("PublishingPaused", 0, pick).await
}

async fn resumed(peer: &mut Peer) {
    let pick = |control| matches!(control, Control::PublishingResumed(_)).then_some(());
    peer.take_control("PublishingResumed", 0, pick).await;
}

#[tokio::test]
async fn while_publishing_is_paused_publishes_are_refused_and_everything_else_goes_on() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    peer.queue("q", table! {}).await;
    peer.fill("q", &["a", "b", "c"]).await;
    peer.consume("q", 1).await;
    let [a, b] = [peer.delivery(1).await, peer.delivery(1).await];
    for _ in 0..2 {
        broker.pressure().hold(Cause::Program, REASON);
        assert_eq!(paused(&mut peer).await, REASON);
        let refused = Outcome::Refused(ReplyCode::PublishingPaused);
        assert_eq!(peer.publish(post("", "q", "refused")).await, refused);
        peer.queue("another", table! {}).await;
        broker.pressure().release(Cause::Program);
        resumed(&mut peer).await;
        assert_eq!(peer.publish(post("", "another", "taken")).await, Outcome::Routed(1));
    }
    broker.pressure().hold(Cause::Program, REASON);
    paused(&mut peer).await;
    peer.settle(&a, Verb::Ack).await;
    peer.settle(&b, Verb::Requeue).await;
    assert_eq!(peer.delivery(1).await.body, "c");
    assert_eq!(peer.delivery(1).await.body, "b", "it came back, on the same connection");
    assert_eq!(peer.ready("another").await, 2);
}

#[tokio::test]
async fn whoever_connects_while_publishing_is_paused_is_told_at_once() {
    let broker = broker().await;
    broker.pressure().hold(Cause::Program, REASON);
    let mut peer = Peer::socket(&broker).await;
    peer.enter(&Login::default()).await.unwrap();
    let Control::PublishingPaused(paused) = peer.control().await else { panic!("nothing before it") };
    assert_eq!(paused.reason, REASON);
    // Whoever comes when it is over is told nothing.
    broker.pressure().release(Cause::Program);
    let mut other = Peer::connect(&broker).await;
    other.queue("q", table! {}).await;
    assert_eq!(other.publish(post("", "q", "x")).await, Outcome::Routed(1));
    other.say(0, leveret_protocol::Close { code: ReplyCode::Ok, text: String::new() }).await;
    assert!(matches!(other.control().await, Control::Closed(_)));
}

#[tokio::test]
async fn a_publisher_without_confirms_loses_its_channel_and_not_its_messages_in_silence() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    peer.queue("q", table! {}).await;
    peer.open_channel(2, false).await;
    broker.pressure().hold(Cause::Program, REASON);
    peer.send_on(2, &post("", "q", "refused")).await;
    let ChannelClosed { code, text, .. } = peer.channel_closed(2).await;
    assert_eq!(code, ReplyCode::PublishingPaused);
    assert!(text.starts_with(REASON), "{text}");
    assert_eq!(peer.ready("q").await, 0);
}

#[tokio::test]
async fn a_client_of_version_1_0_is_refused_with_a_code_that_it_knows_and_hears_nothing_new() {
    let broker = broker().await;
    let mut peer = Peer::socket(&broker).await;
    peer.write(b"LVRT\x01\0\0\0").await;
    peer.rest_of_the_handshake(&Login::default()).await.unwrap();
    peer.open_channel(1, true).await;
    peer.queue("q", table! {}).await;
    broker.pressure().hold(Cause::Program, REASON);
    assert_eq!(peer.publish(post("", "q", "x")).await, Outcome::Refused(ReplyCode::ResourceError));
    broker.pressure().release(Cause::Program);
    assert_eq!(peer.publish(post("", "q", "x")).await, Outcome::Routed(1));
    peer.say(0, leveret_protocol::Close { code: ReplyCode::Ok, text: String::new() }).await;
    assert!(matches!(peer.control().await, Control::Closed(_)), "no frame that 1.0 does not have");
}

async fn client(broker: &Broker) -> Client {
    let client = Client::connect(&broker.url()).await.unwrap();
    client.declare(leveret_client::Queue::durable("q")).await.unwrap();
    client
}

#[tokio::test]
async fn the_clients_publishers_wait_while_publishing_is_paused_and_go_on_by_themselves() {
    let broker = broker().await;
    let client = client(&broker).await;
    let confirmed = client.publisher("").open().await.unwrap();
    let unconfirmed = client.publisher("").unconfirmed().open().await.unwrap();
    let mut watch = client.publishing();
    confirmed.publish("q", "1").await.unwrap();
    for round in 0..3 {
        broker.pressure().hold(Cause::Program, REASON);
        // Whether this comes before or after the client has been told makes no difference to its caller.
        let publishing = tokio::spawn({
            let confirmed = confirmed.clone();
            async move { confirmed.publish("q", "2").await }
        });
        let told = within("the pause", watch.changed()).await;
        assert_eq!(told, Some(Publishing::Paused { reason: REASON.into() }));
        let sending = tokio::spawn({
            let unconfirmed = unconfirmed.clone();
            async move { unconfirmed.send("q", "3").await }
        });
        // An answer of the broker's that is later than all that was sent before.
        let before = client.check_queue("q").await.unwrap().messages();
        assert_eq!(before, 1 + 2 * round);
        assert!(!publishing.is_finished() && !sending.is_finished());
        broker.pressure().release(Cause::Program);
        assert_eq!(within("the end", watch.changed()).await, Some(Publishing::Open));
        within("the confirm", publishing).await.unwrap().unwrap();
        within("the room", sending).await.unwrap().unwrap();
        // The unconfirmed one has a channel of its own, and nobody says when it has come.
        within("the message", async {
            while client.check_queue("q").await.unwrap().messages() < before + 2 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    client.close().await.unwrap();
}

#[tokio::test]
async fn a_broker_whose_disk_has_too_little_room_pauses_publishing_from_the_start() {
    let mut config = config();
    config.disk.free_bytes_low = 1 << 60;
    config.disk.free_bytes_high = 1 << 60;
    let broker = broker_with(config).await;
    let mut peer = Peer::connect(&broker).await;
    assert_eq!(paused(&mut peer).await, "the broker's disk is almost full");
    peer.durable_queue("q", table! {}).await;
    assert_eq!(peer.publish(post("", "q", "x")).await, Outcome::Refused(ReplyCode::PublishingPaused));
}

#[tokio::test]
async fn a_broker_that_takes_too_much_memory_pauses_publishing() {
    let mut config = config();
    config.memory.resident_bytes_max = 64 << 20;
    // A part of this process, as the broker is.
    let ballast = vec![1_u8; 80 << 20];
    let broker = broker_with(config).await;
    let mut peer = Peer::connect(&broker).await;
    assert_eq!(paused(&mut peer).await, "the broker is short of memory");
    drop(ballast);
}
