//! What is written to a socket next: small things in one buffer, and large bodies where they are. To copy a body of some
//! KiB into the buffer costs more than to name it to the kernel.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::ops::Range;

use bytes::BytesMut;

use crate::store::Message;

/// A shorter part of a body is copied, in bytes.
const COPIED_BYTES_MAX: usize = 1023;

/// Bytes in order, as far as they have not been written.
#[derive(Debug, Default)]
pub(super) struct Gather {
    /// All but the large bodies.
    pub(super) bytes: BytesMut,
    /// How many of these have been written.
    written: usize,
    bodies: VecDeque<Body>,
    body_bytes: usize,
}

/// A part of a message's content.
#[derive(Debug)]
struct Body {
    message: Message,
    part: Range<usize>,
    /// It comes before the bytes from this one on.
    at: usize,
}

impl Body {
    fn bytes(&self) -> &[u8] {
        self.message.content().get(self.part.clone()).unwrap_or_default()
    }
}

impl Gather {
    /// With a buffer for the small things.
    pub(super) fn with(bytes: BytesMut) -> Self {
        Self { bytes, ..Self::default() }
    }

    /// Appends a part of the message's body.
    pub(super) fn put_body(&mut self, message: &Message, part: Range<usize>) {
        let before = message.content().len() - message.body().len();
        if part.len() <= COPIED_BYTES_MAX {
            self.bytes.extend_from_slice(message.body().get(part).unwrap_or_default());
            return;
        }
        let part = before + part.start..before + part.end;
        self.body_bytes += part.len();
        self.bodies.push_back(Body { message: message.clone(), part, at: self.bytes.len() });
    }

    /// How much is there to be written, in bytes.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.written + self.body_bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of it, if there are no large bodies.
    pub(super) fn without_bodies(&self) -> Option<&[u8]> {
        self.bytes.get(self.written..).filter(|_| self.bodies.is_empty())
    }

    /// Puts what is first into `slices`; how many of them.
    pub(super) fn fill<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut at = self.written;
        let mut count = 0;
        let mut put = |bytes: &'a [u8]| {
            if let Some(slice) = slices.get_mut(count)
                && !bytes.is_empty()
            {
                *slice = IoSlice::new(bytes);
                count += 1;
            }
            count < slices.len()
        };
        for body in &self.bodies {
            if !put(self.bytes.get(at..body.at).unwrap_or_default()) || !put(body.bytes()) {
                return count;
            }
            at = body.at;
        }
        put(self.bytes.get(at..).unwrap_or_default());
        count
    }

    /// So many bytes have been written.
    pub(super) fn advance(&mut self, mut written: usize) {
        while written > 0 {
            let before = self.bodies.front().map_or(self.bytes.len(), |body| body.at) - self.written;
            if before > 0 {
                let step = before.min(written);
                self.written += step;
                written -= step;
                continue;
            }
            let Some(body) = self.bodies.front_mut() else { break };
            let step = body.part.len().min(written);
            body.part.start += step;
            self.body_bytes -= step;
            written -= step;
            if body.part.is_empty() {
                self.bodies.pop_front();
            }
        }
        if self.is_empty() {
            self.bytes.clear();
            self.written = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::Head;

    proptest! {
        #[test]
        fn what_was_put_is_written_in_order_however_it_is_taken(
            puts in prop::collection::vec((0..3000_usize, any::<bool>()), 0..20),
            steps in prop::collection::vec(1..5000_usize, 1..8),
            slices_max in 1..9_usize,
        ) {
            let mut gather = Gather::default();
            let mut expected = Vec::new();
            for (number, (length, is_body)) in puts.into_iter().enumerate() {
                let content: Vec<u8> = (0..length + 5).map(|at| (at * 7 + number) as u8).collect();
                if is_body {
                    let message = Message::new(Head { properties_bytes: 5, ..Head::default() }, &content);
                    gather.put_body(&message, length / 3..length);
                    expected.extend_from_slice(&content[5 + length / 3..]);
                } else {
                    gather.bytes.extend_from_slice(&content);
                    expected.extend_from_slice(&content);
                }
            }
            let mut written = Vec::new();
            for step in steps.into_iter().cycle() {
                prop_assert_eq!(gather.len(), expected.len() - written.len());
                if gather.is_empty() {
                    break;
                }
                let mut slices = [IoSlice::new(&[]); 8];
                let count = gather.fill(&mut slices[..slices_max.min(8)]);
                let there: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).collect();
                prop_assert!(!there.is_empty());
                let taken = step.min(there.len());
                written.extend_from_slice(&there[..taken]);
                gather.advance(taken);
            }
            prop_assert_eq!(written, expected);
        }
    }
}
