//! How channels and connections begin and end, and what is left to say then.

use std::sync::Arc;

use leveret_protocol::ReplyCode;
use leveret_protocol::amqp::basic::Basic;
use leveret_protocol::amqp::channel::{self, Channel as ChannelMethod};
use leveret_protocol::amqp::connection::{self, Connection as ConnectionMethod};
use leveret_protocol::amqp::{Frame, FrameKind, Method, confirm, reply_text};

use super::super::Violation;
use super::super::protocol::{Flow, Session};
use super::channel::OpenChannel;
use super::faults::fault;
use super::frame;
use super::session::{AmqpSession, not_open, unimplemented};
use crate::channel::Channel;

impl AmqpSession {
    /// A frame on channel 0, which is the connection itself.
    pub(super) fn on_connection(&mut self, received: &Frame) -> Result<Flow, Violation> {
        if received.kind != FrameKind::Method {
            let text = "expected a method or a heartbeat on channel 0, got content";
            return Err(fault(ReplyCode::UnexpectedFrame, text));
        }
        let method = Method::decode(&received.payload).inspect_err(|error| self.current = error.ids())?;
        self.current = method.ids();
        match method {
            Method::Connection(ConnectionMethod::Close(_)) => {
                self.flush()?;
                self.close();
                self.common.send_behind_all(frame(0, connection::CloseOk {}));
                Ok(Flow::Closed)
            }
            Method::Connection(ConnectionMethod::CloseOk(_)) => Ok(Flow::Closed),
            // Logins here do not run out, so that there is nothing to renew.
            Method::Connection(ConnectionMethod::UpdateSecret(_)) => {
                self.common.outbox.send(0, connection::UpdateSecretOk {}, None);
                Ok(Flow::Continue)
            }
            other => {
                tracing::debug!(method = other.name(), "a method that does not belong on channel 0");
                Err(fault(ReplyCode::ChannelError, "unexpected method in connection state running"))
            }
        }
    }

    /// A frame on a channel that is not open: it opens it, or the broker has closed it, or it is a mistake.
    pub(super) fn on_closed_channel(&mut self, received: &Frame) -> Result<(), Violation> {
        let number = received.channel;
        let closing = self.closing.contains(&number);
        if received.kind != FrameKind::Method {
            return if closing { Ok(()) } else { Err(not_open()) };
        }
        let method = Method::decode(&received.payload);
        self.current = method.as_ref().map_or_else(|error| error.ids(), Method::ids);
        match method {
            Ok(Method::Channel(ChannelMethod::CloseOk(_))) if closing => {
                self.closing.remove(&number);
                Ok(())
            }
            // The two closes have crossed. The client's answer to ours is still to come.
            Ok(Method::Channel(ChannelMethod::Close(_))) if closing => {
                self.common.outbox.send(number, channel::CloseOk {}, None);
                Ok(())
            }
            _ if closing => Ok(()),
            Ok(Method::Channel(ChannelMethod::Open(_))) => self.open_channel(number),
            Ok(_) => Err(not_open()),
            Err(error) => Err(error.into()),
        }
    }

    fn open_channel(&mut self, number: u16) -> Result<(), Violation> {
        let max = self.channels_max;
        if number > max || self.channels.len() + self.closing.len() >= usize::from(max) {
            let text = format!(
                "number of channels opened ({}) has reached the negotiated channel_max ({max})",
                self.channels.len()
            );
            self.current = (0, 0);
            return Err(fault(ReplyCode::NotAllowed, text));
        }
        let consumers_max = self.common.context.limits.consumers_max;
        let channel = Channel::new(Arc::clone(&self.common.vhost), self.common.id, false, consumers_max);
        self.channels.insert(number, OpenChannel::new(channel));
        self.common.outbox.send(number, channel::OpenOk {}, None);
        Ok(())
    }

