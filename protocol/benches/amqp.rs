//! The AMQP codec's hot path: the three frames of a publish are read, those of a delivery are written.
#![allow(clippy::unwrap_used, missing_docs, reason = "a bench, which ends with what fails")]

use std::hint::black_box;
use std::time::Duration;

use bytes::BytesMut;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use leveret_protocol::amqp::basic::{self, Basic};
use leveret_protocol::amqp::{
    Assembled, Assembler, BasicProperties, Frame, Method, WholePublish, put_body, put_deliver, put_header,
    put_method,
};

const BODY: [u8; 256] = [7; 256];
const FRAME_MAX: usize = 131_072;
/// In one read, say.
const MESSAGES: usize = 256;

fn persistent() -> bytes::Bytes {
    BasicProperties { delivery_mode: Some(2), ..BasicProperties::default() }.to_bytes()
}

fn publish(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("amqp");
    group.throughput(Throughput::Elements(MESSAGES as u64));
    let mut buffer = BytesMut::new();
    for _ in 0..MESSAGES {
        let publish =
            basic::Publish { exchange: "", routing_key: "orders", mandatory: false, immediate: false };
        put_method(&mut buffer, 1, publish);
        put_header(&mut buffer, 1, BODY.len() as u64, &persistent());
        put_body(&mut buffer, 1, FRAME_MAX, &BODY);
    }
    group.bench_function("decode-publish/whole", |bencher| {
        bencher.iter(|| {
            let (mut rest, mut messages) = (buffer.as_ref(), 0);
            while let Some(whole) = WholePublish::peek(rest, FRAME_MAX, 1 << 20) {
                let properties = BasicProperties::decode(whole.properties).unwrap();
                let attributes = properties.publish_attributes().unwrap();
                messages += usize::from(black_box(attributes).persistent);
                rest = rest.get(whole.bytes..).unwrap();
            }
            assert_eq!(messages, MESSAGES);
        });
    });
    group.bench_function("decode-publish/frames", |bencher| {
        bencher.iter_batched(
            || buffer.clone(),
            |mut buffer| {
                let mut assembler = Assembler::default();
                let mut messages = 0;
                while let Some(frame) = Frame::decode(&mut buffer, FRAME_MAX).unwrap() {
                    match assembler.accept(frame, 1 << 20).unwrap() {
                        Assembled::Method(payload) => {
                            let method = Method::decode(&payload).unwrap();
                            assert!(matches!(black_box(method), Method::Basic(Basic::Publish(_))));
                            assembler.expect_content();
                        }
                        Assembled::Content(content) => {
                            let properties = BasicProperties::decode(&content.properties).unwrap();
                            let attributes = properties.publish_attributes().unwrap();
                            messages += usize::from(black_box(attributes).persistent);
                        }
                        Assembled::Incomplete => {}
                    }
                }
                assert_eq!(messages, MESSAGES);
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn deliver(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("amqp");
    group.throughput(Throughput::Elements(MESSAGES as u64));
    let properties = persistent();
    let mut buffer = BytesMut::new();
    group.bench_function("encode-deliver", |bencher| {
        bencher.iter(|| {
            buffer.clear();
            for delivery_tag in 0..MESSAGES as u64 {
                let deliver = basic::Deliver {
                    consumer_tag: "ctag1.0123456789abcdef",
                    delivery_tag,
                    redelivered: false,
                    exchange: "",
                    routing_key: "orders",
                };
                put_deliver(black_box(&mut buffer), 1, &deliver, &properties, BODY.len() as u64);
                put_body(&mut buffer, 1, FRAME_MAX, &BODY);
            }
            assert!(buffer.len() > MESSAGES * BODY.len());
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
