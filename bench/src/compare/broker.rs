//! Rows of Leveret against what the machine can do.

use std::cell::Cell;

use super::rows::Found;
use super::run::{
    BROKER, CONFIRM_P50, CONFIRM_P99, DELIVER_P50, DELIVER_P99, DISK, DISK_BATCH, DISK_MESSAGE, ECHO_P50,
    ECHO_P99, PROBE, PUBLISHED, RATE, RESIDENT, Rounds, SYNC_P50, SYNC_P99, Sample, turn,
};
use super::{Side, Verdict, figure};
use crate::load::{self, Protocol};
use crate::measure::clock::Clock;
use crate::measure::float;
use crate::server::Server;
use crate::url::Url;
use crate::workload::{Ack, Plan, Workload};
use crate::{backlog, queues};

const KIB: usize = 1024;

fn persistent() -> Workload {
    Workload { size: KIB, window: Some(4096), prefetch: Some(4096), ..Workload::default() }
}

fn transient(size: usize) -> Workload {
    Workload { size, transient: true, ..Workload::default() }
}

/// The sides that a row names; a missing one is a mistake of the row.
fn named<const N: usize>(sides: &[Side]) -> anyhow::Result<&[Side; N]> {
    sides.first_chunk().ok_or_else(|| anyhow::anyhow!("a row with {} sides instead of {N}", sides.len()))
}

/// Two figures of which a ratio was made.
pub(super) fn over(above: f64, below: f64, unit: &str) -> String {
    format!("{} / {} {unit}", figure(above), figure(below))
}

pub(super) fn transient_1k(rounds: &Rounds) -> Found {
    let workload = transient(KIB);
    let sides = rounds.take_turns(&[
        turn("relay", || rounds.relay(&workload, false)),
        turn("Leveret", || rounds.native(&workload)),
    ])?;
    let [relay, leveret] = named(&sides)?;
    let ratio = leveret.median(RATE) / relay.median(RATE).max(1.0);
    let verdict = Verdict::at_least("Leveret / relay", ratio, 0.7, "x").of(over(
        leveret.median(RATE),
        relay.median(RATE),
        RATE,
    ));
    Ok((sides, vec![verdict]))
}

pub(super) fn transient_16(rounds: &Rounds) -> Found {
    let workload = transient(16);
    let sides = rounds.take_turns(&[
        turn("relay with codec", || rounds.relay(&workload, true)),
        turn("Leveret", || rounds.native(&workload)),
    ])?;
    let [relay, leveret] = named(&sides)?;
    let verdict = Verdict::at_least("deliveries", leveret.median(RATE), 2e6, "/s")
        .of(format!("the relay: {}/s", figure(relay.median(RATE))));
    Ok((sides, vec![verdict]))
}

pub(super) fn persistent_1k(rounds: &Rounds) -> Found {
    let workload = persistent();
    // The journal probe writes what the broker's journal was seen to write for each sync in the same round.
    let batch = Cell::new(0.0);
    let sides = rounds.take_turns(&[
        turn("relay with confirms", || rounds.relay(&workload, false)),
        turn("Leveret", || {
            let sample = rounds.native(&workload)?;
            batch.set(sample.get(DISK_BATCH).unwrap_or(64.0) * 1024.0);
            Ok(sample)
        }),
        turn("journal probe", || rounds.journal(batch.get())),
    ])?;
    let [relay, leveret, journal] = named(&sides)?;
    let journal_limit = journal.median(PROBE) * 1e6 / leveret.median(DISK_MESSAGE).max(1.0);
    let limit = relay.median(RATE).min(journal_limit).max(1.0);
    let verdicts = vec![
        Verdict::at_least(
            "Leveret / min(relay with confirms, journal)",
            leveret.median(RATE) / limit,
            0.4,
            "x",
        )
        .of(format!(
            "{} / min({}, {}) deliveries/s; 0.6 is the aim",
            figure(leveret.median(RATE)),
            figure(relay.median(RATE)),
            figure(journal_limit)
        )),
        Verdict::at_least(
            "journal bytes / write and sync at the same batch size",
            leveret.median(DISK) / journal.median(PROBE).max(1.0),
            0.8,
            "x",
        )
        .of(format!(
            "{} / {} MB/s at {} KiB",
            figure(leveret.median(DISK)),
            figure(journal.median(PROBE)),
            figure(leveret.median(DISK_BATCH))
        )),
    ];
    Ok((sides, verdicts))
}

