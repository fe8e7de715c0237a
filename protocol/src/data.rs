//! Data frames: the hot path, with fixed layouts that are read in place.
//!
//! Integers are little-endian. A *short string* is one length byte and that many bytes of UTF-8. A *blob* is a
//! `u32` length and that many bytes. `docs/protocol.md` has the byte tables.

use bytes::{BufMut, BytesMut};

use crate::codes::ReplyCode;
use crate::control::METADATA_BYTES_MAX;
use crate::frame::FrameWriter;
use crate::keys::{Keys, put_keys};
use crate::kind;
pub use crate::layout::DataError;
use crate::layout::{Reader, le_u16, le_u32, le_u64, put_blob, put_short_string};
use crate::name::NAME_BYTES_MAX;

/// How many ranges one settle frame may carry.
pub const SETTLE_RANGES_MAX: usize = 4096;

/// Flags of a publish frame. An unknown one is refused, since its field could not be skipped.
mod publish_flag {
    pub(super) const MANDATORY: u8 = 1;
    pub(super) const PERSISTENT: u8 = 1 << 1;
    pub(super) const ALIAS: u8 = 1 << 2;
    pub(super) const PRIORITY: u8 = 1 << 3;
    pub(super) const TTL: u8 = 1 << 4;
    pub(super) const COPIES: u8 = 1 << 5;
    pub(super) const ALL: u8 = (1 << 6) - 1;
}

/// Flags of a deliver frame.
mod deliver_flag {
    pub(super) const REDELIVERED: u8 = 1;
    pub(super) const PERSISTENT: u8 = 1 << 1;
    pub(super) const PRIORITY: u8 = 1 << 2;
    pub(super) const TTL: u8 = 1 << 3;
    pub(super) const COPIES: u8 = 1 << 4;
    pub(super) const DEATHS: u8 = 1 << 5;
    pub(super) const ALL: u8 = (1 << 6) - 1;
}

/// Flags of a settle frame; the verb is in the two lowest bits.
mod settle_flag {
    pub(super) const VERB: u8 = 0b11;
    pub(super) const CONFIRM: u8 = 1 << 2;
    pub(super) const NOTE: u8 = 1 << 3;
    pub(super) const ALL: u8 = (1 << 4) - 1;
}

/// Where a publish goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route<'a> {
    /// By name.
    Named {
        /// The exchange; empty is the default exchange.
        exchange: &'a str,
        /// The routing key.
        routing_key: &'a str,
    },
    /// By a number that the channel registered before.
    Alias(u32),
}

/// A message on its way to an exchange. Publishes are numbered from 1 by their order on the channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Where it goes.
    pub route: Route<'a>,
    /// Whether the publisher wants it back if no queue gets it.
    pub mandatory: bool,
    /// Whether it is to survive a restart.
    pub persistent: bool,
    /// Its priority.
    pub priority: Option<u8>,
    /// How long it may wait in a queue, in milliseconds.
    pub ttl_ms: Option<u64>,
    /// Further routing keys, which consumers see.
    pub cc: Keys<'a>,
    /// Further routing keys, which nobody sees.
    pub bcc: Keys<'a>,
    /// How many bytes of `content` are properties.
    pub properties_bytes: usize,
    /// [`crate::Properties`], encoded, and right behind them the body: the rest of the frame.
    pub content: &'a [u8],
}

impl<'a> Publish<'a> {
    /// [`crate::Properties`], encoded; empty is none.
    pub fn properties(&self) -> &'a [u8] {
        self.content.get(..self.properties_bytes).unwrap_or_default()
    }

    /// The body.
    pub fn body(&self) -> &'a [u8] {
        self.content.get(self.properties_bytes..).unwrap_or_default()
    }

    /// Reads a publish frame.
    pub fn decode(flags: u8, payload: &'a [u8]) -> Result<Self, DataError> {
        use publish_flag::{ALIAS, ALL, COPIES, MANDATORY, PERSISTENT, PRIORITY, TTL};
        let mut reader = Reader { frame: "publish", rest: payload };
        reader.check_flags(flags, ALL)?;
        let route = if flags & ALIAS != 0 {
            Route::Alias(reader.u32("alias")?)
        } else {
            let exchange = reader.short_string("exchange")?;
            Route::Named { exchange, routing_key: reader.short_string("routing key")? }
        };
        let priority = if flags & PRIORITY != 0 { Some(reader.u8("priority")?) } else { None };
        let ttl_ms = if flags & TTL != 0 { Some(reader.u64("time to live")?) } else { None };
        let (cc, bcc) = if flags & COPIES != 0 {
            (Keys::read(&mut reader)?, Keys::read(&mut reader)?)
        } else {
            (Keys::default(), Keys::default())
        };
        let content = reader.rest;
        let properties_bytes = reader.blob("properties")?.len();
        if properties_bytes > METADATA_BYTES_MAX {
            return Err(reader.invalid("properties", "at most 262144 bytes long"));
        }
        Ok(Self {
            route,
            mandatory: flags & MANDATORY != 0,
            persistent: flags & PERSISTENT != 0,
            priority,
            ttl_ms,
            cc,
            bcc,
            properties_bytes,
            content: content.get(size_of::<u32>()..).unwrap_or_default(),
        })
    }
}

