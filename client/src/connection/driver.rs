//! The one task of a client: it owns the socket, reads and writes in batches, and never waits for the application.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use leveret_protocol::{Close, Frame, FrameWriter, ReplyCode, kind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::Shared;
use super::dispatch::{Dispatcher, Flow};
use super::handshake::{Socket, connect};
use crate::error::{ConnectionLost, ProtocolError};
use crate::recovery::mend;
use crate::state::ConnectionState;

/// How much is read at a time.
const READ_BYTES: usize = 128 * 1024;

/// How long the broker may take to answer a goodbye.
const GOODBYE: Duration = Duration::from_secs(5);

/// How many half heartbeats without a byte are a loss: the protocol says twice the whole time.
const SILENT_TICKS_MAX: u32 = 4;

/// Serves one connection after the other until the client is closed or gives up.
pub(crate) async fn drive(shared: Arc<Shared>, first: Socket) {
    let mut socket = first;
    loop {
        let lost = match serve(&shared, socket).await {
            Ok(()) => return shared.finished(None),
            Err(lost) => lost,
        };
        if shared.is_closing() || !shared.options.recovery.is_on() {
            return shared.finished(Some(lost));
        }
        tracing::warn!(%lost, target = ?shared.options.target, "the connection was lost; connecting again");
        shared.interrupted(&lost);
        socket = match reconnect(&shared, lost).await {
            Ok(socket) => socket,
            Err(lost) => return shared.finished(lost),
        };
        tracing::info!(connection = socket.opened.connection, "connected again");
    }
}

/// Tries until it succeeds, or until it is no use: then the reason is that of the loss. No reason if the client
/// is closed in the meantime.
async fn reconnect(shared: &Shared, lost: ConnectionLost) -> Result<Socket, Option<ConnectionLost>> {
    let mut attempt = 0;
    while shared.options.recovery.allows(attempt) {
        shared.state.send_replace(ConnectionState::Recovering { cause: lost.clone(), attempt });
        let connecting = async {
            tokio::time::sleep(shared.retry_delay(attempt)).await;
            connect(&shared.options).await
        };
        let error = tokio::select! {
            () = shared.hang_up.notified() => return Err(None),
            connected = connecting => match connected {
                Ok(socket) => return Ok(socket),
                Err(error) => error,
            },
        };
        tracing::warn!(%error, attempt, "no connection");
        if !error.is_retryable() {
            break;
        }
        attempt = attempt.saturating_add(1);
    }
    Err(Some(lost))
}

/// One connection, from its first frame to its end; `Ok` if that is in good order.
async fn serve(shared: &Arc<Shared>, socket: Socket) -> Result<(), ConnectionLost> {
    shared.online(&socket.opened);
    let connection = socket.opened.connection;
    let mut pump = Pump::new(shared.clone(), socket);
    tokio::select! {
        end = pump.run() => end,
        lost = mend(shared, connection) => Err(lost),
    }
}

struct Pump {
    shared: Arc<Shared>,
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    dispatcher: Dispatcher,
    inbound: BytesMut,
    frame_bytes_max: usize,
    /// What is being written, up to where.
    outbound: BytesMut,
    written: usize,
    heartbeat: Option<Interval>,
    silent_ticks: u32,
    wrote_since_tick: bool,
    /// When the broker must have answered the goodbye.
    goodbye: Option<Instant>,
}

impl Pump {
    fn new(shared: Arc<Shared>, socket: Socket) -> Self {
        let Socket { stream, inbound, opened } = socket;
        let (reader, writer) = stream.into_split();
        Self {
            dispatcher: Dispatcher::new(shared.clone()),
            shared,
            reader,
            writer,
            inbound,
            frame_bytes_max: opened.frame_bytes_max as usize,
            outbound: BytesMut::new(),
            written: 0,
            heartbeat: half_heartbeats(opened.heartbeat_ms),
            silent_ticks: 0,
            wrote_since_tick: false,
            goodbye: None,
        }
    }

    async fn run(&mut self) -> Result<(), ConnectionLost> {
        let end = self.turn_until_end().await;
        if matches!(end, Err(ConnectionLost::Ended(_))) {
            // The answer to the broker's goodbye; whether it arrives changes nothing any more.
            let _ = tokio::time::timeout(GOODBYE, self.write_rest()).await;
        }
        end
    }

