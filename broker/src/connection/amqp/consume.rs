//! basic.consume, cancel and qos.

use std::sync::Arc;

use leveret_protocol::amqp::{FieldTable, FieldValue, basic};
use leveret_protocol::{QueueName, ReplyCode};

use super::super::Violation;
use super::super::outbox::ConsumerOutbox;
use super::faults::fault;
use super::reply_to;
use super::session::{AmqpSession, not_open};
use super::{Amqp, Consumer, unguessable};
use crate::channel::Consume;
use crate::queue::{ConsumerSpec, Credit};

const PRIORITY: &str = "x-priority";

impl AmqpSession {
    /// Starts a consumer.
    pub(super) fn consume(&mut self, number: u16, consume: &basic::Consume<'_>) -> Result<(), Violation> {
        let priority = priority(consume.arguments)?;
        let tag: Box<str> = match consume.consumer_tag {
            "" => format!("amq.ctag-{}", unguessable()?).into(),
            tag => tag.into(),
        };
        if self.open(number)?.consumer(&tag).is_some() {
            let text = format!("attempt to reuse consumer tag '{tag}'");
            return Err(fault(ReplyCode::NotAllowed, text));
        }
        let queue = match consume.queue {
            reply_to::NAME => self.open_replies(number, consume, &tag)?,
            queue => self.queue_name(number, queue)?,
        };
        let outbox = Arc::clone(&self.common.outbox);
        let terms = Arc::clone(&self.terms);
        let open = self.channels.get_mut(&number).ok_or_else(not_open)?;
        if open.channel.is_full() {
            open.forget_idle(&mut self.common.work);
        }
        self.last_number += 1;
        let consumer = Arc::new(Consumer {
            channel: number,
            number: self.last_number,
            tag: tag.clone(),
            no_ack: consume.no_ack,
            notified: terms.cancel_notify,
            ledger: Arc::clone(&open.ledger),
        });
        let prefetch = if consume.no_ack { 0 } else { open.prefetch };
        let spec = ConsumerSpec {
            outlet: Arc::clone(&outbox.outlet),
            priority,
            exclusive: consume.exclusive,
            no_ack: consume.no_ack,
            credit: Credit::prefetch(prefetch.into()),
        };
        let recipient =
            ConsumerOutbox::<Amqp> { outbox: Arc::clone(&outbox), consumer: Arc::clone(&consumer) };
        let asked = Consume { number: consumer.number, queue: &queue, spec, recipient: Arc::new(recipient) };
        // The answer is sent from within, so that it comes before the first delivery.
        let admitted = || {
            if !consume.nowait {
                outbox.send(number, basic::ConsumeOk { consumer_tag: &consumer.tag }, None);
            }
        };
        match open.channel.consume(asked, &mut self.common.work, admitted) {
            Ok(()) => {
                open.consumers.insert(tag, consumer.number);
                Ok(())
            }
            Err(error) => Err(self.refused(&error)),
        }
    }

    /// Stops a consumer. What it was sent can still be settled. One that is not there has stopped already.
    pub(super) fn cancel(&mut self, number: u16, cancel: basic::Cancel<'_>) -> Result<(), Violation> {
        let basic::Cancel { consumer_tag, nowait } = cancel;
        let open = self.channels.get_mut(&number).ok_or_else(not_open)?;
        if let Some(consumer) = open.consumers.remove(consumer_tag)
            && let Err(error) = open.channel.cancel(consumer, &mut self.common.work)
        {
            return Err(self.refused(&error));
        }
        open.replies.take_if(|replies| *replies.consumer_tag == *consumer_tag);
        if !nowait {
            self.common.outbox.send(number, basic::CancelOk { consumer_tag }, None);
        }
        Ok(())
    }

    /// Limits what may be left unsettled: by each consumer that comes, or by all of the channel together.
    pub(super) fn qos(&mut self, number: u16, qos: basic::Qos) -> Result<(), Violation> {
        let basic::Qos { prefetch_size, prefetch_count, global } = qos;
        if prefetch_size != 0 {
            let text = format!("prefetch_size!=0 ({prefetch_size})");
            return Err(fault(ReplyCode::NotImplemented, text));
        }
        let open = self.channels.get_mut(&number).ok_or_else(not_open)?;
        if global {
            open.channel.set_shared_prefetch(prefetch_count.into(), &mut self.common.work);
        } else {
            open.prefetch = prefetch_count;
        }
        self.common.outbox.send(number, basic::QosOk {}, None);
        Ok(())
    }

    /// The queue that is meant: an empty name stands for the one that this channel declared last.
    pub(super) fn queue_name(&mut self, number: u16, name: &str) -> Result<QueueName, Violation> {
        if !name.is_empty() {
            return Ok(QueueName::new(name)?);
        }
        let last = &self.open(number)?.last_queue;
        if last.is_empty() {
            return Err(fault(ReplyCode::NotFound, "no previously declared queue"));
        }
        Ok(QueueName::new(last)?)
    }
}

/// Consumers with a higher one come first. RabbitMQ takes any integer; here it has 32 bits.
fn priority(arguments: FieldTable<'_>) -> Result<i32, Violation> {
    match arguments.get(PRIORITY) {
        None => Ok(0),
        Some(FieldValue::Int(priority)) => {
            Ok(i32::try_from(priority).unwrap_or(if priority < 0 { i32::MIN } else { i32::MAX }))
        }
        Some(_) => {
            let text = format!("invalid arg '{PRIORITY}': it has to be an integer");
            Err(fault(ReplyCode::PreconditionFailed, text))
        }
    }
}
