//! What the tests share: brokers that cost little, and a peer that speaks the protocol frame by frame.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "in a test a panic is how a broken promise is reported"
)]

pub mod amqp;
mod brokers;
mod messages;
mod peer;

pub use brokers::{Server, broker, broker_at, broker_on, broker_with, config, free_address, within};
pub use messages::{Post, Received, post};
pub use peer::{Login, Peer, binding, consume, declare_exchange, declare_queue, passive};

/// A table from literals: `table! { "x-max-length" => 1, "x-overflow" => "reject-publish" }`.
#[macro_export]
macro_rules! table {
    ($($name:literal => $value:expr),* $(,)?) => {
        leveret_protocol::Table::from([$(($name.to_owned(), leveret_protocol::Value::from($value))),*])
    };
}
