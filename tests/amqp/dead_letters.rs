//! Dead letters, and the history that they carry.

use std::time::{SystemTime, UNIX_EPOCH};

use leveret_tests::amqp::{Message, Peer, Post, Properties, Table, Target, Value, close};
use leveret_tests::{amqp_array, amqp_table, fields};

/// A queue whose dead letters go through an exchange of their own to a second queue.
struct Pair {
    queue: String,
    exchange: String,
    letters: String,
}

impl Pair {
    async fn declare(target: &Target, peer: &mut Peer, further: Table) -> Self {
        let (queue, exchange, letters) = (target.name("dying"), target.name("dlx"), target.name("letters"));
        peer.exchange(&exchange, "fanout", amqp_table! {}).await;
        peer.queue(&letters, amqp_table! {}).await;
        peer.bind(&letters, &exchange, "").await;
        let mut arguments = amqp_table! { "x-dead-letter-exchange" => &exchange };
        arguments.0.extend(further.0);
        peer.queue(&queue, arguments).await;
        Self { queue, exchange, letters }
    }

    /// Rejects the message at the head.
    async fn reject_one(&self, peer: &mut Peer) {
        let held = peer.get(&self.queue).await.expect("a message");
        peer.reject(held.tag, false).await;
    }
}

/// The entries of `x-death`, newest first.
fn deaths(message: &Message) -> Vec<Table> {
    let headers = message.headers();
    let Some(Value::Array(entries)) = headers.get("x-death") else { panic!("no x-death in {headers:?}") };
    let tables = entries.iter().map(|entry| match entry {
        Value::Table(table) => table.clone(),
        other => panic!("{other:?} in x-death"),
    });
    tables.collect()
}

/// What the entries say of queue, reason and count.
fn counts(message: &Message) -> Vec<(String, String, i64)> {
    let text = |table: &Table, name: &str| match table.get(name) {
        Some(Value::Text(text)) => text.clone(),
        other => panic!("{name} is {other:?}"),
    };
    let count = |table: &Table| match table.get("count") {
        Some(Value::I64(count)) => *count,
        other => panic!("the count is {other:?}"),
    };
    deaths(message).iter().map(|death| (text(death, "queue"), text(death, "reason"), count(death))).collect()
}

/// What the times in `x-death` are compared with.
#[allow(clippy::disallowed_methods, reason = "the broker's clock is another one than the test's")]
fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn sorted(table: &Table) -> Vec<(String, Value)> {
    let mut entries = table.0.clone();
    entries.sort_by(|one, other| one.0.cmp(&other.0));
    entries
}

#[tokio::test]
async fn a_rejected_message_tells_its_history_as_rabbitmq_does() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let pair = Pair::declare(&target, &mut peer, amqp_table! {}).await;
    let before = seconds();
    let properties = Properties {
        headers: Some(amqp_table! { "mine" => 1 }),
        delivery_mode: Some(2),
        correlation_id: Some("kept".to_owned()),
        ..Properties::default()
    };
    peer.post(&Post { key: &pair.queue, properties, body: "dead", ..Post::default() }).await;
    peer.until_counts(&pair.queue, (1, 0)).await;
    pair.reject_one(&mut peer).await;
    let letter = peer.get_soon(&pair.letters).await;
    assert_eq!((&letter.exchange, &letter.key, letter.body.as_str()), (&pair.exchange, &pair.queue, "dead"));
    assert_eq!((letter.properties.delivery_mode, letter.redelivered), (Some(2), false));
    assert_eq!(letter.properties.correlation_id.as_deref(), Some("kept"));
    let death = &deaths(&letter)[0];
    let Some(Value::Time(time)) = death.get("time") else { panic!("no time in {death:?}") };
    assert!((before..=seconds()).contains(time), "{time} is in seconds");
    let expected = amqp_table! {
        "count" => 1_i64, "exchange" => "", "queue" => &pair.queue, "reason" => "rejected",
        "routing-keys" => amqp_array![&pair.queue], "time" => Value::Time(*time),
    };
    assert_eq!(sorted(death), sorted(&expected));
    let mut headers = letter.headers();
    let why = "x-last-death-* came with later releases of RabbitMQ";
    for (name, value) in [("queue", pair.queue.as_str()), ("reason", "rejected"), ("exchange", "")] {
        let expected = target.differs(None, Some(Value::from(value)), why);
        assert_eq!(headers.get(&format!("x-last-death-{name}")), expected.as_ref());
    }
    headers.0.retain(|(name, _)| name != "x-death" && !name.starts_with("x-last-death-"));
    let expected = amqp_table! {
        "mine" => 1, "x-first-death-exchange" => "", "x-first-death-queue" => &pair.queue,
        "x-first-death-reason" => "rejected",
    };
    assert_eq!(sorted(&headers), sorted(&expected));
}

