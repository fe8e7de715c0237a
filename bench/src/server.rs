//! The broker under load: one that runs already, or one of our own in a process of its own.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::Context;

use crate::load::Subject;
use crate::measure::process::{self, Usage};
use crate::url::Url;

/// A broker to measure.
pub(crate) struct Server {
    /// Where it listens.
    pub(crate) url: String,
    /// Where it speaks AMQP; empty if it is not our own.
    pub(crate) amqp_url: String,
    /// Its process, as far as that is known.
    pid: Option<u32>,
    process: Option<Process>,
}

struct Process {
    child: Child,
    /// Its data, removed with it.
    data: tempfile::TempDir,
}

impl Server {
    /// The broker at `url`, or a new one with data in a temporary folder.
    pub(crate) fn at(url: Option<String>) -> anyhow::Result<Self> {
        match url {
            Some(url) => {
                let pid = Url::parse(&url)?.port().and_then(process::listener);
                Ok(Self { url, amqp_url: String::new(), pid, process: None })
            }
            None => Self::start(&[]),
        }
    }

    /// A new broker with data in a temporary folder, and these further arguments.
    pub(crate) fn start(arguments: &[&str]) -> anyhow::Result<Self> {
        Self::start_on(tempfile::tempdir()?, arguments)
    }

    /// Kills the broker, and starts another one on its data.
    pub(crate) fn restart(mut self, arguments: &[&str]) -> anyhow::Result<Self> {
        let mut process =
            self.process.take().context("a broker that was not started here is not restarted")?;
        process.end();
        let data = std::mem::replace(&mut process.data, tempfile::tempdir()?);
        Self::start_on(data, arguments)
    }

    /// How many bytes its data takes up on the disk; nothing if it is not our own.
    pub(crate) fn disk_bytes(&self) -> Option<u64> {
        bytes_below(self.process.as_ref()?.data.path()).ok()
    }

    fn start_on(data: tempfile::TempDir, arguments: &[&str]) -> anyhow::Result<Self> {
        let program = beside_this_program("leveret")?;
        let mut child = Command::new(&program)
            // Without heartbeats, which generators that only wait do not send.
            .args(["--listen", "127.0.0.1:0", "--limits-heartbeat", "0 s"])
            .args(["--listen-amqp", "127.0.0.1:0", "--data-dir"])
            .arg(data.path())
            .args(arguments)
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let log = child.stderr.take().context("the broker has no log")?;
        let mut lines = BufReader::new(log).lines();
        let mut address = |scheme: &str| {
            loop {
                let line = lines.next().context("the broker ended before it listened")??;
                if let Some((_, rest)) = line.split_once(&format!("{scheme}://")) {
                    let address = rest.split_whitespace().next().unwrap_or(rest);
                    return anyhow::Ok(format!("{scheme}://guest:guest@{address}"));
                }
            }
        };
        // In the order in which it says so.
        let (url, amqp_url) = (address("leveret")?, address("amqp")?);
        // Keeps reading, so that the broker never waits for somebody to take its log.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Self { url, amqp_url, pid: Some(child.id()), process: Some(Process { child, data }) })
    }

    /// What the broker has used; nothing if its process is not known.
    pub(crate) fn usage(&self) -> Option<Usage> {
        Usage::of(self.pid?)
    }

    /// What is observed of it while it works.
    pub(crate) fn subject(&self) -> Subject<'_> {
        Subject { pid: self.pid, data: self.process.as_ref().map(|process| process.data.path()) }
    }
}

impl Process {
    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

fn bytes_below(folder: &std::path::Path) -> std::io::Result<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        sum += if metadata.is_dir() { bytes_below(&entry.path())? } else { metadata.len() };
    }
    Ok(sum)
}

fn beside_this_program(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    anyhow::ensure!(
        path.exists(),
        "{} does not exist: build it with `cargo build --release -p leveret-broker`, or name a running broker with --url",
        path.display()
    );
    Ok(path)
}
