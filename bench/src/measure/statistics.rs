//! Several rounds of one figure.

use serde::{Deserialize, Serialize};

/// A figure of several rounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Series {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    /// By round.
    pub(crate) values: Vec<f64>,
}

impl Series {
    /// Nothing of no rounds.
    pub(crate) fn of(values: Vec<f64>) -> Option<Self> {
        let mut sorted = values.clone();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let upper = *sorted.get(sorted.len() / 2)?;
        let lower = *sorted.get((sorted.len() - 1) / 2)?;
        Some(Self { median: f64::midpoint(lower, upper), min, max, values })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        let series = Series::of(vec![5.0, 1.0, 3.0]).unwrap();
        assert_eq!((series.median, series.min, series.max), (3.0, 1.0, 5.0));
        assert_eq!(series.values, [5.0, 1.0, 3.0], "rounds stay in their order");
        let even = Series::of(vec![4.0, 1.0, 3.0, 2.0]).unwrap();
        assert!((even.median - 2.5).abs() < 1e-9);
        assert_eq!(Series::of(Vec::new()), None);
    }
}
