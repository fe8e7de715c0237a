//! `kill -9` under load, again and again.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use leveret_client::Client;
use tokio::time::Instant;

use crate::checker::{Verdict, check};
use crate::fleet::Fleet;
use crate::history::Entry;
use crate::model;
use crate::random::Random;
use crate::server::{Server, url};
use leveret_tests::free_address;

/// The longest time under load before a kill, in milliseconds.
const LOAD_MS_MAX: u64 = 200;

/// The longest time after the start of the process at which a kill hits the start itself, in milliseconds.
const START_MS_MAX: u64 = 60;

/// Clients that see nothing for so long are stuck.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a run came to.
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) kills: u32,
    /// How many of the kills hit the start.
    pub(crate) kills_at_start: u32,
    pub(crate) orderly_stops: u32,
    pub(crate) start_max: Duration,
    /// The longest time between a SIGTERM and the end.
    pub(crate) stop_max: Duration,
    /// The longest time between a start and the first thing that a client did.
    pub(crate) back_max: Duration,
    /// The most segments that the journal had at a kill.
    pub(crate) segments_max: usize,
    pub(crate) drained: u64,
    pub(crate) took: Duration,
    pub(crate) history: Vec<Entry>,
    pub(crate) verdict: Verdict,
}

/// Kills a broker under load so many times, and starts it again each time; then empties the queues, kills it once
/// more, and judges.
pub(crate) async fn run(seed: u64, kills: u32) -> Report {
    let began = Instant::now();
    let mut random = Random::new(seed);
    let data_dir = tempfile::tempdir().unwrap();
    let address = free_address();
    let mut server = first_start(data_dir.path(), address).await;
    let (fleet, clients) = Fleet::launch(url(address), &mut random);
    let (mut killed, mut kills_at_start, mut orderly_stops) = (0, 0, 0);
    let (mut start_max, mut stop_max, mut back_max) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    let mut segments_max = 0;
    while killed < kills {
        let at_start = killed > 0 && random.below(6) == 0;
        if at_start {
            tokio::time::sleep(Duration::from_micros(random.below(START_MS_MAX * 1000))).await;
        } else {
            server.ready().await;
            back_max = back_max.max(load(&fleet, &mut random).await);
        }
        if random.below(6) == 0 {
            let stopping = Instant::now();
            let ended = server.terminate().await;
            stop_max = stop_max.max(stopping.elapsed());
            // Before it handles signals, and while it recovers, a stop may end it without ceremony.
            let orderly = ended.code == Some(0) || at_start && matches!(ended.code, None | Some(143));
            assert!(orderly, "SIGTERM, seed {seed}: {ended:?}");
            orderly_stops += 1;
        } else {
            let ended = server.kill().await;
            assert_eq!(ended.code, None, "it ended by itself, seed {seed}:\n{}", ended.log);
            killed += 1;
            kills_at_start += u32::from(at_start);
        }
        fleet.broker_ended().await;
        segments_max = segments_max.max(std::fs::read_dir(data_dir.path().join("journal")).unwrap().count());
        let starting = Instant::now();
        server = Server::spawn(data_dir.path(), address);
        if random.below(4) != 0 {
            server.ready().await;
            start_max = start_max.max(starting.elapsed());
        }
    }
    drop(clients);
    server.kill().await;
    fleet.broker_ended().await;
    let drained = drain(&fleet, data_dir.path(), address).await;
    let history = fleet.history.take();
    let verdict = check(&history);
    let kills = killed + 2;
    let took = began.elapsed();
    Report {
        seed,
        kills,
        kills_at_start,
        orderly_stops,
        start_max,
        stop_max,
        back_max,
        segments_max,
        drained,
        took,
        history,
        verdict,
    }
}

/// Starts a broker and defines everything, by a client that goes away again.
pub(crate) async fn first_start(data_dir: &Path, address: SocketAddr) -> Server {
    let server = Server::start(data_dir, address).await;
    let setup = Client::connect(&url(address)).await.unwrap();
    model::declare(&setup).await.unwrap();
    setup.close().await.unwrap();
    server
}

/// Empties all queues, kills the broker once more, and looks whether anything comes back. Gives how much there was.
pub(crate) async fn drain(fleet: &Arc<Fleet>, data_dir: &Path, address: SocketAddr) -> u64 {
    let server = Server::start(data_dir, address).await;
    let drained = fleet.drain().await;
    server.kill().await;
    fleet.broker_ended().await;
    let server = Server::start(data_dir, address).await;
    fleet.look_for_leftovers().await;
    let ended = server.terminate().await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    drained
}

/// Lets clients work for a random time, that begins when the first of them has done or seen something.
/// Gives how long they needed to begin.
pub(crate) async fn load(fleet: &Fleet, random: &mut Random) -> Duration {
    let events = fleet.history.len();
    let waiting = Instant::now();
    while fleet.history.len() == events {
        assert!(waiting.elapsed() < PATIENCE, "the clients are stuck");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let idle = waiting.elapsed();
    tokio::time::sleep(Duration::from_micros(1000 + random.below(LOAD_MS_MAX * 1000))).await;
    idle
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed                 {} (LEVERET_SEED brings it back)", self.seed)?;
        writeln!(
            f,
            "kill -9              {} ({} of them while it started), {} SIGTERM, in {:.1} s",
            self.kills,
            self.kills_at_start,
            self.orderly_stops,
            self.took.as_secs_f64()
        )?;
        let [start, stop, back] =
            [self.start_max, self.stop_max, self.back_max].map(|longest| longest.as_millis());
        writeln!(f, "longest start        {start} ms, then {back} ms to the first client; stop {stop} ms")?;
        writeln!(f, "longest journal      {} files of 1 MiB", self.segments_max)?;
        writeln!(f, "drained at the end   {}", self.drained)?;
        writeln!(f, "{}", self.verdict.figures)?;
        write!(f, "violations           {}", self.verdict.violations.len())
    }
}
