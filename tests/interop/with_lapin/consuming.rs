//! Deliveries and what becomes of them.

use std::future::poll_fn;
use std::pin::pin;

use futures_core::Stream;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicGetOptions, BasicNackOptions,
    BasicQosOptions, BasicRecoverOptions, BasicRejectOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Confirmation, Event};
use leveret_tests::within;

use super::{Lapin, body, closed, next, next_or_end, table};

#[tokio::test]
async fn deliveries_come_in_order_and_those_acknowledged_are_gone() {
    let lapin = Lapin::start().await;
    let queue = lapin.queue(FieldTable::default()).await;
    let mut consumer = lapin.consume(&queue).await;
    for number in 1..=100_u64 {
        lapin.publish("", &queue, &format!("{number}")).await;
    }
    for number in 1..=100_u64 {
        let delivery = next(&mut consumer).await;
        assert_eq!((body(&delivery), delivery.delivery_tag), (format!("{number}"), number));
        assert_eq!((delivery.exchange.as_str(), delivery.routing_key.as_str()), ("", queue.as_str()));
        assert!(!delivery.redelivered);
        delivery.ack(BasicAckOptions::default()).await.unwrap();
    }
    // Recover would bring back whatever is not settled.
    lapin.channel.basic_recover(BasicRecoverOptions { requeue: true }).await.unwrap();
    lapin.channel.basic_cancel(consumer.tag(), BasicCancelOptions::default()).await.unwrap();
    assert_eq!(lapin.ready(&queue).await, 0);
}

#[tokio::test]
async fn one_ack_settles_all_deliveries_up_to_its_own() {
    let lapin = Lapin::start().await;
    let queue = lapin.queue(FieldTable::default()).await;
    let mut consumer = lapin.consume(&queue).await;
    for text in ["1", "2", "3"] {
        lapin.publish("", &queue, text).await;
    }
    let deliveries = [next(&mut consumer).await, next(&mut consumer).await, next(&mut consumer).await];
    deliveries[1].ack(BasicAckOptions { multiple: true }).await.unwrap();
    lapin.channel.basic_cancel(consumer.tag(), BasicCancelOptions::default()).await.unwrap();
    lapin.channel.basic_recover(BasicRecoverOptions { requeue: true }).await.unwrap();
    assert_eq!(lapin.drain(&queue).await, ["3"]);
}

#[tokio::test]
async fn no_more_than_the_prefetch_is_on_its_way() {
    let lapin = Lapin::start().await;
    let queue = lapin.queue(FieldTable::default()).await;
    lapin.channel.basic_qos(2, BasicQosOptions::default()).await.unwrap();
    let mut consumer = lapin.consume(&queue).await;
    for text in ["1", "2", "3", "4"] {
        lapin.publish("", &queue, text).await;
    }
    let first = next(&mut consumer).await;
    assert_eq!(body(&next(&mut consumer).await), "2");
    assert_eq!(lapin.ready(&queue).await, 2);
    first.ack(BasicAckOptions::default()).await.unwrap();
    assert_eq!(body(&next(&mut consumer).await), "3");
    assert_eq!(lapin.ready(&queue).await, 1);
}

#[tokio::test]
async fn a_requeued_message_comes_back_to_its_place_and_says_so() {
    let lapin = Lapin::start().await;
    let queue = lapin.queue(FieldTable::default()).await;
    lapin.channel.basic_qos(1, BasicQosOptions::default()).await.unwrap();
    for text in ["1", "2"] {
        lapin.publish("", &queue, text).await;
    }
    let mut consumer = lapin.consume(&queue).await;
    let requeue = BasicNackOptions { multiple: false, requeue: true };
    next(&mut consumer).await.nack(requeue).await.unwrap();
    let again = next(&mut consumer).await;
    assert_eq!((body(&again), again.redelivered), ("1".to_owned(), true));
    again.reject(BasicRejectOptions { requeue: true }).await.unwrap();
    let again = next(&mut consumer).await;
    assert_eq!((body(&again), again.redelivered), ("1".to_owned(), true));
    again.ack(BasicAckOptions::default()).await.unwrap();
    let second = next(&mut consumer).await;
    assert_eq!((body(&second), second.redelivered), ("2".to_owned(), false));
}

