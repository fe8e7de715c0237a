//! The broker ends at every crash point of its code, under load, and is started again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use leveret_client::{Client, Queue};
use tokio::time::Instant;

use crate::checker::check;
use crate::fleet::Fleet;
use crate::kills;
use crate::random::{self, Random};
use leveret_tests::free_address;

use crate::server::{Server, url};

/// Reached at most once in a life, before the broker listens.
const AT_START: [&str; 4] = ["journal.recovery.", "journal.copy.", "start.", "journal.make."];
/// Reached only in an orderly stop.
const AT_STOP: [&str; 3] = ["journal.clean_stop.", "stop.", "checkpoint."];
/// Reached when a checkpoint takes the place of the one before, or of none.
const AT_REPLACEMENT: [&str; 2] = ["checkpoint.written", "checkpoint.renamed"];
/// The longest that a broker under load needs to come to a point, or the test has no such load.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often those points are tried again that no life came to.
const ROUNDS_MAX: usize = 5;

/// How long an orderly stop is waited for, before the point is taken for one that is reached under load.
const LOAD: Duration = Duration::from_millis(150);

/// The crash points that the sources name.
fn points() -> Vec<String> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut folders = vec![workspace.join("broker/src"), workspace.join("journal/src")];
    let mut points = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let source = std::fs::read_to_string(&path).unwrap();
                let found = source.split("crash_point(\"").skip(1).filter_map(|rest| rest.split('"').next());
                points.extend(found.map(str::to_owned));
            }
        }
    }
    points.sort_unstable();
    points
}

fn is(point: &str, kind: &[&str]) -> bool {
    kind.iter().any(|prefix| point.starts_with(prefix))
}

/// What a sweep came to.
#[derive(Default)]
struct Sweep {
    /// How often the broker ended at each point.
    ended: BTreeMap<String, u64>,
    /// How often it ended a second time, while it recovered from that.
    twice: u64,
    /// Not reached: the life had ended before.
    missed: Vec<String>,
}

impl Sweep {
    /// Lets a broker live until it ends at the point.
    async fn end_at(&mut self, point: &str, hit: u64, fleet: &Fleet, data_dir: &Path, address: SocketAddr) {
        if point == "journal.recovery.mark_retired" {
            let mut server = Server::spawn(data_dir, address);
            server.ready().await;
            assert_eq!(server.terminate().await.code, Some(0));
            fleet.broker_ended().await;
        }
        let mut server = Server::spawn_armed(point, hit, data_dir, address);
        if server.ready_or_ended().await {
            let patience = if is(point, &AT_STOP) { LOAD } else { PATIENCE };
            if !server.ends_within(patience).await {
                server.request_stop();
            }
        }
        let ended = server.ended().await;
        fleet.broker_ended().await;
        // A crash point aborts, so that there is no exit code.
        if ended.code.is_none() {
            *self.ended.entry(point.to_owned()).or_default() += 1;
        } else {
            self.missed.push(format!("{point}@{hit}"));
        }
    }
}

/// Ends brokers at each point as often as there are hits, in an order that the seed gives.
async fn sweep(seed: u64, hits: &[u64]) {
    let began = Instant::now();
    let mut random = Random::new(seed);
    let data_dir = tempfile::tempdir().unwrap();
    let address = free_address();
    let server = kills::first_start(data_dir.path(), address).await;
    let (fleet, clients) = Fleet::launch(url(address), &mut random);
    kills::load(&fleet, &mut random).await;
    server.kill().await;
    fleet.broker_ended().await;
    let points = points();
    let (at_start, others): (Vec<_>, Vec<_>) = points.iter().partition(|point| is(point, &AT_START));
    let mut plan: Vec<(&String, u64)> = Vec::new();
    for hit in hits {
        plan.extend(at_start.iter().map(|point| (*point, 1)));
        plan.extend(others.iter().map(|point| (*point, if is(point, &AT_STOP) { 1 } else { *hit })));
    }
    for index in (1..plan.len()).rev() {
        plan.swap(index, random.below(index as u64 + 1) as usize);
    }
    let mut sweep = Sweep::default();
    for (point, hit) in plan {
        sweep.end_at(point, hit, &fleet, data_dir.path(), address).await;
        // Half of them end a second time, while they recover.
        if random.below(2) == 0 {
            let again = at_start[random.below(at_start.len() as u64) as usize];
            sweep.twice += 1;
            sweep.end_at(again, 1, &fleet, data_dir.path(), address).await;
        }
    }
    // What a point needs (an unclean end before, say) may have been missing the first time.
    for point in points.iter().cycle().take(ROUNDS_MAX * points.len()) {
        if !sweep.ended.contains_key(point) {
            sweep.end_at(point, 1, &fleet, data_dir.path(), address).await;
        }
    }
    drop(clients);
    let drained = kills::drain(&fleet, data_dir.path(), address).await;
    let history = fleet.history.take();
    let verdict = check(&history);
    println!("seed                 {seed} (LEVERET_SEED brings it back)");
    println!("crash points         {} named, {} of them reached", points.len(), sweep.ended.len());
    println!(
        "ended there          {} times, {} of them twice in a row",
        sweep.ended.values().sum::<u64>(),
        sweep.twice
    );
    println!("not reached in time  {:?}", sweep.missed);
    println!("drained at the end   {drained}, after {:.1} s", began.elapsed().as_secs_f64());
    println!("{}", verdict.figures);
    println!("violations           {}", verdict.violations.len());
    assert!(verdict.violations.is_empty(), "seed {seed}\n{}", verdict.explain(&history));
    let unreached: Vec<_> =
        at_start.iter().chain(&others).filter(|point| !sweep.ended.contains_key(**point)).collect();
    assert!(unreached.is_empty(), "no broker ever came to {unreached:?}");
}

/// `LEVERET_CRASH_HITS=20` ends it that often at each point, at rising counts of hits.
#[tokio::test]
async fn a_broker_that_ends_at_any_crash_point_keeps_what_it_promised() {
    let hits = std::env::var("LEVERET_CRASH_HITS").ok().and_then(|hits| hits.parse().ok()).unwrap_or(1);
    let hits: Vec<u64> = (0..hits).map(|hit: u64| 1 + hit * hit).collect();
    sweep(random::seed(), &hits).await;
}

#[tokio::test]
async fn a_first_checkpoint_that_is_cut_short_loses_no_definition() {
    for point in AT_REPLACEMENT {
        let data_dir = tempfile::tempdir().unwrap();
        let address = free_address();
        let mut server = Server::spawn_armed(point, 1, data_dir.path(), address);
        server.ready().await;
        let client = Client::connect(&url(address)).await.unwrap();
        client.declare(Queue::durable("kept")).await.unwrap();
        let ended = server.terminate().await;
        assert_eq!(ended.code, None, "{point}: {}", ended.log);
        for _ in 0..2 {
            let server = Server::start(data_dir.path(), address).await;
            let client = Client::connect(&url(address)).await.unwrap();
            client.check_queue("kept").await.unwrap();
            assert_eq!(server.terminate().await.code, Some(0));
        }
    }
}
