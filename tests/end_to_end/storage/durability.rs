//! What survives: an orderly stop, and the loss of the broker in the middle of its work.

use leveret_protocol::{Destination, Outcome, ReplyCode, SettleParts, Table, Unbind, Verb, kind};
use leveret_tests::{Peer, Post, Server, broker, broker_at, declare_exchange, post, table};

fn persistent<'a>(key: &'a str, body: &'a str) -> Post<'a> {
    Post { persistent: true, ..post("", key, body) }
}

/// Ends a server in one of the two ways, and starts another one on its data. The peer goes first: nobody is there to
/// answer the farewell of a stop.
fn restart(server: Server, peer: Peer, stop: bool, data_dir: &std::path::Path) -> Server {
    peer.vanish();
    if stop {
        server.stop();
    } else {
        server.kill();
    }
    Server::start(data_dir)
}

#[tokio::test]
async fn durable_definitions_survive_a_stop_and_a_kill_and_others_do_not() {
    for stop in [true, false] {
        let data = tempfile::tempdir().unwrap();
        let server = Server::start(data.path());
        let mut peer = Peer::connect(server.broker()).await;
        let arguments = table! { "x-max-length" => 3, "x-mine" => "kept" };
        peer.durable_queue("q", arguments.clone()).await;
        peer.durable_queue("deleted", table! {}).await;
        peer.queue("transient", table! {}).await;
        let alternate = || table! { "alternate-exchange" => "amq.fanout" };
        peer.must(|request| declare_exchange(request, "e", "topic", true, alternate()).into()).await;
        peer.exchange("transient", "topic", table! {}).await;
        for (source, queue, key) in
            [("e", "q", "a.#"), ("e", "q", "b"), ("e", "transient", "#"), ("transient", "q", "#")]
        {
            peer.bind(source, queue, key, table! {}).await;
        }
        peer.must(|request| unbind(request, "b").into()).await;
        peer.delete_queue("deleted").await;
        let server = restart(server, peer, stop, data.path());
        let mut peer = Peer::connect(server.broker()).await;
        peer.durable_queue("q", arguments).await;
        peer.must(|request| declare_exchange(request, "e", "topic", true, alternate()).into()).await;
        for gone in ["transient", "deleted"] {
            assert_eq!(
                peer.counts(gone).await.unwrap_err().code,
                ReplyCode::NotFound,
                "{gone}, stop: {stop}"
            );
        }
        assert_eq!(peer.publish(post("transient", "", "x")).await, Outcome::Refused(ReplyCode::NotFound));
        assert_eq!(peer.publish(post("e", "a.b", "x")).await, Outcome::Routed(1));
        assert_eq!(peer.publish(post("e", "b", "x")).await, Outcome::Unroutable, "unbound, stop: {stop}");
    }
}

fn unbind(request: u32, key: &str) -> Unbind {
    let destination = Destination::Queue("q".try_into().unwrap());
    let (source, routing_key) = ("e".try_into().unwrap(), key.try_into().unwrap());
    Unbind { request, source, destination, routing_key, arguments: Table::new() }
}

#[tokio::test]
async fn confirmed_persistent_messages_survive_in_order_and_others_do_not() {
    for stop in [true, false] {
        let data = tempfile::tempdir().unwrap();
        let server = Server::start(data.path());
        let mut peer = Peer::connect(server.broker()).await;
        peer.durable_queue("q", table! {}).await;
        let headers = table! { "h" => 1 };
        for body in ["a", "b", "c"] {
            let sent = Post { headers: headers.clone(), cc: &["cc"], ..persistent("q", body) };
            assert_eq!(peer.publish(sent).await, Outcome::Routed(1));
            peer.publish(post("", "q", "transient")).await;
        }
        let server = restart(server, peer, stop, data.path());
        let mut peer = Peer::connect(server.broker()).await;
        for body in ["a", "b", "c"] {
            let received = peer.pop("q").await.unwrap();
            assert_eq!((received.body.as_str(), received.persistent, received.cc.len()), (body, true, 1));
            assert_eq!(received.headers, headers);
        }
        assert_eq!(peer.pop("q").await, None, "stop: {stop}");
    }
}

