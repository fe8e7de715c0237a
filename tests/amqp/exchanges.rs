//! Exchanges: declaring, deleting, binding, and how they route.

use leveret_tests::amqp::{Close, Peer, Table, Target, close};
use leveret_tests::{amqp_table, fields};

/// `exchange.declare` of a durable exchange, passive or not.
fn declare(exchange: &str, kind: &str, passive: bool) -> Vec<leveret_tests::amqp::Field> {
    fields![exchange, kind, passive, true, false, false, false, amqp_table! {}]
}

async fn bind_fails(peer: &mut Peer, queue: &str, exchange: &str, arguments: Table) -> Close {
    peer.refused("queue.bind", fields![queue, exchange, "key", false, arguments]).await
}

#[tokio::test]
async fn the_predeclared_exchanges_are_there() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let all = ["", "amq.direct", "amq.fanout", "amq.topic", "amq.headers", "amq.match"];
    for exchange in &all[1..] {
        peer.call("exchange.declare", declare(exchange, "direct", true)).await;
    }
    let refused = peer.refused("exchange.declare", declare("", "direct", true)).await;
    let text = "ACCESS_REFUSED - operation not permitted on the default exchange";
    assert_eq!(refused, close(403, text, "exchange.declare"));
}

#[tokio::test]
async fn a_passive_declare_looks_at_nothing_but_the_name() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let exchange = target.name("passive");
    let text = format!("NOT_FOUND - no exchange '{exchange}' in vhost '/'");
    let refused = peer.refused("exchange.declare", declare(&exchange, "direct", true)).await;
    assert_eq!(refused, close(404, text, "exchange.declare"));
    peer.exchange(&exchange, "fanout", amqp_table! {}).await;
    peer.call("exchange.declare", declare(&exchange, "direct", true)).await;
}

#[tokio::test]
async fn a_declare_that_differs_is_406_and_says_in_what() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let exchange = target.name("equivalence");
    peer.exchange(&exchange, "direct", amqp_table! {}).await;
    peer.exchange(&exchange, "direct", amqp_table! {}).await;
    peer.exchange(&exchange, "direct", amqp_table! { "x-of-the-application" => 1 }).await;
    let none = amqp_table! {};
    let alternate = amqp_table! { "alternate-exchange" => "other" };
    let cases = [
        (
            fields![&exchange, "fanout", false, true, false, false, false, &none],
            "type",
            "'fanout'",
            "'direct'",
        ),
        (
            fields![&exchange, "direct", false, false, false, false, false, &none],
            "durable",
            "'false'",
            "'true'",
        ),
        (
            fields![&exchange, "direct", false, true, true, false, false, &none],
            "auto_delete",
            "'true'",
            "'false'",
        ),
        (
            fields![&exchange, "direct", false, true, false, true, false, &none],
            "internal",
            "'true'",
            "'false'",
        ),
        (
            fields![&exchange, "direct", false, true, false, false, false, &alternate],
            "alternate-exchange",
            "the value 'other' of type 'longstr'",
            "none",
        ),
    ];
    for (fields, what, received, current) in cases {
        let refused = peer.refused("exchange.declare", fields).await;
        let text = format!(
            "PRECONDITION_FAILED - inequivalent arg '{what}' for exchange '{exchange}' in vhost '/': received \
             {received} but current is {current}"
        );
        assert_eq!(refused, close(406, text, "exchange.declare"));
    }
}

#[tokio::test]
async fn an_unknown_type_is_refused() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let asked = declare(&target.name("type"), "roundabout", false);
    peer.send("exchange.declare", asked).await;
    let text = "unknown exchange type 'roundabout'";
    let old = target.differs(true, false, "RabbitMQ before 4 answers 503 and closes the connection");
    if old {
        assert_eq!(peer.closed().await, close(503, format!("COMMAND_INVALID - {text}"), "exchange.declare"));
    } else {
        let closed = peer.channel_closed().await;
        assert_eq!(closed, close(406, format!("PRECONDITION_FAILED - {text}"), "exchange.declare"));
    }
}

