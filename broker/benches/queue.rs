//! The rules of one queue: messages come in, are handed to a consumer, and are settled, in batches.
#![allow(clippy::unwrap_used, missing_docs, reason = "a bench, which ends with what fails")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use leveret_broker::queue::{ConsumerSpec, Credit, Effects, HolderId, Outlet, Settings, State, Verb};
use leveret_broker::store::{Head, Message};
use leveret_protocol::Table;

const BATCHES: [u64; 3] = [1, 64, 256];
/// Whatever the batches, so that all that is reused has its size.
const NOW_MS: u64 = 1_000_000;

struct Consumed {
    state: State,
    fx: Effects,
    holder: HolderId,
    outlet: Arc<Outlet>,
    /// The last tag that was handed out.
    tag: u64,
    no_ack: bool,
}

impl Consumed {
    fn new(no_ack: bool) -> Self {
        let settings = Settings::from_arguments(false, false, false, &Table::new()).unwrap();
        let mut state = State::new(settings, NOW_MS);
        let outlet = Arc::new(Outlet::new(1 << 20));
        let spec = ConsumerSpec {
            outlet: Arc::clone(&outlet),
            priority: 0,
            exclusive: false,
            no_ack,
            credit: Credit::Unsettled(1000),
        };
        let holder = state.subscribe(spec).unwrap();
        Self { state, fx: Effects::default(), holder, outlet, tag: 0, no_ack }
    }

    /// Lets a batch through.
    fn pass(&mut self, message: &Message, batch: u64) {
        for _ in 0..batch {
            black_box(self.state.enqueue(message.clone(), NOW_MS, &mut self.fx)).unwrap();
        }
        self.state.dispatch(NOW_MS, &mut self.fx);
        assert_eq!(self.fx.deliveries.len() as u64, batch);
        black_box(&self.fx).deliveries.iter().for_each(|delivery| self.tag = delivery.tag);
        self.fx.clear();
        let _ = self.outlet.sub(self.outlet.waiting());
        if !self.no_ack {
            let range = (self.tag + 1 - batch, self.tag);
            self.state.settle(self.holder, &[range], &Verb::Ack, &mut self.fx).unwrap();
            self.state.dispatch(NOW_MS, &mut self.fx);
            assert_eq!(black_box(&self.fx).gone.len() as u64, batch);
            self.fx.clear();
        }
    }
}

fn queue(criterion: &mut Criterion) {
    let message = Message::new(Head::default(), &[7; 256]);
    for (name, no_ack) in [("acked", false), ("no-ack", true)] {
        let mut group = criterion.benchmark_group(format!("queue/{name}"));
        for batch in BATCHES {
            let mut consumed = Consumed::new(no_ack);
            group.throughput(Throughput::Elements(batch));
            group.bench_function(BenchmarkId::from_parameter(batch), |bencher| {
                bencher.iter(|| consumed.pass(&message, batch));
            });
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(30);
    targets = queue
}
criterion_main!(benches);
