//! Where the figures were measured.

use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

use super::float;

/// What somebody else needs to know who compares figures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) memory_mib: u64,
    pub(crate) kernel: String,
    /// Of the folder with the brokers' data.
    pub(crate) filesystem: String,
    /// What of the time others had on the same hardware, in percent, while it was measured.
    pub(crate) steal_percent: f64,
    /// Of the sources, with a plus if they were changed since; empty outside of a checkout.
    pub(crate) commit: String,
    /// Seconds since 1970-01-01 UTC.
    pub(crate) measured_at: u64,
}

/// Processor time of the whole machine so far, in ticks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ticks {
    all: u64,
    stolen: u64,
}

impl Ticks {
    pub(crate) fn now() -> Option<Self> {
        Self::parse(&std::fs::read_to_string("/proc/stat").ok()?)
    }

    fn parse(stat: &str) -> Option<Self> {
        let ticks: Vec<u64> =
            stat.lines().next()?.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
        // The two fields behind the eighth are parts of others.
        Some(Self { all: ticks.iter().take(8).sum(), stolen: *ticks.get(7)? })
    }

    /// What was stolen between the two, in percent.
    pub(crate) fn steal_until(self, later: Self) -> f64 {
        let all = later.all.saturating_sub(self.all).max(1);
        float(later.stolen.saturating_sub(self.stolen)) / float(all) * 100.0
    }
}

impl Machine {
    /// This one; `data` is where brokers have their data, and `since` when the measurements began.
    pub(crate) fn describe(data: &Path, since: Option<Ticks>) -> Self {
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let value = |text: &str, key: &str| {
            let line = text.lines().find(|line| line.starts_with(key))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let memory = value(&text("/proc/meminfo"), "MemTotal").unwrap_or_default();
        let kib: u64 = memory.trim_end_matches(" kB").parse().unwrap_or_default();
        Self {
            processor: value(&text("/proc/cpuinfo"), "model name").unwrap_or_else(|| "unknown".to_owned()),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_mib: kib / 1024,
            kernel: text("/proc/sys/kernel/osrelease").trim().to_owned(),
            filesystem: filesystem(&text("/proc/self/mounts"), data),
            steal_percent: since.zip(Ticks::now()).map_or(0.0, |(since, now)| since.steal_until(now)),
            commit: commit().unwrap_or_default(),
            measured_at: super::clock::unix_seconds(),
        }
    }
}

/// The filesystem that holds a folder: what is mounted closest above it.
fn filesystem(mounts: &str, folder: &Path) -> String {
    let mut closest = (0, "unknown".to_owned());
    for mount in mounts.lines() {
        let fields: Vec<&str> = mount.split_whitespace().collect();
        let (Some(point), Some(kind)) = (fields.get(1), fields.get(2)) else { continue };
        if folder.starts_with(point) && point.len() >= closest.0 {
            closest = (point.len(), (*kind).to_owned());
        }
    }
    closest.1
}

fn commit() -> Option<String> {
    // Wherever it is called from: the checkout is where it was built.
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .args(["-C", env!("CARGO_MANIFEST_DIR")])
            .args(arguments)
            .output()
            .ok()
            .filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changed =
        git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|changes| !changes.is_empty());
    Some(if changed { commit + "+" } else { commit })
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} ({} cores, {} MiB), Linux {}, {}, steal {:.1} %, commit {}",
            self.processor,
            self.cores,
            self.memory_mib,
            self.kernel,
            self.filesystem,
            self.steal_percent,
            if self.commit.is_empty() { "unknown" } else { &self.commit }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steal_is_a_share_of_all_time() {
        let before = Ticks::parse("cpu  100 0 100 700 0 0 0 100 5 5\ncpu0 1 2 3\n").unwrap();
        let after = Ticks::parse("cpu  140 0 140 800 0 0 0 120 9 9\n").unwrap();
        assert!((before.steal_until(after) - 10.0).abs() < 1e-9);
        assert!(Ticks::parse("cpu 1 2 3").is_none());
    }

    #[test]
    fn the_closest_mount_counts() {
        let mounts = "/dev/a / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/b /tmpdata xfs rw 0 0\n";
        assert_eq!(filesystem(mounts, Path::new("/tmp/x")), "tmpfs");
        assert_eq!(filesystem(mounts, Path::new("/tmpdata")), "xfs");
        assert_eq!(filesystem(mounts, Path::new("/var")), "ext4");
    }
}
