//! What the machine, or the container that the broker is in, gives it, and what is done when that gets short.

pub mod pressure;

use std::fs;

/// Where Linux says how much memory a control group may use: version 2, and version 1.
const CGROUP_LIMITS: [&str; 2] = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];

/// What is assumed where nothing says how much there is, in bytes.
const MEMORY_BYTES_ASSUMED: u64 = 2 << 30;

/// How much memory the broker may use, in bytes: what its control group allows, or what the machine has.
pub(crate) fn memory_bytes() -> u64 {
    let limits = CGROUP_LIMITS.iter().filter_map(|path| fs::read_to_string(path).ok());
    let limits = limits.filter_map(|text| text.trim().parse().ok());
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total_bytes(&text));
    limits.chain(machine).min().unwrap_or(MEMORY_BYTES_ASSUMED)
}

/// How much of the machine's memory this process has, in bytes; `None` where nothing says so.
pub(crate) fn resident_bytes() -> Option<u64> {
    kibibytes(&fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

/// Reads the line `MemTotal:       24635456 kB`.
fn total_bytes(meminfo: &str) -> Option<u64> {
    kibibytes(meminfo, "MemTotal:")
}

fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_found_among_other_lines() {
        let meminfo = "MemFree:  1 kB\nMemTotal:       24635456 kB\nSwapTotal: 0 kB\n";
        assert_eq!(total_bytes(meminfo), Some(24_635_456 * 1024));
        assert_eq!(total_bytes("MemTotal: much"), None);
    }

    #[test]
    fn there_is_some_memory() {
        assert!(memory_bytes() > 0);
        assert!(resident_bytes().is_none_or(|resident| (1..memory_bytes()).contains(&resident)));
    }
}
