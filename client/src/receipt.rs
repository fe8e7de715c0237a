//! The publisher's side of a confirm.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;

use crate::connection::window::Window;
use crate::error::PublishError;

/// What the broker says about a message that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Confirmed {
    /// How many queues have it, counted up to 65,535. It is 0 only if the publisher is not mandatory.
    pub queues: u16,
}

/// A promise to say what became of a message.
///
/// Receipts may be awaited in any order and any number of them kept: the window counts messages that the broker
/// has not confirmed, not receipts. A receipt that is dropped changes nothing for its message.
#[must_use = "a message is known to be stored only once its receipt is confirmed"]
pub struct Receipt {
    window: Arc<Window>,
    /// `None` once the outcome is taken.
    slot: Option<usize>,
}

impl Receipt {
    pub(crate) fn new(window: Arc<Window>, slot: usize) -> Self {
        Self { window, slot: Some(slot) }
    }

    /// Waits for the broker's word. `Ok` means that every queue it was routed to has it; a persistent message in
    /// durable queues is on disk.
    pub async fn confirmed(mut self) -> Result<Confirmed, PublishError> {
        let outcome = poll_fn(|context| match self.slot {
            Some(slot) => self.window.poll_receipt(slot, context),
            None => std::task::Poll::Pending,
        })
        .await;
        self.slot = None;
        outcome
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receipt").finish_non_exhaustive()
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            self.window.abandon(slot);
        }
    }
}