#[tokio::test]
async fn an_expired_message_loses_its_expiration_and_tells_what_it_was() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let pair = Pair::declare(&target, &mut peer, amqp_table! {}).await;
    let properties = Properties { expiration: Some("1".to_owned()), ..Properties::default() };
    peer.post(&Post { key: &pair.queue, properties, body: "late", ..Post::default() }).await;
    let letter = peer.get_soon(&pair.letters).await;
    assert_eq!(letter.properties.expiration, None);
    assert_eq!(counts(&letter), [(pair.queue.clone(), "expired".to_owned(), 1)]);
    assert_eq!(deaths(&letter)[0].get("original-expiration"), Some(&Value::from("1")));
}

#[tokio::test]
async fn a_full_queue_lets_its_head_die_of_maxlen() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let pair = Pair::declare(&target, &mut peer, amqp_table! { "x-max-length" => 1 }).await;
    peer.publish("", &pair.queue, "a").await;
    peer.publish("", &pair.queue, "b").await;
    let letter = peer.get_soon(&pair.letters).await;
    assert_eq!(letter.body, "a");
    assert_eq!(counts(&letter), [(pair.queue.clone(), "maxlen".to_owned(), 1)]);
    assert_eq!(peer.drain(&pair.queue).await, ["b"]);
}

#[tokio::test]
async fn two_reasons_in_one_queue_are_two_entries_newest_first_and_counts_add_up() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let queue = target.name("cycle");
    let back = target.name("back");
    peer.queue(&queue, amqp_table! {"x-dead-letter-exchange" => "", "x-dead-letter-routing-key" => &back})
        .await;
    peer.queue(&back, amqp_table! {"x-dead-letter-exchange" => "", "x-dead-letter-routing-key" => &queue})
        .await;
    peer.consume(&queue, "queue").await;
    peer.open_channel(2).await;
    peer.call_on(2, "basic.consume", fields![&back, "back", false, false, false, false, amqp_table! {}])
        .await;
    peer.publish("", &queue, "round").await;
    let mut first_time = None;
    let mut rounds = 0;
    // Until the clock shows another second than at the first death.
    let message = loop {
        let message = peer.delivery().await;
        if rounds > 0 {
            let time = deaths(&message)
                .iter()
                .find(|death| death.get("queue") == Some(&Value::from(&queue)))
                .unwrap()
                .get("time")
                .cloned();
            let first = first_time.get_or_insert((time.clone(), seconds()));
            assert_eq!(time, first.0, "the time is that of the first death");
            if rounds > 1 && seconds() > first.1 + 1 {
                break message;
            }
        }
        peer.reject(message.tag, false).await;
        let other = peer.message_on(2, "basic.deliver").await;
        peer.send_on(2, "basic.reject", fields![other.tag, false]).await;
        rounds += 1;
    };
    let rejected = |queue: &str| (queue.to_owned(), "rejected".to_owned(), rounds);
    assert_eq!(counts(&message), [rejected(&back), rejected(&queue)], "newest first");
    assert_eq!(message.headers().get("x-first-death-queue"), Some(&Value::from(&queue)));
}