    /// Methods of class channel on an open channel.
    pub(super) fn on_channel(&mut self, number: u16, method: &ChannelMethod<'_>) -> Result<(), Violation> {
        match method {
            ChannelMethod::Close(_) => {
                self.end_channel(number);
                self.common.outbox.send(number, channel::CloseOk {}, None);
                Ok(())
            }
            ChannelMethod::Flow(channel::Flow { active: true }) => {
                self.common.outbox.send(number, channel::FlowOk { active: true }, None);
                Ok(())
            }
            ChannelMethod::Flow(_) => Err(fault(ReplyCode::NotImplemented, "active=false")),
            ChannelMethod::Open(_) => Err(fault(ReplyCode::ChannelError, "second 'channel.open' seen")),
            // Answers to what the broker has not asked change nothing.
            ChannelMethod::CloseOk(_) | ChannelMethod::FlowOk(_) => Ok(()),
            ChannelMethod::OpenOk(_) => Err(unimplemented()),
        }
    }

    /// Turns confirms on.
    pub(super) fn on_confirm(&mut self, number: u16, method: confirm::Confirm) -> Result<(), Violation> {
        let confirm::Confirm::Select(confirm::Select { nowait }) = method else {
            return Err(unimplemented());
        };
        let selected = self.open(number)?.channel.select_confirms();
        selected.map_err(|error| self.refused(&error))?;
        if !nowait {
            self.common.outbox.send(number, confirm::SelectOk {}, None);
        }
        Ok(())
    }

    pub(super) fn send_channel_close(&self, number: u16, violation: &Violation) {
        let (class_id, method_id) = self.current;
        let close = channel::Close {
            reply_code: violation.code.into(),
            reply_text: &reply_text(violation.code, &violation.text),
            class_id,
            method_id,
        };
        self.common.outbox.send(number, close, None);
    }

    /// Says why the connection ends, behind everything that was due.
    pub(super) fn say_goodbye(&self, violation: &Violation) {
        let stops = violation.code == ReplyCode::ConnectionForced;
        let (class_id, method_id) = if stops { (0, 0) } else { self.current };
        // Clients look for these words to tell a stop from a mistake of theirs.
        let forced = "broker forced connection closure with reason 'shutdown'";
        let text = if stops { forced } else { &violation.text };
        let close = connection::Close {
            reply_code: violation.code.into(),
            reply_text: &reply_text(violation.code, text),
            class_id,
            method_id,
        };
        self.common.send_behind_all(frame(0, close));
    }

    /// Whether a frame that comes after the broker's close answers it. A close that crosses it is answered.
    pub(super) fn answers_close(&self, received: &Frame) -> bool {
        if received.channel != 0 || received.kind != FrameKind::Method {
            return false;
        }
        match Method::decode(&received.payload) {
            Ok(Method::Connection(ConnectionMethod::CloseOk(_))) => true,
            Ok(Method::Connection(ConnectionMethod::Close(_))) => {
                self.common.send_behind_all(frame(0, connection::CloseOk {}));
                false
            }
            _ => false,
        }
    }

    /// Takes a settle that the client sent before it saw that the broker stops. A wrong one changes nothing.
    pub(super) fn settle_late(&mut self, received: &Frame) {
        if received.kind != FrameKind::Method || !self.channels.contains_key(&received.channel) {
            return;
        }
        self.common.tick();
        let number = received.channel;
        let settled = match Method::decode(&received.payload) {
            Ok(Method::Basic(Basic::Ack(ack))) => self.ack(number, ack.delivery_tag, ack.multiple),
            Ok(Method::Basic(Basic::Nack(nack))) => {
                self.nack(number, nack.delivery_tag, nack.multiple, nack.requeue)
            }
            Ok(Method::Basic(Basic::Reject(reject))) => {
                self.nack(number, reject.delivery_tag, false, reject.requeue)
            }
            _ => return,
        };
        if settled.is_ok() {
            self.settle_collected();
        }
    }
}
