//! Damage: never a wrong record, and what was provably synced is reported.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "the lints excuse test functions, but not what they call"
)]

mod common;

use std::path::{Path, PathBuf};

use common::{DIR, Opened, Random, SEGMENT_BYTES, Stored, open, open_with, stage};
use leveret_journal::{Call, Loss, OpenError, Position, SimDisk};

const SEED: u64 = 7;
/// Of a segment and of a block, as the README has it.
const SEGMENT_HEADER_BYTES: usize = 4096;
const SEGMENT_HEADER_FIELDS: usize = 44;
const BLOCK_HEADER_BYTES: usize = 48;

/// Two segments of single-record commits, and what they contain.
struct Fixture {
    disk: SimDisk,
    files: [PathBuf; 2],
    records: Vec<Stored>,
}

impl Fixture {
    fn new(closed: bool) -> Self {
        let disk = SimDisk::new(1);
        let Opened { journal, mut stepper, .. } = open(&disk, SEED).unwrap();
        let mut records = Vec::new();
        for length in [30, 700, 0, 2000, 500, 900, 60, 9] {
            records.extend(stage(&journal, &[vec![length as u8; length]]));
            stepper.step();
        }
        assert_eq!(journal.stats().segments, 2);
        if closed {
            stepper.close().unwrap();
        }
        disk.kill();
        let files = [1, 2].map(|number| PathBuf::from(format!("{DIR}/{number:016x}.segment")));
        Self { disk, files, records }
    }

    fn reopened_with(&self, file: &Path, bytes: Vec<u8>) -> Result<Opened, OpenError> {
        let disk = self.disk.fork();
        disk.set_contents(file, bytes);
        open(&disk, SEED)
    }

    /// The bytes of `file` that blocks take, headers included.
    fn used_bytes(&self, file: usize) -> std::ops::Range<usize> {
        let inside = |record: &&Stored| record.0.0 / SEGMENT_BYTES == file as u64 + 1;
        let (position, _, payload) = self.records.iter().rfind(inside).unwrap();
        let end = (position.0 % SEGMENT_BYTES) as usize + (12 + payload.len()).next_multiple_of(8);
        SEGMENT_HEADER_BYTES..end
    }
}

/// What became of a journal of which one byte was changed.
fn check(fixture: &Fixture, file: usize, offset: usize, outcome: Result<Opened, OpenError>, mark: bool) {
    let used = fixture.used_bytes(file);
    let last_block =
        fixture.records.last().unwrap().0.0 as usize % SEGMENT_BYTES as usize - BLOCK_HEADER_BYTES;
    let place = format!("byte {offset} of file {file}");
    match outcome {
        Ok(opened) => {
            let matters = offset < SEGMENT_HEADER_FIELDS || used.contains(&offset);
            let in_last_block = file == 1 && used.contains(&offset) && offset >= last_block;
            assert!(!matters || (in_last_block && !mark), "{place} was synced, its damage is to be reported");
            let kept = fixture.records.len() - usize::from(in_last_block);
            assert!(opened.records == fixture.records[..kept], "{place}");
            let in_mark = file == 1 && (used.end..used.end + BLOCK_HEADER_BYTES).contains(&offset);
            assert_eq!(opened.recovery.clean, mark && !in_mark, "{place}");
        }
        Err(OpenError::Damaged(damage)) => {
            // Without its first block a segment cannot say that the one before it ends where it seems to.
            let unclear = file == 1
                && (SEGMENT_HEADER_BYTES..SEGMENT_HEADER_BYTES + BLOCK_HEADER_BYTES).contains(&offset);
            assert_eq!(damage.file, fixture.files[if unclear { 0 } else { file }], "{place}");
            assert!(unclear || damage.offset <= offset as u64, "{place}");
        }
        Err(OpenError::UnknownVersion { .. }) => assert!((8..12).contains(&offset), "{place}"),
        Err(other) => panic!("{place}: {other}"),
    }
}

