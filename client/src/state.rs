//! How a client's connection is doing.

use tokio::sync::watch;

use crate::error::ConnectionLost;

/// How a client's connection is doing.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ConnectionState {
    /// The first connection is being made.
    Connecting,
    /// Everything is there: definitions, publishers and consumers.
    Connected {
        /// The connection's number on the broker, as in the broker's log.
        connection: u64,
    },
    /// The connection was lost and the client tries to make another.
    Recovering {
        /// Why it was lost.
        cause: ConnectionLost,
        /// How many attempts have failed.
        attempt: u32,
    },
    /// The client is closed for good.
    Closed {
        /// Why, unless the application closed it.
        cause: Option<ConnectionLost>,
    },
}

impl ConnectionState {
    /// Why there is no connection, unless there is one or the application closed it.
    pub(crate) fn loss(&self) -> Option<&ConnectionLost> {
        match self {
            Self::Recovering { cause, .. } => Some(cause),
            Self::Closed { cause } => cause.as_ref(),
            Self::Connecting | Self::Connected { .. } => None,
        }
    }
}

/// Watches the state of a client. Only the newest state is kept: a slow watcher misses those in between, and
/// holds nobody up.
#[derive(Debug, Clone)]
pub struct StateWatch(pub(crate) watch::Receiver<ConnectionState>);

impl StateWatch {
    /// The present state.
    pub fn current(&self) -> ConnectionState {
        self.0.borrow().clone()
    }

    /// Waits for a state that this watch has not shown yet. `None` once the client is gone.
    pub async fn changed(&mut self) -> Option<ConnectionState> {
        self.0.changed().await.ok()?;
        Some(self.0.borrow_and_update().clone())
    }
}
