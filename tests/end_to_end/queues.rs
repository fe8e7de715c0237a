//! Declaring, finding and deleting queues.

use leveret_protocol::{
    Consume, DeclareQueue, DeleteQueue, Outcome, PurgeQueue, QueueName, ReplyCode, Table, Value, Verb,
};
use leveret_tests::{Peer, broker, consume, declare_queue, passive, post, table, within};

fn exclusive(request: u32, name: &str) -> DeclareQueue {
    DeclareQueue { exclusive: true, ..declare_queue(request, name, false, table! {}) }
}

#[tokio::test]
async fn a_queue_is_redeclared_only_as_it_is() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    let arguments = table! { "x-max-length" => 10, "x-overflow" => "reject-publish" };
    peer.queue("q", arguments.clone()).await;
    peer.queue("q", arguments.clone()).await;
    let with = |name: &str, value: Value| {
        let mut changed = arguments.clone();
        changed.insert(name.to_owned(), value);
        changed
    };
    let cases: [(bool, Table, &str); 4] = [
        (
            true,
            arguments.clone(),
            "inequivalent arg 'durable' for queue 'q' in vhost '/': received 'true' but current is 'false'",
        ),
        (
            false,
            with("x-max-length", 11.into()),
            "inequivalent arg 'x-max-length' for queue 'q' in vhost '/': received '11' but current is '10'",
        ),
        (
            false,
            with("x-message-ttl", 1.into()),
            "inequivalent arg 'x-message-ttl' for queue 'q' in vhost '/': received the value '1' of type 'signedint' but current is none",
        ),
        (
            false,
            table! { "x-max-length" => 10 },
            "inequivalent arg 'x-overflow' for queue 'q' in vhost '/': received none but current is the value 'reject-publish' of type 'longstr'",
        ),
    ];
    for (durable, changed, expected) in cases {
        let (code, text) = peer.refused(|request| declare_queue(request, "q", durable, changed).into()).await;
        assert_eq!((code, text.as_str()), (ReplyCode::PreconditionFailed, expected));
    }
    assert_eq!(peer.ready("q").await, 0, "and the channel is open still");
}

#[tokio::test]
async fn arguments_that_nobody_knows_are_kept_and_not_compared() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    peer.queue("q", table! { "x-mine" => "a" }).await;
    peer.queue("q", table! { "x-mine" => "b", "x-queue-type" => "classic" }).await;
    peer.queue("q", table! {}).await;
}

#[tokio::test]
async fn integers_of_any_width_are_equal_and_floats_are_no_integers() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    // `x-max-length` as 8, 16, 32 and 64 bits wide: MessagePack that an encoder other than ours may write.
    for width in
        [&[0x0a][..], &[0xcc, 10], &[0xcd, 0, 10], &[0xd2, 0, 0, 0, 10], &[0xd3, 0, 0, 0, 0, 0, 0, 0, 10]]
    {
        let request = peer.next_request();
        let mut payload = vec![0x83, 0xa7];
        payload.extend(b"request");
        payload.push(u8::try_from(request).unwrap());
        payload.extend(b"\xa5queue\xa1q\xa9arguments\x81\xacx-max-length");
        payload.extend(width);
        peer.write_frame(0x22, 0, 1, &payload).await;
        peer.answer(1, request).await.unwrap();
    }
    let float = table! { "x-max-length" => 10.0 };
    let (code, text) = peer.refused(|request| declare_queue(request, "q", false, float).into()).await;
    assert_eq!(code, ReplyCode::PreconditionFailed);
    assert!(text.starts_with("invalid arg 'x-max-length'"), "{text}");
}

#[tokio::test]
async fn an_argument_that_cannot_be_is_refused_with_what_would_be_right() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    let cases = [
        (
            table! { "x-message-ttl" => -1 },
            "invalid arg 'x-message-ttl': it has to be a number of milliseconds from 0",
        ),
        (table! { "x-expires" => 0 }, "invalid arg 'x-expires'"),
        (table! { "x-max-length" => "ten" }, "invalid arg 'x-max-length'"),
        (
            table! { "x-max-priority" => 256 },
            "invalid arg 'x-max-priority': it has to be a priority from 1 to 255",
        ),
        (table! { "x-overflow" => "drop-tail" }, "invalid arg 'x-overflow'"),
        (table! { "x-dead-letter-routing-key" => "k" }, "invalid arg 'x-dead-letter-routing-key'"),
        (table! { "x-single-active-consumer" => 1 }, "invalid arg 'x-single-active-consumer'"),
        (table! { "x-queue-type" => "stream" }, "invalid arg 'x-queue-type': this broker has no streams"),
    ];
    for (arguments, expected) in cases {
        let (code, text) = peer.refused(|request| declare_queue(request, "q", false, arguments).into()).await;
        assert_eq!(code, ReplyCode::PreconditionFailed);
        assert!(text.starts_with(expected), "{text}");
    }
    assert_eq!(peer.counts("q").await.unwrap_err().code, ReplyCode::NotFound, "nothing was declared");
}

