//! Direct reply-to: replies to `amq.rabbitmq.reply-to` come to the channel that asked, without a queue of its own.
//!
//! There is a queue behind it all the same, with a name that nobody can guess: exclusive, transient, and gone with its
//! one consumer. So replies take the way of all other messages.

use leveret_protocol::amqp::{basic, queue};
use leveret_protocol::{QueueName, ReplyCode, Table};

use super::super::Violation;
use super::channel::Replies;
use super::faults::{self, fault};
use super::session::AmqpSession;
use super::unguessable;
use crate::queue::Settings;
use crate::topology::{DeclareQueue, TopologyError};

/// What requesters consume from, and name as the place to reply to.
pub(super) const NAME: &str = "amq.rabbitmq.reply-to";

/// Whether this is the name of the queue behind some channel's [`NAME`], or that itself.
pub(super) fn is_reply_queue(name: &str) -> bool {
    name.strip_prefix(NAME).is_some_and(|token| token.is_empty() || token.starts_with('.'))
}

impl AmqpSession {
    /// Makes the queue for a channel's replies; gives its name.
    pub(super) fn open_replies(
        &mut self,
        number: u16,
        consume: &basic::Consume<'_>,
        consumer_tag: &str,
    ) -> Result<QueueName, Violation> {
        if !consume.no_ack {
            return Err(fault(ReplyCode::PreconditionFailed, "reply consumer cannot acknowledge"));
        }
        if self.open(number)?.replies.is_some() {
            return Err(fault(ReplyCode::PreconditionFailed, "reply consumer already set"));
        }
        let name = QueueName::new(format!("{NAME}.{}", unguessable()?))?;
        let settings = Settings::from_arguments(false, true, true, &Table::new())
            .map_err(|error| fault(ReplyCode::InternalError, error))?;
        let declare = DeclareQueue { name: QueueName::new("")?, settings };
        let common = &mut self.common;
        let declared = common.vhost.declare_queue(declare, &name, common.id, &mut common.work);
        declared.map_err(|error| faults::topology(&error, common.vhost.name.as_str()))?;
        common.vhost.finish(&mut common.work);
        let replies = Replies { queue: name.to_string(), consumer_tag: consumer_tag.into() };
        self.open(number)?.replies = Some(replies);
        Ok(name)
    }

    /// Answers a declaration of such a name, which only asks whether somebody still waits there.
    pub(super) fn find_replies(
        &mut self,
        number: u16,
        declare: &queue::Declare<'_>,
    ) -> Result<(), Violation> {
        let found = declare.queue == NAME
            || match self.common.vhost.queue(declare.queue, self.common.id) {
                // It is another connection's in every case but one's own reply to oneself.
                Ok(_) | Err(TopologyError::Locked { .. }) => true,
                Err(_) => false,
            };
        if !found {
            let vhost = &self.common.vhost.name;
            let text = format!("no queue '{}' in vhost '{vhost}'", declare.queue);
            return Err(fault(ReplyCode::NotFound, text));
        }
        declare.queue.clone_into(&mut self.open(number)?.last_queue);
        if !declare.nowait {
            let answer = queue::DeclareOk { queue: declare.queue, message_count: 0, consumer_count: 1 };
            self.common.outbox.send(number, answer, None);
        }
        Ok(())
    }
}