#[tokio::test]
async fn the_same_queue_with_another_reason_is_another_entry() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let (queue, back) = (target.name("two-reasons"), target.name("two-reasons"));
    peer.queue(&queue, amqp_table! {"x-dead-letter-exchange" => "", "x-dead-letter-routing-key" => &back})
        .await;
    peer.queue(&back, amqp_table! {"x-dead-letter-exchange" => "", "x-dead-letter-routing-key" => &queue})
        .await;
    peer.publish("", &queue, "x").await;
    peer.until_counts(&queue, (1, 0)).await;
    let held = peer.get(&queue).await.unwrap();
    peer.reject(held.tag, false).await;
    peer.until_counts(&back, (1, 0)).await;
    let held = peer.get(&back).await.unwrap();
    peer.reject(held.tag, false).await;
    peer.until_counts(&queue, (1, 0)).await;
    // The third death is another one of the same queue, by its length.
    let full = target.name("two-reasons");
    peer.call("queue.delete", fields![&back, false, false, false]).await;
    peer.queue(&back, amqp_table! {"x-dead-letter-exchange" => "", "x-dead-letter-routing-key" => &full, "x-max-length" => 0}).await;
    peer.queue(&full, amqp_table! {}).await;
    let held = peer.get(&queue).await.unwrap();
    peer.reject(held.tag, false).await;
    let letter = peer.get_soon(&full).await;
    let entry = |queue: &str, reason: &str, count| (queue.to_owned(), reason.to_owned(), count);
    let (first, second) = (entry(&back, "rejected", 1), entry(&queue, "rejected", 2));
    let why = "the history is newest first; RabbitMQ before 4 mixes up entries whose count has risen";
    let (one, other) = target.differs((first.clone(), second.clone()), (second, first), why);
    assert_eq!(counts(&letter), [entry(&back, "maxlen", 1), one, other]);
}

#[tokio::test]
async fn a_circle_without_a_rejection_ends_and_the_other_queues_get_their_copies() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let (queue, exchange, witness) = (target.name("circle"), target.name("circle"), target.name("witness"));
    peer.exchange(&exchange, "fanout", amqp_table! {}).await;
    peer.queue(&queue, amqp_table! { "x-dead-letter-exchange" => &exchange, "x-message-ttl" => 1 }).await;
    peer.queue(&witness, amqp_table! {}).await;
    peer.bind(&queue, &exchange, "").await;
    peer.bind(&witness, &exchange, "").await;
    peer.publish("", &queue, "once").await;
    let letter = peer.get_soon(&witness).await;
    assert_eq!(counts(&letter), [(queue.clone(), "expired".to_owned(), 1)]);
    peer.publish("", &queue, "twice").await;
    assert_eq!(peer.get_soon(&witness).await.body, "twice", "the first one has not come round again");
    peer.until_counts(&queue, (0, 0)).await;
}

#[tokio::test]
async fn a_key_of_its_own_replaces_all_keys() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let queue = target.name("keys");
    let letters = target.name("keys");
    peer.queue(&letters, amqp_table! {}).await;
    let arguments = amqp_table! { "x-dead-letter-exchange" => "", "x-dead-letter-routing-key" => &letters };
    peer.queue(&queue, arguments).await;
    let headers = amqp_table! { "CC" => amqp_array!["copy"], "BCC" => amqp_array!["hidden"] };
    let properties = Properties { headers: Some(headers), ..Properties::default() };
    peer.post(&Post { key: &queue, properties, body: "x", ..Post::default() }).await;
    peer.until_counts(&queue, (1, 0)).await;
    let held = peer.get(&queue).await.unwrap();
    assert_eq!(held.headers(), amqp_table! { "CC" => amqp_array!["copy"] }, "BCC is hidden from consumers");
    peer.reject(held.tag, false).await;
    let letter = peer.get_soon(&letters).await;
    assert_eq!((&letter.key, letter.headers().get("CC")), (&letters, None));
    let keys = amqp_array![&queue, "copy"];
    assert_eq!(deaths(&letter)[0].get("routing-keys"), Some(&keys), "with CC, without BCC");
}

