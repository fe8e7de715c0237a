//! What a disk has done, as the kernel says in `/proc/diskstats`: of everybody who uses it, so keep others quiet.

use std::os::linux::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// What a disk was asked to do so far, or between two moments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DiskUsage {
    /// Bytes written.
    pub(crate) bytes: u64,
    /// Flushes of its cache: one for each sync, if nobody else syncs.
    pub(crate) flushes: u64,
}

/// The kernel counts in these, whatever the disk's own sectors are.
const SECTOR_BYTES: u64 = 512;

impl DiskUsage {
    /// Of the disk that holds this folder; nothing if the kernel does not say.
    pub(crate) fn of(folder: &Path) -> Option<Self> {
        let device = std::fs::metadata(folder).ok()?.st_dev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        Self::parse(&std::fs::read_to_string("/proc/diskstats").ok()?, major, minor)
    }

    fn parse(stats: &str, major: u32, minor: u32) -> Option<Self> {
        stats.lines().find_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
            if (number(0)?, number(1)?) != (u64::from(major), u64::from(minor)) {
                return None;
            }
            Some(Self { bytes: number(9)? * SECTOR_BYTES, flushes: number(18)? })
        })
    }

    /// What came between the two.
    pub(crate) fn until(self, later: Self) -> Self {
        Self {
            bytes: later.bytes.saturating_sub(self.bytes),
            flushes: later.flushes.saturating_sub(self.flushes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_right_disk_is_read() {
        let stats = " 7 0 loop0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n \
                     254 1 vda1 1 2 3 4 5 6 700 8 9 10 11 12 13 14 15 16 17 18\n";
        assert_eq!(DiskUsage::parse(stats, 254, 1), Some(DiskUsage { bytes: 700 * 512, flushes: 16 }));
        assert_eq!(DiskUsage::parse(stats, 254, 2), None);
    }
}
