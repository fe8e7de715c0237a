//! One publisher, one consumer, one queue.

use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use leveret_client::{Client, Message, Queue};

use crate::publish::{self, now};
use crate::server::Server;

/// What to send.
#[derive(Debug, Args)]
pub(crate) struct Native {
    /// A broker that runs already; without one, one is started in a process of its own.
    #[arg(long)]
    url: Option<String>,
    /// How many messages.
    #[arg(long, default_value_t = 1_000_000)]
    messages: u64,
    /// How large their bodies are, in bytes; at least 8.
    #[arg(long, default_value_t = 256)]
    size: usize,
    /// How many publishes may be unconfirmed.
    #[arg(long, default_value_t = 4096)]
    window: usize,
    /// How many deliveries may be unacknowledged.
    #[arg(long, default_value_t = 4096)]
    prefetch: u32,
    /// Transient messages in a transient queue, without confirms and acknowledgements.
    #[arg(long)]
    transient: bool,
    /// How often; the figures are of each round and the median.
    #[arg(long, default_value_t = 1)]
    rounds: usize,
}

const QUEUE: &str = "bench";

impl Native {
    #[allow(clippy::cast_precision_loss, reason = "figures for people, of numbers far below 2^53")]
    pub(crate) async fn run(&self) -> anyhow::Result<()> {
        ensure!(self.size >= 8, "--size is at least 8: a body begins with its number");
        let server = Server::at(self.url.clone())?;
        let kind = if self.transient { "transient, no ack" } else { "persistent, confirmed, acked" };
        println!(
            "{} messages of {} B, {kind}, window {}, prefetch {}",
            self.messages, self.size, self.window, self.prefetch
        );
        let mut rates = Vec::new();
        for round in 1..=self.rounds {
            let before = server.usage();
            let elapsed = self.round(&server.url).await?;
            let rate = self.messages as f64 / elapsed.as_secs_f64();
            let cost = before.zip(server.usage()).map_or_else(String::new, |(before, after)| {
                let cpu = (after.cpu_us - before.cpu_us) / self.messages as f64;
                format!(", broker {cpu:.2} core-µs a message, {} MiB resident", after.resident_kib / 1024)
            });
            println!("round {round}: {:.2} s, {rate:.0} messages/s{cost}", elapsed.as_secs_f64());
            rates.push(rate);
        }
        rates.sort_by(f64::total_cmp);
        println!("median: {:.0} messages/s", rates.get(rates.len() / 2).copied().unwrap_or_default());
        Ok(())
    }

    /// One round, with every message checked to arrive once and in order.
    async fn round(&self, url: &str) -> anyhow::Result<Duration> {
        let publishing = Client::connect(url).await?;
        let consuming = Client::connect(url).await?;
        let queue = if self.transient { Queue::transient(QUEUE) } else { Queue::durable(QUEUE) };
        publishing.declare(queue).await?;
        let started = now();
        let consumer = tokio::spawn(consume(consuming.clone(), self.messages, self.prefetch, self.transient));
        if self.transient {
            let publisher = publishing.publisher("").persistent(false).unconfirmed().open().await?;
            for number in 0..self.messages {
                publisher.send(QUEUE, Message::new(publish::body(number, self.size))).await?;
            }
        } else {
            publish::confirmed(&publishing, QUEUE, self.messages, self.size, self.window).await?;
        }
        consumer.await??;
        let elapsed = started.elapsed();
        publishing.delete_queue(QUEUE, leveret_client::DeleteIf::default()).await?;
        publishing.close().await?;
        consuming.close().await?;
        Ok(elapsed)
    }
}

async fn consume(client: Client, messages: u64, prefetch: u32, transient: bool) -> anyhow::Result<()> {
    let consumer = client.consumer(QUEUE).prefetch_max(prefetch);
    let mut deliveries = if transient { consumer.without_acks() } else { consumer }.open().await?;
    for expected in 0..messages {
        let delivery = deliveries.try_next().await?.context("the consumer ended early")?;
        let number = delivery.body().first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        ensure!(number == Some(expected), "message {expected} was expected, and {number:?} came");
        delivery.ack();
    }
    Ok(())
}
