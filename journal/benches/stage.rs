//! Staging and sealing: what a record costs before the disk is asked, checksums included.
#![allow(clippy::unwrap_used, missing_docs, reason = "a bench, which ends with what fails")]

use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use leveret_journal::{CommitError, Journal, Observer, Options, Sink, Synced, group_bytes};

/// Records in a group, and groups in a commit: as a busy broker has them.
const RECORDS: usize = 256;

struct Nobody;

impl Observer for Nobody {
    fn committed(&self, _: Synced) {}
    fn failed(&self, _: &CommitError) {}
}

fn stage(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("journal/stage-and-seal");
    for record_bytes in [256, 1024] {
        let options = Options::new("journal", 1);
        let (journal, mut stepper, _) =
            Journal::open_stepped(Arc::new(Sink), options, Arc::new(Nobody), &mut |_| Ok(())).unwrap();
        let payload = vec![7; record_bytes];
        group.throughput(Throughput::Bytes((RECORDS * record_bytes) as u64));
        group.bench_function(BenchmarkId::from_parameter(record_bytes), |bencher| {
            bencher.iter(|| {
                let mut group = journal.stage(group_bytes(RECORDS, RECORDS * record_bytes)).unwrap();
                for _ in 0..RECORDS {
                    group.append(1, &[&payload]).unwrap();
                }
                let end = group.end();
                drop(group);
                while stepper.step() {}
                assert!(journal.synced().reaches(end));
                journal.release_before(end);
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(30);
    targets = stage
}
criterion_main!(benches);
