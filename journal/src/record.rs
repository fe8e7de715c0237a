//! A record: a kind, and bytes that the journal does not look into.
//!
//! The layout is in the crate's README. A record's checksum is salted with the epoch of its segment and with its
//! position, so that bytes which merely look like a record (a payload that quotes one, what is left of an earlier
//! segment in a recycled file, a read at a wrong position) are never taken for it.

use bytes::{Buf as _, BufMut as _};

use crate::Position;

/// The kind of a record that stands where damage was when the journal was salvaged. Whoever replays it knows that
/// records may be missing between its position and the end of its payload, which is all zeros. The journal writes it
/// only then; a caller's kinds begin at 1.
pub const LOST: u8 = 0;

/// Bytes before a record's payload.
pub(crate) const RECORD_HEADER_BYTES: usize = 12;
/// Records start at multiples of this, so that a position fits fewer bits in an index.
pub(crate) const ALIGNMENT: usize = 8;
/// Makes all-zero bytes invalid, whatever the kind and the length.
const MARK: [u8; 3] = *b"rec";

/// The bytes to announce for a group of `records` records whose payloads have `payload_bytes` bytes together.
pub const fn group_bytes(records: usize, payload_bytes: usize) -> usize {
    payload_bytes.saturating_add(records.saturating_mul(RECORD_HEADER_BYTES + ALIGNMENT - 1))
}

/// A record of the journal, as replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Where it is.
    pub position: Position,
    /// As given to `append`.
    pub kind: u8,
    /// As given to `append`, the parts joined.
    pub payload: &'a [u8],
}

/// The first bytes of a record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RecordHeader {
    pub(crate) kind: u8,
    pub(crate) length: usize,
    checksum: u32,
    /// The bytes that the checksum covers besides the payload.
    covered: [u8; 8],
}

impl RecordHeader {
    /// `None` if no record starts with these bytes.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest: &[u8] = bytes.first_chunk::<RECORD_HEADER_BYTES>()?;
        let covered = *bytes.first_chunk::<8>()?;
        let length = rest.get_u32_le() as usize;
        let kind = rest.get_u8();
        let mut mark = [0; MARK.len()];
        rest.copy_to_slice(&mut mark);
        let checksum = rest.get_u32_le();
        (mark == MARK).then_some(Self { kind, length, checksum, covered })
    }

    pub(crate) fn is_intact(&self, payload: &[u8], epoch: u64, position: u64) -> bool {
        self.checksum == checksum(self.covered, payload, epoch, position)
    }

    /// The bytes of the record, header and padding included.
    pub(crate) fn whole_bytes(&self) -> usize {
        padded(RECORD_HEADER_BYTES + self.length)
    }
}

/// The bytes of a record with a payload of that many, header and padding included.
pub(crate) fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(ALIGNMENT)
}

/// Appends a record, its checksum still missing: [`seal`] adds it on the commit thread, so that stagers do not hold the
/// lock for it.
pub(crate) fn encode(block: &mut Vec<u8>, kind: u8, length: usize, parts: &[&[u8]]) {
    block.put_u32_le(length as u32);
    block.put_u8(kind);
    block.put_slice(&MARK);
    block.put_u32_le(0);
    for part in parts {
        block.extend_from_slice(part);
    }
    block.resize(padded(block.len()), 0);
}

/// Writes the checksums of all records of a block's body.
pub(crate) fn seal(body: &mut [u8], epoch: u64, position: u64) {
    let mut rest = body;
    let mut position = position;
    while let Some(header) = RecordHeader::decode(rest) {
        let Some((record, after)) = rest.split_at_mut_checked(header.whole_bytes()) else { return };
        let payload = record.get(RECORD_HEADER_BYTES..).and_then(|padded| padded.get(..header.length));
        let sum = checksum(header.covered, payload.unwrap_or_default(), epoch, position);
        if let Some(place) = record.get_mut(8..RECORD_HEADER_BYTES) {
            place.copy_from_slice(&sum.to_le_bytes());
        }
        position += record.len() as u64;
        rest = after;
    }
}

/// Takes the record at the front of `body`; `None` if there is no whole one.
pub(crate) fn split_first(body: &[u8]) -> Option<(RecordHeader, &[u8], &[u8])> {
    let header = RecordHeader::decode(body)?;
    let (record, rest) = body.split_at_checked(header.whole_bytes())?;
    let payload = record.get(RECORD_HEADER_BYTES..)?.get(..header.length)?;
    Some((header, payload, rest))
}

fn checksum(covered: [u8; 8], payload: &[u8], epoch: u64, position: u64) -> u32 {
    let mut salt = [0; 24];
    let mut place = salt.as_mut_slice();
    place.put_u64_le(epoch);
    place.put_u64_le(position);
    place.put_slice(&covered);
    crc32c::crc32c_append(crc32c::crc32c(&salt), payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(kind: u8, payload: &[u8], epoch: u64, position: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(&mut bytes, kind, payload.len(), &[payload]);
        seal(&mut bytes, epoch, position);
        bytes
    }

    #[test]
    fn a_record_is_read_back_as_it_was_written() {
        for length in 0..40 {
            let payload = vec![0xab; length];
            let bytes = sealed(7, &payload, 1, 64);
            assert!(bytes.len() <= group_bytes(1, length));
            let (header, found, rest) = split_first(&bytes).unwrap();
            assert_eq!((header.kind, found, rest.len()), (7, &payload[..], 0));
            assert!(header.is_intact(found, 1, 64));
        }
    }

    #[test]
    fn a_record_counts_only_in_its_own_place() {
        let bytes = sealed(7, b"body", 1, 64);
        let (header, payload, _) = split_first(&bytes).unwrap();
        assert!(!header.is_intact(payload, 2, 64), "another epoch");
        assert!(!header.is_intact(payload, 1, 72), "another position");
    }

    #[test]
    fn zeros_are_no_record() {
        assert!(RecordHeader::decode(&[0; 64]).is_none());
    }
}
