//! From a name to an open connection.

use std::io;

use bytes::BytesMut;
use leveret_protocol::sasl::{Mechanism, ScramClient, encode_plain};
use leveret_protocol::{
    Authenticate, Challenge, Close, Closed, Control, FRAME_BYTES_BEFORE_OPEN, Failed, Frame, Hello,
    OPENING_BYTES, Open, Opened, Response, check_opening, opening,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::builder::Options;
use crate::error::{ConnectError, ProtocolError, Refusal};

/// What the broker is told about this library.
const PRODUCT: &str = concat!("leveret-client ", env!("CARGO_PKG_VERSION"));

/// More channels than anybody needs; the broker may grant fewer.
const CHANNELS_WANTED: u16 = 8192;

/// An open connection.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) stream: TcpStream,
    /// What was read beyond the handshake.
    pub(crate) inbound: BytesMut,
    pub(crate) opened: Opened,
}

/// Connects, authenticates and enters the vhost, all within the connect timeout.
pub(crate) async fn connect(options: &Options) -> Result<Socket, ConnectError> {
    let after = options.connect_timeout;
    let address = options.target.address();
    match tokio::time::timeout(after, Handshake::run(options, &address)).await {
        Ok(connected) => connected,
        Err(_) => Err(ConnectError::TimedOut { address, after }),
    }
}

struct Handshake<'a> {
    options: &'a Options,
    address: &'a str,
    stream: TcpStream,
    inbound: BytesMut,
}

impl<'a> Handshake<'a> {
    async fn run(options: &'a Options, address: &'a str) -> Result<Socket, ConnectError> {
        let failed = |source| ConnectError::Io { address: address.to_owned(), source };
        let host = (options.target.host.as_str(), options.target.port);
        let stream = TcpStream::connect(host).await.map_err(failed)?;
        // The driver writes whole batches; holding the last one back for more would only delay it.
        stream.set_nodelay(true).map_err(failed)?;
        let mut handshake = Self { options, address, stream, inbound: BytesMut::new() };
        handshake.open().await?;
        let hello = handshake.hello().await?;
        handshake.authenticate(&hello).await?;
        let opened = handshake.enter().await?;
        Ok(Socket { stream: handshake.stream, inbound: handshake.inbound, opened })
    }

    async fn open(&mut self) -> Result<(), ConnectError> {
        self.write(&opening()).await?;
        let mut got = [0; OPENING_BYTES];
        match self.stream.read_exact(&mut got).await {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(self.hung_up()),
            Err(error) => return Err(self.failed(error)),
        }
        check_opening(got)?;
        Ok(())
    }

    async fn hello(&mut self) -> Result<Hello, ConnectError> {
        match self.receive().await? {
            Control::Hello(hello) => Ok(hello),
            other => Err(unexpected(&other, "Hello")),
        }
    }

    async fn authenticate(&mut self, hello: &Hello) -> Result<(), ConnectError> {
        let offered = |mechanism: Mechanism| hello.mechanisms.iter().any(|name| name == mechanism.name());
        if offered(Mechanism::ScramSha256) {
            self.scram().await
        } else if offered(Mechanism::Plain) {
            self.plain().await
        } else {
            Err(ConnectError::NoMechanism { offered: hello.mechanisms.clone() })
        }
    }

    async fn scram(&mut self) -> Result<(), ConnectError> {
        let target = &self.options.target;
        let nonce = random_hex()?;
        let (client, first) = ScramClient::new(&target.user, target.password.clone(), &nonce)?;
        self.begin_authentication(Mechanism::ScramSha256, first).await?;
        let Challenge { data } = match self.receive().await? {
            Control::Challenge(challenge) => challenge,
            other => return Err(unexpected(&other, "Challenge")),
        };
        // The broker chooses how often the password is hashed; that must not hold up the other tasks.
        let proof = tokio::task::spawn_blocking(move || client.respond(&data));
        let (proved, last) = proof.await.map_err(|error| self.failed(io::Error::other(error)))??;
        self.send(&Response { data: last }.into()).await?;
        match self.receive().await? {
            Control::Authenticated(authenticated) => Ok(proved.verify(&authenticated.data)?),
            other => Err(unexpected(&other, "Authenticated")),
        }
    }

