//! What a protocol brings along. Everything else about a connection is the same for all of them.
//!
//! All of it is resolved at compile time: a message costs no indirect call.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::net::TcpStream;

use super::common::Common;
use super::gather::Gather;
use super::login::Refused;
use super::{Context, Violation};
use crate::channel::ConfirmRuns;
use crate::queue::{ConnectionId, Delivery};
use crate::topology::Vhost;

/// How clients of a protocol come in, what their frames ask, and how answers and deliveries become frames.
pub(super) trait Protocol: Sized + fmt::Debug + Send + Sync + 'static {
    /// A consumer, as its outbox names it to the encoder.
    type Consumer: Clone + fmt::Debug + Send + Sync;
    /// An answer that can be encoded only when it is its turn to be sent.
    type Late: fmt::Debug + Send;
    /// What was agreed with the client beside [`Entered`].
    type Terms: Send;
    /// Frames -> operations.
    type Session: Session;
    /// Outbox -> frames.
    type Encoder: Encoder<Self>;

    /// Whether answers keep their order even if one waits for the disk. Without it, what does not wait goes ahead.
    const ANSWERS_IN_ORDER: bool;

    /// Lets a client in, or tells it why not.
    fn enter(
        socket: &mut TcpStream,
        peer: SocketAddr,
        id: ConnectionId,
        context: &Context,
    ) -> impl Future<Output = Result<Entered<Self>, Refused>> + Send;

    /// The two sides of a client that has been let in.
    fn begin(common: Common<Self>, entered: &mut Entered<Self>) -> (Self::Session, Self::Encoder);

    /// The frame that tells of a consumer's end with its queue, if the client wants to know.
    fn cancelled(consumer: &Self::Consumer, reason: &str) -> Option<Bytes>;
}

/// A client that has been let in, and what was agreed with it.
pub(super) struct Entered<P: Protocol> {
    pub(super) user: Arc<str>,
    pub(super) vhost: Arc<Vhost>,
    /// The largest frame in both directions, as the protocol counts it, in bytes.
    pub(super) frame_bytes_max: usize,
    pub(super) channels_max: u16,
    pub(super) heartbeat: Option<Duration>,
    /// What the client has sent already behind its last frame of the handshake.
    pub(super) rest: BytesMut,
    pub(super) terms: P::Terms,
}

/// Whether the connection goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    Continue,
    /// It goes on when [`Session::wait_for_room`] is done; whole frames may be left in the buffer.
    Full,
    Closed,
}

/// One client, once it has been let in: frames -> operations, on all its channels. No I/O: answers go to the outbox.
pub(super) trait Session: Send {
    /// Carries out all whole frames of the buffer.
    fn apply_all(&mut self, buffer: &mut BytesMut) -> Result<Flow, Violation>;

    /// Waits until the client has read its answers, and a publisher until the disk has caught up.
    fn wait_for_room(&mut self) -> impl Future<Output = ()> + Send;

    /// Consumers that were passed over can get deliveries again; those whose next message is too large for this
    /// connection get none any more.
    fn resume(&mut self);

    /// Tells the client that publishes are held back, and why, or are not any more; if that is news, and if the client
    /// knows how to be told.
    fn tell_of_pause(&mut self, reason: Option<Arc<str>>);

    /// Tells the client that the connection ends, behind everything that was due, such as confirms that wait for the
    /// disk. With `keep`, the client keeps what it holds until the session is closed; otherwise no delivery comes
    /// after this.
    fn say_close(&mut self, violation: Violation, keep: bool);

    /// Reads on after that, and ignores it; but settles count with `keep`: the client sent them before it knew. Whether
    /// the client has answered the close.
    fn hear_out(&mut self, buffer: &mut BytesMut, keep: bool) -> bool;

    /// Ends all channels: what they have not settled goes back to the queues. Exclusive queues go. Once is enough.
    fn close(&mut self);
}

/// A delivery that is larger than its client takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unfit {
    pub(super) channel: u16,
    /// The consumer's number on its channel.
    pub(super) consumer: u32,
    /// The delivery's number among those of the consumer.
    pub(super) tag: u64,
}

/// Outbox -> frames.
pub(super) trait Encoder<P: Protocol>: Send {
    /// Appends a delivery. One that does not fit leaves what is there as it was.
    fn deliver(&mut self, consumer: &P::Consumer, delivery: &Delivery, out: &mut Gather)
    -> Result<(), Unfit>;

    /// Appends an answer whose turn has come.
    fn late(&mut self, late: P::Late, buffer: &mut BytesMut);

    /// Appends confirms, and empties `runs`.
    fn confirms(&mut self, runs: &mut ConfirmRuns, buffer: &mut BytesMut);

    /// Appends a sign of life.
    fn heartbeat(&mut self, buffer: &mut BytesMut);
}
