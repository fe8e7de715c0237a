//! basic.publish, and basic.return.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use leveret_protocol::amqp::basic::{self, Basic};
use leveret_protocol::amqp::{
    BasicProperties, Content, InvalidMessage, Method, PublishAttributes, put_method, reply_name, without_bcc,
};
use leveret_protocol::{Outcome, PropertiesFormat, ReplyCode};

use super::super::Violation;
use super::channel::OpenChannel;
use super::encoder::put_content;
use super::faults::{self, fault};
use super::reply_to;
use super::session::{AmqpSession, not_open};
use crate::channel::{Publication, Ticket};

/// How much memory is kept to put messages together in, in bytes.
const CONTENT_BYTES_KEPT: usize = 64 * 1024;

impl AmqpSession {
    /// Takes a message whose content is complete.
    pub(super) fn publish(&mut self, number: u16, content: &Content) -> Result<(), Violation> {
        let mut payload = std::mem::take(&mut self.open(number)?.publish);
        if let Method::Basic(Basic::Publish(publish)) = Method::decode(&payload)? {
            self.take_in(number, &publish, content)?;
        }
        payload.clear();
        if let Some(open) = self.channels.get_mut(&number) {
            // For the next one: publishes are as long as each other.
            open.publish = payload;
        }
        if self.common.publisher.is_full() { self.flush() } else { Ok(()) }
    }

    fn take_in(
        &mut self,
        number: u16,
        publish: &basic::Publish<'_>,
        content: &Content,
    ) -> Result<(), Violation> {
        if publish.immediate {
            return Err(fault(ReplyCode::NotImplemented, "immediate=true"));
        }
        let Content { properties, body } = content;
        self.check_size(properties.len() + body.len())?;
        let decoded = BasicProperties::decode(properties)?;
        self.check_user(&decoded)?;
        let attributes = decoded.publish_attributes().map_err(|error| invalid(&decoded, &error))?;
        let open = self.channels.get_mut(&number).ok_or_else(not_open)?;
        let stored = stored_properties(open, properties, &decoded, &attributes)?;
        self.content.clear();
        self.content.shrink_to(CONTENT_BYTES_KEPT);
        self.content.extend_from_slice(&stored);
        self.content.extend_from_slice(body);
        let ticket_number = open.channel.confirms.then(|| open.channel.count_publish());
        let PublishAttributes { persistent, priority, ttl_ms, cc, bcc } = attributes;
        let publication = Publication {
            exchange: publish.exchange,
            routing_key: publish.routing_key,
            cc,
            bcc,
            persistent,
            priority,
            ttl_ms,
            properties_format: PropertiesFormat::Amqp,
            properties_bytes: stored.len(),
            content: &self.content,
        };
        let ticket = Ticket { channel: number, number: ticket_number };
        let common = &mut self.common;
        if open.channel.is_transactional() {
            let collected =
                open.channel.collect(&mut common.publisher, publication, publish.mandatory, &common.work);
            return collected.map_err(|error| faults::refused(&error, common.vhost.name.as_str()));
        }
        common.published = true;
        if let Some(refused) = ticket_number.filter(|_| common.context.pressure.is_on()) {
            common.confirms.add(number, refused, Outcome::Refused(ReplyCode::ResourceError));
            return Ok(());
        }
        let routed = common.publisher.add(&common.vhost, publication, ticket, common.work.now_ms);
        let routed = routed.map_err(|error| faults::topology(&error, common.vhost.name.as_str()))?;
        if !routed && publish.mandatory {
            self.give_back(number, publish, content);
        }
        Ok(())
    }

    /// Returns a message to its publisher, before its confirm.
    fn give_back(&self, number: u16, publish: &basic::Publish<'_>, content: &Content) {
        let basic::Publish { exchange, routing_key, .. } = *publish;
        let code = ReplyCode::NoRoute;
        let back =
            basic::Return { reply_code: code.into(), reply_text: reply_name(code), exchange, routing_key };
        let mut frames = BytesMut::new();
        put_method(&mut frames, number, back);
        put_content(&mut frames, number, self.frame_bytes_max, &content.properties, &content.body);
        self.common.outbox.send_frame(frames.freeze(), None);
    }

    /// The body alone was checked before it came; what the journal takes is both.
    fn check_size(&self, size: usize) -> Result<(), Violation> {
        let max = self.common.context.limits.message_bytes_max;
        if size <= max {
            return Ok(());
        }
        let text = format!("message size {size} is larger than configured max size {max}");
        Err(fault(ReplyCode::PreconditionFailed, text))
    }

    fn check_user(&self, properties: &BasicProperties<'_>) -> Result<(), Violation> {
        match properties.user_id {
            Some(claimed) if claimed != self.user.as_bytes() => {
                let (claimed, user) = (claimed.escape_ascii(), &self.user);
                let text = format!("user_id property set to '{claimed}' but authenticated user was '{user}'");
                Err(fault(ReplyCode::PreconditionFailed, text))
            }
            _ => Ok(()),
        }
    }
}

/// Properties that no message may have, in RabbitMQ's words.
fn invalid(properties: &BasicProperties<'_>, error: &InvalidMessage) -> Violation {
    let text = match error {
        InvalidMessage::Copies { header } => {
            let value = properties.headers.and_then(|headers| headers.get(header));
            let kind = value.map_or("array", faults::type_name);
            format!("invalid message: {{unacceptable_type_in_header,\"{header}\",{kind}}}")
        }
        other => other.to_string(),
    };
    fault(error.reply_code(), text)
}

/// The properties as they are kept: as they came, unless they say what nobody may see, or stand for something else.
fn stored_properties<'a>(
    open: &OpenChannel,
    properties: &'a Bytes,
    decoded: &BasicProperties<'_>,
    attributes: &PublishAttributes,
) -> Result<Cow<'a, Bytes>, Violation> {
    let mut stored = Cow::Borrowed(properties);
    if decoded.reply_to == Some(reply_to::NAME.as_bytes()) {
        let replies = open
            .replies
            .as_ref()
            .ok_or_else(|| fault(ReplyCode::PreconditionFailed, "fast reply consumer does not exist"))?;
        let reply_to = Some(replies.queue.as_bytes());
        stored = Cow::Owned(BasicProperties { reply_to, ..*decoded }.to_bytes());
    }
    if !attributes.bcc.is_empty() {
        stored = Cow::Owned(without_bcc(stored.into_owned())?);
    }
    Ok(stored)
}
