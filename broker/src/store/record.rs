//! What the broker writes into the journal: nine kinds of records, with their layouts side by side.
//!
//! Integers are little-endian; a *varint* is LEB128, at most ten bytes. Names are short strings: one length byte,
//! then UTF-8. There is no serde here (but for the death history and definitions, which are MessagePack with named
//! fields), so that what is on disk does not change with a refactoring.
//!
//! | kind | record | payload |
//! |---|---|---|
//! | 1 | message | flags u8, priority u8, cc u8, bcc u8, queues u32, published_at_ms u64, ttl_ms u64, exchange, routing key, cc..., bcc..., deaths u32 + bytes, properties u32 + bytes, body |
//! | 2 | enqueue | queue u64, first seq u64, at_ms u64, then one varint for each message: its position minus the one before |
//! | 3 | gone | queue u64, then pairs of varints: gap from the end of the range before, length of the range |
//! | 4 | returned | queue u64, then pairs of varints: seq minus the one before, failed deliveries |
//! | 5 | definition | see `topology/definitions.rs` |
//! | 6 | declined | one varint for each message: its position minus the one before |
//! | 7 | horizon | queue u64, next seq u64, then for each priority, lowest first, two varints: seqs below the first count as delivered, those below the sum of both may be |
//! | 8 | interrupted | nothing |
//! | 9 | moved | queue u64, seq u64, arrived_ms u64, failed u32, redelivered u8, then a message as of kind 1 |
//!
//! A message's flags: bit 0, whether it has a time to live; bit 2, whether it is transient (it is here only because
//! memory was short); bits 4 to 7, the number of its properties' format (0 in records from before there were several).
//! Kind 0 is the journal's own, for what was lost to damage (`leveret_journal::LOST`).

use std::sync::Arc;

use leveret_journal::Position;
use leveret_protocol::{DeathHistory, ExchangeName, PropertiesFormat, RoutingKey};

use super::message::{Head, Message, Names, Rare};
use super::{QueueId, Reach, Seq};

/// The kinds of records.
pub mod kind {
    /// A message with its body, once for however many queues.
    pub const MESSAGE: u8 = 1;
    /// A queue took messages.
    pub const ENQUEUE: u8 = 2;
    /// Messages left a queue for good.
    pub const GONE: u8 = 3;
    /// Messages came back to a queue after a delivery.
    pub const RETURNED: u8 = 4;
    /// A vhost, exchange, queue or binding was made or removed.
    pub const DEFINITION: u8 = 5;
    /// A queue that a message was written for did not take it.
    pub const DECLINED: u8 = 6;
    /// How far a queue may deliver.
    pub const HORIZON: u8 = 7;
    /// The broker had ended without an orderly stop: what may have been delivered before counts as delivered.
    pub const INTERRUPTED: u8 = 8;
    /// A message that stood further in front, with all that its queue knows of it: takes the place of every earlier
    /// record about it.
    pub const MOVED: u8 = 9;
}

/// A record whose checksum is right and whose content is not: a defect or a newer version's record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a {record} record whose {field} cannot be read")]
pub struct RecordError {
    record: &'static str,
    field: &'static str,
}

impl RecordError {
    pub(super) fn unknown_kind() -> Self {
        Self { record: "journal", field: "kind" }
    }

    /// An enqueue refers to a message that the journal should have and has not.
    pub(super) fn dangling() -> Self {
        Self { record: "enqueue", field: "message" }
    }
}

const FLAG_TTL: u8 = 1;
/// The message is only here because memory was short, and is forgotten at a restart.
const FLAG_TRANSIENT: u8 = 4;
/// How far a properties format is shifted in a message's flags.
const FORMAT_SHIFT: u32 = 4;

