//! Native and AMQP clients on the same queues at once.

use std::time::Duration;

use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Confirmation, ConnectionProperties, ExchangeKind};
use leveret_broker::Broker;
use leveret_client::{
    Binding, Client, DeathReason, Delivery, Exchange, Message, Overflow, PublishError, Queue, Table, Value,
};
use leveret_tests::{broker, within};

use crate::with_lapin::{Lapin, body, next, table, text};

/// A client of each protocol at one broker.
struct Both {
    native: Client,
    lapin: Lapin,
    _broker: Broker,
}

impl Both {
    async fn start() -> Self {
        let broker = broker().await;
        let native = Client::connect(&broker.url()).await.unwrap();
        let lapin = Lapin::connect(broker.amqp_addresses()[0], ConnectionProperties::default()).await;
        Self { native, lapin, _broker: broker }
    }
}

#[tokio::test]
async fn what_amqp_publishes_arrives_over_the_native_protocol_with_all_its_properties() {
    let both = Both::start().await;
    both.native.declare(Queue::durable("orders")).await.unwrap();
    let nested = table([("inner", text("value"))]);
    let list = AMQPValue::FieldArray(vec![AMQPValue::ShortInt(-1), text("two")].into());
    let headers = table([
        ("text", text("höchst")),
        ("flag", AMQPValue::Boolean(true)),
        ("number", AMQPValue::LongInt(-7)),
        ("double", AMQPValue::Double(0.5)),
        ("list", list),
        ("table", AMQPValue::FieldTable(nested)),
    ]);
    let properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_content_encoding("utf-8".into())
        .with_headers(headers)
        .with_delivery_mode(2)
        .with_priority(3)
        .with_correlation_id("c1".into())
        .with_reply_to("answers".into())
        .with_expiration("60000".into())
        .with_message_id("m1".into())
        .with_timestamp(1_700_000_000)
        .with_type("order".into())
        .with_user_id("guest".into())
        .with_app_id("shop".into());
    assert_eq!(both.lapin.publish_with("", "orders", "body", properties).await, Confirmation::Ack(None));

    let delivery = both.native.get("orders").await.unwrap().unwrap();
    let properties = delivery.properties().unwrap();
    let some = |value: &str| Some(value.to_owned());
    assert_eq!(properties.content_type, some("application/json"));
    assert_eq!(properties.content_encoding, some("utf-8"));
    assert_eq!(properties.correlation_id, some("c1"));
    assert_eq!(properties.reply_to, some("answers"));
    assert_eq!(properties.message_id, some("m1"));
    assert_eq!(properties.timestamp, Some(1_700_000_000));
    assert_eq!(properties.kind, some("order"));
    assert_eq!(properties.user_id, some("guest"));
    assert_eq!(properties.app_id, some("shop"));
    let expected = Table::from([
        ("text".to_owned(), Value::from("höchst")),
        ("flag".to_owned(), Value::from(true)),
        ("number".to_owned(), Value::from(-7)),
        ("double".to_owned(), Value::from(0.5)),
        ("list".to_owned(), Value::List(vec![Value::from(-1), Value::from("two")])),
        ("table".to_owned(), Value::Table(Table::from([("inner".to_owned(), Value::from("value"))]))),
    ]);
    assert_eq!(properties.headers, expected);
    assert_eq!((delivery.body(), delivery.exchange(), delivery.routing_key()), (&b"body"[..], "", "orders"));
    assert_eq!((delivery.is_persistent(), delivery.priority()), (true, 3));
    assert_eq!(delivery.ttl(), Some(Duration::from_secs(60)));
    delivery.ack_durably().await.unwrap();
}

