//! A model of the journal against the simulated disk: whatever fails and wherever it is cut, what was synced is there.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "the lints excuse test functions, but not what they call"
)]

mod common;

use common::{Opened, Random, SEGMENT_BYTES, Stored, open, stage};
use leveret_journal::{Call, Loss, OpenError, Position, ReadError, SimDisk};

const HISTORIES: u64 = 2000;
const LIVES: u64 = 6;

/// What the journal was given, and must or may still have.
#[derive(Default)]
struct Model {
    /// In order; each is one group.
    groups: Vec<Vec<Stored>>,
    /// The first so many of them are synced.
    durable: usize,
    /// Below this records may be gone.
    released: Position,
}

impl Model {
    /// Compares what was recovered, and goes on from there: what is not there now must never come back, and what is
    /// there must stay.
    fn check_recovered(&mut self, found: &[Stored], seed: u64) {
        let first = found.first().map(|record| record.0);
        let segment_of = |position: Position| position.0 / SEGMENT_BYTES;
        let gone = self.groups.iter().take_while(|group| {
            first.is_none_or(|first| group[0].0 < first) && segment_of(group[0].0) < segment_of(self.released)
        });
        let gone = gone.count();
        let mut kept = 0;
        let mut rest = found;
        for group in &self.groups[gone..] {
            match rest.split_at_checked(group.len()) {
                Some((records, after)) if records == group.as_slice() => (kept, rest) = (kept + 1, after),
                _ => break,
            }
        }
        assert!(rest.is_empty(), "seed {seed}: recovered what was not staged there, or half of a group");
        assert!(
            gone + kept >= self.durable,
            "seed {seed}: {} of {} synced groups lost",
            self.durable - gone - kept,
            self.durable
        );
        self.groups.truncate(gone + kept);
        self.groups.drain(..gone);
        self.durable = kept;
    }

    fn note_synced(&mut self, opened: &Opened) {
        let synced = opened.journal.synced();
        assert!(
            opened.told.committed.lock().last().is_none_or(|told| *told == synced),
            "what is told is what is so"
        );
        let covered =
            self.groups.iter().take_while(|group| group.iter().all(|record| synced.covers(record.0))).count();
        assert!(covered >= self.durable);
        self.durable = covered;
    }
}

#[test]
fn whatever_is_synced_survives_crashes_at_any_point() {
    for seed in 0..HISTORIES {
        one_history(seed);
    }
}

/// The process is killed after it took a segment away and before that was durable; the next one is cut while it makes
/// another segment of the file.
#[test]
fn a_file_that_may_be_a_segment_again_is_not_written_to() {
    let disk = SimDisk::new(1);
    let mut opened = open(&disk, 1).unwrap();
    let mut staged = Vec::new();
    for _ in 0..3 {
        staged.extend(stage(&opened.journal, &[vec![1; 3000]]));
        while opened.stepper.step() {}
    }
    opened.stepper.close().unwrap();
    disk.kill();

    let mut opened = open(&disk, 2).unwrap();
    opened.journal.release_before(staged[1].0);
    disk.stop_after(disk.calls() + 1);
    assert!(!opened.stepper.step());
    assert_eq!(disk.calls_of(Call::Rename), 1);
    disk.kill();

    let mut opened = open(&disk, 3).unwrap();
    assert!(opened.records == staged[1..]);
    let allocated = disk.calls_of(Call::Allocate);
    disk.stop_after(disk.calls() + 2);
    assert!(!opened.stepper.step());
    assert_eq!(disk.calls_of(Call::Allocate), allocated, "the file is reused");
    disk.cut_power(Loss::Everything);
    assert!(open(&disk, 4).unwrap().records == staged[1..]);
}

/// A broker that is killed before it writes anything may have delivered messages.
#[test]
fn a_journal_that_was_opened_again_was_not_stopped_cleanly() {
    for cut in [false, true] {
        let disk = SimDisk::new(1);
        let mut opened = open(&disk, 1).unwrap();
        let staged = stage(&opened.journal, &[vec![1; 600]]);
        while opened.stepper.step() {}
        opened.stepper.close().unwrap();
        disk.kill();
        let opened = open(&disk.fork(), 2).unwrap();
        assert!(opened.recovery.clean);
        drop(open(&disk, 2).unwrap());
        if cut {
            disk.cut_power(Loss::Everything);
        } else {
            disk.kill();
        }
        let again = open(&disk, 3).unwrap();
        assert!(!again.recovery.clean && again.records == staged);
        assert_eq!(again.recovery.end, opened.recovery.end);
    }
}

