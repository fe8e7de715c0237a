//! What a publisher has in flight: the messages that were sent and are not confirmed.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use leveret_protocol::{Confirm, ExchangeName, Outcome, PublishParts, Route, RoutingKey};
use parking_lot::Mutex;
use slab::Slab;
use tokio::sync::Notify;

use super::outbox::{Outbox, Rejected};
use crate::error::{Interruption, InvalidMessage, OpenError, PublishError};
use crate::message::{LastKey, Message};
use crate::receipt::Confirmed;

/// The bodies that one publisher may have in flight, in bytes, unless it is a single larger one. Messages are kept
/// until they are confirmed, so that they can be given back.
const IN_FLIGHT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// How a publisher sends; fixed when it is opened.
#[derive(Debug, Clone)]
pub(crate) struct WindowOptions {
    pub(crate) in_flight_max: usize,
    pub(crate) persistent: bool,
    /// Whether a message that no queue gets is an error.
    pub(crate) mandatory: bool,
    /// Whether the broker confirms. If not, nothing is in flight and nothing is kept.
    pub(crate) confirms: bool,
}

/// One publisher's messages in flight, shared by its handles, its receipts and the driver.
#[derive(Debug)]
pub(crate) struct Window {
    /// The channel's number, the same on every connection.
    pub(crate) channel: u16,
    pub(crate) options: WindowOptions,
    state: Mutex<State>,
    /// Rung once when there is room or the phase changes; whoever leaves the wait rings again for the next one.
    room: Notify,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// The number of the oldest message in `in_flight` on this channel.
    first: u64,
    /// By number, so that a confirm finds its message without a search. Confirmed ones leave from the front.
    in_flight: VecDeque<InFlight>,
    body_bytes: usize,
    receipts: Slab<Slot>,
    last_key: LastKey,
    /// The publisher is dropped: the channel closes when the last message is confirmed.
    retired: bool,
}

#[derive(Debug)]
enum Phase {
    /// The channel is being opened, for the first time or after a loss.
    Opening,
    Open,
    /// The channel could not be opened, or will not be opened again.
    Ended(Ended),
}

/// Why a publisher ended.
#[derive(Debug, Clone)]
pub(crate) enum Ended {
    Refused(crate::error::Refusal),
    Interrupted(Interruption),
}

#[derive(Debug)]
struct InFlight {
    /// `None` when it is confirmed and an older one is not.
    message: Option<Message>,
    routing_key: RoutingKey,
    receipt: usize,
}

#[derive(Debug)]
enum Slot {
    Waiting(Option<Waker>),
    Done(Result<Confirmed, PublishError>),
    /// The receipt was dropped.
    Abandoned,
}

/// What came of an attempt to send.
pub(crate) enum Attempt {
    /// It is on its way; the number is that of its receipt.
    Sent(usize),
    /// There is no room, or no connection: wait.
    Wait(Message),
    Failed(PublishError),
}

impl Window {
    pub(crate) fn new(channel: u16, options: WindowOptions) -> Self {
        let state = State {
            phase: Phase::Opening,
            first: 1,
            in_flight: VecDeque::new(),
            body_bytes: 0,
            receipts: Slab::new(),
            last_key: LastKey::default(),
            retired: false,
        };
        Self { channel, options, state: Mutex::new(state), room: Notify::new() }
    }

    /// Sends if that needs no waiting.
    pub(crate) fn attempt(
        &self,
        outbox: &Outbox,
        exchange: &ExchangeName,
        key: &str,
        message: Message,
    ) -> Attempt {
        let mut state = self.state.lock();
        match &state.phase {
            Phase::Open => {}
            Phase::Opening => return Attempt::Wait(message),
            Phase::Ended(ended) => return Attempt::Failed(ended.not_sent(message)),
        }
        let full = state.in_flight.len() >= self.options.in_flight_max
            || (state.body_bytes >= IN_FLIGHT_BYTES_MAX && !state.in_flight.is_empty());
        if full {
            return Attempt::Wait(message);
        }
        let routing_key = match self.append(&mut state, outbox, exchange, key, &message) {
            Ok(routing_key) => routing_key,
            Err(AppendError::Wait) => return Attempt::Wait(message),
            Err(AppendError::TooLarge { size, limit }) => {
                return Attempt::Failed(PublishError::TooLarge { size, limit, message: Box::new(message) });
            }
            Err(AppendError::Invalid(reason)) => {
                return Attempt::Failed(PublishError::Invalid { reason, message: Box::new(message) });
            }
        };
        if !self.options.confirms {
            // Nobody will say what became of it, so nothing is kept, and the receipt has nothing to wait for.
            return Attempt::Sent(state.receipts.insert(Slot::Done(Ok(Confirmed { queues: 0 }))));
        }
        let receipt = state.receipts.insert(Slot::Waiting(None));
        state.body_bytes += message.body().len();
        state.in_flight.push_back(InFlight { message: Some(message), routing_key, receipt });
        Attempt::Sent(receipt)
    }

