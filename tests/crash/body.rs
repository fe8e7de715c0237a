//! Bodies of which every byte can be checked.

use crate::history::Id;
use crate::random::Random;

/// Publisher, number, route, length of the filler.
const HEAD_BYTES: usize = 13;
const CHECKSUM_BYTES: usize = 8;

/// The body of this message: who published it, filler that follows from that, and a checksum of all.
pub(crate) fn encode(id: Id, route: u8) -> Vec<u8> {
    let mut random = Random::new(u64::from(id.publisher) << 32 | u64::from(id.number));
    // Most are small, and some are larger than what a reader copies or a disk block holds.
    let filler = if random.below(50) == 0 { random.below(40_000) } else { random.below(400) };
    let mut body = Vec::with_capacity(HEAD_BYTES + filler as usize + CHECKSUM_BYTES);
    body.extend_from_slice(&id.publisher.to_le_bytes());
    body.extend_from_slice(&id.number.to_le_bytes());
    body.push(route);
    body.extend_from_slice(&(filler as u32).to_le_bytes());
    body.extend((0..filler).map(|_| random.next() as u8));
    body.extend_from_slice(&checksum(&body).to_le_bytes());
    body
}

/// Reads a body; `None` if any byte of it is wrong.
pub(crate) fn decode(body: &[u8]) -> Option<(Id, u8)> {
    let publisher = u32::from_le_bytes(body.get(..4)?.try_into().ok()?);
    let number = u32::from_le_bytes(body.get(4..8)?.try_into().ok()?);
    let (id, route) = (Id { publisher, number }, *body.get(8)?);
    let (content, sum) = body.split_last_chunk::<CHECKSUM_BYTES>()?;
    (checksum(content).to_le_bytes() == *sum).then_some((id, route))
}

/// FNV-1a, which has nothing in common with the checksum of the journal.
fn checksum(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xCBF2_9CE4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3))
}

#[test]
fn every_wrong_byte_of_a_body_is_found() {
    let id = Id { publisher: 3, number: 77 };
    let body = encode(id, 2);
    assert_eq!(decode(&body), Some((id, 2)));
    for at in 0..body.len() {
        let mut wrong = body.clone();
        wrong[at] ^= 1;
        assert_eq!(decode(&wrong), None, "byte {at}");
    }
    assert_eq!(decode(&body[..body.len() - 1]), None);
}
