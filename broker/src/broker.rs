//! Builds the parts bottom-up; drains and stops them top-down.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use leveret_journal::faults::crash_point;
use leveret_journal::{CommitError, Journal, OpenError, RealDisk};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::{BootKey, Throttle, Users, UsersError};
use crate::clock::Clock;
use crate::config::{self, Config, Conflict};
use crate::connection::{self, Context, Dialect};
use crate::listener::{Listener, ListenerLimits};
use crate::logs::{LogTap, LogTapReceiver};
use crate::machine::pressure::{Levels, Pressure};
use crate::queue::Work;
use crate::store::{
    Checkpoint, CheckpointError, Memory, Pins, ProgressReporter, Recovered, Replay, Store, StoreError,
};
use crate::topology::{self, Alarms, Definition, READERS, Readers, Topology, VhostLimits};
use crate::upkeep::reclaim;

/// How many password hashes are computed at a time.
const HASHING_MAX: usize = 2;

/// A running broker. Dropping it without [`Broker::stop`] is as if the process had been killed: clients lose their
/// connections, and what was not confirmed may be lost.
pub struct Broker {
    native_addresses: Vec<SocketAddr>,
    amqp_addresses: Vec<SocketAddr>,
    context: Arc<Context>,
    tasks: TaskTracker,
    checkpoint: PathBuf,
    shutdown_timeout: Duration,
    /// Removed with the broker, if it was asked for.
    _temporary: Option<tempfile::TempDir>,
}

/// What a broker is started with.
#[derive(Debug, Default)]
pub struct BrokerBuilder {
    config: Config,
    temporary: bool,
    log_events: Option<LogTapReceiver>,
}