    /// Appends under the window's lock, because a message's number is its place on the wire.
    fn append(
        &self,
        state: &mut State,
        outbox: &Outbox,
        exchange: &ExchangeName,
        key: &str,
        message: &Message,
    ) -> Result<RoutingKey, AppendError> {
        let routing_key = state.last_key.check(key)?;
        let encoded = message.encoded()?;
        let parts = PublishParts {
            route: Route::Named { exchange: exchange.as_str(), routing_key: key },
            // The confirm says as well that no queue got the message, and the message is still here: the broker
            // need not send it back.
            mandatory: false,
            persistent: encoded.persistent.unwrap_or(self.options.persistent),
            priority: encoded.priority,
            ttl_ms: encoded.ttl_ms,
            cc: &encoded.cc,
            bcc: &encoded.bcc,
            properties: &encoded.properties,
            body: encoded.body,
        };
        match outbox.publish(self.channel, &parts) {
            Ok(()) => Ok(routing_key),
            Err(Rejected::Full | Rejected::Paused | Rejected::Offline) => Err(AppendError::Wait),
            Err(Rejected::TooLarge { size, limit }) => Err(AppendError::TooLarge { size, limit }),
        }
    }

    /// Sends, as soon as there is room and a connection.
    pub(crate) async fn send(
        &self,
        outbox: &Outbox,
        exchange: &ExchangeName,
        key: &str,
        message: Message,
    ) -> Result<usize, PublishError> {
        let mut message = match self.attempt(outbox, exchange, key, message) {
            Attempt::Sent(receipt) => return Ok(receipt),
            Attempt::Failed(error) => return Err(error),
            Attempt::Wait(message) => message,
        };
        // One waiter is woken at a time, and wakes the next when it leaves, for whatever reason it leaves.
        let _baton = Baton(&self.room);
        loop {
            // Registered before the attempt, so that room made between the two is not missed.
            let window_room = std::pin::pin!(self.room.notified());
            let mut outbox_room = std::pin::pin!(outbox.room.notified());
            outbox_room.as_mut().enable();
            message = match self.attempt(outbox, exchange, key, message) {
                Attempt::Sent(receipt) => return Ok(receipt),
                Attempt::Failed(error) => return Err(error),
                Attempt::Wait(message) => message,
            };
            tokio::select! {
                () = window_room => {}
                () = outbox_room => {}
            }
        }
    }

    /// Waits until the channel is open.
    pub(crate) async fn opened(&self) -> Result<(), OpenError> {
        self.until(|state| match &state.phase {
            Phase::Opening => None,
            Phase::Open => Some(Ok(())),
            Phase::Ended(ended) => Some(Err(ended.open_error())),
        })
        .await
    }

    /// Waits until nothing is in flight.
    pub(crate) async fn idle(&self) {
        self.until(|state| state.in_flight.is_empty().then_some(())).await;
    }

    async fn until<R>(&self, check: impl Fn(&State) -> Option<R>) -> R {
        let _baton = Baton(&self.room);
        loop {
            let room = self.room.notified();
            let checked = check(&self.state.lock());
            if let Some(result) = checked {
                return result;
            }
            room.await;
        }
    }

    /// The channel is open, and its publishes are numbered from 1.
    pub(crate) fn open(&self) {
        {
            let mut state = self.state.lock();
            state.phase = Phase::Open;
            state.first = 1;
        }
        self.room.notify_one();
    }

    /// The channel is gone, and will be opened again: what is in flight has no known outcome.
    pub(crate) fn interrupt(&self, cause: &Interruption) {
        self.stop(Phase::Opening, cause);
    }

    /// The channel is gone for good.
    pub(crate) fn end(&self, ended: Ended) {
        let cause = match &ended {
            Ended::Refused(refusal) => Interruption::Channel(refusal.clone()),
            Ended::Interrupted(cause) => cause.clone(),
        };
        self.stop(Phase::Ended(ended), &cause);
    }

    fn stop(&self, phase: Phase, cause: &Interruption) {
        let mut wakers = Vec::new();
        {
            let mut guard = self.state.lock();
            let state = &mut *guard;
            state.phase = phase;
            state.body_bytes = 0;
            for in_flight in state.in_flight.drain(..) {
                let Some(message) = in_flight.message else { continue };
                let unknown =
                    PublishError::OutcomeUnknown { message: Box::new(message), cause: cause.clone() };
                wakers.extend(finish(&mut state.receipts, in_flight.receipt, Err(unknown)));
            }
        }
        wakers.into_iter().for_each(Waker::wake);
        self.room.notify_one();
    }

