//! Messages that are published over one protocol and consumed over the other.

use std::time::Duration;

use leveret_client::{Client, Message, Queue};
use leveret_protocol::{Table as Headers, Value as Header};
use leveret_tests::amqp::{Post, Properties, Target, Value};
use leveret_tests::{amqp_array, amqp_table, config, fields, within};

async fn both() -> (Target, Client, leveret_tests::amqp::Peer) {
    let target = Target::ours(config()).await;
    let native = Client::connect(&target.broker.as_ref().unwrap().url()).await.unwrap();
    let peer = target.peer().await;
    (target, native, peer)
}

#[tokio::test]
async fn a_native_message_comes_over_amqp_with_all_that_was_said_of_it() {
    let (_target, native, mut peer) = both().await;
    native.declare(Queue::durable("q").priority_max(9)).await.unwrap();
    let publisher = native.publisher("").open().await.unwrap();
    let nested =
        Header::Table(Headers::from([("list".to_owned(), Header::List(vec![1.into(), "two".into()]))]));
    let message = Message::new("hello")
        .content_type("text/plain")
        .correlation_id("c")
        .reply_to("r")
        .message_id("m")
        .timestamp(1_700_000_000)
        .kind("k")
        .app_id("a")
        .priority(7)
        .ttl(Duration::from_secs(60))
        .header("number", 42_i64)
        .header("nested", nested);
    publisher.publish("q", message).await.unwrap();
    let got = peer.get("q").await.unwrap();
    let text = |text: &str| Some(text.to_owned());
    let headers = amqp_table! {
        "nested" => amqp_table! { "list" => amqp_array![1_i64, "two"] },
        "number" => 42_i64,
    };
    let expected = Properties {
        content_type: text("text/plain"),
        correlation_id: text("c"),
        reply_to: text("r"),
        message_id: text("m"),
        timestamp: Some(1_700_000_000),
        message_type: text("k"),
        app_id: text("a"),
        priority: Some(7),
        expiration: text("60000"),
        delivery_mode: Some(2),
        headers: Some(headers),
        ..Properties::default()
    };
    assert_eq!((got.body.as_str(), got.properties), ("hello", expected));
}

#[tokio::test]
async fn an_amqp_message_comes_over_the_native_protocol_with_all_that_was_said_of_it() {
    let (target, native, mut peer) = both().await;
    let queue = target.name("to-native");
    peer.queue(&queue, amqp_table! { "x-max-priority" => 9 }).await;
    let text = |text: &str| Some(text.to_owned());
    let properties = Properties {
        content_type: text("text/plain"),
        correlation_id: text("c"),
        reply_to: text("r"),
        message_id: text("m"),
        timestamp: Some(1_700_000_000),
        message_type: text("k"),
        app_id: text("a"),
        user_id: text("guest"),
        priority: Some(7),
        expiration: text("60000"),
        delivery_mode: Some(2),
        headers: Some(
            amqp_table! { "number" => 42_i8, "CC" => amqp_array!["elsewhere"], "BCC" => amqp_array!["b"] },
        ),
        ..Properties::default()
    };
    peer.post(&Post { key: &queue, properties, body: "hello", ..Post::default() }).await;
    let mut consumer = native.consumer(&queue).open().await.unwrap();
    let delivery = within("the delivery", consumer.try_next()).await.unwrap().unwrap();
    let seen = delivery.properties().unwrap();
    assert_eq!((delivery.body(), delivery.priority(), delivery.is_persistent()), (&b"hello"[..], 7, true));
    assert_eq!(delivery.ttl(), Some(Duration::from_secs(60)));
    assert_eq!(delivery.cc().collect::<Vec<_>>(), ["elsewhere"]);
    let texts = [
        &seen.content_type,
        &seen.correlation_id,
        &seen.reply_to,
        &seen.message_id,
        &seen.kind,
        &seen.app_id,
    ];
    assert_eq!(texts.map(|text| text.as_deref().unwrap()), ["text/plain", "c", "r", "m", "k", "a"]);
    assert_eq!((seen.user_id.as_deref(), seen.timestamp), (Some("guest"), Some(1_700_000_000)));
    assert_eq!(seen.headers.get("number"), Some(&Header::Int(42)));
    assert_eq!(seen.headers.get("BCC"), None);
    delivery.ack();
}

#[tokio::test]
async fn a_rejection_over_one_protocol_is_a_death_over_the_other() {
    let (target, native, mut peer) = both().await;
    let (work, dead) = (target.name("work"), target.name("dead"));
    peer.queue(&dead, amqp_table! {}).await;
    let arguments =
        amqp_table! { "x-dead-letter-exchange" => "", "x-dead-letter-routing-key" => dead.as_str() };
    peer.queue(&work, arguments).await;
    peer.fill(&work, &["by native", "by AMQP"]).await;
    let mut consumer = native.consumer(&work).prefetch_max(1).open().await.unwrap();
    within("the delivery", consumer.try_next()).await.unwrap().unwrap().reject("no good");
    let second = within("the delivery", consumer.try_next()).await.unwrap().unwrap();
    second.release();
    drop(consumer);
    let letter = peer.get_soon(&dead).await;
    let headers = letter.properties.headers.unwrap();
    assert_eq!(headers.get("x-first-death-queue"), Some(&Value::Text(work.clone())));
    assert_eq!(headers.get("x-last-death-note"), Some(&Value::Text("no good".to_owned())));
    peer.until_counts(&work, (1, 0)).await;
    let again = peer.get(&work).await.unwrap();
    peer.reject(again.tag, false).await;
    let mut letters = native.consumer(&dead).open().await.unwrap();
    let letter = within("the dead letter", letters.try_next()).await.unwrap().unwrap();
    let deaths = letter.deaths().unwrap().unwrap();
    assert_eq!((letter.body(), deaths.deaths[0].queue.as_str()), (&b"by AMQP"[..], work.as_str()));
    assert_eq!(deaths.deaths[0].reason.as_str(), "rejected");
    letter.ack();
    peer.call("queue.delete", fields![&work, false, false, false]).await;
}
