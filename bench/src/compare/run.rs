//! How the sides of a row take turns.

use std::collections::BTreeMap;

use crate::compare::{Against, Side};
use crate::limits::{self, Layout, ProbeServer};
use crate::load::{self, Outcome, Subject};
use crate::measure::float;
use crate::measure::process;
use crate::measure::statistics::Series;
use crate::server::Server;
use crate::url::Url;
use crate::workload::{Plan, Workload};

/// What all rows have in common.
pub(super) struct Rounds {
    /// How often each side has its turn.
    pub(super) count: usize,
    /// How long each run is measured.
    pub(super) seconds: f64,
    /// Everything is small.
    pub(super) quick: bool,
    pub(super) against: Vec<Against>,
}

/// The figures of one run, by name and unit.
#[derive(Debug, Clone, Default)]
pub(super) struct Sample {
    figures: BTreeMap<String, f64>,
    curves: BTreeMap<String, Vec<(f64, f64)>>,
}

/// One who takes turns: a label, and a run.
pub(super) type Turn<'a> = (String, Box<dyn Fn() -> anyhow::Result<Sample> + 'a>);

pub(super) fn turn<'a>(label: impl Into<String>, run: impl Fn() -> anyhow::Result<Sample> + 'a) -> Turn<'a> {
    (label.into(), Box::new(run))
}

pub(super) const RATE: &str = "deliveries/s";
pub(super) const PUBLISHED: &str = "published/s";
pub(super) const BROKER: &str = "broker core-µs/message";
pub(super) const GENERATOR: &str = "generator core-µs/message";
pub(super) const RESIDENT: &str = "broker MiB";
pub(super) const CONFIRM_P50: &str = "confirm p50 µs";
pub(super) const CONFIRM_P99: &str = "confirm p99 µs";
pub(super) const DELIVER_P50: &str = "deliver p50 µs";
pub(super) const DELIVER_P99: &str = "deliver p99 µs";
pub(super) const DISK: &str = "disk MB/s";
pub(super) const DISK_BATCH: &str = "disk KiB/flush";
pub(super) const DISK_MESSAGE: &str = "disk B/message";
/// What the journal probe writes and syncs at the batch size of the run before it.
pub(super) const PROBE: &str = "probe MB/s";
pub(super) const SYNC_P50: &str = "sync p50 µs";
pub(super) const SYNC_P99: &str = "sync p99 µs";
pub(super) const ECHO_P50: &str = "round trip p50 µs";
pub(super) const ECHO_P99: &str = "round trip p99 µs";

/// The figures in the order in which they are shown; others follow.
pub(super) const ORDER: [&str; 12] = [
    RATE,
    PUBLISHED,
    BROKER,
    GENERATOR,
    RESIDENT,
    CONFIRM_P50,
    CONFIRM_P99,
    DELIVER_P50,
    DELIVER_P99,
    DISK,
    DISK_BATCH,
    DISK_MESSAGE,
];

impl Sample {
    pub(super) fn set(mut self, figure: &str, value: f64) -> Self {
        self.figures.insert(figure.to_owned(), value);
        self
    }

    pub(super) fn get(&self, figure: &str) -> Option<f64> {
        self.figures.get(figure).copied()
    }
}

impl From<&Outcome> for Sample {
    fn from(outcome: &Outcome) -> Self {
        let mut sample = Self::default().set(RATE, outcome.rate);
        if let Some(broker) = outcome.broker {
            sample = sample.set(BROKER, broker.core_us).set(RESIDENT, float(broker.resident_kib) / 1024.0);
        }
        if let Some(generator) = outcome.generator {
            sample = sample.set(GENERATOR, generator.core_us);
        }
        if let Some(disk) = outcome.disk.filter(|disk| disk.flushes > 0 && outcome.confirmed > 0) {
            let bytes = float(disk.bytes);
            let messages = outcome.published_rate * outcome.seconds;
            sample = sample
                .set(DISK, bytes / outcome.seconds / 1e6)
                .set(DISK_BATCH, bytes / float(disk.flushes) / 1024.0)
                .set(DISK_MESSAGE, bytes / messages.max(1.0));
        }
        let latencies = [
            ("publish to confirm", &outcome.confirmed_after, CONFIRM_P50, CONFIRM_P99),
            ("publish to delivery", &outcome.delivered_after, DELIVER_P50, DELIVER_P99),
        ];
        for (name, latency, p50, p99) in latencies {
            if let Some(latency) = latency {
                sample = sample.set(p50, latency.p50).set(p99, latency.p99);
                sample.curves.insert(name.to_owned(), latency.curve.clone());
            }
        }
        sample
    }
}

