//! Buffers of the thread that a connection runs on, not of the connection: one that is idle has none, and the next to
//! run finds one that is still in the processor's cache.

use std::cell::Cell;

use bytes::BytesMut;

/// Lends one buffer at a time.
pub(super) struct Lender {
    buffer: Cell<Option<BytesMut>>,
    /// One that has grown beyond this is not kept, in bytes.
    bytes_max: usize,
}

thread_local! {
    /// What is read from sockets.
    pub(super) static READING: Lender = const { Lender::new(512 * 1024) };
    /// Parts of a message that came apart from each other.
    pub(super) static JOINING: Lender = const { Lender::new(256 * 1024) };
    /// What is written to sockets.
    pub(super) static WRITING: Lender = const { Lender::new(1024 * 1024) };
}

impl Lender {
    const fn new(bytes_max: usize) -> Self {
        Self { buffer: Cell::new(None), bytes_max }
    }

    /// An empty buffer, which others have used before.
    pub(super) fn lend(&self) -> BytesMut {
        self.buffer.take().unwrap_or_default()
    }

    /// Takes a buffer back, or another in its place.
    pub(super) fn give_back(&self, mut buffer: BytesMut) {
        buffer.clear();
        // What was read off the front counts, too: the capacity alone is what is left behind it.
        if !buffer.try_reclaim(self.bytes_max + 1) {
            self.buffer.set(Some(buffer));
        }
    }
}
