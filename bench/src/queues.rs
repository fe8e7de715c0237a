//! Very many queues: what each costs, and how long it takes to make them and to find them again.

use clap::Args;
use leveret_client::{Client, Queue};

use crate::measure::clock::now;
use crate::server::Server;

/// How many queues.
#[derive(Debug, Args)]
pub(crate) struct Queues {
    /// How many durable queues.
    #[arg(long, default_value_t = 100_000)]
    queues: u64,
    /// How many connections declare them at once, each one queue after the other.
    #[arg(long, default_value_t = 10)]
    connections: u64,
}

impl Queues {
    #[allow(clippy::cast_precision_loss, reason = "figures for people, of numbers far below 2^53")]
    pub(crate) async fn run(&self) -> anyhow::Result<()> {
        let server = Server::start(&[])?;
        let resident = |server: &Server| server.usage().map_or(0, |usage| usage.resident_kib);
        let empty = resident(&server);
        let each =
            |server: &Server| (resident(server).saturating_sub(empty)) as f64 * 1024.0 / self.queues as f64;
        println!("{} durable queues, declared by {} connections", self.queues, self.connections);

        let started = now();
        let mut declaring = tokio::task::JoinSet::new();
        for connection in 0..self.connections {
            let client = Client::connect(&server.url).await?;
            let (queues, connections) = (self.queues, self.connections);
            declaring.spawn(async move {
                for number in (connection..queues).step_by(connections as usize) {
                    client.declare(Queue::durable(format!("queue-{number}"))).await?;
                }
                client.close().await?;
                anyhow::Ok(())
            });
        }
        while let Some(declared) = declaring.join_next().await {
            declared??;
        }
        let seconds = started.elapsed().as_secs_f64();
        println!("declared: {seconds:.2} s, {:.0} B of memory each", each(&server));

        let started = now();
        let server = server.restart(&[])?;
        let seconds = started.elapsed().as_secs_f64();
        println!("killed:   listens {seconds:.2} s after the start, {:.0} B of memory each", each(&server));
        let client = Client::connect(&server.url).await?;
        client.declare(Queue::durable(format!("queue-{}", self.queues.saturating_sub(1)))).await?;
        client.close().await?;
        Ok(())
    }
}
