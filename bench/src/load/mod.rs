//! The load generator, the same for every protocol: blocking sockets, a thread for each connection, no hop and no
//! allocation for a message.
//!
//! A producer encodes its frames once and then only writes number and time into them (`Frames`), many in one write.
//! A consumer reads many frames at once, and looks at them where they are. What protocols differ in is behind
//! [`Protocol`]. Every delivery is checked ([`Checker`]).

mod check;
mod consumer;
mod drive;
mod frames;
mod inbound;
mod producer;
mod relay;

pub(crate) mod amqp;
pub(crate) mod native;

use std::net::TcpStream;

use bytes::BytesMut;

pub(crate) use check::{Checker, Head, verdict};
pub(crate) use drive::{Outcome, Phase, Subject, run, run_phase};
pub(crate) use frames::Template;
pub(crate) use inbound::Inbound;
pub(crate) use relay::Relay;

use crate::workload::{HEAD_BYTES, Plan};

/// A connection that is ready for load.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) stream: TcpStream,
    pub(crate) inbound: Inbound,
}

impl Link {
    pub(crate) fn connect(address: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address)
            .map_err(|error| anyhow::anyhow!("cannot connect to {address}: {error}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, inbound: Inbound::new() })
    }
}

/// What protocols differ in.
pub(crate) trait Protocol {
    type Confirms: Confirms;
    type Deliveries: Deliveries;

    /// Declares what the plan names.
    fn prepare(&self, plan: &Plan) -> anyhow::Result<()>;
    /// Opens a consumer's connection, and starts its consumers.
    fn consumer(&self, plan: &Plan, consumer: usize) -> anyhow::Result<(Link, Self::Deliveries)>;
    /// Opens a producer's connection. The lanes are its publishes, one for each stream and key, to be sent in turn.
    fn producer(&self, plan: &Plan, producer: usize) -> anyhow::Result<(Link, Self::Confirms, Vec<Lane>)>;
    /// Removes what was declared.
    fn clean(&self, plan: &Plan) -> anyhow::Result<()>;
}

/// One publish of a producer, encoded.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) stream: u16,
    pub(crate) template: Template,
}

/// What a producer reads.
pub(crate) trait Confirms: Send {
    /// Reads whole frames from `at` on, moves it behind them, and tells which publishes are confirmed: the number of the
    /// first, counted from 1, and how many.
    fn read(
        &mut self,
        bytes: &[u8],
        at: &mut usize,
        confirmed: &mut dyn FnMut(u64, u64),
    ) -> anyhow::Result<()>;
}

/// What a consumer reads and answers.
pub(crate) trait Deliveries: Send {
    /// The next delivery from `at` on, which moves behind it; nothing if it is not there as a whole.
    fn next(&mut self, bytes: &[u8], at: &mut usize) -> anyhow::Result<Option<Delivery>>;
    /// Appends acknowledgements of all deliveries since the last call: one by one, or as few as the protocol can.
    fn settle(&mut self, one_by_one: bool, out: &mut BytesMut);
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Delivery {
    /// Which of the consumer's queues it came from.
    pub(crate) queue: usize,
    pub(crate) redelivered: bool,
    pub(crate) head: [u8; HEAD_BYTES],
}
