//! A backlog that is longer than the memory: what it costs to keep it, to come back to it, and to work it off.

use anyhow::{Context, ensure};
use clap::Args;

use crate::load::native::Native;
use crate::load::{self, Outcome, Phase};
use crate::measure::clock::Clock;
use crate::server::Server;
use crate::url::Url;
use crate::workload::{Plan, Workload};

/// How long the backlog is.
#[derive(Debug, Args)]
pub(crate) struct Backlog {
    /// How many messages.
    #[arg(long, default_value_t = 1_000_000)]
    messages: u64,
    /// How large their bodies are, in bytes; at least 16.
    #[arg(long, default_value_t = 1024)]
    size: usize,
    /// How many publishes may be unconfirmed.
    #[arg(long, default_value_t = 4096)]
    window: u64,
    /// How many deliveries may be unacknowledged.
    #[arg(long, default_value_t = 4096)]
    prefetch: u32,
    /// How much memory the broker may use for messages, as for its own flag; its default unless set.
    #[arg(long)]
    memory: Option<String>,
}

/// What a backlog came to.
#[derive(Debug, Clone)]
pub(crate) struct Figures {
    pub(crate) empty_kib: u64,
    pub(crate) fill: Outcome,
    pub(crate) full_kib: u64,
    pub(crate) full_disk_bytes: u64,
    /// Seconds from the start of the killed broker until it listens.
    pub(crate) listens: f64,
    /// Seconds from its start to the first delivery.
    pub(crate) first_delivery: f64,
    pub(crate) drain: Outcome,
    pub(crate) drained_kib: u64,
}

impl Backlog {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        println!("{} messages of {} B, persistent and confirmed", self.messages, self.size);
        let workload = Workload {
            messages: self.messages,
            size: self.size,
            window: Some(self.window),
            prefetch: Some(self.prefetch),
            ..Workload::default()
        };
        let figures = measure(&workload, self.memory.as_deref())?;
        let Figures { fill, drain, .. } = &figures;
        println!("empty:   {} MiB resident", figures.empty_kib / 1024);
        println!(
            "filled:  {:.0} messages/s; {} MiB resident, {} MiB on disk",
            fill.published_rate,
            figures.full_kib / 1024,
            figures.full_disk_bytes >> 20
        );
        println!(
            "killed:  listens {:.2} s after the start, first delivery after {:.2} s",
            figures.listens, figures.first_delivery
        );
        println!("drained: {:.0} messages/s; {} MiB resident", drain.rate, figures.drained_kib / 1024);
        Ok(())
    }
}

/// Fills a queue without a consumer, kills and restarts the broker, and drains the queue.
pub(crate) fn measure(workload: &Workload, memory: Option<&str>) -> anyhow::Result<Figures> {
    let memory: Vec<&str> =
        memory.iter().flat_map(|memory| ["--memory-messages-bytes-max", memory]).collect();
    ensure!(workload.seconds.is_none(), "a backlog has a number of messages");
    let plan = Plan::new(workload)?;
    let server = Server::start(&memory)?;
    let resident = |server: &Server| server.usage().map_or(0, |usage| usage.resident_kib);
    let empty_kib = resident(&server);
    let native = |server: &Server| anyhow::Ok(Native { url: Url::parse(&server.url)? });
    let fill = load::run_phase(&native(&server)?, &plan, server.subject(), Phase::Fill, Clock::start())?;
    let (full_kib, full_disk_bytes) = (resident(&server), server.disk_bytes().unwrap_or(0));
    let clock = Clock::start();
    let server = server.restart(&memory)?;
    let listens = clock.elapsed().as_secs_f64();
    let drain = load::run_phase(&native(&server)?, &plan, server.subject(), Phase::Drain, clock)?;
    Ok(Figures {
        empty_kib,
        fill,
        full_kib,
        full_disk_bytes,
        listens,
        first_delivery: drain.first_delivery.context("nothing was delivered")?,
        drain,
        drained_kib: resident(&server),
    })
}