/// Appends a message's record to `out`, without its properties and body; these follow as they are.
///
/// The parts are written apart so that a body is copied once, into the journal. `queues` says how many queues will
/// each either take or decline the message, so that a replay knows when the last one is done with it.
pub(super) fn encode_message_head(message: &Message, queues: u32, out: &mut Vec<u8>) {
    let ttl = if message.ttl_ms.is_some() { FLAG_TTL } else { 0 };
    let transient = if message.persistent { 0 } else { FLAG_TRANSIENT };
    out.push(ttl | transient | (message.properties_format as u8) << FORMAT_SHIFT);
    out.push(message.priority);
    let (cc, bcc) = (message.cc(), message.bcc());
    out.push(cc.len() as u8);
    out.push(bcc.len() as u8);
    out.extend_from_slice(&queues.to_le_bytes());
    out.extend_from_slice(&message.published_at_ms.to_le_bytes());
    out.extend_from_slice(&message.ttl_ms.unwrap_or(0).to_le_bytes());
    put_name(out, message.exchange().as_str());
    put_name(out, message.routing_key().as_str());
    cc.iter().chain(bcc).for_each(|key| put_name(out, key.as_str()));
    // A history holds validated names and numbers only, which MessagePack can always carry.
    let deaths = message.deaths().and_then(|deaths| rmp_serde::to_vec_named(deaths).ok());
    let deaths = deaths.unwrap_or_default();
    out.extend_from_slice(&(deaths.len() as u32).to_le_bytes());
    out.extend_from_slice(&deaths);
    out.extend_from_slice(&(message.properties().len() as u32).to_le_bytes());
}

/// What a queue knows of a message whose record is moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moved {
    /// The queue.
    pub queue: QueueId,
    /// The message's place in it.
    pub seq: Seq,
    /// When the queue took it, in milliseconds since 1970, as far as its times to live depend on that.
    pub arrived_ms: u64,
    /// How many of its deliveries failed.
    pub failed: u32,
    /// Whether anybody may have seen it.
    pub redelivered: bool,
}

/// What a moved record has before its message, in bytes.
pub(super) const MOVED_BYTES: usize = 29;

pub(super) fn encode_moved(moved: &Moved, out: &mut Vec<u8>) {
    out.extend_from_slice(&moved.queue.0.to_le_bytes());
    out.extend_from_slice(&moved.seq.0.to_le_bytes());
    out.extend_from_slice(&moved.arrived_ms.to_le_bytes());
    out.extend_from_slice(&moved.failed.to_le_bytes());
    out.push(u8::from(moved.redelivered));
}

/// Reads a moved record: what the queue knows, and the message's own record.
pub(super) fn decode_moved(payload: &[u8]) -> Result<(Moved, &[u8]), RecordError> {
    let mut reader = Reader { record: "moved", rest: payload };
    let moved = Moved {
        queue: QueueId(reader.u64("queue")?),
        seq: Seq(reader.u64("seq")?),
        arrived_ms: reader.u64("time")?,
        failed: reader.array("failures").map(u32::from_le_bytes)?,
        redelivered: reader.u8("flag")? != 0,
    };
    Ok((moved, reader.rest))
}

/// The message's own record in a record that has one.
pub(super) fn message_in(kind: u8, payload: &[u8]) -> Result<&[u8], RecordError> {
    match kind {
        kind::MESSAGE => Ok(payload),
        kind::MOVED => decode_moved(payload).map(|(_, message)| message),
        _ => Err(RecordError::unknown_kind()),
    }
}

/// Whether a message is to survive a restart, by its own record.
pub(super) fn is_persistent(message: &[u8]) -> bool {
    message.first().is_some_and(|flags| flags & FLAG_TRANSIENT == 0)
}

/// Appends a message's own record, for no queue: a replay passes it over.
pub(super) fn encode_forgettable(message: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(message);
    if let Some(queues) = out.get_mut(start + QUEUES_AT..start + QUEUES_AT + 4) {
        queues.fill(0);
    }
}

/// Where a message's record says how many queues it is for.
const QUEUES_AT: usize = 4;