impl Rounds {
    /// Lets all take turns, round by round.
    pub(super) fn take_turns(&self, turns: &[Turn<'_>]) -> anyhow::Result<Vec<Side>> {
        let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); turns.len()];
        for _ in 0..self.count {
            for ((label, run), samples) in turns.iter().zip(&mut samples) {
                samples.push(run().map_err(|error| error.context(format!("{label} failed")))?);
            }
        }
        Ok(turns.iter().zip(samples).map(|((label, _), samples)| side(label, &samples)).collect())
    }

    /// A workload for the time of a run.
    pub(super) fn timed(&self, workload: &Workload) -> Workload {
        let warm_up = if self.quick { 0.1 } else { 0.5 };
        Workload { seconds: Some(self.seconds), warm_up, ..workload.clone() }
    }

    /// Leveret over its own protocol, in a new process.
    pub(super) fn native(&self, workload: &Workload) -> anyhow::Result<Sample> {
        let server = Server::start(&[])?;
        let native = load::native::Native { url: Url::parse(&server.url)? };
        let plan = Plan::new(&self.timed(workload))?;
        Ok(Sample::from(&load::run(&native, &plan, server.subject())?))
    }

    /// Leveret over AMQP, in a new process.
    pub(super) fn amqp(&self, workload: &Workload) -> anyhow::Result<Sample> {
        let server = Server::start(&[])?;
        let amqp = load::amqp::Amqp { url: Url::parse(&server.amqp_url)?, queue_type: None };
        let plan = Plan::new(&self.timed(workload))?;
        Ok(Sample::from(&load::run(&amqp, &plan, server.subject())?))
    }

    /// Another broker.
    pub(super) fn other(&self, other: &Against, workload: &Workload) -> anyhow::Result<Sample> {
        let url = Url::parse(&other.url)?;
        let pid = url.port().and_then(process::listener);
        let amqp = load::amqp::Amqp { url, queue_type: other.queue_type.clone() };
        let plan = Plan::new(&self.timed(workload))?;
        Ok(Sample::from(&load::run(&amqp, &plan, Subject { pid, data: None })?))
    }

    /// The null broker.
    pub(super) fn relay(&self, workload: &Workload, codec: bool) -> anyhow::Result<Sample> {
        Ok(Sample::from(&limits::relay(&self.timed(workload), codec)?))
    }

    /// Writes and syncs of so many bytes in a recycled file.
    pub(super) fn journal(&self, bytes: f64) -> anyhow::Result<Sample> {
        const BLOCK: u64 = 4096;
        let dir = tempfile::tempdir()?;
        let rate =
            limits::journal(dir.path(), Layout::Recycled, blocks(bytes) * BLOCK, self.seconds.min(1.0))?;
        Ok(Sample::default()
            .set(PROBE, rate.bytes / 1e6)
            .set(SYNC_P50, rate.latency.p50)
            .set(SYNC_P99, rate.latency.p99))
    }

    /// Round trips of one frame at a time.
    pub(super) fn echo(&self, size: usize) -> anyhow::Result<Sample> {
        let (_, latency) = limits::echo(&ProbeServer::start()?, size, 1, self.seconds.min(1.0))?;
        Ok(Sample::default().set(ECHO_P50, latency.p50).set(ECHO_P99, latency.p99))
    }
}

#[allow(clippy::cast_sign_loss, reason = "a size")]
fn blocks(bytes: f64) -> u64 {
    (bytes / 4096.0).round().clamp(1.0, 4096.0) as u64
}

fn side(label: &str, samples: &[Sample]) -> Side {
    let mut figures: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for (name, value) in samples.iter().flat_map(|sample| &sample.figures) {
        figures.entry(name.clone()).or_default().push(*value);
    }
    Side {
        label: label.to_owned(),
        figures: figures.into_iter().filter_map(|(name, values)| Some((name, Series::of(values)?))).collect(),
        curves: samples.last().map(|sample| sample.curves.clone()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn sides_take_turns_and_have_medians() {
        let rounds = Rounds { count: 3, seconds: 1.0, quick: true, against: Vec::new() };
        let order = RefCell::new(String::new());
        let run = |label: &'static str, factor: f64| {
            let order = &order;
            turn(label, move || {
                order.borrow_mut().push_str(label);
                Ok(Sample::default().set(RATE, factor * float(order.borrow().len() as u64)))
            })
        };
        let sides = rounds.take_turns(&[run("a", 1.0), run("b", 10.0)]).unwrap();
        assert_eq!(*order.borrow(), "ababab");
        assert_eq!(sides[0].figures[RATE].values, [1.0, 3.0, 5.0]);
        assert_eq!((sides[0].median(RATE), sides[1].median(RATE)), (3.0, 40.0));
        assert!(sides[0].median("unknown") < f64::EPSILON);
    }

    #[test]
    fn a_side_that_fails_is_named() {
        let rounds = Rounds { count: 1, seconds: 1.0, quick: true, against: Vec::new() };
        let error = rounds.take_turns(&[turn("the relay", || anyhow::bail!("no"))]).unwrap_err();
        assert_eq!(error.to_string(), "the relay failed");
    }
}
