//! Deliveries and what becomes of them.

use amqprs::channel::{
    BasicAckArguments, BasicCancelArguments, BasicGetArguments, BasicNackArguments, BasicQosArguments,
    BasicRejectArguments, QueueDeleteArguments,
};
use amqprs::{BasicProperties, FieldTable, FieldValue};

use super::{Amqprs, Event, next, table};

#[tokio::test]
async fn deliveries_come_in_order_and_those_acknowledged_are_gone() {
    let mut amqprs = Amqprs::start().await;
    let queue = amqprs.queue(FieldTable::new()).await;
    let (tag, mut consumer) = amqprs.consume(&queue).await;
    for number in 1..=50_u64 {
        amqprs.publish("", &queue, &format!("{number}")).await;
    }
    for number in 1..=50_u64 {
        let received = next(&mut consumer).await;
        assert_eq!((received.body, received.tag), (format!("{number}"), number));
        assert_eq!((received.exchange.as_str(), received.key.as_str()), ("", queue.as_str()));
        assert!(!received.redelivered);
    }
    // All but the last.
    amqprs.channel.basic_ack(BasicAckArguments::new(49, true)).await.unwrap();
    amqprs.channel.basic_cancel(BasicCancelArguments::new(&tag)).await.unwrap();
    amqprs.channel.basic_recover(true).await.unwrap();
    assert_eq!(amqprs.drain(&queue).await, ["50"]);
}

#[tokio::test]
async fn no_more_than_the_prefetch_is_on_its_way() {
    let mut amqprs = Amqprs::start().await;
    let queue = amqprs.queue(FieldTable::new()).await;
    amqprs.channel.basic_qos(BasicQosArguments::new(0, 1, false)).await.unwrap();
    let (_, mut consumer) = amqprs.consume(&queue).await;
    for text in ["1", "2", "3"] {
        amqprs.publish("", &queue, text).await;
    }
    let first = next(&mut consumer).await;
    assert_eq!(amqprs.ready(&queue).await, 2);
    amqprs.ack(first.tag).await;
    assert_eq!(next(&mut consumer).await.body, "2");
    assert_eq!(amqprs.ready(&queue).await, 1);
}

#[tokio::test]
async fn a_requeued_message_comes_back_to_its_place_and_says_so() {
    let mut amqprs = Amqprs::start().await;
    let queue = amqprs.queue(FieldTable::new()).await;
    amqprs.channel.basic_qos(BasicQosArguments::new(0, 1, false)).await.unwrap();
    for text in ["1", "2"] {
        amqprs.publish("", &queue, text).await;
    }
    let (_, mut consumer) = amqprs.consume(&queue).await;
    let first = next(&mut consumer).await;
    amqprs.nack(first.tag, true).await;
    let again = next(&mut consumer).await;
    assert_eq!((again.body.as_str(), again.redelivered), ("1", true));
    amqprs.channel.basic_reject(BasicRejectArguments::new(again.tag, true)).await.unwrap();
    let again = next(&mut consumer).await;
    assert_eq!((again.body.as_str(), again.redelivered), ("1", true));
    amqprs.ack(again.tag).await;
    let second = next(&mut consumer).await;
    assert_eq!((second.body.as_str(), second.redelivered), ("2", false));
}

#[tokio::test]
async fn what_is_rejected_without_requeue_is_gone() {
    let mut amqprs = Amqprs::start().await;
    let queue = amqprs.queue(FieldTable::new()).await;
    for text in ["1", "2", "3"] {
        amqprs.publish("", &queue, text).await;
    }
    let (tag, mut consumer) = amqprs.consume(&queue).await;
    let received = [next(&mut consumer).await, next(&mut consumer).await, next(&mut consumer).await];
    amqprs.channel.basic_nack(BasicNackArguments::new(received[1].tag, true, false)).await.unwrap();
    amqprs.channel.basic_reject(BasicRejectArguments::new(received[2].tag, false)).await.unwrap();
    amqprs.channel.basic_recover(true).await.unwrap();
    amqprs.channel.basic_cancel(BasicCancelArguments::new(&tag)).await.unwrap();
    assert_eq!(amqprs.drain(&queue).await, Vec::<String>::new());
}

#[tokio::test]
async fn get_takes_one_message_and_says_how_many_are_left() {
    let mut amqprs = Amqprs::start().await;
    let queue = amqprs.queue(FieldTable::new()).await;
    for text in ["1", "2"] {
        amqprs.publish("", &queue, text).await;
    }
    let (first, _, body) = amqprs.channel.basic_get(BasicGetArguments::new(&queue)).await.unwrap().unwrap();
    assert_eq!((body, first.message_count(), first.redelivered()), (b"1".to_vec(), 1, false));
    amqprs.nack(first.delivery_tag(), true).await;
    let (again, _, body) = amqprs.get(&queue).await.unwrap();
    assert_eq!((body, again.message_count(), again.redelivered()), (b"1".to_vec(), 1, true));
    assert_eq!(amqprs.drain(&queue).await, ["2"]);
    assert!(amqprs.get(&queue).await.is_none());
}

#[tokio::test]
async fn a_cancelled_consumer_gets_nothing_more() {
    let mut amqprs = Amqprs::start().await;
    let queue = amqprs.queue(FieldTable::new()).await;
    let (tag, mut consumer) = amqprs.consume(&queue).await;
    amqprs.publish("", &queue, "1").await;
    let received = next(&mut consumer).await;
    assert_eq!(amqprs.channel.basic_cancel(BasicCancelArguments::new(&tag)).await.unwrap(), tag);
    amqprs.publish("", &queue, "2").await;
    assert_eq!(amqprs.ready(&queue).await, 1);
    amqprs.ack(received.tag).await;
    amqprs.channel.basic_recover(true).await.unwrap();
    assert_eq!(amqprs.drain(&queue).await, ["2"]);
}

#[tokio::test]
async fn consumers_of_a_queue_that_is_deleted_hear_of_it() {
    let mut amqprs = Amqprs::start().await;
    let queue = amqprs.queue(FieldTable::new()).await;
    let (consumer, _deliveries) = amqprs.consume(&queue).await;
    amqprs.channel.queue_delete(QueueDeleteArguments::new(&queue)).await.unwrap();
    assert_eq!(amqprs.event().await, Event::Cancelled { consumer });
}

#[tokio::test]
async fn higher_priorities_come_first() {
    let mut amqprs = Amqprs::start().await;
    let queue = amqprs.queue(table([("x-max-priority", FieldValue::B(10))])).await;
    for (text, priority) in [("low", 1), ("high", 9), ("middle", 5), ("high too", 9)] {
        let properties = BasicProperties::default().with_priority(priority).finish();
        amqprs.publish_with("", &queue, text, properties).await;
    }
    assert_eq!(amqprs.drain(&queue).await, ["high", "high too", "middle", "low"]);
}
