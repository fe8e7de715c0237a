//! What came over a socket and has not been taken yet.

use std::io::{self, Read};

/// How much is read at once. More only pays for larger messages, and then the buffer grows.
const READ_BYTES: usize = 256 * 1024;

/// Bytes between the socket and the one who reads frames in place.
#[derive(Debug)]
pub(crate) struct Inbound {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Inbound {
    pub(crate) fn new() -> Self {
        Self { bytes: vec![0; READ_BYTES], start: 0, end: 0 }
    }

    /// What is there.
    pub(crate) fn filled(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    /// Takes so many bytes off the front.
    pub(crate) fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Waits for more; an end of the stream is an error.
    pub(crate) fn fill(&mut self, from: &mut impl Read) -> io::Result<()> {
        if self.end == self.bytes.len() {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            if self.end == self.bytes.len() {
                self.bytes.resize(self.bytes.len() * 2, 0);
            }
        }
        let read = from.read(self.bytes.get_mut(self.end..).unwrap_or_default())?;
        if read == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the other side closed the connection"));
        }
        self.end += read;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_taken_stays_in_front_of_what_comes() {
        let sent: Vec<u8> = (0..3 * READ_BYTES).map(|at| (at % 251) as u8).collect();
        let mut from = sent.as_slice();
        let mut inbound = Inbound::new();
        let mut got = Vec::new();
        while got.len() < sent.len() {
            if inbound.fill(&mut from).is_err() {
                got.extend_from_slice(inbound.filled());
                break;
            }
            let taken = inbound.filled().len() * 2 / 3;
            got.extend_from_slice(&inbound.filled()[..taken]);
            inbound.consume(taken);
        }
        assert_eq!(got, sent);
    }

    #[test]
    fn the_buffer_grows_for_what_is_larger() {
        let sent = vec![7; READ_BYTES * 2];
        let mut from = sent.as_slice();
        let mut inbound = Inbound::new();
        while inbound.filled().len() < sent.len() {
            inbound.fill(&mut from).unwrap();
        }
        assert_eq!(inbound.filled(), sent);
        assert!(inbound.fill(&mut from).is_err(), "the end is an error");
    }
}