    /// Sends the password as it is. A broker that offers nothing better may be somebody who pretends to be one,
    /// so that this goes only to the own machine unless the application says otherwise.
    async fn plain(&mut self) -> Result<(), ConnectError> {
        let peer = self.stream.peer_addr().map_err(|error| self.failed(error))?;
        if !self.options.plain_password && !peer.ip().is_loopback() {
            return Err(ConnectError::PlainPassword { address: self.address.to_owned() });
        }
        let target = &self.options.target;
        let message = encode_plain(&target.user, &target.password)?;
        self.begin_authentication(Mechanism::Plain, message.to_vec()).await?;
        match self.receive().await? {
            Control::Authenticated(_) => Ok(()),
            other => Err(unexpected(&other, "Authenticated")),
        }
    }

    async fn begin_authentication(
        &mut self,
        mechanism: Mechanism,
        initial: Vec<u8>,
    ) -> Result<(), ConnectError> {
        self.send(&Authenticate { mechanism: mechanism.name().to_owned(), initial }.into()).await
    }

    async fn enter(&mut self) -> Result<Opened, ConnectError> {
        let open = Open {
            vhost: self.options.target.vhost.clone(),
            frame_bytes_max: self.options.frame_bytes_max,
            channels_max: CHANNELS_WANTED,
            heartbeat_ms: u32::try_from(self.options.heartbeat.as_millis()).unwrap_or(u32::MAX),
            client_name: self.options.name.clone(),
            client_product: PRODUCT.to_owned(),
        };
        self.send(&open.into()).await?;
        match self.receive().await? {
            Control::Opened(opened) => Ok(opened),
            other => Err(unexpected(&other, "Opened")),
        }
    }

    async fn send(&mut self, control: &Control) -> Result<(), ConnectError> {
        let mut out = BytesMut::new();
        control.encode(0, &mut out).map_err(ProtocolError::from)?;
        self.write(&out).await
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), ConnectError> {
        self.stream.write_all(bytes).await.map_err(|error| self.failed(error))
    }

    /// The next control frame, unless it says that this goes no further.
    async fn receive(&mut self) -> Result<Control, ConnectError> {
        let frame = loop {
            let frame =
                Frame::decode(&mut self.inbound, FRAME_BYTES_BEFORE_OPEN).map_err(ProtocolError::from)?;
            match frame {
                Some(frame) if frame.kind == leveret_protocol::kind::HEARTBEAT => {}
                Some(frame) => break frame,
                None => {
                    let read = self.stream.read_buf(&mut self.inbound).await;
                    if read.map_err(|error| self.failed(error))? == 0 {
                        return Err(self.hung_up());
                    }
                }
            }
        };
        match Control::decode(frame.kind, &frame.payload).map_err(ProtocolError::from)? {
            Control::Close(Close { code, text }) => {
                // Politeness only: the reason is here, whether the answer arrives or not.
                let _ = self.send(&Closed {}.into()).await;
                Err(ConnectError::Refused(Refusal { operation: "Open".to_owned(), code, text }))
            }
            Control::Failed(failed) => Err(refused(failed)),
            control => Ok(control),
        }
    }

    fn failed(&self, source: io::Error) -> ConnectError {
        ConnectError::Io { address: self.address.to_owned(), source }
    }

    fn hung_up(&self) -> ConnectError {
        ConnectError::HungUp { address: self.address.to_owned() }
    }
}

fn refused(failed: Failed) -> ConnectError {
    ConnectError::Refused(Refusal::from(failed))
}

fn unexpected(got: &Control, expected: &'static str) -> ConnectError {
    ProtocolError::Unexpected { frame: got.name().to_owned(), expected }.into()
}

/// 128 unpredictable bits as text.
pub(crate) fn random_hex() -> Result<String, ConnectError> {
    let high = getrandom::u64();
    let low = getrandom::u64();
    match (high, low) {
        (Ok(high), Ok(low)) => Ok(format!("{high:016x}{low:016x}")),
        (Err(error), _) | (_, Err(error)) => Err(ConnectError::NoRandomness(error.to_string())),
    }
}
