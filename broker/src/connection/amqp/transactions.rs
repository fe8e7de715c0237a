//! Class tx: a channel's publishes and settles happen together, or not at all.

use bytes::BytesMut;
use leveret_protocol::ReplyCode;
use leveret_protocol::amqp::tx::{self, Tx};
use leveret_protocol::amqp::{basic, put_method, reply_name};

use super::super::Violation;
use super::encoder::{message_properties, put_content};
use super::session::{AmqpSession, not_open, unimplemented};
use crate::store::Message;

impl AmqpSession {
    /// Methods of class tx.
    pub(super) fn on_tx(&mut self, number: u16, method: Tx) -> Result<(), Violation> {
        match method {
            Tx::Select(_) => self.select_transactions(number),
            Tx::Commit(_) => self.commit(number),
            Tx::Rollback(_) => self.rollback(number),
            _ => Err(unimplemented()),
        }
    }

    fn select_transactions(&mut self, number: u16) -> Result<(), Violation> {
        let open = self.channels.get_mut(&number).ok_or_else(not_open)?;
        let selected = open.channel.select_transactions(&self.transactions);
        selected.map_err(|error| self.refused(&error))?;
        self.common.outbox.send(number, tx::SelectOk {}, None);
        Ok(())
    }

    /// Carries out what the channel has collected. Mandatory messages that no queue has come back before the answer.
    fn commit(&mut self, number: u16) -> Result<(), Violation> {
        let open = self.channels.get_mut(&number).ok_or_else(not_open)?;
        let committed = open.channel.commit(&mut self.common.work);
        open.set_aside = Vec::new();
        let committed = committed.map_err(|error| self.refused(&error))?;
        self.common.published = true;
        for message in &committed.returned {
            self.send_back(number, message);
        }
        self.common.outbox.send(number, tx::CommitOk {}, Some(committed.position));
        Ok(())
    }

    /// Forgets what was published, and makes what was settled unsettled again. None of it is delivered once more.
    fn rollback(&mut self, number: u16) -> Result<(), Violation> {
        let open = self.channels.get_mut(&number).ok_or_else(not_open)?;
        let rolled_back = open.channel.rollback(&mut self.common.work);
        open.ledger.put_back(&mut open.set_aside);
        rolled_back.map_err(|error| self.refused(&error))?;
        self.common.outbox.send(number, tx::RollbackOk {}, None);
        Ok(())
    }

    fn send_back(&self, number: u16, message: &Message) {
        let code = ReplyCode::NoRoute;
        let back = basic::Return {
            reply_code: code.into(),
            reply_text: reply_name(code),
            exchange: message.exchange().as_str(),
            routing_key: message.routing_key().as_str(),
        };
        let mut frames = BytesMut::new();
        put_method(&mut frames, number, back);
        let properties = message_properties(message, 0);
        put_content(&mut frames, number, self.frame_bytes_max, &properties, message.body());
        self.common.outbox.send_frame(frames.freeze(), None);
    }
}
