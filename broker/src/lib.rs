//! The Leveret message broker: embed it with [`Broker::builder`], or run the server `leveret`.
//!
//! The modules in the order in which a message meets them:
//!
//! ```text
//!  socket ─► listener ─► connection ─► channel ─► exchange ─► queue ─► store ─► journal ─► disk
//!              accept     frames to     publish,   which       order,   what      one log
//!                         operations    settle     queues      credit   happened
//!                             ▲                                  │                  │
//!                             └───────── outbox ◄── deliveries ──┘                  │
//!                                          ▲ confirms, when it is on disk ──────────┘
//! ```
//!
//! `exchange` and `queue` (but for its handle) are pure rules: no runtime, no clock, no disk. `topology` owns the
//! vhosts and carries messages between exchanges and queues. Dependencies point one way:
//! `broker > listener > connection > channel > topology > {exchange, queue} > store > (journal, protocol)`.

mod broker;
mod upkeep;

pub mod listener;
pub mod connection;
pub mod channel;
pub mod topology;
pub mod exchange;
pub mod queue;
pub mod store;

pub mod auth;
pub mod clock;
pub mod config;
pub mod logs;
pub mod machine;

pub use broker::{Broker, BrokerBuilder, StartError, StopError};
pub use machine::pressure;
pub use upkeep::inspect;
