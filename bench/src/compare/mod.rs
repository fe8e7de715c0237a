//! Rounds of A, B, A, B ... over brokers and limits; the targets, row by row.

mod broker;
mod field;
mod results;
mod rows;
mod run;

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, ensure};
use clap::Args;

use crate::measure::machine::{Machine, Ticks};
use crate::progress::Progress;
use crate::report;

pub(crate) use results::{Results, Row, Side, Verdict, figure, place};
use rows::ROWS;
use run::Rounds;

/// What to compare, and how often.
#[derive(Debug, Args)]
pub(crate) struct Compare {
    /// How many rounds; every figure is the median of them.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long each run is measured, in seconds.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// One short round of everything, to see that it works. The figures mean little.
    #[arg(long)]
    quick: bool,
    /// Only these rows; `--list` names them.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Names the rows, and ends.
    #[arg(long)]
    list: bool,
    /// Another broker that runs already, for the AMQP rows: `LABEL=URL`, or `LABEL=URL#QUEUE-TYPE`. May be repeated.
    #[arg(long)]
    against: Vec<Against>,
    /// Where the results go: this file as JSON, and a page beside it with the ending `.html`.
    #[arg(long, default_value = "leveret-bench.json")]
    json: PathBuf,
}

/// Another broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Against {
    pub(crate) label: String,
    pub(crate) url: String,
    pub(crate) queue_type: Option<String>,
}

impl FromStr for Against {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (label, rest) = text.split_once('=').ok_or("LABEL=URL or LABEL=URL#QUEUE-TYPE")?;
        let (url, queue_type) = match rest.split_once('#') {
            Some((url, queue_type)) => (url, Some(queue_type.to_owned())),
            None => (rest, None),
        };
        Ok(Self { label: label.to_owned(), url: url.to_owned(), queue_type })
    }
}

impl Compare {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        if self.list {
            for row in ROWS {
                println!("{:18} {}", row.name, row.what);
            }
            return Ok(());
        }
        for name in &self.only {
            ensure!(ROWS.iter().any(|row| row.name == name), "there is no row {name}: see --list");
        }
        let since = Ticks::now();
        let rounds = Rounds {
            count: if self.quick { 1 } else { self.rounds.max(1) },
            seconds: if self.quick { 0.3 } else { self.seconds },
            quick: self.quick,
            against: self.against.clone(),
        };
        let chosen: Vec<_> = ROWS
            .iter()
            .filter(|row| self.only.is_empty() || self.only.iter().any(|name| name == row.name))
            .collect();
        let progress = Progress::steps(chosen.len() as u64);
        let mut rows = Vec::new();
        for row in chosen {
            progress.step(row.name);
            let (sides, verdicts) =
                (row.measure)(&rounds).with_context(|| format!("while measuring {}", row.name))?;
            let row = Row { name: row.name.to_owned(), what: row.what.to_owned(), sides, verdicts };
            Progress::say(row.to_string().trim_end());
            rows.push(row);
        }
        drop(progress);
        let results = Results {
            machine: Machine::describe(&std::env::temp_dir(), since),
            command: std::env::args().skip(1).collect::<Vec<_>>().join(" "),
            rounds: rounds.count as u64,
            seconds: rounds.seconds,
            rows,
        };
        println!("\n{}", results.machine);
        println!("{}", results.summary());
        save(&results, &self.json)
    }
}

/// Writes the results, and their page beside them.
fn save(results: &Results, path: &Path) -> anyhow::Result<()> {
    std::fs::write(path, serde_json::to_string_pretty(results)?)?;
    let page = path.with_extension("html");
    std::fs::write(&page, report::page(results))?;
    println!("results in {}, a page in {}", path.display(), page.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_brokers_are_named_with_their_queues() {
        let against: Against = "RabbitMQ quorum=amqp://guest:guest@localhost/#quorum".parse().unwrap();
        assert_eq!(against.label, "RabbitMQ quorum");
        assert_eq!(against.url, "amqp://guest:guest@localhost/");
        assert_eq!(against.queue_type.as_deref(), Some("quorum"));
        assert_eq!("a=amqp://b".parse::<Against>().unwrap().queue_type, None);
        assert!("amqp://b".parse::<Against>().is_err());
    }
}
