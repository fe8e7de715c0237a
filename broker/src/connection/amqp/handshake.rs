//! start, tune, open: from a stranger to a user in a vhost, within the limits that both sides keep.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use leveret_protocol::amqp::connection::{self, Connection as ConnectionMethod};
use leveret_protocol::amqp::{
    EncodedTable, FRAME_MAX_MIN, FieldTable, FieldValue, Frame, FrameKind, Method, PROTOCOL_HEADER,
    check_protocol_header, put_method, reply_text,
};
use leveret_protocol::sasl::{Mechanism, SaslError, Secret, encode_plain};
use leveret_protocol::{ReplyCode, Table, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::super::login::{self, Refused, Verdict};
use super::super::protocol::Entered;
use super::super::{Context, Violation};
use super::faults::fault;
use super::{Amqp, Terms};
use crate::auth::Refusal;

/// The largest frame before the connection is open, in bytes.
const FRAME_BYTES_BEFORE_OPEN: usize = 8 * 1024;

/// The largest frame that is proposed, in bytes: RabbitMQ's. A larger message takes several.
const FRAME_BYTES_MAX: u32 = 128 * 1024;

/// The release of RabbitMQ whose clients' features work here: clients look at it to decide what they may use.
const COMPATIBLE_VERSION: &str = "3.13.7";

const MECHANISMS: &str = "PLAIN AMQPLAIN";

/// Extensions of RabbitMQ's that are here.
const CAPABILITIES: [&str; 9] = [
    "authentication_failure_close",
    "basic.nack",
    "connection.blocked",
    "consumer_cancel_notify",
    "consumer_priorities",
    "direct_reply_to",
    "exchange_exchange_bindings",
    "per_consumer_qos",
    "publisher_confirms",
];

/// Lets a client in, or tells it why not.
pub(super) async fn run(
    socket: &mut TcpStream,
    peer: SocketAddr,
    context: &Context,
) -> Result<Entered<Amqp>, Refused> {
    let mut handshake = Handshake {
        socket,
        peer,
        context,
        buffer: BytesMut::new(),
        state: "starting",
        current: (0, 0),
        mechanism: "",
        told_of_refusals: false,
    };
    let refused = match handshake.run().await {
        Ok(entered) => return Ok(entered),
        Err(refused) => refused,
    };
    let violation = match &refused {
        Refused::Violation(violation) => Some(violation.clone()),
        Refused::Authentication(_) if handshake.told_of_refusals => {
            handshake.current = (0, 0);
            let text = format!(
                "Login was refused using authentication mechanism {}. For details see the broker logfile.",
                handshake.mechanism
            );
            Some(fault(ReplyCode::AccessRefused, text))
        }
        // A client that does not announce that it understands a close at this point takes the end of the socket as the
        // refusal. To one that is gone there is nothing to say.
        _ => None,
    };
    if let Some(Violation { code, text, .. }) = violation {
        let (class_id, method_id) = handshake.current;
        let reply_text = reply_text(code, &text);
        let close =
            connection::Close { reply_code: code.into(), reply_text: &reply_text, class_id, method_id };
        handshake.send(close).await?;
        login::linger(handshake.socket).await;
    }
    Err(refused)
}

struct Handshake<'a> {
    socket: &'a mut TcpStream,
    peer: SocketAddr,
    context: &'a Context,
    buffer: BytesMut,
    /// The class and method that a close would be about.
    current: (u16, u16),
    /// RabbitMQ's word for how far it has come.
    state: &'static str,
    /// How the client wants to log in.
    mechanism: &'static str,
    /// Whether the client understands a close as the answer to a login.
    told_of_refusals: bool,
}

