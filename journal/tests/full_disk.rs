//! A full disk holds the journal up and does not end it: it says so in time, and goes on by itself.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "the lints excuse test functions, but not what they call"
)]

mod common;

use std::path::Path;
use std::sync::Arc;

use common::{DIR, Opened, SEGMENT_BYTES, Stored, Told, open, open_as, options, stage};
use leveret_journal::{CommitError, Journal, Loss, Observer, Options, Position, SimDisk};

fn step_all(opened: &mut Opened) {
    while opened.stepper.step() {}
}

/// Stages records of 900 bytes, each committed at once, while `more` says so.
fn fill(opened: &mut Opened, records: &mut Vec<Stored>, mut more: impl FnMut(&Opened) -> bool) {
    while more(opened) {
        records.extend(stage(&opened.journal, &[vec![7; 900]]));
        step_all(opened);
    }
}

fn is_held_up(opened: &Opened) -> bool {
    !opened.journal.synced().reaches(opened.journal.end())
}

#[test]
fn short_of_room_is_said_while_all_that_may_be_staged_still_has_a_place() {
    for segments in 3..9 {
        let disk = SimDisk::new(1);
        disk.set_capacity(segments * SEGMENT_BYTES);
        let staged_bytes_max = 2 * SEGMENT_BYTES as usize;
        let options = Options { staged_bytes_max, ..options(Path::new(DIR), 1) };
        let mut opened = open_as(Arc::new(disk.clone()), options).unwrap();
        step_all(&mut opened);
        let mut records = Vec::new();
        fill(&mut opened, &mut records, |opened| opened.told.short.lock().is_empty());
        assert_eq!(*opened.told.short.lock(), [true]);
        // Producers are told; what they have staged by then is as much as may be.
        let before = opened.journal.end();
        fill(&mut opened, &mut records, |opened| {
            opened.journal.end().0 - before.0 < staged_bytes_max as u64 * 3 / 4
        });
        assert!(segments < 5 || !is_held_up(&opened), "{segments} segments");
        assert!(opened.told.failed.lock().is_empty());
    }
}

#[test]
fn nothing_is_lost_on_a_full_disk_and_it_goes_on_when_there_is_room() {
    for give_room in [true, false] {
        let disk = SimDisk::new(1);
        disk.set_capacity(6 * SEGMENT_BYTES);
        let mut opened = open(&disk, 1).unwrap();
        let mut records = Vec::new();
        fill(&mut opened, &mut records, |opened| !is_held_up(opened));
        let synced = opened.journal.synced();
        records.extend(stage(&opened.journal, &[b"waits".to_vec()]));
        assert!(!opened.stepper.step() && is_held_up(&opened));
        // What waits can be read, and what is synced is as good as ever.
        let last = records.last().unwrap();
        assert_eq!(opened.journal.read(last.0).unwrap().1, b"waits".as_slice());
        assert_eq!(opened.journal.synced(), synced);
        assert!(opened.told.failed.lock().is_empty());
        if give_room {
            disk.set_capacity(12 * SEGMENT_BYTES);
            step_all(&mut opened);
            assert!(!is_held_up(&opened));
            assert_eq!(*opened.told.short.lock(), [true, false], "and producers are told again");
        } else {
            records.retain(|record| synced.covers(record.0));
        }
        drop(opened);
        disk.cut_power(Loss::Everything);
        // An opening after an unclean end makes one file, and all that was kept ready for that is used up.
        disk.set_capacity(20 * SEGMENT_BYTES);
        assert!(open(&disk, 2).unwrap().records == records, "room: {give_room}");
    }
}

#[test]
fn released_segments_are_room() {
    let disk = SimDisk::new(1);
    disk.set_capacity(6 * SEGMENT_BYTES);
    let mut opened = open(&disk, 1).unwrap();
    let mut records = Vec::new();
    for round in 0..20 {
        let said = opened.told.short.lock().len();
        fill(&mut opened, &mut records, |opened| opened.told.short.lock().len() == said);
        assert!(!is_held_up(&opened), "round {round}: the reserve is still there");
        opened.journal.release_before(records[records.len() - 1].0);
        step_all(&mut opened);
        assert_eq!(opened.told.short.lock().last(), Some(&false), "round {round}");
        assert!(disk.used_bytes() <= 6 * SEGMENT_BYTES);
    }
    assert!(opened.told.failed.lock().is_empty());
}

