//! What is measured, and what with: clocks, processes, latencies, statistics, the machine.

pub(crate) mod clock;
pub(crate) mod disk;
pub(crate) mod latency;
pub(crate) mod machine;
pub(crate) mod process;
pub(crate) mod statistics;

/// A count as a figure for people, far below 2^53.
#[allow(clippy::cast_precision_loss, reason = "figures for people, of numbers far below 2^53")]
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}
