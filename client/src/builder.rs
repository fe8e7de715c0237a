//! How a client is to connect.

use std::sync::Arc;
use std::time::Duration;

use leveret_protocol::FRAME_BYTES_DEFAULT;
use leveret_protocol::sasl::Secret;

use crate::client::{Client, Handle};
use crate::connection::{Shared, driver, handshake};
use crate::error::ConnectError;
use crate::recovery::Recovery;
use crate::state::ConnectionState;
use crate::uri::{Target, UriError};

/// Everything that a client is told once.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) target: Target,
    pub(crate) name: String,
    pub(crate) recovery: Recovery,
    pub(crate) heartbeat: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) close_timeout: Duration,
    pub(crate) frame_bytes_max: u32,
    pub(crate) plain_password: bool,
}

/// Builds a [`Client`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `connect`"]
pub struct ClientBuilder(Result<Options, UriError>);

impl ClientBuilder {
    pub(crate) fn new(uri: &str) -> Self {
        Self(Target::parse(uri).map(|target| Options {
            target,
            name: String::new(),
            recovery: Recovery::default(),
            heartbeat: Duration::from_secs(15),
            connect_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(30),
            frame_bytes_max: FRAME_BYTES_DEFAULT as u32,
            plain_password: false,
        }))
    }

    /// What an operator is shown as the connection's name.
    pub fn name(self, name: impl Into<String>) -> Self {
        self.with(|options| options.name = name.into())
    }

    /// User and password, instead of those of the URL.
    pub fn credentials(self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.with(|options| {
            options.target.user = user.into();
            options.target.password = Secret::from(password.into());
        })
    }

    /// What happens when the connection is lost; by default it is made again.
    pub fn recovery(self, recovery: Recovery) -> Self {
        self.with(|options| options.recovery = recovery)
    }

    /// Each side sends something at least this often, and takes twice the time as a loss; zero is never. By
    /// default 15 s. The broker may ask for less.
    pub fn heartbeat(self, every: Duration) -> Self {
        self.with(|options| options.heartbeat = every)
    }

    /// How long one attempt to connect may take, up to the open connection. By default 10 s.
    pub fn connect_timeout(self, timeout: Duration) -> Self {
        self.with(|options| options.connect_timeout = timeout)
    }

    /// How long [`Client::close`] waits for confirms. By default 30 s.
    pub fn close_timeout(self, timeout: Duration) -> Self {
        self.with(|options| options.close_timeout = timeout)
    }

    /// The largest frame, which is a message with its names and properties, in bytes. By default a little over
    /// 16 MiB. The broker may allow less; below 8 KiB is not allowed.
    pub fn frame_bytes_max(self, bytes: u32) -> Self {
        self.with(|options| options.frame_bytes_max = bytes)
    }

    /// Sends the bare password if the broker takes nothing better, even over a network. By default it is sent
    /// only to this machine: whoever pretends to be the broker would get it.
    pub fn plain_password(self) -> Self {
        self.with(|options| options.plain_password = true)
    }

    /// Connects. This makes one attempt and gives its error; only a connection that was there is recovered.
    pub async fn connect(self) -> Result<Client, ConnectError> {
        let options = self.0?;
        let socket = handshake::connect(&options).await?;
        let shared = Arc::new(Shared::new(options));
        let client = Client(Arc::new(Handle { shared: shared.clone() }));
        let mut state = shared.state.subscribe();
        tokio::spawn(driver::drive(shared, socket));
        let ready = state.wait_for(|state| !matches!(state, ConnectionState::Connecting)).await;
        let lost = ready.ok().and_then(|state| state.loss().cloned());
        lost.map_or(Ok(client), |lost| Err(ConnectError::Lost(lost)))
    }

    fn with(mut self, change: impl FnOnce(&mut Options)) -> Self {
        if let Ok(options) = &mut self.0 {
            change(options);
        }
        self
    }
}
