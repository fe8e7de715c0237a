//! Class queue.

use leveret_protocol::amqp::queue::{self, Queue as QueueMethod};
use leveret_protocol::{Destination, ExchangeName, QueueName, ReplyCode, RoutingKey};

use super::super::Violation;
use super::faults;
use super::reply_to::is_reply_queue;
use super::session::{AmqpSession, unimplemented};
use super::unguessable;
use crate::queue::{Counts, Settings};
use crate::topology::{BindingDefinition, DeclareQueue, TopologyError};

impl AmqpSession {
    /// Methods of class queue.
    pub(super) fn on_queue(&mut self, number: u16, method: &QueueMethod<'_>) -> Result<(), Violation> {
        match method {
            QueueMethod::Declare(declare) if is_reply_queue(declare.queue) => {
                self.find_replies(number, declare)
            }
            QueueMethod::Declare(declare) => self.declare_queue(number, declare),
            QueueMethod::Bind(bind) => self.bind_queue(number, bind),
            QueueMethod::Unbind(unbind) => self.unbind_queue(number, unbind),
            QueueMethod::Purge(purge) => self.purge_queue(number, *purge),
            QueueMethod::Delete(delete) => self.delete_queue(number, *delete),
            _ => Err(unimplemented()),
        }
    }

    fn declare_queue(&mut self, number: u16, declare: &queue::Declare<'_>) -> Result<(), Violation> {
        let name = QueueName::new(declare.queue)?;
        let (queue, counts, position) = if declare.passive {
            let queue = self.common.vhost.queue(name.as_str(), self.common.id);
            let queue = queue.map_err(|error| self.misplaced(&error))?;
            let counts = queue.counts();
            (queue, counts, None)
        } else {
            let queue::Declare { durable, exclusive, auto_delete, arguments, .. } = *declare;
            let settings = Settings::from_arguments(durable, exclusive, auto_delete, &arguments.to_table())
                .map_err(|error| {
                faults::argument(&error, name.as_str(), self.common.vhost.name.as_str())
            })?;
            let generated = QueueName::new(format!("amq.gen-{}", unguessable()?))?;
            let common = &mut self.common;
            let asked = DeclareQueue { name, settings };
            let declared = common.vhost.declare_queue(asked, &generated, common.id, &mut common.work);
            common.vhost.finish(&mut common.work);
            let (queue, counts, position) = declared.map_err(|error| self.misplaced(&error))?;
            (queue, counts, Some(position))
        };
        let Counts { ready, consumers, .. } = counts;
        queue.name.as_str().clone_into(&mut self.open(number)?.last_queue);
        if !declare.nowait {
            let answer = queue::DeclareOk {
                queue: queue.name.as_str(),
                message_count: count(ready),
                consumer_count: count(consumers as u64),
            };
            self.common.outbox.send(number, answer, position);
        }
        Ok(())
    }

    fn bind_queue(&mut self, number: u16, bind: &queue::Bind<'_>) -> Result<(), Violation> {
        let queue::Bind { queue, exchange, routing_key, nowait, arguments } = *bind;
        let binding = self.queue_binding(number, queue, exchange, routing_key, arguments)?;
        let bound = self.common.vhost.bind(&binding, self.common.id);
        let position = bound.map_err(|error| self.misplaced(&error))?;
        if !nowait {
            self.common.outbox.send(number, queue::BindOk {}, Some(position));
        }
        Ok(())
    }

    fn unbind_queue(&mut self, number: u16, unbind: &queue::Unbind<'_>) -> Result<(), Violation> {
        let queue::Unbind { queue, exchange, routing_key, arguments } = *unbind;
        let binding = self.queue_binding(number, queue, exchange, routing_key, arguments)?;
        let unbound = self.common.vhost.unbind(&binding, self.common.id);
        let position = match unbound {
            Ok(position) => position,
            // What leads nowhere or comes from nowhere is not bound.
            Err(error) if error.code() == ReplyCode::NotFound => self.common.context.store.end(),
            Err(error) => return Err(self.misplaced(&error)),
        };
        self.common.outbox.send(number, queue::UnbindOk {}, Some(position));
        Ok(())
    }

    fn purge_queue(&mut self, number: u16, purge: queue::Purge<'_>) -> Result<(), Violation> {
        let name = self.queue_name(number, purge.queue)?;
        let queue = self.common.vhost.queue(name.as_str(), self.common.id);
        let queue = queue.map_err(|error| self.misplaced(&error))?;
        let purged = queue.purge(&mut self.common.work).unwrap_or(0);
        self.common.vhost.finish(&mut self.common.work);
        if !purge.nowait {
            let answer = queue::PurgeOk { message_count: count(purged) };
            self.common.outbox.send(number, answer, Some(self.common.context.store.end()));
        }
        Ok(())
    }

    fn delete_queue(&mut self, number: u16, delete: queue::Delete<'_>) -> Result<(), Violation> {
        let queue::Delete { queue, if_unused, if_empty, nowait } = delete;
        let name = self.queue_name(number, queue)?;
        // The answer comes before the news that the queue's consumers have ended.
        self.common.outbox.defer_news();
        let deleted = self.common.vhost.delete_queue(&name, if_unused, if_empty, self.common.id);
        if let Ok((messages, position)) = &deleted
            && !nowait
        {
            let answer = queue::DeleteOk { message_count: count(*messages) };
            self.common.outbox.send(number, answer, Some(*position));
        }
        self.common.outbox.send_deferred();
        deleted.map(drop).map_err(|error| self.misplaced(&error))
    }

    /// A binding of a queue. Without a queue and without a key, the key is the name of the queue declared last, too.
    fn queue_binding(
        &mut self,
        number: u16,
        queue: &str,
        exchange: &str,
        routing_key: &str,
        arguments: leveret_protocol::amqp::FieldTable<'_>,
    ) -> Result<BindingDefinition, Violation> {
        let name = self.queue_name(number, queue)?;
        let key = if queue.is_empty() && routing_key.is_empty() { name.as_str() } else { routing_key };
        Ok(BindingDefinition {
            vhost: self.common.vhost.name.clone(),
            source: ExchangeName::new(exchange)?,
            routing_key: RoutingKey::new(key)?,
            destination: Destination::Queue(name),
            arguments: arguments.to_table(),
        })
    }

    /// A refusal about exchanges, queues or bindings.
    pub(super) fn misplaced(&self, error: &TopologyError) -> Violation {
        faults::topology(error, self.common.vhost.name.as_str())
    }
}

/// A number of messages as AMQP has room for it.
fn count(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
