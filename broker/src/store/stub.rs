//! What is kept in memory of a message that is only in the journal; and many of that, packed.
//!
//! A long backlog is made of these. Packed, a message takes six to eight bytes, so that ten million waiting messages take
//! less than a hundred megabytes, whatever the size of their bodies.

use smallvec::SmallVec;

use super::record::{put_varint, take_varint};
use super::{Place, Seq};
use leveret_journal::Position;

/// How many stubs are packed together: enough that the pack's own size does not count, and few enough to unpack at once. (In tests so few that random operations make packs.)
pub const STUBS_PER_PACK: usize = if cfg!(test) { 3 } else { 1024 };

/// A message in a queue, without the message: it is in the journal, and stays there as long as its place is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Stub {
    /// Its place in the queue.
    pub seq: Seq,
    /// Where it is.
    pub place: Place,
    /// The length of its body, in bytes.
    pub body_bytes: u32,
    /// Its priority.
    pub priority: u8,
    /// When the queue took it, in milliseconds since 1970; 0 if `deadline_ms` accounts for that.
    pub arrived_ms: u64,
    /// When it expires, in milliseconds since 1970; `u64::MAX` if it does not.
    pub deadline_ms: u64,
    /// How many of its deliveries failed.
    pub failed: u32,
    /// Whether anybody may have seen it.
    pub redelivered: bool,
}

/// Stubs in the order of their seqs, packed.
#[derive(Debug)]
pub struct Pack {
    packed: Box<[u8]>,
    /// A place in each segment in which the messages are, which keeps it.
    segments: SmallVec<[Place; 1]>,
    count: u32,
    body_bytes: u64,
    first: Seq,
    last: Seq,
    first_deadline_ms: u64,
}

/// A message that is only in the journal, or many that follow each other.
#[derive(Debug)]
pub enum Stubs {
    /// One.
    One(Stub),
    /// Many.
    Pack(Pack),
}

/// What most stubs do not have.
mod flag {
    pub(super) const REDELIVERED: u8 = 1;
    pub(super) const FAILED: u8 = 2;
    pub(super) const PRIORITY: u8 = 4;
    pub(super) const DEADLINE: u8 = 8;
    pub(super) const ARRIVED: u8 = 16;
    /// It arrived together with the one before.
    pub(super) const TOGETHER: u8 = 32;
}

/// What most stubs take, packed.
const USUAL_BYTES: usize = 8;

/// What differs little from one stub to the next, so that the difference is what is packed.
#[derive(Debug, Clone, Copy, Default)]
struct Before {
    seq: u64,
    position: u64,
    deadline_ms: u64,
    arrived_ms: u64,
}

impl Pack {
    /// Packs stubs, whose seqs rise. `None` if there are none.
    pub fn new<'a>(stubs: impl IntoIterator<Item = &'a Stub>) -> Option<Self> {
        let mut stubs = stubs.into_iter().peekable();
        let first = *stubs.peek()?;
        let (first, first_deadline_ms) = (first.seq, first.deadline_ms);
        let mut packed = Vec::with_capacity(STUBS_PER_PACK * USUAL_BYTES);
        let mut segments: SmallVec<[Place; 1]> = SmallVec::new();
        let mut before = Before::default();
        let (mut count, mut body_bytes) = (0, 0);
        for stub in stubs {
            count += 1;
            body_bytes += u64::from(stub.body_bytes);
            if !segments.iter().rev().any(|place| place.is_neighbour(stub.place.position())) {
                segments.push(stub.place.clone());
            }
            before = pack(stub, before, &mut packed);
        }
        let last = Seq(before.seq);
        let packed = packed.into_boxed_slice();
        Some(Self { packed, segments, count, body_bytes, first, last, first_deadline_ms })
    }

    /// How many there are; at least one.
    pub fn count(&self) -> u64 {
        u64::from(self.count)
    }

    /// The bytes of all their bodies.
    pub fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    /// The first of their seqs.
    pub fn first(&self) -> Seq {
        self.first
    }

    /// The last of their seqs.
    pub fn last(&self) -> Seq {
        self.last
    }

    /// Whether one of them is before a position, which is a segment's beginning.
    pub fn reaches_before(&self, position: Position) -> bool {
        self.segments.iter().any(|place| place.position() < position)
    }

    /// When the first of them expires.
    pub fn first_deadline_ms(&self) -> u64 {
        self.first_deadline_ms
    }

    /// The stubs, in order.
    pub fn stubs(&self) -> impl Iterator<Item = Stub> + '_ {
        let mut rest = &*self.packed;
        let mut before = Before::default();
        // What was packed here can be unpacked; were that not so, the stubs would end early instead of being made up.
        std::iter::from_fn(move || unpack(&mut rest, &mut before, &self.segments))
    }
}