#[tokio::test]
async fn without_a_key_it_is_routed_by_all_that_it_had() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let (queue, exchange) = (target.name("all-keys"), target.name("all-keys"));
    peer.exchange(&exchange, "direct", amqp_table! {}).await;
    peer.queue(&queue, amqp_table! { "x-dead-letter-exchange" => &exchange }).await;
    let letters = [target.name("by-key"), target.name("by-cc"), target.name("by-bcc")];
    for (letters, key) in letters.iter().zip([queue.as_str(), "copy", "hidden"]) {
        peer.queue(letters, amqp_table! {}).await;
        peer.bind(letters, &exchange, key).await;
    }
    let headers = amqp_table! { "CC" => amqp_array!["copy"], "BCC" => amqp_array!["hidden"] };
    let properties = Properties { headers: Some(headers), ..Properties::default() };
    peer.post(&Post { key: &queue, properties, body: "x", ..Post::default() }).await;
    peer.until_counts(&queue, (1, 0)).await;
    let held = peer.get(&queue).await.unwrap();
    peer.reject(held.tag, false).await;
    for letters in &letters {
        let letter = peer.get_soon(letters).await;
        assert_eq!((&letter.key, letter.headers().get("BCC")), (&queue, None));
        assert_eq!(letter.headers().get("CC"), Some(&amqp_array!["copy"]));
    }
}

#[tokio::test]
async fn without_a_place_to_go_it_is_dropped() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let queue = target.name("dropped");
    peer.queue(&queue, amqp_table! { "x-dead-letter-exchange" => &target.name("missing") }).await;
    peer.fill(&queue, &["x"]).await;
    let held = peer.get(&queue).await.unwrap();
    peer.reject(held.tag, false).await;
    peer.nothing_comes_from(&queue).await;
    assert_eq!(peer.counts(&queue).await, (0, 0));
}

#[tokio::test]
async fn what_is_purged_or_goes_with_its_queue_is_no_dead_letter() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let pair = Pair::declare(&target, &mut peer, amqp_table! {}).await;
    peer.fill(&pair.queue, &["a", "b"]).await;
    peer.call("queue.purge", fields![&pair.queue, false]).await;
    peer.fill(&pair.queue, &["c"]).await;
    peer.call("queue.delete", fields![&pair.queue, false, false, false]).await;
    peer.publish("", &pair.letters, "end").await;
    assert_eq!(peer.get_soon(&pair.letters).await.body, "end");
}

#[tokio::test]
async fn more_failures_than_the_limit_are_the_end() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let limit = amqp_table! { "x-queue-type" => "quorum", "x-delivery-limit" => 2 };
    let pair = Pair::declare(&target, &mut peer, limit).await;
    peer.publish("", &pair.queue, "poison").await;
    peer.consume(&pair.queue, "c").await;
    for _ in 0..3 {
        let message = peer.delivery().await;
        peer.reject(message.tag, true).await;
    }
    peer.open_channel(2).await;
    peer.call_on(2, "basic.consume", fields![&pair.letters, "l", false, false, false, false, amqp_table! {}])
        .await;
    let letter = peer.message_on(2, "basic.deliver").await;
    assert_eq!(counts(&letter), [(pair.queue.clone(), "delivery_limit".to_owned(), 1)]);
}

#[tokio::test]
async fn a_dead_letter_key_without_an_exchange_is_406() {
    let target = Target::start().await;
    let mut peer = target.peer().await;
    let queue = target.name("key-only");
    let arguments = amqp_table! { "x-dead-letter-routing-key" => "key" };
    let refused =
        peer.refused("queue.declare", fields![&queue, false, true, false, false, false, arguments]).await;
    let text = format!(
        "PRECONDITION_FAILED - invalid arg 'x-dead-letter-routing-key' for queue '{queue}' in vhost '/': \
         routing_key_but_no_dlx_defined"
    );
    assert_eq!(refused, close(406, text, "queue.declare"));
}
