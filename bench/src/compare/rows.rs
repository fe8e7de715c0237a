//! The rows of the comparison, in the order in which they are shown.

use super::run::Rounds;
use super::{Side, Verdict, broker, field};

/// What a row finds.
pub(super) type Found = anyhow::Result<(Vec<Side>, Vec<Verdict>)>;

/// One row.
pub(super) struct RowPlan {
    pub(super) name: &'static str,
    pub(super) what: &'static str,
    pub(super) measure: fn(&Rounds) -> Found,
}

/// A plain list, so that documents can name them.
pub(super) const ROWS: &[RowPlan] = &[
    RowPlan {
        name: "transient-1k",
        what: "native, 1 producer, 1 consumer, 1 KiB, transient, no acks, against the relay",
        measure: broker::transient_1k,
    },
    RowPlan {
        name: "transient-16",
        what: "native, the same at 16 B, against the relay with codec",
        measure: broker::transient_16,
    },
    RowPlan {
        name: "persistent-1k",
        what: "native, 1 KiB, persistent, confirmed (window 4096), acked, against min(relay with confirms, journal)",
        measure: broker::persistent_1k,
    },
    RowPlan {
        name: "confirm-latency",
        what: "native, 1 KiB, persistent, window 1: publish to confirm, against echo + sync",
        measure: broker::confirm_latency,
    },
    RowPlan {
        name: "cpu-256",
        what: "native, 256 B: the broker's processor time for each message",
        measure: broker::cpu_256,
    },
    RowPlan {
        name: "open-loop",
        what: "native, 10,000 a second, 1 KiB, persistent, confirmed, acked: latency from the intended time",
        measure: broker::open_loop,
    },
    RowPlan {
        name: "fan-out",
        what: "native, 1 KiB, persistent: a fanout exchange with 10 queues, against one queue",
        measure: broker::fan_out,
    },
    RowPlan {
        name: "slow-consumer",
        what: "native, 1 KiB, persistent: a slow consumer beside a fast one, against two fast ones",
        measure: broker::slow_consumer,
    },
    RowPlan {
        name: "topic",
        what: "native, 16 B, transient: a topic exchange with 100,000 bindings, few keys and as many as bindings",
        measure: broker::topic,
    },
    RowPlan {
        name: "backlog",
        what: "native, 1,000,000 x 1 KiB without a consumer: fill, kill, restart, drain",
        measure: broker::backlog,
    },
    RowPlan {
        name: "idle",
        what: "idle connections and idle durable queues: memory, and how fast queues are declared",
        measure: broker::idle,
    },
    RowPlan {
        name: "amqp-persistent",
        what: "AMQP 0-9-1, 1 KiB, persistent, confirmed (window 1000), acked, against the brokers of --against",
        measure: field::persistent,
    },
    RowPlan {
        name: "amqp-transient-16",
        what: "AMQP 0-9-1, 16 B, transient, no acks, against the brokers of --against",
        measure: field::transient_16,
    },
    RowPlan {
        name: "amqp-transient-1k",
        what: "AMQP 0-9-1, 1 KiB, transient, no acks, against the brokers of --against",
        measure: field::transient_1k,
    },
];