#[tokio::test]
async fn what_the_native_protocol_publishes_arrives_over_amqp_with_all_its_properties() {
    let both = Both::start().await;
    both.native.declare(Queue::durable("orders")).await.unwrap();
    let message = Message::new("body")
        .content_type("application/json")
        .content_encoding("utf-8")
        .correlation_id("c1")
        .reply_to("answers")
        .message_id("m1")
        .timestamp(1_700_000_000)
        .kind("order")
        .app_id("shop")
        .header("text", "höchst")
        .header("number", -7)
        .header("list", Value::List(vec![Value::from(true), Value::from(0.5)]))
        .priority(3)
        .ttl(Duration::from_secs(60))
        .cc("nowhere");
    both.native.publisher("").open().await.unwrap().publish("orders", message).await.unwrap();

    let received = both.lapin.get("orders").await.unwrap();
    let headers = table([
        ("text", text("höchst")),
        ("number", AMQPValue::LongLongInt(-7)),
        ("list", AMQPValue::FieldArray(vec![AMQPValue::Boolean(true), AMQPValue::Double(0.5)].into())),
        ("CC", AMQPValue::FieldArray(vec![text("nowhere")].into())),
    ]);
    let expected = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_content_encoding("utf-8".into())
        .with_headers(headers)
        .with_delivery_mode(2)
        .with_priority(3)
        .with_correlation_id("c1".into())
        .with_reply_to("answers".into())
        .with_expiration("60000".into())
        .with_message_id("m1".into())
        .with_timestamp(1_700_000_000)
        .with_type("order".into())
        .with_app_id("shop".into());
    assert_eq!(received.properties, expected);
    assert_eq!((body(&received), received.routing_key.as_str()), ("body".to_owned(), "orders"));
}

#[tokio::test]
async fn clients_of_both_protocols_share_the_messages_of_a_queue() {
    let both = Both::start().await;
    both.native.declare(Queue::durable("jobs")).await.unwrap();
    both.lapin.channel.basic_qos(1, BasicQosOptions::default()).await.unwrap();
    let mut over_amqp = both.lapin.consume("jobs").await;
    let mut over_native = both.native.consumer("jobs").prefetch_max(1).open().await.unwrap();
    let publisher = both.native.publisher("").open().await.unwrap();
    both.lapin.publish("", "jobs", "1").await;
    publisher.publish("jobs", Message::new("2")).await.unwrap();
    let (amqp, native) = (next(&mut over_amqp).await, native_next(&mut over_native).await);
    let mut bodies = [body(&amqp), text_of(&native)];
    bodies.sort();
    assert_eq!(bodies, ["1", "2"], "each has one of the two");

    // What one gives back the other one gets, and learns that it was handed out before.
    let given_back = body(&amqp);
    native.ack_durably().await.unwrap();
    cancel(&both, &over_amqp).await;
    amqp.nack(BasicNackOptions { multiple: false, requeue: true }).await.unwrap();
    let again = native_next(&mut over_native).await;
    assert_eq!((text_of(&again), again.is_redelivered()), (given_back, true));
    again.requeue();
    drop(over_native);
    let mut over_amqp = both.lapin.consume("jobs").await;
    let again = next(&mut over_amqp).await;
    assert!(again.redelivered);
    again.ack(BasicAckOptions::default()).await.unwrap();
}

#[tokio::test]
async fn priorities_count_whichever_protocol_brought_the_message() {
    let both = Both::start().await;
    both.native.declare(Queue::durable("jobs").priority_max(10)).await.unwrap();
    let publisher = both.native.publisher("").open().await.unwrap();
    let amqp = |priority| BasicProperties::default().with_priority(priority);
    both.lapin.publish_with("", "jobs", "amqp 2", amqp(2)).await;
    publisher.publish("jobs", Message::new("native 7").priority(7)).await.unwrap();
    both.lapin.publish_with("", "jobs", "amqp 9", amqp(9)).await;
    publisher.publish("jobs", Message::new("native 1").priority(1)).await.unwrap();
    let first = both.native.get_without_ack("jobs").await.unwrap().unwrap();
    assert_eq!(text_of(&first), "amqp 9");
    assert_eq!(both.lapin.drain("jobs").await, ["native 7", "amqp 2", "native 1"]);
}

