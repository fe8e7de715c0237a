//! What a process has used, as the kernel says in `/proc`.

use serde::{Deserialize, Serialize};

/// What a process has used so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    /// User and system time, in microseconds.
    pub(crate) cpu_us: f64,
    /// Resident memory, in KiB.
    pub(crate) resident_kib: u64,
}

/// What a process used for the messages of a run.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Cost {
    /// Processor time for each message, in microseconds of one core.
    pub(crate) core_us: f64,
    /// Resident memory at the end, in KiB.
    pub(crate) resident_kib: u64,
}

/// The kernel's clock ticks a second, as it reports processor times: 100 on every Linux that there is.
const TICKS_PER_SECOND: f64 = 100.0;

impl Usage {
    /// Of this process; nothing if it is gone.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        Self::parse(&stat, &status)
    }

    /// Of the process that runs this code.
    pub(crate) fn own() -> Option<Self> {
        Self::of(std::process::id())
    }

    fn parse(stat: &str, status: &str) -> Option<Self> {
        // The second field is the program's name in brackets, which may hold anything.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks: f64 = [11, 12].iter().filter_map(|at| fields.get(*at)?.parse::<f64>().ok()).sum();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let resident_kib = resident.trim().trim_end_matches(" kB").parse().ok()?;
        Some(Self { cpu_us: ticks / TICKS_PER_SECOND * 1e6, resident_kib })
    }

    /// What was used between the two, for each of so many messages.
    pub(crate) fn cost_until(self, later: Self, messages: f64) -> Cost {
        Cost { core_us: (later.cpu_us - self.cpu_us) / messages.max(1.0), resident_kib: later.resident_kib }
    }
}

/// The process that listens at this port of this machine; nothing if there is none, or if it is another user's.
pub(crate) fn listener(port: u16) -> Option<u32> {
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .find_map(|table| listening_inode(&std::fs::read_to_string(table).ok()?, port))?;
    let socket = format!("socket:[{inode}]");
    std::fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let mut files = std::fs::read_dir(entry.path().join("fd")).ok()?.flatten();
        let holds =
            files.any(|file| std::fs::read_link(file.path()).is_ok_and(|to| to.as_os_str() == &*socket));
        holds.then_some(pid)
    })
}

/// The kernel's name for "listening" in its tables of sockets.
const LISTENING: &str = "0A";

fn listening_inode(table: &str, port: u16) -> Option<u64> {
    table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, local_port) = fields.get(1)?.rsplit_once(':')?;
        let listens = u16::from_str_radix(local_port, 16) == Ok(port) && fields.get(3) == Some(&LISTENING);
        if listens { fields.get(9)?.parse().ok() } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_read_whatever_the_program_is_called() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 100 0 0 0 150 50 0 0 20 0 1 0 5 6 7";
        let usage = Usage::parse(stat, "Name:\ta) b\nVmRSS:\t    2048 kB\n").unwrap();
        assert!((usage.cpu_us - 2e6).abs() < 1.0, "{usage:?}");
        assert_eq!(usage.resident_kib, 2048);
        let later = Usage { cpu_us: 3e6, resident_kib: 4096 };
        assert!((usage.cost_until(later, 1e6).core_us - 1.0).abs() < 1e-9);
    }

    #[test]
    fn who_listens_is_found() {
        let listening = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listening.local_addr().unwrap().port();
        assert_eq!(listener(port), Some(std::process::id()));
        drop(listening);
        assert_eq!(listener(port), None);
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
                     0: 0100007F:1F90 00000000:0000 01 00000000:00000000 00:00000000 00000000  0  0 5 1\n   \
                     1: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0  0 77 1\n";
        assert_eq!(listening_inode(table, 8080), Some(77), "a connection is no listener");
        assert_eq!(listening_inode(table, 8081), None);
    }

    #[test]
    fn a_process_that_is_not_there_has_no_usage() {
        assert!(Usage::own().is_some());
        assert!(Usage::of(u32::MAX).is_none());
    }
}