impl Stubs {
    /// The place in the queue of the first of them.
    pub fn first(&self) -> Seq {
        match self {
            Self::One(stub) => stub.seq,
            Self::Pack(pack) => pack.first(),
        }
    }

    /// The place in the queue of the last of them.
    pub fn last(&self) -> Seq {
        match self {
            Self::One(stub) => stub.seq,
            Self::Pack(pack) => pack.last(),
        }
    }
}

impl IntoIterator for Stubs {
    type Item = Stub;
    type IntoIter = std::iter::Chain<std::option::IntoIter<Stub>, std::vec::IntoIter<Stub>>;

    fn into_iter(self) -> Self::IntoIter {
        let (one, many) = match self {
            Self::One(stub) => (Some(stub), Vec::new()),
            Self::Pack(pack) => (None, pack.stubs().collect()),
        };
        one.into_iter().chain(many)
    }
}

fn pack(stub: &Stub, before: Before, out: &mut Vec<u8>) -> Before {
    let now = Before { seq: stub.seq.0, position: stub.place.position().0, ..before };
    let has = |condition, flag| if condition { flag } else { 0 };
    let flags = has(stub.redelivered, flag::REDELIVERED)
        | has(stub.failed > 0, flag::FAILED)
        | has(stub.priority > 0, flag::PRIORITY)
        | has(stub.deadline_ms != u64::MAX, flag::DEADLINE)
        | match stub.arrived_ms {
            0 => 0,
            arrived_ms if arrived_ms == before.arrived_ms => flag::TOGETHER,
            _ => flag::ARRIVED,
        };
    out.push(flags);
    put_varint(out, now.seq.wrapping_sub(before.seq));
    put_varint(out, zigzag(now.position, before.position));
    put_varint(out, u64::from(stub.body_bytes));
    if flags & flag::FAILED != 0 {
        put_varint(out, u64::from(stub.failed));
    }
    if flags & flag::PRIORITY != 0 {
        out.push(stub.priority);
    }
    let mut now = now;
    if flags & flag::DEADLINE != 0 {
        put_varint(out, zigzag(stub.deadline_ms, before.deadline_ms));
        now.deadline_ms = stub.deadline_ms;
    }
    if flags & flag::ARRIVED != 0 {
        put_varint(out, zigzag(stub.arrived_ms, before.arrived_ms));
        now.arrived_ms = stub.arrived_ms;
    }
    now
}

fn unpack(rest: &mut &[u8], before: &mut Before, segments: &[Place]) -> Option<Stub> {
    let flags = take_byte(rest)?;
    before.seq = before.seq.wrapping_add(take_varint(rest)?);
    before.position = unzigzag(take_varint(rest)?, before.position);
    let body_bytes = take_varint(rest)? as u32;
    let failed = if flags & flag::FAILED != 0 { take_varint(rest)? as u32 } else { 0 };
    let priority = if flags & flag::PRIORITY != 0 { take_byte(rest)? } else { 0 };
    if flags & flag::DEADLINE != 0 {
        before.deadline_ms = unzigzag(take_varint(rest)?, before.deadline_ms);
    }
    if flags & flag::ARRIVED != 0 {
        before.arrived_ms = unzigzag(take_varint(rest)?, before.arrived_ms);
    }
    let position = Position(before.position);
    Some(Stub {
        seq: Seq(before.seq),
        place: segments.iter().find_map(|place| place.neighbour(position))?,
        body_bytes,
        priority,
        arrived_ms: if flags & (flag::ARRIVED | flag::TOGETHER) != 0 { before.arrived_ms } else { 0 },
        deadline_ms: if flags & flag::DEADLINE != 0 { before.deadline_ms } else { u64::MAX },
        failed,
        redelivered: flags & flag::REDELIVERED != 0,
    })
}