/// What is left of a block behind the mark of a clean stop must not follow a new block there.
#[test]
fn nothing_torn_behind_a_clean_stop_comes_back() {
    let disk = SimDisk::new(1);
    let segment = std::path::PathBuf::from(format!("{}/0000000000000001.segment", common::DIR));
    open(&disk, 1).unwrap().stepper.close().unwrap();

    let mut opened = open(&disk, 2).unwrap();
    let lost = [stage(&opened.journal, &[vec![1; 600]]), stage(&opened.journal, &[vec![2; 600]])].concat();
    opened.stepper.step();
    disk.kill();
    // Of the two blocks of that commit the first is torn.
    let mut bytes = disk.contents(&segment).unwrap();
    bytes[(lost[0].0.0 % SEGMENT_BYTES) as usize - 48] ^= 1;
    disk.set_contents(&segment, bytes);

    let mut opened = open(&disk, 3).unwrap();
    assert!(opened.records.is_empty() && !opened.recovery.clean && opened.recovery.torn_bytes > 600);
    let staged = stage(&opened.journal, &[vec![3; 600]]);
    opened.stepper.step();
    assert_eq!(staged[0].0, lost[0].0, "in the place of the torn one");
    disk.kill();
    assert!(open(&disk, 4).unwrap().records == staged);
}

fn one_history(seed: u64) {
    let mut random = Random(seed);
    let disk = SimDisk::new(random.next());
    let mut model = Model::default();
    let mut clean = false;
    for _ in 0..LIVES {
        let (opened, undisturbed) = open_with_crashes(&disk, &mut random, seed);
        // A start that was cut short may have made a journal in use of it already.
        assert!(opened.recovery.clean || !clean || !undisturbed, "seed {seed}: a clean stop is recognised");
        model.check_recovered(&opened.records, seed);
        clean = one_life(opened, &disk, &mut model, &mut random, seed);
    }
}

/// Opens the journal, killed or cut at some point of a recovery now and then; says whether it was not.
fn open_with_crashes(disk: &SimDisk, random: &mut Random, seed: u64) -> (Opened, bool) {
    let twice = disk.fork();
    let first = open(&twice, random.next()).map(|opened| (opened.records, opened.recovery.end)).unwrap();
    twice.cut_power(Loss::Random);
    let second = open(&twice, random.next()).map(|opened| (opened.records, opened.recovery.end)).unwrap();
    assert!(first == second, "seed {seed}: recovering twice is recovering once");

    let mut undisturbed = true;
    while random.one_in(2) {
        undisturbed = false;
        if random.one_in(2) {
            disk.stop_after(random.below(12));
        } else {
            let call = [Call::Read, Call::Write, Call::Sync, Call::SyncDir, Call::Rename, Call::Create];
            disk.fail_after(call[random.below(6) as usize], random.below(3), std::io::ErrorKind::Other);
        }
        match open(disk, random.next()) {
            Ok(_) | Err(OpenError::Disk(_)) => {}
            Err(other) => panic!("seed {seed}: {other}"),
        }
        if random.one_in(2) {
            disk.kill();
        } else {
            disk.cut_power(Loss::Random);
        }
    }
    disk.kill();
    let opened = open(disk, random.next()).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    (opened, undisturbed)
}

/// Uses the journal until it is closed (returns true) or ends otherwise.
fn one_life(mut opened: Opened, disk: &SimDisk, model: &mut Model, random: &mut Random, seed: u64) -> bool {
    match random.below(4) {
        0 => disk.stop_after(disk.calls() + random.below(60)),
        1 => {
            let call = [Call::Write, Call::Sync, Call::SyncDir, Call::Rename][random.below(4) as usize];
            disk.fail_after(call, random.below(20), std::io::ErrorKind::Other);
        }
        2 => disk.fail_after(Call::Allocate, 0, std::io::ErrorKind::StorageFull),
        _ => {}
    }
    for _ in 0..random.below(40) {
        match random.below(8) {
            0..4 if opened.told.failed.lock().is_empty() => {
                let bytes_max = if random.one_in(8) { 1900 } else { 300 };
                let payloads: Vec<_> = (0..=random.below(4) / 2).map(|_| random.payload(bytes_max)).collect();
                model.groups.push(stage(&opened.journal, &payloads));
            }
            4..7 => {
                opened.stepper.step();
                model.note_synced(&opened);
            }
            _ => use_some_record(&opened, model, random),
        }
    }
    let closed = random.one_in(4) && opened.told.failed.lock().is_empty() && {
        let closed = opened.stepper.close().is_ok();
        model.durable = if closed { model.groups.len() } else { model.durable };
        assert_eq!(closed, opened.told.failed.lock().is_empty(), "seed {seed}");
        closed
    };
    drop(opened.journal);
    match random.below(6) {
        0 => disk.kill(),
        1 => disk.cut_power(Loss::Everything),
        2 => disk.cut_power(Loss::Earlier),
        3 => disk.cut_power(Loss::Nothing),
        _ => disk.cut_power(Loss::Random),
    }
    closed
}

/// Reads a record, or releases what is before it.
fn use_some_record(opened: &Opened, model: &mut Model, random: &mut Random) {
    let Some(index) = random.next().checked_rem(model.groups.len() as u64) else { return };
    let (position, kind, payload) = model.groups[index as usize].last().unwrap().clone();
    if position < model.released {
        return;
    }
    if random.one_in(3) {
        opened.journal.release_before(position);
        model.released = position;
        return;
    }
    match opened.journal.read(position) {
        Ok((found_kind, found)) => assert_eq!((found_kind, found.as_ref()), (kind, payload.as_slice())),
        Err(ReadError::Disk(_) | ReadError::Failed(_)) => {}
        Err(other) => panic!("{other}"),
    }
}
