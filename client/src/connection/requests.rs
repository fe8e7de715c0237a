//! Requests that wait for the broker's answer.

use leveret_protocol::{Done, Failed};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};

use super::gets::Awaited;
use crate::error::{Refusal, RequestFailure};

/// How many requests of the application may wait for their answers; further ones wait for their turn.
const REQUESTS_MAX: usize = 1024;

pub(crate) type Answer = oneshot::Sender<Result<Done, RequestFailure>>;

/// Who waits for an answer.
#[derive(Debug)]
pub(crate) enum Waiting {
    Answer(Answer),
    Get(Awaited),
    /// Nobody waits, but the channel's number is free when the answer comes.
    Close(u16),
}

#[derive(Debug)]
pub(crate) struct Requests {
    table: Mutex<Table>,
    permits: Semaphore,
}

#[derive(Debug, Default)]
struct Table {
    next: u32,
    waiting: FxHashMap<u32, Waiting>,
}

impl Requests {
    pub(crate) fn new() -> Self {
        Self { table: Mutex::default(), permits: Semaphore::new(REQUESTS_MAX) }
    }

    /// Waits for its turn.
    pub(crate) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.permits.acquire().await.ok()
    }

    /// Gives a request its number.
    pub(crate) fn add(&self, waiting: Waiting) -> u32 {
        let mut guard = self.table.lock();
        let table = &mut *guard;
        // Numbers wrap around after four billion requests; one that still waits by then keeps its own.
        while table.waiting.contains_key(&table.next) {
            table.next = table.next.wrapping_add(1);
        }
        let request = table.next;
        table.next = request.wrapping_add(1);
        table.waiting.insert(request, waiting);
        request
    }

    /// Takes the one that waits, since its answer is here or it could not be sent.
    pub(crate) fn take(&self, request: u32) -> Option<Waiting> {
        self.table.lock().waiting.remove(&request)
    }

    /// The connection is gone, and the answers will not come.
    pub(crate) fn fail_all(&self, failure: &RequestFailure) {
        let waiting = std::mem::take(&mut self.table.lock().waiting);
        for waiting in waiting.into_values() {
            waiting.fail(failure.clone());
        }
    }
}

impl Waiting {
    /// A caller that went away has nothing to be told.
    pub(crate) fn fail(self, failure: RequestFailure) {
        match self {
            Self::Answer(answer) => drop(answer.send(Err(failure))),
            Self::Get(awaited) => drop(awaited.answer.send(Err(failure))),
            Self::Close(_) => {}
        }
    }
}

impl From<Failed> for Refusal {
    fn from(failed: Failed) -> Self {
        Self { operation: failed.operation, code: failed.code, text: failed.text }
    }
}
