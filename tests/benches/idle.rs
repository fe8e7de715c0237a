//! What a broker's process keeps for a connection and for a queue that nobody uses at the moment.
//!
//! `cargo bench -p leveret-tests --bench idle`. Linux only: it reads `/proc`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench, which ends with what fails")]

mod measured;

use std::time::Duration;

use leveret_client::{Client, Queue};
use leveret_tests::amqp;

use crate::measured::{Measured, served};

const CONNECTIONS: usize = 2000;
const QUEUES: usize = 10_000;
/// A queue that all connections use once, and the body of the message that they do it with.
const SHARED: &str = "shared";
const USED_BYTES: usize = 60_000;

#[tokio::main]
async fn main() {
    if served().await {
        return;
    }
    for used in [false, true] {
        let how = if used { "a used" } else { "an unused" };
        let broker = with_shared_queue().await;
        let clients = broker.grows_by(format!("{how} idle native connection"), CONNECTIONS, async || {
            let client = connect(&broker).await;
            if used {
                let publisher = client.publisher("").open().await.unwrap();
                publisher.publish(SHARED, vec![7; USED_BYTES]).await.unwrap();
                assert!(client.get_without_ack(SHARED).await.unwrap().is_some());
            }
            client
        });
        drop(clients.await);
        // Another one, or these would take what those have left.
        let broker = with_shared_queue().await;
        let login = amqp::Login::default();
        let peers = broker.grows_by(format!("{how} idle AMQP connection"), CONNECTIONS, async || {
            let mut peer = amqp::Peer::connect(broker.amqp, &login).await;
            if used {
                peer.publish("", SHARED, &"7".repeat(USED_BYTES)).await;
                assert!(peer.get_with(SHARED, true).await.is_some());
            }
            peer
        });
        drop(peers.await);
    }
    let queues = Measured::start().await;
    let client = connect(&queues).await;
    let mut number = 0;
    queues
        .grows_by("an idle durable queue".to_owned(), QUEUES, async || {
            number += 1;
            client.declare(Queue::durable(format!("queue-{number}"))).await.unwrap();
        })
        .await;
}

async fn with_shared_queue() -> Measured {
    let broker = Measured::start().await;
    connect(&broker).await.declare(Queue::durable(SHARED)).await.unwrap();
    broker
}

async fn connect(broker: &Measured) -> Client {
    Client::connect(&format!("leveret://guest:guest@{}", broker.native)).await.unwrap()
}

impl Measured {
    /// Makes so many, and says by how much the broker has grown with each.
    async fn grows_by<T>(&self, what: String, number: usize, mut new: impl AsyncFnMut() -> T) -> Vec<T> {
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
        let status = self.read_proc("status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() * 1024
    }
}
