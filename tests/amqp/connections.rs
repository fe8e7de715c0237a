//! Channels, from their opening to their errors, how connections end, and what a short disk or memory means to them.

use leveret_broker::pressure::Cause;
use leveret_tests::amqp::{Peer, Target, close, method_bytes};
use leveret_tests::{amqp_table, config, fields};

const REASON: &str = "the disk is almost full";

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

#[tokio::test]
async fn a_second_open_of_a_channel_is_504() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let closed = peer.fatal("channel.open", fields![]).await;
    assert_eq!(closed, close(504, "CHANNEL_ERROR - second 'channel.open' seen", "channel.open"));
}

#[tokio::test]
async fn a_method_on_a_channel_that_is_not_open_is_504() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    peer.send_on(7, "basic.qos", fields![0, 1, false]).await;
    let closed = peer.closed().await;
    assert_eq!(closed, close(504, "CHANNEL_ERROR - expected 'channel.open'", "basic.qos"));
}

#[tokio::test]
async fn a_channel_closes_and_opens_again_as_a_new_one() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let queue = target.name("again");
    peer.queue(&queue, amqp_table! {}).await;
    peer.fill(&queue, &["a", "b"]).await;
    assert_eq!(peer.get(&queue).await.unwrap().tag, 1);
    peer.call("channel.close", fields![200, "", 0, 0]).await;
    peer.open_channel(1).await;
    let again = peer.get(&queue).await.unwrap();
    assert_eq!((again.tag, again.redelivered, again.body.as_str()), (1, true, "a"), "tags start anew");
}

#[tokio::test]
async fn after_a_channel_error_all_is_ignored_until_close_ok() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let (queue, missing) = (target.name("ignored"), target.name("missing"));
    let declare = |name: &str, passive: bool| {
        let arguments = fields![name, passive, true, false, false, false, amqp_table! {}];
        method_bytes(1, "queue.declare", &arguments)
    };
    let both = [declare(&missing, true), declare(&queue, false), method_bytes(1, "tx.commit", &[])].concat();
    peer.write(&both).await;
    let text = format!("NOT_FOUND - no queue '{missing}' in vhost '/'");
    assert_eq!(peer.channel_closed().await, close(404, text, "queue.declare"));
    peer.open_channel(1).await;
    let refused =
        peer.refused("queue.declare", fields![&queue, true, false, false, false, false, amqp_table! {}]);
    assert_eq!(refused.await.code, 404, "the declare behind the error was ignored");
}

#[tokio::test]
async fn closes_that_cross_are_both_answered() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let missing = target.name("missing");
    let declare = fields![&missing, true, false, false, false, false, amqp_table! {}];
    let crossing = [
        method_bytes(1, "queue.declare", &declare),
        method_bytes(1, "channel.close", &fields![200, "", 0, 0]),
    ];
    peer.write(&crossing.concat()).await;
    peer.expect("channel.close").await;
    peer.expect("channel.close-ok").await;
    peer.send("channel.close-ok", fields![]).await;
    peer.open_channel(1).await;
    peer.barrier().await;
}

#[tokio::test]
async fn an_error_on_one_channel_leaves_the_others_alone() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let queue = target.name("kept");
    peer.open_channel(2).await;
    let declare = fields![&queue, false, true, false, false, false, amqp_table! {}];
    peer.call_on(2, "queue.declare", declare).await;
    peer.fill(&queue, &["held"]).await;
    peer.send_on(2, "basic.get", fields![&queue, false]).await;
    let held = peer.message_on(2, "basic.get-ok").await;
    assert_eq!(peer.refused("basic.ack", fields![9, false]).await.code, 406);
    peer.send_on(2, "basic.nack", fields![held.tag, false, true]).await;
    peer.until_counts(&queue, (1, 0)).await;
}

#[tokio::test]
async fn flow_can_be_turned_on_and_not_off() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    assert_eq!(peer.call("channel.flow", fields![true]).await, fields![true]);
    let closed = peer.fatal("channel.flow", fields![false]).await;
    assert_eq!(closed, close(540, "NOT_IMPLEMENTED - active=false", "channel.flow"));
}

#[tokio::test]
async fn channel_zero_takes_no_methods_of_channels() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    peer.send_on(0, "basic.qos", fields![0, 1, false]).await;
    let closed = peer.closed().await;
    let text = "CHANNEL_ERROR - unexpected method in connection state running";
    assert_eq!(closed, close(504, text, "basic.qos"));
}

#[tokio::test]
async fn clients_are_told_that_publishing_is_blocked_and_that_it_is_not_any_more() {
    let target = Target::ours(config()).await;
    let pressure = target.broker.as_ref().unwrap().pressure();
    let mut peer = target.peer().await;
    pressure.hold(Cause::Program, REASON);
    assert_eq!(peer.expect_on(0, "connection.blocked").await[0].text(), REASON);
    pressure.hold(Cause::Disk, "another reason");
    pressure.release(Cause::Program);
    pressure.release(Cause::Disk);
    peer.expect_on(0, "connection.unblocked").await;
    pressure.hold(Cause::Program, REASON);
    let mut late = target.peer().await;
    late.expect_on(0, "connection.blocked").await;
}

#[tokio::test]
async fn while_publishing_is_blocked_confirms_say_no_and_everything_else_goes_on() {
    let target = Target::ours(config()).await;
    let pressure = target.broker.as_ref().unwrap().pressure();
    let mut peer = target.peer().await;
    peer.queue("q", amqp_table! {}).await;
    peer.call("confirm.select", fields![false]).await;
    peer.publish("", "q", "a").await;
    peer.expect("basic.ack").await;
    pressure.hold(Cause::Program, REASON);
    peer.expect_on(0, "connection.blocked").await;
    peer.publish("", "q", "refused").await;
    let nack = peer.expect("basic.nack").await;
    assert_eq!(nack[0].number(), 2);
    peer.consume("q", "c").await;
    let delivery = peer.delivery().await;
    assert_eq!(delivery.body, "a");
    peer.send("basic.ack", fields![delivery.tag, false]).await;
    peer.call("basic.cancel", fields!["c", false]).await;
    peer.until_counts("q", (0, 0)).await;
    pressure.release(Cause::Program);
    peer.expect_on(0, "connection.unblocked").await;
    peer.publish("", "q", "b").await;
    assert_eq!(peer.expect("basic.ack").await[0].number(), 3);
}

#[tokio::test]
async fn without_confirms_a_publish_waits_and_is_not_lost() {
    let target = Target::ours(config()).await;
    let pressure = target.broker.as_ref().unwrap().pressure();
    let (mut peer, mut other) = (target.peer().await, target.peer().await);
    peer.queue("q", amqp_table! {}).await;
    pressure.hold(Cause::Program, REASON);
    peer.expect_on(0, "connection.blocked").await;
    peer.publish("", "q", "waits").await;
    // It is behind the publish, and so not answered until that is taken.
    peer.send("queue.declare", fields!["q", true, false, false, false, false, amqp_table! {}]).await;
    other.expect_on(0, "connection.blocked").await;
    assert_eq!(other.counts("q").await, (0, 0), "others are served");
    pressure.release(Cause::Program);
    assert_eq!(peer.expect("queue.declare-ok").await[1].number(), 1);
    peer.expect_on(0, "connection.unblocked").await;
}
