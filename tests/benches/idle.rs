//! What a broker's process keeps for a connection and for a queue that nobody uses at the moment.
//!
//! `cargo bench -p leveret-tests --bench idle`. Linux only: it reads `/proc`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench, which ends with what fails")]

use std::io::Read;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use leveret_broker::Broker;
use leveret_broker::config::Config;
use leveret_client::{Client, Queue};
use leveret_tests::amqp;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

const CONNECTIONS: usize = 2000;
const QUEUES: usize = 10_000;
/// Makes this program the broker that is measured.
const AS_BROKER: &str = "--as-broker";

#[tokio::main]
async fn main() {
    if std::env::args().any(|argument| argument == AS_BROKER) {
        return serve().await;
    }
    let native = Measured::start().await;
    let clients = native.grows_by("an idle native connection", CONNECTIONS, async || {
        Client::connect(&native.url).await.unwrap()
    });
    drop(clients.await);
    let amqp = Measured::start().await;
    let login = amqp::Login::default();
    let peers = amqp.grows_by("an idle AMQP connection", CONNECTIONS, async || {
        amqp::Peer::connect(amqp.amqp, &login).await
    });
    drop(peers.await);
    let queues = Measured::start().await;
    let client = Client::connect(&queues.url).await.unwrap();
    let mut number = 0;
    queues
        .grows_by("an idle durable queue", QUEUES, async || {
            number += 1;
            client.declare(Queue::durable(format!("queue-{number}"))).await.unwrap();
        })
        .await;
}

/// Until its input ends, which it does with whoever measures.
async fn serve() {
    let broker = Broker::builder().config(Config::default()).temporary().start().await.unwrap();
    println!("{} {}", broker.url(), broker.amqp_addresses().first().unwrap());
    let ended = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    ended.await.unwrap().unwrap();
    broker.stop().await.unwrap();
}

/// A broker in a process of its own.
struct Measured {
    process: Child,
    url: String,
    amqp: SocketAddr,
}

impl Measured {
    async fn start() -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .arg(AS_BROKER)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).await.unwrap();
        let (url, amqp) = line.trim().split_once(' ').unwrap();
        Self { url: url.to_owned(), amqp: amqp.parse().unwrap(), process }
    }

    /// Makes so many, and says by how much the broker has grown with each.
    async fn grows_by<T>(&self, what: &str, number: usize, mut new: impl AsyncFnMut() -> T) -> Vec<T> {
        let mut made = Vec::new();
        // The first ones pay for what all share.
        for _ in 0..number / 10 {
            made.push(new().await);
        }
        let before = self.resident_bytes().await;
        for _ in 0..number {
            made.push(new().await);
        }
        let grown = self.resident_bytes().await.saturating_sub(before);
        println!("{what}: {} bytes ({number} of them, {} KiB)", grown / number as u64, grown / 1024);
        made
    }

    /// When it has come to rest.
    async fn resident_bytes(&self) -> u64 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let path = format!("/proc/{}/status", self.process.id().unwrap());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() * 1024
    }
}
