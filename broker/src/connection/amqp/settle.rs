//! basic.ack, nack, reject and recover.

use bytes::{Buf, BytesMut};
use leveret_protocol::ReplyCode;
use leveret_protocol::amqp::{ACK_FRAME_BYTES, basic, peek_ack};

use super::super::Violation;
use super::super::protocol::Flow;
use super::faults::fault;
use super::ledger::Place;
use super::session::{AmqpSession, Applied};
use crate::channel::{Channel, ChannelError};
use crate::queue::{Verb, Work};

/// Acknowledgements that wait to be carried out together. Clients send one frame for each, and each by itself would
/// lock its queue once.
#[derive(Default)]
pub(super) struct Acks {
    channel: u16,
    taken: Vec<(u64, Place)>,
    ranges: Vec<(u64, u64)>,
}

/// How many acknowledgements are carried out together at most.
const TOGETHER_MAX: usize = 1024;

/// The class and method of an acknowledgement.
const ACK_IDS: (u16, u16) = (60, 80);

impl AmqpSession {
    /// Takes the acknowledgement off the buffer that comes next, if one does and nothing is in its way.
    pub(super) fn ack_whole(&mut self, buffer: &mut BytesMut) -> Option<Applied> {
        let (channel, ack) = peek_ack(buffer)?;
        if !self.channels.get(&channel)?.assembler.is_idle() {
            return None;
        }
        self.current = ACK_IDS;
        buffer.advance(ACK_FRAME_BYTES);
        let outcome = self.ack(channel, ack.delivery_tag, ack.multiple).map(|()| Flow::Continue);
        Some(Applied { channel, asks: false, outcome })
    }

    /// Settles deliveries as done; soon, and in any case before whatever else the client asks.
    pub(super) fn ack(&mut self, number: u16, tag: u64, multiple: bool) -> Result<(), Violation> {
        if self.acks.channel != number || self.acks.taken.len() >= TOGETHER_MAX {
            self.flush()?;
            self.acks.channel = number;
        }
        let Some(open) = self.channels.get_mut(&number) else { return Ok(()) };
        Ok(open.ledger.take(tag, multiple, &mut self.acks.taken)?)
    }

    /// Gives deliveries back, or up. A delivery that is given back has failed: see
    /// `docs/decisions/0005-delivery-limit.md`.
    pub(super) fn nack(
        &mut self,
        number: u16,
        tag: u64,
        multiple: bool,
        requeue: bool,
    ) -> Result<(), Violation> {
        self.flush()?;
        let Some(open) = self.channels.get_mut(&number) else { return Ok(()) };
        let mut taken = Vec::new();
        open.ledger.take(tag, multiple, &mut taken)?;
        let verb = if requeue { Verb::Requeue } else { Verb::Reject { note: None } };
        settle(&mut open.channel, &mut taken, &mut Vec::new(), &verb, &mut self.common.work);
        if open.channel.is_transactional() {
            open.set_aside.append(&mut taken);
        }
        Ok(())
    }

    /// Gives all back that the channel was sent and has not settled; at once, even if the channel is transactional.
    pub(super) fn recover(&mut self, number: u16, requeue: bool, answer: bool) -> Result<(), Violation> {
        if !requeue {
            return Err(fault(ReplyCode::NotImplemented, "requeue=false"));
        }
        self.flush()?;
        if let Some(open) = self.channels.get_mut(&number) {
            let (mut taken, mut ranges) = (Vec::new(), Vec::new());
            open.ledger.take(0, true, &mut taken)?;
            let work = &mut self.common.work;
            each_consumer(&mut taken, &mut ranges, |consumer, ranges| {
                open.channel.settle_now(consumer, ranges, &Verb::Requeue, work)
            });
        }
        if answer {
            self.common.outbox.send(number, basic::RecoverOk {}, None);
        }
        Ok(())
    }

    /// Carries out the acknowledgements that wait.
    pub(super) fn settle_collected(&mut self) {
        let Acks { channel, taken, ranges } = &mut self.acks;
        if taken.is_empty() {
            return;
        }
        if let Some(open) = self.channels.get_mut(channel) {
            settle(&mut open.channel, taken, ranges, &Verb::Ack, &mut self.common.work);
            if open.channel.is_transactional() {
                open.set_aside.append(taken);
            }
        }
        taken.clear();
        taken.shrink_to(TOGETHER_MAX);
    }
}

/// Settles deliveries of any consumers; sorts them for that.
fn settle(
    channel: &mut Channel,
    taken: &mut [(u64, Place)],
    ranges: &mut Vec<(u64, u64)>,
    verb: &Verb,
    work: &mut Work,
) {
    each_consumer(taken, ranges, |consumer, ranges| channel.settle(consumer, ranges, verb, work));
}

/// Calls `settle` for each consumer with the ranges of its deliveries.
fn each_consumer(
    taken: &mut [(u64, Place)],
    ranges: &mut Vec<(u64, u64)>,
    mut settle: impl FnMut(u32, &[(u64, u64)]) -> Result<(), ChannelError>,
) {
    taken.sort_unstable_by_key(|(_, place)| (place.consumer, place.tag));
    for of_one in taken.chunk_by(|(_, one), (_, other)| one.consumer == other.consumer) {
        let Some((_, Place { consumer, .. })) = of_one.first() else { continue };
        ranges.clear();
        for (_, Place { tag, .. }) in of_one {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == *tag => *last = *tag,
                _ => ranges.push((*tag, *tag)),
            }
        }
        // The ledger has said that they are there. A queue that was deleted has taken its deliveries along, and the
        // client could not know.
        if let Err(error) = settle(*consumer, ranges) {
            tracing::debug!(%error, "a settle came to nothing");
        }
    }
}
