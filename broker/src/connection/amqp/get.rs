//! basic.get.

use std::sync::Arc;

use leveret_protocol::ReplyCode;
use leveret_protocol::amqp::basic;

use super::super::Violation;
use super::encoder::{fits, properties};
use super::faults::{self, fault};
use super::ledger::{Ledger, Place};
use super::session::{AmqpSession, not_open};
use crate::channel::ChannelError;
use crate::queue::{Delivery, Verb};

/// A message that was got. It is encoded when its turn comes, because its tag is the number of its turn.
#[derive(Debug)]
pub(in super::super) struct GetOk {
    pub(super) channel: u16,
    pub(super) ledger: Arc<Ledger>,
    /// None for one that need not be settled.
    pub(super) place: Option<Place>,
    pub(super) delivery: Delivery,
    /// How many messages are ready behind it.
    pub(super) ready_left: u64,
}

impl AmqpSession {
    /// Takes one message off a queue.
    pub(super) fn get(&mut self, number: u16, get: basic::Get<'_>) -> Result<(), Violation> {
        let name = self.queue_name(number, get.queue)?;
        let common = &mut self.common;
        let queue = common
            .vhost
            .queue(name.as_str(), common.id)
            .map_err(|error| faults::topology(&error, common.vhost.name.as_str()))?;
        let open = self.channels.get_mut(&number).ok_or_else(not_open)?;
        if open.channel.is_full() && !open.getters.contains_key(&queue.id) {
            open.forget_idle(&mut common.work);
        }
        // Its own number for each queue that ever was: tags of one that was deleted must not settle another's.
        let getter = open.getters.get(&queue.id).copied().unwrap_or_else(|| {
            self.last_number += 1;
            self.last_number
        });
        // Without an acknowledgement it would be gone before it is known to fit, so it is settled when it does.
        let got = match open.channel.get_from(getter, &queue, false, &mut common.work) {
            Ok(got) => got,
            Err(error) => return Err(self.refused(&error)),
        };
        open.getters.insert(queue.id, getter);
        let Some(got) = got else {
            common.outbox.send(number, basic::GetEmpty {}, None);
            return Ok(());
        };
        let place = Place { consumer: getter, tag: got.delivery.tag };
        let mut settle = |verb| -> Result<(), ChannelError> {
            open.channel.settle_now(getter, &[(place.tag, place.tag)], &verb, &mut common.work)
        };
        let properties_bytes = properties(&got.delivery);
        if !fits(&properties_bytes, self.frame_bytes_max) {
            let _ = settle(Verb::Release);
            let text = format!(
                "the message has {} bytes of properties, which do not fit into a frame of {} bytes",
                properties_bytes.len(),
                self.frame_bytes_max
            );
            return Err(fault(ReplyCode::ContentTooLarge, text));
        }
        let bytes = properties_bytes.len() + got.delivery.message.body().len();
        drop(properties_bytes);
        if get.no_ack {
            let _ = settle(Verb::Ack);
        }
        let after = got.delivery.after;
        let answer = GetOk {
            channel: number,
            ledger: Arc::clone(&open.ledger),
            place: (!get.no_ack).then_some(place),
            delivery: got.delivery,
            ready_left: got.ready_left,
        };
        common.outbox.send_late(answer, bytes, after);
        Ok(())
    }
}
