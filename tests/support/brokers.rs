//! Brokers for the length of a test.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use leveret_broker::Broker;
use leveret_broker::config::Config;
use tokio::runtime::{Builder, Runtime};

/// Longer than anything may take on a busy machine; whoever waits for longer reports a broken promise.
const PATIENCE: Duration = Duration::from_secs(10);

/// On this machine, with a port that the system chooses.
const ANY_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A configuration for many brokers at once: small files, small messages, otherwise the defaults.
pub fn config() -> Config {
    let mut config = Config::default();
    config.limits.message_bytes_max = 1 << 20;
    config.journal.segment_bytes = 4 << 20;
    config.journal.staged_bytes_max = 4 << 20;
    config
}

/// A broker whose data goes with it.
pub async fn broker() -> Broker {
    broker_with(config()).await
}

/// As [`broker`], with a configuration.
pub async fn broker_with(config: Config) -> Broker {
    Broker::builder().config(config).temporary().start().await.expect("the broker starts")
}

/// A broker on a data directory that outlives it.
pub async fn broker_at(data_dir: &Path) -> Broker {
    broker_on(data_dir, ANY_PORT).await
}

/// As [`broker_at`], with an address for AMQP, for clients that come back to a broker that was started again.
pub async fn broker_on(data_dir: &Path, amqp: SocketAddr) -> Broker {
    let builder = Broker::builder().config(config()).data_dir(data_dir);
    builder.listen([ANY_PORT]).listen_amqp([amqp]).start().await.expect("the broker starts")
}

/// A broker in a runtime of its own, so that it can be taken away with all its tasks in one moment. Dropping it does
/// just that.
pub struct Server {
    /// There until the end.
    parts: Option<(Broker, Runtime)>,
}

impl Server {
    /// Starts a broker on a data directory.
    pub fn start(data_dir: &Path) -> Self {
        apart(|| {
            let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
            let broker = runtime.block_on(broker_at(data_dir));
            Self { parts: Some((broker, runtime)) }
        })
    }

    /// The broker.
    pub fn broker(&self) -> &Broker {
        &self.parts.as_ref().expect("it is there until the end").0
    }

    /// Stops it in good order.
    pub fn stop(mut self) {
        let parts = self.parts.take();
        apart(|| parts.map(|(broker, runtime)| runtime.block_on(broker.stop()).expect("the broker stops")));
    }

    /// Takes it away as it is.
    pub fn kill(self) {
        drop(self);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let parts = self.parts.take();
        apart(|| drop(parts));
    }
}

/// An address that is free now, and that nobody gets by chance: it lies below the ports that the system gives to
/// outgoing connections. One of those could otherwise take the port while the broker is down, or connect to itself.
pub fn free_address() -> SocketAddr {
    let first = 10_000 + (std::process::id() % 2_000) as u16 * 10;
    (first..32_000)
        .map(|port| SocketAddr::from(([127, 0, 0, 1], port)))
        .find(|address| !taken(*address) && TcpListener::bind(address).is_ok())
        .unwrap()
}

/// Whether another test of this process has had it.
fn taken(address: SocketAddr) -> bool {
    static TAKEN: Mutex<Vec<SocketAddr>> = Mutex::new(Vec::new());
    let mut taken = TAKEN.lock().unwrap();
    let before = taken.contains(&address);
    taken.push(address);
    before
}

/// Runs on another thread, because a runtime can neither be entered nor dropped inside of another one.
fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(work).join()).expect("it does not panic")
}

/// Waits for what must happen; `what` says what that is, for the failure.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let outcome = tokio::time::timeout(PATIENCE, future).await;
    outcome.unwrap_or_else(|_| panic!("{what} did not happen within {} s", PATIENCE.as_secs()))
}