#[tokio::test]
async fn the_prefix_amq_is_the_brokers() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let refused = peer.refused("exchange.declare", declare("amq.mine", "direct", false)).await;
    let text = "ACCESS_REFUSED - exchange name 'amq.mine' contains reserved prefix 'amq.*'";
    assert_eq!(refused, close(403, text, "exchange.declare"));
    peer.call("exchange.declare", declare("amq.topic", "topic", false)).await;
    let refused = peer.refused("exchange.delete", fields!["amq.topic", false, false]).await;
    let text = "ACCESS_REFUSED - deletion of system exchange 'amq.topic' in vhost '/' not allowed";
    assert_eq!(refused, close(403, text, "exchange.delete"));
}

#[tokio::test]
async fn the_default_exchange_cannot_be_touched() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let queue = target.name("default");
    peer.queue(&queue, amqp_table! {}).await;
    let none = amqp_table! {};
    let cases = [
        ("exchange.declare", declare("", "direct", false)),
        ("exchange.delete", fields!["", false, false]),
        ("queue.bind", fields![&queue, "", "key", false, &none]),
        ("queue.unbind", fields![&queue, "", &queue, &none]),
        ("exchange.bind", fields!["amq.fanout", "", "key", false, &none]),
        ("exchange.bind", fields!["", "amq.fanout", "key", false, &none]),
        ("exchange.unbind", fields!["amq.fanout", "", "key", false, &none]),
    ];
    for (method, fields) in cases {
        let refused = peer.refused(method, fields).await;
        let text = "ACCESS_REFUSED - operation not permitted on the default exchange";
        assert_eq!(refused, close(403, text, method));
    }
}

#[tokio::test]
async fn deleting_heeds_if_unused_and_deleting_nothing_succeeds() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let (exchange, queue) = (target.name("delete"), target.name("delete"));
    assert_eq!(peer.call("exchange.delete", fields![&exchange, false, false]).await, fields![]);
    peer.exchange(&exchange, "direct", amqp_table! {}).await;
    peer.queue(&queue, amqp_table! {}).await;
    peer.bind(&queue, &exchange, "key").await;
    let refused = peer.refused("exchange.delete", fields![&exchange, true, false]).await;
    let text = format!("PRECONDITION_FAILED - exchange '{exchange}' in vhost '/' in use");
    assert_eq!(refused, close(406, text, "exchange.delete"));
    peer.call("queue.unbind", fields![&queue, &exchange, "key", amqp_table! {}]).await;
    peer.call("exchange.delete", fields![&exchange, true, false]).await;
    assert_eq!(peer.refused("exchange.declare", declare(&exchange, "direct", true)).await.code, 404);
}

#[tokio::test]
async fn binding_what_is_missing_is_404() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let (missing, queue) = (target.name("missing"), target.name("bound"));
    peer.queue(&queue, amqp_table! {}).await;
    let no_exchange = format!("NOT_FOUND - no exchange '{missing}' in vhost '/'");
    let no_queue = format!("NOT_FOUND - no queue '{missing}' in vhost '/'");
    let none = amqp_table! {};
    assert_eq!(
        bind_fails(&mut peer, &queue, &missing, none.clone()).await,
        close(404, &no_exchange, "queue.bind")
    );
    assert_eq!(
        bind_fails(&mut peer, &missing, "amq.direct", none.clone()).await,
        close(404, &no_queue, "queue.bind")
    );
    for (destination, source) in [("amq.fanout", missing.as_str()), (missing.as_str(), "amq.fanout")] {
        let refused = peer.refused("exchange.bind", fields![destination, source, "", false, &none]).await;
        assert_eq!(refused, close(404, &no_exchange, "exchange.bind"));
    }
}

