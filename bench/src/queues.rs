//! Very many queues or connections: what each costs, and how long it takes to make them and to find them again.

use std::thread;

use anyhow::Context;
use clap::Args;
use leveret_protocol::{Control, QueueName};

use crate::load::native::{Session, declare};
use crate::measure::clock::Clock;
use crate::measure::float;
use crate::server::Server;
use crate::url::Url;

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

/// How many connections.
#[derive(Debug, Args)]
pub(crate) struct Connections {
    /// How many connections that do nothing. Both ends need a file for each.
    #[arg(long, default_value_t = 2000)]
    connections: u64,
}

/// What many queues came to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures {
    /// Seconds until all were declared, each declaration after the answer to the one before it.
    pub(crate) declared: f64,
    /// Bytes of the broker's memory for each.
    pub(crate) bytes_each: f64,
    /// Seconds from the start of the killed broker until it listens.
    pub(crate) restarted: f64,
    pub(crate) bytes_each_restarted: f64,
}

impl Queues {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        println!("{} durable queues, declared by {} connections", self.queues, self.connections);
        let figures = measure_queues(self.queues, self.connections)?;
        println!("declared: {:.2} s, {:.0} B of memory each", figures.declared, figures.bytes_each);
        println!(
            "killed:   listens {:.2} s after the start, {:.0} B of memory each",
            figures.restarted, figures.bytes_each_restarted
        );
        Ok(())
    }
}

impl Connections {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let each = measure_connections(self.connections)?;
        println!("{} idle connections with a channel each: {each:.0} B of memory each", self.connections);
        Ok(())
    }
}

/// Bytes of the broker's memory that came since it had `before`, for each.
fn each(server: &Server, before: u64, count: u64) -> anyhow::Result<f64> {
    let now = server.usage().context("the broker is gone")?.resident_kib;
    Ok(float(now.saturating_sub(before)) * 1024.0 / float(count.max(1)))
}

/// Declares queues over some connections at once, and restarts the broker.
pub(crate) fn measure_queues(queues: u64, connections: u64) -> anyhow::Result<Figures> {
    let server = Server::start(&[])?;
    let url = Url::parse(&server.url)?;
    let before = server.usage().context("the broker is gone")?.resident_kib;
    let mut sessions = Vec::new();
    for _ in 0..connections {
        sessions.push(Session::open(&url, false)?);
    }
    let clock = Clock::start();
    thread::scope(|scope| {
        let declaring: Vec<_> = sessions
            .iter_mut()
            .zip(0..)
            .map(|(session, first)| {
                scope.spawn(move || {
                    for number in (first..queues).step_by(connections as usize) {
                        let queue = QueueName::new(format!("queue-{number}"))?;
                        session
                            .requests(std::iter::once(Ok::<Control, anyhow::Error>(declare(queue, true))))?;
                    }
                    anyhow::Ok(())
                })
            })
            .collect();
        declaring.into_iter().try_for_each(|thread| {
            thread.join().map_err(|_| anyhow::anyhow!("a thread that declares queues panicked"))?
        })
    })?;
    let declared = clock.elapsed().as_secs_f64();
    drop(sessions);
    let bytes_each = each(&server, before, queues)?;
    let clock = Clock::start();
    let server = server.restart(&[])?;
    let restarted = clock.elapsed().as_secs_f64();
    let bytes_each_restarted = each(&server, before, queues)?;
    // The last one must be there, else the figures are of nothing.
    let mut session = Session::open(&Url::parse(&server.url)?, false)?;
    let last = QueueName::new(format!("queue-{}", queues.saturating_sub(1)))?;
    let Control::DeclareQueue(mut check) = declare(last, true) else { anyhow::bail!("no declaration") };
    check.passive = true;
    session.requests(std::iter::once(Ok(check.into())))?;
    Ok(Figures { declared, bytes_each, restarted, bytes_each_restarted })
}

/// Opens connections that do nothing; gives how many bytes of the broker's memory each takes.
pub(crate) fn measure_connections(connections: u64) -> anyhow::Result<f64> {
    let server = Server::start(&[])?;
    let url = Url::parse(&server.url)?;
    // The first one makes what all share.
    let mut sessions = vec![Session::open(&url, false)?];
    let before = server.usage().context("the broker is gone")?.resident_kib;
    for _ in 0..connections {
        sessions.push(Session::open(&url, false)?);
    }
    each(&server, before, connections)
}
