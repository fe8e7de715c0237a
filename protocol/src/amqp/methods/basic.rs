//! Class 60: messages.

use super::methods;
use crate::amqp::table::FieldTable;

/// The number of this class, which content headers repeat.
pub const CLASS_ID: u16 = 60;

methods! {
    /// Methods on messages.
    60 "basic" Basic<'a>;

    /// Limits what is delivered and not yet settled.
    10 "qos" Qos {
        /// In bytes; RabbitMQ knows only 0.
        prefetch_size: u32,
        /// In messages; 0 is no limit.
        prefetch_count: u16,
        /// For the channel rather than for each consumer, as RabbitMQ reads it.
        global: bool,
    }

    /// The limit holds.
    11 "qos-ok" QosOk {}

    /// Starts a consumer.
    20 "consume" Consume<'a> [u16] {
        /// The queue.
        queue: &'a str,
        /// The consumer's name on this channel; empty asks the broker for one.
        consumer_tag: &'a str,
        /// Not what this connection published; RabbitMQ ignores it.
        no_local: bool,
        /// Deliveries are settled by being sent.
        no_ack: bool,
        /// Nobody else may consume from the queue.
        exclusive: bool,
        /// Whether no answer is wanted.
        nowait: bool,
        /// `x-priority` and others.
        arguments: FieldTable<'a>,
    }

    /// It consumes.
    21 "consume-ok" ConsumeOk<'a> {
        /// Its name.
        consumer_tag: &'a str,
    }

    /// Ends a consumer; from the broker, tells that it ended.
    30 "cancel" Cancel<'a> {
        /// Its name.
        consumer_tag: &'a str,
        /// Whether no answer is wanted.
        nowait: bool,
    }

    /// It has ended.
    31 "cancel-ok" CancelOk<'a> {
        /// Its name.
        consumer_tag: &'a str,
    }

    /// A message for an exchange; its content follows.
    40 "publish" Publish<'a> [u16] {
        /// The exchange; empty is the default exchange.
        exchange: &'a str,
        /// The routing key.
        routing_key: &'a str,
        /// Whether it comes back if no queue gets it.
        mandatory: bool,
        /// Whether it comes back if no consumer gets it at once; RabbitMQ refuses it.
        immediate: bool,
    }

    /// A message that comes back to its publisher; its content follows.
    50 "return" Return<'a> {
        /// Why, as a number.
        reply_code: u16,
        /// Why, in words.
        reply_text: &'a str,
        /// The exchange that it was published to.
        exchange: &'a str,
        /// Its routing key.
        routing_key: &'a str,
    }

    /// A message for a consumer; its content follows.
    60 "deliver" Deliver<'a> {
        /// The consumer's name.
        consumer_tag: &'a str,
        /// What a settle names; counts from 1 on each channel.
        delivery_tag: u64,
        /// Whether it was handed out before.
        redelivered: bool,
        /// The exchange that it was published to.
        exchange: &'a str,
        /// Its routing key.
        routing_key: &'a str,
    }

    /// Asks for one message.
    70 "get" Get<'a> [u16] {
        /// The queue.
        queue: &'a str,
        /// The answer is settled by being sent.
        no_ack: bool,
    }

    /// Here is one; its content follows.
    71 "get-ok" GetOk<'a> {
        /// What a settle names.
        delivery_tag: u64,
        /// Whether it was handed out before.
        redelivered: bool,
        /// The exchange that it was published to.
        exchange: &'a str,
        /// Its routing key.
        routing_key: &'a str,
        /// How many are still ready.
        message_count: u32,
    }

    /// There is none.
    72 "get-empty" GetEmpty {} [&str]

    /// Settles deliveries as done; from the broker, confirms publishes.
    80 "ack" Ack {
        /// The delivery, or the publish.
        delivery_tag: u64,
        /// And all before it.
        multiple: bool,
    }

    /// Gives one delivery back.
    90 "reject" Reject {
        /// The delivery.
        delivery_tag: u64,
        /// To the queue again, rather than to the dead-letter exchange.
        requeue: bool,
    }

    /// As [`Recover`], without an answer.
    100 "recover-async" RecoverAsync {
        /// To the queue, rather than to the same consumer.
        requeue: bool,
    }

    /// Gives back all that the channel has not settled.
    110 "recover" Recover {
        /// To the queue, rather than to the same consumer.
        requeue: bool,
    }

    /// They are given back.
    111 "recover-ok" RecoverOk {}

    /// RabbitMQ's: gives deliveries back; from the broker, says that publishes were not taken.
    120 "nack" Nack {
        /// The delivery, or the publish.
        delivery_tag: u64,
        /// And all before it.
        multiple: bool,
        /// To the queue again, rather than to the dead-letter exchange.
        requeue: bool,
    }
}
