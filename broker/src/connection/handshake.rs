//! Opening, authentication, limits: from a stranger to a user in a vhost.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use leveret_protocol::sasl::Mechanism;
use leveret_protocol::{
    Authenticated, Challenge, Close, Control, ControlError, FRAME_BYTES_BEFORE_OPEN, FRAME_BYTES_MIN, Frame,
    Hello, OPENING_BYTES, Open, Opened, OpeningError, ReplyCode, check_opening, is_http, kind, opening,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Context, Violation};
use crate::auth::{self, Authenticator, Outcome, Refusal};
use crate::queue::ConnectionId;
use crate::topology::Vhost;

/// A client that has been let in, and what was agreed with it.
pub(super) struct Entered {
    pub(super) user: Arc<str>,
    pub(super) vhost: Arc<Vhost>,
    pub(super) frame_bytes_max: usize,
    pub(super) channels_max: u16,
    pub(super) heartbeat: Option<Duration>,
    /// What the client has sent already behind its last frame of the handshake.
    pub(super) rest: BytesMut,
}

/// Why a client was not let in.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("it went away: {0}")]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Opening(#[from] OpeningError),
    #[error(transparent)]
    Authentication(#[from] Refusal),
    #[error(transparent)]
    Violation(#[from] Violation),
}

/// How much a client that was refused may still send before the socket is closed on it, in bytes. Closing on unread
/// bytes would reset the connection, and the refusal might never be read.
const LINGER_BYTES_MAX: usize = 64 * 1024;
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);

/// Lets a client in, or tells it why not.
pub(super) async fn run(
    socket: &mut TcpStream,
    peer: SocketAddr,
    id: ConnectionId,
    context: &Context,
) -> Result<Entered, Refused> {
    let mut handshake = Handshake { socket, buffer: BytesMut::new(), context, peer };
    match handshake.run(id).await {
        Err(Refused::Violation(violation)) => {
            let Violation { code, text, .. } = violation.clone();
            handshake.send(Close { code, text }).await?;
            handshake.linger().await;
            Err(violation.into())
        }
        Err(Refused::Authentication(refusal)) => {
            let text = Refusal::PEER_TEXT.to_owned();
            handshake.send(Close { code: ReplyCode::AccessRefused, text }).await?;
            handshake.linger().await;
            Err(refusal.into())
        }
        other => other,
    }
}

struct Handshake<'a> {
    socket: &'a mut TcpStream,
    buffer: BytesMut,
    context: &'a Context,
    peer: SocketAddr,
}

