//! Publishes, encoded once.

use super::{Head, Lane};
use crate::workload::HEAD_BYTES;

/// How much is written at once.
const WRITE_BYTES: usize = 128 * 1024;
/// How much is encoded ahead, so that a write seldom ends at the end of the ring.
const RING_BYTES: usize = 512 * 1024;

/// An encoded publish.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    pub(crate) bytes: Vec<u8>,
    /// Where the body begins.
    pub(crate) body_at: usize,
}

/// A ring of encoded publishes, in the order in which they are sent.
#[derive(Debug)]
pub(crate) struct Frames {
    bytes: Vec<u8>,
    places: Vec<Place>,
    position: usize,
    /// By stream: the number of its next message.
    next: Vec<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    stream: u16,
    body_at: usize,
    end: usize,
}

impl Frames {
    /// `streams` is how many streams there are, of all producers.
    pub(crate) fn new(lanes: &[Lane], streams: usize) -> Self {
        let mut ring = Self { bytes: Vec::new(), places: Vec::new(), position: 0, next: vec![0; streams] };
        while !lanes.is_empty() && (ring.bytes.len() < RING_BYTES) {
            for Lane { stream, template } in lanes {
                let body_at = ring.bytes.len() + template.body_at;
                ring.bytes.extend_from_slice(&template.bytes);
                ring.places.push(Place { stream: *stream, body_at, end: ring.bytes.len() });
            }
        }
        ring
    }

    /// The next publishes, at most `count` of them, with their numbers and the times that `sent_at` gives for them (from
    /// 0 for the first of these); and how many they are.
    pub(crate) fn take(&mut self, count: u64, sent_at: impl Fn(u64) -> u64) -> (&[u8], u64) {
        if self.position == self.places.len() {
            self.position = 0;
        }
        let before = self.position.checked_sub(1).and_then(|before| self.places.get(before));
        let start = before.map_or(0, |frame| frame.end);
        let (mut taken, mut end) = (0, start);
        while taken < count && end - start < WRITE_BYTES {
            let Some(frame) = self.places.get(self.position).copied() else { break };
            let number = self.next.get_mut(usize::from(frame.stream)).map_or(0, |next| {
                *next += 1;
                *next - 1
            });
            let head = Head { stream: frame.stream, number, sent_at: sent_at(taken) };
            if let Some(place) = self.bytes.get_mut(frame.body_at..).and_then(|body| body.first_chunk_mut()) {
                *place = head.encode();
            }
            self.position += 1;
            taken += 1;
            end = frame.end;
        }
        (self.bytes.get(start..end).unwrap_or_default(), taken)
    }

    /// By stream: how many messages were taken.
    pub(crate) fn sent(self) -> Vec<u64> {
        self.next
    }
}

const _: () = assert!(HEAD_BYTES == 16, "a head is a u128");

#[cfg(test)]
mod tests {
    use super::*;

    fn lanes(sizes: &[usize]) -> Vec<Lane> {
        let template = |size: &usize| Template { bytes: vec![b'.'; 3 + size], body_at: 3 };
        sizes
            .iter()
            .enumerate()
            .map(|(stream, size)| Lane { stream: stream as u16, template: template(size) })
            .collect()
    }

    #[test]
    fn frames_come_in_turn_and_are_numbered_by_stream() {
        let mut frames = Frames::new(&lanes(&[20, 50_000, 16]), 3);
        let mut expected = vec![0; 3];
        let mut turn = 0;
        for round in 1..200 {
            let (bytes, count) = frames.take(round % 7 + 1, |index| index * 10);
            assert!(count >= 1 && count <= round % 7 + 1);
            let (mut at, mut index) = (0, 0);
            while at < bytes.len() {
                let head = Head::decode(*bytes[at + 3..].first_chunk().unwrap());
                assert_eq!(usize::from(head.stream), turn % 3);
                assert_eq!(head.number, expected[turn % 3]);
                assert_eq!(head.sent_at, index * 10);
                expected[turn % 3] += 1;
                at += 3 + [20, 50_000, 16][turn % 3];
                turn += 1;
                index += 1;
            }
            assert_eq!((at, index), (bytes.len(), count), "whole frames only");
        }
        assert_eq!(frames.sent(), expected);
    }

    #[test]
    fn a_message_larger_than_a_write_is_sent_too() {
        let mut frames = Frames::new(&lanes(&[1_000_000]), 1);
        assert_eq!(frames.take(5, |_| 0).0.len(), 1_000_003);
        assert_eq!(frames.take(5, |_| 0).1, 1);
    }
}
