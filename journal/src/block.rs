//! A block: what one commit writes at once, and so what a crash keeps whole or takes whole.
//!
//! The layout is in the crate's README. The header has a checksum of its own, so that a block whose body was torn still
//! tells its length and what had been synced when it was written.

use bytes::{Buf as _, BufMut as _};

use crate::faults::mutant;
use crate::record;

/// Bytes before a block's first record.
pub(crate) const BLOCK_HEADER_BYTES: usize = 48;
/// The first bytes of every block.
pub(crate) const MAGIC: [u8; 4] = *b"LVRB";
/// Where the header's own checksum is: it covers what is before it.
const HEADER_CHECKSUM_AT: usize = 44;

/// What a block is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BlockKind {
    /// Groups of records.
    Records = 1,
    /// Nothing: written and synced last when the journal is closed, after all else was synced.
    CleanStop = 2,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlockHeader {
    pub(crate) kind: BlockKind,
    /// Of the segment.
    pub(crate) epoch: u64,
    /// Of the block's first byte.
    pub(crate) position: u64,
    /// Everything below it was on disk before this block was written.
    pub(crate) synced: u64,
    /// Of the whole block.
    pub(crate) length: u32,
    pub(crate) records: u32,
    body_checksum: u32,
}

impl BlockHeader {
    /// The header of the block at `position` in a segment with that epoch, of which `room` bytes are left. `None` if no
    /// such block starts there: then nothing in these bytes is to be trusted, the length least of all.
    pub(crate) fn decode(bytes: &[u8], epoch: u64, position: u64, room: u64) -> Option<Self> {
        let bytes = bytes.first_chunk::<BLOCK_HEADER_BYTES>()?;
        if mutant("zeros_are_a_block") && *bytes == [0; BLOCK_HEADER_BYTES] {
            let (length, body_checksum) = (BLOCK_HEADER_BYTES as u32, body_checksum(&[], epoch, position));
            let kind = BlockKind::Records;
            return Some(Self { kind, epoch, position, synced: 0, length, records: 0, body_checksum });
        }
        let mut rest = bytes.strip_prefix(&MAGIC)?;
        let kind = match rest.get_u32_le() {
            1 => BlockKind::Records,
            2 => BlockKind::CleanStop,
            _ => return None,
        };
        let header = Self {
            kind,
            epoch: rest.get_u64_le(),
            position: rest.get_u64_le(),
            synced: rest.get_u64_le(),
            length: rest.get_u32_le(),
            records: rest.get_u32_le(),
            body_checksum: rest.get_u32_le(),
        };
        let length = header.length as usize;
        let fits = length >= BLOCK_HEADER_BYTES
            && length.is_multiple_of(record::ALIGNMENT)
            && u64::from(header.length) <= room;
        let ours = header.epoch == epoch && header.position == position && header.synced <= position;
        let checksum = bytes.get(..HEADER_CHECKSUM_AT).map(crc32c::crc32c);
        (fits && ours && checksum == Some(rest.get_u32_le())).then_some(header)
    }

    /// As [`BlockHeader::decode`], whatever the epoch is: only for a place where nobody but the journal writes.
    pub(crate) fn decode_of_any_epoch(bytes: &[u8], position: u64, room: u64) -> Option<Self> {
        let epoch = u64::from_le_bytes(*bytes.get(8..)?.first_chunk()?);
        Self::decode(bytes, epoch, position, room)
    }

    pub(crate) fn end(&self) -> u64 {
        self.position + u64::from(self.length)
    }

    pub(crate) fn body_is_intact(&self, body: &[u8]) -> bool {
        mutant("no_checksum") || self.body_checksum == body_checksum(body, self.epoch, self.position)
    }

    fn encode(&self) -> [u8; BLOCK_HEADER_BYTES] {
        let mut bytes = [0; BLOCK_HEADER_BYTES];
        let mut place = bytes.as_mut_slice();
        place.put_slice(&MAGIC);
        place.put_u32_le(self.kind as u32);
        place.put_u64_le(self.epoch);
        place.put_u64_le(self.position);
        place.put_u64_le(self.synced);
        place.put_u32_le(self.length);
        place.put_u32_le(self.records);
        place.put_u32_le(self.body_checksum);
        let checksum = bytes.get(..HEADER_CHECKSUM_AT).map_or(0, crc32c::crc32c);
        if let Some(place) = bytes.get_mut(HEADER_CHECKSUM_AT..) {
            place.copy_from_slice(&checksum.to_le_bytes());
        }
        bytes
    }
}

/// Completes a block that was built with room for its header at the front: the checksums of the records, then the header.
pub(crate) fn seal(block: &mut [u8], kind: BlockKind, epoch: u64, position: u64, synced: u64, records: u32) {
    let length = block.len() as u32;
    let Some((place, body)) = block.split_first_chunk_mut::<BLOCK_HEADER_BYTES>() else { return };
    record::seal(body, epoch, position + BLOCK_HEADER_BYTES as u64);
    let body_checksum = body_checksum(body, epoch, position);
    *place = BlockHeader { kind, epoch, position, synced, length, records, body_checksum }.encode();
}

fn body_checksum(body: &[u8], epoch: u64, position: u64) -> u32 {
    let mut salt = [0; 16];
    let mut place = salt.as_mut_slice();
    place.put_u64_le(epoch);
    place.put_u64_le(position);
    crc32c::crc32c_append(crc32c::crc32c(&salt), body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block() -> Vec<u8> {
        let mut bytes = vec![0; BLOCK_HEADER_BYTES];
        record::encode(&mut bytes, 3, 5, &[b"hello"]);
        seal(&mut bytes, BlockKind::Records, 9, 4096, 100, 1);
        bytes
    }

    #[test]
    fn a_header_tells_what_was_sealed() {
        let bytes = block();
        let header = BlockHeader::decode(&bytes, 9, 4096, 4096).unwrap();
        assert_eq!((header.kind, header.synced, header.records), (BlockKind::Records, 100, 1));
        assert_eq!(header.end(), 4096 + bytes.len() as u64);
        assert!(header.body_is_intact(&bytes[BLOCK_HEADER_BYTES..]));
    }

    #[test]
    fn a_block_counts_only_in_its_own_place() {
        let bytes = block();
        assert_eq!(BlockHeader::decode(&bytes, 8, 4096, 4096), None, "another epoch");
        assert_eq!(BlockHeader::decode(&bytes, 9, 4104, 4096), None, "another position");
        assert_eq!(BlockHeader::decode(&bytes, 9, 4096, 64), None, "longer than its segment");
        assert_eq!(BlockHeader::decode(&[0; 64], 9, 4096, 4096), None, "zeros");
    }

    #[test]
    fn any_flipped_bit_is_seen() {
        for bit in 0..block().len() * 8 {
            let mut bytes = block();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let intact = BlockHeader::decode(&bytes, 9, 4096, 4096)
                .is_some_and(|header| header.body_is_intact(&bytes[BLOCK_HEADER_BYTES..]));
            assert!(!intact, "bit {bit}");
        }
    }
}
