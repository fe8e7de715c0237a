//! What the machine can do at most, in the same layout of processes as the runs against brokers: the server is a process
//! of its own, this program under a hidden name, so that its processor time is known.

mod journal;
mod memory;
mod network;
mod server;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};
use clap::{Args, Subcommand};

use crate::load::{self, Outcome, Relay, Subject};
use crate::workload::{Plan, Workload};

use journal::JournalProbe;
pub(crate) use journal::{Layout, measure as journal};
pub(crate) use network::echo;
pub(crate) use server::serve;

/// Which limits.
#[derive(Debug, Args)]
pub(crate) struct Limits {
    #[command(subcommand)]
    probe: Option<Probe>,
}

#[derive(Debug, Subcommand)]
enum Probe {
    /// Frames from here to the server, which counts them.
    Sink(SinkProbe),
    /// Frames to the server and back, at several windows: the first is the round trip.
    Echo(EchoProbe),
    /// A null broker: frames from producers through the server to consumers. No queue, no journal.
    Relay(RelayProbe),
    /// The same with a confirm for each batch, and acknowledgements, which the server throws away.
    RelayConfirms(RelayProbe),
    /// Write and sync at several batch sizes, and with several ways to lay out the file.
    Journal(JournalProbe),
    /// How fast memory is copied and checksums are computed.
    Memory,
}

/// Frames in one direction.
#[derive(Debug, Clone, Args)]
struct SinkProbe {
    /// The size of a body, in bytes.
    #[arg(long, default_value_t = 1024)]
    size: usize,
    /// How long, in seconds.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
}

/// Frames there and back.
#[derive(Debug, Clone, Args)]
struct EchoProbe {
    /// The size of a body, in bytes.
    #[arg(long, default_value_t = 1024)]
    size: usize,
    /// How many frames are on their way.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 256, 4096])]
    windows: Vec<usize>,
    /// How long with each window, in seconds.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
}

/// Frames from producers to consumers.
#[derive(Debug, Clone, Args)]
struct RelayProbe {
    /// How many producers, and as many consumers.
    #[arg(long, default_value_t = 1)]
    pairs: usize,
    /// The sizes of bodies, in bytes.
    #[arg(long, value_delimiter = ',', default_values_t = [16, 256, 1024])]
    sizes: Vec<usize>,
    /// With confirms: how many frames may be unconfirmed.
    #[arg(long, default_value_t = 4096)]
    window: u64,
    /// How long, in seconds.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// How often.
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// The server also decodes every frame and encodes it again, as a broker does that has nothing else to do.
    #[arg(long)]
    codec: bool,
}

impl Limits {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let relay = RelayProbe::default();
        match &self.probe {
            Some(Probe::Sink(probe)) => probe.run(),
            Some(Probe::Echo(probe)) => probe.run(),
            Some(Probe::Relay(probe)) => probe.run(false),
            Some(Probe::RelayConfirms(probe)) => probe.run(true),
            Some(Probe::Journal(probe)) => probe.run(),
            Some(Probe::Memory) => {
                memory::run();
                Ok(())
            }
            None => {
                SinkProbe { size: 1024, seconds: 2.0 }.run()?;
                EchoProbe { size: 1024, windows: vec![1, 16, 256, 4096], seconds: 2.0 }.run()?;
                relay.run(false)?;
                relay.run(true)?;
                JournalProbe::default().run()?;
                memory::run();
                Ok(())
            }
        }
    }
}

impl Default for RelayProbe {
    fn default() -> Self {
        Self { pairs: 1, sizes: vec![16, 256, 1024], window: 4096, seconds: 3.0, rounds: 1, codec: false }
    }
}

impl SinkProbe {
    fn run(&self) -> anyhow::Result<()> {
        let server = ProbeServer::start()?;
        let outcome = network::sink(&server, self.size, self.seconds)?;
        println!("sink, {} B: {outcome}", self.size);
        Ok(())
    }
}

impl EchoProbe {
    fn run(&self) -> anyhow::Result<()> {
        let server = ProbeServer::start()?;
        for window in &self.windows {
            let (rate, latency) = echo(&server, self.size, *window, self.seconds)?;
            println!("echo, {} B, window {window}: {rate:.0}/s, round trip {latency}", self.size);
        }
        Ok(())
    }
}

impl RelayProbe {
    fn run(&self, confirms: bool) -> anyhow::Result<()> {
        let name = match (confirms, self.codec) {
            (false, false) => "relay",
            (false, true) => "relay with codec",
            (true, false) => "relay with confirms",
            (true, true) => "relay with confirms and codec",
        };
        for size in &self.sizes {
            let workload = Workload {
                producers: self.pairs,
                queues: self.pairs,
                consumers: self.pairs,
                size: *size,
                transient: !confirms,
                window: confirms.then_some(self.window),
                seconds: Some(self.seconds),
                ..Workload::default()
            };
            for _ in 0..self.rounds {
                println!("{name}, {size} B, {} pairs: {}", self.pairs, relay(&workload, self.codec)?);
            }
        }
        Ok(())
    }
}

/// A workload through the null broker, which has confirms if the workload has a window.
pub(crate) fn relay(workload: &Workload, codec: bool) -> anyhow::Result<Outcome> {
    let server = ProbeServer::start()?;
    let subject = Subject { pid: Some(server.pid()), data: None };
    load::run(&Relay { address: server.address.clone(), codec }, &Plan::new(workload)?, subject)
}

/// What a connection to the probe server is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Whatever comes is counted.
    Sink,
    /// Whatever comes goes back.
    Echo,
    /// Frames go to the consumer of the same number.
    Producer { confirms: bool, codec: bool },
    /// Gets a producer's frames.
    Consumer,
}

const ROLES: [(Role, u8); 7] = [
    (Role::Sink, b'S'),
    (Role::Echo, b'E'),
    (Role::Producer { confirms: false, codec: false }, b'P'),
    (Role::Producer { confirms: true, codec: false }, b'Q'),
    (Role::Producer { confirms: false, codec: true }, b'R'),
    (Role::Producer { confirms: true, codec: true }, b'T'),
    (Role::Consumer, b'C'),
];

const OPENING_BYTES: usize = 3;

impl Role {
    /// What such a connection begins with.
    pub(crate) fn opening(self, number: u16) -> [u8; OPENING_BYTES] {
        let letter = ROLES.iter().find(|(role, _)| *role == self).map_or(0, |(_, letter)| *letter);
        let [low, high] = number.to_le_bytes();
        [letter, low, high]
    }

    fn read([letter, low, high]: [u8; OPENING_BYTES]) -> Option<(Self, u16)> {
        let (role, _) = ROLES.into_iter().find(|(_, known)| *known == letter)?;
        Some((role, u16::from_le_bytes([low, high])))
    }
}

/// The other side of the probes. It ends with the pipe to its standard input, so with this value or this process.
#[derive(Debug)]
pub(crate) struct ProbeServer {
    pub(crate) address: String,
    child: Child,
}

/// The hidden subcommand under which this program is the probe server.
pub(crate) const PROBE_SERVER: &str = "probe-server";

impl ProbeServer {
    pub(crate) fn start() -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(PROBE_SERVER)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the probe server")?;
        let output = child.stdout.take().context("the probe server has no output")?;
        let mut address = String::new();
        BufReader::new(output).read_line(&mut address)?;
        ensure!(!address.trim().is_empty(), "the probe server ended before it listened");
        Ok(Self { address: address.trim().to_owned(), child })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for ProbeServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
