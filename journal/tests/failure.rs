//! After a failed write or sync nothing more is ever called synced.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "the lints excuse test functions, but not what they call"
)]

mod common;

use common::{Opened, open, stage};
use leveret_journal::{Call, CommitError, Loss, SimDisk, StageError};
use std::io::ErrorKind;

/// Commits single records across several segments until the disk fails at the given call; returns whether it did.
fn nothing_is_committed_after(call: Call, after: u64) -> bool {
    let disk = SimDisk::new(after);
    let Opened { journal, mut stepper, told, .. } = open(&disk, 1).unwrap();
    disk.fail_after(call, after, ErrorKind::Other);
    let mut staged = Vec::new();
    for _ in 0..12 {
        if !told.failed.lock().is_empty() {
            break;
        }
        staged.extend(stage(&journal, &[vec![0; 900]]));
        stepper.step();
        journal.release_before(staged[staged.len() / 2].0);
    }
    let failed = !told.failed.lock().is_empty();
    if failed {
        let (calls, synced, told_before) = (disk.calls(), journal.synced(), told.committed.lock().len());
        assert!(matches!(journal.stage(1).err(), Some(StageError::Failed(CommitError::Disk(_)))));
        assert!(!synced.reaches(journal.end()), "whoever waits for all that it wrote waits for ever");
        assert!(!stepper.step());
        assert!(matches!(stepper.close(), Err(CommitError::Disk(_))));
        assert_eq!(disk.calls(), calls, "the disk is left alone");
        assert_eq!((journal.synced(), told.committed.lock().len()), (synced, told_before));
        assert_eq!(told.failed.lock().len(), 1, "told once");
        drop(journal);
        // What was called synced is there, and what the failed sync left in the page cache is not believed twice.
        disk.kill();
        let first = open(&disk, 2).unwrap();
        let covered = staged.iter().filter(|record| synced.covers(record.0)).count();
        let kept_first = first.records.first().map_or(staged[0].0, |record| record.0);
        let released = staged.iter().position(|record| record.0 == kept_first).unwrap();
        assert!(first.records == staged[released..][..first.records.len()]);
        assert!(released + first.records.len() >= covered);
        let records = first.records.clone();
        drop(first);
        disk.cut_power(Loss::Everything);
        assert!(open(&disk, 3).unwrap().records == records);
    }
    failed
}

#[test]
fn nothing_is_committed_after_a_failed_sync() {
    let failures = (0..100).take_while(|after| nothing_is_committed_after(Call::Sync, *after)).count();
    assert!(failures > 12, "{failures} syncs were made to fail");
}

#[test]
fn nothing_is_committed_after_a_failed_write() {
    let failures = (0..100).take_while(|after| nothing_is_committed_after(Call::Write, *after)).count();
    assert!(failures > 12, "{failures} writes were made to fail");
}

#[test]
fn nothing_is_committed_after_a_failed_change_of_the_directory() {
    for call in [Call::Rename, Call::SyncDir] {
        let failures = (0..100).take_while(|after| nothing_is_committed_after(call, *after)).count();
        assert!(failures > 3, "{failures} times {call:?} was made to fail");
    }
}

#[test]
fn a_closed_journal_takes_no_more() {
    let Opened { journal, stepper, .. } = open(&SimDisk::new(1), 1).unwrap();
    stepper.close().unwrap();
    assert!(matches!(journal.stage(1).err(), Some(StageError::Closed)));
}