#[tokio::test]
async fn a_history_of_deaths_is_read_and_continued_over_both_protocols() {
    let both = Both::start().await;
    both.native.declare(Exchange::fanout("dead").durable()).await.unwrap();
    both.native.declare(Queue::durable("jobs").dead_letter_to("dead")).await.unwrap();
    both.native.declare(Queue::durable("failed").dead_letter_to("dead.again")).await.unwrap();
    both.native.bind(Binding::queue("failed").to("dead")).await.unwrap();
    both.lapin.exchange("dead.again", ExchangeKind::Fanout, FieldTable::default()).await;
    let options = QueueDeclareOptions::durable();
    both.lapin.channel.queue_declare("buried".into(), options, FieldTable::default()).await.unwrap();
    both.lapin.bind("buried", "dead.again", "", FieldTable::default()).await;

    // It dies first over AMQP, then over the native protocol with a note, and is read over both.
    for name in ["for amqp", "for native"] {
        both.lapin.publish("", "jobs", name).await;
    }
    let mut jobs = both.lapin.consume("jobs").await;
    let reject = BasicNackOptions { multiple: false, requeue: false };
    for _ in 0..2 {
        next(&mut jobs).await.nack(reject).await.unwrap();
    }
    let mut failed = both.native.consumer("failed").open().await.unwrap();
    for _ in 0..2 {
        let letter = native_next(&mut failed).await;
        let history = letter.deaths().unwrap().unwrap();
        let [death] = &history.deaths[..] else { panic!("{history:?}") };
        assert_eq!((death.queue.as_str(), death.reason, death.count), ("jobs", DeathReason::Rejected, 1));
        assert_eq!(letter.properties().unwrap().headers, Table::new(), "the native protocol has it apart");
        letter.reject("out of stock");
    }

    let mut buried = both.lapin.consume("buried").await;
    let over_amqp = next(&mut buried).await;
    assert_eq!(body(&over_amqp), "for amqp");
    let headers = over_amqp.properties.headers().clone().unwrap();
    let header = |name: &str| headers.inner().get(name).cloned();
    assert_eq!(header("x-first-death-queue"), Some(text("jobs")));
    assert_eq!(header("x-last-death-queue"), Some(text("failed")));
    assert_eq!(header("x-last-death-note"), Some(text("out of stock")));
    let Some(AMQPValue::FieldArray(deaths)) = header("x-death") else { panic!("{headers:?}") };
    let queue = |death: &AMQPValue| death.as_field_table().unwrap().inner()["queue"].clone();
    let queues: Vec<_> = deaths.as_slice().iter().map(queue).collect();
    assert_eq!(queues, [text("failed"), text("jobs")], "the newest first");
    let other = next(&mut buried).await;
    cancel(&both, &buried).await;
    other.nack(BasicNackOptions { multiple: false, requeue: true }).await.unwrap();

    let mut buried = both.native.consumer("buried").open().await.unwrap();
    let over_native = native_next(&mut buried).await;
    assert_eq!(text_of(&over_native), "for native");
    let history = over_native.deaths().unwrap().unwrap();
    let queues: Vec<_> = history.deaths.iter().map(|death| death.queue.as_str()).collect();
    assert_eq!((queues, history.first.queue.as_str()), (vec!["failed", "jobs"], "jobs"));
    over_native.ack();
}

