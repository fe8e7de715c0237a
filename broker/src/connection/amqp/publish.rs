//! basic.publish, and basic.return.

use std::borrow::Cow;

use bytes::{Buf, BytesMut};
use leveret_protocol::amqp::basic::{self, Basic};
use leveret_protocol::amqp::{
    BasicProperties, Content, InvalidMessage, Method, PublishAttributes, WholePublish, put_method,
    reply_name, without_bcc,
};
use leveret_protocol::{Outcome, PropertiesFormat, ReplyCode};

use super::super::Violation;
use super::super::buffers::{self, Lender};
use super::super::protocol::Flow;
use super::channel::OpenChannel;
use super::encoder::put_content;
use super::faults::{self, fault};
use super::reply_to;
use super::session::{AmqpSession, Applied, PUBLISH_IDS, not_open};
use crate::channel::{Publication, Ticket};

impl AmqpSession {
    /// Takes the next message off the buffer if all of it is there, and nothing is in its way. Otherwise its frames, or
    /// whatever comes next, are taken one by one.
    pub(super) fn publish_whole(&mut self, buffer: &mut BytesMut) -> Option<Applied> {
        let body_bytes_max = self.common.context.limits.message_bytes_max as u64;
        let WholePublish { channel, publish, properties, body, bytes } =
            WholePublish::peek(buffer, self.frame_bytes_max, body_bytes_max)?;
        let open = self.channels.get(&channel)?;
        if !open.assembler.is_idle() || self.common.context.pressure.is_on() {
            return None;
        }
        // They are large, and stay where they are.
        let decoded = &BasicProperties::decode(properties);
        let Ok(decoded) = decoded else { return None };
        self.current = PUBLISH_IDS;
        let taken = self.take_in(channel, &publish, Received { properties, decoded, body });
        let asks = publish.mandatory;
        buffer.advance(bytes);
        let outcome = taken.and_then(|()| self.flush_if_full()).map(|()| Flow::Continue);
        Some(Applied { channel, asks, outcome })
    }

    /// Takes a message whose content is complete.
    pub(super) fn publish(&mut self, number: u16, content: &Content) -> Result<(), Violation> {
        let mut payload = std::mem::take(&mut self.open(number)?.publish);
        if let Method::Basic(Basic::Publish(publish)) = Method::decode(&payload)? {
            let Content { properties, body } = content;
            let decoded = BasicProperties::decode(properties)?;
            self.take_in(number, &publish, Received { properties, decoded: &decoded, body })?;
        }
        payload.clear();
        if let Some(open) = self.channels.get_mut(&number) {
            // For the next one: publishes are as long as each other.
            open.publish = payload;
        }
        self.flush_if_full()
    }

    fn flush_if_full(&mut self) -> Result<(), Violation> {
        if self.common.publisher.is_full() { self.flush() } else { Ok(()) }
    }

    fn take_in(
        &mut self,
        number: u16,
        publish: &basic::Publish<'_>,
        received: Received<'_>,
    ) -> Result<(), Violation> {
        let mut content = buffers::JOINING.with(Lender::lend);
        let taken = self.take_in_by(number, publish, received, &mut content);
        buffers::JOINING.with(|lender| lender.give_back(content));
        taken
    }

    /// As [`Self::take_in`]; properties and body are put behind each other in `content`, as they are kept.
    fn take_in_by(
        &mut self,
        number: u16,
        publish: &basic::Publish<'_>,
        received: Received<'_>,
        content: &mut BytesMut,
    ) -> Result<(), Violation> {
        if publish.immediate {
            return Err(fault(ReplyCode::NotImplemented, "immediate=true"));
        }
        let Received { properties, decoded, body } = received;
        self.check_size(properties.len() + body.len())?;
        self.check_user(decoded)?;
        let attributes = decoded.publish_attributes().map_err(|error| invalid(decoded, &error))?;
        let open = self.channels.get_mut(&number).ok_or_else(not_open)?;
        let stored = stored_properties(open, properties, decoded, &attributes)?;
        content.extend_from_slice(&stored);
        content.extend_from_slice(body);
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
            content,
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
            self.give_back(number, publish, received);
        }
        Ok(())
    }

    /// Returns a message to its publisher, before its confirm.
    fn give_back(&self, number: u16, publish: &basic::Publish<'_>, received: Received<'_>) {
        let basic::Publish { exchange, routing_key, .. } = *publish;
        let code = ReplyCode::NoRoute;
        let back =
            basic::Return { reply_code: code.into(), reply_text: reply_name(code), exchange, routing_key };
        let mut frames = BytesMut::new();
        put_method(&mut frames, number, back);
        put_content(&mut frames, number, self.frame_bytes_max, received.properties, received.body);
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

/// A message's content, where it came in.
#[derive(Clone, Copy)]
struct Received<'a> {
    properties: &'a [u8],
    decoded: &'a BasicProperties<'a>,
    body: &'a [u8],
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
    properties: &'a [u8],
    decoded: &BasicProperties<'_>,
    attributes: &PublishAttributes,
) -> Result<Cow<'a, [u8]>, Violation> {
    let mut stored = Cow::Borrowed(properties);
    if decoded.reply_to == Some(reply_to::NAME.as_bytes()) {
        let replies = open
            .replies
            .as_ref()
            .ok_or_else(|| fault(ReplyCode::PreconditionFailed, "fast reply consumer does not exist"))?;
        let reply_to = Some(replies.queue.as_bytes());
        stored = Cow::Owned(BasicProperties { reply_to, ..*decoded }.to_bytes().into());
    }
    if !attributes.bcc.is_empty() {
        stored = Cow::Owned(without_bcc(stored.into_owned().into())?.into());
    }
    Ok(stored)
}
