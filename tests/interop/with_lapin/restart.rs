//! The broker stops and comes back.

use std::time::Duration;

use lapin::options::{BasicAckOptions, BasicPublishOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Confirmation, ConnectionProperties};
use leveret_tests::{broker_on, free_address, within};

use super::{Lapin, body, next};

#[tokio::test]
async fn a_recovering_client_goes_on_after_a_restart_of_the_broker() {
    let (data_dir, address) = (tempfile::tempdir().unwrap(), free_address());
    let broker = broker_on(data_dir.path(), address).await;
    let lapin = Lapin::connect(address, recovering()).await;
    let options = QueueDeclareOptions::durable();
    lapin.channel.queue_declare("orders".into(), options, FieldTable::default()).await.unwrap();
    let mut consumer = lapin.consume("orders").await;
    let persistent = || BasicProperties::default().with_delivery_mode(2);
    let confirmation = lapin.publish_with("", "orders", "before", persistent()).await;
    assert_eq!(confirmation, Confirmation::Ack(None));
    assert_eq!(body(&next(&mut consumer).await), "before");

    // What was delivered and not acknowledged goes back, and comes again when the client has found the broker.
    broker.stop().await.unwrap();
    let _broker = broker_on(data_dir.path(), address).await;
    let again = next(&mut consumer).await;
    assert_eq!((body(&again), again.redelivered), ("before".to_owned(), true));
    again.ack(BasicAckOptions::default()).await.unwrap();
    let (queue, options) = ("orders".into(), BasicPublishOptions::default());
    let receipt = lapin.channel.basic_publish("".into(), queue, options, b"after", persistent()).await;
    assert_eq!(within("the confirm", receipt.unwrap()).await.unwrap(), Confirmation::Ack(None));
    assert_eq!(body(&next(&mut consumer).await), "after");
}

#[tokio::test]
async fn durable_queues_keep_their_persistent_messages_and_no_others() {
    let data_dir = tempfile::tempdir().unwrap();
    let broker = leveret_tests::broker_at(data_dir.path()).await;
    let lapin = Lapin::connect(broker.amqp_addresses()[0], ConnectionProperties::default()).await;
    let options = QueueDeclareOptions::durable();
    lapin.channel.queue_declare("orders".into(), options, FieldTable::default()).await.unwrap();
    for (text, delivery_mode) in [("kept", 2), ("not kept", 1)] {
        let properties = BasicProperties::default().with_delivery_mode(delivery_mode);
        lapin.publish_with("", "orders", text, properties).await;
    }
    broker.stop().await.unwrap();
    let broker = leveret_tests::broker_at(data_dir.path()).await;
    let lapin = Lapin::connect(broker.amqp_addresses()[0], ConnectionProperties::default()).await;
    let message = lapin.get("orders").await.unwrap();
    assert_eq!((body(&message), message.message_count), ("kept".to_owned(), 0));
    assert_eq!(message.properties.delivery_mode(), &Some(2));
}

/// Tries again soon, because the broker is back soon.
fn recovering() -> ConnectionProperties {
    let properties = ConnectionProperties::default().enable_auto_recover();
    properties.configure_backoff(|backoff| {
        let (shortest, longest) = (Duration::from_millis(10), Duration::from_millis(100));
        backoff.with_min_delay(shortest).with_max_delay(longest).with_max_times(1_000)
    })
}
