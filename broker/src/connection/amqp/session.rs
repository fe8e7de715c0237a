//! AMQP frames -> operations, on all channels of one connection.

use std::sync::Arc;

use bytes::BytesMut;
use leveret_protocol::amqp::basic::{self, Basic};
use leveret_protocol::amqp::{Assembled, Frame, FrameKind, Method, connection};
use leveret_protocol::{Closes, ReplyCode};
use rustc_hash::{FxHashMap, FxHashSet};

use super::super::Violation;
use super::super::common::{Common, News};
use super::super::protocol::{Entered, Flow, Session, Unfit};
use super::channel::OpenChannel;
use super::faults::{self, fault};
use super::settle::Acks;
use super::{Amqp, Terms};
use crate::channel::{ChannelError, TransactionBudget};

/// One client, once it has been let in.
pub(in super::super) struct AmqpSession {
    pub(super) common: Common<Amqp>,
    pub(super) user: Arc<str>,
    pub(super) terms: Arc<Terms>,
    pub(super) channels: FxHashMap<u16, OpenChannel>,
    /// Channels that the broker closed, until the client has said that it knows.
    pub(super) closing: FxHashSet<u16>,
    /// The number of the newest consumer. None is used twice, whatever the channel: what is late names a consumer by it.
    pub(super) last_number: u32,
    pub(super) channels_max: u16,
    pub(super) frame_bytes_max: usize,
    /// The class and method that a close would be about.
    pub(super) current: (u16, u16),
    pub(super) acks: Acks,
    /// What the open transactions of all channels may take together.
    pub(super) transactions: Arc<TransactionBudget>,
    /// The bytes of unfinished messages on all channels.
    unfinished_bytes: usize,
    /// A frame that waits until all answers before it are on their way.
    held: Option<Frame>,
}

/// What came of something that was taken off the buffer.
pub(super) struct Applied {
    pub(super) channel: u16,
    /// Whether there may be answers that nobody reads.
    pub(super) asks: bool,
    pub(super) outcome: Result<Flow, Violation>,
}

/// The class and method of a publish, whose content comes in frames without either.
pub(super) const PUBLISH_IDS: (u16, u16) = (60, 40);

/// How many of the largest messages a connection may have begun and not finished.
const UNFINISHED_MESSAGES_MAX: usize = 4;

/// The first bytes of a `basic.publish`.
const PUBLISH_FIRST_BYTES: [u8; 4] = [0, 60, 0, 40];

/// The first bytes of a `basic.consume`.
const CONSUME_IDS: [u8; 4] = [0, 60, 0, 20];

impl Session for AmqpSession {
    fn apply_all(&mut self, buffer: &mut BytesMut) -> Result<Flow, Violation> {
        self.common.tick();
        loop {
            let Applied { channel, asks, outcome } = if let Some(applied) = self.apply_whole(buffer) {
                applied
            } else {
                let Some(frame) = self.next_frame(buffer)? else { break };
                if self.must_wait(&frame)? {
                    self.held = Some(frame);
                    return Ok(Flow::Full);
                }
                let (channel, asks) = (frame.channel, frame.kind == FrameKind::Method);
                Applied { channel, asks, outcome: self.apply(frame) }
            };
            match outcome.or_else(|violation| self.close_channel_for(channel, violation)) {
                Ok(Flow::Continue) if !asks || self.common.outbox.has_room() => {}
                // A few bytes can ask for a large message each, so that one buffer of requests could fill the memory.
                Ok(Flow::Continue | Flow::Full) => {
                    self.flush()?;
                    return Ok(Flow::Full);
                }
                Ok(Flow::Closed) => {
                    self.flush()?;
                    return Ok(Flow::Closed);
                }
                Err(violation) => {
                    self.flush()?;
                    return Err(violation);
                }
            }
        }
        self.flush()?;
        Ok(Flow::Continue)
    }

    async fn wait_for_room(&mut self) {
        self.common.wait_for_room().await;
        match &self.held {
            Some(frame) if is_publish(frame) => self.common.context.pressure.released().await,
            Some(_) => self.common.outbox.wait_until_due().await,
            None => {}
        }
    }

    fn tell_of_pause(&mut self, reason: Option<Arc<str>>) {
        if !self.terms.blocked {
            return;
        }
        match self.common.news_of_pause(reason) {
            // Once for however many causes.
            Some(News::Begins(reason)) => {
                self.common.outbox.send(0, connection::Blocked { reason: &reason }, None);
            }
            Some(News::Ends) => self.common.outbox.send(0, connection::Unblocked {}, None),
            Some(News::HasAnotherReason(_)) | None => {}
        }
    }

