//! 2 · Frames: one client's socket.
//!
//! Two tasks: the reader turns frames into operations and carries them out itself, a batch at a time; the writer
//! sends what the outbox gets from there and from the queues. The reader's end ends both.
//!
//! What a protocol adds is in its folder, behind the traits of `protocol.rs`: how its clients come in, what their frames
//! ask, and how deliveries and confirms become frames.

mod amqp;
mod buffers;
mod common;
mod gather;
mod login;
mod native;
mod outbox;
mod protocol;
mod reader;
mod writer;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use leveret_protocol::{Closes, ReplyCode};
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use self::amqp::Amqp;
use self::common::Common;
use self::native::Native;
use self::outbox::Outbox;
use self::protocol::{Entered, Protocol, Session};
use self::reader::Reader;
use self::writer::Writer;
use crate::auth::{Throttle, Users};
use crate::clock::Clock;
use crate::machine::pressure::Pressure;
use crate::queue::{ConnectionId, Gate};
use crate::store::Store;
use crate::topology::Topology;

/// What a connection may take up.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The largest payload of a frame, in bytes.
    pub frame_bytes_max: usize,
    /// The largest body of a message, in bytes.
    pub message_bytes_max: usize,
    /// How many channels a connection may have.
    pub channels_max: u16,
    /// How many consumers, and queues that are got from, a channel may have.
    pub consumers_max: usize,
    /// Deliveries that wait to be written to one connection, and answers that it has not read, in bytes each.
    pub outbox_bytes_max: usize,
    /// The heartbeat that is offered; none is offered for zero.
    pub heartbeat: Duration,
    /// From the socket's first byte to an open connection.
    pub handshake_timeout: Duration,
}

/// What all connections share.
pub struct Context {
    /// Vhosts with their queues and exchanges.
    pub topology: Arc<Topology>,
    /// The journal.
    pub store: Arc<Store>,
    /// Who may enter.
    pub users: Arc<Users>,
    /// Slows guessing down.
    pub throttle: Mutex<Throttle>,
    /// Bounds how many password hashes are computed at a time, so that logins leave the processors to others.
    pub hashing: Semaphore,
    /// The time.
    pub clock: Clock,
    /// Bounds.
    pub limits: Limits,
    /// Whether publishes are taken.
    pub pressure: Arc<Pressure>,
    /// Closed before the broker stops, so that nothing is delivered while connections end.
    pub gate: Arc<Gate>,
    /// Cancelled when the broker stops: clients are told, and have time to take what is left for them.
    pub stopping: CancellationToken,
    /// Cancelled when that time is over: connections end as they are.
    pub cutting: CancellationToken,
}

impl Context {
    /// Begins to stop: nothing is delivered any more, and every connection is told to end.
    pub fn stop(&self) {
        self.gate.close();
        self.stopping.cancel();
    }
}

/// Why the broker refuses something that was not a request, and what ends with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {text}")]
struct Violation {
    code: ReplyCode,
    text: String,
    closes: Closes,
}

#[allow(clippy::needless_pass_by_value, reason = "it takes errors and texts, which end here")]
impl Violation {
    /// One that ends the connection.
    fn of_connection(code: ReplyCode, text: impl ToString) -> Self {
        Self { code, text: text.to_string(), closes: Closes::Connection }
    }

    /// One that ends the channel.
    fn of_channel(code: ReplyCode, text: impl ToString) -> Self {
        Self { code, text: text.to_string(), closes: Closes::Channel }
    }
}

/// How long a client may take to read what is left for it after the broker has decided to end.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(5);

/// What a listener's clients speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Leveret's own protocol.
    Native,
    /// AMQP 0-9-1, as RabbitMQ speaks it.
    Amqp,
}

/// Serves one client from its first byte to its last. `entered` is called when it has been let in.
pub async fn serve(
    dialect: Dialect,
    socket: TcpStream,
    peer: SocketAddr,
    id: ConnectionId,
    context: Arc<Context>,
    entered: impl FnOnce() + Send,
) {
    match dialect {
        Dialect::Native => serve_in::<Native>(socket, peer, id, context, entered).await,
        Dialect::Amqp => serve_in::<Amqp>(socket, peer, id, context, entered).await,
    }
}

async fn serve_in<P: Protocol>(
    mut socket: TcpStream,
    peer: SocketAddr,
    id: ConnectionId,
    context: Arc<Context>,
    entered: impl FnOnce() + Send,
) {
    // Batches are made here, not by the kernel: its waiting for more would only delay answers.
    let _ = socket.set_nodelay(true);
    let handshake = P::enter(&mut socket, peer, id, &context);
    let outcome = tokio::select! {
        outcome = tokio::time::timeout(context.limits.handshake_timeout, handshake) => outcome,
        () = context.stopping.cancelled() => return,
    };
    let welcome = match outcome {
        Ok(Ok(welcome)) => welcome,
        Ok(Err(refused)) => {
            tracing::info!(%peer, %refused, "a client was not let in");
            return;
        }
        Err(_) => {
            tracing::info!(%peer, "a client took too long to open its connection");
            return;
        }
    };
    entered();
    tracing::debug!(%peer, connection = id.0, user = %welcome.user, vhost = %welcome.vhost.name, "connected");
    attend(socket, id, &context, welcome).await;
    tracing::debug!(%peer, connection = id.0, "disconnected");
}

async fn attend<P: Protocol>(
    socket: TcpStream,
    id: ConnectionId,
    context: &Arc<Context>,
    mut entered: Entered<P>,
) {
    let outbox = Outbox::<P>::new(context.limits.outbox_bytes_max, Arc::clone(&context.gate));
    let resume = Arc::new(Notify::new());
    let vhost = Arc::clone(&entered.vhost);
    let common = Common::new(id, vhost, Arc::clone(context), Arc::clone(&outbox));
    let (session, encoder) = P::begin(common, &mut entered);
    let (read_half, write_half) = socket.into_split();
    let writer = Writer::<_, P> {
        socket: write_half,
        outbox: Arc::clone(&outbox),
        store: Arc::clone(&context.store),
        heartbeat: entered.heartbeat,
        encoder,
        resume: Arc::clone(&resume),
    };
    let mut writing = tokio::spawn(writer.run());
    let mut reader = Reader::new(read_half, entered.rest, entered.heartbeat, session, resume);
    tokio::select! {
        () = reader.run(context) => {}
        // The client cannot be written to: nothing that it says can be answered.
        _ = &mut writing => {}
        () = context.cutting.cancelled() => {}
    }
    // What the client holds goes back even if it is cut, or it would come again as if nobody had seen it.
    reader.session.close();
    outbox.end();
    if !writing.is_finished() {
        tokio::select! {
            _ = tokio::time::timeout(FAREWELL_TIMEOUT, &mut writing) => {}
            () = context.cutting.cancelled() => {}
        }
        if !writing.is_finished() {
            writing.abort();
            // It holds the journal, whose directory must be free when the broker has stopped.
            let _ = writing.await;
        }
    }
}
