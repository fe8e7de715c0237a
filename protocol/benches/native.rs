//! The native codec's hot path: a publish is read, a delivery is written.
#![allow(clippy::unwrap_used, missing_docs, reason = "a bench, which ends with what fails")]

use std::hint::black_box;
use std::time::Duration;

use bytes::BytesMut;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use leveret_protocol::{
    Deliver, DeliverParts, FRAME_BYTES_DEFAULT, Frame, Keys, Publish, PublishParts, Route,
};

const BODY: [u8; 256] = [7; 256];
/// In one read, say.
const FRAMES: usize = 256;

fn publish(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("native");
    group.throughput(Throughput::Elements(FRAMES as u64));
    let parts = PublishParts {
        route: Route::Named { exchange: "", routing_key: "orders" },
        mandatory: false,
        persistent: true,
        priority: None,
        ttl_ms: None,
        cc: &[],
        bcc: &[],
        properties: &[],
        body: &BODY,
    };
    let mut buffer = BytesMut::new();
    for _ in 0..FRAMES {
        parts.encode(1, &mut buffer);
    }
    group.bench_function("decode-publish", |bencher| {
        bencher.iter_batched(
            || buffer.clone(),
            |mut buffer| {
                let mut frames = 0;
                while let Some(frame) = Frame::decode(&mut buffer, FRAME_BYTES_DEFAULT).unwrap() {
                    let publish = Publish::decode(frame.flags, &frame.payload).unwrap();
                    frames += usize::from(black_box(publish).persistent);
                }
                assert_eq!(frames, FRAMES);
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn deliver(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("native");
    group.throughput(Throughput::Elements(FRAMES as u64));
    let mut buffer = BytesMut::new();
    group.bench_function("encode-deliver", |bencher| {
        bencher.iter(|| {
            buffer.clear();
            for tag in 0..FRAMES as u64 {
                let deliver = Deliver {
                    consumer: 1,
                    tag,
                    redelivered: None,
                    persistent: true,
                    priority: None,
                    ttl_ms: None,
                    published_at_ms: 1,
                    exchange: "",
                    routing_key: "orders",
                    cc: Keys::default(),
                    deaths: &[],
                    properties: &[],
                    body: &BODY,
                };
                DeliverParts { deliver, cc: std::iter::empty() }.encode(1, black_box(&mut buffer));
            }
            assert!(buffer.len() > FRAMES * BODY.len());
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(30);
    targets = publish, deliver
}
criterion_main!(benches);
