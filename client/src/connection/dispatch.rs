//! What the broker sends, to whom it belongs.

use std::sync::Arc;
use std::task::Waker;

use leveret_protocol::{
    ChannelClosed, Close, Closed, Closes, Confirm, ConsumerCancelled, Control, Done, Failed, Frame, Settle,
    Verb, kind,
};

use super::Shared;
use super::channels::{CONTROL, Owner};
use super::gets::Awaited;
use super::requests::Waiting;
use super::subscription::{CONSUMER, RawDelivery, Subscription};
use super::window::{Ended, Window};
use crate::error::{ConnectionLost, ConsumeError, Interruption, ProtocolError, Refusal, RequestFailure};
use crate::state::Publishing;

/// Whether the connection goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    GoesOn,
    /// The broker has said goodbye.
    Closed,
}

/// Sorts the frames of one connection. Deliveries are handed over, and sleepers woken, once for each batch of
/// frames that was read; nothing here waits for the application.
pub(crate) struct Dispatcher {
    shared: Arc<Shared>,
    /// Whose channel the last frame was on: frames of one channel come in runs.
    last: Option<(u16, Owner)>,
    deliveries: Vec<RawDelivery>,
    wakers: Vec<Waker>,
    /// A get was answered with "found", so that its message comes next.
    awaited: Option<Awaited>,
}

