//! Which parts of the journal still hold messages that somebody needs.
//!
//! A message that was written keeps its place for as long as anybody has it: in a queue, with a consumer, on its way to
//! a dead-letter exchange. What lies before the first segment with a place can go, because every other record about a
//! message comes behind the message itself.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use leveret_journal::Position;
use parking_lot::Mutex;

/// Which segments of a journal are needed.
#[derive(Debug)]
pub struct Pins {
    segment_bytes: u64,
    /// Segments with places that somebody keeps, or that had some, in order. The count of an `Arc` is the number of
    /// these places, or parts with some, and one.
    segments: Mutex<VecDeque<Arc<Pinned>>>,
    /// What a message's record has beside its body: an average in which the latest count most, in 16ths of a byte.
    weight: AtomicU64,
}

/// What a record is taken for to have beside its body before any was seen, in bytes.
const WEIGHT_AT_FIRST: u64 = 128;

/// The positions of one segment.
#[derive(Debug)]
struct Pinned {
    start: u64,
    end: u64,
    /// What this is a part of, which it keeps.
    _whole: Option<Arc<Pinned>>,
}

/// Makes places of records that are written together. They share a count of their own, and it the segment's: all the
/// messages of a segment on one count would have every core wait for it.
#[derive(Debug, Default)]
pub(super) struct Pin(Option<Arc<Pinned>>);

impl Pin {
    /// The place of a record.
    pub(super) fn place(&mut self, pins: &Pins, position: Position) -> Place {
        if let Some(segment) = &self.0
            && (segment.start..segment.end).contains(&position.0)
        {
            return Place { position, segment: Arc::clone(segment) };
        }
        let whole = pins.pin(position).segment;
        let part = Arc::new(Pinned { start: whole.start, end: whole.end, _whole: Some(whole) });
        self.0 = Some(Arc::clone(&part));
        Place { position, segment: part }
    }
}

/// Where a record stands in the journal. It can be read there for as long as this place, or a clone of it, is kept.
#[derive(Debug, Clone)]
pub struct Place {
    position: Position,
    segment: Arc<Pinned>,
}

impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        self.position == other.position
    }
}

impl Place {
    /// The record's position.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The place of another record, if it is in the same segment.
    pub(super) fn neighbour(&self, position: Position) -> Option<Self> {
        self.is_neighbour(position).then(|| Self { position, segment: Arc::clone(&self.segment) })
    }

    /// Whether another record is in the same segment.
    pub(super) fn is_neighbour(&self, position: Position) -> bool {
        (self.segment.start..self.segment.end).contains(&position.0)
    }
}

impl Pins {
    /// For a journal with segments of this size, in bytes.
    pub fn new(segment_bytes: u64) -> Self {
        Self {
            segment_bytes: segment_bytes.max(1),
            segments: Mutex::default(),
            weight: AtomicU64::new(16 * WEIGHT_AT_FIRST),
        }
    }

    /// The place of a record. Positions come in rising order, but for writers that race for a moment.
    pub fn pin(&self, position: Position) -> Place {
        let start = position.0 - position.0 % self.segment_bytes;
        let mut segments = self.segments.lock();
        let at = segments.partition_point(|segment| segment.start < start);
        let segment = match segments.get(at) {
            Some(segment) if segment.start == start => Arc::clone(segment),
            _ => {
                let segment = Arc::new(Pinned { start, end: start + self.segment_bytes, _whole: None });
                segments.insert(at, Arc::clone(&segment));
                segment
            }
        };
        Place { position, segment }
    }

    /// A message's record has so many bytes beside its body.
    pub(super) fn weigh(&self, overhead: usize) {
        // Racing writers may lose a sample of each other, which makes no worse an average.
        let weight = self.weight.load(Ordering::Relaxed);
        self.weight.store(weight - weight / 16 + overhead as u64, Ordering::Relaxed);
    }

    /// What a message's record has beside its body, on average, in bytes.
    pub(super) fn weight(&self) -> u64 {
        self.weight.load(Ordering::Relaxed) / 16
    }

    /// The size of a segment, in bytes.
    pub(super) fn segment_bytes(&self) -> usize {
        self.segment_bytes as usize
    }

    /// Where the segment begins that a position is in.
    pub(super) fn start_of_segment(&self, position: Position) -> Position {
        Position(position.0 - position.0 % self.segment_bytes)
    }

    /// Forgets segments without places at the front, and gives the start of the first that has some. `None`: no message
    /// is needed any more.
    pub fn first(&self) -> Option<Position> {
        let mut segments = self.segments.lock();
        while segments.front().is_some_and(|segment| Arc::strong_count(segment) == 1) {
            segments.pop_front();
        }
        segments.front().map(|segment| Position(segment.start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_segment_with_a_pin_is_kept_with_all_behind_it() {
        let pins = Pins::new(100);
        let old = pins.pin(Position(110));
        let middle = pins.pin(Position(250));
        let late = pins.pin(Position(190));
        let newest = pins.pin(Position(310));
        assert_eq!(pins.first(), Some(Position(100)));
        drop(old);
        assert_eq!(pins.first(), Some(Position(100)), "one of two pins is left");
        drop(late);
        assert_eq!(pins.first(), Some(Position(200)));
        drop(newest);
        assert_eq!(pins.first(), Some(Position(200)), "what is behind stays, pinned or not");
        drop(middle);
        assert_eq!(pins.first(), None);
    }
}