#[tokio::test]
async fn the_broker_chooses_a_name_if_asked_and_reserves_its_prefix() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    let chosen = peer.queue("", table! {}).await.queue.unwrap();
    let other = peer.queue("", table! {}).await.queue.unwrap();
    assert!(chosen.as_str().starts_with("amq.gen-") && chosen != other, "{chosen} {other}");
    peer.queue(chosen.as_str(), table! {}).await;
    let (code, _) = peer.refused(|request| declare_queue(request, "amq.mine", false, table! {}).into()).await;
    assert_eq!(code, ReplyCode::AccessRefused);
}

#[tokio::test]
async fn an_exclusive_queue_is_locked_for_other_connections_and_goes_with_its_own() {
    let broker = broker().await;
    let mut owner = Peer::connect(&broker).await;
    let mut other = Peer::connect(&broker).await;
    owner.must(|request| exclusive(request, "mine").into()).await;
    owner.must(|request| exclusive(request, "mine").into()).await;
    let queue = || QueueName::new("mine").unwrap();
    for (code, _) in [
        other.refused(|request| passive(request, "mine").into()).await,
        other.refused(|request| exclusive(request, "mine").into()).await,
        other.refused(|request| declare_queue(request, "mine", false, table! {}).into()).await,
        other.refused(|request| consume(request, "mine", 1).into()).await,
        other.refused(|request| PurgeQueue { request, queue: queue() }.into()).await,
        other
            .refused(|request| {
                DeleteQueue { request, queue: queue(), if_unused: false, if_empty: false }.into()
            })
            .await,
    ] {
        assert_eq!(code, ReplyCode::ResourceLocked);
    }
    assert_eq!(other.publish(post("", "mine", "x")).await, Outcome::Routed(1), "it takes messages of others");
    owner.vanish();
    gone(&mut other, "mine").await;
}

#[tokio::test]
async fn an_exclusive_queue_can_be_declared_again_right_after_the_close_of_its_connection() {
    let broker = broker().await;
    let mut first = Peer::connect(&broker).await;
    first.must(|request| exclusive(request, "mine").into()).await;
    let close = leveret_protocol::Close { code: ReplyCode::Ok, text: "bye".to_owned() };
    first.say(0, close).await;
    while within("the end", first.frame()).await.is_some() {}
    let mut second = Peer::connect(&broker).await;
    second.must(|request| exclusive(request, "mine").into()).await;
}

#[tokio::test]
async fn a_queue_that_is_shared_cannot_be_declared_as_exclusive() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    peer.queue("shared", table! {}).await;
    let (code, text) = peer.refused(|request| exclusive(request, "shared").into()).await;
    assert_eq!(code, ReplyCode::ResourceLocked);
    assert!(
        text.starts_with("cannot obtain exclusive access to locked queue 'shared' in vhost '/'"),
        "{text}"
    );
}

#[tokio::test]
async fn a_passive_declaration_only_asks() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    let (code, text) = peer.refused(|request| passive(request, "q").into()).await;
    assert_eq!((code, text.as_str()), (ReplyCode::NotFound, "no queue 'q' in vhost '/'"));
    peer.queue("q", table! { "x-max-length" => 5 }).await;
    peer.fill("q", &["a", "b"]).await;
    peer.get("q").await.unwrap();
    peer.consume_some("q", 1, 1).await;
    assert_eq!(peer.delivery(1).await.body, "b");
    let different = |request| DeclareQueue {
        durable: true,
        arguments: table! { "x-max-length" => 6 },
        ..passive(request, "q")
    };
    let done = peer.must(|request| different(request).into()).await;
    assert_eq!((done.messages, done.consumers), (Some(0), Some(1)), "unsettled messages do not count");
}

#[tokio::test]
async fn a_queue_is_deleted_if_unused_or_empty_when_that_is_asked() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    peer.queue("q", table! {}).await;
    peer.fill("q", &["a"]).await;
    let delete = |if_unused, if_empty| {
        let queue = QueueName::new("q").unwrap();
        move |request| DeleteQueue { request, queue, if_unused, if_empty }.into()
    };
    let (code, text) = peer.refused(delete(false, true)).await;
    assert_eq!(code, ReplyCode::PreconditionFailed);
    assert!(text.contains("it is not empty: 1 messages are ready in it"), "{text}");
    peer.consume("q", 1).await;
    let (code, text) = peer.refused(delete(true, false)).await;
    assert_eq!(code, ReplyCode::PreconditionFailed);
    assert!(text.contains("it is in use by 1 consumers"), "{text}");
    peer.cancel(1).await;
    peer.must(delete(true, true)).await;
}