#[tokio::test]
async fn after_an_unclean_stop_what_may_have_been_delivered_is_marked_as_redelivered() {
    for (stop, expected) in [(true, [None, Some(1), None]), (false, [Some(0), Some(1), Some(0)])] {
        let data = tempfile::tempdir().unwrap();
        let server = Server::start(data.path());
        let mut peer = Peer::connect(server.broker()).await;
        peer.durable_queue("q", table! {}).await;
        for body in ["a", "b", "c"] {
            peer.publish(persistent("q", body)).await;
        }
        let a = peer.get("q").await.unwrap();
        let b = peer.get("q").await.unwrap();
        peer.settle(&b, Verb::Requeue).await;
        peer.settle(&a, Verb::Ack).await;
        // A later confirm is proof that what was written before it is on disk.
        peer.publish(persistent("q", "d")).await;
        let server = restart(server, peer, stop, data.path());
        let mut peer = Peer::connect(server.broker()).await;
        let [_, of_b, of_others] = expected;
        for (body, redelivered) in [("b", of_b), ("c", of_others), ("d", of_others)] {
            let received = peer.pop("q").await.unwrap();
            assert_eq!((received.body.as_str(), received.redelivered), (body, redelivered), "stop: {stop}");
        }
        assert_eq!(peer.pop("q").await, None);
    }
}

#[tokio::test]
async fn what_was_never_near_a_delivery_is_not_marked_after_a_kill() {
    // More than the window of a horizon, on each of two priorities.
    const BACKLOG: usize = 1500;
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let mut peer = Peer::connect(server.broker()).await;
    peer.durable_queue("touched", table! { "x-max-priority" => 1 }).await;
    peer.durable_queue("untouched", table! {}).await;
    for priority in [0, 1] {
        for _ in 0..BACKLOG {
            let sent = Post { priority: Some(priority), ..persistent("touched", "x") };
            peer.publish(sent).await;
        }
    }
    peer.publish(persistent("untouched", "x")).await;
    peer.get("touched").await.unwrap();
    server.kill();
    let server = Server::start(data.path());
    let mut peer = Peer::connect(server.broker()).await;
    assert_eq!(peer.pop("untouched").await.unwrap().redelivered, None);
    let mut marked = Vec::new();
    while let Some(received) = peer.pop("touched").await {
        marked.push(received.redelivered.is_some());
    }
    assert_eq!(marked.len(), 2 * BACKLOG);
    assert!(marked[0], "it was delivered");
    let [urgent, rest] =
        [0..BACKLOG, BACKLOG..2 * BACKLOG].map(|of| marked[of].iter().filter(|marked| **marked).count());
    assert!(urgent <= 1025 && rest <= 1025, "{urgent} and {rest} are marked");
    assert!(!marked[BACKLOG - 1] && !marked[2 * BACKLOG - 1], "those were far from any delivery");
}

#[tokio::test]
async fn a_mark_survives_an_orderly_stop_after_a_kill_and_a_kill_after_an_orderly_stop() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let mut peer = Peer::connect(server.broker()).await;
    peer.durable_queue("q", table! {}).await;
    peer.publish(persistent("q", "a")).await;
    // The horizon is on disk before the stop, and nothing is written after it but deliveries are made.
    let got = peer.get("q").await.unwrap();
    peer.settle(&got, Verb::Release).await;
    peer.publish(persistent("q", "b")).await;
    let server = restart(server, peer, true, data.path());
    let mut peer = Peer::connect(server.broker()).await;
    peer.consume("q", 1).await;
    let (a, b) = (peer.delivery(1).await, peer.delivery(1).await);
    assert_eq!((a.redelivered, b.redelivered), (Some(0), None));
    server.kill();
    let server = Server::start(data.path());
    server.stop();
    let server = Server::start(data.path());
    let mut peer = Peer::connect(server.broker()).await;
    for body in ["a", "b"] {
        let received = peer.pop("q").await.unwrap();
        assert_eq!((received.body.as_str(), received.redelivered.is_some()), (body, true));
    }
}