/// What a publisher puts into a publish frame.
#[derive(Debug, Clone, Copy)]
pub struct PublishParts<'a> {
    /// Where it goes.
    pub route: Route<'a>,
    /// Whether it comes back if no queue gets it.
    pub mandatory: bool,
    /// Whether it survives a restart.
    pub persistent: bool,
    /// Its priority.
    pub priority: Option<u8>,
    /// How long it may wait in a queue, in milliseconds.
    pub ttl_ms: Option<u64>,
    /// Further routing keys that consumers see; at most [`crate::COPIES_MAX`].
    pub cc: &'a [&'a str],
    /// Further routing keys that nobody sees; at most [`crate::COPIES_MAX`].
    pub bcc: &'a [&'a str],
    /// [`crate::Properties`], encoded.
    pub properties: &'a [u8],
    /// The body.
    pub body: &'a [u8],
}

impl PublishParts<'_> {
    /// Appends the frame; returns its payload's length in bytes. Names longer than 255 bytes are cut, which sends
    /// the message elsewhere: check them before (see [`crate::RoutingKey`]).
    pub fn encode(&self, channel: u16, out: &mut BytesMut) -> usize {
        use publish_flag::{ALIAS, COPIES, MANDATORY, PERSISTENT, PRIORITY, TTL};
        let copies = !self.cc.is_empty() || !self.bcc.is_empty();
        let flags = flag(self.mandatory, MANDATORY)
            | flag(self.persistent, PERSISTENT)
            | flag(matches!(self.route, Route::Alias(_)), ALIAS)
            | flag(self.priority.is_some(), PRIORITY)
            | flag(self.ttl_ms.is_some(), TTL)
            | flag(copies, COPIES);
        out.reserve(self.properties.len() + self.body.len() + 64);
        let frame = FrameWriter::begin(out, kind::PUBLISH, flags, channel);
        match self.route {
            Route::Named { exchange, routing_key } => {
                put_short_string(frame.out, exchange);
                put_short_string(frame.out, routing_key);
            }
            Route::Alias(alias) => frame.out.put_u32_le(alias),
        }
        if let Some(priority) = self.priority {
            frame.out.put_u8(priority);
        }
        if let Some(ttl_ms) = self.ttl_ms {
            frame.out.put_u64_le(ttl_ms);
        }
        if copies {
            put_keys(frame.out, self.cc.iter().copied());
            put_keys(frame.out, self.bcc.iter().copied());
        }
        put_blob(frame.out, self.properties);
        frame.out.put_slice(self.body);
        frame.end()
    }
}

/// A message on its way to a consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deliver<'a> {
    /// The consumer's number on this channel.
    pub consumer: u32,
    /// The delivery tag: counts from 1 for each consumer, and is what a settle names.
    pub tag: u64,
    /// How often it came back as failed, if it was handed out before at all.
    pub redelivered: Option<u32>,
    /// Whether it survives a restart.
    pub persistent: bool,
    /// Its priority, if not 0.
    pub priority: Option<u8>,
    /// The time to live that it was published with, in milliseconds.
    pub ttl_ms: Option<u64>,
    /// When the broker took it, in milliseconds since 1970-01-01 UTC.
    pub published_at_ms: u64,
    /// The exchange that it was published to.
    pub exchange: &'a str,
    /// Its routing key.
    pub routing_key: &'a str,
    /// Its CC keys.
    pub cc: Keys<'a>,
    /// [`crate::DeathHistory`] as MessagePack; empty is none.
    pub deaths: &'a [u8],
    /// [`crate::Properties`], as the publisher encoded them; empty is none.
    pub properties: &'a [u8],
    /// The body: the rest of the frame.
    pub body: &'a [u8],
}