pub(super) fn confirm_latency(rounds: &Rounds) -> Found {
    let workload = Workload { window: Some(1), ..persistent() };
    let sides = rounds.take_turns(&[
        turn("echo", || rounds.echo(KIB)),
        turn("Leveret", || rounds.native(&workload)),
        turn("journal probe, 4 KiB", || rounds.journal(4096.0)),
    ])?;
    let [echo, leveret, journal] = named(&sides)?;
    let verdict = |name: &str, confirm: &str, (round_trip, sync): (&str, &str), factor: f64| {
        let limit = echo.median(round_trip) + journal.median(sync);
        Verdict::at_most(
            format!("confirm {name} / (echo + sync)"),
            leveret.median(confirm) / limit.max(1.0),
            factor,
            "x",
        )
        .of(format!(
            "{:.0} / ({:.0} + {:.0}) µs",
            leveret.median(confirm),
            echo.median(round_trip),
            journal.median(sync)
        ))
    };
    let verdicts = vec![
        verdict("p50", CONFIRM_P50, (ECHO_P50, SYNC_P50), 1.5),
        verdict("p99", CONFIRM_P99, (ECHO_P99, SYNC_P99), 2.0),
    ];
    Ok((sides, verdicts))
}

pub(super) fn cpu_256(rounds: &Rounds) -> Found {
    let (fast, safe) = (transient(256), Workload { size: 256, ..persistent() });
    let sides = rounds.take_turns(&[
        turn("transient", || rounds.native(&fast)),
        turn("persistent, confirmed, acked", || rounds.native(&safe)),
    ])?;
    let [fast, safe] = named(&sides)?;
    let verdicts = vec![
        Verdict::at_most("transient", fast.median(BROKER), 0.8, "core-µs"),
        Verdict::at_most("persistent, confirmed, acked", safe.median(BROKER), 1.5, "core-µs"),
    ];
    Ok((sides, verdicts))
}

pub(super) fn open_loop(rounds: &Rounds) -> Found {
    let workload = Workload { rate: Some(10_000), ..persistent() };
    let sides = rounds.take_turns(&[turn("Leveret", || rounds.native(&workload))])?;
    let [leveret] = named(&sides)?;
    let verdicts = vec![
        Verdict::at_most("publish to delivery, p50", leveret.median(DELIVER_P50), 200.0, "µs"),
        Verdict::at_most("publish to delivery, p99", leveret.median(DELIVER_P99), 1000.0, "µs"),
    ];
    Ok((sides, verdicts))
}

pub(super) fn fan_out(rounds: &Rounds) -> Found {
    let one = persistent();
    let ten = Workload { queues: 10, fan_out: true, ..persistent() };
    let sides = rounds
        .take_turns(&[turn("1 queue", || rounds.native(&one)), turn("10 queues", || rounds.native(&ten))])?;
    let [one, ten] = named(&sides)?;
    let verdicts = vec![
        Verdict::at_least(
            "deliveries, 10 queues / 1",
            ten.median(RATE) / one.median(RATE).max(1.0),
            0.8,
            "x",
        )
        .of(over(ten.median(RATE), one.median(RATE), RATE)),
        // Ten bodies would be ten times as much; what ten queues note of a message is small.
        Verdict::at_most(
            "journal bytes for each message, one body of them",
            ten.median(DISK_MESSAGE),
            2048.0,
            "B",
        )
        .of(format!("{:.0} B with one queue", one.median(DISK_MESSAGE))),
    ];
    Ok((sides, verdicts))
}

pub(super) fn slow_consumer(rounds: &Rounds) -> Found {
    // Half of what two cores can do with batches of one. Nearer to it the 99th percentile is that of waiting for a core,
    // and differs from run to run by more than any neighbour could make of it.
    let both = Workload { queues: 2, consumers: 2, fan_out: true, rate: Some(10_000), ..persistent() };
    let one_slow = Workload { slow: Some(100), ..both.clone() };
    let full = Workload { rate: None, ..both.clone() };
    let full_slow = Workload { rate: None, ..one_slow.clone() };
    // The disk is busy for a while after a run at full speed, which would be the next one's latency.
    let mut sides = rounds.take_turns(&[
        turn("both fast, 10,000/s", || rounds.native(&both)),
        turn("one slow, 10,000/s", || rounds.native(&one_slow)),
    ])?;
    sides.extend(rounds.take_turns(&[
        turn("both fast, full speed", || rounds.native(&full)),
        turn("one slow, full speed", || rounds.native(&full_slow)),
    ])?);
    let [both, one_slow, full, full_slow] = named(&sides)?;
    // Two consumers have two deliveries for each message.
    let each = full.median(RATE) / 2.0;
    let verdicts = vec![
        Verdict::at_least(
            "the fast one's rate, beside a slow one / a fast one",
            full_slow.median(RATE) / each.max(1.0),
            0.9,
            "x",
        )
        .of(over(full_slow.median(RATE), each, RATE)),
        Verdict::at_most(
            "the fast one's p99, beside a slow one / a fast one",
            one_slow.median(DELIVER_P99) / both.median(DELIVER_P99).max(1.0),
            1.1,
            "x",
        )
        .of(over(one_slow.median(DELIVER_P99), both.median(DELIVER_P99), "µs")),
    ];
    Ok((sides, verdicts))
}

