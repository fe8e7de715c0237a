//! Which parts of the journal still hold messages that somebody needs.
//!
//! A message that was written keeps a pin on its segment for as long as it is in memory anywhere: in a queue, with a
//! consumer, on its way to a dead-letter exchange. What lies before the first pinned segment can go, because every
//! other record about a message comes behind the message itself.

use std::collections::VecDeque;
use std::sync::Arc;

use leveret_journal::Position;
use parking_lot::Mutex;

/// The pins of a journal.
#[derive(Debug)]
pub struct Pins {
    segment_bytes: u64,
    /// Segments with pins, or that had some, in order. The count of an `Arc` is the number of pins, and one.
    segments: Mutex<VecDeque<(u64, Arc<()>)>>,
}

/// One message's pin. All pins are equal, so that messages compare by what they say.
#[derive(Debug, Clone, Default)]
pub struct Pin {
    _segment: Option<Arc<()>>,
}

impl PartialEq for Pin {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Pins {
    /// For a journal with segments of this size, in bytes.
    pub fn new(segment_bytes: u64) -> Self {
        Self { segment_bytes: segment_bytes.max(1), segments: Mutex::default() }
    }

    /// A pin on the segment of a record. Positions come in rising order, but for writers that race for a moment.
    pub fn pin(&self, position: Position) -> Pin {
        let number = position.0 / self.segment_bytes;
        let mut segments = self.segments.lock();
        let at = segments.partition_point(|(known, _)| *known < number);
        if segments.get(at).is_none_or(|(known, _)| *known != number) {
            segments.insert(at, (number, Arc::default()));
        }
        Pin { _segment: segments.get(at).map(|(_, pins)| Arc::clone(pins)) }
    }

    /// Forgets segments without pins at the front, and gives the start of the first that has some. `None`: no message
    /// is needed any more.
    pub fn first(&self) -> Option<Position> {
        let mut segments = self.segments.lock();
        while segments.front().is_some_and(|(_, pins)| Arc::strong_count(pins) == 1) {
            segments.pop_front();
        }
        segments.front().map(|(number, _)| Position(number * self.segment_bytes))
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
