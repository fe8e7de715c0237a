//! Salvaging: what is lost is what was damaged, it is said, and the rest is there.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "the lints excuse test functions, but not what they call"
)]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{DIR, Opened, Random, Stored, open, stage};
use leveret_journal::{LOST, OpenError, SimDisk, Survey, salvage, survey};

const SEED: u64 = 7;
const SEGMENT_HEADER_BYTES: usize = 4096;

/// Some segments of commits with one or several records.
fn journal(seed: u64) -> (SimDisk, Vec<PathBuf>, Vec<Stored>) {
    let mut random = Random(seed);
    let disk = SimDisk::new(seed);
    let Opened { journal, mut stepper, .. } = open(&disk, SEED).unwrap();
    let mut records = Vec::new();
    while journal.stats().segments < 4 {
        let payloads: Vec<_> = (0..=random.below(3)).map(|_| random.payload(300)).collect();
        records.extend(stage(&journal, &payloads));
        stepper.step();
    }
    // The mark proves that all the rest was synced.
    stepper.close().unwrap();
    disk.kill();
    let files = (1..=4).map(|number| PathBuf::from(format!("{DIR}/{number:016x}.segment"))).collect();
    (disk, files, records)
}

fn look(disk: &SimDisk) -> (Survey, Vec<Stored>) {
    let mut records = Vec::new();
    let survey = survey(Arc::new(disk.clone()), Path::new(DIR), &mut |record| {
        records.push((record.position, record.kind, record.payload.to_vec()));
        Ok(())
    });
    (survey.unwrap(), records)
}

fn contents(disk: &SimDisk) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    disk.files().into_iter().map(|file| (file.clone(), disk.contents(&file))).collect()
}

/// Checks that a damaged journal is surveyed and salvaged right; gives how many records were lost.
fn check(disk: &SimDisk, all: &[Stored], what: &str) -> usize {
    let before = contents(disk);
    let (survey, found) = look(disk);
    assert!(contents(disk) == before, "{what}: looking changed something");
    if survey.damage.is_empty() {
        let opened = open(&disk.fork(), SEED).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(opened.records == found, "{what}");
    } else {
        let error = open(&disk.fork(), SEED).map(drop).unwrap_err();
        // What is right depends on the size that was asked for, and that is in the first header that can be read.
        assert!(
            matches!(error, OpenError::Damaged(_) | OpenError::UnknownVersion { .. }),
            "{what}: {error} in {:?}",
            survey.damage
        );
    }
    let lost: Vec<_> = found.iter().filter(|record| record.1 == LOST).collect();
    let kept: Vec<_> = found.iter().filter(|record| record.1 != LOST).cloned().collect();
    let mut missing = 0;
    let mut rest = kept.iter().peekable();
    for record in all {
        if rest.next_if(|kept| *kept == record).is_none() {
            missing += 1;
            let said = lost
                .iter()
                .any(|lost| lost.0 <= record.0 && record.0.0 < lost.0.0 + 12 + lost.2.len() as u64);
            let torn = record.0 >= survey.recovery.end;
            assert!(said || torn, "{what}: {} is gone, and nobody says so", record.0);
        }
    }
    assert_eq!(rest.next(), None, "{what}: something came up that was never written");

    let salvaged = disk.fork();
    salvage(Arc::new(salvaged.clone()), Path::new(DIR), SEED + 1, &mut |_| Ok(())).unwrap();
    for (file, bytes) in &before {
        let now = salvaged.contents(file);
        let kept = salvaged.contents(&file.with_extension("segment.damaged"));
        let empty = bytes.as_ref().is_some_and(Vec::is_empty);
        assert!(now == *bytes || kept == *bytes || empty, "{what}: {} was not kept", file.display());
    }
    let (after, again) = look(&salvaged);
    assert!(after.damage.is_empty() && again == found, "{what}: {:?}", after.damage);
    let opened = open(&salvaged, SEED + 2).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(opened.records == found, "{what}");
    // And it goes on.
    let mut expected = found;
    let Opened { journal, stepper, .. } = opened;
    expected.extend(stage(&journal, &[vec![9; 3000], vec![8; 40]]));
    stepper.close().unwrap();
    drop(journal);
    assert!(open(&salvaged, SEED + 3).unwrap().records == expected, "{what}");
    missing
}

#[test]
fn an_intact_journal_is_surveyed_and_left_alone() {
    let (disk, _, records) = journal(1);
    let (survey, found) = look(&disk);
    assert!(found == records && survey.damage.is_empty() && survey.recovery.clean);
    assert_eq!(survey.segments.iter().map(|segment| segment.records).sum::<u64>(), records.len() as u64);
    let before = contents(&disk);
    salvage(Arc::new(disk.clone()), Path::new(DIR), 1, &mut |_| Ok(())).unwrap();
    assert!(contents(&disk).iter().all(|file| before.contains(file) || file.0.ends_with("lock")));
    assert_eq!(check(&disk, &records, "intact"), 0);
}

#[test]
fn a_journal_that_is_open_is_not_looked_at() {
    let disk = SimDisk::new(1);
    let _opened = open(&disk, 1).unwrap();
    let outcome = survey(Arc::new(disk), Path::new(DIR), &mut |_| Ok(()));
    assert!(matches!(outcome, Err(OpenError::Locked { .. })));
}

#[test]
fn one_flipped_bit_costs_one_record_at_most() {
    for seed in 0..4 {
        let (disk, files, records) = journal(seed);
        for path in &files {
            let intact = disk.contents(path).unwrap();
            let bytes = (0..44).chain(SEGMENT_HEADER_BYTES..intact.len());
            for byte in bytes.filter(|byte| (byte + seed as usize).is_multiple_of(13)) {
                let damaged = disk.fork();
                let mut bytes = intact.clone();
                bytes[byte] ^= 1 << (byte % 8);
                damaged.set_contents(path, bytes);
                let what = format!("seed {seed}, byte {byte} of {}", path.display());
                assert!(check(&damaged, &records, &what) <= 1, "{what}");
            }
        }
    }
}

#[test]
fn whatever_is_damaged_what_is_lost_is_said_and_the_rest_is_there() {
    for seed in 0..300 {
        let mut random = Random(seed);
        let (disk, files, records) = journal(seed % 7);
        let mut what = format!("seed {seed}:");
        for _ in 0..=random.below(3) {
            // The last one is spared by half of what happens, so that there is a witness.
            let path = &files[random.below(files.len() as u64) as usize];
            let Some(mut bytes) = disk.contents(path) else { continue };
            let from = random.below(bytes.len().max(1) as u64) as usize;
            let to = (from + random.below(600) as usize).min(bytes.len());
            match random.below(4) {
                0 => bytes[from..to].fill(0),
                1 => bytes[from..to].iter_mut().for_each(|byte| *byte = random.next() as u8),
                2 => bytes.truncate(from),
                _ => bytes[..from].fill(0xff),
            }
            what = format!("{what} {from} to {to} of {}", path.display());
            if random.one_in(8) && *path != files[3] && *path != files[0] {
                disk.delete(path);
            } else {
                disk.set_contents(path, bytes);
            }
        }
        check(&disk, &records, &what);
    }
}