    fn resume(&mut self) {
        self.common.tick();
        for Unfit { channel: number, consumer, tag } in self.common.outbox.take_unfit() {
            let Some(open) = self.channels.get_mut(&number) else { continue };
            if !open.channel.give_back(consumer, tag, &mut self.common.work) {
                continue;
            }
            let ended = open.consumers.extract_if(|_, number| *number == consumer).next();
            // A client that cannot be told would otherwise wait for ever, and nobody would know why.
            tracing::warn!(
                connection = self.common.id.0,
                channel = number,
                limit = self.frame_bytes_max,
                "a consumer is ended: the properties of its next message do not fit into a frame"
            );
            if let Some((tag, _)) = ended.filter(|_| self.terms.cancel_notify) {
                let cancel = basic::Cancel { consumer_tag: &tag, nowait: true };
                self.common.outbox.send(number, cancel, None);
            }
        }
        for open in self.channels.values() {
            open.channel.resume(&mut self.common.work);
        }
    }

    fn say_close(&mut self, violation: Violation, keep: bool) {
        if !keep {
            self.close();
        }
        self.say_goodbye(&violation);
    }

    fn hear_out(&mut self, buffer: &mut BytesMut, keep: bool) -> bool {
        loop {
            match Frame::decode(buffer, self.frame_bytes_max) {
                Ok(Some(frame)) if self.answers_close(&frame) => return true,
                Ok(Some(frame)) if keep => self.settle_late(&frame),
                Ok(Some(_)) => {}
                Ok(None) => return false,
                // What cannot be read as frames is thrown away as bytes.
                Err(_) => buffer.clear(),
            }
        }
    }

    fn close(&mut self) {
        self.common.tick();
        for (_, open) in self.channels.drain() {
            open.channel.close(&mut self.common.work);
        }
        self.common.vhost.delete_exclusive(self.common.id);
    }
}

impl AmqpSession {
    pub(super) fn new(common: Common<Amqp>, entered: &mut Entered<Amqp>) -> Self {
        Self {
            common,
            user: Arc::clone(&entered.user),
            terms: Arc::clone(&entered.terms),
            channels: FxHashMap::default(),
            closing: FxHashSet::default(),
            last_number: 0,
            channels_max: entered.channels_max,
            frame_bytes_max: entered.frame_bytes_max,
            current: (0, 0),
            acks: Acks::default(),
            transactions: Arc::default(),
            unfinished_bytes: 0,
            held: None,
        }
    }

    /// Applies what comes next if it is what most of all is, and all there.
    fn apply_whole(&mut self, buffer: &mut BytesMut) -> Option<Applied> {
        if self.held.is_some() {
            return None;
        }
        self.publish_whole(buffer).or_else(|| self.ack_whole(buffer))
    }

