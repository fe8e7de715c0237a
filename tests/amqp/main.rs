//! AMQP 0-9-1 frame by frame, with what RabbitMQ answers as the oracle. The broker is one of ours in this process, or
//! the one that `LEVERET_TEST_AMQP` names as host:port; `tests/rabbitmq/compare` runs all against both.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do"
)]
#![allow(clippy::useless_vec, reason = "`fields!` makes vectors, which mostly are what is wanted")]

mod handshake;
mod connections;
mod exchanges;
mod queues;
mod consuming;
mod settling;
mod publishing;
mod transactions;
mod content;
mod dead_letters;
mod limits;
mod extensions;
mod hostile;
mod pipelining;
mod crossing;
