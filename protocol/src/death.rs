//! What happened to a message before it came here: the typed form of AMQP's `x-death` headers.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::control::{ControlError, from_message_pack, to_message_pack};
use crate::name::{ExchangeName, QueueName, RoutingKey};

/// Why a queue gave a message up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DeathReason {
    /// A consumer rejected it.
    Rejected,
    /// Its time to live was over.
    Expired,
    /// The queue was longer than it may be.
    Maxlen,
    /// It came back from consumers more often than the queue allows.
    DeliveryLimit,
}

impl DeathReason {
    /// The word that `x-death` uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Maxlen => "maxlen",
            Self::DeliveryLimit => "delivery_limit",
        }
    }
}

/// All deaths of a message in one queue for one reason, as one entry (RabbitMQ compresses them so).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Death {
    /// The queue that gave it up.
    pub queue: QueueName,
    /// Why.
    pub reason: DeathReason,
    /// How often.
    pub count: u64,
    /// When it first happened, in milliseconds since 1970-01-01 UTC.
    pub first_at_ms: u64,
    /// The exchange that it had been published to before the first such death.
    pub exchange: ExchangeName,
    /// The routing key and the CC keys (never the BCC keys) of that publish.
    pub routing_keys: Vec<RoutingKey>,
    /// The time to live that it had then; dead-lettering takes it away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original_ttl_ms: Option<u64>,
    /// What the consumer said when it rejected the message last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Where and why, without the details: the first death stays, the last one is replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeathSummary {
    /// The queue that gave the message up.
    pub queue: QueueName,
    /// Why.
    pub reason: DeathReason,
    /// The exchange that it had been published to.
    pub exchange: ExchangeName,
}

/// A message's deaths, newest first, at most one entry for each (queue, reason).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeathHistory {
    /// The entries, newest first.
    pub deaths: Vec<Death>,
    /// The very first death.
    pub first: DeathSummary,
    /// The newest death.
    pub last: DeathSummary,
}

/// How many distinct (queue, reason) entries a history keeps; the oldest go first.
pub const DEATHS_MAX: usize = 64;

/// The longest history on the wire, in bytes: [`DEATHS_MAX`] entries with 65 keys of 255 bytes fit.
const HISTORY_BYTES_MAX: usize = 2 * 1024 * 1024;

impl DeathHistory {
    /// The blob for a deliver frame.
    pub fn encode(&self) -> Result<Bytes, ControlError> {
        to_message_pack(self).map(Bytes::from)
    }

    /// Reads the blob of a deliver frame.
    pub fn decode(blob: &[u8]) -> Result<Self, ControlError> {
        from_message_pack("DeathHistory", blob, HISTORY_BYTES_MAX)
    }

    /// Adds a death to what happened before: an entry with the same queue and reason counts up and moves to the
    /// front but keeps the time, exchange and keys of its first death.
    pub fn record(history: Option<&Self>, death: Death) -> Self {
        let last = DeathSummary {
            queue: death.queue.clone(),
            reason: death.reason,
            exchange: death.exchange.clone(),
        };
        let Some(history) = history else {
            return Self { deaths: vec![death], first: last.clone(), last };
        };
        let mut deaths = history.deaths.clone();
        let same = deaths.iter().position(|old| old.queue == death.queue && old.reason == death.reason);
        let entry = match same {
            Some(at) => {
                let old = deaths.remove(at);
                Death { count: old.count.saturating_add(1), note: death.note, ..old }
            }
            None => death,
        };
        deaths.insert(0, entry);
        deaths.truncate(DEATHS_MAX);
        Self { deaths, first: history.first.clone(), last }
    }

    /// Whether bringing the message to `queue` again would close a loop that no consumer took part in.
    ///
    /// RabbitMQ's rule: the queue is in the history, and neither its newest entry nor any newer one is a
    /// rejection. A loop with a rejection in it ends when the consumers stop rejecting.
    pub fn closes_automatic_cycle(&self, queue: &str) -> bool {
        match self.deaths.iter().position(|death| death.queue.as_str() == queue) {
            Some(at) => self.deaths.iter().take(at + 1).all(|death| death.reason != DeathReason::Rejected),
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn death(queue: &str, reason: DeathReason, first_at_ms: u64) -> Death {
        Death {
            queue: QueueName::new(queue).unwrap(),
            reason,
            count: 1,
            first_at_ms,
            exchange: ExchangeName::default(),
            routing_keys: vec![RoutingKey::new(queue).unwrap()],
            original_ttl_ms: None,
            note: None,
        }
    }

    fn history(deaths: &[(&str, DeathReason)]) -> DeathHistory {
        let mut history = None;
        for (at, (queue, reason)) in deaths.iter().enumerate() {
            history = Some(DeathHistory::record(history.as_ref(), death(queue, *reason, at as u64)));
        }
        history.unwrap()
    }

    #[test]
    fn a_repeated_death_counts_and_keeps_the_time_of_the_first() {
        use DeathReason::{Expired, Rejected};
        let history = history(&[("work", Rejected), ("wait", Expired), ("work", Rejected)]);
        let seen: Vec<_> =
            history.deaths.iter().map(|d| (d.queue.as_str(), d.reason, d.count, d.first_at_ms)).collect();
        assert_eq!(seen, [("work", Rejected, 2, 0), ("wait", Expired, 1, 1)]);
        assert_eq!((history.first.queue.as_str(), history.last.queue.as_str()), ("work", "work"));
    }

    #[test]
    fn two_reasons_from_one_queue_are_two_entries() {
        let history = history(&[("work", DeathReason::Rejected), ("work", DeathReason::Expired)]);
        assert_eq!(history.deaths.len(), 2);
    }

    #[test]
    fn a_cycle_is_automatic_only_without_a_rejection() {
        use DeathReason::{Expired, Rejected};
        assert!(history(&[("a", Expired), ("b", Expired)]).closes_automatic_cycle("a"));
        assert!(!history(&[("a", Rejected), ("b", Expired)]).closes_automatic_cycle("a"));
        assert!(history(&[("a", Rejected), ("b", Expired)]).closes_automatic_cycle("b"));
        assert!(!history(&[("a", Expired)]).closes_automatic_cycle("c"));
    }
}
