//! Queues: declaring, equivalence, exclusiveness, purging and deleting.

use leveret_tests::amqp::{Field, Peer, Table, Target, close};
use leveret_tests::{amqp_array, amqp_table, fields};

/// `queue.declare`; the flags are durable, exclusive and auto-delete.
fn declare(queue: &str, [durable, exclusive, auto_delete]: [bool; 3], arguments: &Table) -> Vec<Field> {
    fields![queue, false, durable, exclusive, auto_delete, false, arguments]
}

fn passive(queue: &str) -> Vec<Field> {
    fields![queue, true, false, false, false, false, amqp_table! {}]
}

/// A queue whose name the broker chose.
async fn chosen(peer: &mut Peer) -> String {
    let answer = peer.call("queue.declare", declare("", [false, true, false], &amqp_table! {})).await;
    answer[0].text().to_owned()
}

#[tokio::test]
async fn a_declare_that_differs_is_406_and_says_in_what() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let queue = target.name("equivalence");
    let arguments = amqp_table! { "x-max-length" => 10, "x-of-the-application" => "a" };
    peer.queue(&queue, arguments.clone()).await;
    assert_eq!(
        peer.call("queue.declare", declare(&queue, [true, false, false], &arguments)).await,
        fields![&queue, 0, 0]
    );
    let ten = "the value '10' of type 'signedint'";
    let five = "the value '5' of type 'signedint'";
    let cases = [
        ([false, false, false], &arguments, "durable", "'false'", "'true'"),
        ([true, false, true], &arguments, "auto_delete", "'true'", "'false'"),
        ([false, false, true], &arguments, "durable", "'false'", "'true'"),
        ([true, false, false], &amqp_table! { "x-max-length" => 11 }, "x-max-length", "'11'", "'10'"),
        ([true, false, false], &amqp_table! {}, "x-max-length", "none", ten),
        (
            [true, false, false],
            &amqp_table! { "x-max-length" => 10, "x-message-ttl" => 5 },
            "x-message-ttl",
            five,
            "none",
        ),
    ];
    for (flags, arguments, what, received, current) in cases {
        let refused = peer.refused("queue.declare", declare(&queue, flags, arguments)).await;
        let text = format!(
            "PRECONDITION_FAILED - inequivalent arg '{what}' for queue '{queue}' in vhost '/': received {received} but \
             current is {current}"
        );
        assert_eq!(refused, close(406, text, "queue.declare"));
    }
}

#[tokio::test]
async fn integers_of_all_widths_are_one_and_unknown_arguments_are_not_compared() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let queue = target.name("widths");
    peer.queue(&queue, amqp_table! { "x-max-length" => 10, "x-of-the-application" => "a" }).await;
    for same in [
        amqp_table! { "x-max-length" => 10_i64, "x-of-the-application" => "b" },
        amqp_table! { "x-max-length" => 10_i8 },
        amqp_table! { "x-max-length" => 10_i16, "x-queue-type" => "classic" },
        amqp_table! { "x-max-length" => 10_u8, "unknown" => amqp_array![1] },
    ] {
        peer.call("queue.declare", declare(&queue, [true, false, false], &same)).await;
    }
}

