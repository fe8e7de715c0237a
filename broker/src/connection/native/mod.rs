//! Leveret's own protocol: `docs/protocol.md`.

mod encoder;
mod handshake;
mod requests;
mod session;

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use leveret_journal::Position;
use leveret_protocol::{ConsumerCancelled, Control, ReplyCode};
use tokio::net::TcpStream;

use self::encoder::NativeEncoder;
use self::session::NativeSession;
use super::Context;
use super::common::Common;
use super::login::Refused;
use super::outbox::Outbox;
use super::protocol::{Entered, Protocol};
use crate::queue::ConnectionId;

/// Leveret's own protocol.
#[derive(Debug)]
pub(super) enum Native {}

/// A consumer by the numbers that deliveries carry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Consumer {
    channel: u16,
    number: u32,
}

/// What was agreed with a client beside the usual.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    /// Whether its version of the protocol has the frames that say when publishing is paused.
    knows_pauses: bool,
}

impl Protocol for Native {
    type Consumer = Consumer;
    type Late = Infallible;
    type Terms = Terms;
    type Session = NativeSession;
    type Encoder = NativeEncoder;

    // Answers carry the numbers of their requests.
    const ANSWERS_IN_ORDER: bool = false;

    async fn enter(
        socket: &mut TcpStream,
        peer: SocketAddr,
        id: ConnectionId,
        context: &Context,
    ) -> Result<Entered<Self>, Refused> {
        handshake::run(socket, peer, id, context).await
    }

    fn begin(common: Common<Self>, entered: &mut Entered<Self>) -> (NativeSession, NativeEncoder) {
        let encoder = NativeEncoder { frame_bytes_max: entered.frame_bytes_max };
        (NativeSession::new(common, entered), encoder)
    }

    fn cancelled(consumer: &Consumer, reason: &str) -> Option<Bytes> {
        let Consumer { channel, number } = *consumer;
        let news = ConsumerCancelled { consumer: number, code: ReplyCode::NotFound, text: reason.to_owned() };
        Some(encoded(channel, news).freeze())
    }
}

impl Outbox<Native> {
    /// Sends a control frame, after `position` is durable if there is one.
    fn send(&self, channel: u16, control: impl Into<Control>, position: Option<Position>) {
        self.send_frame(encoded(channel, control).freeze(), position);
    }
}

/// The bytes of one control frame. Names and numbers can always be encoded; a table that came over the wire can go back
/// over it.
fn encoded(channel: u16, control: impl Into<Control>) -> BytesMut {
    let control = control.into();
    let mut bytes = BytesMut::new();
    if let Err(error) = control.encode(channel, &mut bytes) {
        tracing::error!(%error, frame = control.name(), "an answer could not be encoded");
    }
    bytes
}