impl Dispatcher {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, last: None, deliveries: Vec::new(), wakers: Vec::new(), awaited: None }
    }

    /// Takes one frame.
    pub(crate) fn frame(&mut self, frame: Frame) -> Result<Flow, ConnectionLost> {
        match frame.kind {
            kind::DELIVER => self.deliver(frame)?,
            kind::CONFIRM => self.confirm(&frame)?,
            kind::SETTLED => {
                let settle = Settle::decode(frame.flags, &frame.payload).map_err(ProtocolError::from)?;
                self.shared.outbox.settled((frame.channel, settle.consumer), settle.ranges);
            }
            // The messages of a confirmed publisher are still here, and come back with their confirms.
            kind::HEARTBEAT | kind::RETURN => {}
            _ => {
                // What was said about deliveries before must not overtake them.
                self.hand_over()?;
                let control = Control::decode(frame.kind, &frame.payload).map_err(ProtocolError::from)?;
                return self.control(frame.channel, control);
            }
        }
        Ok(Flow::GoesOn)
    }

    /// The frames that were read are all taken: hands deliveries over and wakes who waits.
    pub(crate) fn end_batch(&mut self) -> Result<(), ConnectionLost> {
        let handed_over = self.hand_over();
        self.last = None;
        // Whatever became of it: a waker that was taken and not woken is a caller that sleeps for ever.
        self.wakers.drain(..).for_each(Waker::wake);
        handed_over
    }

    fn deliver(&mut self, frame: Frame) -> Result<(), ConnectionLost> {
        let channel = frame.channel;
        let delivery = RawDelivery::read(frame).map_err(ProtocolError::from)?;
        if channel == CONTROL {
            return match self.awaited.take() {
                Some(awaited) if awaited.consumer() == delivery.consumer => {
                    awaited.deliver(delivery);
                    Ok(())
                }
                _ => Err(unexpected("Deliver", "a message only after a get")),
            };
        }
        let same = self.last.as_ref().is_some_and(|(last, _)| *last == channel);
        if !same {
            self.hand_over()?;
            self.last = self.shared.channels.owner(channel).map(|owner| (channel, owner));
        }
        match &self.last {
            Some((_, Owner::Consumer(_))) if delivery.consumer == CONSUMER => {
                self.deliveries.push(delivery);
                Ok(())
            }
            Some(_) => Err(unexpected("Deliver", "a message for a consumer of this channel")),
            // The channel is being closed, and the broker does not know yet.
            None => Ok(()),
        }
    }

    fn hand_over(&mut self) -> Result<(), ConnectionLost> {
        if self.deliveries.is_empty() {
            return Ok(());
        }
        if let Some((_, Owner::Consumer(subscription))) = &self.last {
            let waker = subscription.deliver(&mut self.deliveries)?;
            self.wakers.extend(waker);
            // What is left came for a consumer that was dropped.
            release(&self.shared, subscription, self.deliveries.drain(..));
        }
        self.deliveries.clear();
        Ok(())
    }

    fn confirm(&mut self, frame: &Frame) -> Result<(), ConnectionLost> {
        let confirms = Confirm::decode(&frame.payload).map_err(ProtocolError::from)?;
        let Some(Owner::Publisher(window)) = self.shared.channels.owner(frame.channel) else { return Ok(()) };
        let mut over = false;
        for confirm in confirms {
            over = window.confirm(confirm, &mut self.wakers);
        }
        if over {
            self.shared.close_channel(frame.channel);
        }
        Ok(())
    }

    fn control(&mut self, channel: u16, control: Control) -> Result<Flow, ConnectionLost> {
        match control {
            Control::Done(done) => self.done(done),
            Control::Failed(failed) => self.failed(channel, failed)?,
            Control::ChannelClosed(closed) => self.channel_closed(channel, closed)?,
            Control::ConsumerCancelled(cancelled) => self.consumer_cancelled(channel, cancelled),
            Control::Close(Close { code, text }) => {
                // The driver writes what is in the outbox once more before it hangs up; if even the answer does
                // not fit, the broker sees the socket close, which is all that it waits for.
                let _ = self.shared.outbox.control(0, &Closed {}.into());
                let refusal = Refusal { operation: "Close".to_owned(), code, text };
                return Err(ConnectionLost::Ended(refusal));
            }
            Control::PublishingPaused(paused) => {
                self.shared.publishing_is(Publishing::Paused { reason: paused.reason.into() });
            }
            Control::PublishingResumed(_) => self.shared.publishing_is(Publishing::Open),
            Control::Closed(Closed {}) => return Ok(Flow::Closed),
            other => {
                return Err(unexpected(other.name(), "a frame that a broker sends on an open connection"));
            }
        }
        Ok(Flow::GoesOn)
    }

    fn done(&mut self, done: Done) {
        match self.shared.requests.take(done.request) {
            Some(Waiting::Answer(answer)) => drop(answer.send(Ok(done))),
            Some(Waiting::Get(awaited)) if done.found == Some(true) => self.awaited = Some(awaited),
            Some(Waiting::Get(awaited)) => drop(awaited.answer.send(Ok(None))),
            Some(Waiting::Close(channel)) => self.shared.channels.free(channel),
            None => {}
        }
    }

    fn failed(&mut self, channel: u16, failed: Failed) -> Result<(), ConnectionLost> {
        let closes = failed.closes;
        let waiting = self.shared.requests.take(failed.request);
        let refusal = Refusal::from(failed);
        match closes {
            Closes::Connection => return Err(ConnectionLost::Ended(refusal)),
            Closes::Channel if channel == CONTROL => return Err(ConnectionLost::Ended(refusal)),
            Closes::Channel => self.shared.channels.not_open(channel),
            Closes::Nothing => {}
        }
        match waiting {
            // A channel that cannot be closed is not open.
            Some(Waiting::Close(channel)) => self.shared.channels.free(channel),
            Some(waiting) => waiting.fail(RequestFailure::Refused(refusal)),
            None => {}
        }
        Ok(())
    }

    fn channel_closed(&mut self, channel: u16, closed: ChannelClosed) -> Result<(), ConnectionLost> {
        let ChannelClosed { code, text, operation } = closed;
        let refusal = Refusal { operation, code, text };
        if channel == CONTROL {
            // Definitions, gets and their settles are on it: a new connection puts all of that in order.
            return Err(ConnectionLost::Ended(refusal));
        }
        self.shared.channels.not_open(channel);
        self.last = None;
        match self.shared.channels.owner(channel) {
            Some(Owner::Publisher(window)) => self.publisher_closed(&window, refusal),
            Some(Owner::Consumer(subscription)) => self.consumer_closed(&subscription, refusal),
            None => {}
        }
        Ok(())
    }

    /// A publisher is opened again, because each of its messages is a new attempt of the application. One without
    /// confirms is so only if the reason passes: its end is all that the application gets to see.
    fn publisher_closed(&self, window: &Window, refusal: Refusal) {
        let passes = window.options.confirms || refusal.is_retryable();
        if passes && self.shared.options.recovery.is_on() && !self.shared.is_closing() {
            window.interrupt(&Interruption::Channel(refusal));
            self.shared.open_later(window.channel);
        } else {
            window.end(Ended::Refused(refusal));
        }
    }

    /// A consumer is started again only if the reason passes; else it would be closed in a circle for ever.
    fn consumer_closed(&self, subscription: &Subscription, refusal: Refusal) {
        let cause = Interruption::Channel(refusal.clone());
        self.shared.outbox.unsubscribe(subscription.address(), &cause);
        if self.shared.options.recovery.is_on() && refusal.is_retryable() && !self.shared.is_closing() {
            subscription.interrupt();
            self.shared.open_later(subscription.channel);
        } else {
            subscription.begin(0);
            subscription.end(ConsumeError::ChannelClosed(refusal));
        }
    }

    fn consumer_cancelled(&self, channel: u16, cancelled: ConsumerCancelled) {
        let ConsumerCancelled { code, text, .. } = cancelled;
        if let Some(Owner::Consumer(subscription)) = self.shared.channels.owner(channel) {
            let refusal = Refusal { operation: "ConsumerCancelled".to_owned(), code, text };
            subscription.end(ConsumeError::Cancelled(refusal));
        }
    }
}

/// Gives back what nobody was handed: the messages were not begun, so that nothing counts as failed.
pub(crate) fn release(
    shared: &Shared,
    subscription: &Subscription,
    deliveries: impl Iterator<Item = RawDelivery>,
) {
    if subscription.options.no_ack {
        return;
    }
    for delivery in deliveries {
        shared.outbox.settle(subscription.address(), delivery.incarnation, delivery.tag, Verb::Release);
    }
}

fn unexpected(frame: &str, expected: &'static str) -> ConnectionLost {
    ConnectionLost::Protocol(ProtocolError::Unexpected { frame: frame.to_owned(), expected })
}
