//! Exchanges.

use lapin::options::{ExchangeBindOptions, ExchangeUnbindOptions, QueueBindOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Confirmation, ExchangeKind};

use super::{Lapin, table, text};

#[tokio::test]
async fn a_topic_exchange_matches_words() {
    let lapin = Lapin::start().await;
    lapin.exchange("lapin.topic", ExchangeKind::Topic, FieldTable::default()).await;
    let queue = lapin.queue(FieldTable::default()).await;
    for key in ["order.*.paid", "stock.#"] {
        lapin.bind(&queue, "lapin.topic", key, FieldTable::default()).await;
    }
    for key in ["order.42.paid", "order.42.sent", "order.paid", "stock", "stock.a.b"] {
        lapin.publish_with("lapin.topic", key, key, BasicProperties::default()).await;
    }
    assert_eq!(lapin.drain(&queue).await, ["order.42.paid", "stock", "stock.a.b"]);
    let (queue, key) = (queue.as_str(), "stock.#");
    let unbound =
        lapin.channel.queue_unbind(queue.into(), "lapin.topic".into(), key.into(), FieldTable::default());
    unbound.await.unwrap();
    let lost = lapin.publish_with("lapin.topic", "stock", "lost", BasicProperties::default()).await;
    assert!(lost.take_message().is_some());
}

#[tokio::test]
async fn a_headers_exchange_matches_all_or_any_headers() {
    let lapin = Lapin::start().await;
    lapin.exchange("lapin.headers", ExchangeKind::Headers, FieldTable::default()).await;
    let (all, any) = (lapin.queue(FieldTable::default()).await, lapin.queue(FieldTable::default()).await);
    for (queue, matching) in [(&all, "all"), (&any, "any")] {
        let wanted = [("x-match", text(matching)), ("kind", text("pdf")), ("pages", AMQPValue::LongInt(2))];
        lapin.bind(queue, "lapin.headers", "", table(wanted)).await;
    }
    for (name, kind, pages) in [("both", "pdf", 2), ("one", "pdf", 3), ("none", "txt", 3)] {
        let headers =
            table([("kind", text(kind)), ("pages", AMQPValue::LongInt(pages)), ("more", text("x"))]);
        let properties = BasicProperties::default().with_headers(headers);
        lapin.publish_with("lapin.headers", "", name, properties).await;
    }
    assert_eq!(lapin.drain(&all).await, ["both"]);
    assert_eq!(lapin.drain(&any).await, ["both", "one"]);
}

#[tokio::test]
async fn an_exchange_passes_on_to_exchanges_that_are_bound_to_it() {
    let lapin = Lapin::start().await;
    lapin.exchange("lapin.inner", ExchangeKind::Fanout, FieldTable::default()).await;
    lapin.exchange("lapin.outer", ExchangeKind::Direct, FieldTable::default()).await;
    let queue = lapin.queue(FieldTable::default()).await;
    lapin.bind(&queue, "lapin.inner", "", FieldTable::default()).await;
    let names = || ("lapin.inner".into(), "lapin.outer".into(), "yes".into());
    let (inner, outer, key) = names();
    let options = ExchangeBindOptions::default();
    lapin.channel.exchange_bind(inner, outer, key, options, FieldTable::default()).await.unwrap();
    lapin.publish("lapin.outer", "yes", "through").await;
    let other = lapin.publish_with("lapin.outer", "no", "not", BasicProperties::default()).await;
    assert!(other.take_message().is_some());
    assert_eq!(lapin.drain(&queue).await, ["through"]);
    let (inner, outer, key) = names();
    let options = ExchangeUnbindOptions::default();
    lapin.channel.exchange_unbind(inner, outer, key, options, FieldTable::default()).await.unwrap();
    let options = QueueBindOptions::default();
    // `lapin.outer` went with its last binding; a durable exchange that is always there shows that nothing else did.
    let (fanout, key) = ("amq.fanout".into(), "".into());
    let queue_name = queue.as_str().into();
    lapin.channel.queue_bind(queue_name, fanout, key, options, FieldTable::default()).await.unwrap();
}

#[tokio::test]
async fn what_an_exchange_cannot_route_goes_to_its_alternate() {
    let lapin = Lapin::start().await;
    let arguments = table([("alternate-exchange", text("lapin.unrouted"))]);
    lapin.exchange("lapin.routed", ExchangeKind::Direct, arguments).await;
    lapin.exchange("lapin.unrouted", ExchangeKind::Fanout, FieldTable::default()).await;
    let (known, unknown) =
        (lapin.queue(FieldTable::default()).await, lapin.queue(FieldTable::default()).await);
    lapin.bind(&known, "lapin.routed", "known", FieldTable::default()).await;
    lapin.bind(&unknown, "lapin.unrouted", "", FieldTable::default()).await;
    lapin.publish("lapin.routed", "known", "1").await;
    let other = lapin.publish_with("lapin.routed", "else", "2", BasicProperties::default()).await;
    assert_eq!(other, Confirmation::Ack(None));
    assert_eq!(
        (lapin.drain(&known).await, lapin.drain(&unknown).await),
        (vec!["1".into()], vec!["2".into()])
    );
}