/// Why a broker does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Values of the configuration that do not go together.
    #[error(transparent)]
    Config(#[from] Conflict),
    /// A user that cannot be.
    #[error(transparent)]
    Users(#[from] UsersError),
    /// The data directory cannot be used.
    #[error("the data directory {}: {source}", path.display())]
    DataDir {
        /// Where it is.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// What was on disk is not there any more. Nothing is skipped unless somebody says so.
    #[error(
        "{damage}; `leveret inspect {0}` says what that costs, and `leveret salvage {0}` gives that up and keeps the \
         damaged files; restore a backup if you have one",
        data_dir.display()
    )]
    Damaged {
        /// The data directory.
        data_dir: PathBuf,
        /// The first damage.
        damage: leveret_journal::Damage,
    },
    /// The journal cannot be opened, or is open in another broker.
    #[error(transparent)]
    Journal(OpenError),
    /// The definitions cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A definition in the journal cannot be read.
    #[error("a definition in the journal cannot be read: {0}")]
    Definition(#[from] rmp_serde::decode::Error),
    /// The first records could not be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// An address cannot be listened on for AMQP, whose port other brokers use as well.
    #[error(
        "cannot listen on {address} for AMQP: {source}; choose another address with --listen-amqp (if RabbitMQ runs \
         here, it has this one), or turn AMQP off with --listen-amqp none"
    )]
    ListenAmqp {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The system gave no randomness.
    #[error("the system gives no randomness: {0}")]
    Entropy(#[source] io::Error),
    /// The work on the disk was interrupted.
    #[error("starting was interrupted: {0}")]
    Interrupted(#[from] tokio::task::JoinError),
}

/// Why a broker did not stop as it should.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StopError {
    /// The journal failed; what was confirmed before is safe.
    #[error(transparent)]
    Journal(#[from] CommitError),
    /// The definitions could not be written. They are in the journal, so nothing is lost.
    #[error(transparent)]
    Checkpoint(#[from] reclaim::SaveError),
    /// The work on the disk was interrupted.
    #[error("stopping was interrupted: {0}")]
    Interrupted(#[from] tokio::task::JoinError),
}

impl Broker {
    /// Begins to build a broker with the default configuration: data in `./leveret-data`, for this machine only.
    pub fn builder() -> BrokerBuilder {
        BrokerBuilder::default()
    }

    /// Where the native protocol is spoken.
    pub fn native_addresses(&self) -> &[SocketAddr] {
        &self.native_addresses
    }

    /// Where AMQP 0-9-1 is spoken.
    pub fn amqp_addresses(&self) -> &[SocketAddr] {
        &self.amqp_addresses
    }

    /// A URL of the broker for a client in this process, with the built-in user.
    ///
    /// Empty if the broker listens nowhere.
    pub fn url(&self) -> String {
        let address = self.native_addresses.first();
        address.map_or_else(String::new, |address| format!("leveret://guest:guest@{address}"))
    }

    /// As [`Broker::url`], for a client that speaks AMQP 0-9-1: vhost `/`.
    pub fn amqp_url(&self) -> String {
        let address = self.amqp_addresses.first();
        address.map_or_else(String::new, |address| format!("amqp://guest:guest@{address}"))
    }

    /// Whether publishes are taken. The program may hold them back for reasons of its own.
    pub fn pressure(&self) -> &Pressure {
        &self.context.pressure
    }

    /// Waits until the broker cannot go on, and says why. It never does if all is well.
    pub async fn failed(&self) -> String {
        let mut health = self.context.store.health();
        match health.wait_for(|health| health.failure.is_some()).await {
            Ok(health) => health.failure.as_deref().unwrap_or_default().to_owned(),
            Err(_) => "the journal has ended".to_owned(),
        }
    }

    /// Stops: accepts nobody any more, tells clients why, sends the confirms that are due, writes everything out.
    pub async fn stop(self) -> Result<(), StopError> {
        self.context.stop();
        self.tasks.close();
        if tokio::time::timeout(self.shutdown_timeout, self.tasks.wait()).await.is_err() {
            tracing::warn!(
                connections = self.tasks.len(),
                "some connections did not end in time and are cut"
            );
            self.context.cutting.cancel();
            self.tasks.wait().await;
        }
        let store = Arc::clone(&self.context.store);
        crash_point("stop.drained");
        let checkpointed = reclaim::checkpoint(&self.context.topology, &store, &self.checkpoint).await;
        crash_point("stop.checkpointed");
        // The journal is closed whatever became of the checkpoint, which only repeats what is in the journal.
        tokio::task::spawn_blocking(move || store.close()).await??;
        checkpointed?;
        Ok(())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.context.stop();
    }
}

impl BrokerBuilder {
    /// Takes a whole configuration.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Where everything durable lives.
    #[must_use]
    pub fn data_dir(mut self, path: impl AsRef<Path>) -> Self {
        path.as_ref().clone_into(&mut self.config.data_dir);
        self
    }

    /// Where the native protocol is spoken; port 0 lets the system choose one.
    #[must_use]
    pub fn listen(mut self, addresses: impl IntoIterator<Item = SocketAddr>) -> Self {
        self.config.listen = addresses.into_iter().collect();
        self
    }

    /// Where AMQP 0-9-1 is spoken; without an address nowhere. By default on port 5672 of the loopback interface.
    #[must_use]
    pub fn listen_amqp(mut self, addresses: impl IntoIterator<Item = SocketAddr>) -> Self {
        self.config.listen_amqp = addresses.into_iter().collect();
        self
    }

    /// For the length of a test or a program: data in a temporary directory that goes with the broker, and for each
    /// protocol a port of the loopback interface that the system chooses.
    #[must_use]
    pub fn temporary(mut self) -> Self {
        self.temporary = true;
        let any_port = [SocketAddr::from(([127, 0, 0, 1], 0))];
        self.listen(any_port).listen_amqp(any_port)
    }

    /// Events that go to the exchange `amq.leveret.log` of the first vhost: see [`crate::logs::LogTap`].
    #[must_use]
    pub fn log_events(mut self, events: LogTapReceiver) -> Self {
        self.log_events = Some(events);
        self
    }

    /// Recovers what is in the data directory, and starts to serve.
    pub async fn start(mut self) -> Result<Broker, StartError> {
        self.config.check()?;
        let temporary = self
            .temporary
            .then(tempfile::tempdir)
            .transpose()
            .map_err(|source| StartError::DataDir { path: std::env::temp_dir(), source })?;
        if let Some(temporary) = &temporary {
            temporary.path().clone_into(&mut self.config.data_dir);
        }
        let config = self.config;
        let sockets = bind(&config.listen, |address, source| StartError::Listen { address, source }).await?;
        let amqp_sockets =
            bind(&config.listen_amqp, |address, source| StartError::ListenAmqp { address, source }).await?;
        let clock = Clock::start();
        let pressure = Arc::new(Pressure::default());
        let opened = tokio::task::spawn_blocking({
            let (config, pressure) = (config.clone(), Arc::clone(&pressure));
            move || open(&config, pressure, clock.now_ms())
        })
        .await??;
        let Opened { store, checkpoint, mut recovered } = opened;
        let alarms = Arc::new(Alarms::default());
        let readers = Arc::new(Readers::default());
        let topology = Arc::new(Topology::new(
            Arc::clone(&store),
            Arc::clone(&alarms),
            Arc::clone(&readers),
            vhost_limits(&config),
        ));
        restore(&topology, &checkpoint, &mut recovered, clock)?;
        crash_point("start.messages_restored");
        for vhost in &config.vhosts {
            topology.ensure_vhost(vhost)?;
        }
        let context = Arc::new(context(&config, topology, store, pressure, clock)?);
        let tasks = TaskTracker::new();
        let checkpoint = checkpoint_path(&config.data_dir);
        background(&tasks, &context, alarms, checkpoint.clone());
        tasks.spawn(watch_pressure(Arc::clone(&context), levels(&config), config.data_dir.clone()));
        for _ in 0..READERS {
            tasks.spawn(read(Arc::clone(&context), Arc::clone(&readers)));
        }
        if let (Some(events), Some(vhost)) = (self.log_events, config.vhosts.first()) {
            tasks.spawn(feed_log(Arc::clone(&context), vhost.clone(), events));
        }
        let limits = ListenerLimits {
            connections_max: config.limits.connections_max,
            connections_unauthenticated_max: config.limits.connections_unauthenticated_max,
        };
        let listener = Listener::new(Arc::clone(&context), limits, tasks.clone());
        let addresses = |sockets: &[(TcpListener, SocketAddr)]| sockets.iter().map(|(_, at)| *at).collect();
        let (native_addresses, amqp_addresses) = (addresses(&sockets), addresses(&amqp_sockets));
        let native = sockets.into_iter().map(|(socket, _)| (socket, Dialect::Native));
        let amqp = amqp_sockets.into_iter().map(|(socket, _)| (socket, Dialect::Amqp));
        tasks.spawn(listener.run(native.chain(amqp).collect()));
        Ok(Broker {
            native_addresses,
            amqp_addresses,
            context,
            tasks,
            checkpoint,
            shutdown_timeout: config.shutdown_timeout,
            _temporary: temporary,
        })
    }
}

async fn bind(
    addresses: &[SocketAddr],
    refused: impl Fn(SocketAddr, io::Error) -> StartError,
) -> Result<Vec<(TcpListener, SocketAddr)>, StartError> {
    let mut sockets = Vec::new();
    for address in addresses {
        let refused = |source| refused(*address, source);
        let socket = TcpListener::bind(address).await.map_err(refused)?;
        let bound = socket.local_addr().map_err(refused)?;
        sockets.push((socket, bound));
    }
    Ok(sockets)
}

struct Opened {
    store: Arc<Store>,
    checkpoint: Checkpoint,
    recovered: Recovered,
}

fn checkpoint_path(data_dir: &Path) -> PathBuf {
    data_dir.join("definitions.redb")
}

/// Locks the data directory, and reads all that is in it.
fn open(config: &Config, pressure: Arc<Pressure>, now_ms: u64) -> Result<Opened, StartError> {
    let path = config.data_dir.clone();
    make_private_dir(&path).map_err(|source| StartError::DataDir { path, source })?;
    let (reporter, progress) = ProgressReporter::with(move || pressure.hold_for_disk());
    let options = leveret_journal::Options {
        dir: config.data_dir.join("journal"),
        segment_bytes: config.journal.segment_bytes as u64,
        staged_bytes_max: config.journal.staged_bytes_max,
        free_bytes_min: config.disk.free_bytes_low as u64,
        seed: crate::auth::seed().map_err(StartError::Entropy)?,
    };
    let pins = Arc::new(Pins::new(options.segment_bytes));
    let mut replay = Replay::new(Arc::clone(&pins), now_ms);
    let opened = Journal::open(Arc::new(RealDisk), options, reporter, &mut |record| {
        replay.apply(&record).map_err(Into::into)
    });
    let (journal, recovery) = opened.map_err(|error| match error {
        OpenError::Damaged(damage) => StartError::Damaged { data_dir: config.data_dir.clone(), damage },
        other => StartError::Journal(other),
    })?;
    // The journal's lock keeps other brokers away from the checkpoint, too.
    let checkpoint = Checkpoint::load(&checkpoint_path(&config.data_dir))?;
    crash_point("start.recovered");
    let recovered = replay.finish(checkpoint.position, recovery.clean);
    let memory = Memory::new(config.memory.messages_bytes_max as u64);
    let store = Store::new(journal, pins, memory, progress);
    if !recovery.clean {
        store.note_interruption()?;
    }
    Ok(Opened { store, checkpoint, recovered })
}

/// Messages and password verifiers are nobody else's business.
fn make_private_dir(path: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

fn restore(
    topology: &Topology,
    checkpoint: &Checkpoint,
    recovered: &mut Recovered,
    clock: Clock,
) -> Result<(), StartError> {
    let mut work = Work::default();
    work.now_ms = clock.now_ms();
    let records = checkpoint.definitions.iter().chain(&recovered.definitions);
    let definitions: Vec<_> = records.map(|record| Definition::decode(record)).collect::<Result<_, _>>()?;
    topology.use_queue_ids_above(checkpoint.next_queue.saturating_sub(1));
    topology.restore(topology::compact(definitions), &mut work);
    crash_point("start.definitions_restored");
    let lost: usize = recovered.lost.messages.values().map(BTreeSet::len).sum();
    if lost > 0 {
        tracing::warn!(
            lost,
            "messages are missing since the journal was salvaged; `leveret inspect` says which"
        );
    }
    topology.restore_messages(std::mem::take(recovered), &mut work);
    Ok(())
}

fn vhost_limits(config: &Config) -> VhostLimits {
    let config::Limits { queues_max, exchanges_max, bindings_max, .. } = config.limits;
    VhostLimits { queues_max, exchanges_max, bindings_max }
}

fn context(
    config: &Config,
    topology: Arc<Topology>,
    store: Arc<Store>,
    pressure: Arc<Pressure>,
    clock: Clock,
) -> Result<Context, StartError> {
    let key = BootKey::random().map_err(StartError::Entropy)?;
    let limits = connection::Limits {
        frame_bytes_max: config.limits.frame_bytes_max,
        message_bytes_max: config.limits.message_bytes_max,
        channels_max: config.limits.channels_max,
        consumers_max: config.limits.consumers_max,
        outbox_bytes_max: config.limits.outbox_bytes_max,
        heartbeat: config.limits.heartbeat,
        handshake_timeout: config.limits.handshake_timeout,
    };
    Ok(Context {
        topology,
        store,
        users: Arc::new(Users::new(config.users.clone(), key)?),
        throttle: Mutex::new(Throttle::default()),
        hashing: Semaphore::new(HASHING_MAX),
        clock,
        limits,
        gate: Arc::default(),
        pressure,
        stopping: CancellationToken::new(),
        cutting: CancellationToken::new(),
    })
}

fn levels(config: &Config) -> Levels {
    Levels {
        disk_low: config.disk.free_bytes_low as u64,
        disk_high: config.disk.free_bytes_high as u64,
        resident_max: config.memory.resident_bytes_max as u64,
    }
}

/// Holds publishers back while disk or memory is short, until the broker stops.
async fn watch_pressure(context: Arc<Context>, levels: Levels, data_dir: PathBuf) {
    tokio::select! {
        () = context.pressure.run(levels, data_dir, context.store.health(), |health| health.short_of_room) => {}
        () = context.stopping.cancelled() => {}
    }
}

/// Reads messages back until the broker stops.
async fn read(context: Arc<Context>, readers: Arc<Readers>) {
    tokio::select! {
        () = readers.run(context.clock) => {}
        () = context.stopping.cancelled() => {}
    }
}

/// What runs beside the connections.
fn background(tasks: &TaskTracker, context: &Arc<Context>, alarms: Arc<Alarms>, checkpoint: PathBuf) {
    let stopping = context.stopping.clone();
    let clock = context.clock;
    tasks.spawn(async move {
        tokio::select! {
            () = alarms.run(clock) => {}
            () = stopping.cancelled() => {}
        }
    });
    let stopping = context.stopping.clone();
    let (topology, store) = (Arc::clone(&context.topology), Arc::clone(&context.store));
    tasks.spawn(async move { reclaim::run(&topology, &store, clock, &checkpoint, &stopping).await });
    let context = Arc::clone(context);
    let mut health = context.store.health();
    tasks.spawn(async move {
        tokio::select! {
            // Nothing can be confirmed any more, so nobody must go on as if it could.
            _ = health.wait_for(|health| health.failure.is_some()) => context.stop(),
            () = context.stopping.cancelled() => {}
        }
    });
}

/// Publishes the broker's own log.
async fn feed_log(context: Arc<Context>, vhost: leveret_protocol::VhostName, mut events: LogTapReceiver) {
    let mut work = Work::default();
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            () = context.stopping.cancelled() => return,
        };
        let (Some(event), Some(vhost)) = (event, context.topology.vhost(vhost.as_str())) else { return };
        work.now_ms = context.clock.now_ms();
        // What this logs itself is not published, or one line would make lines for ever.
        LogTap::untapped(|| vhost.publish_log(&event.routing_key, &event.line, &mut work));
    }
}
