//! What the tests share: a journal that is committed step by step, on a simulated disk.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

use std::path::Path;
use std::sync::Arc;

use leveret_journal::{
    CommitError, Disk, Group, Journal, Observer, OpenError, Options, Position, Recovery, SimDisk, Stepper,
    Synced, group_bytes,
};
use parking_lot::Mutex;

pub const DIR: &str = "/journal";
pub const SEGMENT_BYTES: u64 = 8 << 10;

/// Remembers what it was told.
#[derive(Default)]
pub struct Told {
    pub committed: Mutex<Vec<Synced>>,
    pub failed: Mutex<Vec<CommitError>>,
    /// What was said about room, in order.
    pub short: Mutex<Vec<bool>>,
}

impl Observer for Told {
    fn committed(&self, synced: Synced) {
        assert!(self.failed.lock().is_empty(), "nothing is committed after a failure");
        self.committed.lock().push(synced);
    }

    fn failed(&self, error: &CommitError) {
        self.failed.lock().push(error.clone());
    }

    fn short_of_room(&self, short: bool) {
        self.short.lock().push(short);
    }
}

/// A record as recovered or staged.
pub type Stored = (Position, u8, Vec<u8>);

pub struct Opened {
    pub journal: Arc<Journal>,
    pub stepper: Stepper,
    pub recovery: Recovery,
    pub records: Vec<Stored>,
    pub told: Arc<Told>,
}

pub fn options(dir: &Path, seed: u64) -> Options {
    // As little as a segment, so that two files are kept ready and not one for every segment that may be staged.
    let staged_bytes_max = SEGMENT_BYTES as usize - 1;
    Options { segment_bytes: SEGMENT_BYTES, staged_bytes_max, ..Options::new(dir, seed) }
}

pub fn open(disk: &SimDisk, seed: u64) -> Result<Opened, OpenError> {
    open_on(Arc::new(disk.clone()), Path::new(DIR), seed)
}

pub fn open_on(disk: Arc<dyn Disk>, dir: &Path, seed: u64) -> Result<Opened, OpenError> {
    open_as(disk, options(dir, seed))
}

/// With segments of another size.
pub fn open_with(disk: &SimDisk, seed: u64, segment_bytes: u64) -> Result<Opened, OpenError> {
    open_as(Arc::new(disk.clone()), Options { segment_bytes, ..options(Path::new(DIR), seed) })
}

pub fn open_as(disk: Arc<dyn Disk>, options: Options) -> Result<Opened, OpenError> {
    let told = Arc::new(Told::default());
    let mut records = Vec::new();
    let observer = Arc::clone(&told) as Arc<dyn Observer>;
    let (journal, stepper, recovery) = Journal::open_stepped(disk, options, observer, &mut |record| {
        records.push((record.position, record.kind, record.payload.to_vec()));
        Ok(())
    })?;
    assert_eq!(recovery.records, records.len() as u64);
    assert!(records.is_sorted_by(|a, b| a.0 < b.0), "replayed in order");
    Ok(Opened { journal, stepper, recovery, records, told })
}

/// Stages payloads as one group, with kinds counted from 1.
pub fn stage(journal: &Journal, payloads: &[Vec<u8>]) -> Vec<Stored> {
    let bytes = payloads.iter().map(Vec::len).sum();
    let mut group: Group<'_> = journal.stage(group_bytes(payloads.len(), bytes)).unwrap();
    let append = |(kind, payload): (u8, &Vec<u8>)| {
        let (front, back) = payload.split_at(payload.len() / 3);
        let position = group.append(kind, &[front, back]).unwrap();
        (position, kind, payload.clone())
    };
    (1..).zip(payloads).map(append).collect()
}

/// Splitmix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let value = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }

    pub fn payload(&mut self, bytes_max: u64) -> Vec<u8> {
        let (length, filler) = (self.below(bytes_max + 1), self.next());
        (0..length).map(|index| (filler.wrapping_mul(index | 1) >> 32) as u8).collect()
    }
}
