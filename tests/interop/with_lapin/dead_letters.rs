//! Messages that are rejected, expire or do not fit.

use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicRejectOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, ExchangeKind};
use tokio::time::Instant;

use super::{Lapin, body, next, table, text};

#[tokio::test]
async fn a_rejected_message_arrives_at_the_dead_letter_exchange_with_its_history() {
    let lapin = Lapin::start().await;
    lapin.exchange("lapin.dead", ExchangeKind::Topic, FieldTable::default()).await;
    let dead = lapin.queue(FieldTable::default()).await;
    lapin.bind(&dead, "lapin.dead", "failed.#", FieldTable::default()).await;
    let dying =
        [("x-dead-letter-exchange", text("lapin.dead")), ("x-dead-letter-routing-key", text("failed.job"))];
    let queue = lapin.queue(table(dying)).await;
    let properties = BasicProperties::default().with_headers(table([("mine", text("stays"))]));
    lapin.publish_with("", &queue, "job", properties).await;
    let mut jobs = lapin.consume(&queue).await;
    next(&mut jobs).await.reject(BasicRejectOptions { requeue: false }).await.unwrap();

    let mut letters = lapin.consume(&dead).await;
    let letter = next(&mut letters).await;
    assert_eq!((body(&letter), letter.routing_key.as_str()), ("job".to_owned(), "failed.job"));
    assert_eq!((letter.exchange.as_str(), letter.redelivered), ("lapin.dead", false));
    assert_eq!(header(&letter, "mine"), Some(text("stays")));
    let short = |name| match header(&letter, name) {
        Some(AMQPValue::LongString(value)) => value.to_string(),
        other => panic!("{name} is {other:?}"),
    };
    assert_eq!(short("x-first-death-queue"), queue);
    assert_eq!(short("x-first-death-reason"), "rejected");
    assert_eq!(short("x-first-death-exchange"), "");
    let [death] = &deaths(&letter)[..] else { panic!("{:?}", letter.properties) };
    assert_eq!(death.inner().get("count"), Some(&AMQPValue::LongLongInt(1)));
    assert_eq!(death.inner().get("reason"), Some(&text("rejected")));
    assert_eq!(death.inner().get("queue"), Some(&text(&queue)));
    assert_eq!(death.inner().get("exchange"), Some(&text("")));
    let keys = AMQPValue::FieldArray(vec![text(&queue)].into());
    assert_eq!(death.inner().get("routing-keys"), Some(&keys));
    assert!(matches!(death.inner().get("time"), Some(AMQPValue::Timestamp(_))));
}

#[tokio::test]
async fn a_message_expires_after_its_own_time_or_that_of_its_queue() {
    let lapin = Lapin::start().await;
    lapin.exchange("lapin.expired", ExchangeKind::Fanout, FieldTable::default()).await;
    let dead = lapin.queue(FieldTable::default()).await;
    lapin.bind(&dead, "lapin.expired", "", FieldTable::default()).await;
    let mut letters = lapin.consume(&dead).await;
    let own = lapin.queue(table([("x-dead-letter-exchange", text("lapin.expired"))])).await;
    let common =
        [("x-dead-letter-exchange", text("lapin.expired")), ("x-message-ttl", AMQPValue::LongInt(30))];
    let common = lapin.queue(table(common)).await;

    let began = Instant::now();
    lapin.publish_with("", &own, "own", BasicProperties::default().with_expiration("20".into())).await;
    let letter = next(&mut letters).await;
    assert!(began.elapsed().as_millis() >= 20, "it came after {:?}", began.elapsed());
    assert_eq!(body(&letter), "own");
    assert_eq!(letter.properties.expiration(), &None, "or it would expire once more");
    let [death] = &deaths(&letter)[..] else { panic!("{:?}", letter.properties) };
    assert_eq!(death.inner().get("reason"), Some(&text("expired")));
    assert_eq!(death.inner().get("original-expiration"), Some(&text("20")));

    let began = Instant::now();
    lapin.publish("", &common, "common").await;
    let letter = next(&mut letters).await;
    assert!(began.elapsed().as_millis() >= 30, "it came after {:?}", began.elapsed());
    assert_eq!(body(&letter), "common");
}

#[tokio::test]
async fn what_does_not_fit_makes_the_oldest_go() {
    let lapin = Lapin::start().await;
    lapin.exchange("lapin.over", ExchangeKind::Fanout, FieldTable::default()).await;
    let dead = lapin.queue(FieldTable::default()).await;
    lapin.bind(&dead, "lapin.over", "", FieldTable::default()).await;
    let limit = [("x-dead-letter-exchange", text("lapin.over")), ("x-max-length", AMQPValue::LongInt(2))];
    let queue = lapin.queue(table(limit)).await;
    for text in ["1", "2", "3"] {
        lapin.publish("", &queue, text).await;
    }
    let mut letters = lapin.consume(&dead).await;
    let letter = next(&mut letters).await;
    assert_eq!(body(&letter), "1");
    let [death] = &deaths(&letter)[..] else { panic!("{:?}", letter.properties) };
    assert_eq!(death.inner().get("reason"), Some(&text("maxlen")));
    assert_eq!(lapin.drain(&queue).await, ["2", "3"]);
}

#[tokio::test]
async fn a_message_that_is_retried_counts_its_deaths() {
    let lapin = Lapin::start().await;
    lapin.exchange("lapin.work", ExchangeKind::Direct, FieldTable::default()).await;
    lapin.exchange("lapin.wait", ExchangeKind::Direct, FieldTable::default()).await;
    let work = lapin.queue(table([("x-dead-letter-exchange", text("lapin.wait"))])).await;
    let wait = [("x-dead-letter-exchange", text("lapin.work")), ("x-message-ttl", AMQPValue::LongInt(5))];
    let wait = lapin.queue(table(wait)).await;
    lapin.bind(&work, "lapin.work", "job", FieldTable::default()).await;
    lapin.bind(&wait, "lapin.wait", "job", FieldTable::default()).await;
    lapin.publish("lapin.work", "job", "stubborn").await;
    let mut jobs = lapin.consume(&work).await;
    for attempt in 0..3_i64 {
        let job = next(&mut jobs).await;
        let counts: Vec<_> = deaths(&job).iter().map(|death| death.inner().get("count").cloned()).collect();
        let expected = if attempt == 0 { vec![] } else { vec![Some(AMQPValue::LongLongInt(attempt)); 2] };
        assert_eq!(counts, expected, "once for each of the two queues that it died in");
        if attempt < 2 {
            job.reject(BasicRejectOptions { requeue: false }).await.unwrap();
        } else {
            job.ack(BasicAckOptions::default()).await.unwrap();
        }
    }
}

fn header(delivery: &Delivery, name: &str) -> Option<AMQPValue> {
    delivery.properties.headers().as_ref()?.inner().get(name).cloned()
}

/// The entries of `x-death`, the last death first.
fn deaths(delivery: &Delivery) -> Vec<FieldTable> {
    let Some(AMQPValue::FieldArray(deaths)) = header(delivery, "x-death") else { return Vec::new() };
    let table = |death: &AMQPValue| death.as_field_table().expect("a death is a table").clone();
    deaths.as_slice().iter().map(table).collect()
}
