//! Which queues a message goes to.

use leveret_protocol::{
    DeclareExchange, DeleteExchange, Destination, ExchangeName, Outcome, QueueName, ReplyCode, Table, Unbind,
    Value,
};
use leveret_tests::{Peer, Post, binding, broker, declare_exchange, post, table};

/// Publishes under each key, and tells the keys that came to the queue.
async fn keys_that_reach(peer: &mut Peer, exchange: &str, queue: &str, keys: &[&'static str]) -> Vec<String> {
    for key in keys {
        peer.publish(post(exchange, key, key)).await;
    }
    peer.drain(queue).await
}

#[tokio::test]
async fn topic_patterns_match_whole_words_and_an_empty_key_has_none() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    peer.exchange("t", "topic", table! {}).await;
    let keys = ["", ".", "a", "a.", ".a", "a.b", "a..b", "a.b.c", "*", "#"];
    let cases: [(&str, &[&str]); 11] = [
        ("#", &keys),
        ("#.#", &keys),
        ("", &[""]),
        ("*", &["a", "*", "#"]),
        ("*.#", &[".", "a", "a.", ".a", "a.b", "a..b", "a.b.c", "*", "#"]),
        ("#.*", &[".", "a", "a.", ".a", "a.b", "a..b", "a.b.c", "*", "#"]),
        ("a.#", &["a", "a.", "a.b", "a..b", "a.b.c"]),
        ("a.*", &["a.", "a.b"]),
        ("a.*.b", &["a..b"]),
        ("#.b.#", &["a.b", "a..b", "a.b.c"]),
        ("a*", &[]),
    ];
    for (pattern, matching) in cases {
        peer.queue("q", table! {}).await;
        peer.bind("t", "q", pattern, table! {}).await;
        let reached = keys_that_reach(&mut peer, "t", "q", &keys).await;
        assert_eq!(reached, matching, "pattern {pattern:?}");
        peer.delete_queue("q").await;
    }
}

#[tokio::test]
async fn a_pattern_may_have_more_than_two_hashes() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    peer.queue("q", table! {}).await;
    peer.bind("amq.topic", "q", "#.a.#.b.#.c.#", table! {}).await;
    let reached = keys_that_reach(&mut peer, "amq.topic", "q", &["a.b.c", "x.a.x.b.x.c.x", "a.c.b"]).await;
    assert_eq!(reached, ["a.b.c", "x.a.x.b.x.c.x"]);
}

#[tokio::test]
async fn an_empty_binding_key_stays_in_its_own_exchange() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    peer.exchange("one", "topic", table! {}).await;
    peer.exchange("other", "topic", table! {}).await;
    peer.queue("q", table! {}).await;
    peer.bind("one", "q", "", table! {}).await;
    assert_eq!(peer.publish(post("other", "", "x")).await, Outcome::Unroutable);
    assert_eq!(peer.publish(post("one", "", "x")).await, Outcome::Routed(1));
}

#[tokio::test]
async fn several_matching_bindings_give_a_queue_one_copy() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    peer.queue("q", table! {}).await;
    for pattern in ["#", "a.*", "*.b", "a.b"] {
        peer.bind("amq.topic", "q", pattern, table! {}).await;
    }
    assert_eq!(peer.publish(post("amq.topic", "a.b", "once")).await, Outcome::Routed(1));
    assert_eq!(peer.drain("q").await, ["once"]);
}

#[tokio::test]
async fn direct_goes_by_the_key_and_fanout_to_all() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    for queue in ["q1", "q2"] {
        peer.queue(queue, table! {}).await;
        peer.bind("amq.direct", queue, queue, table! {}).await;
        peer.bind("amq.fanout", queue, queue, table! {}).await;
    }
    assert_eq!(peer.publish(post("amq.direct", "q1", "direct")).await, Outcome::Routed(1));
    assert_eq!(peer.publish(post("amq.fanout", "anything", "fanout")).await, Outcome::Routed(2));
    assert_eq!(peer.drain("q1").await, ["direct", "fanout"]);
    assert_eq!(peer.drain("q2").await, ["fanout"]);
}