#[test]
fn no_two_files_that_are_kept_have_one_name() {
    // Many kept ready, and some segments that come and go: in the end every number has been a spare and a segment.
    let disk = SimDisk::new(1);
    let staged_bytes_max = 3 * SEGMENT_BYTES as usize;
    let options = Options { staged_bytes_max, ..options(Path::new(DIR), 1) };
    let mut opened = open_as(Arc::new(disk.clone()), options).unwrap();
    let mut records = Vec::new();
    for round in 0..60 {
        let until = records.len() + 3 + round % 11;
        let mut count = records.len();
        fill(&mut opened, &mut records, |_| {
            count += 1;
            count <= until
        });
        opened.journal.release_before(records[records.len() - 1 - round % 7].0);
        step_all(&mut opened);
        assert!(opened.told.failed.lock().is_empty(), "round {round}: {:?}", opened.told.failed.lock());
        let spares =
            disk.files().iter().filter(|file| file.extension().is_some_and(|e| e == "spare")).count();
        assert!(spares >= 4, "round {round}: {spares} spares, and the next segment");
    }
}

#[test]
fn what_is_to_stay_free_is_used_only_when_nothing_could_be_committed_without() {
    let disk = SimDisk::new(1);
    disk.set_capacity(10 * SEGMENT_BYTES);
    let options = Options { free_bytes_min: 4 * SEGMENT_BYTES, ..options(Path::new(DIR), 1) };
    let mut opened = open_as(Arc::new(disk.clone()), options).unwrap();
    let mut records = Vec::new();
    fill(&mut opened, &mut records, |opened| opened.told.short.lock().is_empty());
    assert_eq!(disk.used_bytes(), 6 * SEGMENT_BYTES);
    fill(&mut opened, &mut records, |opened| !is_held_up(opened));
    assert_eq!(disk.used_bytes(), 10 * SEGMENT_BYTES);
}

#[test]
fn a_journal_opens_on_a_disk_that_is_still_full() {
    let disk = SimDisk::new(1);
    disk.set_capacity(6 * SEGMENT_BYTES);
    let mut opened = open(&disk, 1).unwrap();
    let mut records = Vec::new();
    fill(&mut opened, &mut records, |opened| opened.told.short.lock().is_empty());
    drop(opened);
    disk.kill();
    disk.set_capacity(disk.used_bytes());
    let opened = open(&disk, 2).unwrap();
    assert!(opened.records == records && !opened.recovery.clean);
}

#[test]
fn the_commit_thread_waits_for_room_and_a_close_does_not() {
    for give_room in [true, false] {
        let disk = SimDisk::new(1);
        disk.set_capacity(3 * SEGMENT_BYTES);
        let told = Arc::new(Told::default());
        let observer = Arc::clone(&told) as Arc<dyn Observer>;
        let (journal, _) =
            Journal::open(Arc::new(disk.clone()), options(Path::new(DIR), 1), observer, &mut |_| Ok(()))
                .unwrap();
        let records: Vec<_> = (0..20).flat_map(|_| stage(&journal, &[vec![7; 900]])).collect();
        while told.short.lock().is_empty() {
            std::thread::yield_now();
        }
        let all: Position = journal.end();
        if give_room {
            disk.set_capacity(20 * SEGMENT_BYTES);
            while !journal.synced().reaches(all) {
                std::thread::yield_now();
            }
            journal.close().unwrap();
        } else {
            let Err(CommitError::Disk(error)) = journal.close() else { panic!("it has no room to close") };
            assert!(error.to_string().contains("could not allocate"), "{error}");
        }
        let synced = journal.synced();
        drop(journal);
        disk.cut_power(Loss::Everything);
        disk.set_capacity(20 * SEGMENT_BYTES);
        let kept: Vec<_> = records.into_iter().filter(|record| synced.covers(record.0)).collect();
        assert!(open(&disk, 2).unwrap().records == kept, "room: {give_room}");
    }
}
