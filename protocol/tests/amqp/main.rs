//! The AMQP 0-9-1 codec: bytes that another implementation wrote, round trips, and what a hostile peer may send.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by a panic, in its helper functions too"
)]

mod assembly;
mod content;
mod crossing;
mod frames;
mod golden;
mod methods;
mod publish;
mod schema;
mod tables;
mod whole;
