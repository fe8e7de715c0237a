//! `strace` kills the broker at its N-th call of the system: nothing is built into the program for that.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::time::Instant;

use crate::checker::check;
use crate::fleet::Fleet;
use crate::kills;
use crate::random::{self, Random};
use leveret_tests::free_address;

use crate::server::{Server, url};

/// The calls, how far into a life of the broker they are looked for (a thread's first call is 1), and how often out of
/// a hundred one is chosen. The disk's calls come first; the network's show what a client has and has not been told.
const CALLS: [(&str, u64, u64); 8] = [
    ("pwrite64", 500, 33),
    ("fdatasync", 400, 33),
    ("fsync", 8, 4),
    ("rename", 6, 5),
    ("fallocate", 6, 5),
    ("unlink", 3, 2),
    ("sendto,writev", 250, 13),
    ("openat", 40, 5),
];
/// The calls of a broker that recovers, with their highest number.
const CALLS_AT_START: [(&str, u64); 6] =
    [("pwrite64", 4), ("fdatasync", 3), ("fsync", 5), ("pread64", 12), ("rename", 1), ("openat", 60)];
/// Calls that a broker under load does not come to in this time, it does not come to at all.
const PATIENCE: Duration = Duration::from_secs(4);
/// How many points the test command tries.
const POINTS_DEFAULT: usize = 12;

/// Starts a broker that is killed at a call of that kind.
fn spawn(call: &str, nth: u64, data_dir: &Path, address: SocketAddr) -> Server {
    let runner = [
        "strace",
        "--follow-forks",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        &format!("trace={call}"),
        "-e",
        &format!("inject={call}:signal=KILL:when={nth}"),
    ]
    .map(OsString::from);
    Server::spawn_under(&runner.each_ref().map(OsString::as_os_str), data_dir, address)
}

struct Sweep<'a> {
    fleet: &'a Fleet,
    data_dir: &'a Path,
    address: SocketAddr,
    distinct: BTreeSet<(&'static str, u64)>,
    twice: BTreeSet<(&'static str, u64)>,
    missed: u64,
}

impl Sweep<'_> {
    async fn kill_under_load(&mut self, random: &mut Random) {
        let mut ticket = random.below(100);
        let chosen = CALLS.iter().find(|(.., weight)| {
            let found = ticket < *weight;
            ticket = ticket.saturating_sub(*weight);
            found
        });
        let (call, last, _) = *chosen.unwrap_or(&CALLS[0]);
        let nth = 1 + random.below(last);
        if self.distinct.contains(&(call, nth)) {
            return;
        }
        let mut server = spawn(call, nth, self.data_dir, self.address);
        let died = !server.ready_or_ended().await || server.ends_within(PATIENCE).await;
        self.end(server, died).await;
        if died {
            self.distinct.insert((call, nth));
        } else {
            self.missed += 1;
        }
    }

    /// Kills it while it recovers, if it comes to that call before it listens.
    async fn kill_at_start(&mut self, random: &mut Random) {
        let (call, last) = CALLS_AT_START[random.below(CALLS_AT_START.len() as u64) as usize];
        let nth = 1 + random.below(last);
        let mut server = spawn(call, nth, self.data_dir, self.address);
        let died = !server.ready_or_ended().await;
        self.end(server, died).await;
        if died {
            self.twice.insert((call, nth));
        }
    }

    async fn end(&self, server: Server, died: bool) {
        if !died {
            server.kill_traced();
        }
        let ended = server.ended().await;
        assert!(ended.code != Some(1), "it failed:\n{}", ended.log);
        self.fleet.broker_ended().await;
    }
}

/// `LEVERET_KILL_POINTS=1000` tries that many distinct points.
#[tokio::test]
async fn a_kill_at_any_call_of_the_system_loses_nothing_that_was_promised() {
    if std::process::Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
        println!("SKIPPED: there is no strace on this machine, so no call of the system can be hit");
        return;
    }
    let points = std::env::var("LEVERET_KILL_POINTS").ok().and_then(|points| points.parse().ok());
    let points: usize = points.unwrap_or(POINTS_DEFAULT);
    let seed = random::seed();
    let began = Instant::now();
    let mut random = Random::new(seed);
    let data_dir = tempfile::tempdir().unwrap();
    let address = free_address();
    let server = kills::first_start(data_dir.path(), address).await;
    let (fleet, clients) = Fleet::launch(url(address), &mut random);
    kills::load(&fleet, &mut random).await;
    server.kill().await;
    fleet.broker_ended().await;
    let (distinct, twice) = (BTreeSet::new(), BTreeSet::new());
    let mut sweep = Sweep { fleet: &fleet, data_dir: data_dir.path(), address, distinct, twice, missed: 0 };
    while sweep.distinct.len() < points {
        sweep.kill_under_load(&mut random).await;
        if random.below(3) == 0 {
            sweep.kill_at_start(&mut random).await;
        }
        assert!(sweep.missed < 20 + points as u64, "most calls are never reached");
    }
    let (distinct, twice, missed) = (sweep.distinct, sweep.twice, sweep.missed);
    drop(clients);
    let drained = kills::drain(&fleet, data_dir.path(), address).await;
    let history = fleet.history.take();
    let verdict = check(&history);
    println!("seed                 {seed} (LEVERET_SEED brings it back)");
    println!("killed at            {} distinct calls; {missed} were not reached", distinct.len());
    for (call, ..) in CALLS {
        println!("  {call:<18} {}", distinct.iter().filter(|(other, _)| *other == call).count());
    }
    println!("and while recovering {} distinct calls", twice.len());
    println!("drained at the end   {drained}, after {:.1} s", began.elapsed().as_secs_f64());
    println!("{}", verdict.figures);
    println!("violations           {}", verdict.violations.len());
    assert!(verdict.violations.is_empty(), "seed {seed}\n{}", verdict.explain(&history));
}
