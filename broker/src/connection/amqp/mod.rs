//! AMQP 0-9-1 as RabbitMQ speaks it: `docs/amqp-compatibility.md`.

mod channel;
mod consume;
mod encoder;
mod exchanges;
mod faults;
mod get;
mod handshake;
mod ledger;
mod lifecycle;
mod publish;
mod queues;
mod reply_to;
mod session;
mod settle;
mod transactions;

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use leveret_journal::Position;
use leveret_protocol::ReplyCode;
use leveret_protocol::amqp::{self, basic, put_method};
use tokio::net::TcpStream;

use self::encoder::AmqpEncoder;
use self::get::GetOk;
use self::ledger::Ledger;
use self::session::AmqpSession;
use super::common::Common;
use super::login::Refused;
use super::outbox::Outbox;
use super::protocol::{Entered, Protocol};
use super::{Context, Violation};
use crate::auth;
use crate::queue::ConnectionId;

/// AMQP 0-9-1.
#[derive(Debug)]
pub(super) enum Amqp {}

/// A consumer as deliveries name it.
#[derive(Debug)]
pub(super) struct Consumer {
    channel: u16,
    /// Its number on the channel, which only the broker knows.
    number: u32,
    /// Its name, which the client knows.
    tag: Box<str>,
    /// Whether its deliveries count as settled when they are made.
    no_ack: bool,
    /// Whether the client wants to hear of its end.
    notified: bool,
    /// Numbers the deliveries of its channel.
    ledger: Arc<Ledger>,
}

/// What was agreed with a client beside the usual.
#[derive(Debug)]
pub(super) struct Terms {
    /// Whether it wants to hear of consumers that end with their queue.
    cancel_notify: bool,
    /// Whether it wants to hear when publishes are held back.
    blocked: bool,
}

impl Protocol for Amqp {
    type Consumer = Arc<Consumer>;
    type Late = GetOk;
    type Terms = Arc<Terms>;
    type Session = AmqpSession;
    type Encoder = AmqpEncoder;

    // Answers have no numbers: what a client asked first is answered first.
    const ANSWERS_IN_ORDER: bool = true;

    async fn enter(
        socket: &mut TcpStream,
        peer: SocketAddr,
        _: ConnectionId,
        context: &Context,
    ) -> Result<Entered<Self>, Refused> {
        handshake::run(socket, peer, context).await
    }

    fn begin(common: Common<Self>, entered: &mut Entered<Self>) -> (AmqpSession, AmqpEncoder) {
        let encoder = AmqpEncoder { frame_bytes_max: entered.frame_bytes_max };
        (AmqpSession::new(common, entered), encoder)
    }

    fn cancelled(consumer: &Arc<Consumer>, _: &str) -> Option<Bytes> {
        let cancel = basic::Cancel { consumer_tag: &consumer.tag, nowait: true };
        consumer.notified.then(|| frame(consumer.channel, cancel))
    }
}

impl Outbox<Amqp> {
    /// Sends a method, after `position` is durable if there is one.
    fn send<'a>(&self, channel: u16, method: impl Into<amqp::Method<'a>>, position: Option<Position>) {
        self.send_frame(frame(channel, method), position);
    }
}

/// A part of a name that nobody can guess, so that nobody can put anything there who was not told.
fn unguessable() -> Result<String, Violation> {
    auth::nonce().map_err(|error| {
        tracing::error!(%error, "the system gave no randomness");
        faults::fault(ReplyCode::InternalError, "the broker could not choose a name")
    })
}

fn frame<'a>(channel: u16, method: impl Into<amqp::Method<'a>>) -> Bytes {
    let mut bytes = BytesMut::new();
    put_method(&mut bytes, channel, method);
    bytes.freeze()
}