#[tokio::test]
async fn a_value_that_cannot_be_is_406() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let cases = [
        amqp_table! { "x-message-ttl" => -1 },
        amqp_table! { "x-message-ttl" => "soon" },
        amqp_table! { "x-expires" => 0 },
        amqp_table! { "x-max-length" => -1 },
        amqp_table! { "x-max-length-bytes" => true },
        amqp_table! { "x-overflow" => "explode" },
        amqp_table! { "x-max-priority" => 256 },
        amqp_table! { "x-max-priority" => -1 },
        amqp_table! { "x-dead-letter-exchange" => 1 },
        amqp_table! { "x-dead-letter-routing-key" => "without an exchange" },
        amqp_table! { "x-single-active-consumer" => 1 },
        amqp_table! { "x-queue-type" => "roundabout" },
        amqp_table! { "x-queue-type" => 1 },
    ];
    let mut wrong = Vec::new();
    for arguments in cases {
        let queue = target.name("invalid");
        let name = arguments.names()[0].to_owned();
        let refused = peer.refused("queue.declare", declare(&queue, [true, false, false], &arguments)).await;
        let starts = refused.text.starts_with("PRECONDITION_FAILED - ");
        if (refused.code, refused.method.as_str()) != (406, "queue.declare")
            || !starts
            || !refused.text.contains(&name)
        {
            wrong.push(format!("{arguments:?}: {refused:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn the_types_that_clients_ask_for_are_taken() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    for kind in ["classic", "quorum"] {
        let queue = target.name(kind);
        peer.queue(&queue, amqp_table! { "x-queue-type" => kind }).await;
        peer.confirm().await;
        peer.publish("", &queue, kind).await;
        peer.confirmed().await;
        assert_eq!(peer.get_soon(&queue).await.body, kind);
        peer.call("channel.close", fields![200, "", 0, 0]).await;
        peer.open_channel(1).await;
    }
}

#[tokio::test]
async fn a_stream_is_refused() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let queue = target.name("stream");
    let stream = amqp_table! { "x-queue-type" => "stream" };
    peer.send("queue.declare", declare(&queue, [true, false, false], &stream)).await;
    let (answer, fields) = peer.method_on(1).await;
    let expected = target.differs("queue.declare-ok", "channel.close", "Leveret has no streams (406)");
    assert_eq!(answer, expected);
    assert!(answer == "queue.declare-ok" || fields[0].number() == 406, "{fields:?}");
}

#[tokio::test]
async fn a_passive_declare_only_asks() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let queue = target.name("passive");
    let text = format!("NOT_FOUND - no queue '{queue}' in vhost '/'");
    assert_eq!(peer.refused("queue.declare", passive(&queue)).await, close(404, text, "queue.declare"));
    peer.queue(&queue, amqp_table! { "x-max-length" => 10 }).await;
    peer.fill(&queue, &["a", "b"]).await;
    peer.get(&queue).await;
    let other_arguments =
        fields![&queue, true, false, false, true, false, amqp_table! { "x-max-length" => 1 }];
    assert_eq!(peer.call("queue.declare", other_arguments).await, fields![&queue, 1, 0], "ready ones only");
}

#[tokio::test]
async fn the_broker_chooses_names_and_keeps_its_prefix() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let (one, two) = (chosen(&mut peer).await, chosen(&mut peer).await);
    assert!(one.starts_with("amq.gen-") && one.len() > 20 && one != two, "{one}, {two}");
    let refused =
        peer.refused("queue.declare", declare("amq.mine", [true, false, false], &amqp_table! {})).await;
    let text = "ACCESS_REFUSED - queue name 'amq.mine' contains reserved prefix 'amq.*'";
    assert_eq!(refused, close(403, text, "queue.declare"));
}

#[tokio::test]
async fn an_empty_name_is_the_queue_that_was_declared_last_on_the_channel() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let none = amqp_table! {};
    for (method, fields) in [
        ("basic.get", fields!["", false]),
        ("basic.consume", fields!["", "", false, false, false, false, &none]),
        ("queue.bind", fields!["", "amq.direct", "", false, &none]),
        ("queue.purge", fields!["", false]),
        ("queue.delete", fields!["", false, false, false]),
    ] {
        let refused = peer.refused(method, fields).await;
        assert_eq!(refused, close(404, "NOT_FOUND - no previously declared queue", method));
    }
    let queue = chosen(&mut peer).await;
    peer.call("queue.bind", fields!["", "amq.direct", "", false, &none]).await;
    peer.publish("amq.direct", &queue, "the key is its name, too").await;
    peer.until_counts(&queue, (1, 0)).await;
    assert_eq!(peer.call("queue.purge", fields!["", false]).await, fields![1]);
    peer.publish("amq.direct", &queue, "x").await;
    peer.consume("", "c").await;
    assert_eq!(peer.delivery().await.body, "x");
    peer.send("queue.delete", fields!["", false, false, false]).await;
    // The consumer is told in another way than the one who deletes, so that either may be first.
    let mut answers = [peer.method_on(1).await.0, peer.method_on(1).await.0];
    answers.sort_unstable();
    assert_eq!(answers, ["basic.cancel", "queue.delete-ok"]);
}

