//! The broker that clients meet.

use std::net::SocketAddr;

use leveret_broker::Broker;
use leveret_tests::broker;

/// A broker for the length of a test.
pub(crate) struct Target {
    /// Where it speaks AMQP.
    pub(crate) address: SocketAddr,
    /// There unless somebody else's broker is the target.
    _broker: Option<Broker>,
}

impl Target {
    /// Starts one, or takes the one that the environment names.
    pub(crate) async fn start() -> Self {
        if let Ok(address) = std::env::var("LEVERET_TEST_AMQP") {
            let address = address.parse().expect("LEVERET_TEST_AMQP is an address such as 127.0.0.1:5672");
            return Self { address, _broker: None };
        }
        let broker = broker().await;
        Self { address: broker.amqp_addresses()[0], _broker: Some(broker) }
    }
}