#[test]
fn every_flipped_bit_is_harmless_or_reported() {
    for closed in [false, true] {
        let fixture = Fixture::new(closed);
        for (file, path) in fixture.files.iter().enumerate() {
            let intact = fixture.disk.contents(path).unwrap();
            for bit in 0..intact.len() * 8 {
                // The page of the header has nothing but zeros behind its fields, and is not read.
                if (SEGMENT_HEADER_FIELDS + 8..SEGMENT_HEADER_BYTES - 8).contains(&(bit / 8)) {
                    continue;
                }
                let mut bytes = intact.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                check(&fixture, file, bit / 8, fixture.reopened_with(path, bytes), closed);
            }
        }
    }
}

/// The measure of trust: a full segment of 64 KiB, whose every bit and every length is tried. It takes minutes
/// without optimisation, so that the usual run tries one bit of every 11th byte, and every 64th length; `LEVERET_SOAK`
/// tries all.
#[test]
fn a_segment_of_64_kib_is_right_or_reported_whatever_bit_flips_and_wherever_it_is_cut() {
    const BYTES: u64 = 64 << 10;
    let all = std::env::var_os("LEVERET_SOAK").is_some();
    let disk = SimDisk::new(1);
    let Opened { journal, mut stepper, .. } = open_with(&disk, SEED, BYTES).unwrap();
    let mut random = Random(5);
    let mut records = Vec::new();
    while journal.stats().segments == 1 {
        records.extend(stage(&journal, &[random.payload(600), random.payload(60)]));
        stepper.step();
    }
    drop((journal, stepper));
    disk.kill();
    let file = PathBuf::from(format!("{DIR}/0000000000000001.segment"));
    let intact = disk.contents(&file).unwrap();
    assert_eq!(intact.len(), BYTES as usize);
    let reopened = |bytes: Vec<u8>| {
        let disk = disk.fork();
        disk.set_contents(&file, bytes);
        open_with(&disk, SEED, BYTES)
    };
    let (mut reported, mut harmless) = (0_u32, 0_u32);
    let bits = (0..intact.len() * 8).filter(|bit| all || bit % 88 == bit / 88 % 8);
    for bit in bits {
        let mut bytes = intact.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        match reopened(bytes) {
            Ok(opened) => {
                assert!(opened.records == records, "bit {bit}");
                harmless += 1;
            }
            Err(OpenError::Damaged(damage)) => {
                assert!(damage.file == file && damage.offset <= bit as u64 / 8, "bit {bit}: {damage}");
                reported += 1;
            }
            Err(OpenError::UnknownVersion { .. }) => {
                assert!((8..12).contains(&(bit / 8)), "bit {bit}");
                reported += 1;
            }
            Err(other) => panic!("bit {bit}: {other}"),
        }
    }
    let mut cut = 0;
    for length in (0..intact.len()).step_by(if all { 1 } else { 64 }) {
        let outcome = reopened(intact[..length].to_vec());
        assert!(matches!(outcome, Err(OpenError::Damaged(damage)) if damage.file == file), "{length}");
        cut += 1;
    }
    // The page of the header behind its fields, and what is left behind the last block, are not read.
    let used = f64::from(reported) / f64::from(reported + harmless);
    assert!(used > 0.9, "{used}");
    println!(
        "{reported} of {} flipped bits were reported, {harmless} changed nothing; {cut} of {cut} truncations were reported",
        reported + harmless,
    );
}

#[test]
fn every_truncation_is_reported() {
    let fixture = Fixture::new(false);
    for path in &fixture.files {
        let intact = fixture.disk.contents(path).unwrap();
        for length in 0..intact.len() {
            let outcome = fixture.reopened_with(path, intact[..length].to_vec());
            assert!(matches!(outcome, Err(OpenError::Damaged(damage)) if damage.file == *path), "{length}");
        }
    }
}

#[test]
fn every_zeroed_tail_is_torn_or_reported() {
    let fixture = Fixture::new(false);
    for (file, path) in fixture.files.iter().enumerate() {
        let intact = fixture.disk.contents(path).unwrap();
        for from in (SEGMENT_HEADER_BYTES..intact.len()).step_by(8) {
            let mut bytes = intact.clone();
            bytes[from..].fill(0);
            match fixture.reopened_with(path, bytes) {
                Ok(opened) => {
                    // With the blocks that were synced later went the proof that these were: all that remains is right.
                    assert!(file == 1 || from >= fixture.used_bytes(0).end, "byte {from} of file {file}");
                    assert!(opened.records == fixture.records[..opened.records.len()]);
                }
                Err(OpenError::Damaged(_)) => assert_eq!(file, 0),
                Err(other) => panic!("{other}"),
            }
        }
    }
}

