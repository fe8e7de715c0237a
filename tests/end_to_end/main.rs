//! Promises of `docs/semantics.md`, each as a test of that name, over real sockets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "in a test a panic is how a broken promise is reported"
)]

mod authentication;
mod confirms;
mod connections;
mod dead_letters;
mod delivery;
mod expiry;
mod handshake;
mod hostile;
mod length;
mod overload;
mod promises;
mod queues;
mod routing;
mod settling;
mod stopping;
mod storage;
mod vhosts;
