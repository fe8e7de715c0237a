//! A topic exchange with 100 000 bindings: routes that are walked and routes that are remembered; bind; and the end of a
//! queue that has all of them.
#![allow(clippy::unwrap_used, missing_docs, reason = "a bench, which ends with what fails")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use leveret_broker::exchange::{Binding, Destination, Publisher, Routable, Route, RouteCache, Router};
use leveret_broker::store::QueueId;
use leveret_protocol::{ExchangeName, QueueName, RoutingKey, Table};

const BINDINGS: usize = 100_000;
const QUEUES: usize = 1000;
const EXCHANGE: &str = "amq.topic";
/// How many different keys the cache is asked for: fewer than it has places.
const HOT_KEYS: usize = 100;

/// `N` is the number of the binding.
const PATTERNS: [(&str, &str); 3] = [("exact", "a.b.N"), ("star", "*.b.N"), ("hash", "a.#.N")];

fn binding(pattern: &str, number: usize, queue: usize) -> Binding {
    Binding {
        source: ExchangeName::new(EXCHANGE).unwrap(),
        destination: Destination::Queue(QueueId(queue as u64)),
        key: RoutingKey::new(pattern.replace('N', &number.to_string())).unwrap(),
        arguments: Table::new(),
    }
}

/// A router with all bindings of these patterns, one after the other, to so many queues.
fn router(patterns: &[(&str, &str)], queues: usize) -> Router {
    let mut router = Router::new();
    for queue in 0..queues {
        let name = QueueName::new(format!("queue-{queue}")).unwrap();
        assert!(router.add_queue(&name, QueueId(queue as u64)));
    }
    for (number, (_, pattern)) in (0..BINDINGS).zip(patterns.iter().cycle()) {
        assert!(router.bind(binding(pattern, number / patterns.len(), number % queues)).unwrap());
    }
    router
}

/// Keys in an order that no cache of the processor foresees.
fn keys(numbers: usize) -> Vec<String> {
    (0..numbers).map(|number| format!("a.b.{}", number * 7919 % numbers)).collect()
}

fn route<'a>(router: &Router, key: &str, route: &'a mut Route) -> &'a [QueueId] {
    let headers = Box::new(Table::new());
    let message = Routable { key, further_keys: &[], headers: &headers };
    router.route(Publisher::Client, EXCHANGE, &message, route).unwrap();
    route.queues()
}

fn routes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("topic");
    group.throughput(Throughput::Elements(1));
    let mixed = ("mixed", PATTERNS.as_slice());
    let all = PATTERNS.iter().map(|pattern| (pattern.0, std::slice::from_ref(pattern))).chain([mixed]);
    for (name, patterns) in all {
        let router = router(patterns, QUEUES);
        let keys = keys(BINDINGS / patterns.len());
        let mut memory = Route::default();
        let mut next = keys.iter().cycle();
        group.bench_function(format!("uncached/{name}"), |bencher| {
            bencher.iter(|| {
                let found = route(&router, next.next().unwrap(), &mut memory);
                assert_eq!(black_box(found).len(), patterns.len());
            });
        });
    }
    let router = router(&PATTERNS, QUEUES);
    let keys = keys(HOT_KEYS);
    let mut memory = Route::default();
    let mut cache = RouteCache::<Arc<[QueueId]>>::default();
    let mut next = keys.iter().cycle();
    let mut missed = 0_u64;
    group.bench_function("cached", |bencher| {
        bencher.iter(|| {
            let key = next.next().unwrap();
            let generation = router.generation();
            if let Some(found) = cache.get(generation, EXCHANGE, key) {
                return Arc::clone(black_box(found));
            }
            missed += 1;
            let found = Arc::<[QueueId]>::from(route(&router, key, &mut memory));
            cache.insert(generation, EXCHANGE, key, Arc::clone(&found));
            found
        });
    });
    group.finish();
}

fn changes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("topic");
    group.throughput(Throughput::Elements(BINDINGS as u64)).sample_size(10);
    group.bench_function("bind", |bencher| bencher.iter_with_large_drop(|| router(&PATTERNS, QUEUES)));
    group.bench_function("remove-queue", |bencher| {
        let bound = || router(&PATTERNS, 1);
        let remove = |router: &mut Router| {
            let removed = router.remove_queue(QueueId(0));
            assert_eq!(removed.bindings.len(), BINDINGS);
            removed
        };
        bencher.iter_batched_ref(bound, remove, BatchSize::PerIteration);
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(30);
    targets = routes, changes
}
criterion_main!(benches);