#[tokio::test]
async fn deleting_a_queue_cancels_its_consumers_and_says_why() {
    let broker = broker().await;
    let mut owner = Peer::connect(&broker).await;
    let mut consumer = Peer::connect(&broker).await;
    owner.queue("q", table! { "x-dead-letter-exchange" => "", "x-dead-letter-routing-key" => "dead" }).await;
    owner.queue("dead", table! {}).await;
    owner.fill("q", &["held", "waiting"]).await;
    consumer.consume_some("q", 7, 1).await;
    let held = consumer.delivery(7).await;
    assert_eq!(owner.delete_queue("q").await.messages, Some(1));
    let cancelled = consumer
        .take_control("ConsumerCancelled", 1, |control| match control {
            leveret_protocol::Control::ConsumerCancelled(cancelled) => Some(cancelled),
            _ => None,
        })
        .await;
    assert_eq!((cancelled.consumer, cancelled.code), (7, ReplyCode::NotFound));
    // What it held is gone with the queue; to settle it is no mistake, and neither is a cancel that crosses.
    consumer.settle(&held, Verb::Ack).await;
    consumer.cancel(7).await;
    assert_eq!(owner.ready("dead").await, 0, "a deleted queue dead-letters nothing");
    consumer.queue("q", table! {}).await;
    consumer.consume("q", 7).await;
}

#[tokio::test]
async fn a_number_is_free_again_when_the_broker_has_cancelled_its_consumer() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    for _ in 0..2 {
        peer.queue("q", table! {}).await;
        peer.fill("q", &["x"]).await;
        assert_eq!(peer.get("q").await.unwrap().body, "x");
        peer.consume("q", 1).await;
        peer.delete_queue("q").await;
    }
}

#[tokio::test]
async fn purge_removes_ready_messages_only() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    peer.queue("q", table! {}).await;
    peer.fill("q", &["held", "b", "c"]).await;
    let held = peer.get("q").await.unwrap();
    assert_eq!(peer.purge("q").await, 2);
    peer.settle(&held, Verb::Requeue).await;
    assert_eq!(peer.drain("q").await, ["held"]);
}

#[tokio::test]
async fn an_auto_delete_queue_goes_with_its_last_consumer() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    let auto_delete =
        |request| DeclareQueue { auto_delete: true, ..declare_queue(request, "q", false, table! {}) };
    peer.must(|request| auto_delete(request).into()).await;
    peer.fill("q", &["a"]).await;
    peer.consume("q", 1).await;
    peer.consume("q", 2).await;
    peer.cancel(1).await;
    assert_eq!(peer.counts("q").await.unwrap().1, 1);
    peer.cancel(2).await;
    assert_eq!(peer.counts("q").await.unwrap_err().code, ReplyCode::NotFound);
}

#[tokio::test]
async fn a_consumer_number_in_use_is_refused_and_free_again_after_its_cancel() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    peer.queue("q", table! {}).await;
    peer.queue("other", table! {}).await;
    peer.consume("q", 1).await;
    let (code, _) = peer.refused(|request| consume(request, "other", 1).into()).await;
    assert_eq!(code, ReplyCode::NotAllowed);
    assert_eq!(peer.get_as("q", 1).await.unwrap_err().code, ReplyCode::NotAllowed);
    peer.get_as("q", 2).await.unwrap();
    peer.get_as("q", 2).await.unwrap();
    assert_eq!(peer.get_as("other", 2).await.unwrap_err().code, ReplyCode::NotAllowed);
    peer.cancel(1).await;
    peer.consume("other", 1).await;
}

#[tokio::test]
async fn an_exclusive_consumer_tolerates_nobody() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    peer.queue("q", table! {}).await;
    let alone = |request, number| Consume { exclusive: true, ..consume(request, "q", number) };
    peer.must(|request| alone(request, 1).into()).await;
    assert_eq!(peer.refused(|request| consume(request, "q", 2).into()).await.0, ReplyCode::AccessRefused);
    peer.cancel(1).await;
    peer.consume("q", 2).await;
    assert_eq!(peer.refused(|request| alone(request, 1).into()).await.0, ReplyCode::AccessRefused);
}

#[tokio::test]
async fn a_request_that_fails_closes_nothing() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    let failed = peer.ask(|request| consume(request, "nowhere", 1).into()).await.unwrap_err();
    assert_eq!((failed.code, failed.operation.as_str()), (ReplyCode::NotFound, "Consume"));
    assert_eq!(failed.closes, leveret_protocol::Closes::Nothing);
    peer.queue("q", table! {}).await;
}

/// Waits until a queue of another connection has gone. There is no event for that: the other connection's end is
/// noticed when the broker reads it.
pub(crate) async fn gone(peer: &mut Peer, queue: &str) {
    let ask = async {
        while !matches!(peer.counts(queue).await, Err(failed) if failed.code == ReplyCode::NotFound) {
            tokio::task::yield_now().await;
        }
    };
    within("the end of the queue", ask).await;
}

#[tokio::test]
async fn consumers_of_deleted_queues_do_not_count_towards_the_limit() {
    let mut config = leveret_tests::config();
    config.limits.consumers_max = 1;
    let broker = leveret_tests::broker_with(config).await;
    let mut peer = Peer::connect(&broker).await;
    for consumer in 1..=3 {
        peer.queue("q", table! {}).await;
        peer.consume("q", consumer).await;
        peer.delete_queue("q").await;
    }
}