/// What a replay needs to know of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MessageHead {
    pub(super) persistent: bool,
    pub(super) priority: u8,
    /// How many queues will each take or decline it.
    pub(super) queues: u32,
    pub(super) published_at_ms: u64,
    pub(super) ttl_ms: Option<u64>,
    pub(super) properties_format: PropertiesFormat,
    pub(super) body_bytes: u32,
}

/// Reads what a replay needs of a message record, without its names and properties.
pub(super) fn decode_message_head(payload: &[u8]) -> Result<MessageHead, RecordError> {
    let mut reader = Reader { record: "message", rest: payload };
    let (head, cc, bcc) = reader.message_head()?;
    for _ in 0..usize::from(cc) + usize::from(bcc) + 2 {
        let length = reader.u8("name")?;
        reader.take(usize::from(length), "name")?;
    }
    reader.blob("death history")?;
    reader.blob("properties")?;
    Ok(MessageHead { body_bytes: reader.rest.len() as u32, ..head })
}

/// Reads a message record, all but its place.
pub(super) fn decode_message(payload: &[u8]) -> Result<Message, RecordError> {
    let mut reader = Reader { record: "message", rest: payload };
    let (head, cc, bcc) = reader.message_head()?;
    let exchange = ExchangeName::new(reader.name("exchange")?).map_err(|_| reader.error("exchange"))?;
    let routing_key =
        RoutingKey::new(reader.name("routing key")?).map_err(|_| reader.error("routing key"))?;
    let cc = reader.keys(cc)?;
    let bcc = reader.keys(bcc)?;
    let deaths = reader.blob("death history")?;
    let deaths: Option<DeathHistory> = match deaths {
        [] => None,
        deaths => Some(rmp_serde::from_slice(deaths).map_err(|_| reader.error("death history"))?),
    };
    let properties = reader.blob("properties")?.len();
    let content = payload.get(payload.len() - reader.rest.len() - properties..).unwrap_or(&[]);
    let head = Head {
        names: Arc::new(Names { exchange, routing_key }),
        rare: Rare { cc, bcc, deaths }.unless_empty(),
        persistent: head.persistent,
        priority: head.priority,
        ttl_ms: head.ttl_ms,
        published_at_ms: head.published_at_ms,
        properties_format: head.properties_format,
        properties_bytes: properties as u32,
        place: None,
    };
    Ok(Message::new(head, content))
}

/// What a queue took: messages with consecutive seqs, by the positions of their records.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Enqueue {
    pub(super) queue: QueueId,
    pub(super) first: Seq,
    pub(super) at_ms: u64,
    pub(super) positions: Vec<Position>,
}

pub(super) fn encode_enqueue(
    queue: QueueId,
    first: Seq,
    at_ms: u64,
    positions: &[Position],
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(&queue.0.to_le_bytes());
    out.extend_from_slice(&first.0.to_le_bytes());
    out.extend_from_slice(&at_ms.to_le_bytes());
    put_positions(positions, out);
}

pub(super) fn decode_enqueue(payload: &[u8]) -> Result<Enqueue, RecordError> {
    let mut reader = Reader { record: "enqueue", rest: payload };
    let queue = QueueId(reader.u64("queue")?);
    let first = Seq(reader.u64("first seq")?);
    let at_ms = reader.u64("time")?;
    Ok(Enqueue { queue, first, at_ms, positions: reader.positions()? })
}

pub(super) fn encode_declined(positions: &[Position], out: &mut Vec<u8>) {
    put_positions(positions, out);
}

pub(super) fn decode_declined(payload: &[u8]) -> Result<Vec<Position>, RecordError> {
    Reader { record: "declined", rest: payload }.positions()
}

