//! Whom the cases are run against: a broker of ours in this process, or whoever is named.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Login, Peer};

/// The variable of the environment that names another broker as host:port.
const OTHER: &str = "LEVERET_TEST_AMQP";

/// Names of queues and exchanges are used once in this process, since all cases meet in one broker if it is another.
static NAMES: AtomicU64 = AtomicU64::new(0);

/// A broker that speaks AMQP.
#[derive(Debug)]
pub struct Target {
    /// Where it listens.
    pub address: SocketAddr,
    other: bool,
}

impl Target {
    /// The broker that the environment names, or a new one of ours.
    pub async fn start() -> Self {
        let named = std::env::var(OTHER).expect("host:port");
        let address = named.parse().unwrap_or_else(|error| panic!("{OTHER} is {named}: {error}"));
        Self { address, other: true }
    }

    /// A connection with channel 1 open.
    pub async fn peer(&self) -> Peer {
        Peer::connect(self.address, &Login::default()).await
    }

    /// Only the socket: not a byte is sent.
    pub async fn socket(&self) -> Peer {
        Peer::socket(self.address).await
    }

    /// A name that nothing else in this broker has.
    pub fn name(&self, what: &str) -> String {
        let (process, number) = (std::process::id(), NAMES.fetch_add(1, Ordering::Relaxed));
        format!("{what}-{process}-{number}")
    }

    /// What is right where the two brokers differ on purpose. `why` stands in the table of differences.
    #[allow(clippy::print_stdout, reason = "`tests/rabbitmq/compare` collects it")]
    pub fn differs<T>(&self, rabbitmq: T, leveret: T, why: &str) -> T {
        println!("differs on purpose: {why}");
        if self.other { rabbitmq } else { leveret }
    }
}
