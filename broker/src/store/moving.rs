//! Messages that stand at the journal's front are moved to its end, so that the front can go.

use bytes::Bytes;
use leveret_journal::{Group, Position, group_bytes};

use super::record::{self, MOVED_BYTES, Moved, kind};
use super::{Pins, Place, Store, StoreError, UnreadableMessage};

/// Writes messages anew, all in one group: after a crash all of them have moved, or none.
pub struct Mover<'a> {
    group: Group<'a>,
    pins: &'a Pins,
    scratch: Vec<u8>,
}

impl Store {
    /// How large a segment is, in bytes.
    pub fn segment_bytes(&self) -> u64 {
        self.pins.segment_bytes() as u64
    }

    /// How long the part of the journal is that messages need, in bytes.
    pub fn needed_bytes(&self) -> u64 {
        let end = self.pins.start_of_segment(self.end()).0 + self.segment_bytes();
        end.saturating_sub(self.needed_from().0)
    }

    /// What messages take up in the journal, in bytes, by their number and the bytes of their bodies. What else their
    /// records have is taken for the same as in those that were written last.
    pub fn bytes_of(&self, messages: u64, body_bytes: u64) -> u64 {
        body_bytes + messages * self.pins.weight()
    }

    /// Reads messages' records, to be moved as they are. Waits for the disk: never to be called with a lock held.
    pub fn read_records(
        &self,
        places: &[Place],
        told: &mut dyn FnMut(usize, Result<Bytes, UnreadableMessage>),
    ) {
        let positions: Vec<Position> = places.iter().map(Place::position).collect();
        self.journal.read_each(&positions, |index, record| {
            let message = record
                .map_err(UnreadableMessage::from)
                .and_then(|(kind, payload)| Ok(Bytes::copy_from_slice(record::message_in(kind, payload)?)));
            told(index, message);
        });
    }

    /// Begins to move so many messages whose records have so many bytes together.
    pub fn move_messages(&self, messages: usize, bytes: usize) -> Result<Mover<'_>, StoreError> {
        let group = self.journal.stage(group_bytes(messages, bytes + messages * MOVED_BYTES))?;
        Ok(Mover { group, pins: &self.pins, scratch: Vec::new() })
    }
}

impl Mover<'_> {
    /// Writes a message's record with what its queue knows of it; gives its new place. Without that, or if it is
    /// transient, it is forgotten at a restart.
    pub fn put(&mut self, moved: Option<&Moved>, message: &[u8]) -> Result<Place, StoreError> {
        self.scratch.clear();
        let position = if let Some(moved) = moved.filter(|_| record::is_persistent(message)) {
            record::encode_moved(moved, &mut self.scratch);
            self.group.append(kind::MOVED, &[&self.scratch, message])?
        } else {
            record::encode_forgettable(message, &mut self.scratch);
            self.group.append(kind::MESSAGE, &[&self.scratch])?
        };
        Ok(self.pins.pin(position))
    }
}