#[tokio::test]
async fn binding_twice_is_once_and_unbinding_nothing_succeeds() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let (exchange, queue) = (target.name("twice"), target.name("twice"));
    peer.exchange(&exchange, "direct", amqp_table! {}).await;
    peer.queue(&queue, amqp_table! {}).await;
    peer.bind(&queue, &exchange, "key").await;
    peer.bind(&queue, &exchange, "key").await;
    peer.publish(&exchange, "key", "one").await;
    peer.until_counts(&queue, (1, 0)).await;
    let none = amqp_table! {};
    for _ in 0..2 {
        assert_eq!(peer.call("queue.unbind", fields![&queue, &exchange, "key", &none]).await, fields![]);
    }
    peer.publish(&exchange, "key", "nowhere").await;
    peer.publish("", &queue, "two").await;
    peer.until_counts(&queue, (2, 0)).await;
    assert_eq!(peer.drain(&queue).await, ["one", "two"]);
}

#[tokio::test]
async fn bindings_with_other_arguments_are_others() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let (exchange, queue) = (target.name("arguments"), target.name("arguments"));
    peer.exchange(&exchange, "direct", amqp_table! {}).await;
    peer.queue(&queue, amqp_table! {}).await;
    let (one, two) = (amqp_table! { "a" => 1 }, amqp_table! { "a" => 2 });
    for arguments in [&one, &two] {
        peer.call("queue.bind", fields![&queue, &exchange, "key", false, arguments]).await;
    }
    peer.call("queue.unbind", fields![&queue, &exchange, "key", &one]).await;
    peer.publish(&exchange, "key", "still bound").await;
    assert_eq!(peer.get_soon(&queue).await.body, "still bound");
}

#[tokio::test]
async fn an_internal_exchange_takes_no_publishes() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let exchange = target.name("internal");
    let asked = fields![&exchange, "fanout", false, true, false, true, false, amqp_table! {}];
    peer.call("exchange.declare", asked).await;
    peer.publish(&exchange, "", "x").await;
    let text = format!("ACCESS_REFUSED - cannot publish to internal exchange '{exchange}' in vhost '/'");
    assert_eq!(peer.channel_closed().await, close(403, text, "basic.publish"));
}

#[tokio::test]
async fn publishing_to_no_exchange_is_404() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let exchange = target.name("missing");
    peer.publish(&exchange, "", "x").await;
    let text = format!("NOT_FOUND - no exchange '{exchange}' in vhost '/'");
    assert_eq!(peer.channel_closed().await, close(404, text, "basic.publish"));
}

#[tokio::test]
async fn an_auto_delete_exchange_goes_with_its_last_binding_and_not_before() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let (exchange, queue) = (target.name("auto-delete"), target.name("auto-delete"));
    let asked = fields![&exchange, "direct", false, true, true, false, false, amqp_table! {}];
    peer.call("exchange.declare", asked).await;
    peer.queue(&queue, amqp_table! {}).await;
    peer.bind(&queue, &exchange, "a").await;
    peer.bind(&queue, &exchange, "b").await;
    peer.call("queue.unbind", fields![&queue, &exchange, "a", amqp_table! {}]).await;
    peer.call("exchange.declare", declare(&exchange, "direct", true)).await;
    peer.call("queue.delete", fields![&queue, false, false, false]).await;
    assert_eq!(peer.refused("exchange.declare", declare(&exchange, "direct", true)).await.code, 404);
}

