//! Whoever waits for a commit may commit by himself, while the commit thread rests.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "the lints excuse test functions, but not what they call"
)]

mod common;

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use common::{DIR, SEGMENT_BYTES, Told, options};
use leveret_journal::{
    Call, CommitError, Disk, Journal, Lead, Observer, Options, Position, RealDisk, Record, SimDisk,
    group_bytes,
};
use parking_lot::Mutex;

/// And the positions of the records that it has.
fn open(disk: Arc<dyn Disk>, options: Options) -> (Arc<Journal>, Arc<Told>, Vec<Position>) {
    let told = Arc::new(Told::default());
    let observer = Arc::clone(&told) as Arc<dyn Observer>;
    let mut positions = Vec::new();
    let mut replay = |record: Record<'_>| {
        positions.push(record.position);
        Ok(())
    };
    let (journal, _) = Journal::open(disk, options, observer, &mut replay).unwrap();
    (journal, told, positions)
}

fn stage(journal: &Journal, payload: &[u8]) -> Position {
    let mut group = journal.stage(group_bytes(1, payload.len())).unwrap();
    group.until_asked();
    group.append(1, &[payload]).unwrap()
}

/// Whether it could be committed here and now.
fn lead(journal: &Journal, bytes_max: usize) -> bool {
    journal.lead(bytes_max).map(Lead::commit).is_some()
}

/// Tries until the commit thread rests, which it does a moment after it has told of a commit.
fn commit_by_oneself(journal: &Journal) -> Position {
    for attempt in 0..1000 {
        let position = stage(journal, b"waited for");
        if lead(journal, SEGMENT_BYTES as usize) {
            return position;
        }
        while !journal.synced().covers(position) {
            thread::yield_now();
        }
        (0..attempt).for_each(|_| thread::yield_now());
    }
    panic!("the commit thread never rests");
}

#[test]
fn who_commits_by_himself_finds_it_on_disk_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, told, _) = open(Arc::new(RealDisk), options(dir.path(), 1));
    let position = commit_by_oneself(&journal);
    assert!(journal.synced().covers(position));
    assert!(told.committed.lock().last().unwrap().covers(position), "others are told");
}

#[test]
fn more_than_a_little_is_left_to_the_commit_thread() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, ..) = open(Arc::new(RealDisk), options(dir.path(), 1));
    for _ in 0..100 {
        let position = stage(&journal, &[0; 200]);
        assert!(!lead(&journal, 100));
        while !journal.synced().covers(position) {
            thread::yield_now();
        }
    }
}

#[test]
fn threads_that_commit_in_each_others_way_lose_nothing_and_segments_come_and_go() {
    const THREADS: u64 = 4;
    const RECORDS: u64 = 400;
    let dir = tempfile::tempdir().unwrap();
    let (journal, told, _) = open(Arc::new(RealDisk), options(dir.path(), 1));
    let staged = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for number in 0..THREADS {
            let (journal, staged) = (&journal, &staged);
            scope.spawn(move || {
                for record in 0..RECORDS {
                    let position = stage(journal, &[number as u8; 300]);
                    staged.lock().push(position);
                    while !journal.synced().covers(position) {
                        if !lead(journal, if record % 2 == 0 { 4000 } else { 0 }) {
                            thread::yield_now();
                        }
                    }
                    if number == 0 && record % 50 == 49 {
                        journal.release_before(position);
                    }
                }
            });
        }
    });
    assert!(told.committed.lock().is_sorted(), "told in order");
    let stats = journal.stats();
    assert!(stats.segments_recycled > 0, "{stats:?}");
    journal.close().unwrap();
    drop(journal);
    let (journal, _, kept) = open(Arc::new(RealDisk), options(dir.path(), 2));
    let mut staged = staged.into_inner();
    staged.sort();
    assert!(!kept.is_empty() && staged.ends_with(&kept), "all but what was released");
    journal.close().unwrap();
}

#[test]
fn a_sync_that_fails_for_whom_it_is_done_by_is_final_for_all() {
    let disk = SimDisk::new(1);
    let (journal, told, _) = open(Arc::new(disk.clone()), options(Path::new(DIR), 1));
    commit_by_oneself(&journal);
    disk.fail_after(Call::Sync, 0, ErrorKind::Other);
    // Whoever of the two it is that meets the failure.
    let position = loop {
        let Ok(mut group) = journal.stage(group_bytes(1, 10)) else { break journal.end() };
        group.until_asked();
        let position = group.append(1, &[b"waited for"]).unwrap();
        drop(group);
        if lead(&journal, SEGMENT_BYTES as usize) {
            break position;
        }
        thread::yield_now();
    };
    assert!(!journal.synced().covers(position));
    assert!(journal.stage(8).is_err());
    // The commit thread ends, too, or this would never return.
    assert!(matches!(journal.close(), Err(CommitError::Disk(_))));
    assert_eq!(told.failed.lock().len(), 1, "told once");
}

#[test]
fn a_lead_that_is_given_up_leaves_its_commit_to_the_commit_thread() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, ..) = open(Arc::new(RealDisk), options(dir.path(), 1));
    for _ in 0..20 {
        commit_by_oneself(&journal);
        let position = stage(&journal, b"waited for");
        drop(journal.lead(SEGMENT_BYTES as usize));
        while !journal.synced().covers(position) {
            thread::yield_now();
        }
    }
    journal.close().unwrap();
}
