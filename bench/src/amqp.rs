//! Load over AMQP 0-9-1, for Leveret and for other brokers: the same bytes for all of them.

use std::path::PathBuf;

use clap::Args;

use crate::load::{self, Subject};
use crate::measure::process;
use crate::native::rounds;
use crate::server::Server;
use crate::url::Url;
use crate::workload::{Plan, Workload};

/// What to send, and to whom.
#[derive(Debug, Args)]
pub(crate) struct Amqp {
    /// A broker that runs already; without one, Leveret is started in a process of its own.
    #[arg(long)]
    url: Option<String>,
    /// The broker's process, for what it used. Unless set, whoever listens at the port of --url.
    #[arg(long, requires = "url")]
    pid: Option<u32>,
    /// A folder on the disk of the broker at --url, for what the disk did.
    #[arg(long, requires = "url")]
    disk: Option<PathBuf>,
    /// The queues' `x-queue-type`: `classic` or `quorum` for RabbitMQ.
    #[arg(long)]
    queue_type: Option<String>,
    #[command(flatten)]
    workload: Workload,
    /// How often; the figures are of each round and the median.
    #[arg(long, default_value_t = 1)]
    rounds: usize,
}

impl Amqp {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let plan = Plan::new(&self.workload)?;
        println!("{}", self.workload);
        let run = |url: &str, subject: Subject<'_>| {
            let amqp = load::amqp::Amqp { url: Url::parse(url)?, queue_type: self.queue_type.clone() };
            load::run(&amqp, &plan, subject)
        };
        let Some(url) = &self.url else {
            let server = Server::start(&[])?;
            return rounds(self.rounds, || run(&server.amqp_url, server.subject()));
        };
        let pid = match self.pid {
            Some(pid) => Some(pid),
            None => Url::parse(url)?.port().and_then(process::listener),
        };
        rounds(self.rounds, || run(url, Subject { pid, data: self.disk.as_deref() }))
    }
}
