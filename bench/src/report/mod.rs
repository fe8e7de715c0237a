//! A page from the results of `compare`: tables and plots in one file, which needs nothing from anywhere else.

mod plot;

use std::fmt::Write;
use std::path::PathBuf;

use clap::Args;

use crate::compare::{Results, Row, Verdict, figure, place};

/// From which results, and where to.
#[derive(Debug, Args)]
pub(crate) struct Report {
    /// What `compare` wrote.
    json: PathBuf,
    /// The page; beside the results, with the ending `.html`, unless set.
    #[arg(long)]
    out: Option<PathBuf>,
}

impl Report {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let results: Results = serde_json::from_str(&std::fs::read_to_string(&self.json)?)?;
        let out = self.out.clone().unwrap_or_else(|| self.json.with_extension("html"));
        std::fs::write(&out, page(&results))?;
        println!("{}", out.display());
        Ok(())
    }
}

const STYLE: &str = include_str!("style.css");

/// The whole page.
pub(crate) fn page(results: &Results) -> String {
    let mut body = String::new();
    let machine = escape(&results.machine.to_string());
    let command = escape(&format!("leveret-bench {}", results.command));
    let rounds = match results.rounds {
        1 => "one round".to_owned(),
        rounds => format!("{rounds} rounds in turns; figures are medians, with the range of all rounds"),
    };
    // Writing to a string cannot fail.
    let _ = write!(
        body,
        "<header><h1>Leveret: measured</h1>\n<p>{machine}</p>\n<p><code>{command}</code>: {rounds}, {} s each.</p>\n\
         <p class=\"sum\">{}</p></header>\n<main>\n{}",
        results.seconds,
        escape(&results.summary()),
        targets(results)
    );
    for row in &results.rows {
        body.push_str(&section(row));
    }
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\">\n<meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>Leveret: measured</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n{body}</main>\n</body>\n</html>\n"
    )
}

/// All targets in one table, each with a link to where it comes from.
fn targets(results: &Results) -> String {
    let mut rows = String::new();
    for row in &results.rows {
        for verdict in &row.verdicts {
            let _ = writeln!(
                rows,
                "<tr><th scope=\"row\"><a href=\"#{id}\">{id}</a><br>{what}</th>{cells}</tr>",
                id = escape(&row.name),
                what = escape(&verdict.what),
                cells = cells(verdict)
            );
        }
    }
    format!(
        "<section><h2>Targets</h2>\n<div class=\"wide\"><table class=\"targets\">\n<thead><tr><th>target</th>\
         <th>measured</th><th>wanted</th></tr></thead>\n<tbody>\n{rows}</tbody></table></div></section>\n"
    )
}

fn cells(verdict: &Verdict) -> String {
    let Verdict { measured, target, unit, .. } = verdict;
    let (class, word) = if verdict.met { ("met", "met") } else { ("missed", "missed") };
    let sign = if verdict.at_least { "≥" } else { "≤" };
    let from = match verdict.from.as_str() {
        "" => String::new(),
        from => format!("<br><small>{}</small>", escape(from)),
    };
    format!(
        "<td>{} {unit}{from}</td><td>{sign} {} {unit}<br><span class=\"{class}\">{word}</span></td>",
        figure(*measured),
        figure(*target),
        unit = escape(unit)
    )
}

fn section(row: &Row) -> String {
    format!(
        "<section id=\"{}\"><h2>{}</h2>\n<p>{}</p>\n{}{}</section>\n",
        escape(&row.name),
        escape(&row.name),
        escape(&row.what),
        plot::plots(row),
        table(row)
    )
}

/// Every figure of every side.
fn table(row: &Row) -> String {
    let mut names: Vec<&String> = row.sides.iter().flat_map(|side| side.figures.keys()).collect();
    names.sort_by_key(|name| place(name));
    names.dedup();
    let mut head = String::new();
    for side in &row.sides {
        let _ = write!(head, "<th scope=\"col\">{}</th>", escape(&side.label));
    }
    let mut lines = String::new();
    for name in names {
        let _ = write!(lines, "<tr><th scope=\"row\">{}</th>", escape(name));
        for side in &row.sides {
            lines.push_str("<td>");
            if let Some(series) = side.figures.get(name) {
                lines.push_str(&figure(series.median));
                if series.values.len() > 1 {
                    let _ =
                        write!(lines, "<br><small>{} – {}</small>", figure(series.min), figure(series.max));
                }
            }
            lines.push_str("</td>");
        }
        lines.push_str("</tr>\n");
    }
    format!(
        "<div class=\"wide\"><table>\n<thead><tr><th></th>{head}</tr></thead>\n<tbody>\n{lines}</tbody></table></div>\n"
    )
}

/// Text for HTML, in elements and in attributes.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::compare::Side;
    use crate::measure::machine::Machine;
    use crate::measure::statistics::Series;

    fn side(label: &str, rates: &[f64]) -> Side {
        let series = |values: &[f64]| Series::of(values.to_vec()).unwrap();
        let figures = [("deliveries/s", rates), ("broker core-µs/message", &[1.5, 1.25])];
        Side {
            label: label.to_owned(),
            figures: figures.iter().map(|(name, values)| ((*name).to_owned(), series(values))).collect(),
            curves: BTreeMap::from([(
                "publish to delivery".to_owned(),
                vec![(0.0, 80.0), (50.0, 100.0), (99.0, 900.0), (100.0, 5000.0)],
            )]),
        }
    }

    fn results() -> Results {
        Results {
            machine: Machine {
                processor: "Some <CPU>".to_owned(),
                cores: 2,
                memory_mib: 1024,
                kernel: "6.1".to_owned(),
                filesystem: "ext4".to_owned(),
                steal_percent: 0.25,
                commit: "abc".to_owned(),
                measured_at: 0,
            },
            command: "compare --against \"a&b=amqp://c\"".to_owned(),
            rounds: 2,
            seconds: 1.0,
            rows: vec![Row {
                name: "open-loop".to_owned(),
                what: "one thing".to_owned(),
                sides: vec![side("relay", &[1000.0, 2000.0]), side("Leveret", &[750.0, 1250.0])],
                verdicts: vec![
                    Verdict::at_least("ratio", 0.5, 0.7, "x").of("1,000 / 1,500"),
                    Verdict::at_most("p50", 100.0, 200.0, "µs"),
                ],
            }],
        }
    }

    #[test]
    fn the_page_says_everything_and_needs_nothing_else() {
        let page = page(&results());
        for part in [
            "Some &lt;CPU&gt;",
            "a&amp;b=amqp",
            "1 of 2 targets met",
            "≥ 0.70 x",
            "class=\"missed\">missed",
            "class=\"met\">met",
            "<small>1,000 – 2,000</small>",
            "href=\"#open-loop\"",
            "<section id=\"open-loop\">",
            "prefers-color-scheme: dark",
            "width=device-width",
            "<polyline",
        ] {
            assert!(page.contains(part), "{part} is missing in\n{page}");
        }
        for outside in ["http://", "https://", "<script", "url(", "@import", "<img", "<link"] {
            assert!(!page.contains(outside), "{outside}");
        }
        for element in ["section", "table", "tr", "td", "svg", "div", "main"] {
            let opened =
                page.matches(&format!("<{element}>")).count() + page.matches(&format!("<{element} ")).count();
            assert_eq!(opened, page.matches(&format!("</{element}>")).count(), "{element}");
        }
    }

    #[test]
    fn results_come_back_from_their_file() {
        let results = results();
        let json = serde_json::to_string(&results).unwrap();
        assert_eq!(serde_json::from_str::<Results>(&json).unwrap(), results);
    }
}
