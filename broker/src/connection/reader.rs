//! Socket -> frames -> session, a batch at a time.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use leveret_protocol::ReplyCode;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::Notify;

use super::buffers::{self, Lender};
use super::protocol::{Flow, Session};
use super::{Context, Violation};

/// How much is read at a time, in bytes.
const READ_BYTES: usize = 128 * 1024;

/// The beginning of a frame that is longer than this stays where it is, in bytes.
const STOWED_BYTES_MAX: usize = 16 * 1024;

/// How long the client may take to answer a close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The reading side of a connection.
pub(super) struct Reader<S> {
    socket: OwnedReadHalf,
    buffer: BytesMut,
    /// Whether the buffer is the thread's.
    lent: bool,
    /// A client that is silent for this long is gone.
    silence_max: Option<Duration>,
    resume: Arc<Notify>,
    pub(super) session: S,
}

/// Why reading ended.
enum End {
    /// The client said so, or is gone.
    Client,
    /// The broker says so.
    Broker(Violation),
}

impl End {
    fn stopping() -> Self {
        let text = "the broker is shutting down";
        Self::Broker(Violation::of_connection(ReplyCode::ConnectionForced, text))
    }
}

impl<S: Session> Reader<S> {
    /// `rest` is what has been read already; `heartbeat` what was agreed on.
    pub(super) fn new(
        socket: OwnedReadHalf,
        rest: BytesMut,
        heartbeat: Option<Duration>,
        session: S,
        resume: Arc<Notify>,
    ) -> Self {
        let silence_max = heartbeat.map(|heartbeat| heartbeat * 2);
        Self { socket, buffer: rest, lent: false, silence_max, resume, session }
    }

    /// Serves the client until one of the two sides ends it.
    pub(super) async fn run(&mut self, context: &Context) {
        if let End::Broker(violation) = self.serve(context).await {
            tracing::info!(code = %violation.code, text = violation.text, "a connection is closed by the broker");
            // The client may still be sending; it is read, and ignored, until it has seen the close. But what it has
            // settled before it saw that the broker stops is not brought again.
            let stopping = context.stopping.is_cancelled();
            self.session.say_close(violation, stopping);
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.hear_out(stopping)).await;
        }
    }

    async fn serve(&mut self, context: &Context) -> End {
        let resume = Arc::clone(&self.resume);
        let mut pressure = context.pressure.watch();
        // What is on already is news for this client.
        pressure.mark_changed();
        loop {
            let mut full = false;
            match self.session.apply_all(&mut self.buffer) {
                Ok(Flow::Continue) => {}
                Ok(Flow::Full) => full = true,
                Ok(Flow::Closed) => return End::Client,
                Err(violation) => return End::Broker(violation),
            }
            self.stow();
            tokio::select! {
                () = self.session.wait_for_room() => {}
                () = context.stopping.cancelled() => return End::stopping(),
            }
            if full {
                continue;
            }
            tokio::select! {
                read = self.read() => match read {
                    Ok(0) | Err(_) => return End::Client,
                    Ok(_) => {}
                },
                () = resume.notified() => self.session.resume(),
                Ok(()) = pressure.changed() => {
                    let reason = pressure.borrow_and_update().reason();
                    self.session.tell_of_pause(reason);
                }
                () = context.stopping.cancelled() => return End::stopping(),
            }
        }
    }

    async fn read(&mut self) -> io::Result<usize> {
        let Some(silence_max) = self.silence_max else { return self.read_some().await };
        let read = tokio::time::timeout(silence_max, self.read_some()).await;
        read.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    async fn read_some(&mut self) -> io::Result<usize> {
        loop {
            self.socket.readable().await?;
            self.make_room();
            match self.socket.try_read_buf(&mut (&mut self.buffer).limit(READ_BYTES)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.stow(),
                read => return read,
            }
        }
    }

    /// Makes room, now that there is something to put into it: in the thread's buffer, unless what is there already is
    /// so much that it would only be copied to and fro.
    fn make_room(&mut self) {
        if !self.lent && self.buffer.len() <= STOWED_BYTES_MAX {
            let mut buffer = buffers::READING.with(Lender::lend);
            buffer.extend_from_slice(&self.buffer);
            self.buffer = buffer;
            self.lent = true;
        }
        self.buffer.reserve(READ_BYTES);
    }

    /// Gives the thread its buffer back before anything is waited for, and keeps what is left of it: the beginning of a
    /// frame.
    fn stow(&mut self) {
        if self.lent && self.buffer.len() <= STOWED_BYTES_MAX {
            let rest = BytesMut::from(&*self.buffer);
            let buffer = std::mem::replace(&mut self.buffer, rest);
            buffers::READING.with(|lender| lender.give_back(buffer));
            self.lent = false;
        } else if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
    }

    async fn hear_out(&mut self, keep: bool) {
        while !self.session.hear_out(&mut self.buffer, keep) {
            if matches!(self.read_some().await, Ok(0) | Err(_)) {
                return;
            }
        }
    }
}
