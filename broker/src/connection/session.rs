//! Frames -> operations, on all channels of one connection. No I/O: answers go to the outbox.

use std::sync::Arc;

use bytes::BytesMut;
use leveret_protocol::{
    Closed, ConsumerCancelled, Control, ControlError, Credit, DataError, Failed, Frame, Outcome, Publish,
    ReplyCode, Return, Route, RoutingKey, Settle, SettleParts, kind,
};
use rustc_hash::{FxHashMap, FxHashSet};

use super::outbox::Outbox;
use super::{Context, Violation};
use crate::channel::{Channel, ChannelError, ConfirmRuns, Publication, Publisher, Ticket};
use crate::queue::{ConnectionId, Verb, Work};
use crate::topology::{TopologyError, Vhost};

/// Whether the connection goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    Continue,
    /// It goes on when the client has read its answers; whole frames may be left in the buffer.
    Full,
    Closed,
}

/// One client, once it has been let in.
pub(super) struct Session {
    pub(super) id: ConnectionId,
    pub(super) vhost: Arc<Vhost>,
    pub(super) context: Arc<Context>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) channels: FxHashMap<u16, OpenChannel>,
    pub(super) channels_max: u16,
    pub(super) frame_bytes_max: usize,
    /// Channels that the broker closed: what the client sent before it knew is ignored.
    pub(super) closed: FxHashSet<u16>,
    publisher: Publisher,
    confirms: ConfirmRuns,
    pub(super) work: Work,
    ranges: Vec<(u64, u64)>,
    /// Whether something was published since the journal's room was looked at.
    published: bool,
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

impl Session {
    pub(super) fn new(
        id: ConnectionId,
        vhost: Arc<Vhost>,
        context: Arc<Context>,
        outbox: Arc<Outbox>,
        (channels_max, frame_bytes_max): (u16, usize),
    ) -> Self {
        Self {
            id,
            vhost,
            context,
            outbox,
            channels: FxHashMap::default(),
            channels_max,
            frame_bytes_max,
            closed: FxHashSet::default(),
            publisher: Publisher::default(),
            confirms: ConfirmRuns::default(),
            work: Work::default(),
            ranges: Vec::new(),
            published: false,
        }
    }

    /// Carries out all whole frames of the buffer.
    pub(super) fn apply_all(&mut self, buffer: &mut BytesMut) -> Result<Flow, Violation> {
        self.work.now_ms = self.context.clock.now_ms();
        loop {
            let frame = match Frame::decode(buffer, self.frame_bytes_max) {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(error) => {
                    self.flush()?;
                    return Err(Violation::of_connection(ReplyCode::FrameError, error));
                }
            };
            let applied = self.apply(&frame).or_else(|violation| self.close_channel_for(&frame, violation));
            match applied {
                Ok(Flow::Continue) if frame.kind >= kind::PUBLISH || self.outbox.has_room() => {}
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

    /// Waits until the client has read its answers, and a publisher until the disk has caught up.
    pub(super) async fn wait_for_room(&mut self) {
        self.outbox.wait_for_room().await;
        if std::mem::take(&mut self.published) {
            // If the journal has failed the broker is about to stop, and this connection with it.
            self.context.store.wait_for_room().await;
        }
    }

    /// Consumers that were passed over can get deliveries again; those whose next message is too large for this
    /// connection get none any more.
    pub(super) fn resume(&mut self) {
        self.work.now_ms = self.context.clock.now_ms();
        for (channel, consumer, tag) in self.outbox.take_unfit() {
            let Some(open) = self.channels.get_mut(&channel) else { continue };
            if !open.channel.give_back(consumer, tag, &mut self.work) {
                continue;
            }
            let text = format!("a message takes a frame of more than {} bytes", self.frame_bytes_max);
            let code = ReplyCode::ContentTooLarge;
            self.outbox.send(channel, ConsumerCancelled { consumer, code, text }, None);
        }
        for open in self.channels.values() {
            open.channel.resume(&mut self.work);
        }
    }

    /// Ends all channels: what they have not settled goes back to the queues. Exclusive queues go. Once is enough.
    pub(super) fn close(&mut self) {
        self.work.now_ms = self.context.clock.now_ms();
        for (_, open) in self.channels.drain() {
            open.channel.close(&mut self.work);
        }
        self.vhost.delete_exclusive(self.id);
    }

    /// Ends all channels, and sends the last frame of the connection but one at most: what was due before, such as
    /// confirms that wait for the disk, comes before it, and no delivery comes after it.
    pub(super) fn say_last(&mut self, control: impl Into<Control>) {
        self.close();
        self.say_goodbye(control);
    }

    /// Sends a frame behind everything that was due. What the client holds stays with it until the session is closed.
    pub(super) fn say_goodbye(&mut self, control: impl Into<Control>) {
        let failed = self.context.store.progress().borrow().failure.is_some();
        // A journal that has failed reaches no position any more.
        let position = (!failed).then(|| self.context.store.end());
        self.outbox.send(0, control, position);
    }

    /// Takes a settle that the client sent before it saw that the broker stops. It is not answered any more, and a wrong
    /// one changes nothing.
    pub(super) fn settle_late(&mut self, frame: &Frame) {
        if frame.kind == kind::SETTLE
            && let Ok(settle) = Settle::decode(frame.flags, &frame.payload)
        {
            self.work.now_ms = self.context.clock.now_ms();
            let _ = self.apply_settle(frame.channel, &settle);
        }
    }

    /// Whether a frame that comes after the broker's close answers it. A close that crosses it is answered.
    pub(super) fn answers_close(&self, frame: &Frame) -> bool {
        match Control::decode(frame.kind, &frame.payload) {
            Ok(Control::Closed(_)) => true,
            Ok(Control::Close(_)) => {
                // Behind the close, which may still wait for what was due.
                self.outbox.send(0, Closed {}, Some(self.context.store.end()));
                false
            }
            _ => false,
        }
    }

    fn apply(&mut self, frame: &Frame) -> Result<Flow, Violation> {
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
                self.flush()?;
                return self.control(frame);
            }
        }
        Ok(Flow::Continue)
    }

    fn control(&mut self, frame: &Frame) -> Result<Flow, Violation> {
        match Control::decode(frame.kind, &frame.payload) {
            Ok(control) => self.request(frame.channel, control),
            Err(ControlError::Malformed { frame: operation, reason, request: Some(request) }) => {
                let failed = Failed {
                    request,
                    operation: operation.to_owned(),
                    code: ReplyCode::SyntaxError,
                    text: reason,
                    closes: leveret_protocol::Closes::Nothing,
                };
                self.outbox.send(frame.channel, failed, None);
                Ok(Flow::Continue)
            }
            Err(error @ ControlError::UnknownKind { .. }) => {
                Err(Violation::of_connection(ReplyCode::FrameError, error))
            }
            Err(error) => Err(Violation::of_connection(ReplyCode::SyntaxError, error)),
        }
    }

    fn publish(&mut self, frame: &Frame) -> Result<(), Violation> {
        let publish = Publish::decode(frame.flags, &frame.payload).map_err(malformed)?;
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
        self.published = true;
        let (size, max) =
            (publish.body.len() + publish.properties.len(), self.context.limits.message_bytes_max);
        let added = if !registered {
            Err((ReplyCode::NotFound, "the route was not registered on this channel".to_owned()))
        } else if size > max {
            Err((
                ReplyCode::ContentTooLarge,
                format!("a body and properties of {size} bytes exceed the limit of {max} bytes"),
            ))
        } else {
            let publication = publication(&publish, exchange, routing_key);
            let added = publication.and_then(|publication| {
                self.publisher.add(&self.vhost, publication, ticket, self.work.now_ms)
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
                        properties: publish.properties,
                        body: publish.body,
                    };
                    let mut bytes = BytesMut::new();
                    back.encode(frame.channel, &mut bytes);
                    self.outbox.send_frame(bytes.freeze(), None);
                }
            }
            // The refusal is the answer. Without confirms there is none but the channel's end.
            Err((code, _)) if ticket.number.is_some() => {
                self.confirms.add(frame.channel, number, Outcome::Refused(code));
            }
            Err((code, text)) => return Err(Violation::of_channel(code, text)),
        }
        if self.publisher.is_full() { self.flush() } else { Ok(()) }
    }

