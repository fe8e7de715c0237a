//! Messages that are rejected or expire.

use amqprs::{BasicProperties, FieldTable, FieldValue};
use tokio::time::Instant;

use super::{Amqprs, Received, next, table, text};

#[tokio::test]
async fn a_rejected_message_arrives_at_the_dead_letter_exchange_with_its_history() {
    let mut amqprs = Amqprs::start().await;
    let dead = amqprs.queue(FieldTable::new()).await;
    let dying = [("x-dead-letter-exchange", text("")), ("x-dead-letter-routing-key", text(&dead))];
    let queue = amqprs.queue(table(dying)).await;
    amqprs.publish("", &queue, "job").await;
    let (_, mut jobs) = amqprs.consume(&queue).await;
    let job = next(&mut jobs).await;
    amqprs.nack(job.tag, false).await;
    let (_, mut letters) = amqprs.consume(&dead).await;
    let letter = next(&mut letters).await;
    assert_eq!((letter.body.as_str(), letter.key.as_str()), ("job", dead.as_str()));
    assert_eq!(header(&letter, "x-first-death-queue"), Some(text(&queue)));
    assert_eq!(header(&letter, "x-first-death-reason"), Some(text("rejected")));
    let death = death(&letter);
    let of = |name: &str| death.get(&name.try_into().unwrap()).cloned();
    assert_eq!((of("reason"), of("queue")), (Some(text("rejected")), Some(text(&queue))));
    assert_eq!((of("count"), of("exchange")), (Some(FieldValue::l(1)), Some(text(""))));
}

#[tokio::test]
async fn a_message_expires_after_its_own_time_or_that_of_its_queue() {
    let mut amqprs = Amqprs::start().await;
    let dead = amqprs.queue(FieldTable::new()).await;
    let (_, mut letters) = amqprs.consume(&dead).await;
    let dying = || [("x-dead-letter-exchange", text("")), ("x-dead-letter-routing-key", text(&dead))];
    let own = amqprs.queue(table(dying())).await;
    let [exchange, key] = dying();
    let common = amqprs.queue(table([exchange, key, ("x-message-ttl", FieldValue::I(20))])).await;
    for (queue, expiration) in [(own, Some("20")), (common, None)] {
        let mut properties = BasicProperties::default();
        if let Some(expiration) = expiration {
            properties.with_expiration(expiration);
        }
        let began = Instant::now();
        amqprs.publish_with("", &queue, &queue, properties).await;
        let letter = next(&mut letters).await;
        assert!(began.elapsed().as_millis() >= 20, "it came after {:?}", began.elapsed());
        assert_eq!((letter.body.as_str(), letter.properties.expiration()), (queue.as_str(), None));
        assert_eq!(death(&letter).get(&"reason".try_into().unwrap()), Some(&text("expired")));
    }
}

fn header(received: &Received, name: &str) -> Option<FieldValue> {
    received.properties.headers()?.get(&name.try_into().unwrap()).cloned()
}

/// The one entry of `x-death`.
fn death(received: &Received) -> FieldTable {
    let Some(FieldValue::A(deaths)) = header(received, "x-death") else { panic!("{received:?}") };
    match &mut Vec::from(deaths)[..] {
        [FieldValue::F(death)] => std::mem::take(death),
        other => panic!("{other:?}"),
    }
}
