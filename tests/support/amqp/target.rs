//! Whom the cases are run against: a broker of ours in this process, or whoever is named.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use leveret_broker::Broker;
use leveret_broker::config::Config;

use super::{Login, Peer};
use crate::{broker_with, config};

/// The variable of the environment that names another broker as host:port.
const OTHER: &str = "LEVERET_TEST_AMQP";

/// Names of queues and exchanges are used once in this process, since all cases meet in one broker if it is another.
static NAMES: AtomicU64 = AtomicU64::new(0);

/// A broker that speaks AMQP.
pub struct Target {
    /// Where it listens.
    pub address: SocketAddr,
    /// Ours, whose data goes with it; none if the environment names another one.
    pub broker: Option<Broker>,
}

impl Target {
    /// The broker that the environment names, or a new one of ours.
    pub async fn start() -> Self {
        let Ok(named) = std::env::var(OTHER) else { return Self::ours(config()).await };
        let address = named.parse().unwrap_or_else(|error| panic!("{OTHER} is {named}: {error}"));
        Self { address, broker: None }
    }

    /// A new broker of ours, whatever the environment says.
    pub async fn ours(config: Config) -> Self {
        let broker = broker_with(config).await;
        let address = broker.amqp_addresses()[0];
        Self { address, broker: Some(broker) }
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
        if self.broker.is_some() { leveret } else { rabbitmq }
    }
}
