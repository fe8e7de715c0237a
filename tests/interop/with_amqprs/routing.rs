//! Exchanges.

use amqprs::channel::{ExchangeBindArguments, QueueUnbindArguments};
use amqprs::{BasicProperties, FieldTable, FieldValue};

use super::{Amqprs, Event, table, text};

#[tokio::test]
async fn a_topic_exchange_matches_words() {
    let mut amqprs = Amqprs::start().await;
    amqprs.exchange("amqprs.topic", "topic").await;
    let queue = amqprs.queue(FieldTable::new()).await;
    for key in ["order.*.paid", "stock.#"] {
        amqprs.bind(&queue, "amqprs.topic", key, FieldTable::new()).await;
    }
    for key in ["order.42.paid", "order.42.sent", "order.paid", "stock", "stock.a.b"] {
        amqprs.publish_with("amqprs.topic", key, key, BasicProperties::default()).await;
    }
    assert_eq!(amqprs.drain(&queue).await, ["order.42.paid", "stock", "stock.a.b"]);
    let unbind = QueueUnbindArguments::new(&queue, "amqprs.topic", "stock.#");
    amqprs.channel.queue_unbind(unbind).await.unwrap();
    let lost = amqprs.publish_with("amqprs.topic", "stock", "lost", BasicProperties::default()).await;
    assert!(matches!(lost[0], Event::Returned { code: 312, .. }), "{lost:?}");
}

#[tokio::test]
async fn a_headers_exchange_matches_all_or_any_headers() {
    let mut amqprs = Amqprs::start().await;
    amqprs.exchange("amqprs.headers", "headers").await;
    let (all, any) = (amqprs.queue(FieldTable::new()).await, amqprs.queue(FieldTable::new()).await);
    for (queue, matching) in [(&all, "all"), (&any, "any")] {
        let wanted = [("x-match", text(matching)), ("kind", text("pdf")), ("pages", FieldValue::I(2))];
        amqprs.bind(queue, "amqprs.headers", "", table(wanted)).await;
    }
    for (name, kind, pages) in [("both", "pdf", 2), ("one", "pdf", 3), ("none", "txt", 3)] {
        let headers = table([("kind", text(kind)), ("pages", FieldValue::I(pages)), ("more", text("x"))]);
        let properties = BasicProperties::default().with_headers(headers).finish();
        amqprs.publish_with("amqprs.headers", "", name, properties).await;
    }
    assert_eq!(amqprs.drain(&all).await, ["both"]);
    assert_eq!(amqprs.drain(&any).await, ["both", "one"]);
}

#[tokio::test]
async fn an_exchange_passes_on_to_exchanges_that_are_bound_to_it() {
    let mut amqprs = Amqprs::start().await;
    amqprs.exchange("amqprs.inner", "fanout").await;
    amqprs.exchange("amqprs.outer", "direct").await;
    let queue = amqprs.queue(FieldTable::new()).await;
    amqprs.bind(&queue, "amqprs.inner", "", FieldTable::new()).await;
    let bind = ExchangeBindArguments::new("amqprs.inner", "amqprs.outer", "yes");
    amqprs.channel.exchange_bind(bind).await.unwrap();
    amqprs.publish("amqprs.outer", "yes", "through").await;
    let other = amqprs.publish_with("amqprs.outer", "no", "not", BasicProperties::default()).await;
    assert!(matches!(other[0], Event::Returned { code: 312, .. }), "{other:?}");
    assert_eq!(amqprs.drain(&queue).await, ["through"]);
}
