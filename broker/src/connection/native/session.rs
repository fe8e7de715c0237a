//! Frames -> operations, on all channels of one connection. No I/O: answers go to the outbox.

use std::sync::Arc;

use bytes::{Buf, BytesMut};
use leveret_protocol::{
    Close, Closed, ConsumerCancelled, Control, ControlError, Credit, DataError, Failed, Frame, FrameRef,
    Outcome, PropertiesFormat, Publish, PublishingPaused, PublishingResumed, ReplyCode, Return, Route,
    RoutingKey, Settle, SettleParts, kind,
};
use rustc_hash::{FxHashMap, FxHashSet};

use super::super::Violation;
use super::super::common::{Common, News};
use super::super::protocol::{Entered, Flow, Session, Unfit};
use super::{Native, encoded};
use crate::channel::{Channel, ChannelError, Publication, Ticket};
use crate::queue::Verb;
use crate::topology::TopologyError;

/// One client, once it has been let in.
pub(in super::super) struct NativeSession {
    pub(super) common: Common<Native>,
    pub(super) channels: FxHashMap<u16, OpenChannel>,
    pub(super) channels_max: u16,
    pub(super) frame_bytes_max: usize,
    /// Whether the client can be told that publishing is paused.
    knows_pauses: bool,
    /// Channels that the broker closed: what the client sent before it knew is ignored.
    pub(super) closed: FxHashSet<u16>,
    ranges: Vec<(u64, u64)>,
}

/// A channel with what the native protocol adds.
pub(super) struct OpenChannel {
    pub(super) channel: Channel,
    /// Registered routes, by their aliases.
    pub(super) aliases: FxHashMap<u32, Alias>,
}

/// A registered route.
pub(super) struct Alias {
    pub(super) exchange: String,
    pub(super) routing_key: String,
}

impl Session for NativeSession {
    fn apply_all(&mut self, buffer: &mut BytesMut) -> Result<Flow, Violation> {
        self.common.tick();
        let mut rest: &[u8] = buffer;
        let applied = self.apply_frames(&mut rest);
        let left = rest.len();
        buffer.advance(buffer.len() - left);
        // Whatever came after: what was published before counts.
        self.common.flush().and(applied)
    }

    async fn wait_for_room(&mut self) {
        self.common.wait_for_room().await;
    }

    fn tell_of_pause(&mut self, reason: Option<Arc<str>>) {
        if !self.knows_pauses {
            return;
        }
        match self.common.news_of_pause(reason) {
            Some(News::Begins(reason) | News::HasAnotherReason(reason)) => {
                self.common.outbox.send(0, PublishingPaused { reason: reason.to_string() }, None);
            }
            Some(News::Ends) => self.common.outbox.send(0, PublishingResumed {}, None),
            None => {}
        }
    }

    fn resume(&mut self) {
        self.common.tick();
        for Unfit { channel, consumer, tag } in self.common.outbox.take_unfit() {
            let Some(open) = self.channels.get_mut(&channel) else { continue };
            if !open.channel.give_back(consumer, tag, &mut self.common.work) {
                continue;
            }
            let text = format!("a message takes a frame of more than {} bytes", self.frame_bytes_max);
            let code = ReplyCode::ContentTooLarge;
            self.common.outbox.send(channel, ConsumerCancelled { consumer, code, text }, None);
        }
        for open in self.channels.values() {
            open.channel.resume(&mut self.common.work);
        }
    }

