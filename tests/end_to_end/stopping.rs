//! How a broker says goodbye.

use leveret_protocol::{Close, Confirm, Control, Outcome, ReplyCode, kind};
use leveret_tests::{Peer, Post, broker, broker_at, post, table, within};

#[tokio::test]
async fn a_stop_tells_clients_why_and_ends_when_they_have_answered() {
    let broker = broker().await;
    let mut peers = [Peer::connect(&broker).await, Peer::connect(&broker).await];
    let mut stranger = Peer::socket(&broker).await;
    let stopping = tokio::spawn(broker.stop());
    for peer in &mut peers {
        let close = peer.closed().await;
        let expected =
            Close { code: ReplyCode::ConnectionForced, text: "the broker is shutting down".to_owned() };
        assert_eq!(close, expected);
    }
    assert!(stranger.read_to_end().await.is_empty());
    within("the stop", stopping).await.unwrap().unwrap();
}

#[tokio::test]
async fn what_was_taken_before_a_stop_is_confirmed_before_the_close_and_kept() {
    let data = tempfile::tempdir().unwrap();
    let broker = broker_at(data.path()).await;
    let mut peer = Peer::connect(&broker).await;
    peer.durable_queue("q", table! {}).await;
    for number in 0..200 {
        let body = number.to_string();
        peer.send(&Post { persistent: true, ..post("", "q", &body) }).await;
    }
    let mut confirmed = 0;
    let mut broker = Some(broker);
    let mut stopping = None;
    let close = loop {
        let frame = peer.frame().await.unwrap();
        if frame.kind == kind::CONFIRM {
            for confirm in Confirm::decode(&frame.payload).unwrap() {
                assert_eq!(confirm.outcome, Outcome::Routed(1));
                confirmed += u64::from(confirm.count);
            }
            // In the middle of it, as far as one can tell.
            if let Some(broker) = broker.take() {
                stopping = Some(tokio::spawn(broker.stop()));
            }
        } else if let Ok(Control::Close(close)) = Control::decode(frame.kind, &frame.payload) {
            break close;
        }
    };
    assert_eq!(close.code, ReplyCode::ConnectionForced);
    peer.say(0, leveret_protocol::Closed {}).await;
    assert_eq!(peer.frame().await, None);
    within("the stop", stopping.unwrap()).await.unwrap().unwrap();
    let broker = broker_at(data.path()).await;
    let mut peer = Peer::connect(&broker).await;
    assert_eq!(peer.ready("q").await, confirmed, "as many as were confirmed");
}

#[tokio::test]
async fn a_stopped_broker_accepts_nobody() {
    let broker = broker().await;
    let address = broker.native_addresses()[0];
    broker.stop().await.unwrap();
    let refused = tokio::net::TcpStream::connect(address).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn a_client_that_does_not_answer_cannot_hold_a_stop_up() {
    let mut config = leveret_tests::config();
    config.shutdown_timeout = std::time::Duration::from_millis(100);
    let broker = leveret_tests::broker_with(config).await;
    let silent = Peer::connect(&broker).await;
    within("the stop", broker.stop()).await.unwrap();
    drop(silent);
}