impl<'a> Deliver<'a> {
    /// Reads a deliver frame.
    pub fn decode(flags: u8, payload: &'a [u8]) -> Result<Self, DataError> {
        use deliver_flag::{ALL, COPIES, DEATHS, PERSISTENT, PRIORITY, REDELIVERED, TTL};
        let mut reader = Reader { frame: "deliver", rest: payload };
        reader.check_flags(flags, ALL)?;
        Ok(Self {
            consumer: reader.u32("consumer")?,
            tag: reader.u64("delivery tag")?,
            published_at_ms: reader.u64("time")?,
            exchange: reader.short_string("exchange")?,
            routing_key: reader.short_string("routing key")?,
            redelivered: if flags & REDELIVERED != 0 { Some(reader.u32("delivery count")?) } else { None },
            persistent: flags & PERSISTENT != 0,
            priority: if flags & PRIORITY != 0 { Some(reader.u8("priority")?) } else { None },
            ttl_ms: if flags & TTL != 0 { Some(reader.u64("time to live")?) } else { None },
            cc: if flags & COPIES != 0 { Keys::read(&mut reader)? } else { Keys::default() },
            deaths: if flags & DEATHS != 0 { reader.blob("death history")? } else { &[] },
            properties: reader.blob("properties")?,
            body: reader.rest,
        })
    }
}

/// What the broker puts into a deliver frame: as [`Deliver`], with the keys from wherever they are kept.
#[derive(Debug, Clone)]
pub struct DeliverParts<'a, K> {
    /// All but the keys (whose `cc` is not looked at).
    pub deliver: Deliver<'a>,
    /// The CC keys.
    pub cc: K,
}

impl<'a, K: ExactSizeIterator<Item = &'a str>> DeliverParts<'a, K> {
    /// Appends the frame; gives its payload's length in bytes.
    pub fn encode(self, channel: u16, out: &mut BytesMut) -> usize {
        let body = self.deliver.body;
        out.reserve(self.deliver.properties.len() + body.len() + 96);
        let length = self.encode_before_body(channel, out);
        out.put_slice(body);
        length
    }

    /// As [`Self::encode`], but without the body, whose bytes have to follow.
    pub fn encode_before_body(self, channel: u16, out: &mut BytesMut) -> usize {
        use deliver_flag::{COPIES, DEATHS, PERSISTENT, PRIORITY, REDELIVERED, TTL};
        let Self { deliver, cc } = self;
        let flags = flag(deliver.redelivered.is_some(), REDELIVERED)
            | flag(deliver.persistent, PERSISTENT)
            | flag(deliver.priority.is_some(), PRIORITY)
            | flag(deliver.ttl_ms.is_some(), TTL)
            | flag(cc.len() > 0, COPIES)
            | flag(!deliver.deaths.is_empty(), DEATHS);
        out.reserve(deliver.properties.len() + 96);
        let frame = FrameWriter::begin(out, kind::DELIVER, flags, channel);
        frame.out.put_u32_le(deliver.consumer);
        frame.out.put_u64_le(deliver.tag);
        frame.out.put_u64_le(deliver.published_at_ms);
        put_short_string(frame.out, deliver.exchange);
        put_short_string(frame.out, deliver.routing_key);
        if let Some(count) = deliver.redelivered {
            frame.out.put_u32_le(count);
        }
        if let Some(priority) = deliver.priority {
            frame.out.put_u8(priority);
        }
        if let Some(ttl_ms) = deliver.ttl_ms {
            frame.out.put_u64_le(ttl_ms);
        }
        if cc.len() > 0 {
            put_keys(frame.out, cc);
        }
        if !deliver.deaths.is_empty() {
            put_blob(frame.out, deliver.deaths);
        }
        put_blob(frame.out, deliver.properties);
        frame.end_before(deliver.body.len())
    }
}

/// What becomes of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Verb {
    /// Done: the message leaves the queue.
    Ack = 0,
    /// It failed: back to its place in the queue, and counted towards the delivery limit.
    Requeue = 1,
    /// Not begun: back to its place, not counted.
    Release = 2,
    /// Never again: to the dead-letter exchange if there is one, else away.
    Reject = 3,
}

/// The longest note of a rejection, in bytes.
pub const NOTE_BYTES_MAX: usize = NAME_BYTES_MAX;