    fn say_close(&mut self, violation: Violation, keep: bool) {
        if !keep {
            self.close();
        }
        let close = Close { code: violation.code, text: violation.text };
        self.common.send_behind_all(encoded(0, close).freeze());
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

impl NativeSession {
    pub(super) fn new(common: Common<Native>, entered: &Entered<Native>) -> Self {
        Self {
            common,
            channels: FxHashMap::default(),
            channels_max: entered.channels_max,
            frame_bytes_max: entered.frame_bytes_max,
            knows_pauses: entered.terms.knows_pauses,
            closed: FxHashSet::default(),
            ranges: Vec::new(),
        }
    }

    /// Why a publish is not taken for now. The client hears of the pause before it hears of the refusal, or it would try
    /// again at once.
    fn held_back(&mut self) -> (ReplyCode, String) {
        let reason = self.common.pause();
        let text =
            format!("{}, and takes no publishes for now", reason.as_deref().unwrap_or("the broker is full"));
        // If it has just ended, the reader says so, but only to somebody who was told that it had begun.
        if reason.is_some() {
            self.tell_of_pause(reason);
        }
        (if self.knows_pauses { ReplyCode::PublishingPaused } else { ReplyCode::ResourceError }, text)
    }

    /// Takes a settle that the client sent before it saw that the broker stops. It is not answered any more, and a wrong
    /// one changes nothing.
    fn settle_late(&mut self, frame: &Frame) {
        if frame.kind == kind::SETTLE
            && let Ok(settle) = Settle::decode(frame.flags, &frame.payload)
        {
            self.common.tick();
            let _ = self.apply_settle(frame.channel, &settle);
        }
    }

    /// Whether a frame that comes after the broker's close answers it. A close that crosses it is answered.
    fn answers_close(&self, frame: &Frame) -> bool {
        match Control::decode(frame.kind, &frame.payload) {
            Ok(Control::Closed(_)) => true,
            Ok(Control::Close(_)) => {
                // Behind the close, which may still wait for what was due.
                self.common.outbox.send(0, Closed {}, Some(self.common.context.store.end()));
                false
            }
            _ => false,
        }
    }

    fn apply_frames(&mut self, rest: &mut &[u8]) -> Result<Flow, Violation> {
        loop {
            let split = FrameRef::split_first(rest, self.frame_bytes_max);
            let split = split.map_err(|error| Violation::of_connection(ReplyCode::FrameError, error))?;
            let Some((frame, behind)) = split else { return Ok(Flow::Continue) };
            *rest = behind;
            let applied = self.apply(&frame).or_else(|violation| self.close_channel_for(&frame, violation));
            match applied? {
                Flow::Continue if frame.kind >= kind::PUBLISH || self.common.outbox.has_room() => {}
                // A few bytes can ask for a large message each, so that one buffer of requests could fill the memory.
                Flow::Continue | Flow::Full => return Ok(Flow::Full),
                Flow::Closed => return Ok(Flow::Closed),
            }
        }
    }

    fn apply(&mut self, frame: &FrameRef<'_>) -> Result<Flow, Violation> {
        match frame.kind {
            kind::PUBLISH => self.publish(frame)?,
            kind::SETTLE => self.settle(frame)?,
            kind::CREDIT => self.credit(frame)?,
            kind::HEARTBEAT if frame.channel != 0 || !frame.payload.is_empty() => {
                let text = "a heartbeat is on channel 0 and has no payload";
                return Err(Violation::of_connection(ReplyCode::FrameError, text));
            }
            kind::HEARTBEAT => {}
            kind::DELIVER | kind::CONFIRM | kind::RETURN | kind::SETTLED => {
                let text = "a frame that only the broker sends";
                return Err(Violation::of_connection(ReplyCode::UnexpectedFrame, text));
            }
            _ => {
                // A request sees what was published before it.
                self.common.flush()?;
                return self.control(frame);
            }
        }
        Ok(Flow::Continue)
    }

    fn control(&mut self, frame: &FrameRef<'_>) -> Result<Flow, Violation> {
        match Control::decode(frame.kind, frame.payload) {
            Ok(control) => self.request(frame.channel, control),
            Err(ControlError::Malformed { frame: operation, reason, request: Some(request) }) => {
                let failed = Failed {
                    request,
                    operation: operation.to_owned(),
                    code: ReplyCode::SyntaxError,
                    text: reason,
                    closes: leveret_protocol::Closes::Nothing,
                };
                self.common.outbox.send(frame.channel, failed, None);
                Ok(Flow::Continue)
            }
            Err(error @ ControlError::UnknownKind { .. }) => {
                Err(Violation::of_connection(ReplyCode::FrameError, error))
            }
            Err(error) => Err(Violation::of_connection(ReplyCode::SyntaxError, error)),
        }
    }

    fn publish(&mut self, frame: &FrameRef<'_>) -> Result<(), Violation> {
        let publish = Publish::decode(frame.flags, frame.payload).map_err(malformed)?;
        let held_back = self.common.context.pressure.is_on().then(|| self.held_back());
        let Some(open) = self.channels.get_mut(&frame.channel) else {
            return self.check_closed(frame.channel);
        };
        let number = open.channel.count_publish();
        let ticket = Ticket { channel: frame.channel, number: open.channel.confirms.then_some(number) };
        let (exchange, routing_key, registered) = match publish.route {
            Route::Named { exchange, routing_key } => (exchange, routing_key, true),
            Route::Alias(alias) => match open.aliases.get(&alias) {
                Some(route) => (route.exchange.as_str(), route.routing_key.as_str(), true),
                None => ("", "", false),
            },
        };
        self.common.published = true;
        let (size, max) = (publish.content.len(), self.common.context.limits.message_bytes_max);
        let added = if let Some(held_back) = held_back {
            Err(held_back)
        } else if !registered {
            Err((ReplyCode::NotFound, "the route was not registered on this channel".to_owned()))
        } else if size > max {
            Err((
                ReplyCode::ContentTooLarge,
                format!("a body and properties of {size} bytes exceed the limit of {max} bytes"),
            ))
        } else {
            let publication = publication(&publish, exchange, routing_key);
            let added = publication.and_then(|publication| {
                self.common.publisher.add(&self.common.vhost, publication, ticket, self.common.work.now_ms)
            });
            added.map_err(|error| (error.code(), error.to_string()))
        };
        match added {
            Ok(routed) => {
                if !routed && publish.mandatory {
                    let back = Return {
                        number,
                        code: ReplyCode::NoRoute,
                        exchange,
                        routing_key,
                        properties: publish.properties(),
                        body: publish.body(),
                    };
                    let mut bytes = BytesMut::new();
                    back.encode(frame.channel, &mut bytes);
                    self.common.outbox.send_frame(bytes.freeze(), None);
                }
            }
            // The refusal is the answer. Without confirms there is none but the channel's end.
            Err((code, _)) if ticket.number.is_some() => {
                self.common.confirms.add(frame.channel, number, Outcome::Refused(code));
            }
            Err((code, text)) => return Err(Violation::of_channel(code, text)),
        }
        if self.common.publisher.is_full() { self.common.flush() } else { Ok(()) }
    }

    fn settle(&mut self, frame: &FrameRef<'_>) -> Result<(), Violation> {
        let settle = Settle::decode(frame.flags, frame.payload).map_err(malformed)?;
        // A client that publishes its result and then acknowledges what it made it from must not lose both to a crash
        // in between: the journal gets them in this order.
        self.common.flush()?;
        self.apply_settle(frame.channel, &settle)?;
        if settle.confirm && self.channels.contains_key(&frame.channel) {
            let mut bytes = BytesMut::new();
            let settled = SettleParts {
                consumer: settle.consumer,
                verb: settle.verb,
                confirm: true,
                note: None,
                ranges: &self.ranges,
            };
            settled.encode(kind::SETTLED, frame.channel, &mut bytes);
            self.common.outbox.send_frame(bytes.freeze(), Some(self.common.context.store.end()));
        }
        Ok(())
    }

    fn apply_settle(&mut self, channel: u16, settle: &Settle<'_>) -> Result<(), Violation> {
        let Some(open) = self.channels.get_mut(&channel) else {
            return self.check_closed(channel);
        };
        self.ranges.clear();
        self.ranges.extend(settle.ranges.iter());
        let verb = match settle.verb {
            leveret_protocol::Verb::Ack => Verb::Ack,
            leveret_protocol::Verb::Requeue => Verb::Requeue,
            leveret_protocol::Verb::Release => Verb::Release,
            leveret_protocol::Verb::Reject => Verb::Reject { note: settle.note.map(Arc::from) },
        };
        // "All up to" stands alone; together with other ranges each is settled by itself.
        let up_to = self.ranges.iter().any(|(first, _)| *first == 0);
        let calls = if up_to { self.ranges.chunks(1) } else { self.ranges.chunks(self.ranges.len().max(1)) };
        for ranges in calls {
            open.channel.settle(settle.consumer, ranges, &verb, &mut self.common.work).map_err(of_channel)?;
        }
        Ok(())
    }

    fn credit(&mut self, frame: &FrameRef<'_>) -> Result<(), Violation> {
        let credit = Credit::decode(frame.payload).map_err(malformed)?;
        let Some(open) = self.channels.get_mut(&frame.channel) else {
            return self.check_closed(frame.channel);
        };
        open.channel.add_credit(credit.consumer, credit.messages, &mut self.common.work).map_err(of_channel)
    }

    /// Late frames for a channel that the broker has closed are ignored; others are a mistake.
    pub(super) fn check_closed(&self, channel: u16) -> Result<(), Violation> {
        if self.closed.contains(&channel) {
            return Ok(());
        }
        if channel == 0 {
            let text = "a channel's frame on channel 0, which is the connection";
            return Err(Violation::of_connection(ReplyCode::UnexpectedFrame, text));
        }
        Err(Violation::of_connection(ReplyCode::ChannelError, format!("channel {channel} is not open")))
    }

    /// Ends the channel that a violation is about, if it is about one.
    fn close_channel_for(&mut self, frame: &FrameRef<'_>, violation: Violation) -> Result<Flow, Violation> {
        if violation.closes == leveret_protocol::Closes::Connection {
            return Err(violation);
        }
        // What it has published before the mistake counts.
        self.common.flush()?;
        if let Some(open) = self.channels.remove(&frame.channel) {
            open.channel.close(&mut self.common.work);
            self.closed.insert(frame.channel);
            let closed = leveret_protocol::ChannelClosed {
                code: violation.code,
                text: violation.text,
                operation: data_frame_name(frame.kind).to_owned(),
            };
            self.common.outbox.send(frame.channel, closed, None);
        }
        Ok(Flow::Continue)
    }
}

/// Whatever ends a connection's task, a defect included, gives back what its client held.
impl Drop for NativeSession {
    fn drop(&mut self) {
        self.close();
    }
}

fn publication<'a>(
    publish: &Publish<'a>,
    exchange: &'a str,
    routing_key: &'a str,
) -> Result<Publication<'a>, TopologyError> {
    Ok(Publication {
        exchange,
        routing_key,
        cc: keys(publish.cc)?,
        bcc: keys(publish.bcc)?,
        persistent: publish.persistent,
        priority: publish.priority.unwrap_or(0),
        ttl_ms: publish.ttl_ms,
        properties_format: PropertiesFormat::Native,
        properties_bytes: publish.properties_bytes,
        content: publish.content,
    })
}

fn data_frame_name(frame_kind: u8) -> &'static str {
    match frame_kind {
        kind::PUBLISH => "Publish",
        kind::SETTLE => "Settle",
        kind::CREDIT => "Credit",
        _ => "request",
    }
}

fn malformed(error: DataError) -> Violation {
    let code = match error {
        DataError::Invalid { .. } => ReplyCode::SyntaxError,
        _ => ReplyCode::FrameError,
    };
    Violation::of_connection(code, error)
}

fn of_channel(error: ChannelError) -> Violation {
    Violation::of_channel(error.code(), error)
}

fn keys(keys: leveret_protocol::Keys<'_>) -> Result<Vec<RoutingKey>, TopologyError> {
    // Nearly always, and to find that out by collecting them takes longer than the rest of reading a publish.
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    Ok(keys.iter().map(RoutingKey::new).collect::<Result<Vec<_>, _>>()?)
}
