//! Opening, authentication, limits: from a stranger to a user in a vhost.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use leveret_protocol::sasl::Mechanism;
use leveret_protocol::{
    Authenticated, Challenge, Close, Control, ControlError, FRAME_BYTES_BEFORE_OPEN, FRAME_BYTES_MIN, Frame,
    Hello, OPENING_BYTES, Open, Opened, ReplyCode, check_opening, is_http, kind, opening,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::super::login::{self, Refused, Verdict};
use super::super::protocol::Entered;
use super::super::{Context, Violation};
use super::{Native, Terms, encoded};
use crate::auth::Refusal;
use crate::queue::ConnectionId;

/// Lets a client in, or tells it why not.
pub(super) async fn run(
    socket: &mut TcpStream,
    peer: SocketAddr,
    id: ConnectionId,
    context: &Context,
) -> Result<Entered<Native>, Refused> {
    let mut handshake = Handshake { socket, buffer: BytesMut::new(), context, peer };
    match handshake.run(id).await {
        Err(Refused::Violation(violation)) => {
            let Violation { code, text, .. } = violation.clone();
            handshake.send(Close { code, text }).await?;
            login::linger(handshake.socket).await;
            Err(violation.into())
        }
        Err(Refused::Authentication(refusal)) => {
            let text = Refusal::PEER_TEXT.to_owned();
            handshake.send(Close { code: ReplyCode::AccessRefused, text }).await?;
            login::linger(handshake.socket).await;
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
    async fn run(&mut self, id: ConnectionId) -> Result<Entered<Native>, Refused> {
        let minor = self.opening().await?;
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
        self.open(id, user, minor).await
    }

    /// Gives the client's minor version.
    async fn opening(&mut self) -> Result<u8, Refused> {
        let mut got = [0; OPENING_BYTES];
        self.socket.read_exact(&mut got).await?;
        let checked = check_opening(got);
        if let Err(error) = checked {
            let line = format!("{error}\r\n");
            let refusal = if is_http(got) {
                let head = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n";
                format!("{head}Content-Length: {}\r\n\r\n{line}", line.len())
            } else {
                line
            };
            self.socket.write_all(refusal.as_bytes()).await?;
            login::linger(self.socket).await;
            return Err(error.into());
        }
        self.socket.write_all(&opening()).await?;
        Ok(checked?)
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
        let mut verdict = login::begin(self.context, self.peer, mechanism, initial).await?;
        loop {
            match verdict {
                Verdict::Challenge { message, next } => {
                    self.send(Challenge { data: message }).await?;
                    let outcome = match self.receive().await? {
                        Control::Response(response) => next.step(&response.data),
                        other => return Err(unexpected("Response", &other).into()),
                    };
                    verdict = login::judge(self.context, self.peer, outcome).await?;
                }
                Verdict::Accepted { user, server_final } => {
                    self.send(Authenticated { data: server_final }).await?;
                    return Ok(user);
                }
            }
        }
    }

    async fn open(
        &mut self,
        id: ConnectionId,
        user: Arc<str>,
        minor: u8,
    ) -> Result<Entered<Native>, Refused> {
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
        let terms = Terms { knows_pauses: minor >= 1 };
        Ok(Entered { user, vhost, frame_bytes_max, channels_max, heartbeat, rest, terms })
    }

    async fn send(&mut self, control: impl Into<Control>) -> Result<(), Refused> {
        let bytes = encoded(0, control);
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
