//! One run: connections, threads, the measured time, the verdict.

use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::consumer::{Consumer, Got};
use super::frames::Frames;
use super::producer::{Pace, Producer, Sent};
use super::{Checker, Link, Protocol, verdict};
use crate::measure::clock::Clock;
use crate::measure::disk::DiskUsage;
use crate::measure::float;
use crate::measure::latency::{Latencies, Percentiles};
use crate::measure::process::{Cost, Usage};
use crate::progress::Progress;
use crate::workload::Plan;

/// What is observed during a run.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Subject<'a> {
    /// The broker's process.
    pub(crate) pid: Option<u32>,
    /// Where its data is: the disk's figures are given then.
    pub(crate) data: Option<&'a Path>,
}

/// Which part of a plan is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Producers and consumers at once; what is declared is removed.
    Both,
    /// Producers only.
    Fill,
    /// Consumers only, of what a `Fill` of the same plan left; what is declared is removed.
    Drain,
}

/// What came of a run. Rates and costs are those of the measured time; the counts are of all.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) published: u64,
    pub(crate) confirmed: u64,
    pub(crate) delivered: u64,
    /// How long was measured.
    pub(crate) seconds: f64,
    /// Deliveries a second.
    pub(crate) rate: f64,
    pub(crate) published_rate: f64,
    pub(crate) confirmed_rate: f64,
    /// From publish to delivery. In a closed loop, of the last message of each read; in an open loop of all, from the
    /// intended time.
    pub(crate) delivered_after: Option<Percentiles>,
    /// From publish to confirm. In a closed loop, of each write; in an open loop of all, from the intended time.
    pub(crate) confirmed_after: Option<Percentiles>,
    /// What the broker's process used for each message that was published and delivered.
    pub(crate) broker: Option<Cost>,
    /// The same of the generator.
    pub(crate) generator: Option<Cost>,
    /// What the disk did, whoever asked it.
    pub(crate) disk: Option<DiskUsage>,
    /// Deliveries that had been handed out before.
    pub(crate) redelivered: u64,
    /// When the first delivery came, in seconds of the clock that was given.
    pub(crate) first_delivery: Option<f64>,
}

/// What all threads of a run see.
pub(super) struct Shared {
    pub(super) clock: Clock,
    pub(super) published: AtomicU64,
    pub(super) confirmed: AtomicU64,
    /// Not those of a slow consumer.
    pub(super) delivered: AtomicU64,
    /// When the first delivery came, in nanoseconds.
    pub(super) first_at: AtomicU64,
    stopped: AtomicBool,
    measuring: AtomicBool,
    finished: AtomicBool,
    /// The first thing that went wrong, which makes others go wrong.
    failure: Mutex<Option<anyhow::Error>>,
}

impl Shared {
    fn new(clock: Clock, measuring: bool) -> Self {
        Self {
            clock,
            published: AtomicU64::new(0),
            confirmed: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            first_at: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            measuring: AtomicBool::new(measuring),
            finished: AtomicBool::new(false),
            failure: Mutex::new(None),
        }
    }

    /// Whether producers are to end.
    pub(super) fn stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Whether latencies count now.
    pub(super) fn measuring(&self) -> bool {
        self.measuring.load(Ordering::Relaxed)
    }

    /// Whether sockets are closed because all is done, or because something went wrong.
    pub(super) fn finished(&self) -> bool {
        self.finished.load(Ordering::Acquire)
    }

    fn keep<T>(&self, result: anyhow::Result<T>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.failure.lock().get_or_insert(error);
                None
            }
        }
    }
}

/// How often counts are looked at: how exact the end of a run with --messages is known.
const LOOK: Duration = Duration::from_millis(2);
/// After so long without a message the run is given up.
const STALL: Duration = Duration::from_secs(30);

