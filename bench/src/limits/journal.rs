//! What the disk can do: write and sync, again and again.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::measure::clock::Clock;
use crate::measure::float;
use crate::measure::latency::{Latencies, Percentiles};

/// Write and sync.
#[derive(Debug, Clone, Args)]
pub(crate) struct JournalProbe {
    /// Where the file lies: the disk that is measured. A temporary folder unless set.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// How many bytes are written before each sync.
    #[arg(long, value_delimiter = ',', default_values_t = SIZES)]
    sizes: Vec<u64>,
    /// How the file is laid out.
    #[arg(long, value_delimiter = ',', default_values_t = [Layout::Recycled, Layout::Allocated, Layout::Growing])]
    layouts: Vec<Layout>,
    /// How long with each, in seconds.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
}

const SIZES: [u64; 5] = [4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20];

/// How the file is laid out before it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub(crate) enum Layout {
    /// All of it was written before: only data goes to the disk.
    Recycled,
    /// It has its blocks, but they were never written: each sync also says which are now.
    Allocated,
    /// It grows with each write.
    Growing,
}

impl std::fmt::Display for Layout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Recycled => "recycled",
            Self::Allocated => "allocated",
            Self::Growing => "growing",
        })
    }
}

/// How large the file is before it is written from the start again.
const FILE_BYTES: u64 = 256 << 20;

/// What one loop came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Rate {
    pub(crate) size: u64,
    /// Writes with their sync, a second.
    pub(crate) syncs: f64,
    /// Bytes a second.
    pub(crate) bytes: f64,
    /// From the write's begin to the sync's end.
    pub(crate) latency: Percentiles,
}

impl Default for JournalProbe {
    fn default() -> Self {
        let layouts = vec![Layout::Recycled, Layout::Allocated, Layout::Growing];
        Self { dir: None, sizes: SIZES.to_vec(), layouts, seconds: 1.0 }
    }
}

impl JournalProbe {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let temporary = tempfile::tempdir()?;
        let dir = self.dir.as_deref().unwrap_or(temporary.path());
        for layout in &self.layouts {
            for size in &self.sizes {
                let rate = measure(dir, *layout, *size, self.seconds)?;
                println!(
                    "journal, {layout}, {} KiB: {:.0} syncs/s, {:.0} MB/s, {}",
                    size / 1024,
                    rate.syncs,
                    rate.bytes / 1e6,
                    rate.latency
                );
            }
        }
        Ok(())
    }
}

/// Writes and syncs `size` bytes at a time for a while.
pub(crate) fn measure(dir: &Path, layout: Layout, size: u64, seconds: f64) -> anyhow::Result<Rate> {
    let path = dir.join("leveret-bench-journal");
    let result = measure_in(&path, layout, size, seconds);
    let removed = std::fs::remove_file(&path);
    let rate = result?;
    removed?;
    Ok(rate)
}

fn measure_in(path: &Path, layout: Layout, size: u64, seconds: f64) -> anyhow::Result<Rate> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    prepare(&file, layout)?;
    let bytes = vec![b'x'; size as usize];
    let mut latencies = Latencies::new()?;
    let (clock, until) = (Clock::start(), Duration::from_secs_f64(seconds));
    let (mut at, mut syncs) = (0, 0);
    while clock.elapsed() < until {
        let begin = clock.nanos();
        file.write_all_at(&bytes, at)?;
        file.sync_data()?;
        latencies.record(clock.nanos() - begin, 1);
        syncs += 1;
        at += size;
        if at + size > FILE_BYTES {
            at = 0;
            match layout {
                Layout::Recycled => {}
                // Else it would be a recycled file from here on.
                Layout::Allocated | Layout::Growing => {
                    file.set_len(0)?;
                    prepare(&file, layout)?;
                }
            }
        }
    }
    let elapsed = clock.elapsed().as_secs_f64();
    Ok(Rate {
        size,
        syncs: float(syncs) / elapsed,
        bytes: float(syncs * size) / elapsed,
        latency: latencies.percentiles().context("nothing was written")?,
    })
}

fn prepare(file: &File, layout: Layout) -> anyhow::Result<()> {
    match layout {
        Layout::Growing => {}
        Layout::Allocated => rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, FILE_BYTES)?,
        Layout::Recycled => {
            let zeros = vec![0; 1 << 20];
            for at in (0..FILE_BYTES).step_by(zeros.len()) {
                file.write_all_at(&zeros, at)?;
            }
        }
    }
    Ok(file.sync_all()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_layout_is_measured_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        for layout in [Layout::Recycled, Layout::Allocated, Layout::Growing] {
            let rate = measure(dir.path(), layout, 4096, 0.01).unwrap();
            assert!(rate.syncs > 0.0 && rate.latency.count > 0, "{layout}: {rate:?}");
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
