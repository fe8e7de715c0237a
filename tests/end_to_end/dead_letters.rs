//! What becomes of messages that a queue gives up.

use leveret_protocol::{DeathReason, Outcome, Verb};
use leveret_tests::{Peer, Post, broker, post, table};

#[tokio::test]
async fn a_rejected_message_is_dead_lettered_with_its_note_or_gone() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    peer.queue("q", table! { "x-dead-letter-exchange" => "", "x-dead-letter-routing-key" => "dead" }).await;
    peer.queue("plain", table! {}).await;
    peer.queue("dead", table! {}).await;
    peer.publish(Post { ttl_ms: Some(60_000), headers: table! { "kept" => 1 }, ..post("", "q", "bad") })
        .await;
    let bad = peer.get("q").await.unwrap();
    peer.settle_range(bad.consumer, Verb::Reject, Some("no such customer"), (bad.tag, bad.tag)).await;
    let dead = peer.get("dead").await.unwrap();
    assert_eq!((dead.exchange.as_str(), dead.key.as_str(), dead.ttl_ms), ("", "dead", None));
    assert_eq!((dead.redelivered, dead.headers), (None, table! { "kept" => 1 }));
    let history = dead.deaths.unwrap();
    let death = &history.deaths[0];
    assert_eq!((death.queue.as_str(), death.reason, death.count), ("q", DeathReason::Rejected, 1));
    assert_eq!(death.note.as_deref(), Some("no such customer"));
    assert_eq!(death.original_ttl_ms, Some(60_000));
    assert_eq!(death.routing_keys[0].as_str(), "q");
    assert_eq!((history.first.queue.as_str(), history.last.queue.as_str()), ("q", "q"));
    peer.fill("plain", &["gone"]).await;
    let gone = peer.get("plain").await.unwrap();
    peer.settle(&gone, Verb::Reject).await;
    assert_eq!(peer.ready("plain").await, 0);
}

#[tokio::test]
async fn without_a_key_of_its_own_a_dead_letter_keeps_its_cc_keys_and_goes_by_its_bcc_keys() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    peer.exchange("dlx", "direct", table! {}).await;
    peer.queue("q", table! { "x-dead-letter-exchange" => "dlx" }).await;
    for key in ["q", "cc", "bcc"] {
        let queue = format!("dead.{key}");
        peer.queue(&queue, table! {}).await;
        peer.bind("dlx", &queue, key, table! {}).await;
    }
    peer.publish(Post { cc: &["cc"], bcc: &["bcc"], ..post("", "q", "x") }).await;
    let received = peer.get("q").await.unwrap();
    peer.settle(&received, Verb::Reject).await;
    for queue in ["dead.q", "dead.cc", "dead.bcc"] {
        let dead = peer.pop(queue).await.unwrap();
        assert_eq!((dead.key.as_str(), dead.cc.as_slice()), ("q", &["cc".to_owned()][..]));
        let keys = &dead.deaths.unwrap().deaths[0].routing_keys;
        assert_eq!(
            keys.iter().map(leveret_protocol::RoutingKey::as_str).collect::<Vec<_>>(),
            ["q", "cc"],
            "never the hidden ones"
        );
    }
}

#[tokio::test]
async fn a_key_of_its_own_takes_the_place_of_all_others() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    peer.queue("q", table! { "x-dead-letter-exchange" => "", "x-dead-letter-routing-key" => "dead" }).await;
    for queue in ["dead", "cc"] {
        peer.queue(queue, table! {}).await;
    }
    peer.publish(Post { cc: &["cc"], ..post("", "q", "x") }).await;
    peer.drain("cc").await;
    let received = peer.get("q").await.unwrap();
    peer.settle(&received, Verb::Reject).await;
    let dead = peer.pop("dead").await.unwrap();
    assert_eq!((dead.key.as_str(), dead.cc.as_slice()), ("dead", &[][..]));
    assert_eq!(peer.ready("cc").await, 0);
}

#[tokio::test]
async fn a_cycle_without_a_rejection_ends() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    let to = |key: &str| {
        let mut table = table! { "x-message-ttl" => 1, "x-dead-letter-exchange" => "" };
        table.insert("x-dead-letter-routing-key".to_owned(), key.into());
        table
    };
    // Round and round, and out: the exchange of `b` leads to `a` and to `out`.
    peer.exchange("both", "fanout", table! {}).await;
    peer.queue("a", to("b")).await;
    peer.queue("b", table! { "x-message-ttl" => 1, "x-dead-letter-exchange" => "both" }).await;
    peer.queue("out", table! {}).await;
    peer.bind("both", "a", "", table! {}).await;
    peer.bind("both", "out", "", table! {}).await;
    peer.consume("out", 1).await;
    peer.fill("a", &["x"]).await;
    let out = peer.delivery(1).await;
    let expected = [("b".to_owned(), "expired", 1), ("a".to_owned(), "expired", 1)];
    assert_eq!(out.death_counts(), expected, "newest first");
    assert_eq!((peer.ready("a").await, peer.ready("b").await), (0, 0), "the copy for `a` closed a cycle");
    peer.nothing_for(1).await;
}

