//! What publishers are told.

use amqprs::channel::{BasicAckArguments, BasicGetArguments, BasicPublishArguments, QueueDeclareArguments};
use amqprs::{BasicProperties, FieldTable, FieldValue};

use super::{Amqprs, Event, next, table, text};

#[tokio::test]
async fn every_publish_is_confirmed_however_many_are_on_their_way() {
    let mut amqprs = Amqprs::start().await;
    let queue = amqprs.queue(FieldTable::new()).await;
    for number in 0..200 {
        let properties = BasicProperties::default().with_persistence(number % 2 == 0).finish();
        let arguments = BasicPublishArguments::new("", &queue);
        amqprs.channel.basic_publish(properties, format!("{number}").into_bytes(), arguments).await.unwrap();
    }
    let mut confirmed = 0;
    while confirmed < 200 {
        match amqprs.event().await {
            Event::Ack { tag, multiple: true } => confirmed = confirmed.max(tag),
            Event::Ack { multiple: false, .. } => confirmed += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(confirmed, 200);
    assert_eq!(amqprs.ready(&queue).await, 200);
}

#[tokio::test]
async fn a_full_queue_that_rejects_publishes_says_so_to_the_publisher() {
    let mut amqprs = Amqprs::start().await;
    let limits = table([("x-max-length", FieldValue::I(1)), ("x-overflow", text("reject-publish"))]);
    let queue = amqprs.queue(limits).await;
    amqprs.publish("", &queue, "fits").await;
    let refused = amqprs.publish_with("", &queue, "does not", BasicProperties::default()).await;
    assert_eq!(refused, [Event::Nack { tag: 2 }]);
    assert_eq!(amqprs.drain(&queue).await, ["fits"]);
}

#[tokio::test]
async fn a_mandatory_message_that_nobody_gets_is_returned_before_its_confirm() {
    let mut amqprs = Amqprs::start().await;
    let heard = amqprs.publish_with("amq.topic", "nobody.listens", "lost", BasicProperties::default()).await;
    let (text, key, body) = ("NO_ROUTE".to_owned(), "nobody.listens".to_owned(), "lost".to_owned());
    assert_eq!(
        heard,
        [Event::Returned { code: 312, text, key, body }, Event::Ack { tag: 1, multiple: false }]
    );
}

#[tokio::test]
async fn properties_and_headers_arrive_as_they_were_sent() {
    let mut amqprs = Amqprs::start().await;
    let queue = amqprs.queue(FieldTable::new()).await;
    let headers = table([
        ("text", text("höchst")),
        ("flag", FieldValue::t(true)),
        ("octet", FieldValue::B(255)),
        ("long", FieldValue::l(i64::MIN)),
        ("float", FieldValue::f(0.5)),
        ("nothing", FieldValue::V),
        ("table", FieldValue::F(table([("inner", text("value"))]))),
    ]);
    let properties = BasicProperties::default()
        .with_content_type("application/json")
        .with_content_encoding("utf-8")
        .with_headers(headers)
        .with_persistence(true)
        .with_priority(3)
        .with_correlation_id("c1")
        .with_reply_to("answers")
        .with_expiration("60000")
        .with_message_id("m1")
        .with_timestamp(1_700_000_000)
        .with_message_type("order")
        .with_user_id("guest")
        .with_app_id("shop")
        .with_cluster_id("old")
        .finish();
    let (_, mut consumer) = amqprs.consume(&queue).await;
    amqprs.publish_with("", &queue, "body", properties.clone()).await;
    let received = next(&mut consumer).await;
    assert_eq!((received.properties.headers(), received.body.as_str()), (properties.headers(), "body"));
    // They can be compared only as texts, in which headers are in no order.
    let others =
        |properties: &BasicProperties| properties.clone().with_headers(FieldTable::new()).to_string();
    assert_eq!(others(&received.properties), others(&properties));
}

#[tokio::test]
async fn a_transaction_happens_whole_or_not_at_all() {
    let mut amqprs = Amqprs::start().await;
    let (from, to) = (amqprs.queue(FieldTable::new()).await, amqprs.queue(FieldTable::new()).await);
    amqprs.publish("", &from, "work").await;
    let channel = amqprs.connection.open_channel(None).await.unwrap();
    channel.tx_select().await.unwrap();
    let (work, ..) = channel.basic_get(BasicGetArguments::new(&from)).await.unwrap().unwrap();
    for end in ["rollback", "commit"] {
        let arguments = BasicPublishArguments::new("", &to);
        channel.basic_publish(BasicProperties::default(), end.into(), arguments).await.unwrap();
        channel.basic_ack(BasicAckArguments::new(work.delivery_tag(), false)).await.unwrap();
        if end == "rollback" {
            channel.tx_rollback().await.unwrap();
        } else {
            // An answer on the channel shows that what came before it has been read.
            let passive = QueueDeclareArguments::new(&to).passive(true).finish();
            let declared = channel.queue_declare(passive).await.unwrap().unwrap();
            assert_eq!(declared.1, 0, "nothing is seen before the commit");
            channel.tx_commit().await.unwrap();
        }
    }
    channel.close().await.unwrap();
    assert_eq!(amqprs.drain(&to).await, ["commit"]);
    assert_eq!(amqprs.drain(&from).await, Vec::<String>::new(), "the ack was part of it");
}

#[tokio::test]
async fn a_publish_to_a_missing_exchange_closes_its_channel_and_no_other() {
    let mut amqprs = Amqprs::start().await;
    let arguments = BasicPublishArguments::new("not-there", "key");
    amqprs.channel.basic_publish(BasicProperties::default(), b"x".to_vec(), arguments).await.unwrap();
    let text = "NOT_FOUND - no exchange 'not-there' in vhost '/'".to_owned();
    assert_eq!(amqprs.event().await, Event::ChannelClosed { code: 404, text });
    let other = amqprs.connection.open_channel(None).await.unwrap();
    other.queue_declare(QueueDeclareArguments::exclusive_server_named()).await.unwrap();
}
