//! A backlog that is longer than the memory: what it costs to keep it, to come back to it, and to work it off.

use anyhow::{Context, ensure};
use clap::Args;
use leveret_client::{Client, Queue};

use crate::measure::clock::now;
use crate::publish;
use crate::server::Server;

/// How long the backlog is.
#[derive(Debug, Args)]
pub(crate) struct Backlog {
    /// How many messages.
    #[arg(long, default_value_t = 1_000_000)]
    messages: u64,
    /// How large their bodies are, in bytes; at least 8.
    #[arg(long, default_value_t = 1024)]
    size: usize,
    /// How many publishes may be unconfirmed.
    #[arg(long, default_value_t = 4096)]
    window: usize,
    /// How many deliveries may be unacknowledged.
    #[arg(long, default_value_t = 4096)]
    prefetch: u32,
    /// How much memory the broker may use for messages, as for its own flag; its default unless set.
    #[arg(long)]
    memory: Option<String>,
}

const QUEUE: &str = "backlog";

impl Backlog {
    #[allow(clippy::cast_precision_loss, reason = "figures for people, of numbers far below 2^53")]
    pub(crate) async fn run(&self) -> anyhow::Result<()> {
        ensure!(self.size >= 8, "--size is at least 8: a body begins with its number");
        let memory: Vec<&str> =
            self.memory.iter().flat_map(|memory| ["--memory-messages-bytes-max", memory]).collect();
        let server = Server::start(&memory)?;
        println!("{} messages of {} B, persistent and confirmed", self.messages, self.size);
        println!("empty:   {}", figures(&server));

        let client = Client::connect(&server.url).await?;
        client.declare(Queue::durable(QUEUE)).await?;
        let started = now();
        publish::confirmed(&client, QUEUE, self.messages, self.size, self.window).await?;
        let rate = self.messages as f64 / started.elapsed().as_secs_f64();
        println!("filled:  {rate:.0} messages/s; {}", figures(&server));
        drop(client);

        let started = now();
        let server = server.restart(&memory)?;
        let up = started.elapsed();
        let client = Client::connect(&server.url).await?;
        let mut deliveries = client.consumer(QUEUE).prefetch_max(self.prefetch).open().await?;
        let first = deliveries.try_next().await?.context("the consumer ended early")?;
        let first_at = started.elapsed();
        println!(
            "killed:  listens {:.2} s after the start, first delivery after {:.2} s; {}",
            up.as_secs_f64(),
            first_at.as_secs_f64(),
            figures(&server)
        );

        let started = now();
        let mut next = Some(first);
        for expected in 0..self.messages {
            let delivery = match next.take() {
                Some(first) => first,
                None => deliveries.try_next().await?.context("the consumer ended early")?,
            };
            let number = delivery.body().first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
            ensure!(number == Some(expected), "message {expected} was expected, and {number:?} came");
            delivery.ack();
        }
        let rate = self.messages as f64 / started.elapsed().as_secs_f64();
        println!("drained: {rate:.0} messages/s; {}", figures(&server));
        client.close().await?;
        Ok(())
    }
}

/// What the broker takes up.
fn figures(server: &Server) -> String {
    let resident = server.usage().map_or(0, |usage| usage.resident_kib / 1024);
    let disk = server.disk_bytes().unwrap_or(0) >> 20;
    format!("{resident} MiB resident, {disk} MiB on disk")
}