/// Runs a plan against a broker.
pub(crate) fn run<P>(protocol: &P, plan: &Plan, subject: Subject<'_>) -> anyhow::Result<Outcome>
where
    P: Protocol,
{
    run_phase(protocol, plan, subject, Phase::Both, Clock::start())
}

/// Runs a part of a plan. Times count from the start of the clock.
pub(crate) fn run_phase<P>(
    protocol: &P,
    plan: &Plan,
    subject: Subject<'_>,
    phase: Phase,
    clock: Clock,
) -> anyhow::Result<Outcome>
where
    P: Protocol,
{
    if phase != Phase::Drain {
        protocol.prepare(plan)?;
    }
    let outcome = run_prepared(protocol, plan, subject, phase, clock);
    if phase == Phase::Fill {
        return outcome;
    }
    let cleaned = protocol.clean(plan);
    let outcome = outcome?;
    cleaned?;
    Ok(outcome)
}

fn run_prepared<P>(
    protocol: &P,
    plan: &Plan,
    subject: Subject<'_>,
    phase: Phase,
    clock: Clock,
) -> anyhow::Result<Outcome>
where
    P: Protocol,
{
    let mut sockets = Vec::new();
    let mut consumers = Vec::new();
    for consumer in 0..if phase == Phase::Fill { 0 } else { plan.consumers.len() } {
        let (link, deliveries) = protocol.consumer(plan, consumer)?;
        sockets.push(link.stream.try_clone()?);
        consumers.push(to_consume(plan, consumer, link, deliveries));
    }
    let mut producers = Vec::new();
    for producer in 0..if phase == Phase::Drain { 0 } else { plan.producers.len() } {
        let (link, confirms, lanes) = protocol.producer(plan, producer)?;
        sockets.push(link.stream.try_clone()?);
        producers.push(Producer {
            link,
            confirms,
            frames: Frames::new(&lanes, plan.streams.len()),
            window: plan.workload.window(),
            limit: plan.limit(producer),
            pace: None,
        });
    }
    let shared = Shared::new(clock, plan.workload.seconds.is_none());
    pace(plan, &mut producers, shared.clock);
    let (span, sent, got) = play(plan, &shared, (subject, phase), producers, consumers, &sockets);
    if let Some(failure) = shared.failure.lock().take() {
        return Err(failure);
    }
    let sent = if phase == Phase::Drain { vec![filled(plan)?] } else { sent };
    let mut outcome = conclude(plan, &span.context("nothing was measured")?, &sent, got, phase)?;
    let first_at = shared.first_at.load(Ordering::Relaxed);
    outcome.first_delivery = (first_at > 0).then(|| float(first_at) / 1e9);
    Ok(outcome)
}

fn to_consume<D>(plan: &Plan, consumer: usize, link: Link, deliveries: D) -> Consumer<D> {
    let queues = plan.consumers.get(consumer).map(Vec::as_slice).unwrap_or_default();
    let slow = plan.workload.slow.filter(|_| plan.is_slow(consumer));
    Consumer {
        link,
        deliveries,
        ack: plan.workload.ack(),
        checkers: queues.iter().map(|queue| Checker::new(plan, *queue)).collect(),
        slow: slow.map(|rate| Duration::from_secs(1) / u32::try_from(rate).unwrap_or(u32::MAX)),
        // How long a slow one lets messages wait says nothing about the broker, nor about the fast ones beside it.
        each_latency: plan.workload.rate.is_some() && slow.is_none(),
    }
}

/// What producers had sent who filled the queues: each its share, to its streams in turn.
fn filled(plan: &Plan) -> anyhow::Result<Sent> {
    let mut streams = vec![0; plan.streams.len()];
    for (producer, own) in plan.producers.iter().enumerate() {
        let (limit, count) = (plan.limit(producer), own.len() as u64);
        for (stream, turn) in own.iter().zip(0..) {
            if let Some(sent) = streams.get_mut(*stream) {
                *sent = limit / count + u64::from(turn < limit % count);
            }
        }
    }
    Ok(Sent { streams, confirmed_after: Latencies::new()? })
}

/// Gives producers their times: all have the same rate, and begin one after the other.
fn pace<C>(plan: &Plan, producers: &mut [Producer<C>], clock: Clock) {
    let Some(rate) = plan.workload.rate else { return };
    let count = producers.len() as u64;
    let interval = 1e9 * float(count) / float(rate);
    let begin = clock.nanos() + 10_000_000;
    for (producer, number) in producers.iter_mut().zip(0..) {
        let start = begin + 1_000_000_000 / rate * number;
        producer.pace = Some(Pace { interval, start });
    }
}

type Span = (Snapshot, Snapshot);

/// Runs the threads until everything has come.
fn play<C: super::Confirms, D: super::Deliveries>(
    plan: &Plan,
    shared: &Shared,
    (subject, phase): (Subject<'_>, Phase),
    producers: Vec<Producer<C>>,
    consumers: Vec<Consumer<D>>,
    sockets: &[TcpStream],
) -> (Option<Span>, Vec<Sent>, Vec<Got>) {
    thread::scope(|scope| {
        let consuming: Vec<_> = consumers
            .into_iter()
            .map(|consumer| scope.spawn(move || shared.keep(consumer.run(shared))))
            .collect();
        let producing: Vec<_> = producers
            .into_iter()
            .map(|producer| scope.spawn(move || shared.keep(producer.run(shared))))
            .collect();
        let over = || producing.iter().all(thread::ScopedJoinHandle::is_finished);
        let span = shared.keep(supervise(plan, shared, (subject, phase), &over));
        shared.stopped.store(true, Ordering::Relaxed);
        shared.finished.store(true, Ordering::Release);
        for socket in sockets {
            let _ = socket.shutdown(Shutdown::Both);
        }
        let sent = producing.into_iter().filter_map(|producer| producer.join().ok().flatten()).collect();
        let got = consuming.into_iter().filter_map(|consumer| consumer.join().ok().flatten()).collect();
        (span, sent, got)
    })
}

/// Waits for the measured time and for the rest; gives what was at its beginning and at its end.
fn supervise(
    plan: &Plan,
    shared: &Shared,
    (subject, phase): (Subject<'_>, Phase),
    over: &dyn Fn() -> bool,
) -> anyhow::Result<Span> {
    let progress = Progress::of(&plan.workload);
    let started = shared.clock.elapsed();
    let mut begin = Snapshot::take(shared, subject);
    let mut end = None;
    let mut watch = Watch::default();
    let seconds = plan.workload.seconds.map(Duration::from_secs_f64);
    let warm_up = Duration::from_secs_f64(plan.workload.warm_up);
    loop {
        thread::sleep(LOOK);
        watch.look(shared)?;
        let elapsed = shared.clock.elapsed();
        let messages = if phase == Phase::Fill { &shared.published } else { &shared.delivered };
        progress.show(elapsed, messages.load(Ordering::Relaxed));
        if let Some(seconds) = seconds
            && end.is_none()
        {
            if !shared.measuring() && elapsed >= started + warm_up {
                begin = Snapshot::take(shared, subject);
                shared.measuring.store(true, Ordering::Relaxed);
            } else if shared.measuring() && elapsed >= begin.at + seconds {
                end = Some(Snapshot::take(shared, subject));
                shared.measuring.store(false, Ordering::Relaxed);
                shared.stopped.store(true, Ordering::Relaxed);
            }
        }
        if over() {
            let due = match phase {
                Phase::Both => shared.published.load(Ordering::Relaxed) * fast_copies(plan),
                Phase::Fill => 0,
                Phase::Drain => plan.workload.messages * plan.workload.copies(),
            };
            if shared.delivered.load(Ordering::Relaxed) >= due {
                return Ok((begin, end.unwrap_or_else(|| Snapshot::take(shared, subject))));
            }
        }
    }
}

/// How many deliveries each message has, those of a slow consumer's queue not counted.
fn fast_copies(plan: &Plan) -> u64 {
    match plan.exchange {
        Some(_) => (0..plan.queues.len()).filter(|queue| plan.is_complete(*queue)).count() as u64,
        None => 1,
    }
}

/// Notices when nothing happens any more.
#[derive(Default)]
struct Watch {
    counts: (u64, u64),
    since: Duration,
}

impl Watch {
    fn look(&mut self, shared: &Shared) -> anyhow::Result<()> {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let counts = (count(&shared.confirmed) + count(&shared.published), count(&shared.delivered));
        let now = shared.clock.elapsed();
        if let Some(failure) = shared.failure.lock().take() {
            return Err(failure);
        }
        if counts != self.counts {
            (self.counts, self.since) = (counts, now);
        } else if now > self.since + STALL {
            let (published, delivered) = (count(&shared.published), counts.1);
            bail!("nothing has come for {STALL:?}: {published} were published, {delivered} delivered");
        }
        Ok(())
    }
}

/// Counts and usages at one moment.
#[derive(Clone, Copy)]
struct Snapshot {
    at: Duration,
    published: u64,
    confirmed: u64,
    delivered: u64,
    broker: Option<Usage>,
    generator: Option<Usage>,
    disk: Option<DiskUsage>,
}

impl Snapshot {
    fn take(shared: &Shared, subject: Subject<'_>) -> Self {
        Self {
            at: shared.clock.elapsed(),
            published: shared.published.load(Ordering::Relaxed),
            confirmed: shared.confirmed.load(Ordering::Relaxed),
            delivered: shared.delivered.load(Ordering::Relaxed),
            broker: subject.pid.and_then(Usage::of),
            generator: Usage::own(),
            disk: subject.data.and_then(DiskUsage::of),
        }
    }
}

fn conclude(
    plan: &Plan,
    (begin, end): &Span,
    sent: &[Sent],
    got: Vec<Got>,
    phase: Phase,
) -> anyhow::Result<Outcome> {
    let mut streams = vec![0; plan.streams.len()];
    let mut confirmed_after = Latencies::new()?;
    for sent in sent {
        streams.iter_mut().zip(&sent.streams).for_each(|(sum, count)| *sum += count);
        confirmed_after.add(&sent.confirmed_after);
    }
    let mut delivered_after = Latencies::new()?;
    let mut checkers = Vec::new();
    for got in got {
        delivered_after.add(&got.delivered_after);
        checkers.extend(got.checkers);
    }
    let verdict = verdict(plan, &checkers, &streams)?;
    let seconds = end.at.saturating_sub(begin.at).as_secs_f64();
    ensure!(seconds > 0.0, "the run was too short to measure");
    let rate = |count: u64| float(count) / seconds;
    let delivered = end.delivered - begin.delivered;
    let messages = match phase {
        Phase::Fill => float(end.published - begin.published),
        _ => float(delivered) / float(fast_copies(plan).max(1)),
    };
    let cost = |begin: Option<Usage>, end: Option<Usage>| {
        begin.zip(end).map(|(begin, end)| begin.cost_until(end, messages))
    };
    let published = streams.iter().sum();
    Ok(Outcome {
        published,
        confirmed: if plan.workload.window() > 0 { published } else { 0 },
        delivered: verdict.deliveries,
        seconds,
        rate: rate(delivered),
        published_rate: rate(end.published - begin.published),
        confirmed_rate: rate(end.confirmed - begin.confirmed),
        delivered_after: delivered_after.percentiles(),
        confirmed_after: confirmed_after.percentiles(),
        broker: cost(begin.broker, end.broker),
        generator: cost(begin.generator, end.generator),
        disk: begin.disk.zip(end.disk).map(|(begin, end)| begin.until(end)),
        redelivered: verdict.redelivered,
        first_delivery: None,
    })
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.0} deliveries/s in {:.2} s", self.rate, self.seconds)?;
        if let Some(broker) = self.broker {
            write!(f, ", broker {:.2} core-µs a message", broker.core_us)?;
        }
        if let Some(generator) = self.generator {
            write!(f, ", generator {:.2}", generator.core_us)?;
        }
        if let Some(broker) = self.broker {
            write!(f, ", {} MiB resident", broker.resident_kib / 1024)?;
        }
        if let Some(disk) = self.disk.filter(|disk| disk.flushes > 0) {
            let (bytes, flushes) = (float(disk.bytes), float(disk.flushes));
            write!(
                f,
                "\n  disk {:.0} MB/s, {:.0} flushes/s, {:.0} KiB each",
                bytes / self.seconds / 1e6,
                flushes / self.seconds,
                bytes / flushes / 1024.0
            )?;
        }
        if let Some(latency) = &self.confirmed_after {
            write!(f, "\n  publish to confirm:  {latency}")?;
        }
        if let Some(latency) = &self.delivered_after {
            write!(f, "\n  publish to delivery: {latency}")?;
        }
        write!(
            f,
            "\n  {} published, {} delivered, all of them once and in order",
            self.published, self.delivered
        )
    }
}