#[tokio::test]
async fn topics_match_as_rabbitmq_matches_them() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let exchange = target.name("topics");
    peer.exchange(&exchange, "topic", amqp_table! {}).await;
    let patterns =
        ["", "*", "#", "#.#", "*.#", "#.*", "a.#", "#.a.#", "a.*", "*.b", "a*", "a.", "a..b", "a.*.b", "*.*"];
    let mut queues = Vec::new();
    for pattern in patterns {
        let queue = target.name("topics");
        peer.queue(&queue, amqp_table! {}).await;
        peer.bind(&queue, &exchange, pattern).await;
        queues.push(queue);
    }
    let any = ["#", "#.#"];
    let some = ["*.#", "#.*"];
    let cases: [(&str, &[&str]); 8] = [
        ("", &[""]),
        ("a", &["*", "a.#", "#.a.#"]),
        ("a.", &["a.#", "#.a.#", "a.*", "a.", "*.*"]),
        ("a..b", &["a.#", "#.a.#", "a..b", "a.*.b"]),
        ("a.b", &["a.#", "#.a.#", "a.*", "*.b", "*.*"]),
        ("x.a.y", &["#.a.#"]),
        ("a*", &["*", "a*"]),
        ("*.#", &["*.*"]),
    ];
    for (key, expected) in cases {
        peer.publish(&exchange, key, key).await;
        let mut expected: Vec<&str> = expected.iter().chain(&any).copied().collect();
        expected.extend(if key.is_empty() { &[][..] } else { &some });
        expected.sort_unstable();
        peer.get_soon(&queues[2]).await;
        peer.nothing_comes_from(&queues[2]).await;
        let mut matched = vec!["#"];
        for (pattern, queue) in patterns.iter().zip(&queues).filter(|(pattern, _)| **pattern != "#") {
            matched.extend(peer.drain(queue).await.iter().map(|_| *pattern));
        }
        matched.sort_unstable();
        assert_eq!(matched, expected, "for {key:?}");
    }
}

#[tokio::test]
async fn a_pattern_may_have_many_hashes() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let (exchange, queue) = (target.name("hashes"), target.name("hashes"));
    peer.exchange(&exchange, "topic", amqp_table! {}).await;
    peer.queue(&queue, amqp_table! {}).await;
    // RabbitMQ from 4.3.5 on refuses more than two.
    peer.bind(&queue, &exchange, "#.a.#.b.#").await;
    peer.publish(&exchange, "b.a", "wrong order").await;
    peer.publish(&exchange, "x.a.x.b", "right order").await;
    assert_eq!(peer.get_soon(&queue).await.body, "right order");
}

#[tokio::test]
async fn an_empty_topic_does_not_leak_into_another_exchange() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let (one, two, queue) = (target.name("leak"), target.name("leak"), target.name("leak"));
    peer.exchange(&one, "topic", amqp_table! {}).await;
    peer.exchange(&two, "topic", amqp_table! {}).await;
    peer.queue(&queue, amqp_table! {}).await;
    peer.bind(&queue, &one, "").await;
    peer.publish(&two, "", "leaked").await;
    peer.publish(&one, "", "bound").await;
    assert_eq!(peer.get_soon(&queue).await.body, "bound");
}

#[tokio::test]
async fn a_queue_that_is_bound_in_several_ways_gets_one_copy() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let (first, second, queue) = (target.name("copies"), target.name("copies"), target.name("copies"));
    peer.exchange(&first, "topic", amqp_table! {}).await;
    peer.exchange(&second, "fanout", amqp_table! {}).await;
    peer.queue(&queue, amqp_table! {}).await;
    for key in ["a.b", "a.*", "#"] {
        peer.bind(&queue, &first, key).await;
    }
    peer.bind(&queue, &second, "").await;
    let none = amqp_table! {};
    // A ring of exchanges ends, too.
    peer.call("exchange.bind", fields![&second, &first, "#", false, &none]).await;
    peer.call("exchange.bind", fields![&first, &second, "#", false, &none]).await;
    peer.publish(&first, "a.b", "once").await;
    peer.publish("", &queue, "end").await;
    peer.until_counts(&queue, (2, 0)).await;
    assert_eq!(peer.drain(&queue).await, ["once", "end"]);
    assert_eq!(peer.call("exchange.unbind", fields![&second, &first, "#", false, &none]).await, fields![]);
    assert_eq!(peer.call("exchange.unbind", fields![&second, &first, "#", false, &none]).await, fields![]);
}
