//! What the journal promises while nothing goes wrong, mostly with its thread and on a real disk.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "the lints excuse test functions, but not what they call"
)]

mod common;

use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;

use common::{DIR, Opened, Random, SEGMENT_BYTES, Stored, Told, open, options, stage};
use leveret_journal::{
    CommitError, Journal, Observer, OpenError, Options, Position, ReadError, RealDisk, SimDisk, StageError,
    Synced, group_bytes,
};
use parking_lot::{Condvar, Mutex};
use proptest::prelude::*;

/// Lets a test wait for the commit thread.
#[derive(Default)]
struct Waiting {
    synced: Mutex<Option<Synced>>,
    changed: Condvar,
}

impl Waiting {
    fn until_covered(&self, position: Position) {
        let mut synced = self.synced.lock();
        while !synced.is_some_and(|synced| synced.covers(position)) {
            self.changed.wait(&mut synced);
        }
    }
}

impl Observer for Waiting {
    fn committed(&self, synced: Synced) {
        *self.synced.lock() = Some(synced);
        self.changed.notify_all();
    }

    fn failed(&self, error: &CommitError) {
        panic!("{error}");
    }
}

fn open_real(
    options: Options,
    observer: Arc<dyn Observer>,
) -> Result<(Arc<Journal>, Vec<Stored>, bool), OpenError> {
    let mut records = Vec::new();
    let (journal, recovery) = Journal::open(Arc::new(RealDisk), options, observer, &mut |record| {
        records.push((record.position, record.kind, record.payload.to_vec()));
        Ok(())
    })?;
    Ok((journal, records, recovery.clean))
}

#[test]
fn what_is_closed_is_replayed_when_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random(3);
    let mut staged = Vec::new();
    for _ in 0..3 {
        let waiting = Arc::new(Waiting::default());
        let observer = Arc::clone(&waiting) as Arc<dyn Observer>;
        let (journal, records, clean) =
            open_real(options(&dir.path().join("a/b"), random.next()), observer).unwrap();
        assert!(clean);
        assert!(records == staged);
        for _ in 0..50 {
            let payloads: Vec<_> = (0..random.below(3)).map(|_| random.payload(1000)).collect();
            staged.extend(stage(&journal, &payloads));
        }
        waiting.until_covered(staged.last().unwrap().0);
        for (position, kind, payload) in &staged {
            assert_eq!(journal.read(*position).unwrap(), (*kind, payload.clone().into()));
        }
        staged.extend(stage(&journal, &[b"not waited for".to_vec()]));
        journal.close().unwrap();
        assert!(journal.synced().covers(staged.last().unwrap().0));
        assert_eq!(journal.staged_bytes(), 0);
    }
}

#[test]
fn what_was_synced_is_replayed_after_a_drop_without_close() {
    let dir = tempfile::tempdir().unwrap();
    let waiting = Arc::new(Waiting::default());
    let observer = Arc::clone(&waiting) as Arc<dyn Observer>;
    let (journal, ..) = open_real(options(dir.path(), 1), observer).unwrap();
    let staged = stage(&journal, &[vec![1; 3000], vec![2; 900]]);
    waiting.until_covered(staged[1].0);
    drop(journal);
    let (_journal, records, clean) = open_real(options(dir.path(), 2), Arc::new(Told::default())).unwrap();
    assert!(!clean);
    assert!(records == staged);
}

#[test]
fn only_one_may_have_the_journal_open() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, ..) = open_real(options(dir.path(), 1), Arc::new(Told::default())).unwrap();
    let second = open_real(options(dir.path(), 1), Arc::new(Told::default()));
    assert!(matches!(second, Err(OpenError::Locked { dir: refused }) if refused == dir.path()));
    drop(journal);
    open_real(options(dir.path(), 1), Arc::new(Told::default())).unwrap();
}

#[test]
fn records_of_several_threads_keep_their_order() {
    const THREADS: u8 = 4;
    const GROUPS: u32 = 300;
    let dir = tempfile::tempdir().unwrap();
    let (journal, ..) = open_real(options(dir.path(), 1), Arc::new(Told::default())).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let journal = &journal;
            scope.spawn(move || {
                let mut last = Position::default();
                for count in 0..GROUPS {
                    let mut group = journal.stage(group_bytes(2, 8)).unwrap();
                    let first = group.append(thread, &[&count.to_le_bytes()]).unwrap();
                    let second = group.append(thread, &[&count.to_le_bytes()]).unwrap();
                    assert!(last < first && second.0 == first.0 + 16 && first.0.is_multiple_of(8));
                    assert!(second < group.end());
                    last = second;
                }
            });
        }
    });
    journal.close().unwrap();
    drop(journal);
    let (_journal, records, _) = open_real(options(dir.path(), 2), Arc::new(Told::default())).unwrap();
    for thread in 0..THREADS {
        let counts = records.iter().filter(|record| record.1 == thread).map(|record| record.2.clone());
        let expected = (0..GROUPS).flat_map(|count| [count, count]).map(|count| count.to_le_bytes().to_vec());
        assert!(counts.eq(expected), "thread {thread}");
    }
}

