//! Latencies: histograms of nanoseconds, and the figures that are shown of them.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// The longest latency that is told apart from longer ones: a minute.
const NANOS_MAX: u64 = 60_000_000_000;

/// Latencies as they come.
#[derive(Debug, Clone)]
pub(crate) struct Latencies(Histogram<u64>);

/// What is shown of latencies, in microseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Percentiles {
    /// How many there are.
    pub(crate) count: u64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
    /// (percentile, microseconds), for a curve.
    pub(crate) curve: Vec<(f64, f64)>,
}

const CURVE: [f64; 14] =
    [0.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 98.0, 99.0, 99.5, 99.9, 99.95, 99.99, 100.0];

impl Latencies {
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self(Histogram::new_with_bounds(1, NANOS_MAX, 3)?))
    }

    pub(crate) fn record(&mut self, nanos: u64, count: u64) {
        // Cannot fail: what is too long is cut.
        let _ = self.0.record_n(nanos.clamp(1, NANOS_MAX), count);
    }

    pub(crate) fn add(&mut self, other: &Self) {
        // Cannot fail: both have the same bounds.
        let _ = self.0.add(&other.0);
    }

    /// The figures; nothing if nothing was recorded.
    #[allow(clippy::cast_precision_loss, reason = "nanoseconds of at most a minute")]
    pub(crate) fn percentiles(&self) -> Option<Percentiles> {
        let at = |percentile: f64| self.0.value_at_percentile(percentile) as f64 / 1e3;
        (!self.0.is_empty()).then(|| Percentiles {
            count: self.0.len(),
            p50: at(50.0),
            p90: at(90.0),
            p99: at(99.0),
            p999: at(99.9),
            max: at(100.0),
            curve: CURVE.iter().map(|percentile| (*percentile, at(*percentile))).collect(),
        })
    }
}

impl std::fmt::Display for Percentiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { p50, p90, p99, p999, max, .. } = self;
        write!(f, "p50 {p50:.0} µs, p90 {p90:.0}, p99 {p99:.0}, p99.9 {p999:.0}, max {max:.0}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_what_was_recorded() {
        let mut latencies = Latencies::new().unwrap();
        assert_eq!(latencies.percentiles(), None);
        (1..=1000).for_each(|micros| latencies.record(micros * 1000, 1));
        let mut more = Latencies::new().unwrap();
        more.record(u64::MAX, 1);
        latencies.add(&more);
        let figures = latencies.percentiles().unwrap();
        assert_eq!(figures.count, 1001);
        for (shown, expected) in [(figures.p50, 501.0), (figures.p90, 901.0), (figures.p99, 991.0)] {
            assert!((shown - expected).abs() < 2.0, "{shown} for {expected}");
        }
        assert!(figures.max >= 59.9e6, "what is too long counts as a minute: {}", figures.max);
    }
}