/// Settles deliveries of one consumer. Sent back by the broker as a settled frame once it is on disk, if asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settle<'a> {
    /// The consumer's number on this channel.
    pub consumer: u32,
    /// What becomes of them.
    pub verb: Verb,
    /// Whether the broker is to answer with a settled frame when the settle is on disk.
    pub confirm: bool,
    /// Why, for [`Verb::Reject`]: at most [`NOTE_BYTES_MAX`] bytes, kept in the death history.
    pub note: Option<&'a str>,
    /// Which delivery tags.
    pub ranges: Ranges<'a>,
}

/// Ranges of delivery tags, both ends included, read in place.
///
/// A range that begins with 0 means "all that are unsettled up to its end".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ranges<'a>(&'a [u8]);

impl<'a> Ranges<'a> {
    /// The ranges as (first, last).
    pub fn iter(self) -> impl ExactSizeIterator<Item = (u64, u64)> + 'a {
        self.0.chunks_exact(16).map(|range| (le_u64(range, 0), le_u64(range, 8)))
    }
}

impl<'a> Settle<'a> {
    /// Reads a settle or settled frame.
    pub fn decode(flags: u8, payload: &'a [u8]) -> Result<Self, DataError> {
        use settle_flag::{ALL, CONFIRM, NOTE, VERB};
        let mut reader = Reader { frame: "settle", rest: payload };
        reader.check_flags(flags, ALL)?;
        let consumer = reader.u32("consumer")?;
        let note = if flags & NOTE != 0 { Some(reader.short_string("note")?) } else { None };
        let ranges = reader.rest;
        if ranges.is_empty() || !ranges.len().is_multiple_of(16) || ranges.len() / 16 > SETTLE_RANGES_MAX {
            return Err(reader.invalid("list of ranges", "1 to 4096 pairs of 8-byte tags"));
        }
        let ranges = Ranges(ranges);
        if ranges.iter().any(|(first, last)| first > last) {
            return Err(reader.invalid("range", "in rising order"));
        }
        let verb = match flags & VERB {
            0 => Verb::Ack,
            1 => Verb::Requeue,
            2 => Verb::Release,
            _ => Verb::Reject,
        };
        Ok(Self { consumer, verb, confirm: flags & CONFIRM != 0, note, ranges })
    }
}

/// What a client puts into a settle frame, and the broker into a settled frame.
#[derive(Debug, Clone, Copy)]
pub struct SettleParts<'a> {
    /// The consumer's number.
    pub consumer: u32,
    /// What becomes of the deliveries.
    pub verb: Verb,
    /// Whether the client wants a settled frame.
    pub confirm: bool,
    /// Why; at most [`NOTE_BYTES_MAX`] bytes.
    pub note: Option<&'a str>,
    /// The ranges; 1 to [`SETTLE_RANGES_MAX`].
    pub ranges: &'a [(u64, u64)],
}

impl SettleParts<'_> {
    /// Appends a frame of kind [`kind::SETTLE`] or [`kind::SETTLED`].
    pub fn encode(&self, frame_kind: u8, channel: u16, out: &mut BytesMut) {
        use settle_flag::{CONFIRM, NOTE};
        let flags = self.verb as u8 | flag(self.confirm, CONFIRM) | flag(self.note.is_some(), NOTE);
        let frame = FrameWriter::begin(out, frame_kind, flags, channel);
        frame.out.put_u32_le(self.consumer);
        if let Some(note) = self.note {
            put_short_string(frame.out, note);
        }
        for (first, last) in self.ranges {
            frame.out.put_u64_le(*first);
            frame.out.put_u64_le(*last);
        }
        frame.end();
    }
}

/// What became of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// This many queues have it (counted up to 65,535); in durable ones it is on disk if it is persistent.
    Routed(u16),
    /// No queue was bound for it; it is gone.
    Unroutable,
    /// It was not taken, for this reason. Queues that did take it keep it.
    Refused(ReplyCode),
}

/// What became of `count` publishes in a row, the first of which is number `first` on the channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confirm {
    /// The first publish's number.
    pub first: u64,
    /// How many.
    pub count: u32,
    /// What became of each of them.
    pub outcome: Outcome,
}

const CONFIRM_BYTES: usize = 16;