#[tokio::test]
async fn headers_bindings_match_in_four_modes_and_by_type_and_value() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    peer.exchange("h", "headers", table! {}).await;
    let none = table! {};
    let both = table! { "a" => 1, "b" => "x" };
    let one = table! { "a" => 1 };
    let float = table! { "a" => 1.0, "b" => "x" };
    let prefixed = table! { "x-a" => 1 };
    let cases: [(Table, [bool; 5]); 10] = [
        // Bindings, and whether [none, both, one, float, prefixed] match.
        (table! {}, [true, true, true, true, true]),
        (table! { "a" => 1, "b" => "x" }, [false, true, false, false, false]),
        (table! { "x-match" => "all", "a" => 1 }, [false, true, true, false, false]),
        (table! { "x-match" => "any", "a" => 1, "b" => "x" }, [false, true, true, true, false]),
        (table! { "x-match" => "any" }, [false; 5]),
        (table! { "x-match" => "all", "x-a" => 2 }, [true; 5]),
        (table! { "x-match" => "any", "x-a" => 1 }, [false; 5]),
        (table! { "x-match" => "all-with-x", "x-a" => 1 }, [false, false, false, false, true]),
        (table! { "x-match" => "any-with-x", "x-a" => 1, "b" => "x" }, [false, true, false, true, true]),
        (table! { "a" => Value::Null }, [false, true, true, true, false]),
    ];
    for (arguments, expected) in cases {
        peer.queue("q", table! {}).await;
        peer.bind("h", "q", "", arguments.clone()).await;
        for (headers, matches) in [&none, &both, &one, &float, &prefixed].into_iter().zip(expected) {
            let outcome = peer.publish(Post { headers: headers.clone(), ..post("h", "", "x") }).await;
            let routed = outcome == Outcome::Routed(1);
            assert_eq!(routed, matches, "binding {arguments:?}, headers {headers:?}");
        }
        peer.delete_queue("q").await;
    }
    peer.queue("q", table! {}).await;
    let queue = || Destination::Queue(QueueName::new("q").unwrap());
    let unknown = table! { "x-match" => "some" };
    let (code, _) = peer.refused(|request| binding(request, "h", queue(), "", unknown).into()).await;
    assert_eq!(code, ReplyCode::PreconditionFailed);
}

#[tokio::test]
async fn cc_and_bcc_keys_route_too_and_only_bcc_is_hidden() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    for queue in ["to", "cc", "bcc"] {
        peer.queue(queue, table! {}).await;
    }
    let letter = Post { cc: &["cc", "to"], bcc: &["bcc"], ..post("", "to", "letter") };
    assert_eq!(peer.publish(letter).await, Outcome::Routed(3), "one copy for each queue");
    for queue in ["to", "cc", "bcc"] {
        let received = peer.pop(queue).await.unwrap();
        assert_eq!((received.key.as_str(), received.cc), ("to", vec!["cc".to_owned(), "to".to_owned()]));
        assert_eq!(peer.pop(queue).await, None);
    }
}

#[tokio::test]
async fn an_alternate_exchange_takes_what_its_exchange_cannot_route() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    peer.exchange("main", "direct", table! { "alternate-exchange" => "second" }).await;
    peer.queue("q", table! {}).await;
    peer.queue("rest", table! {}).await;
    peer.bind("main", "q", "known", table! {}).await;
    assert_eq!(peer.publish(post("main", "lost", "1")).await, Outcome::Unroutable, "it need not exist");
    peer.exchange("second", "direct", table! { "alternate-exchange" => "third" }).await;
    peer.exchange("third", "fanout", table! {}).await;
    peer.bind("third", "rest", "", table! {}).await;
    assert_eq!(peer.publish(post("main", "known", "2")).await, Outcome::Routed(1));
    let lost = Post { mandatory: true, ..post("main", "lost", "3") };
    assert_eq!(peer.publish(lost).await, Outcome::Routed(1), "and so it is not returned");
    let received = peer.pop("rest").await.unwrap();
    assert_eq!((received.exchange.as_str(), received.key.as_str()), ("main", "lost"));
    assert_eq!(peer.drain("q").await, ["2"]);
}

