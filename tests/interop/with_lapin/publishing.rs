//! What publishers are told.

use lapin::options::{BasicAckOptions, BasicGetOptions, BasicPublishOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Confirmation};
use leveret_tests::within;

use super::{Lapin, body, closed, next, table, text};

#[tokio::test]
async fn every_publish_is_confirmed_however_many_are_on_their_way() {
    let lapin = Lapin::start().await;
    let queue = lapin.queue(FieldTable::default()).await;
    let mut receipts = Vec::new();
    for number in 0..500_u32 {
        let (body, options) = (format!("{number}"), BasicPublishOptions::default());
        let properties = BasicProperties::default().with_delivery_mode(if number % 2 == 0 { 1 } else { 2 });
        let queue = queue.as_str().into();
        receipts
            .push(lapin.channel.basic_publish("".into(), queue, options, body.as_bytes(), properties).await);
    }
    for receipt in receipts {
        assert_eq!(within("the confirm", receipt.unwrap()).await.unwrap(), Confirmation::Ack(None));
    }
    assert_eq!(lapin.ready(&queue).await, 500);
}

#[tokio::test]
async fn a_full_queue_that_rejects_publishes_says_so_to_the_publisher() {
    let lapin = Lapin::start().await;
    let limits = table([("x-max-length", AMQPValue::LongInt(1)), ("x-overflow", text("reject-publish"))]);
    let queue = lapin.queue(limits).await;
    lapin.publish("", &queue, "fits").await;
    let refused = lapin.publish_with("", &queue, "does not", BasicProperties::default()).await;
    assert_eq!(refused, Confirmation::Nack(None));
    assert_eq!(lapin.drain(&queue).await, ["fits"]);
    lapin.publish("", &queue, "fits again").await;
}

#[tokio::test]
async fn a_mandatory_message_that_nobody_gets_is_returned() {
    let lapin = Lapin::start().await;
    let properties = BasicProperties::default().with_message_id("m1".into());
    let confirmation = lapin.publish_with("amq.topic", "nobody.listens", "lost", properties.clone()).await;
    let returned = confirmation.take_message().expect("the return comes before the confirm");
    assert_eq!((returned.reply_code, returned.reply_text.as_str()), (312, "NO_ROUTE"));
    assert_eq!((returned.exchange.as_str(), returned.routing_key.as_str()), ("amq.topic", "nobody.listens"));
    assert_eq!((body(&returned), &returned.properties), ("lost".to_owned(), &properties));
}

#[tokio::test]
async fn properties_headers_and_body_arrive_as_they_were_sent() {
    let lapin = Lapin::start().await;
    let queue = lapin.queue(FieldTable::default()).await;
    let nested = table([("inner", text("value")), ("number", AMQPValue::LongLongInt(i64::MIN))]);
    let headers = table([
        ("text", text("höchst")),
        ("flag", AMQPValue::Boolean(true)),
        ("octet", AMQPValue::ShortShortUInt(255)),
        ("small", AMQPValue::ShortInt(-2)),
        ("double", AMQPValue::Double(0.5)),
        ("time", AMQPValue::Timestamp(1_700_000_000)),
        ("bytes", AMQPValue::ByteArray(vec![0, 255].into())),
        ("nothing", AMQPValue::Void),
        ("list", AMQPValue::FieldArray(vec![AMQPValue::LongInt(1), text("two")].into())),
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
        .with_app_id("shop".into())
        .with_cluster_id("old".into());
    // More than a frame of 128 KiB holds.
    let large = "0123456789".repeat(50_000);
    lapin.publish_with("", &queue, &large, properties.clone()).await;
    let message = lapin.get(&queue).await.unwrap();
    assert_eq!(message.properties, properties);
    assert_eq!(body(&message), large);
}

#[tokio::test]
async fn a_committed_transaction_has_all_its_publishes_and_acks() {
    let lapin = Lapin::start().await;
    let (from, to) = (lapin.queue(FieldTable::default()).await, lapin.queue(FieldTable::default()).await);
    lapin.publish("", &from, "work").await;
    let channel = lapin.connection.create_channel().await.unwrap();
    channel.tx_select().await.unwrap();
    let options = BasicGetOptions::default();
    let work = channel.basic_get(from.as_str().into(), options).await.unwrap().unwrap();
    for body in ["result", "log"] {
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
        let body = body.as_bytes();
        channel.basic_publish("".into(), to.as_str().into(), options, body, properties).await.unwrap();
    }
    work.ack(BasicAckOptions::default()).await.unwrap();
    // An answer on the channel shows that what came before it has been read.
    let passive = QueueDeclareOptions::exclusive().passive();
    let declared = channel.queue_declare(to.as_str().into(), passive, FieldTable::default()).await.unwrap();
    assert_eq!(declared.message_count(), 0, "nothing is seen before the commit");
    channel.tx_commit().await.unwrap();
    channel.close(200, "".into()).await.unwrap();
    assert_eq!(lapin.drain(&to).await, ["result", "log"]);
    assert_eq!(lapin.ready(&from).await, 0, "the ack was part of it");
}

#[tokio::test]
async fn a_transaction_that_is_rolled_back_leaves_nothing() {
    let lapin = Lapin::start().await;
    let (from, to) = (lapin.queue(FieldTable::default()).await, lapin.queue(FieldTable::default()).await);
    lapin.publish("", &from, "work").await;
    let channel = lapin.connection.create_channel().await.unwrap();
    channel.tx_select().await.unwrap();
    let options = BasicGetOptions::default();
    let work = channel.basic_get(from.as_str().into(), options).await.unwrap().unwrap();
    let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
    channel.basic_publish("".into(), to.as_str().into(), options, b"result", properties).await.unwrap();
    work.ack(BasicAckOptions::default()).await.unwrap();
    channel.tx_rollback().await.unwrap();
    channel.close(200, "".into()).await.unwrap();
    assert_eq!(lapin.drain(&to).await, Vec::<String>::new());
    let mut consumer = lapin.consume(&from).await;
    let again = next(&mut consumer).await;
    assert_eq!((body(&again), again.redelivered), ("work".to_owned(), true));
}

#[tokio::test]
async fn a_publish_to_a_missing_exchange_closes_its_channel_and_no_other() {
    let lapin = Lapin::start().await;
    let other = lapin.connection.create_channel().await.unwrap();
    let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
    let published = lapin.channel.basic_publish("not-there".into(), "key".into(), options, b"x", properties);
    let error = within("the refusal", published.await.unwrap()).await.unwrap_err();
    let text = "NOT_FOUND - no exchange 'not-there' in vhost '/'";
    assert_eq!(closed(&error), (404, text.to_owned()));
    let options = QueueDeclareOptions::exclusive();
    other.queue_declare("".into(), options, FieldTable::default()).await.unwrap();
}
