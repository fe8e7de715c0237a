//! Load for a Leveret broker, and what it cost: `leveret-bench native` measures one queue end to end, `backlog` a queue that
//! is longer than the memory, `queues` very many of them.

#![allow(clippy::print_stdout, reason = "the figures are this program's output")]

mod backlog;
mod native;
mod publish;
mod queues;
mod server;

use clap::{Parser, Subcommand};

/// Measures a Leveret broker.
///
/// Build both programs first: cargo build --release -p leveret-broker -p leveret-bench
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    workload: Workload,
}

#[derive(Debug, Subcommand)]
enum Workload {
    /// One publisher and one consumer on one queue, through the client crate.
    Native(native::Native),
    /// A backlog in one durable queue: fill it without a consumer, kill and restart the broker, drain it.
    Backlog(backlog::Backlog),
    /// Many durable queues: declare them, kill and restart the broker.
    Queues(queues::Queues),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Arguments::parse().workload {
        Workload::Native(native) => native.run().await,
        Workload::Backlog(backlog) => backlog.run().await,
        Workload::Queues(queues) => queues.run().await,
    }
}
