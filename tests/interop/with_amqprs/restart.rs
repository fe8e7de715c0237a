//! The broker stops and comes back.

use amqprs::BasicProperties;
use amqprs::channel::QueueDeclareArguments;
use leveret_tests::{broker_on, free_address};

use super::{Amqprs, Event, next};

#[tokio::test]
async fn a_client_that_is_told_of_the_stop_connects_again_and_goes_on() {
    let (data_dir, address) = (tempfile::tempdir().unwrap(), free_address());
    let broker = broker_on(data_dir.path(), address).await;
    let mut amqprs = Amqprs::connect(address).await;
    amqprs.channel.queue_declare(QueueDeclareArguments::durable_client_named("orders")).await.unwrap();
    let persistent = || BasicProperties::default().with_persistence(true).finish();
    for text in ["1", "2"] {
        let heard = amqprs.publish_with("", "orders", text, persistent()).await;
        assert!(matches!(heard[..], [Event::Ack { .. }]), "{heard:?}");
    }
    let (_, mut consumer) = amqprs.consume("orders").await;
    let first = next(&mut consumer).await;
    amqprs.ack(first.tag).await;
    assert_eq!(next(&mut consumer).await.body, "2");

    broker.stop().await.unwrap();
    let text = "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'".to_owned();
    assert_eq!(amqprs.event().await, Event::ConnectionClosed { code: 320, text });
    let _broker = broker_on(data_dir.path(), address).await;
    let mut amqprs = Amqprs::connect(address).await;
    let (_, mut consumer) = amqprs.consume("orders").await;
    let second = next(&mut consumer).await;
    assert_eq!((second.body.as_str(), second.redelivered), ("2", true));
    amqprs.publish_with("", "orders", "3", persistent()).await;
    assert_eq!(next(&mut consumer).await.body, "3");
}