    /// Puts collected publishes into their queues, and sends or queues their confirms.
    fn flush(&mut self) -> Result<(), Violation> {
        let mut position = None;
        if !self.publisher.is_empty() {
            let flushed = self.publisher.flush(&self.vhost, &mut self.work, &mut self.confirms);
            position = flushed.map_err(|error| Violation::of_connection(ReplyCode::InternalError, error))?;
        }
        if !self.confirms.is_empty() {
            self.outbox.confirm(&mut self.confirms, position);
        }
        Ok(())
    }

    fn settle(&mut self, frame: &Frame) -> Result<(), Violation> {
        let settle = Settle::decode(frame.flags, &frame.payload).map_err(malformed)?;
        // A client that publishes its result and then acknowledges what it made it from must not lose both to a crash
        // in between: the journal gets them in this order.
        self.flush()?;
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
            self.outbox.send_frame(bytes.freeze(), Some(self.context.store.end()));
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
            open.channel.settle(settle.consumer, ranges, &verb, &mut self.work).map_err(of_channel)?;
        }
        Ok(())
    }

    fn credit(&mut self, frame: &Frame) -> Result<(), Violation> {
        let credit = Credit::decode(&frame.payload).map_err(malformed)?;
        let Some(open) = self.channels.get_mut(&frame.channel) else {
            return self.check_closed(frame.channel);
        };
        open.channel.add_credit(credit.consumer, credit.messages, &mut self.work).map_err(of_channel)
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
    fn close_channel_for(&mut self, frame: &Frame, violation: Violation) -> Result<Flow, Violation> {
        if violation.closes == leveret_protocol::Closes::Connection {
            return Err(violation);
        }
        // What it has published before the mistake counts.
        self.flush()?;
        if let Some(open) = self.channels.remove(&frame.channel) {
            open.channel.close(&mut self.work);
            self.closed.insert(frame.channel);
            let closed = leveret_protocol::ChannelClosed {
                code: violation.code,
                text: violation.text,
                operation: data_frame_name(frame.kind).to_owned(),
            };
            self.outbox.send(frame.channel, closed, None);
        }
        Ok(Flow::Continue)
    }
}

/// Whatever ends a connection's task, a defect included, gives back what its client held.
impl Drop for Session {
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
        properties: publish.properties,
        body: publish.body,
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
    Ok(keys.iter().map(RoutingKey::new).collect::<Result<Vec<_>, _>>()?)
}

/// The bytes of one control frame.
pub(super) fn encoded(channel: u16, control: impl Into<Control>) -> BytesMut {
    let mut bytes = BytesMut::new();
    if let Err(error) = control.into().encode(channel, &mut bytes) {
        tracing::error!(%error, "an answer could not be encoded");
    }
    bytes
}