impl Handshake<'_> {
    async fn run(&mut self) -> Result<Entered<Amqp>, Refused> {
        self.header().await?;
        let properties = EncodedTable::new(&server_properties()).map_err(std::io::Error::other)?;
        let start = connection::Start {
            version_major: 0,
            version_minor: 9,
            server_properties: properties.as_table(),
            mechanisms: MECHANISMS.as_bytes(),
            locales: b"en_US",
        };
        self.send(start).await?;
        let (user, terms) = self.log_in().await?;
        let tuned = self.tune().await?;
        let frame = self.receive().await?;
        let ConnectionMethod::Open(open) = self.method(&frame)? else { return Err(self.unexpected().into()) };
        let vhost = self.context.topology.vhost(open.virtual_host).ok_or_else(|| {
            let name: String =
                open.virtual_host.chars().filter(|character| !character.is_control()).collect();
            fault(ReplyCode::NotAllowed, format!("vhost {name} not found"))
        })?;
        self.send(connection::OpenOk {}).await?;
        Ok(Entered {
            user,
            vhost,
            frame_bytes_max: tuned.frame_max as usize,
            channels_max: tuned.channel_max,
            heartbeat: (tuned.heartbeat > 0).then(|| Duration::from_secs(tuned.heartbeat.into())),
            rest: std::mem::take(&mut self.buffer),
            terms: Arc::new(terms),
        })
    }

    async fn header(&mut self) -> Result<(), Refused> {
        let mut got = [0; PROTOCOL_HEADER.len()];
        self.socket.read_exact(&mut got).await?;
        if let Err(error) = check_protocol_header(got) {
            self.socket.write_all(&PROTOCOL_HEADER).await?;
            login::linger(self.socket).await;
            return Err(error.into());
        }
        Ok(())
    }

    async fn log_in(&mut self) -> Result<(Arc<str>, Terms), Refused> {
        let frame = self.receive().await?;
        let ConnectionMethod::StartOk(start) = self.method(&frame)? else {
            return Err(self.unexpected().into());
        };
        let capabilities = match start.client_properties.get("capabilities") {
            Some(FieldValue::Table(capabilities)) => capabilities,
            _ => FieldTable::default(),
        };
        let capable = |of: &str| matches!(capabilities.get(of), Some(FieldValue::Bool(true)));
        self.told_of_refusals = capable("authentication_failure_close");
        let terms = Terms {
            cancel_notify: capable("consumer_cancel_notify"),
            blocked: capable("connection.blocked"),
        };
        let mechanism = ["PLAIN", "AMQPLAIN"].into_iter().find(|mechanism| *mechanism == start.mechanism);
        self.mechanism = mechanism.ok_or_else(|| {
            let text = format!("unknown authentication mechanism '{}'", start.mechanism.escape_debug());
            fault(ReplyCode::CommandInvalid, text)
        })?;
        let initial = match self.mechanism {
            "AMQPLAIN" => amqplain(start.response).map_err(Refusal::Malformed)?,
            _ => start.response.to_vec(),
        };
        match login::begin(self.context, self.peer, Mechanism::Plain, initial).await? {
            Verdict::Accepted { user, .. } => Ok((user, terms)),
            Verdict::Challenge { .. } => Err(self.unexpected().into()),
        }
    }

    async fn tune(&mut self) -> Result<connection::TuneOk, Refused> {
        let limits = &self.context.limits;
        let offer = connection::Tune {
            channel_max: limits.channels_max,
            frame_max: FRAME_BYTES_MAX,
            heartbeat: u16::try_from(limits.heartbeat.as_secs()).unwrap_or(u16::MAX),
        };
        self.state = "tuning";
        self.send(offer).await?;
        let frame = self.receive().await?;
        let ConnectionMethod::TuneOk(tuned) = self.method(&frame)? else {
            return Err(self.unexpected().into());
        };
        negotiated("channel_max", tuned.channel_max.into(), 1, offer.channel_max.into())?;
        negotiated("frame_max", tuned.frame_max, FRAME_MAX_MIN, offer.frame_max)?;
        self.state = "opening";
        Ok(tuned)
    }

    async fn send<'m>(&mut self, method: impl Into<Method<'m>>) -> Result<(), Refused> {
        let mut bytes = BytesMut::new();
        put_method(&mut bytes, 0, method);
        self.socket.write_all(&bytes).await?;
        Ok(())
    }

    /// The next frame that is not a sign of life.
    async fn receive(&mut self) -> Result<Frame, Refused> {
        loop {
            let frame = Frame::decode(&mut self.buffer, FRAME_BYTES_BEFORE_OPEN).map_err(Violation::from)?;
            match frame {
                Some(frame) if frame.kind == FrameKind::Heartbeat => {}
                Some(frame) => return Ok(frame),
                None => {
                    self.buffer.reserve(1024);
                    if self.socket.read_buf(&mut self.buffer).await? == 0 {
                        return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
                    }
                }
            }
        }
    }

    /// The method of class connection that a frame is.
    fn method<'f>(&mut self, frame: &'f Frame) -> Result<ConnectionMethod<'f>, Violation> {
        if frame.channel != 0 || frame.kind != FrameKind::Method {
            self.current = (0, 0);
            let octets: Vec<_> = frame.payload.iter().map(u8::to_string).collect();
            let text = format!("type {}, all octets = <<{}>>", frame.kind as u8, octets.join(","));
            return Err(fault(ReplyCode::UnexpectedFrame, text));
        }
        let method = Method::decode(&frame.payload).inspect_err(|error| self.current = error.ids())?;
        self.current = method.ids();
        match method {
            Method::Connection(method) => Ok(method),
            _ => Err(self.unexpected()),
        }
    }

    fn unexpected(&self) -> Violation {
        let text = format!("unexpected method in connection state {}", self.state);
        fault(ReplyCode::ChannelError, text)
    }
}

