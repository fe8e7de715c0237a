//! Socket -> frames -> session, a batch at a time.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use leveret_protocol::ReplyCode;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::Notify;

use super::protocol::{Flow, Session};
use super::{Context, Violation};

/// How much is read at a time, in bytes.
const READ_BYTES: usize = 128 * 1024;

/// How long the client may take to answer a close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The reading side of a connection.
pub(super) struct Reader<S> {
    socket: OwnedReadHalf,
    buffer: BytesMut,
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
        Self { socket, buffer: rest, silence_max, resume, session }
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
            tokio::select! {
                () = self.session.wait_for_room() => {}
                () = context.stopping.cancelled() => return End::stopping(),
            }
            if full {
                continue;
            }
            if self.buffer.is_empty() {
                // An idle connection keeps no buffer.
                self.buffer = BytesMut::new();
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
            // Room is made only now that there is something to put into it.
            self.buffer.reserve(READ_BYTES);
            match self.socket.try_read_buf(&mut self.buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
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