#[test]
fn a_group_must_fit_what_was_announced_and_a_segment() {
    let Opened { journal, mut stepper, .. } = open(&SimDisk::new(1), 1).unwrap();
    let limit = SEGMENT_BYTES as usize - 4096 - 48;
    assert!(
        matches!(journal.stage(limit + 1).err(), Some(StageError::TooLarge { limit: found, .. }) if found == limit)
    );
    let whole = stage(&journal, &[vec![5; limit - 19]]);
    stepper.step();
    assert_eq!(journal.read(whole[0].0).unwrap().1.len(), limit - 19);

    let mut group = journal.stage(group_bytes(1, 10)).unwrap();
    let void = group.append(1, &[b"0123456789"]).unwrap();
    assert!(matches!(group.append(1, &[b""]), Err(StageError::TooLarge { .. })));
    drop(group);
    assert_eq!(journal.staged_bytes(), 0);
    assert!(matches!(journal.read(void), Err(ReadError::NoRecord { .. })), "a void group leaves nothing");
    assert_eq!(stage(&journal, &[vec![]])[0].0, void);
}

#[test]
fn a_panic_in_the_middle_of_a_group_leaves_nothing_of_it() {
    let Opened { journal, .. } = open(&SimDisk::new(1), 1).unwrap();
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| {
        let mut group = journal.stage(100).unwrap();
        group.append(1, &[b"half"]).unwrap();
        std::panic::resume_unwind(Box::new(()));
    }));
    assert!(outcome.is_err());
    assert_eq!(journal.staged_bytes(), 0);
}

#[test]
fn room_ends_at_the_limit_and_returns_with_the_commit() {
    let disk = SimDisk::new(1);
    let options = Options { staged_bytes_max: 1000, ..options(Path::new(DIR), 1) };
    let (journal, mut stepper, _) =
        Journal::open_stepped(Arc::new(disk), options, Arc::new(Told::default()), &mut |_| Ok(())).unwrap();
    stage(&journal, &[vec![0; 900]]);
    assert!(journal.has_room());
    stage(&journal, &[vec![0; 900]]);
    assert!(!journal.has_room());
    stepper.step();
    assert!(journal.has_room());
}

/// Looks for room when it is told of a commit, as a publisher that waits does.
#[derive(Default)]
struct Looking {
    journal: std::sync::OnceLock<std::sync::Weak<Journal>>,
    found: Mutex<Vec<bool>>,
}

impl Observer for Looking {
    fn committed(&self, _: Synced) {
        let journal = self.journal.get().and_then(std::sync::Weak::upgrade).unwrap();
        self.found.lock().push(journal.has_room());
    }

    fn failed(&self, error: &CommitError) {
        panic!("{error}");
    }
}

#[test]
fn who_is_told_of_a_commit_finds_the_room_that_it_made() {
    let looking = Arc::new(Looking::default());
    let options = Options { staged_bytes_max: 1000, ..options(Path::new(DIR), 1) };
    let observer = Arc::clone(&looking) as Arc<dyn Observer>;
    let (journal, mut stepper, _) =
        Journal::open_stepped(Arc::new(SimDisk::new(1)), options, observer, &mut |_| Ok(())).unwrap();
    looking.journal.set(Arc::downgrade(&journal)).unwrap();
    stage(&journal, &[vec![0; 2000]]);
    assert!(!journal.has_room());
    stepper.step();
    assert_eq!(*looking.found.lock(), [true]);
}

#[test]
fn a_staged_record_is_read_from_memory() {
    let Opened { journal, .. } = open(&SimDisk::new(1), 1).unwrap();
    for (position, kind, payload) in stage(&journal, &[vec![1; 5000 / 2], vec![2; 300]]) {
        assert_eq!(journal.read(position).unwrap(), (kind, payload.into()));
    }
    let beyond = journal.end();
    assert!(matches!(journal.read(beyond), Err(ReadError::NoRecord { .. })));
}

#[test]
fn a_group_that_may_wait_is_on_disk_soon_although_nobody_asks_and_at_once_if_somebody_does() {
    let dir = tempfile::tempdir().unwrap();
    let waiting = Arc::new(Waiting::default());
    let observer = Arc::clone(&waiting) as Arc<dyn Observer>;
    let (journal, ..) = open_real(options(dir.path(), 1), observer).unwrap();
    let stage = |may_wait: bool| {
        let mut group = journal.stage(group_bytes(1, 8)).unwrap();
        if may_wait {
            group.may_wait();
        }
        group.append(1, &[b"settled!"]).unwrap()
    };
    waiting.until_covered(stage(true));
    let asked_for = stage(true);
    journal.hurry();
    waiting.until_covered(asked_for);
    // It goes with what comes behind it, which does not wait.
    stage(true);
    waiting.until_covered(stage(false));
}