#[tokio::test]
async fn an_exclusive_queue_is_locked_for_others_and_goes_with_its_connection() {
    let target = Target::start().await;
    let (mut owner, mut other) = (target.peer().await, target.peer().await);
    let queue = target.name("exclusive");
    let none = amqp_table! {};
    let exclusive = declare(&queue, [false, true, false], &none);
    owner.call("queue.declare", exclusive.clone()).await;
    owner.open_channel(2).await;
    owner.call_on(2, "queue.declare", exclusive.clone()).await;
    let text = format!(
        "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{queue}' in vhost '/'. It could be originally \
         declared on another connection or the exclusive property value does not match that of the original declaration."
    );
    for (method, fields) in [
        ("queue.declare", exclusive.clone()),
        ("queue.declare", declare(&queue, [false, false, false], &none)),
        ("queue.declare", passive(&queue)),
        ("queue.bind", fields![&queue, "amq.direct", "key", false, &none]),
        ("queue.purge", fields![&queue, false]),
        ("queue.delete", fields![&queue, false, false, false]),
        ("basic.get", fields![&queue, false]),
        ("basic.consume", fields![&queue, "", false, false, false, false, &none]),
    ] {
        assert_eq!(other.refused(method, fields).await, close(405, &text, method));
    }
    other.publish("", &queue, "to publish is allowed").await;
    assert_eq!(owner.get_soon(&queue).await.body, "to publish is allowed");
    owner.leave().await;
    // Its name is free at once.
    other.call("queue.declare", exclusive).await;
}

#[tokio::test]
async fn an_exclusive_queue_of_a_lost_connection_goes_too() {
    let target = Target::start().await;
    let (mut owner, mut other) = (target.peer().await, target.peer().await);
    let queue = target.name("lost");
    owner.call("queue.declare", declare(&queue, [false, true, false], &amqp_table! {})).await;
    drop(owner);
    let gone = async {
        loop {
            other.send("queue.declare", passive(&queue)).await;
            match other.method_on(1).await {
                ("channel.close", fields) => {
                    other.send("channel.close-ok", fields![]).await;
                    other.open_channel(1).await;
                    if fields[0].number() == 404 {
                        break;
                    }
                }
                other => panic!("a locked queue or none: {other:?}"),
            }
        }
    };
    leveret_tests::within("the end of the queue", gone).await;
}

#[tokio::test]
async fn a_shared_queue_cannot_be_declared_as_exclusive() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let queue = target.name("shared");
    peer.queue(&queue, amqp_table! {}).await;
    let refused = peer.refused("queue.declare", declare(&queue, [true, true, false], &amqp_table! {})).await;
    assert_eq!((refused.code, refused.method.as_str()), (405, "queue.declare"));
}

#[tokio::test]
async fn declares_that_want_no_answer_get_none() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let queue = target.name("no-wait");
    let none = amqp_table! {};
    peer.send("queue.declare", fields![&queue, false, true, false, false, true, &none]).await;
    peer.send("queue.bind", fields![&queue, "amq.direct", &queue, true, &none]).await;
    peer.publish("amq.direct", &queue, "x").await;
    peer.until_counts(&queue, (1, 0)).await;
    peer.send("queue.purge", fields![&queue, true]).await;
    assert_eq!(peer.counts(&queue).await, (0, 0));
    peer.send("queue.delete", fields![&queue, false, false, true]).await;
    assert_eq!(peer.refused("queue.declare", passive(&queue)).await.code, 404);
}

#[tokio::test]
async fn what_wants_no_answer_still_fails() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let (queue, missing) = (target.name("no-wait"), target.name("missing"));
    peer.queue(&queue, amqp_table! {}).await;
    let none = amqp_table! {};
    for (method, fields, code) in [
        ("queue.declare", fields![&queue, false, false, false, false, true, &none], 406),
        ("queue.bind", fields![&queue, &missing, "", true, &none], 404),
        ("queue.purge", fields![&missing, true], 404),
        ("basic.consume", fields![&missing, "", false, false, false, true, &none], 404),
        ("exchange.delete", fields!["amq.topic", false, true], 403),
    ] {
        let refused = peer.refused(method, fields).await;
        assert_eq!((refused.code, refused.method.as_str()), (code, method), "{refused:?}");
    }
}