const BIND: &str = "bind s";

pub(super) fn topic(rounds: &Rounds) -> Found {
    let bindings = if rounds.quick { 3000 } else { 100_000 };
    let few = Workload { topic: Some(bindings), keys: 16, ack: Some(Ack::None), ..transient(16) };
    let many = Workload { keys: bindings, ..few.clone() };
    let measure = |workload: &Workload| {
        let server = Server::start(&[])?;
        let native = load::native::Native { url: Url::parse(&server.url)? };
        let plan = Plan::new(&rounds.timed(workload))?;
        let clock = Clock::start();
        native.prepare(&plan)?;
        let bound = clock.elapsed().as_secs_f64();
        native.clean(&plan)?;
        let outcome = load::run(&native, &plan, server.subject())?;
        Ok(Sample::from(&outcome).set(PUBLISHED, outcome.published_rate).set(BIND, bound))
    };
    let sides = rounds.take_turns(&[
        turn("16 keys", || measure(&few)),
        turn(format!("{bindings} keys"), || measure(&many)),
    ])?;
    let [few, many] = named(&sides)?;
    // A route for each message, and everything else that a broker does with it: less than routing alone could.
    let verdicts = vec![
        Verdict::at_least("routed and delivered, uncached", many.median(RATE), 300_000.0, "/s"),
        Verdict::at_least("routed and delivered, cached", few.median(RATE), 2e6, "/s"),
        Verdict::at_most(format!("{bindings} bindings"), many.median(BIND), 2.0, "s"),
    ];
    Ok((sides, verdicts))
}

const FILL: &str = "fill/s";
const DRAIN: &str = "drain/s";
const ABOVE_EMPTY: &str = "MiB above empty";
const FIRST: &str = "first delivery s";
const LISTENS: &str = "listens s";

pub(super) fn backlog(rounds: &Rounds) -> Found {
    let messages = if rounds.quick { 20_000 } else { 1_000_000 };
    let workload = Workload { messages, ..persistent() };
    let measure = |memory: Option<&str>| {
        let figures = backlog::measure(&workload, memory)?;
        let above = figures.full_kib.saturating_sub(figures.empty_kib);
        Ok(Sample::default()
            .set(FILL, figures.fill.published_rate)
            .set(DRAIN, figures.drain.rate)
            .set(ABOVE_EMPTY, float(above) / 1024.0)
            .set(FIRST, figures.first_delivery)
            .set(LISTENS, figures.listens)
            .set(RESIDENT, float(figures.drained_kib) / 1024.0))
    };
    // The default depends on the machine's memory, so what it takes is not the same everywhere.
    let sides = rounds.take_turns(&[
        turn("defaults", || measure(None)),
        turn("64 MiB for messages", || measure(Some("64 MiB"))),
    ])?;
    let mut verdicts = Vec::new();
    for side in &sides {
        let what = |figure: &str| format!("{figure}, {}", side.label);
        verdicts.extend([
            Verdict::at_least(what("fill"), side.median(FILL), 300_000.0, "/s"),
            Verdict::at_most(what("resident, above empty"), side.median(ABOVE_EMPTY), 100.0, "MiB"),
            Verdict::at_least(what("drain"), side.median(DRAIN), 400_000.0, "/s"),
            Verdict::at_most(what("restart to first delivery"), side.median(FIRST), 0.5, "s"),
        ]);
    }
    Ok((sides, verdicts))
}

const CONNECTION: &str = "B/idle connection";
const QUEUE: &str = "B/idle queue";
const DECLARED: &str = "declared s";

pub(super) fn idle(rounds: &Rounds) -> Found {
    let (queues, connections) = if rounds.quick { (500, 100) } else { (10_000, 2000) };
    let declare = |connections: u64| {
        let figures = queues::measure_queues(queues, connections)?;
        Ok(Sample::default().set(DECLARED, figures.declared).set(QUEUE, figures.bytes_each))
    };
    let sides = rounds.take_turns(&[
        turn(format!("{connections} connections"), || {
            Ok(Sample::default().set(CONNECTION, queues::measure_connections(connections)?))
        }),
        turn(format!("{queues} queues by 1 connection"), || declare(1)),
        turn(format!("{queues} queues by 10 connections"), || declare(10)),
    ])?;
    let [connected, one, ten] = named(&sides)?;
    let verdicts = vec![
        Verdict::at_most("idle connection", connected.median(CONNECTION), 16.0 * 1024.0, "B"),
        Verdict::at_most("idle durable queue", one.median(QUEUE), 2.0 * 1024.0, "B"),
        Verdict::at_most("declared one after another", one.median(DECLARED), 5.0, "s"),
        Verdict::at_most("declared by 10 connections at once", ten.median(DECLARED), 1.5, "s"),
    ];
    Ok((sides, verdicts))
}