#[tokio::test]
async fn a_settle_that_is_confirmed_survives_a_kill() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let mut peer = Peer::connect(server.broker()).await;
    let dead = table! { "x-dead-letter-exchange" => "", "x-dead-letter-routing-key" => "dead" };
    peer.durable_queue("q", dead).await;
    peer.durable_queue("dead", table! {}).await;
    for body in ["acked", "rejected", "unsettled"] {
        peer.publish(persistent("q", body)).await;
    }
    peer.consume("q", 1).await;
    peer.deliveries::<3>(1).await;
    for (verb, tag) in [(Verb::Ack, 1), (Verb::Reject, 2)] {
        let ranges = [(tag, tag)];
        peer.settle_parts(&SettleParts { consumer: 1, verb, confirm: true, note: None, ranges: &ranges })
            .await;
        peer.take("Settled", |frame| (frame.kind == kind::SETTLED).then_some(())).await;
    }
    server.kill();
    let server = Server::start(data.path());
    let mut peer = Peer::connect(server.broker()).await;
    assert_eq!(peer.drain("q").await, ["unsettled"]);
    let rejected = peer.pop("dead").await.unwrap();
    assert_eq!((rejected.body.as_str(), rejected.death_counts()[0].1), ("rejected", "rejected"));
}

#[tokio::test]
async fn a_purge_and_a_deletion_survive_a_kill() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let mut peer = Peer::connect(server.broker()).await;
    for queue in ["purged", "deleted"] {
        peer.durable_queue(queue, table! {}).await;
        peer.publish(persistent(queue, "x")).await;
    }
    assert_eq!(peer.purge("purged").await, 1);
    peer.delete_queue("deleted").await;
    peer.durable_queue("deleted", table! {}).await;
    server.kill();
    let server = Server::start(data.path());
    let mut peer = Peer::connect(server.broker()).await;
    assert_eq!((peer.ready("purged").await, peer.ready("deleted").await), (0, 0));
}

#[tokio::test]
async fn a_message_that_expired_while_the_broker_was_down_is_never_delivered() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let mut peer = Peer::connect(server.broker()).await;
    let dead = table! { "x-dead-letter-exchange" => "", "x-dead-letter-routing-key" => "dead" };
    peer.durable_queue("q", dead).await;
    peer.durable_queue("dead", table! {}).await;
    peer.publish(persistent("q", "blocks")).await;
    peer.publish(Post { ttl_ms: Some(1), ..persistent("q", "expires") }).await;
    server.kill();
    let server = Server::start(data.path());
    let mut peer = Peer::connect(server.broker()).await;
    assert_eq!(peer.drain("q").await, ["blocks"]);
    peer.consume("dead", 1).await;
    assert_eq!(peer.delivery(1).await.body, "expires");
}

#[tokio::test]
async fn two_brokers_cannot_share_a_data_directory() {
    let data = tempfile::tempdir().unwrap();
    let first = broker_at(data.path()).await;
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let second = leveret_broker::Broker::builder().config(leveret_tests::config());
    let Err(error) = second.data_dir(data.path()).listen([address]).listen_amqp([]).start().await else {
        panic!("the second one must not start")
    };
    let text = error.to_string();
    assert!(text.contains("is open elsewhere: only one may have it"), "{text}");
    assert!(text.contains(data.path().to_str().unwrap()), "{text}");
    first.stop().await.unwrap();
    broker_at(data.path()).await.stop().await.unwrap();
    // A broker whose data was temporary has not touched it.
    broker().await.stop().await.unwrap();
}
