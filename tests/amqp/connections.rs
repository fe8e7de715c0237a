//! How connections end.

use leveret_tests::amqp::{Peer, Target, close, method_bytes};
use leveret_tests::{amqp_table, config, fields};

/// Makes the broker close the connection, and does not answer it.
async fn provoke(peer: &mut Peer) {
    peer.send("basic.recover", fields![false]).await;
    assert_eq!(
        peer.expect_on(0, "connection.close").await,
        fields![540, "NOT_IMPLEMENTED - requeue=false", 60, 110]
    );
}

#[tokio::test]
async fn what_comes_behind_the_brokers_close_is_ignored_but_a_close_that_crosses_it() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let queue = target.name("ignored");
    provoke(&mut peer).await;
    let none = amqp_table! {};
    peer.send("queue.declare", fields![&queue, false, true, false, false, false, &none]).await;
    peer.send_on(0, "connection.close", fields![200, "bye", 0, 0]).await;
    assert_eq!(peer.expect_on(0, "connection.close-ok").await, fields![]);
    peer.try_write(&method_bytes(0, "connection.close-ok", &[])).await;
    assert_eq!(peer.frame().await, None);
    let mut other = target.peer().await;
    let passive = fields![&queue, true, false, false, false, false, none];
    assert_eq!(other.refused("queue.declare", passive).await.code, 404, "it was not carried out");
}

#[tokio::test]
async fn what_a_connection_held_comes_back_when_it_is_closed_by_an_error() {
    let target = Target::start().await;
    let (mut peer, mut other) = (target.peer().await, target.peer().await);
    let queue = target.name("held");
    peer.queue(&queue, amqp_table! {}).await;
    peer.fill(&queue, &["held"]).await;
    peer.get(&queue).await.unwrap();
    provoke(&mut peer).await;
    // At once, and not only when the client has answered.
    other.until_counts(&queue, (1, 0)).await;
    assert!(other.get(&queue).await.unwrap().redelivered);
}

#[tokio::test]
async fn a_close_that_is_never_answered_ends_in_the_end() {
    let target = Target::ours(config()).await;
    let mut peer = target.peer().await;
    provoke(&mut peer).await;
    assert_eq!(peer.frame().await, None);
}

#[tokio::test]
async fn a_broker_that_stops_says_so() {
    let mut target = Target::ours(config()).await;
    let mut peer = target.peer().await;
    let broker = target.broker.take().unwrap();
    let (stopped, closed) = tokio::join!(broker.stop(), peer.closed());
    stopped.unwrap();
    let text = "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'";
    assert_eq!(closed, close(320, text, ""));
}