#[tokio::test]
async fn an_alternate_exchange_works_inside_a_chain_of_exchanges() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    peer.exchange("source", "fanout", table! {}).await;
    peer.exchange("middle", "direct", table! { "alternate-exchange" => "rest" }).await;
    peer.exchange("rest", "fanout", table! {}).await;
    peer.bind_exchange("source", "middle", "").await;
    for queue in ["known", "unknown"] {
        peer.queue(queue, table! {}).await;
    }
    peer.bind("middle", "known", "k", table! {}).await;
    peer.bind("rest", "unknown", "", table! {}).await;
    assert_eq!(peer.publish(post("source", "k", "1")).await, Outcome::Routed(1));
    assert_eq!(peer.publish(post("source", "other", "2")).await, Outcome::Routed(1));
    assert_eq!(peer.drain("known").await, ["1"]);
    assert_eq!(peer.drain("unknown").await, ["2"]);
}

#[tokio::test]
async fn cycles_of_exchanges_end_and_give_one_copy() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    peer.exchange("a", "fanout", table! { "alternate-exchange" => "b" }).await;
    peer.exchange("b", "fanout", table! { "alternate-exchange" => "a" }).await;
    assert_eq!(peer.publish(post("a", "", "x")).await, Outcome::Unroutable);
    peer.queue("q", table! {}).await;
    peer.bind_exchange("a", "b", "").await;
    peer.bind_exchange("b", "a", "").await;
    peer.bind("a", "q", "", table! {}).await;
    peer.bind("b", "q", "", table! {}).await;
    assert_eq!(peer.publish(post("a", "", "x")).await, Outcome::Routed(1));
    assert_eq!(peer.drain("q").await, ["x"]);
}

#[tokio::test]
async fn publishing_where_one_must_not_is_refused_by_the_confirm_and_closes_nothing() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    let internal = |request| DeclareExchange {
        internal: true,
        ..declare_exchange(request, "inner", "fanout", false, table! {})
    };
    peer.must(|request| internal(request).into()).await;
    assert_eq!(peer.publish(post("nowhere", "", "x")).await, Outcome::Refused(ReplyCode::NotFound));
    assert_eq!(peer.publish(post("inner", "", "x")).await, Outcome::Refused(ReplyCode::AccessRefused));
    peer.queue("q", table! {}).await;
    peer.exchange("outer", "fanout", table! {}).await;
    peer.bind_exchange("outer", "inner", "").await;
    peer.bind("inner", "q", "", table! {}).await;
    assert_eq!(peer.publish(post("outer", "", "x")).await, Outcome::Routed(1), "but not to exchanges");
}

#[tokio::test]
async fn without_confirms_a_refused_publish_closes_its_channel() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    peer.open_channel(2, false).await;
    peer.send_on(2, &post("nowhere", "", "x")).await;
    let closed = peer.channel_closed(2).await;
    assert_eq!((closed.code, closed.operation.as_str()), (ReplyCode::NotFound, "Publish"));
    peer.queue("q", table! {}).await;
    peer.open_channel(2, false).await;
}

