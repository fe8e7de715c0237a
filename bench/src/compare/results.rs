//! What a comparison found, as it is kept.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::run::ORDER;
use crate::measure::machine::Machine;
use crate::measure::statistics::Series;

/// All of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) machine: Machine,
    /// The arguments of the program.
    pub(crate) command: String,
    pub(crate) rounds: u64,
    pub(crate) seconds: f64,
    pub(crate) rows: Vec<Row>,
}

/// One comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) what: String,
    pub(crate) sides: Vec<Side>,
    pub(crate) verdicts: Vec<Verdict>,
}

/// One of those that took turns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Side {
    pub(crate) label: String,
    /// By name and unit.
    pub(crate) figures: BTreeMap<String, Series>,
    /// By name: (percentile, microseconds), of the last round.
    pub(crate) curves: BTreeMap<String, Vec<(f64, f64)>>,
}

/// A target, and whether it holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Verdict {
    pub(crate) what: String,
    /// What was measured, a figure or a ratio.
    pub(crate) measured: f64,
    pub(crate) unit: String,
    /// The limit in the same unit.
    pub(crate) target: f64,
    /// Whether more is better.
    pub(crate) at_least: bool,
    pub(crate) met: bool,
    /// The figures that it comes from.
    pub(crate) from: String,
}

impl Verdict {
    pub(crate) fn at_least(what: impl Into<String>, measured: f64, target: f64, unit: &str) -> Self {
        let met = measured >= target;
        Self::new(what.into(), measured, (target, true, met), unit)
    }

    pub(crate) fn at_most(what: impl Into<String>, measured: f64, target: f64, unit: &str) -> Self {
        let met = measured <= target;
        Self::new(what.into(), measured, (target, false, met), unit)
    }

    fn new(what: String, measured: f64, (target, at_least, met): (f64, bool, bool), unit: &str) -> Self {
        Self { what, measured, unit: unit.to_owned(), target, at_least, met, from: String::new() }
    }

    /// Says which figures it comes from.
    pub(crate) fn of(self, from: impl Into<String>) -> Self {
        Self { from: from.into(), ..self }
    }
}

impl Side {
    /// The figures in the order in which they are shown.
    pub(crate) fn in_order(&self) -> Vec<(&String, &Series)> {
        let mut figures: Vec<_> = self.figures.iter().collect();
        figures.sort_by_key(|(name, _)| place(name));
        figures
    }

    /// The median of a figure; 0 if there is none, so that a ratio of it never meets a target.
    pub(crate) fn median(&self, figure: &str) -> f64 {
        self.figures.get(figure).map_or(0.0, |series| series.median)
    }
}

impl Results {
    /// How many targets hold.
    pub(crate) fn summary(&self) -> String {
        let verdicts = || self.rows.iter().flat_map(|row| &row.verdicts);
        let met = verdicts().filter(|verdict| verdict.met).count();
        format!("{met} of {} targets met", verdicts().count())
    }
}

/// Where a figure is shown among others: the main ones first, then by name.
pub(crate) fn place(name: &str) -> (usize, &str) {
    (ORDER.iter().position(|known| *known == name).unwrap_or(ORDER.len()), name)
}

/// A figure for people: as many digits as mean something.
pub(crate) fn figure(value: f64) -> String {
    let digits = match value.abs() {
        large if large >= 100.0 => 0,
        middle if middle >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{value:.digits$}");
    let (whole, fraction) = text.split_once('.').map_or((text.as_str(), ""), |(whole, rest)| (whole, rest));
    let mut grouped = String::new();
    for (at, digit) in whole.chars().enumerate() {
        let left = whole.len() - at;
        if at > 0 && left.is_multiple_of(3) && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if fraction.is_empty() { grouped } else { format!("{grouped}.{fraction}") }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.at_least { ">=" } else { "<=" };
        let met = if self.met { "met" } else { "MISSED" };
        let (measured, target) = (figure(self.measured), figure(self.target));
        write!(f, "{met}: {}: {measured} {unit} (target {sign} {target})", self.what, unit = self.unit)?;
        if self.from.is_empty() { Ok(()) } else { write!(f, " [{}]", self.from) }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{}: {}", self.name, self.what)?;
        for side in &self.sides {
            let figures: Vec<String> = side
                .in_order()
                .into_iter()
                .map(|(name, series)| {
                    let range = format!("{}..{}", figure(series.min), figure(series.max));
                    let range = if series.values.len() > 1 { format!(" ({range})") } else { String::new() };
                    format!("{name} {}{range}", figure(series.median))
                })
                .collect();
            writeln!(f, "  {:24} {}", side.label, figures.join(", "))?;
        }
        for verdict in &self.verdicts {
            writeln!(f, "  {verdict}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short_and_grouped() {
        for (value, text) in [
            (0.655, "0.66"),
            (9.999, "10.00"),
            (12.34, "12.3"),
            (123.4, "123"),
            (1_234_567.8, "1,234,568"),
            (100_000.0, "100,000"),
            (-1234.0, "-1,234"),
        ] {
            assert_eq!(figure(value), text);
        }
    }

    #[test]
    fn targets_are_met_at_their_limit() {
        assert!(Verdict::at_least("x", 0.7, 0.7, "").met);
        assert!(!Verdict::at_least("x", 0.69, 0.7, "").met);
        assert!(Verdict::at_most("x", 200.0, 200.0, "µs").met);
        assert!(!Verdict::at_most("x", 201.0, 200.0, "µs").met);
        let shown = Verdict::at_most("p50", 201.0, 200.0, "µs").of("a / b").to_string();
        assert_eq!(shown, "MISSED: p50: 201 µs (target <= 200) [a / b]");
    }
}
