//! Channels: their opening, their end, and what their errors are.

use leveret_tests::amqp::{Target, close, method_bytes};
use leveret_tests::{amqp_table, fields};

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