#[test]
fn released_segments_are_reused_and_the_disk_stays_bounded() {
    let disk = SimDisk::new(1);
    let Opened { journal, mut stepper, .. } = open(&disk, 1).unwrap();
    let mut last = Vec::new();
    for round in 0..200_u8 {
        let first = stage(&journal, &[vec![round; 3000]])[0].clone();
        stepper.step();
        last.push(first);
        if let Some((kept, _, _)) = last.iter().rev().nth(2) {
            journal.release_before(*kept);
        }
        while stepper.step() {}
        assert!(disk.used_bytes() <= 8 * SEGMENT_BYTES, "round {round}: {} bytes", disk.used_bytes());
    }
    let stats = journal.stats();
    assert!(stats.segments <= 4 && stats.segments_created <= 4 && stats.segments_recycled > 150, "{stats:?}");
    assert!(matches!(journal.read(last[0].0), Err(ReadError::Released { .. })));
    stepper.close().unwrap();
    drop(journal);
    let opened = open(&disk, 1).unwrap();
    assert!(opened.records == last[last.len() - opened.records.len()..] && opened.records.len() >= 3);
}

#[test]
fn a_release_waits_for_what_was_staged_before_it() {
    let disk = SimDisk::new(1);
    let Opened { journal, mut stepper, .. } = open(&disk, 1).unwrap();
    stage(&journal, &[vec![1; 3000]]);
    stage(&journal, &[vec![2; 3000]]);
    while stepper.step() {}
    let copy = stage(&journal, &[b"copied forward".to_vec()]);
    journal.release_before(copy[0].0);
    disk.fail_after(leveret_journal::Call::Sync, 0, std::io::ErrorKind::Other);
    while stepper.step() {}
    assert_eq!(disk.calls_of(leveret_journal::Call::Rename), 3, "three segments made, none taken away");
}

#[test]
fn another_segment_size_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(open_real(options(dir.path(), 1), Arc::new(Told::default())).unwrap());
    let other = Options { segment_bytes: 2 * SEGMENT_BYTES, ..options(dir.path(), 1) };
    let refused = open_real(other, Arc::new(Told::default()));
    assert!(matches!(refused, Err(OpenError::OtherSegmentBytes { found: SEGMENT_BYTES, .. })));
    for segment_bytes in [0, 4096, 10_000, 2 << 30] {
        let bad = Options { segment_bytes, ..options(dir.path(), 1) };
        assert!(matches!(open_real(bad, Arc::new(Told::default())), Err(OpenError::SegmentBytes { .. })));
    }
}

#[test]
fn a_record_that_cannot_be_replayed_stops_the_opening() {
    let disk = SimDisk::new(1);
    let Opened { journal, stepper, .. } = open(&disk, 1).unwrap();
    let staged = stage(&journal, &[b"a".to_vec(), b"b".to_vec()]);
    stepper.close().unwrap();
    drop(journal);
    let refused = Journal::open_stepped(
        Arc::new(disk),
        options(Path::new(DIR), 1),
        Arc::new(Told::default()),
        &mut |record| if record.payload == b"b" { Err("no".into()) } else { Ok(()) },
    );
    assert!(matches!(refused.err(), Some(OpenError::Replay { position, .. }) if position == staged[1].0));
}

#[test]
fn a_panicking_observer_stops_the_journal_and_is_named() {
    struct Panicking;
    impl Observer for Panicking {
        fn committed(&self, _: Synced) {
            std::panic::resume_unwind(Box::new(()));
        }
        fn failed(&self, _: &CommitError) {}
    }
    let dir = tempfile::tempdir().unwrap();
    let (journal, ..) = open_real(options(dir.path(), 1), Arc::new(Panicking)).unwrap();
    stage(&journal, &[vec![]]);
    assert!(matches!(journal.close(), Err(CommitError::Panicked)));
    assert!(matches!(journal.stage(1).err(), Some(StageError::Failed(CommitError::Panicked))));
}

proptest! {
    #[test]
    fn any_groups_come_back_as_they_were_staged(
        groups in proptest::collection::vec(proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..600), 0..6), 0..40),
        steps in proptest::collection::vec(any::<bool>(), 40),
    ) {
        let disk = SimDisk::new(1);
        let Opened { journal, mut stepper, .. } = open(&disk, 1).unwrap();
        let mut staged = Vec::new();
        for (group, step) in groups.iter().zip(steps) {
            staged.extend(stage(&journal, group));
            if step {
                stepper.step();
            }
        }
        stepper.close().unwrap();
        drop(journal);
        prop_assert!(open(&disk, 1).unwrap().records == staged);
    }
}
