//! A disk that is really full: eight mebibytes of it, filled and drained again and again.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use leveret_broker::Broker;
use leveret_broker::config::Config;
use leveret_client::{Client, Message, Publishing, Queue};
use leveret_tests::config;

const ROUNDS: usize = 20;
const DISK_BYTES: u64 = 8 << 20;
/// No step takes as long on any machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A small file system of its own for a data directory.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None` if this process may not mount one.
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={DISK_BYTES}");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "leveret"]).arg(folder.path()).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // If it is in use still, it stays until the machine restarts: the memory that it takes is small.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).output();
    }
}

fn small(data_dir: &Path) -> Config {
    let mut config = config();
    data_dir.clone_into(&mut config.data_dir);
    config.listen = vec![([127, 0, 0, 1], 0).into()];
    config.listen_amqp = Vec::new();
    config.limits.message_bytes_max = 64 << 10;
    config.journal.segment_bytes = 256 << 10;
    config.journal.staged_bytes_max = 1 << 20;
    config.disk.free_bytes_low = 2 << 20;
    config.disk.free_bytes_high = 3 << 20;
    config
}

async fn wait_for(client: &Client, paused: bool) {
    let mut watch = client.publishing();
    let mut now = watch.current();
    while matches!(now, Publishing::Paused { .. }) != paused {
        let changed = tokio::time::timeout(PATIENCE, watch.changed()).await;
        now = changed.unwrap_or_else(|_| panic!("not so within {PATIENCE:?}: paused = {paused}")).unwrap();
    }
}

/// Publishes until publishing is paused; gives the numbers that were confirmed.
async fn fill(client: &Client, numbers: &mut std::ops::RangeFrom<u64>) -> BTreeSet<u64> {
    let publisher = client.publisher("").open().await.unwrap();
    let paused = wait_for(client, true);
    tokio::pin!(paused);
    let mut confirmed = BTreeSet::new();
    let mut receipts = Vec::new();
    loop {
        let number = numbers.next().unwrap();
        let body = format!("{number} {}", "x".repeat(4000));
        let receipt = tokio::select! {
            receipt = publisher.send("q", Message::from(body)) => receipt.unwrap(),
            () = &mut paused => break,
        };
        receipts.push((number, receipt));
    }
    for (number, receipt) in receipts {
        match tokio::time::timeout(PATIENCE, receipt.confirmed()).await.expect("a confirm") {
            Ok(_) => drop(confirmed.insert(number)),
            Err(error) => assert!(error.is_retryable(), "{error}"),
        }
    }
    confirmed
}

/// A broker must not give up because its disk is full.
async fn unless_failed<T>(broker: &Broker, work: impl Future<Output = T>) -> T {
    tokio::select! {
        done = work => done,
        reason = broker.failed() => panic!("the broker failed: {reason}"),
    }
}

/// Takes and acknowledges messages until none is left; gives their numbers.
async fn drain(client: &Client) -> Vec<u64> {
    let mut consumer = client.consumer("q").prefetch_max(50).open().await.unwrap();
    let mut numbers = Vec::new();
    loop {
        let next = tokio::time::timeout(Duration::from_millis(500), consumer.try_next()).await;
        let Ok(next) = next else {
            if client.check_queue("q").await.unwrap().messages() == 0 {
                return numbers;
            }
            continue;
        };
        let delivery = next.unwrap().unwrap();
        let text = String::from_utf8(delivery.body().to_vec()).unwrap();
        numbers.push(text.split_once(' ').unwrap().0.parse().unwrap());
        delivery.ack();
    }
}

#[tokio::test]
async fn a_full_disk_is_drained_and_filled_again_and_nothing_confirmed_is_lost() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("SKIPPED: a small file system cannot be mounted here: not root");
        return;
    };
    let mut broker = Broker::builder().config(small(disk.0.path())).start().await.unwrap();
    let mut client = Client::connect(&broker.url()).await.unwrap();
    client.declare(Queue::durable("q")).await.unwrap();
    let mut numbers = 0..;
    let (mut all, mut slowest) = (0, Duration::ZERO);
    for round in 0..ROUNDS {
        let confirmed = unless_failed(&broker, fill(&client, &mut numbers)).await;
        assert!(confirmed.len() > 100, "round {round}: {} messages fit", confirmed.len());
        if round % 4 == 3 {
            // While it is full it can be stopped and started as well.
            client.close().await.unwrap();
            broker.stop().await.unwrap();
            broker = Broker::builder().config(small(disk.0.path())).start().await.unwrap();
            client = Client::connect(&broker.url()).await.unwrap();
        }
        let drained = unless_failed(&broker, drain(&client)).await;
        let lost: Vec<_> = confirmed.difference(&drained.iter().copied().collect()).copied().collect();
        assert!(lost.is_empty(), "round {round}: {lost:?} were confirmed and are lost");
        assert!(drained.is_sorted() || round % 4 == 3, "round {round}: {drained:?}");
        let begun = tokio::time::Instant::now();
        unless_failed(&broker, wait_for(&client, false)).await;
        slowest = slowest.max(begun.elapsed());
        all += confirmed.len();
    }
    println!(
        "filled and drained {ROUNDS} times: {all} messages confirmed, 0 lost, resumed within {slowest:?}"
    );
    client.close().await.unwrap();
    broker.stop().await.unwrap();
}
