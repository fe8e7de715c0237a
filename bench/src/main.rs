//! Load for a Leveret broker, and what it cost: `leveret-bench native` measures one queue end to end.

#![allow(clippy::print_stdout, reason = "the figures are this program's output")]

mod native;
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
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Arguments::parse().workload {
        Workload::Native(native) => native.run().await,
    }
}