#[test]
fn a_missing_segment_in_the_middle_is_reported() {
    let disk = SimDisk::new(1);
    let Opened { journal, mut stepper, .. } = open(&disk, SEED).unwrap();
    for _ in 0..3 {
        stage(&journal, &[vec![1; 3000]]);
        stepper.step();
    }
    drop((journal, stepper));
    disk.kill();
    let missing = PathBuf::from(format!("{DIR}/0000000000000002.segment"));
    disk.delete(&missing);
    assert!(matches!(open(&disk, SEED), Err(OpenError::Damaged(damage)) if damage.file == missing));
}

#[test]
fn a_refused_journal_is_left_as_it_was() {
    let fixture = Fixture::new(false);
    let disk = fixture.disk.fork();
    let mut bytes = disk.contents(&fixture.files[1]).unwrap();
    bytes[8] = 2;
    disk.set_contents(&fixture.files[1], bytes);
    let before: Vec<_> = disk.files().iter().map(|file| (file.clone(), disk.contents(file))).collect();

    let refused = open(&disk, SEED);
    let Err(OpenError::UnknownVersion { file, found: 2, supported: 1 }) = refused else {
        panic!("not refused")
    };
    assert_eq!(file, fixture.files[1]);
    let after: Vec<_> = disk.files().iter().map(|file| (file.clone(), disk.contents(file))).collect();
    assert!(before == after);
    assert_eq!(disk.calls_of(Call::Write), 0);
}

/// A payload that is, byte for byte and in the right place, what another journal has on disk; then its own block is torn,
/// so that recovery looks for what follows.
fn opened_after_forgery(seed_of_forger: u64) -> Result<Opened, OpenError> {
    let prefix = SEGMENT_HEADER_BYTES + BLOCK_HEADER_BYTES + 12;
    let forger = SimDisk::new(1);
    let Opened { journal, mut stepper, .. } = open(&forger, seed_of_forger).unwrap();
    for _ in 0..10 {
        stage(&journal, &[b"forged".to_vec()]);
        stepper.step();
    }
    let file = PathBuf::from(format!("{DIR}/0000000000000001.segment"));
    let payload = forger.contents(&file).unwrap()[prefix..prefix + 2000].to_vec();

    let disk = SimDisk::new(1);
    let Opened { journal, mut stepper, .. } = open(&disk, SEED).unwrap();
    stage(&journal, &[payload]);
    stepper.step();
    drop((journal, stepper));
    disk.cut_power(Loss::Nothing);
    let mut bytes = disk.contents(&file).unwrap();
    bytes[SEGMENT_HEADER_BYTES..SEGMENT_HEADER_BYTES + 48].fill(0);
    disk.set_contents(&file, bytes);
    open(&disk, SEED)
}

#[test]
fn a_payload_that_quotes_a_journal_is_never_taken_for_one() {
    let opened = opened_after_forgery(SEED + 1).unwrap();
    assert!(opened.records.is_empty());
    // Somebody who knows the epoch can at worst have the journal refuse to open.
    assert!(matches!(opened_after_forgery(SEED), Err(OpenError::Damaged(_))));
}

#[test]
fn a_position_inside_a_payload_reads_nothing() {
    let fixture = Fixture::new(false);
    let opened = open(&fixture.disk.fork(), SEED).unwrap();
    let first = opened.records[0].0.0;
    for position in first..opened.journal.end().0 {
        let known = opened.records.iter().find(|record| record.0.0 == position);
        let found =
            opened.journal.read(Position(position)).ok().map(|(kind, payload)| (kind, payload.to_vec()));
        assert_eq!(found, known.map(|(_, kind, payload)| (*kind, payload.clone())), "{position}");
    }
}