impl Confirm {
    /// Reads a confirm frame: one or more confirms of 16 bytes each.
    pub fn decode(payload: &[u8]) -> Result<impl Iterator<Item = Self> + '_, DataError> {
        let invalid = |field, expected| DataError::Invalid { frame: "confirm", field, expected };
        if payload.is_empty() || !payload.len().is_multiple_of(CONFIRM_BYTES) {
            return Err(invalid("length", "a multiple of 16"));
        }
        for entry in payload.chunks_exact(CONFIRM_BYTES) {
            let (first, count) = (le_u64(entry, 0), le_u32(entry, 8));
            // So that whoever walks the range need not think of 0 and of the end of the numbers.
            if first == 0 || count == 0 || first.checked_add(u64::from(count)).is_none() {
                return Err(invalid("range", "one of numbers from 1 up"));
            }
            if entry.get(12).is_none_or(|outcome| *outcome > 2) {
                return Err(invalid("outcome", "0, 1 or 2"));
            }
        }
        Ok(payload.chunks_exact(CONFIRM_BYTES).map(|entry| {
            let detail = le_u16(entry, 14);
            Self {
                first: le_u64(entry, 0),
                count: le_u32(entry, 8),
                outcome: match entry.get(12) {
                    Some(0) => Outcome::Routed(detail),
                    Some(1) => Outcome::Unroutable,
                    _ => Outcome::Refused(ReplyCode::from(detail)),
                },
            }
        }))
    }

    /// Appends a frame with these confirms; none for an empty list.
    pub fn encode(confirms: &[Self], channel: u16, out: &mut BytesMut) {
        if confirms.is_empty() {
            return;
        }
        let frame = FrameWriter::begin(out, kind::CONFIRM, 0, channel);
        for confirm in confirms {
            let (outcome, detail) = match confirm.outcome {
                Outcome::Routed(queues) => (0, queues),
                Outcome::Unroutable => (1, 0),
                Outcome::Refused(code) => (2, u16::from(code)),
            };
            frame.out.put_u64_le(confirm.first);
            frame.out.put_u32_le(confirm.count);
            frame.out.put_u8(outcome);
            frame.out.put_u8(0);
            frame.out.put_u16_le(detail);
        }
        frame.end();
    }
}

/// A mandatory message that no queue got, on its way back to its publisher. It comes before its confirm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Return<'a> {
    /// The publish's number on the channel.
    pub number: u64,
    /// Why it comes back.
    pub code: ReplyCode,
    /// The exchange that it was published to.
    pub exchange: &'a str,
    /// Its routing key.
    pub routing_key: &'a str,
    /// Its properties, as they were encoded.
    pub properties: &'a [u8],
    /// Its body.
    pub body: &'a [u8],
}

impl<'a> Return<'a> {
    /// Reads a return frame.
    pub fn decode(payload: &'a [u8]) -> Result<Self, DataError> {
        let mut reader = Reader { frame: "return", rest: payload };
        Ok(Self {
            number: reader.u64("number")?,
            code: ReplyCode::from(reader.u16("code")?),
            exchange: reader.short_string("exchange")?,
            routing_key: reader.short_string("routing key")?,
            properties: reader.blob("properties")?,
            body: reader.rest,
        })
    }

    /// Appends the frame.
    pub fn encode(&self, channel: u16, out: &mut BytesMut) {
        let frame = FrameWriter::begin(out, kind::RETURN, 0, channel);
        frame.out.put_u64_le(self.number);
        frame.out.put_u16_le(self.code.into());
        put_short_string(frame.out, self.exchange);
        put_short_string(frame.out, self.routing_key);
        put_blob(frame.out, self.properties);
        frame.out.put_slice(self.body);
        frame.end();
    }
}

/// Allows a consumer without acknowledgements this many more deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credit {
    /// The consumer's number.
    pub consumer: u32,
    /// How many more.
    pub messages: u32,
}

impl Credit {
    /// Reads a credit frame.
    pub fn decode(payload: &[u8]) -> Result<Self, DataError> {
        let mut reader = Reader { frame: "credit", rest: payload };
        let credit = Self { consumer: reader.u32("consumer")?, messages: reader.u32("number of messages")? };
        reader.finish()?;
        Ok(credit)
    }

    /// Appends the frame.
    pub fn encode(&self, channel: u16, out: &mut BytesMut) {
        let frame = FrameWriter::begin(out, kind::CREDIT, 0, channel);
        frame.out.put_u32_le(self.consumer);
        frame.out.put_u32_le(self.messages);
        frame.end();
    }
}

fn flag(set: bool, flag: u8) -> u8 {
    if set { flag } else { 0 }
}
