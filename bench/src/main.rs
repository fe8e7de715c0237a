//! Load for brokers, and what it cost: `leveret-bench --help`.

#![allow(clippy::print_stdout, reason = "the figures are this program's output")]

mod amqp;
mod backlog;
mod compare;
mod limits;
mod load;
mod measure;
mod native;
mod native_client;
mod progress;
mod queues;
mod report;
mod server;
mod url;
mod workload;

use clap::{Parser, Subcommand};

/// Measures Leveret, the limits of the machine, and other brokers that speak AMQP 0-9-1.
///
/// Build both programs first: cargo build --release -p leveret-broker -p leveret-bench
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// What this machine can do at most: sockets, a null broker, the disk, memory.
    Limits(limits::Limits),
    /// Load over Leveret's own protocol.
    Native(native::Native),
    /// Load over AMQP 0-9-1, for Leveret or another broker.
    Amqp(amqp::Amqp),
    /// A backlog in one durable queue: fill it without a consumer, kill and restart the broker, drain it.
    Backlog(backlog::Backlog),
    /// Many durable queues: declare them, kill and restart the broker.
    Queues(queues::Queues),
    /// Many connections that do nothing: what each costs.
    Connections(queues::Connections),
    /// Leveret, the limits and other brokers in turns, against the targets.
    Compare(compare::Compare),
    /// A page from what `compare` found.
    Report(report::Report),
    /// The other side of the probes of `limits`.
    #[command(hide = true)]
    ProbeServer,
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Limits(limits) => limits.run(),
        Command::Native(native) => native.run(),
        Command::Amqp(amqp) => amqp.run(),
        Command::Backlog(backlog) => backlog.run(),
        Command::Queues(queues) => queues.run(),
        Command::Connections(connections) => connections.run(),
        Command::Compare(compare) => compare.run(),
        Command::Report(report) => report.run(),
        Command::ProbeServer => limits::serve(),
    }
}

/// For what goes through the client crate.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}