    /// Takes a confirm. Numbers that are not in flight are passed over: their messages have an outcome already.
    /// Returns whether the channel may now be closed.
    pub(crate) fn confirm(&self, confirm: Confirm, wakers: &mut Vec<Waker>) -> bool {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let end = confirm.first.saturating_add(u64::from(confirm.count));
        let from = confirm.first.saturating_sub(state.first).min(state.in_flight.len() as u64) as usize;
        let to = end.saturating_sub(state.first).min(state.in_flight.len() as u64) as usize;
        for in_flight in state.in_flight.range_mut(from..to.max(from)) {
            let Some(message) = in_flight.message.take() else { continue };
            state.body_bytes = state.body_bytes.saturating_sub(message.body().len());
            let outcome = self.outcome(confirm.outcome, in_flight, message);
            wakers.extend(finish(&mut state.receipts, in_flight.receipt, outcome));
        }
        while state.in_flight.front().is_some_and(|oldest| oldest.message.is_none()) {
            state.in_flight.pop_front();
            state.first += 1;
        }
        let close = state.retired && state.in_flight.is_empty();
        drop(guard);
        self.room.notify_one();
        close
    }

    fn outcome(
        &self,
        outcome: Outcome,
        in_flight: &InFlight,
        message: Message,
    ) -> Result<Confirmed, PublishError> {
        match outcome {
            Outcome::Routed(queues) => Ok(Confirmed { queues }),
            Outcome::Unroutable if self.options.mandatory => Err(PublishError::Unroutable {
                routing_key: in_flight.routing_key.as_str().to_owned(),
                message: Box::new(message),
            }),
            Outcome::Unroutable => Ok(Confirmed { queues: 0 }),
            Outcome::Refused(code) => Err(PublishError::Refused { code, message: Box::new(message) }),
        }
    }

    /// The outcome that a receipt waits for.
    pub(crate) fn poll_receipt(
        &self,
        receipt: usize,
        context: &Context<'_>,
    ) -> Poll<Result<Confirmed, PublishError>> {
        let mut state = self.state.lock();
        match state.receipts.get_mut(receipt) {
            Some(Slot::Waiting(waker)) => {
                if !waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                    *waker = Some(context.waker().clone());
                }
                return Poll::Pending;
            }
            Some(Slot::Done(_)) => {}
            // A receipt is polled only until it is done, so its slot is there.
            Some(Slot::Abandoned) | None => return Poll::Pending,
        }
        match state.receipts.remove(receipt) {
            Slot::Done(outcome) => Poll::Ready(outcome),
            Slot::Waiting(_) | Slot::Abandoned => Poll::Pending,
        }
    }

    /// Nobody waits for this outcome any more.
    pub(crate) fn abandon(&self, receipt: usize) {
        let mut state = self.state.lock();
        match state.receipts.get_mut(receipt) {
            Some(slot @ Slot::Waiting(_)) => *slot = Slot::Abandoned,
            Some(Slot::Done(_)) => drop(state.receipts.remove(receipt)),
            Some(Slot::Abandoned) | None => {}
        }
    }

    /// The publisher is dropped. Returns whether its channel may be closed at once, because nothing is in flight.
    pub(crate) fn retire(&self) -> bool {
        let mut state = self.state.lock();
        state.retired = true;
        state.in_flight.is_empty()
    }

    /// Whether the publisher is dropped and nothing is in flight, so that there is nothing to open again.
    pub(crate) fn is_over(&self) -> bool {
        let state = self.state.lock();
        state.retired && state.in_flight.is_empty()
    }
}

/// Puts an outcome where the receipt finds it; gives who is to be woken.
fn finish(
    receipts: &mut Slab<Slot>,
    receipt: usize,
    outcome: Result<Confirmed, PublishError>,
) -> Option<Waker> {
    match receipts.get_mut(receipt) {
        Some(slot @ Slot::Waiting(_)) => match std::mem::replace(slot, Slot::Done(outcome)) {
            Slot::Waiting(waker) => waker,
            Slot::Done(_) | Slot::Abandoned => None,
        },
        Some(Slot::Abandoned) => {
            receipts.remove(receipt);
            None
        }
        Some(Slot::Done(_)) | None => None,
    }
}

impl Ended {
    fn not_sent(&self, message: Message) -> PublishError {
        let cause = match self {
            Self::Refused(refusal) => Interruption::Channel(refusal.clone()),
            Self::Interrupted(cause) => cause.clone(),
        };
        PublishError::NotSent { message: Box::new(message), cause }
    }

    fn open_error(&self) -> OpenError {
        match self {
            Self::Refused(refusal) | Self::Interrupted(Interruption::Channel(refusal)) => {
                OpenError::Refused(refusal.clone())
            }
            Self::Interrupted(Interruption::Connection(lost)) => OpenError::ConnectionLost(lost.clone()),
            Self::Interrupted(Interruption::Closed) => OpenError::Closed,
        }
    }
}

enum AppendError {
    Wait,
    TooLarge { size: usize, limit: usize },
    Invalid(InvalidMessage),
}

impl<E: Into<InvalidMessage>> From<E> for AppendError {
    fn from(error: E) -> Self {
        Self::Invalid(error.into())
    }
}

/// Wakes the next waiter when this one leaves, even if it is cancelled: otherwise the wake-up would go with it.
struct Baton<'a>(&'a Notify);

impl Drop for Baton<'_> {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}