fn server_properties() -> Table {
    let capabilities = CAPABILITIES.map(|capability| (capability.to_owned(), Value::Bool(true)));
    let texts = [
        ("product", "Leveret"),
        ("version", COMPATIBLE_VERSION),
        ("leveret_version", env!("CARGO_PKG_VERSION")),
        ("platform", "Rust"),
        ("copyright", "the contributors of Leveret; MIT OR Apache-2.0"),
        ("information", "AMQP 0-9-1; the version is that of RabbitMQ whose features are here"),
    ];
    let mut properties: Table = texts.map(|(name, text)| (name.to_owned(), text.into())).into();
    properties.insert("capabilities".to_owned(), Value::Table(capabilities.into()));
    properties
}

/// A login as a table of LOGIN and PASSWORD, in the form of PLAIN.
fn amqplain(response: &[u8]) -> Result<Vec<u8>, SaslError> {
    let form = SaslError::Form { what: "AMQPLAIN response", form: "table of LOGIN and PASSWORD" };
    let table = FieldTable::parse(response).map_err(|_| form.clone())?;
    let text = |name| match table.get(name) {
        Some(FieldValue::LongString(text)) => std::str::from_utf8(text).map_err(|_| SaslError::NotUtf8),
        _ => Err(form.clone()),
    };
    let (user, password) = (text("LOGIN")?, Secret::from(text("PASSWORD")?));
    Ok(encode_plain(user, &password)?.to_vec())
}

/// Checks what a client made of an offer: no more than offered, and 0, which means no limit, is more.
fn negotiated(field: &str, value: u32, min: u32, max: u32) -> Result<(), Violation> {
    let no_limit = if field == "channel_max" && value == 0 { " (no limit)" } else { "" };
    let (than, limit) = match value {
        0 => ("higher than the maximum", max),
        value if value < min => ("lower than the minimum", min),
        value if value > max => ("higher than the maximum", max),
        _ => return Ok(()),
    };
    let text = format!("negotiated {field} = {value}{no_limit} is {than} allowed value ({limit})");
    Err(fault(ReplyCode::NotAllowed, text))
}