#[tokio::test]
async fn a_cycle_with_a_rejection_goes_on_and_counts() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    peer.queue("work", table! { "x-dead-letter-exchange" => "", "x-dead-letter-routing-key" => "wait" })
        .await;
    let wait = table! {
        "x-message-ttl" => 1, "x-dead-letter-exchange" => "", "x-dead-letter-routing-key" => "work",
    };
    peer.queue("wait", wait).await;
    peer.consume("work", 1).await;
    peer.fill("work", &["x"]).await;
    let mut first_death = None;
    for round in 0..4 {
        let received = peer.delivery(1).await;
        if round > 0 {
            let expected = [("wait".to_owned(), "expired", round), ("work".to_owned(), "rejected", round)];
            assert_eq!(received.death_counts(), expected, "one entry for each queue and reason");
            let history = received.deaths.as_ref().unwrap();
            let first = (history.deaths[1].first_at_ms, history.deaths[0].first_at_ms);
            assert_eq!(*first_death.get_or_insert(first), first, "the time is that of the first death");
            assert_eq!((history.first.queue.as_str(), history.last.queue.as_str()), ("work", "wait"));
        }
        peer.settle(&received, Verb::Reject).await;
    }
}

#[tokio::test]
async fn two_reasons_of_one_queue_are_two_entries() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    let arguments = table! {
        "x-max-length" => 1, "x-dead-letter-exchange" => "", "x-dead-letter-routing-key" => "dead",
    };
    peer.queue("q", arguments).await;
    peer.queue("dead", table! { "x-dead-letter-exchange" => "", "x-dead-letter-routing-key" => "q" }).await;
    peer.fill("q", &["x"]).await;
    for verb in [Verb::Reject, Verb::Reject] {
        let queue = if peer.ready("q").await > 0 { "q" } else { "dead" };
        let received = peer.get(queue).await.unwrap();
        peer.settle(&received, verb).await;
    }
    peer.fill("q", &["y"]).await;
    let mut dead = peer.get("dead").await.unwrap();
    dead.deaths.as_mut().unwrap().deaths.retain(|death| death.queue.as_str() == "q");
    let expected = [("q".to_owned(), "maxlen", 1), ("q".to_owned(), "rejected", 1)];
    assert_eq!(dead.death_counts(), expected);
}

#[tokio::test]
async fn more_failures_than_the_delivery_limit_are_the_end() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    let limited = |limit: i32| {
        table! {
            "x-delivery-limit" => limit, "x-dead-letter-exchange" => "", "x-dead-letter-routing-key" => "dead",
        }
    };
    peer.queue("dead", table! {}).await;
    peer.queue("q", limited(1)).await;
    peer.fill("q", &["x"]).await;
    for verb in [Verb::Release, Verb::Requeue, Verb::Release, Verb::Requeue] {
        let received = peer.get("q").await.expect("it has failed once at most");
        peer.settle(&received, verb).await;
    }
    assert_eq!(peer.get("q").await, None);
    assert_eq!(peer.pop("dead").await.unwrap().death_counts(), [("q".to_owned(), "delivery_limit", 1)]);
}

#[tokio::test]
async fn the_default_delivery_limit_is_20_with_a_dead_letter_exchange_and_none_without() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    let letter = |extra: leveret_protocol::Table| {
        let mut table = table! { "x-dead-letter-exchange" => "", "x-dead-letter-routing-key" => "dead" };
        table.extend(extra);
        table
    };
    peer.queue("dead", table! {}).await;
    let cases = [(letter(table! {}), 21), (table! {}, 40), (letter(table! { "x-delivery-limit" => -1 }), 40)];
    for (arguments, failures) in cases {
        peer.queue("q", arguments).await;
        peer.fill("q", &["x"]).await;
        let mut failed = 0;
        while failed < 40
            && let Some(received) = peer.get("q").await
        {
            peer.settle(&received, Verb::Requeue).await;
            failed += 1;
        }
        assert_eq!(failed, failures);
        peer.delete_queue("q").await;
    }
}

#[tokio::test]
async fn a_missing_dead_letter_exchange_drops_the_message() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    peer.queue("q", table! { "x-dead-letter-exchange" => "nowhere" }).await;
    assert_eq!(peer.publish(post("", "q", "x")).await, Outcome::Routed(1));
    let received = peer.get("q").await.unwrap();
    peer.settle(&received, Verb::Reject).await;
    assert_eq!(peer.counts("q").await.unwrap(), (0, 0));
}

#[tokio::test]
async fn letters_that_a_full_queue_passes_on_keep_their_order() {
    let broker = broker().await;
    let mut peer = Peer::connect(&broker).await;
    let to = |key: &str| {
        table! { "x-max-length" => 0, "x-dead-letter-exchange" => "", "x-dead-letter-routing-key" => key }
    };
    peer.queue("first", table! { "x-dead-letter-exchange" => "", "x-dead-letter-routing-key" => "second" })
        .await;
    peer.queue("second", to("third")).await;
    peer.queue("third", table! {}).await;
    peer.consume("first", 1).await;
    peer.fill("first", &["a", "b", "c"]).await;
    let last = [peer.delivery(1).await, peer.delivery(1).await, peer.delivery(1).await];
    peer.settle_range(1, Verb::Reject, None, (last[0].tag, last[2].tag)).await;
    assert_eq!(peer.drain("third").await, ["a", "b", "c"]);
}
