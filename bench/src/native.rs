//! Load over Leveret's own protocol: through the client crate, as services do, or from sockets of our own.

use clap::Args;

use crate::load::{self, Outcome};
use crate::native_client;
use crate::server::Server;
use crate::url::Url;
use crate::workload::{Plan, Workload};

/// What to send, and how.
#[derive(Debug, Args)]
pub(crate) struct Native {
    /// A broker that runs already; without one, one is started in a process of its own.
    #[arg(long)]
    url: Option<String>,
    #[command(flatten)]
    workload: Workload,
    /// From sockets of our own, encoded ahead and read in place, in place of the client crate: the generator takes little
    /// of the machine then.
    #[arg(long)]
    raw: bool,
    /// How often; the figures are of each round and the median.
    #[arg(long, default_value_t = 1)]
    rounds: usize,
}

impl Native {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let plan = Plan::new(&self.workload)?;
        let server = Server::at(self.url.clone())?;
        println!("{}", self.workload);
        rounds(self.rounds, || {
            if self.raw {
                load::run(&load::native::Native { url: Url::parse(&server.url)? }, &plan, server.subject())
            } else {
                native_client::run(&plan, &server)
            }
        })
    }
}

/// Runs several rounds and shows them.
pub(crate) fn rounds(count: usize, mut round: impl FnMut() -> anyhow::Result<Outcome>) -> anyhow::Result<()> {
    let mut rates = Vec::new();
    for number in 1..=count {
        let outcome = round()?;
        println!("round {number}: {outcome}");
        rates.push(outcome.rate);
    }
    rates.sort_by(f64::total_cmp);
    println!("median: {:.0} deliveries/s", rates.get(rates.len() / 2).copied().unwrap_or_default());
    Ok(())
}