    async fn turn_until_end(&mut self) -> Result<(), ConnectionLost> {
        // The handshake may have read further than its own frames.
        if self.dispatch()? == Flow::Closed {
            return Ok(());
        }
        loop {
            if self.written == self.outbound.len() {
                self.outbound.clear();
                self.written = 0;
                self.shared.outbox.take(&mut self.outbound);
            }
            let idle = self.outbound.is_empty();
            self.inbound.reserve(READ_BYTES);
            let rest = self.outbound.get(self.written..).unwrap_or_default();
            tokio::select! {
                read = self.reader.read_buf(&mut self.inbound) => {
                    if read.map_err(io_lost)? == 0 {
                        return self.hung_up();
                    }
                    self.silent_ticks = 0;
                    if self.dispatch()? == Flow::Closed {
                        return Ok(());
                    }
                }
                wrote = self.writer.write(rest), if !idle => {
                    self.written += wrote.map_err(io_lost)?;
                    self.wrote_since_tick = true;
                }
                () = self.shared.outbox.rung(), if idle => {}
                () = tick(self.heartbeat.as_mut()) => self.on_tick()?,
                () = self.shared.hang_up.notified(), if self.goodbye.is_none() => self.say_goodbye(),
                () = until(self.goodbye) => return Ok(()),
            }
        }
    }

    fn dispatch(&mut self) -> Result<Flow, ConnectionLost> {
        let flow = self.dispatch_frames();
        // Also if the last frame ended the connection: those who were told something before must wake up for it.
        self.dispatcher.end_batch()?;
        flow
    }

    fn dispatch_frames(&mut self) -> Result<Flow, ConnectionLost> {
        loop {
            let frame =
                Frame::decode(&mut self.inbound, self.frame_bytes_max).map_err(ProtocolError::from)?;
            let Some(frame) = frame else { return Ok(Flow::GoesOn) };
            if self.dispatcher.frame(frame)? == Flow::Closed {
                return Ok(Flow::Closed);
            }
        }
    }

    fn on_tick(&mut self) -> Result<(), ConnectionLost> {
        self.silent_ticks += 1;
        if self.silent_ticks > SILENT_TICKS_MAX {
            let half = self.heartbeat.as_ref().map_or(Duration::ZERO, Interval::period);
            return Err(ConnectionLost::Silent(half * SILENT_TICKS_MAX));
        }
        // Bytes that wait for the socket say as well that this side is alive, as soon as the broker reads.
        if !self.wrote_since_tick && self.outbound.is_empty() {
            FrameWriter::begin(&mut self.outbound, kind::HEARTBEAT, 0, 0).end();
        }
        self.wrote_since_tick = false;
        Ok(())
    }

    fn say_goodbye(&mut self) {
        let close = Close { code: ReplyCode::Ok, text: String::new() };
        // If it cannot be said, the broker sees the socket close.
        let _ = self.shared.outbox.control(0, &close.into());
        self.goodbye = Some(Instant::now() + GOODBYE);
    }

    fn hung_up(&self) -> Result<(), ConnectionLost> {
        if self.goodbye.is_some() { Ok(()) } else { Err(ConnectionLost::HungUp) }
    }

    async fn write_rest(&mut self) -> std::io::Result<()> {
        self.writer.write_all(self.outbound.get(self.written..).unwrap_or_default()).await?;
        self.outbound.clear();
        self.shared.outbox.take(&mut self.outbound);
        self.writer.write_all(&self.outbound).await
    }
}

/// Two ticks for each heartbeat, so that one is on its way in time whatever happened just before.
fn half_heartbeats(heartbeat_ms: u32) -> Option<Interval> {
    let half = Duration::from_millis(u64::from(heartbeat_ms)) / 2;
    if half.is_zero() {
        return None;
    }
    let mut ticks = tokio::time::interval_at(Instant::now() + half, half);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    Some(ticks)
}

async fn tick(heartbeat: Option<&mut Interval>) {
    match heartbeat {
        Some(ticks) => drop(ticks.tick().await),
        None => pending().await,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => pending().await,
    }
}

fn io_lost(error: std::io::Error) -> ConnectionLost {
    ConnectionLost::Io(Arc::new(error))
}
