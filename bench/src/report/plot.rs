//! Bars with their ranges, and curves of latency, as SVG inside the page.

use std::fmt::Write;

use super::escape;
use crate::compare::{Row, Side, figure};
use crate::measure::statistics::Series;

/// The figures that are shown as bars, where several sides have them.
const BARS: [&str; 2] = ["deliveries/s", "broker core-µs/message"];
/// The rows whose latencies mean something: at full speed they say how long the queues before the broker are.
const CURVES: [&str; 3] = ["confirm-latency", "open-loop", "slow-consumer"];
/// So many colours there are in the style.
const COLOURS: usize = 4;

/// All plots of a row.
pub(super) fn plots(row: &Row) -> String {
    let mut plots: String = BARS.iter().map(|name| bars(row, name)).collect();
    if CURVES.contains(&row.name.as_str()) {
        let lines = lines(row);
        if !lines.is_empty() {
            plots.push_str(&curves(&lines));
        }
    }
    plots
}

/// One bar for each side, from 0, with a line over the range of its rounds. Labels are text of the page, so that they
/// stay readable on a narrow screen.
fn bars(row: &Row, name: &str) -> String {
    let sides: Vec<(usize, &Side, &Series)> = row
        .sides
        .iter()
        .enumerate()
        .filter_map(|(number, side)| Some((number, side, side.figures.get(name)?)))
        .collect();
    let max = sides.iter().map(|(_, _, series)| series.max).fold(0.0, f64::max);
    if sides.len() < 2 || max <= 0.0 {
        return String::new();
    }
    let mut bars = format!("<div class=\"bars\"><h3>{}</h3>\n", escape(name));
    for (number, side, series) in sides {
        let at = |value: f64| value / max * 100.0;
        let (median, low, high) = (at(series.median), at(series.min), at(series.max));
        let _ = writeln!(
            bars,
            "<div class=\"bar\"><span>{label}</span><svg viewBox=\"0 0 100 10\" preserveAspectRatio=\"none\" \
             role=\"img\" aria-label=\"{value}\"><rect class=\"fill{colour}\" width=\"{median:.2}\" height=\"10\"/>\
             <line x1=\"{low:.2}\" x2=\"{high:.2}\" y1=\"5\" y2=\"5\"/></svg><b>{value}</b></div>",
            label = escape(&side.label),
            value = figure(series.median),
            colour = number % COLOURS
        );
    }
    bars.push_str("</div>\n");
    bars
}

/// A curve: its label, its colour, its dash, and (percentile, microseconds).
struct Line<'a> {
    label: String,
    colour: usize,
    dashed: bool,
    points: &'a [(f64, f64)],
}

fn lines(row: &Row) -> Vec<Line<'_>> {
    let mut lines = Vec::new();
    for (number, side) in row.sides.iter().enumerate() {
        for (name, points) in &side.curves {
            let label = format!("{}: {name}", side.label);
            lines.push(Line { label, colour: number % COLOURS, dashed: name.contains("confirm"), points });
        }
    }
    lines
}

const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 52.0;
const BOTTOM: f64 = 24.0;
const TOP: f64 = 10.0;
const RIGHT: f64 = 22.0;
/// The percentiles that have a mark, up to the last that is drawn.
const MARKS: [f64; 5] = [0.0, 90.0, 99.0, 99.9, 99.99];

/// Where a percentile stands: each nine takes the same room.
fn nines(percentile: f64) -> f64 {
    -(1.0 - percentile.min(99.99) / 100.0).log10()
}

fn curves(lines: &[Line<'_>]) -> String {
    let values = || lines.iter().flat_map(|line| line.points).map(|(_, micros)| micros.max(1.0).log10());
    let low = values().fold(f64::INFINITY, f64::min).floor();
    let high = values().fold(low + 1.0, f64::max).ceil();
    let x = |percentile: f64| LEFT + nines(percentile) / nines(100.0) * (WIDTH - LEFT - RIGHT);
    let y = |micros: f64| {
        HEIGHT - BOTTOM - (micros.max(1.0).log10() - low) / (high - low) * (HEIGHT - BOTTOM - TOP)
    };
    let mut svg = format!(
        "<div class=\"curves\"><h3>latency by percentile</h3>\n<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">\n"
    );
    let mut decade = low;
    while decade <= high {
        let micros = 10_f64.powf(decade);
        let text = match micros {
            seconds if seconds >= 1e6 => format!("{:.0} s", seconds / 1e6),
            millis if millis >= 1e3 => format!("{:.0} ms", millis / 1e3),
            micros => format!("{micros:.0} µs"),
        };
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text x=\"{label}\" y=\"{text_at:.1}\" text-anchor=\"end\">{text}</text>",
            right = WIDTH - RIGHT,
            at = y(micros),
            label = LEFT - 5.0,
            text_at = y(micros) + 4.0
        );
        decade += 1.0;
    }
    for percentile in MARKS {
        let text = if percentile > 0.0 { format!("p{percentile}") } else { "min".to_owned() };
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{text}</text>",
            x(percentile),
            HEIGHT - 7.0
        );
    }
    let mut legend = String::from("<ul class=\"legend\">");
    for line in lines {
        let points: Vec<String> = line
            .points
            .iter()
            .map(|(percentile, micros)| format!("{:.1},{:.1}", x(*percentile), y(*micros)))
            .collect();
        let class = if line.dashed { " dashed" } else { "" };
        let _ = writeln!(
            svg,
            "<polyline class=\"stroke{}{class}\" points=\"{}\"/>",
            line.colour,
            points.join(" ")
        );
        let _ = write!(
            legend,
            "<li><svg viewBox=\"0 0 24 8\"><line class=\"stroke{}{class}\" x1=\"0\" x2=\"24\" y1=\"4\" y2=\"4\"/></svg> {}</li>",
            line.colour,
            escape(&line.label)
        );
    }
    format!("{svg}</svg>\n{legend}</ul></div>\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_nine_takes_the_same_room() {
        for (percentile, place) in [(0.0, 0.0), (90.0, 1.0), (99.0, 2.0), (99.9, 3.0), (100.0, 4.0)] {
            assert!((nines(percentile) - place).abs() < 1e-6, "{percentile}");
        }
    }
}