#[tokio::test]
async fn an_exclusive_queue_stays_exclusive_for_its_owner() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let queue = target.name("exclusive");
    let none = amqp_table! {};
    peer.call("queue.declare", declare(&queue, [false, true, false], &none)).await;
    let refused = peer.refused("queue.declare", declare(&queue, [false, false, false], &none)).await;
    assert_eq!((refused.code, refused.method.as_str()), (405, "queue.declare"));
    assert_eq!(peer.counts(&queue).await, (0, 0));
}

#[tokio::test]
async fn purging_takes_the_ready_ones_and_says_how_many() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let queue = target.name("purge");
    peer.queue(&queue, amqp_table! {}).await;
    peer.fill(&queue, &["held", "b", "c"]).await;
    let held = peer.get(&queue).await.unwrap();
    assert_eq!(peer.call("queue.purge", fields![&queue, false]).await, fields![2]);
    peer.nack(held.tag, false, true).await;
    assert_eq!(peer.get_soon(&queue).await.body, "held");
    let missing = target.name("missing");
    let refused = peer.refused("queue.purge", fields![&missing, false]).await;
    assert_eq!(refused, close(404, format!("NOT_FOUND - no queue '{missing}' in vhost '/'"), "queue.purge"));
}

#[tokio::test]
async fn deleting_heeds_its_conditions_and_deleting_nothing_succeeds() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let queue = target.name("delete");
    assert_eq!(peer.call("queue.delete", fields![&queue, true, true, false]).await, fields![0]);
    peer.queue(&queue, amqp_table! {}).await;
    peer.fill(&queue, &["a", "b"]).await;
    let refused = peer.refused("queue.delete", fields![&queue, false, true, false]).await;
    let text = format!("PRECONDITION_FAILED - queue '{queue}' in vhost '/' not empty");
    assert_eq!(refused, close(406, text, "queue.delete"));
    let mut consumer = target.peer().await;
    consumer.prefetch(1).await;
    consumer.consume(&queue, "c").await;
    consumer.delivery().await;
    let refused = peer.refused("queue.delete", fields![&queue, true, false, false]).await;
    let text = format!("PRECONDITION_FAILED - queue '{queue}' in vhost '/' in use");
    assert_eq!(refused, close(406, text, "queue.delete"));
    assert_eq!(peer.call("queue.delete", fields![&queue, false, false, false]).await, fields![1]);
    assert_eq!(consumer.expect("basic.cancel").await, fields!["c", true]);
    consumer.barrier().await;
}

#[tokio::test]
async fn an_auto_delete_queue_goes_with_its_last_consumer_and_not_before() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let queue = target.name("auto-delete");
    peer.call("queue.declare", declare(&queue, [true, false, true], &amqp_table! {})).await;
    peer.consume(&queue, "a").await;
    peer.consume(&queue, "b").await;
    peer.call("basic.cancel", fields!["a", false]).await;
    assert_eq!(peer.counts(&queue).await, (0, 1));
    peer.call("basic.cancel", fields!["b", false]).await;
    assert_eq!(peer.refused("queue.declare", passive(&queue)).await.code, 404);
}

#[tokio::test]
async fn unbinding_from_or_of_what_is_missing_succeeds() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let (queue, missing) = (target.name("unbind"), target.name("missing"));
    peer.queue(&queue, amqp_table! {}).await;
    let none = amqp_table! {};
    peer.call("queue.unbind", fields![&missing, "amq.direct", "", &none]).await;
    peer.call("queue.unbind", fields![&queue, &missing, "", &none]).await;
    peer.call("exchange.unbind", fields![&missing, "amq.direct", "", false, &none]).await;
    peer.call("exchange.unbind", fields!["amq.direct", &missing, "", false, &none]).await;
}
