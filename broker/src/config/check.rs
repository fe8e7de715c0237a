//! What must hold between the values of a configuration, wherever they come from.

use std::collections::HashSet;
use std::hash::Hash;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use leveret_journal::{SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
use leveret_protocol::FRAME_BYTES_MIN;

use super::value::{Bytes, Count, Kind, Time};
use super::{Config, DiskOptions, JournalOptions, KIB, Limits, MIB};
use crate::auth::GUEST;

/// What a message needs in a frame or in the journal beside its body and properties, at most: its exchange and
/// its routing keys, in bytes.
pub const MESSAGE_EXTRA_BYTES: usize = 64 * KIB;

const SEGMENT_BYTES: &str = "journal.segment_bytes";

const GIB: usize = 1024 * MIB;
const HOUR: Duration = Duration::from_secs(60 * 60);

/// A value that cannot be, or not together with another one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {reason}")]
#[non_exhaustive]
pub struct Conflict {
    /// The setting, as it is called in the file.
    pub key: &'static str,
    /// The other setting, if two do not go together.
    pub other: Option<&'static str>,
    /// What is wrong and what would be right.
    pub reason: String,
}

impl Config {
    /// Checks what the types cannot say. The broker does so when it starts, so that an embedding program gets
    /// the same answers as the user of a file.
    pub fn check(&self) -> Result<(), Conflict> {
        self.limits.check()?;
        self.journal.check()?;
        self.check_message_fits()?;
        self.disk.check()?;
        within::<Bytes>("memory.resident_bytes_max", &self.memory.resident_bytes_max, 64 * MIB..=1 << 60)?;
        within::<Time>("shutdown_timeout", &self.shutdown_timeout, Duration::ZERO..=HOUR)?;
        if self.vhosts.is_empty() {
            return Err(conflict("vhosts", None, "there is none, and a client enters one; write [\"/\"]"));
        }
        no_duplicate("vhosts", self.vhosts.iter())?;
        no_duplicate("listen", self.listen.iter())?;
        no_duplicate("listen_amqp", self.listen_amqp.iter())?;
        self.check_one_protocol_for_each_address()?;
        no_duplicate("users", self.users.users.iter().map(|(name, _)| name))?;
        self.check_somebody_may_log_in()
    }

    fn check_message_fits(&self) -> Result<(), Conflict> {
        let message = self.limits.message_bytes_max;
        let needed = message.saturating_add(MESSAGE_EXTRA_BYTES);
        let homes = [
            ("limits.frame_bytes_max", self.limits.frame_bytes_max, 1, "a frame"),
            (SEGMENT_BYTES, self.journal.segment_bytes, 2, "half a segment"),
            ("journal.staged_bytes_max", self.journal.staged_bytes_max, 1, "what may wait for the disk"),
        ];
        for (key, bytes, share, home) in homes {
            let room = bytes / share;
            if needed > room {
                let enough = match key {
                    SEGMENT_BYTES => needed.saturating_mul(share).checked_next_power_of_two(),
                    _ => needed.checked_mul(share),
                };
                let reason = format!(
                    "a message of {} and {} for its names do not fit into {home} ({}); raise {key} to {}, or lower \
                     limits.message_bytes_max to {}",
                    Bytes::show(&message),
                    Bytes::show(&MESSAGE_EXTRA_BYTES),
                    Bytes::show(&room),
                    Bytes::show(&enough.unwrap_or(usize::MAX)),
                    Bytes::show(&room.saturating_sub(MESSAGE_EXTRA_BYTES)),
                );
                return Err(conflict("limits.message_bytes_max", Some(key), reason));
            }
        }
        Ok(())
    }

    /// A broker that listens where nobody can log in is a mistake that shows only at the first client.
    fn check_somebody_may_log_in(&self) -> Result<(), Conflict> {
        let somebody = self.users.users.iter().any(|(name, _)| name != GUEST);
        let guest = self.users.guest || !self.users.users.is_empty();
        let mut listens = self.listens();
        if !somebody && !guest && listens.next().is_some() {
            return Err(conflict(
                "guest",
                Some("users"),
                "nobody could log in: there are no users, and guest is off; add a user under [[users]]",
            ));
        }
        // An IPv4 address in IPv6 clothes (::ffff:127.0.0.1) is as local as it is without them.
        let remote = |(_, address): &(&str, &SocketAddr)| !address.ip().to_canonical().is_loopback();
        match self.listens().find(remote) {
            Some((key, address)) if !somebody => Err(conflict(
                key,
                Some("users"),
                format!(
                    "{address} can be reached from other machines, and the only user is guest, whose password \
                     everybody knows and who is let in from this machine only; add a user under [[users]], or \
                     listen on 127.0.0.1 or [::1]"
                ),
            )),
            _ => Ok(()),
        }
    }

    /// Every address that is listened on, with the setting that says so.
    fn listens(&self) -> impl Iterator<Item = (&'static str, &SocketAddr)> {
        let native = self.listen.iter().map(|address| ("listen", address));
        native.chain(self.listen_amqp.iter().map(|address| ("listen_amqp", address)))
    }

    fn check_one_protocol_for_each_address(&self) -> Result<(), Conflict> {
        // Port 0 is another one each time.
        match self.listen_amqp.iter().find(|address| address.port() != 0 && self.listen.contains(address)) {
            Some(address) => Err(conflict(
                "listen_amqp",
                Some("listen"),
                format!(
                    "{address} is where the native protocol listens; each protocol needs an address of its own"
                ),
            )),
            None => Ok(()),
        }
    }
}

impl Limits {
    fn check(&self) -> Result<(), Conflict> {
        within::<Bytes>("limits.frame_bytes_max", &self.frame_bytes_max, FRAME_BYTES_MIN..=GIB)?;
        within::<Bytes>("limits.message_bytes_max", &self.message_bytes_max, KIB..=GIB)?;
        within::<Bytes>("limits.outbox_bytes_max", &self.outbox_bytes_max, 64 * KIB..=GIB)?;
        within::<Count<_>>("limits.channels_max", &self.channels_max, 1..=u16::MAX)?;
        let counts = [
            ("limits.connections_max", self.connections_max),
            ("limits.connections_unauthenticated_max", self.connections_unauthenticated_max),
            ("limits.queues_max", self.queues_max),
            ("limits.exchanges_max", self.exchanges_max),
            ("limits.bindings_max", self.bindings_max),
            ("limits.consumers_max", self.consumers_max),
        ];
        for (key, count) in counts {
            within::<Count<_>>(key, &count, 1..=10_000_000)?;
        }
        if !self.heartbeat.is_zero() {
            within::<Time>("limits.heartbeat", &self.heartbeat, Duration::from_secs(1)..=HOUR)?;
        }
        within::<Time>("limits.handshake_timeout", &self.handshake_timeout, Duration::from_millis(10)..=HOUR)
    }
}

impl JournalOptions {
    fn check(&self) -> Result<(), Conflict> {
        let (least, most) = (SEGMENT_BYTES_MIN as usize, SEGMENT_BYTES_MAX as usize);
        within::<Bytes>(SEGMENT_BYTES, &self.segment_bytes, least..=most)?;
        if !self.segment_bytes.is_power_of_two() {
            let above = self.segment_bytes.next_power_of_two();
            let [value, below, above] =
                [self.segment_bytes, above / 2, above].map(|bytes| Bytes::show(&bytes));
            let reason =
                format!("{value} is not a power of two, as a segment must be; write {below} or {above}");
            return Err(conflict(SEGMENT_BYTES, None, reason));
        }
        within::<Bytes>("journal.staged_bytes_max", &self.staged_bytes_max, MIB..=4 * GIB)
    }
}

impl DiskOptions {
    fn check(&self) -> Result<(), Conflict> {
        let Self { free_bytes_low: low, free_bytes_high: high } = self;
        if high >= low {
            return Ok(());
        }
        let [low, high] = [low, high].map(Bytes::show);
        let reason = format!(
            "{high} is less than disk.free_bytes_low ({low}), and there is nothing between to wait for; write {low} or more"
        );
        Err(conflict("disk.free_bytes_high", Some("disk.free_bytes_low"), reason))
    }
}

fn within<K: Kind>(key: &'static str, value: &K::Of, range: RangeInclusive<K::Of>) -> Result<(), Conflict>
where
    K::Of: PartialOrd,
{
    if range.contains(value) {
        return Ok(());
    }
    let [value, least, most] = [value, range.start(), range.end()].map(K::show);
    Err(conflict(key, None, format!("{value} is out of range; write {least} to {most}")))
}

fn no_duplicate<T: Eq + Hash + ToString>(
    key: &'static str,
    mut values: impl Iterator<Item = T>,
) -> Result<(), Conflict> {
    let mut seen = HashSet::new();
    let mut first_seen = |value: &T| seen.insert(value.to_string());
    match values.find(|value| !first_seen(value)) {
        Some(twice) => {
            Err(conflict(key, None, format!("{:?} stands there twice; remove one", twice.to_string())))
        }
        None => Ok(()),
    }
}

fn conflict(key: &'static str, other: Option<&'static str>, reason: impl Into<String>) -> Conflict {
    Conflict { key, other, reason: reason.into() }
}
