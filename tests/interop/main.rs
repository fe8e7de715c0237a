//! Other people's AMQP 0-9-1 clients against a broker of ours in this process. With `LEVERET_TEST_AMQP` set to an
//! address they meet the broker that listens there: what holds with RabbitMQ and fails with ours is a defect of ours.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail as tests do"
)]

mod target;

mod with_amqprs;
mod with_lapin;

mod across_protocols;
