//! The one table of what can be set.
//!
//! The name in the file is the `key`; the flag and the environment variable follow from it by a rule, so that who
//! knows one knows all three: `limits.frame_bytes_max`, `--limits-frame-bytes-max`,
//! `LEVERET_LIMITS_FRAME_BYTES_MAX`.

use super::Config;
use super::users::UserList;
use super::value::{Addresses, Bytes, Count, Filter, Folder, Kind, Switch, Time, Value, Vhosts, Wrong};

/// What the names of environment variables begin with.
///
/// Variables with this beginning that are no setting are ignored: Kubernetes sets `LEVERET_PORT` and
/// `LEVERET_SERVICE_HOST` by itself for a service called "leveret". No setting may be called `port`, `port.*` or
/// `service.*` for that reason.
const VARIABLE_PREFIX: &str = "LEVERET_";

/// One setting.
pub(super) struct Setting {
    /// Its name in the file, with its table.
    pub(super) key: &'static str,
    /// What stands for its value in the help.
    pub(super) value_name: &'static str,
    /// What separates several values in a flag or variable, if it takes several.
    pub(super) separator: Option<char>,
    /// What it does, in one or two lines.
    pub(super) help: &'static str,
    /// Its value in a configuration.
    pub(super) show: fn(&Config) -> String,
    /// Puts a value into a configuration.
    pub(super) set: fn(&mut Config, Value) -> Result<(), Wrong>,
}

impl Setting {
    /// `--limits-frame-bytes-max`, without the dashes in front.
    pub(super) fn flag(&self) -> String {
        self.key.replace(['.', '_'], "-")
    }

    /// `LEVERET_LIMITS_FRAME_BYTES_MAX`.
    pub(super) fn variable(&self) -> String {
        format!("{VARIABLE_PREFIX}{}", self.key.replace('.', "_").to_uppercase())
    }

    /// The table of the file that it stands in; empty for the top.
    pub(super) fn table(&self) -> &'static str {
        self.key.split_once('.').map_or("", |(table, _)| table)
    }
}

/// `"key", field: Kind, "help"`.
macro_rules! setting {
    ($key:literal, $($field:ident).+: $kind:ty, $help:literal) => {
        Setting {
            key: $key,
            value_name: <$kind>::NAME,
            separator: <$kind>::SEPARATOR,
            help: $help,
            show: |config| <$kind>::show(&config.$($field).+),
            set: |config, value| {
                config.$($field).+ = <$kind>::read(value)?;
                Ok(())
            },
        }
    };
}

/// All of them, in the order of the help and of the example file.
pub(super) const SETTINGS: &[Setting] = &[
    setting!("data_dir", data_dir: Folder,
        "Where everything durable lives. Created if it does not exist"),
    setting!("listen", listen: Addresses,
        "Where the native protocol listens: addresses with ports, or none. Other machines are let in only \
         with a user of your own"),
    setting!("listen_amqp", listen_amqp: Addresses,
        "Where AMQP 0-9-1 is spoken, for clients of RabbitMQ: addresses with ports, or none"),
    setting!("vhosts", vhosts: Vhosts,
        "The virtual hosts that exist"),
    setting!("guest", users.guest: Switch,
        "Whether the user guest with the password guest may log in, from this machine only"),
    setting!("users", users.users: UserList,
        "Further users, separated by spaces. Everybody on this machine can see a flag: prefer the variable \
         or the file"),
    setting!("log", log: Filter,
        "What is logged: error, warn, info, debug, trace or off; per module as in \
         info,leveret_broker::connection=debug"),
    setting!("shutdown_timeout", shutdown_timeout: Time,
        "How long a stop waits for connections to end by themselves; then they are cut"),
    setting!("limits.frame_bytes_max", limits.frame_bytes_max: Bytes,
        "The largest payload of a frame: the most that a peer can make the broker buffer"),
    setting!("limits.message_bytes_max", limits.message_bytes_max: Bytes,
        "The largest message, body and properties. With 64 KiB more it must fit into a frame, half a \
         segment and journal.staged_bytes_max"),
    setting!("limits.outbox_bytes_max", limits.outbox_bytes_max: Bytes,
        "How much may wait to be sent to one connection; beyond it, its consumers get nothing until it reads"),
    setting!("limits.connections_max", limits.connections_max: Count<usize>,
        "How many connections may be open"),
    setting!("limits.connections_unauthenticated_max", limits.connections_unauthenticated_max: Count<usize>,
        "How many of them may be without a log-in at one time"),
    setting!("limits.channels_max", limits.channels_max: Count<u16>,
        "How many channels a connection may open"),
    setting!("limits.queues_max", limits.queues_max: Count<usize>,
        "How many queues a vhost may have"),
    setting!("limits.exchanges_max", limits.exchanges_max: Count<usize>,
        "How many exchanges a vhost may have"),
    setting!("limits.bindings_max", limits.bindings_max: Count<usize>,
        "How many bindings a vhost may have"),
    setting!("limits.consumers_max", limits.consumers_max: Count<usize>,
        "How many consumers a channel may have"),
    setting!("limits.heartbeat", limits.heartbeat: Time,
        "How often each side of a connection sends something at least; \"0 s\" is never"),
    setting!("limits.handshake_timeout", limits.handshake_timeout: Time,
        "How long a connection may take until it is open"),
    setting!("journal.segment_bytes", journal.segment_bytes: Bytes,
        "The size of a journal file: disk space is taken and given back in such pieces"),
    setting!("journal.staged_bytes_max", journal.staged_bytes_max: Bytes,
        "How much may wait for the disk; beyond it, publishers wait"),
    setting!("memory.messages_bytes_max", memory.messages_bytes_max: Bytes,
        "How much memory messages may take up, those in the journal at most 48 MiB of it, or 192 MiB in queues with consumers; what is more waits there \
         until consumers are about to need it. Unless set, a quarter of what the machine or container has, and at most 2 GiB"),
    setting!("memory.resident_bytes_max", memory.resident_bytes_max: Bytes,
        "While the process has more than this in memory, publishers are held back, and until it has a tenth less. \
         Unless set, four fifths of what the machine or container has"),
    setting!("disk.free_bytes_low", disk.free_bytes_low: Bytes,
        "While less than this is free on the disk of the data, publishers are held back; settles go on"),
    setting!("disk.free_bytes_high", disk.free_bytes_high: Bytes,
        "How much must be free again until publishers go on"),
];

/// The setting of that name in the file.
pub(super) fn find(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

/// What to say about a name that is no setting: the most similar one, or where to look.
pub(super) fn hint(key: &str) -> String {
    // The table is often what is wrong, so the last part is compared as well.
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let similarity = |setting: &Setting| {
        let whole = strsim::jaro_winkler(setting.key, key);
        whole.max(strsim::jaro_winkler(&last(setting.key), &last(key)))
    };
    let nearest = SETTINGS.iter().max_by(|left, right| similarity(left).total_cmp(&similarity(right)));
    match nearest {
        Some(setting) if similarity(setting) > 0.85 => format!("did you mean {}?", setting.key),
        _ => "`leveret --help` lists all settings".to_owned(),
    }
}
