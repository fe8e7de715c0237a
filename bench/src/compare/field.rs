//! Rows against other people's brokers: the same generator, the same frames.

use super::broker::over;
use super::rows::Found;
use super::run::{RATE, Rounds, turn};
use super::{Against, Verdict};
use crate::workload::Workload;

/// The queue type that syncs before it confirms, and has the lower target for it.
const QUORUM: &str = "quorum";

pub(super) fn persistent(rounds: &Rounds) -> Found {
    let workload = Workload { size: 1024, window: Some(1000), prefetch: Some(1000), ..Workload::default() };
    against(rounds, &workload, |other| match other.queue_type.as_deref() {
        Some(QUORUM) => Some(8.0),
        _ => Some(10.0),
    })
}

pub(super) fn transient_16(rounds: &Rounds) -> Found {
    against(rounds, &Workload { size: 16, transient: true, ..Workload::default() }, classic_only(6.0))
}

pub(super) fn transient_1k(rounds: &Rounds) -> Found {
    against(rounds, &Workload { size: 1024, transient: true, ..Workload::default() }, classic_only(4.0))
}

/// A quorum queue is never transient.
fn classic_only(factor: f64) -> impl Fn(&Against) -> Option<f64> {
    move |other| (other.queue_type.as_deref() != Some(QUORUM)).then_some(factor)
}

fn against(rounds: &Rounds, workload: &Workload, factor: impl Fn(&Against) -> Option<f64>) -> Found {
    let others: Vec<(&Against, f64)> =
        rounds.against.iter().filter_map(|other| Some((other, factor(other)?))).collect();
    let mut turns = vec![turn("Leveret", || rounds.amqp(workload))];
    for (other, _) in &others {
        turns.push(turn(other.label.clone(), || rounds.other(other, workload)));
    }
    let sides = rounds.take_turns(&turns)?;
    let Some((ours, theirs)) = sides.split_first() else { return Ok((sides, Vec::new())) };
    let verdicts = theirs
        .iter()
        .zip(&others)
        .map(|(their, (other, factor))| {
            let ratio = ours.median(RATE) / their.median(RATE).max(1.0);
            Verdict::at_least(format!("Leveret / {}", other.label), ratio, *factor, "x").of(over(
                ours.median(RATE),
                their.median(RATE),
                RATE,
            ))
        })
        .collect();
    Ok((sides, verdicts))
}
