//! What the user wrote -> what the program uses, and where it was wrong.
//!
//! - [`Config`] is what the program uses: typed, complete, with a default for everything. [`Config::check`] says
//!   what must hold between its values.
//! - `settings.rs` is the one table of what can be set. The file's keys, the flags, the environment variables and
//!   the help are all made from it, so they cannot drift apart.
//! - `file.rs` reads the file, [`Arguments`] the flags and the environment; [`Arguments::load`] layers them.

mod arguments;
mod check;
mod error;
mod file;
mod settings;
mod users;
mod value;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use leveret_protocol::{FRAME_BYTES_DEFAULT, VhostName};

use crate::auth::UsersConfig;
use crate::logs::LogFilter;

pub use arguments::{Arguments, ArgumentsError};
pub use check::{Conflict, MESSAGE_EXTRA_BYTES};
pub use error::{ConfigError, Place};

/// The port of the native protocol.
const NATIVE_PORT: u16 = 7672;

/// The port that is AMQP's everywhere.
const AMQP_PORT: u16 = 5672;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
const GIB: usize = 1024 * MIB;

/// What a broker runs with. `Default` is a broker for this machine only.
///
/// The parts of the broker do not see it: each gets its own piece, such as [`Limits`].
#[derive(Debug, Clone)]
pub struct Config {
    /// Where everything durable lives. Created if it does not exist; a relative path starts where the process
    /// was started.
    pub data_dir: PathBuf,
    /// Where the native protocol listens. Empty: nowhere.
    pub listen: Vec<SocketAddr>,
    /// Where AMQP 0-9-1 is spoken. Empty: nowhere.
    pub listen_amqp: Vec<SocketAddr>,
    /// The virtual hosts; at least one.
    pub vhosts: Vec<VhostName>,
    /// Who may log in.
    pub users: UsersConfig,
    /// What a client may use up.
    pub limits: Limits,
    /// How the journal uses the disk.
    pub journal: JournalOptions,
    /// How much memory is used.
    pub memory: MemoryOptions,
    /// How much of the disk is left alone.
    pub disk: DiskOptions,
    /// What is logged.
    pub log: LogFilter,
    /// How long a stop waits for connections to end by themselves; then they are cut.
    pub shutdown_timeout: Duration,
}

/// What a client may use up. Whoever exceeds a limit gets an error that names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The largest payload of a frame, in bytes. It is the most that a peer can make the broker buffer.
    pub frame_bytes_max: usize,
    /// The largest message, in bytes: body and properties.
    pub message_bytes_max: usize,
    /// How many bytes may wait to be sent to one connection. A consumer whose connection has reached it gets no
    /// further deliveries until it reads.
    pub outbox_bytes_max: usize,
    /// How many connections may be open.
    pub connections_max: usize,
    /// How many of them may be without a log-in at one time, so that strangers cannot use them all up.
    pub connections_unauthenticated_max: usize,
    /// How many channels a connection may open.
    pub channels_max: u16,
    /// How many queues a vhost may have.
    pub queues_max: usize,
    /// How many exchanges a vhost may have.
    pub exchanges_max: usize,
    /// How many bindings a vhost may have.
    pub bindings_max: usize,
    /// How many consumers a channel may have.
    pub consumers_max: usize,
    /// How often each side of a connection sends something at least. Zero: no heartbeat.
    pub heartbeat: Duration,
    /// How long a connection may take from its first byte until it is open.
    pub handshake_timeout: Duration,
}

/// How the journal uses the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalOptions {
    /// The size of a segment file, in bytes. Space is allocated and freed in such pieces.
    pub segment_bytes: usize,
    /// How many bytes may wait for the disk. When they do, publishers wait.
    pub staged_bytes_max: usize,
}

/// How much memory is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryOptions {
    /// How many bytes of messages may be in memory. What exceeds it waits in the journal, and is read back before
    /// consumers need it.
    pub messages_bytes_max: usize,
    /// Publishes are held back while the process has more bytes than this in memory, and until it has a tenth less.
    pub resident_bytes_max: usize,
}

/// How much of the disk is left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskOptions {
    /// Publishes are held back while fewer bytes than this are free, so that settles always have room.
    pub free_bytes_low: usize,
    /// Until this many are free again.
    pub free_bytes_high: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("leveret-data"),
            listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, NATIVE_PORT))],
            listen_amqp: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, AMQP_PORT))],
            vhosts: VhostName::new("/").into_iter().collect(),
            users: UsersConfig::default(),
            limits: Limits::default(),
            journal: JournalOptions::default(),
            memory: MemoryOptions::default(),
            disk: DiskOptions::default(),
            log: LogFilter::default(),
            shutdown_timeout: Duration::from_secs(10),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame_bytes_max: FRAME_BYTES_DEFAULT,
            message_bytes_max: 16 * MIB,
            outbox_bytes_max: MIB,
            connections_max: 10_000,
            connections_unauthenticated_max: 500,
            channels_max: 2047,
            queues_max: 1_000_000,
            exchanges_max: 10_000,
            bindings_max: 1_000_000,
            consumers_max: 1_000,
            heartbeat: Duration::from_secs(30),
            handshake_timeout: Duration::from_secs(10),
        }
    }
}

impl Default for MemoryOptions {
    /// A quarter of what the machine or the container allows for messages, and at most 2 GiB; four fifths for all.
    fn default() -> Self {
        let allowed = usize::try_from(crate::machine::memory_bytes()).unwrap_or(usize::MAX);
        Self { messages_bytes_max: (allowed / 4).min(2 * GIB), resident_bytes_max: allowed / 5 * 4 }
    }
}

impl Default for DiskOptions {
    fn default() -> Self {
        Self { free_bytes_low: 256 * MIB, free_bytes_high: 512 * MIB }
    }
}

impl Default for JournalOptions {
    fn default() -> Self {
        Self { segment_bytes: 64 * MIB, staged_bytes_max: 32 * MIB }
    }
}