#[tokio::test]
async fn what_is_rejected_without_requeue_is_gone() {
    let lapin = Lapin::start().await;
    let queue = lapin.queue(FieldTable::default()).await;
    for text in ["1", "2", "3"] {
        lapin.publish("", &queue, text).await;
    }
    let mut consumer = lapin.consume(&queue).await;
    next(&mut consumer).await;
    let second = next(&mut consumer).await;
    second.nack(BasicNackOptions { multiple: true, requeue: false }).await.unwrap();
    next(&mut consumer).await.reject(BasicRejectOptions { requeue: false }).await.unwrap();
    lapin.channel.basic_recover(BasicRecoverOptions { requeue: true }).await.unwrap();
    lapin.channel.basic_cancel(consumer.tag(), BasicCancelOptions::default()).await.unwrap();
    assert_eq!(lapin.drain(&queue).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_channel_that_closes_gives_its_deliveries_back() {
    let lapin = Lapin::start().await;
    let queue = lapin.queue(FieldTable::default()).await;
    lapin.publish("", &queue, "kept").await;
    let channel = lapin.connection.create_channel().await.unwrap();
    let options = BasicConsumeOptions::default();
    let table = FieldTable::default();
    let mut consumer = channel.basic_consume(queue.as_str().into(), "".into(), options, table).await.unwrap();
    assert_eq!(body(&next(&mut consumer).await), "kept");
    channel.close(200, "".into()).await.unwrap();
    let again = lapin.get(&queue).await.unwrap();
    assert_eq!((body(&again), again.redelivered), ("kept".to_owned(), true));
}

#[tokio::test]
async fn get_takes_one_message_and_says_how_many_are_left() {
    let lapin = Lapin::start().await;
    let queue = lapin.queue(FieldTable::default()).await;
    for text in ["1", "2"] {
        lapin.publish("", &queue, text).await;
    }
    let get = || lapin.channel.basic_get(queue.as_str().into(), BasicGetOptions::default());
    let first = get().await.unwrap().unwrap();
    assert_eq!((body(&first), first.message_count), ("1".to_owned(), 1));
    let second = get().await.unwrap().unwrap();
    assert_eq!((body(&second), second.message_count), ("2".to_owned(), 0));
    assert_eq!(get().await.unwrap(), None);
    first.nack(BasicNackOptions { multiple: false, requeue: true }).await.unwrap();
    let again = get().await.unwrap().unwrap();
    assert_eq!((body(&again), again.redelivered), ("1".to_owned(), true));
}

#[tokio::test]
async fn a_cancelled_consumer_gets_nothing_more_and_may_still_ack() {
    let lapin = Lapin::start().await;
    let queue = lapin.queue(FieldTable::default()).await;
    let mut consumer = lapin.consume(&queue).await;
    lapin.publish("", &queue, "1").await;
    let delivery = next(&mut consumer).await;
    lapin.channel.basic_cancel(consumer.tag(), BasicCancelOptions::default()).await.unwrap();
    lapin.publish("", &queue, "2").await;
    assert!(within("the end", next_or_end(&mut consumer)).await.is_none());
    delivery.ack(BasicAckOptions::default()).await.unwrap();
    lapin.channel.basic_recover(BasicRecoverOptions { requeue: true }).await.unwrap();
    assert_eq!(lapin.drain(&queue).await, ["2"]);
}

#[tokio::test]
async fn consumers_of_a_queue_that_is_deleted_hear_of_it() {
    let lapin = Lapin::start().await;
    let queue = lapin.queue(FieldTable::default()).await;
    let mut consumer = lapin.consume(&queue).await;
    lapin.channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    assert!(within("the end", next_or_end(&mut consumer)).await.is_none());
}

#[tokio::test]
async fn higher_priorities_come_first() {
    let lapin = Lapin::start().await;
    let queue = lapin.queue(table([("x-max-priority", AMQPValue::LongInt(10))])).await;
    for (text, priority) in [("low", 1), ("high", 9), ("middle", 5), ("high too", 9)] {
        let properties = BasicProperties::default().with_priority(priority);
        assert_eq!(lapin.publish_with("", &queue, text, properties).await, Confirmation::Ack(None));
    }
    lapin.publish("", &queue, "none").await;
    assert_eq!(lapin.drain(&queue).await, ["high", "high too", "middle", "low", "none"]);
}

#[tokio::test]
async fn a_consumer_of_higher_priority_gets_all_until_it_is_busy() {
    let lapin = Lapin::start().await;
    let queue = lapin.queue(FieldTable::default()).await;
    lapin.channel.basic_qos(2, BasicQosOptions::default()).await.unwrap();
    let mut low = lapin.consume(&queue).await;
    let (options, arguments) =
        (BasicConsumeOptions::default(), table([("x-priority", AMQPValue::LongInt(5))]));
    let consumed = lapin.channel.basic_consume(queue.as_str().into(), "".into(), options, arguments);
    let mut high = consumed.await.unwrap();
    for text in ["1", "2", "3"] {
        lapin.publish("", &queue, text).await;
    }
    assert_eq!([body(&next(&mut high).await), body(&next(&mut high).await)], ["1", "2"]);
    assert_eq!(body(&next(&mut low).await), "3");
}

#[tokio::test]
async fn an_unknown_delivery_tag_closes_the_channel() {
    let lapin = Lapin::start().await;
    let mut events = pin!(lapin.connection.events_listener());
    lapin.channel.basic_ack(7, BasicAckOptions::default()).await.unwrap();
    let event = poll_fn(|context| events.as_mut().poll_next(context));
    let Some(Event::Error(error)) = within("the end of the channel", event).await else { panic!("no error") };
    assert_eq!(closed(&error), (406, "PRECONDITION_FAILED - unknown delivery tag 7".to_owned()));
    assert!(lapin.connection.status().connected());
}