#[tokio::test]
async fn binding_twice_is_one_binding_and_unbinding_or_deleting_nothing_succeeds() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    peer.queue("q", table! {}).await;
    peer.bind("amq.direct", "q", "k", table! {}).await;
    peer.bind("amq.direct", "q", "k", table! {}).await;
    let unbind = |request, key: &str| {
        let queue = Destination::Queue(QueueName::new("q").unwrap());
        let bound = binding(request, "amq.direct", queue, key, table! {});
        let leveret_protocol::Bind { source, destination, routing_key, arguments, .. } = bound;
        Unbind { request, source, destination, routing_key, arguments }
    };
    peer.must(|request| unbind(request, "never bound").into()).await;
    peer.must(|request| unbind(request, "k").into()).await;
    assert_eq!(peer.publish(post("amq.direct", "k", "x")).await, Outcome::Unroutable);
    assert_eq!(peer.delete_queue("no such queue").await.messages, Some(0));
    let exchange = ExchangeName::new("no such exchange").unwrap();
    peer.must(|request| DeleteExchange { request, exchange, if_unused: false }.into()).await;
}

#[tokio::test]
async fn the_default_exchange_and_names_of_the_broker_are_not_for_clients() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    peer.queue("q", table! {}).await;
    let queue = || Destination::Queue(QueueName::new("q").unwrap());
    let delete = |name: &str| {
        let exchange = ExchangeName::new(name).unwrap();
        move |request| DeleteExchange { request, exchange, if_unused: false }.into()
    };
    for (code, _) in [
        peer.refused(|request| declare_exchange(request, "", "direct", false, table! {}).into()).await,
        peer.refused(|request| declare_exchange(request, "amq.mine", "direct", true, table! {}).into()).await,
        peer.refused(|request| binding(request, "", queue(), "k", table! {}).into()).await,
        peer.refused(delete("")).await,
        peer.refused(delete("amq.topic")).await,
    ] {
        assert_eq!(code, ReplyCode::AccessRefused);
    }
    peer.must(|request| declare_exchange(request, "amq.topic", "topic", true, table! {}).into()).await;
}

#[tokio::test]
async fn an_exchange_is_redeclared_only_as_it_is() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    peer.exchange("e", "direct", table! { "unknown" => 1 }).await;
    peer.exchange("e", "direct", table! { "unknown" => 2 }).await;
    let (code, text) =
        peer.refused(|request| declare_exchange(request, "e", "fanout", false, table! {}).into()).await;
    assert_eq!(code, ReplyCode::PreconditionFailed);
    assert_eq!(text, "inequivalent arg 'type' for exchange 'e': received 'fanout' but current is 'direct'");
    let (_, text) =
        peer.refused(|request| declare_exchange(request, "e", "direct", true, table! {}).into()).await;
    assert_eq!(text, "inequivalent arg 'durable' for exchange 'e': received 'true' but current is 'false'");
    let alternate = table! { "alternate-exchange" => "a" };
    let (_, text) =
        peer.refused(|request| declare_exchange(request, "e", "direct", false, alternate).into()).await;
    let expected = "inequivalent arg 'alternate-exchange' for exchange 'e': received the value 'a' of type 'longstr' but current is none";
    assert_eq!(text, expected);
    let (code, text) =
        peer.refused(|request| declare_exchange(request, "x", "x-random", false, table! {}).into()).await;
    assert_eq!(code, ReplyCode::PreconditionFailed);
    assert!(text.contains("direct, fanout, topic, headers"), "{text}");
}

#[tokio::test]
async fn an_auto_delete_exchange_goes_with_its_last_binding() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    let declare = |request| DeclareExchange {
        auto_delete: true,
        ..declare_exchange(request, "e", "fanout", false, table! {})
    };
    peer.must(|request| declare(request).into()).await;
    assert_eq!(peer.publish(post("e", "", "x")).await, Outcome::Unroutable, "not before it had one");
    peer.queue("q", table! {}).await;
    peer.bind("e", "q", "", table! {}).await;
    peer.delete_queue("q").await;
    assert_eq!(peer.publish(post("e", "", "x")).await, Outcome::Refused(ReplyCode::NotFound));
}