fn take_byte(rest: &mut &[u8]) -> Option<u8> {
    let (first, behind) = rest.split_first()?;
    *rest = behind;
    Some(*first)
}

/// The difference of two numbers that are near each other as a small number, whichever is larger.
fn zigzag(now: u64, before: u64) -> u64 {
    let difference = now.wrapping_sub(before).cast_signed();
    ((difference << 1) ^ (difference >> 63)).cast_unsigned()
}

fn unzigzag(difference: u64, before: u64) -> u64 {
    before.wrapping_add((difference >> 1) ^ (difference & 1).wrapping_neg())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Pins;
    use proptest::prelude::*;

    fn stub(pins: &Pins, seq: u64) -> impl Strategy<Value = Stub> + use<> {
        let place = (0u64..1 << 20).prop_map({
            let places: Vec<Place> = (0..16).map(|segment| pins.pin(Position(segment << 16))).collect();
            move |position| places.iter().find_map(|place| place.neighbour(Position(position))).unwrap()
        });
        (place, any::<u32>(), 0u8..3, any::<(u64, u64)>(), any::<(bool, bool)>(), 0u32..3, any::<bool>())
            .prop_map(
                move |(
                    place,
                    body_bytes,
                    priority,
                    (arrived, deadline),
                    (arrives, expires),
                    failed,
                    redelivered,
                )| Stub {
                    seq: Seq(seq),
                    place,
                    body_bytes,
                    priority,
                    arrived_ms: if arrives { arrived } else { 0 },
                    deadline_ms: if expires { deadline } else { u64::MAX },
                    failed,
                    redelivered,
                },
            )
    }

    fn stubs() -> impl Strategy<Value = Vec<Stub>> {
        proptest::collection::btree_set(any::<u64>(), 0..50).prop_flat_map(|seqs| {
            let pins = Pins::new(1 << 16);
            seqs.iter().map(|seq| stub(&pins, *seq)).collect::<Vec<_>>()
        })
    }

    proptest! {
        #[test]
        fn stubs_come_out_of_a_pack_as_they_went_in(stubs in stubs()) {
            let Some(pack) = Pack::new(&stubs) else {
                prop_assert!(stubs.is_empty());
                return Ok(());
            };
            prop_assert_eq!(pack.count(), stubs.len() as u64);
            prop_assert_eq!(pack.body_bytes(), stubs.iter().map(|stub| u64::from(stub.body_bytes)).sum::<u64>());
            prop_assert_eq!((pack.first(), pack.last()), (stubs[0].seq, stubs[stubs.len() - 1].seq));
            prop_assert_eq!(pack.first_deadline_ms(), stubs[0].deadline_ms);
            prop_assert_eq!(pack.stubs().collect::<Vec<_>>(), stubs);
        }
    }

    #[test]
    fn a_message_of_a_plain_backlog_takes_at_most_eight_bytes() {
        let pins = Pins::new(1 << 26);
        let stub = |seq: u64| Stub {
            seq: Seq(seq),
            place: pins.pin(Position(1_000_000 + seq * 344)),
            body_bytes: 256,
            priority: 0,
            arrived_ms: 1_700_000_000_000 + seq / 100,
            deadline_ms: u64::MAX,
            failed: 0,
            redelivered: false,
        };
        let pack = Pack::new(&(0..1024).map(stub).collect::<Vec<_>>()).unwrap();
        assert!(pack.packed.len() + size_of::<Pack>() <= 8 * 1024, "{}", pack.packed.len());
    }

    #[test]
    fn a_pack_keeps_the_segments_that_its_messages_are_in() {
        let pins = Pins::new(100);
        let stub = |seq, position| Stub {
            seq: Seq(seq),
            place: pins.pin(Position(position)),
            body_bytes: 0,
            priority: 0,
            arrived_ms: 0,
            deadline_ms: u64::MAX,
            failed: 0,
            redelivered: false,
        };
        let pack = Pack::new(&[stub(0, 310), stub(1, 120)]).unwrap();
        assert_eq!(pins.first(), Some(Position(100)));
        drop(pack);
        assert_eq!(pins.first(), None);
    }
}
