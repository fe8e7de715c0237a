//! How a client's connection is doing.

use std::sync::Arc;

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

/// Whether the broker takes messages.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Publishing {
    /// It does, as far as is known: an older broker does not tell, and without a connection nobody does.
    Open,
    /// Not for now. Publishers wait; what had been sent before may have been refused.
    Paused {
        /// What the broker is short of, in a sentence.
        reason: Arc<str>,
    },
}

/// Watches whether the broker takes messages. Only the newest news is kept.
#[derive(Debug, Clone)]
pub struct PublishingWatch(pub(crate) watch::Receiver<Publishing>);

impl PublishingWatch {
    /// What was said last.
    pub fn current(&self) -> Publishing {
        self.0.borrow().clone()
    }

    /// Waits for news that this watch has not shown yet. `None` once the client is gone.
    pub async fn changed(&mut self) -> Option<Publishing> {
        self.0.changed().await.ok()?;
        Some(self.0.borrow_and_update().clone())
    }
}