impl Handshake<'_> {
    async fn run(&mut self, id: ConnectionId) -> Result<Entered, Refused> {
        self.opening().await?;
        let limits = &self.context.limits;
        self.send(Hello {
            product: "Leveret".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            mechanisms: Mechanism::ALL.iter().map(|mechanism| mechanism.name().to_owned()).collect(),
            frame_bytes_max: limits.frame_bytes_max as u32,
            channels_max: limits.channels_max,
            heartbeat_ms: limits.heartbeat.as_millis() as u32,
        })
        .await?;
        let user = self.authenticate().await?;
        self.open(id, user).await
    }

    async fn opening(&mut self) -> Result<(), Refused> {
        let mut got = [0; OPENING_BYTES];
        self.socket.read_exact(&mut got).await?;
        if let Err(error) = check_opening(got) {
            let line = format!("{error}\r\n");
            let refusal = if is_http(got) {
                let head = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n";
                format!("{head}Content-Length: {}\r\n\r\n{line}", line.len())
            } else {
                line
            };
            self.socket.write_all(refusal.as_bytes()).await?;
            self.linger().await;
            return Err(error.into());
        }
        self.socket.write_all(&opening()).await?;
        Ok(())
    }

    async fn authenticate(&mut self) -> Result<Arc<str>, Refused> {
        let (mechanism, initial) = match self.receive().await? {
            Control::Authenticate(frame) => (frame.mechanism, frame.initial),
            other => return Err(unexpected("Authenticate", &other).into()),
        };
        let mechanism = Mechanism::from_name(&mechanism).ok_or_else(|| {
            let text = format!("mechanism {mechanism:?} is not offered; use SCRAM-SHA-256 or PLAIN");
            Violation::of_connection(ReplyCode::SyntaxError, text)
        })?;
        let mut outcome = self.begin(mechanism, initial).await?;
        loop {
            outcome = match outcome {
                Outcome::Challenge { message, next } => {
                    self.send(Challenge { data: message }).await?;
                    match self.receive().await? {
                        Control::Response(response) => next.step(&response.data),
                        other => return Err(unexpected("Response", &other).into()),
                    }
                }
                Outcome::Done { user, server_final } => {
                    let now_ms = self.context.clock.now_ms();
                    let wait_ms = self.context.throttle.lock().succeeded(self.peer.ip(), &user, now_ms);
                    let wait_ms = wait_ms.ok_or_else(|| Refusal::Credentials { user: Arc::clone(&user) })?;
                    tokio::time::sleep(Duration::from_millis(wait_ms)).await;
                    self.send(Authenticated { data: server_final }).await?;
                    return Ok(user);
                }
                Outcome::Refused(refusal) => {
                    if let Some(user) = refusal.user() {
                        let now_ms = self.context.clock.now_ms();
                        let wait_ms = self.context.throttle.lock().failed(self.peer.ip(), user, now_ms);
                        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
                    }
                    return Err(refusal.into());
                }
            };
        }
    }

    async fn begin(&self, mechanism: Mechanism, initial: Vec<u8>) -> Result<Outcome, Refused> {
        let nonce = auth::nonce()?;
        let (users, peer) = (Arc::clone(&self.context.users), self.peer);
        let begin = move || Authenticator::begin(&users, mechanism, peer, &initial, &nonce);
        if mechanism != Mechanism::Plain {
            return Ok(begin());
        }
        // PLAIN hashes the password, which takes a processor for a while: not on the runtime's threads, and not for
        // everybody at once.
        let _permit = self.context.hashing.acquire().await;
        tokio::task::spawn_blocking(begin).await.map_err(|error| std::io::Error::other(error).into())
    }

    async fn open(&mut self, id: ConnectionId, user: Arc<str>) -> Result<Entered, Refused> {
        let open: Open = match self.receive().await? {
            Control::Open(open) => open,
            other => return Err(unexpected("Open", &other).into()),
        };
        let limits = &self.context.limits;
        if (open.frame_bytes_max as usize) < FRAME_BYTES_MIN || open.channels_max == 0 {
            let (frame, channels) = (open.frame_bytes_max, open.channels_max);
            let text = format!(
                "frame_bytes_max is {frame} and channels_max {channels}; at least {FRAME_BYTES_MIN} and 1 are needed"
            );
            return Err(Violation::of_connection(ReplyCode::SyntaxError, text).into());
        }
        let vhost = self.context.topology.vhost(open.vhost.as_str()).ok_or_else(|| {
            Violation::of_connection(ReplyCode::InvalidPath, format!("there is no vhost '{}'", open.vhost))
        })?;
        let frame_bytes_max = limits.frame_bytes_max.min(open.frame_bytes_max as usize);
        let channels_max = limits.channels_max.min(open.channels_max);
        let heartbeat_ms = match (limits.heartbeat.as_millis() as u32, open.heartbeat_ms) {
            (0, other) | (other, 0) => other,
            (ours, theirs) => ours.min(theirs),
        };
        self.send(Opened {
            connection: id.0,
            frame_bytes_max: frame_bytes_max as u32,
            channels_max,
            heartbeat_ms,
        })
        .await?;
        let heartbeat = (heartbeat_ms > 0).then(|| Duration::from_millis(heartbeat_ms.into()));
        let rest = std::mem::take(&mut self.buffer);
        Ok(Entered { user, vhost, frame_bytes_max, channels_max, heartbeat, rest })
    }

    async fn send(&mut self, control: impl Into<Control>) -> Result<(), Refused> {
        let bytes = super::session::encoded(0, control);
        self.socket.write_all(&bytes).await?;
        Ok(())
    }

    async fn receive(&mut self) -> Result<Control, Refused> {
        loop {
            let frame = Frame::decode(&mut self.buffer, FRAME_BYTES_BEFORE_OPEN)
                .map_err(|error| Violation::of_connection(ReplyCode::FrameError, error))?;
            if let Some(frame) = frame {
                return Ok(read_control(&frame)?);
            }
            self.buffer.reserve(1024);
            if self.socket.read_buf(&mut self.buffer).await? == 0 {
                return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
            }
        }
    }

    /// Reads what the client still sends, for a moment and up to a limit.
    async fn linger(&mut self) {
        let read_all = async {
            let mut sink = [0; 4096];
            let mut read = 0;
            let _ = self.socket.shutdown().await;
            while let Ok(bytes @ 1..) = self.socket.read(&mut sink).await {
                read += bytes;
                if read > LINGER_BYTES_MAX {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(LINGER_TIMEOUT, read_all).await;
    }
}

fn read_control(frame: &Frame) -> Result<Control, Violation> {
    if frame.channel != 0 {
        let text = "before the connection is open there are no channels";
        return Err(Violation::of_connection(ReplyCode::UnexpectedFrame, text));
    }
    Control::decode(frame.kind, &frame.payload).map_err(|error| {
        let code = match (&error, frame.kind) {
            (ControlError::UnknownKind { .. }, kind::HEARTBEAT | kind::PUBLISH..=kind::SETTLED) => {
                ReplyCode::CommandInvalid
            }
            (ControlError::UnknownKind { .. }, _) => ReplyCode::FrameError,
            _ => ReplyCode::SyntaxError,
        };
        Violation::of_connection(code, error)
    })
}

fn unexpected(expected: &str, got: &Control) -> Violation {
    let text = format!("expected {expected}, got {}", got.name());
    Violation::of_connection(ReplyCode::CommandInvalid, text)
}