    fn next_frame(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, Violation> {
        if let Some(held) = self.held.take() {
            return Ok(Some(held));
        }
        match Frame::decode(buffer, self.frame_bytes_max) {
            Ok(frame) => Ok(frame),
            Err(error) => {
                self.current = (0, 0);
                self.flush()?;
                Err(error.into())
            }
        }
    }

    /// Puts collected publishes into their queues, then settles what was collected: a client that publishes its result
    /// and then acknowledges what it made it from must not lose both to a crash in between.
    pub(super) fn flush(&mut self) -> Result<(), Violation> {
        self.common.flush()?;
        self.settle_collected();
        Ok(())
    }

    /// The channel of this number. It is there: a method came on it a moment ago.
    pub(super) fn open(&mut self, number: u16) -> Result<&mut OpenChannel, Violation> {
        self.channels.get_mut(&number).ok_or_else(not_open)
    }

    pub(super) fn refused(&self, error: &ChannelError) -> Violation {
        faults::refused(error, self.common.vhost.name.as_str())
    }

    /// Whether a frame must not be applied yet: deliveries to a new consumer do not wait for the disk, and would come
    /// before its `consume-ok` if that had to wait behind an answer that does.
    fn must_wait(&mut self, frame: &Frame) -> Result<bool, Violation> {
        if is_publish(frame) && self.is_held_back(frame.channel) {
            self.flush()?;
            let reason = self.common.pause();
            self.tell_of_pause(reason);
            return Ok(true);
        }
        let consumes = frame.kind == FrameKind::Method && frame.payload.starts_with(&CONSUME_IDS);
        if !consumes {
            return Ok(false);
        }
        self.flush()?;
        Ok(self.common.outbox.holds_back())
    }

    /// Whether a publish on this channel waits until publishes are taken again, and with it all that comes behind it: as in
    /// RabbitMQ, since there is no way to refuse it. With confirms there is.
    fn is_held_back(&self, number: u16) -> bool {
        self.common.context.pressure.is_on()
            && self.channels.get(&number).is_some_and(|open| !open.channel.confirms)
    }

    fn apply(&mut self, frame: Frame) -> Result<Flow, Violation> {
        let number = frame.channel;
        self.current = (0, 0);
        match frame.kind {
            FrameKind::Heartbeat => return Ok(Flow::Continue),
            _ if number == 0 => return self.on_connection(&frame),
            _ => {}
        }
        let Some(open) = self.channels.get_mut(&number) else {
            self.on_closed_channel(&frame)?;
            return Ok(Flow::Continue);
        };
        if !open.publish.is_empty() {
            self.current = PUBLISH_IDS;
        }
        let body_bytes_max = self.common.context.limits.message_bytes_max as u64;
        let before = open.assembler.held_bytes();
        let assembled = open.assembler.accept(frame, body_bytes_max).map_err(|error| Violation {
            code: error.reply_code(),
            text: error.to_string(),
            closes: error.closes(),
        });
        self.unfinished_bytes = (self.unfinished_bytes + open.assembler.held_bytes()).saturating_sub(before);
        match assembled? {
            Assembled::Incomplete => self.check_unfinished()?,
            Assembled::Content(content) => self.publish(number, &content)?,
            Assembled::Method(payload) => {
                let method = Method::decode(&payload).inspect_err(|error| self.current = error.ids())?;
                self.current = method.ids();
                if let Method::Basic(Basic::Publish(_)) = method {
                    open.assembler.expect_content();
                    // Copied, because a slice would keep the read buffer alive until the content is here.
                    open.publish.extend_from_slice(&payload);
                } else {
                    self.method(number, &method)?;
                }
            }
        }
        Ok(Flow::Continue)
    }

    /// Each channel may begin a large message, and none of them need ever finish it.
    fn check_unfinished(&self) -> Result<(), Violation> {
        let max = self.common.context.limits.message_bytes_max.saturating_mul(UNFINISHED_MESSAGES_MAX);
        if self.unfinished_bytes <= max {
            return Ok(());
        }
        let text = format!("unfinished messages on all channels have more than {max} bytes together");
        Err(fault(ReplyCode::ResourceError, text))
    }

    fn method(&mut self, number: u16, method: &Method<'_>) -> Result<(), Violation> {
        if let Method::Basic(Basic::Ack(ack)) = method {
            return self.ack(number, ack.delivery_tag, ack.multiple);
        }
        // Every other method sees what was published and settled before it.
        self.flush()?;
        match method {
            Method::Channel(method) => self.on_channel(number, method),
            Method::Exchange(method) => self.on_exchange(number, method),
            Method::Queue(method) => self.on_queue(number, method),
            Method::Basic(method) => self.on_basic(number, method),
            Method::Confirm(method) => self.on_confirm(number, *method),
            Method::Tx(method) => self.on_tx(number, *method),
            Method::Connection(_) => Err(unimplemented()),
        }
    }

    fn on_basic(&mut self, number: u16, method: &Basic<'_>) -> Result<(), Violation> {
        match method {
            Basic::Qos(qos) => self.qos(number, *qos),
            Basic::Consume(consume) => self.consume(number, consume),
            Basic::Cancel(cancel) => self.cancel(number, *cancel),
            Basic::Get(get) => self.get(number, *get),
            Basic::Nack(nack) => self.nack(number, nack.delivery_tag, nack.multiple, nack.requeue),
            Basic::Reject(reject) => self.nack(number, reject.delivery_tag, false, reject.requeue),
            Basic::Recover(recover) => self.recover(number, recover.requeue, true),
            Basic::RecoverAsync(recover) => self.recover(number, recover.requeue, false),
            // The client's answer to a cancel of the broker's, which asks for none.
            Basic::CancelOk(_) => Ok(()),
            _ => Err(unimplemented()),
        }
    }

    /// Ends a channel: what it has not settled goes back to the queues. Whether it was open.
    pub(super) fn end_channel(&mut self, number: u16) -> bool {
        let Some(open) = self.channels.remove(&number) else { return false };
        self.unfinished_bytes = self.unfinished_bytes.saturating_sub(open.assembler.held_bytes());
        open.channel.close(&mut self.common.work);
        true
    }

    /// Ends the channel that a violation is about, if it is about one.
    fn close_channel_for(&mut self, number: u16, violation: Violation) -> Result<Flow, Violation> {
        if violation.closes == Closes::Connection || number == 0 {
            return Err(violation);
        }
        // What it has published and settled before the mistake counts.
        self.flush()?;
        if self.end_channel(number) {
            self.closing.insert(number);
            self.send_channel_close(number, &violation);
        }
        Ok(Flow::Continue)
    }
}

/// Whatever ends a connection's task, a defect included, gives back what its client held.
impl Drop for AmqpSession {
    fn drop(&mut self) {
        self.close();
    }
}

/// Whether a message begins with this frame.
fn is_publish(frame: &Frame) -> bool {
    frame.kind == FrameKind::Method && frame.payload.starts_with(&PUBLISH_FIRST_BYTES)
}

pub(super) fn unimplemented() -> Violation {
    fault(ReplyCode::CommandInvalid, "unimplemented method")
}

pub(super) fn not_open() -> Violation {
    fault(ReplyCode::ChannelError, "expected 'channel.open'")
}