/// Appends the ranges that `seqs` form; sorts them first.
pub(super) fn encode_gone(queue: QueueId, seqs: &mut [Seq], out: &mut Vec<u8>) {
    out.extend_from_slice(&queue.0.to_le_bytes());
    seqs.sort_unstable();
    let mut end = 0;
    for range in seqs.chunk_by(|a, b| a.0 + 1 == b.0) {
        if let [first, ..] = range {
            put_varint(out, first.0 - end);
            put_varint(out, range.len() as u64);
            end = first.0 + range.len() as u64;
        }
    }
}

/// Reads which ranges of seqs are gone: (first, one behind the last).
pub(super) fn decode_gone(payload: &[u8]) -> Result<(QueueId, Vec<(Seq, Seq)>), RecordError> {
    let mut reader = Reader { record: "gone", rest: payload };
    let queue = QueueId(reader.u64("queue")?);
    let mut ranges = Vec::new();
    let mut end: u64 = 0;
    while !reader.rest.is_empty() {
        let first = end.checked_add(reader.varint("gap")?).ok_or_else(|| reader.error("gap"))?;
        end = first.checked_add(reader.varint("length")?).ok_or_else(|| reader.error("length"))?;
        ranges.push((Seq(first), Seq(end)));
    }
    Ok((queue, ranges))
}

pub(super) fn encode_returned(queue: QueueId, returned: &mut [(Seq, u32)], out: &mut Vec<u8>) {
    out.extend_from_slice(&queue.0.to_le_bytes());
    returned.sort_unstable();
    let mut before = 0;
    for (seq, count) in returned {
        put_varint(out, seq.0 - before);
        put_varint(out, u64::from(*count));
        before = seq.0;
    }
}

pub(super) fn decode_returned(payload: &[u8]) -> Result<(QueueId, Vec<(Seq, u32)>), RecordError> {
    let mut reader = Reader { record: "returned", rest: payload };
    let queue = QueueId(reader.u64("queue")?);
    let mut returned = Vec::new();
    let mut before: u64 = 0;
    while !reader.rest.is_empty() {
        before = before.checked_add(reader.varint("seq")?).ok_or_else(|| reader.error("seq"))?;
        let count = reader.varint("count")?;
        returned.push((Seq(before), u32::try_from(count).unwrap_or(u32::MAX)));
    }
    Ok((queue, returned))
}

pub(super) fn encode_horizon(queue: QueueId, next: Seq, reach: &[Reach], out: &mut Vec<u8>) {
    out.extend_from_slice(&queue.0.to_le_bytes());
    out.extend_from_slice(&next.0.to_le_bytes());
    for Reach { below, delivered } in reach {
        put_varint(out, delivered.0);
        put_varint(out, below.0.saturating_sub(delivered.0));
    }
}

/// Reads how far a queue may deliver: the queue, its next seq, and the reach of each of its priorities.
pub(super) fn decode_horizon(payload: &[u8]) -> Result<(QueueId, Seq, Vec<Reach>), RecordError> {
    let mut reader = Reader { record: "horizon", rest: payload };
    let queue = QueueId(reader.u64("queue")?);
    let next = Seq(reader.u64("next seq")?);
    let mut reach = Vec::new();
    while !reader.rest.is_empty() {
        let delivered = reader.varint("seq")?;
        let below =
            delivered.checked_add(reader.varint("distance")?).ok_or_else(|| reader.error("distance"))?;
        reach.push(Reach { below: Seq(below), delivered: Seq(delivered) });
    }
    Ok((queue, next, reach))
}

fn put_positions(positions: &[Position], out: &mut Vec<u8>) {
    let mut before = 0;
    for position in positions {
        // Wrapping, since two publishers may have staged in one order and reached the queue in the other.
        put_varint(out, position.0.wrapping_sub(before));
        before = position.0;
    }
}

fn put_name(out: &mut Vec<u8>, name: &str) {
    // Names have at most 255 bytes: see `leveret_protocol::check_name`.
    out.push(name.len() as u8);
    out.extend_from_slice(name.as_bytes());
}

pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value: u64 = 0;
    for shift in (0..64).step_by(7) {
        let (byte, behind) = rest.split_first()?;
        *rest = behind;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

struct Reader<'a> {
    record: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// The fixed part of a message record, and how many CC and BCC keys follow it.
    fn message_head(&mut self) -> Result<(MessageHead, u8, u8), RecordError> {
        let flags = self.u8("flags")?;
        let properties_format = PropertiesFormat::from_byte(flags >> FORMAT_SHIFT)
            .ok_or_else(|| self.error("properties format"))?;
        let priority = self.u8("priority")?;
        let cc = self.u8("number of CC keys")?;
        let bcc = self.u8("number of BCC keys")?;
        let queues = self.array("number of queues").map(u32::from_le_bytes)?;
        let published_at_ms = self.u64("time")?;
        let ttl_ms = self.u64("time to live")?;
        let ttl_ms = (flags & FLAG_TTL != 0).then_some(ttl_ms);
        let persistent = flags & FLAG_TRANSIENT == 0;
        let body_bytes = 0;
        let head = MessageHead {
            persistent,
            priority,
            queues,
            published_at_ms,
            ttl_ms,
            properties_format,
            body_bytes,
        };
        Ok((head, cc, bcc))
    }

    fn error(&self, field: &'static str) -> RecordError {
        RecordError { record: self.record, field }
    }

    fn take(&mut self, length: usize, field: &'static str) -> Result<&'a [u8], RecordError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or_else(|| self.error(field))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], RecordError> {
        let (array, rest) = self.rest.split_first_chunk().ok_or_else(|| self.error(field))?;
        self.rest = rest;
        Ok(*array)
    }

    fn u8(&mut self, field: &'static str) -> Result<u8, RecordError> {
        self.array(field).map(|[byte]| byte)
    }

    fn u64(&mut self, field: &'static str) -> Result<u64, RecordError> {
        self.array(field).map(u64::from_le_bytes)
    }

    fn name(&mut self, field: &'static str) -> Result<&'a str, RecordError> {
        let length = self.u8(field)?;
        let bytes = self.take(usize::from(length), field)?;
        std::str::from_utf8(bytes).map_err(|_| self.error(field))
    }

    fn blob(&mut self, field: &'static str) -> Result<&'a [u8], RecordError> {
        let length = self.array(field).map(u32::from_le_bytes)?;
        self.take(length as usize, field)
    }

    fn keys(&mut self, count: u8) -> Result<Vec<RoutingKey>, RecordError> {
        let mut keys = Vec::with_capacity(usize::from(count));
        for _ in 0..count {
            keys.push(RoutingKey::new(self.name("further key")?).map_err(|_| self.error("further key"))?);
        }
        Ok(keys)
    }

    fn positions(&mut self) -> Result<Vec<Position>, RecordError> {
        let mut positions = Vec::new();
        let mut before: u64 = 0;
        while !self.rest.is_empty() {
            before = before.wrapping_add(self.varint("position")?);
            positions.push(Position(before));
        }
        Ok(positions)
    }

    fn varint(&mut self, field: &'static str) -> Result<u64, RecordError> {
        take_varint(&mut self.rest).ok_or_else(|| self.error(field))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(message: &Message) -> Vec<u8> {
        let mut out = Vec::new();
        encode_message_head(message, 3, &mut out);
        out.extend_from_slice(message.content());
        out
    }

    proptest! {
        #[test]
        fn messages_come_back_as_they_were(
            key in "[a-z.]{0,40}",
            cc in proptest::collection::vec("[a-z.]{0,9}", 0..4),
            bcc in proptest::collection::vec("[a-z.]{0,9}", 0..4),
            persistent: bool,
            priority: u8,
            ttl_ms: Option<u64>,
            published_at_ms: u64,
            amqp: bool,
            properties: Vec<u8>,
            body: Vec<u8>,
        ) {
            let keys = |keys: Vec<String>| keys.iter().map(|key| RoutingKey::new(key).unwrap()).collect();
            let message = Head {
                names: Arc::new(Names { routing_key: RoutingKey::new(key).unwrap(), ..Names::default() }),
                rare: Rare { cc: keys(cc), bcc: keys(bcc), deaths: None }.unless_empty(),
                persistent,
                priority,
                ttl_ms,
                published_at_ms,
                properties_format: if amqp { PropertiesFormat::Amqp } else { PropertiesFormat::Native },
                properties_bytes: properties.len() as u32,
                place: None,
            };
            let message = Message::new(message, &[properties, body].concat());
            let head = MessageHead {
                persistent,
                priority,
                queues: 3,
                published_at_ms,
                ttl_ms,
                properties_format: message.properties_format,
                body_bytes: message.body().len() as u32,
            };
            prop_assert_eq!(decode_message_head(&encoded(&message)), Ok(head));
            prop_assert_eq!(decode_message(&encoded(&message)), Ok(message));
        }

        #[test]
        fn a_properties_format_of_a_later_version_is_refused(format in 2u8..16) {
            let mut record = encoded(&Message::default());
            record[0] |= format << FORMAT_SHIFT;
            prop_assert!(decode_message(&record).is_err());
        }

        #[test]
        fn seqs_come_back_as_ranges(seqs in proptest::collection::btree_set(any::<u32>(), 0..200)) {
            let mut given: Vec<Seq> = seqs.iter().rev().map(|seq| Seq(u64::from(*seq))).collect();
            let mut out = Vec::new();
            encode_gone(QueueId(7), &mut given, &mut out);
            let (queue, ranges) = decode_gone(&out).unwrap();
            let found: Vec<u64> = ranges.iter().flat_map(|(first, end)| first.0..end.0).collect();
            prop_assert_eq!(queue, QueueId(7));
            prop_assert_eq!(found, seqs.iter().map(|seq| u64::from(*seq)).collect::<Vec<_>>());
        }

        #[test]
        fn enqueues_and_returns_come_back(positions: Vec<u64>, returned in proptest::collection::btree_map(any::<u64>(), any::<u32>(), 0..50)) {
            let positions: Vec<Position> = positions.into_iter().map(Position).collect();
            let mut out = Vec::new();
            encode_enqueue(QueueId(1), Seq(9), 5, &positions, &mut out);
            prop_assert_eq!(decode_enqueue(&out), Ok(Enqueue { queue: QueueId(1), first: Seq(9), at_ms: 5, positions }));
            let mut given: Vec<(Seq, u32)> = returned.iter().map(|(seq, count)| (Seq(*seq), *count)).collect();
            let expected = given.clone();
            let mut out = Vec::new();
            encode_returned(QueueId(1), &mut given, &mut out);
            prop_assert_eq!(decode_returned(&out), Ok((QueueId(1), expected)));
        }

        #[test]
        fn horizons_come_back(next: u64, reach_of: Vec<(u32, u64)>) {
            let reach = |(distance, delivered): (u32, u64)| {
                let delivered = delivered / 2;
                Reach { below: Seq(delivered + u64::from(distance)), delivered: Seq(delivered) }
            };
            let reach: Vec<Reach> = reach_of.into_iter().map(reach).collect();
            let mut out = Vec::new();
            encode_horizon(QueueId(3), Seq(next), &reach, &mut out);
            prop_assert_eq!(decode_horizon(&out), Ok((QueueId(3), Seq(next), reach)));
        }

        #[test]
        fn bytes_of_no_record_are_refused_and_never_panic(bytes: Vec<u8>) {
            let _ = decode_message(&bytes);
            let _ = decode_message_head(&bytes);
            let _ = decode_enqueue(&bytes);
            let _ = decode_gone(&bytes);
            let _ = decode_returned(&bytes);
            let _ = decode_declined(&bytes);
            let _ = decode_horizon(&bytes);
            let _ = decode_moved(&bytes);
        }
    }
}