#[tokio::test]
async fn headers_route_messages_of_both_protocols_alike() {
    let both = Both::start().await;
    both.lapin.exchange("by.headers", ExchangeKind::Headers, FieldTable::default()).await;
    both.native.declare(Queue::durable("pdf")).await.unwrap();
    both.native.declare(Queue::durable("long")).await.unwrap();
    let binding = Binding::queue("pdf").to("by.headers").header("kind", "pdf");
    both.native.bind(binding).await.unwrap();
    let long = table([("x-match", text("all")), ("pages", AMQPValue::LongInt(100))]);
    both.lapin.bind("long", "by.headers", "", long).await;
    let headers = table([("kind", text("pdf")), ("pages", AMQPValue::ShortInt(100))]);
    both.lapin.publish_with("by.headers", "", "amqp", BasicProperties::default().with_headers(headers)).await;
    let publisher = both.native.publisher("by.headers").open().await.unwrap();
    publisher.publish("", Message::new("native").header("kind", "pdf").header("pages", 100)).await.unwrap();
    for queue in ["pdf", "long"] {
        assert_eq!(both.lapin.drain(queue).await, ["amqp", "native"], "{queue}");
    }
}

#[tokio::test]
async fn publishers_of_both_protocols_are_told_of_a_full_queue() {
    let both = Both::start().await;
    let full = Queue::durable("full").length_max(2).overflow(Overflow::RejectPublish);
    both.native.declare(full).await.unwrap();
    let publisher = both.native.publisher("").open().await.unwrap();
    both.lapin.publish("", "full", "1").await;
    publisher.publish("full", Message::new("2")).await.unwrap();
    let refused = both.lapin.publish_with("", "full", "3", BasicProperties::default()).await;
    assert_eq!(refused, Confirmation::Nack(None));
    let refused = publisher.publish("full", Message::new("4")).await.unwrap_err();
    assert!(matches!(refused, PublishError::Refused { .. }), "{refused:?}");
    assert_eq!(both.lapin.drain("full").await, ["1", "2"]);
}

#[tokio::test]
async fn requests_of_either_protocol_are_answered_over_the_other() {
    let both = Both::start().await;
    both.native.declare(Queue::durable("questions")).await.unwrap();

    let mut questions = both.lapin.consume("questions").await;
    let (reply, ()) = tokio::join!(
        both.native.request("", "questions", Message::new("by native"), Duration::from_secs(10)),
        async {
            let question = next(&mut questions).await;
            let (reply_to, id) =
                (question.properties.reply_to().clone(), question.properties.correlation_id().clone());
            let properties = BasicProperties::default().with_correlation_id(id.unwrap());
            let answer = format!("{} answered", body(&question));
            both.lapin.publish_with("", reply_to.unwrap().as_str(), &answer, properties).await;
            question.ack(BasicAckOptions::default()).await.unwrap();
        }
    );
    assert_eq!(text_of(&reply.unwrap()), "by native answered");
    cancel(&both, &questions).await;

    let (queue, no_ack) =
        ("amq.rabbitmq.reply-to", BasicConsumeOptions { no_ack: true, ..Default::default() });
    let replies = both.lapin.channel.basic_consume(queue.into(), "".into(), no_ack, FieldTable::default());
    let mut replies = replies.await.unwrap();
    let properties = BasicProperties::default().with_reply_to(queue.into()).with_correlation_id("c1".into());
    both.lapin.publish_with("", "questions", "by amqp", properties).await;
    let mut questions = both.native.consumer("questions").open().await.unwrap();
    let question = native_next(&mut questions).await;
    question.reply(Message::new("by amqp answered")).await.unwrap();
    question.ack();
    let reply = next(&mut replies).await;
    assert_eq!(
        (body(&reply), reply.properties.correlation_id()),
        ("by amqp answered".to_owned(), &Some("c1".into()))
    );
}

async fn native_next(consumer: &mut leveret_client::Consumer) -> Delivery {
    within("the native delivery", consumer.try_next()).await.unwrap().unwrap()
}

/// Cancels a consumer that keeps what it has.
async fn cancel(both: &Both, consumer: &lapin::Consumer) {
    let options = BasicCancelOptions::default();
    both.lapin.channel.basic_cancel(consumer.tag(), options).await.unwrap();
}

fn text_of(delivery: &Delivery) -> String {
    String::from_utf8(delivery.body().to_vec()).unwrap()
}
