//! What a message costs the broker's process, in microseconds of a processor, under both protocols and the same load.
//!
//! `cargo bench -p leveret-tests --bench cost [-- CASE [SECONDS]]`. Linux only: it reads `/proc`. The load is made of bytes
//! that were encoded before, and answers are hardly looked at, so that two processors are enough for both sides.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench, which ends with what fails")]
#![allow(clippy::disallowed_methods, clippy::cast_precision_loss, reason = "time is what it measures")]

mod amqp;
#[path = "../measured/mod.rs"]
mod measured;
mod native;

use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::measured::{Measured, served};

const SECONDS: u64 = 5;
/// Publishes that are under way: not confirmed yet, or not delivered yet if there are no confirms.
const WINDOW: u64 = 4096;
/// Publishes in one write.
const BATCH: u64 = 64;
const PREFETCH: u16 = 2000;
/// The kernel counts a process's time in hundredths of a second.
const TICKS_PER_SECOND: f64 = 100.0;

/// What is sent, and how it is settled.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    body_bytes: usize,
    /// Persistent and confirmed.
    persistent: bool,
    acks: Acks,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Acks {
    /// Deliveries count as settled.
    None,
    /// One for all that a read brought.
    Together,
    /// One for each.
    Each,
}

const CASES: [Case; 5] = [
    Case { name: "transient-16", body_bytes: 16, persistent: false, acks: Acks::None },
    Case { name: "transient-256", body_bytes: 256, persistent: false, acks: Acks::None },
    Case { name: "transient-acked-256", body_bytes: 256, persistent: false, acks: Acks::Together },
    Case { name: "persistent-256", body_bytes: 256, persistent: true, acks: Acks::Together },
    Case { name: "persistent-each-256", body_bytes: 256, persistent: true, acks: Acks::Each },
];

/// One side of a protocol, once its connection is open.
trait Wire: Send + 'static {
    /// Connects and opens channel 1.
    fn connect(address: SocketAddr, confirms: bool) -> Self;
    fn declare(&mut self, queue: &str, durable: bool);
    fn consume(&mut self, queue: &str, no_ack: bool);
    /// A publish, encoded.
    fn publish(queue: &str, case: Case) -> Vec<u8>;
    /// Reads once; gives how many publishes were confirmed.
    fn read_confirms(&mut self) -> u64;
    /// Reads once and settles; gives how many deliveries came.
    fn read_deliveries(&mut self, acks: Acks) -> u64;
    fn socket(&self) -> TcpStream;
}

/// What both ends of the load have done.
#[derive(Default)]
struct Progress {
    confirmed: AtomicU64,
    delivered: AtomicU64,
    over: AtomicBool,
}

#[tokio::main]
async fn main() {
    if served().await {
        return;
    }
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let wanted = arguments.first().cloned().unwrap_or_default();
    let seconds = arguments.get(1).map_or(SECONDS, |text| text.parse().unwrap());
    for case in CASES.into_iter().filter(|case| case.name.starts_with(&wanted)) {
        for (protocol, is_native) in [("native", true), ("amqp", false)] {
            let broker = Measured::start().await;
            let figures = tokio::task::block_in_place(|| {
                if is_native {
                    load::<native::Native>(&broker, broker.native, case, seconds)
                } else {
                    load::<amqp::Amqp>(&broker, broker.amqp, case, seconds)
                }
            });
            let Case { name, .. } = case;
            let Figures { messages, user_us, system_us } = figures;
            println!(
                "{name:20} {protocol:6} {messages:9.0} messages/s  {:.3} µs of the broker each: {user_us:.3} user, \
                 {system_us:.3} system",
                user_us + system_us
            );
        }
    }
}

struct Figures {
    /// Each second.
    messages: f64,
    user_us: f64,
    system_us: f64,
}

fn load<W: Wire>(broker: &Measured, address: SocketAddr, case: Case, seconds: u64) -> Figures {
    let queue = "load";
    let mut publisher = W::connect(address, case.persistent);
    publisher.declare(queue, case.persistent);
    let mut consumer = W::connect(address, false);
    consumer.consume(queue, case.acks == Acks::None);
    let batch = W::publish(queue, case).repeat(BATCH as usize);
    let progress = Progress::default();
    std::thread::scope(|scope| {
        let mut out = publisher.socket();
        scope.spawn(|| {
            while !progress.over.load(Ordering::Relaxed) {
                progress.delivered.fetch_add(consumer.read_deliveries(case.acks), Ordering::Relaxed);
            }
        });
        if case.persistent {
            scope.spawn(|| {
                while !progress.over.load(Ordering::Relaxed) {
                    progress.confirmed.fetch_add(publisher.read_confirms(), Ordering::Relaxed);
                }
            });
        }
        let begun = Instant::now();
        let (warm, end) = (Duration::from_secs(1), Duration::from_secs(1 + seconds));
        let done = || {
            let delivered = progress.delivered.load(Ordering::Relaxed);
            if case.persistent {
                delivered.min(progress.confirmed.load(Ordering::Relaxed))
            } else {
                delivered
            }
        };
        let mut sent = 0;
        let mut before = None;
        loop {
            let elapsed = begun.elapsed();
            if before.is_none() && elapsed >= warm {
                before = Some((elapsed, done(), times(broker)));
            }
            if elapsed >= end {
                break;
            }
            if sent < done() + WINDOW {
                std::io::Write::write_all(&mut out, &batch).unwrap();
                sent += BATCH;
            } else {
                std::thread::sleep(Duration::from_micros(100));
            }
        }
        let (since, done_before, [user_before, system_before]) = before.unwrap();
        let messages = (done() - done_before) as f64;
        let [user, system] = times(broker);
        let took = (begun + since).elapsed().as_secs_f64();
        // What is under way comes, so that both readers see the end.
        while done() < sent {
            std::thread::sleep(Duration::from_millis(1));
        }
        progress.over.store(true, Ordering::Relaxed);
        std::io::Write::write_all(&mut out, &batch).unwrap();
        let each = |before: f64, after: f64| (after - before) * 1e6 / messages;
        Figures {
            messages: messages / took,
            user_us: each(user_before, user),
            system_us: each(system_before, system),
        }
    })
}

/// How long the broker's process has worked, in seconds: its own code, and the system for it.
fn times(broker: &Measured) -> [f64; 2] {
    let stat = broker.read_proc("stat");
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let mut ticks = fields.split_whitespace().skip(11).map(|ticks| ticks.parse::<f64>().unwrap());
    [(); 2].map(|()| ticks.next().unwrap() / TICKS_PER_SECOND)
}
