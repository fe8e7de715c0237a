//! The driver's side of a consumer: what came for it and has not been taken.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use leveret_protocol::{Consume, Control, DataError, Deliver, Frame, Keys};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::error::{ConsumeError, ProtocolError};
use crate::topology::SharedName;

/// Every consumer has a channel of its own, and this number on it.
pub(crate) const CONSUMER: u32 = 1;

/// Payloads up to this size are copied, so that a message that is kept does not keep the whole read buffer.
const COPY_BYTES_MAX: usize = 16 * 1024;

/// How a consumer consumes; fixed when it is opened.
#[derive(Debug, Clone)]
pub(crate) struct ConsumeOptions {
    pub(crate) queue: SharedName,
    pub(crate) tag: String,
    pub(crate) no_ack: bool,
    pub(crate) exclusive: bool,
    pub(crate) prefetch_max: u32,
    pub(crate) priority: i32,
}

/// A consumer as the driver sees it.
#[derive(Debug)]
pub(crate) struct Subscription {
    /// The channel's number, the same on every connection.
    pub(crate) channel: u16,
    pub(crate) options: ConsumeOptions,
    inbox: Mutex<Inbox>,
    /// Rung when the consumer has started or ended.
    started: Notify,
}

#[derive(Debug, Default)]
struct Inbox {
    /// Which life of the consumer it is in: each start makes the deliveries of the one before stale. 0 is none.
    incarnation: u64,
    deliveries: VecDeque<RawDelivery>,
    /// Without acknowledgements: how many were taken that the broker was not granted anew.
    taken: u32,
    waker: Option<Waker>,
    phase: Phase,
    has_run: bool,
}

#[derive(Debug, Default)]
enum Phase {
    /// Being started, for the first time or again.
    #[default]
    Starting,
    Running,
    /// It ended, and the application has not been told why.
    Ending(ConsumeError),
    /// There is nothing more to come or to say.
    Ended,
}

impl Subscription {
    pub(crate) fn new(channel: u16, options: ConsumeOptions) -> Self {
        Self { channel, options, inbox: Mutex::default(), started: Notify::new() }
    }

    /// What settles of this consumer are addressed to.
    pub(crate) fn address(&self) -> (u16, u32) {
        (self.channel, CONSUMER)
    }

    pub(crate) fn frame(&self, request: u32) -> Control {
        // Only without acknowledgements is anything kept over a loss; those count as room that is taken.
        let kept = self.inbox.lock().deliveries.len() as u32;
        let ConsumeOptions { queue, tag, no_ack, exclusive, prefetch_max, priority } = &self.options;
        Consume {
            request,
            queue: queue.lock().clone(),
            consumer: CONSUMER,
            tag: tag.clone(),
            no_ack: *no_ack,
            exclusive: *exclusive,
            prefetch: prefetch_max.saturating_sub(kept).max(1),
            priority: *priority,
        }
        .into()
    }

    /// A new life begins: the deliveries of the old one are void, since the broker has them back. Without
    /// acknowledgements it has not, and they are kept.
    pub(crate) fn begin(&self, incarnation: u64) {
        let mut inbox = self.inbox.lock();
        if !self.options.no_ack {
            inbox.deliveries.clear();
        }
        inbox.incarnation = incarnation;
        inbox.taken = 0;
    }

    /// The broker said yes.
    pub(crate) fn running(&self) {
        {
            let mut inbox = self.inbox.lock();
            if matches!(inbox.phase, Phase::Starting) {
                inbox.phase = Phase::Running;
                inbox.has_run = true;
            }
        }
        self.started.notify_waiters();
    }

    /// Whether the broker has said yes before, on this connection or an earlier one.
    pub(crate) fn has_run(&self) -> bool {
        self.inbox.lock().has_run
    }

    /// Its channel is gone, and will be opened again.
    pub(crate) fn interrupt(&self) {
        self.begin(0);
        let mut inbox = self.inbox.lock();
        if matches!(inbox.phase, Phase::Running) {
            inbox.phase = Phase::Starting;
        }
    }

    /// It is over: what came is still handed out, then the reason.
    pub(crate) fn end(&self, error: ConsumeError) {
        let waker = {
            let mut inbox = self.inbox.lock();
            if !matches!(inbox.phase, Phase::Ended) {
                inbox.phase = Phase::Ending(error);
            }
            inbox.waker.take()
        };
        waker.into_iter().for_each(Waker::wake);
        self.started.notify_waiters();
    }

    /// This side ends it. Gives what was not handed out, and whether the broker has the consumer.
    pub(crate) fn stop(&self) -> (VecDeque<RawDelivery>, bool) {
        let (waker, left, was_running) = {
            let mut inbox = self.inbox.lock();
            let before = std::mem::replace(&mut inbox.phase, Phase::Ended);
            let was_running = matches!(before, Phase::Running);
            (inbox.waker.take(), std::mem::take(&mut inbox.deliveries), was_running)
        };
        waker.into_iter().for_each(Waker::wake);
        self.started.notify_waiters();
        (left, was_running)
    }

    /// Whether the application has dropped or closed it, so that there is nothing to start again.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.inbox.lock().phase, Phase::Ending(_) | Phase::Ended)
    }

    /// Waits until the consumer runs; if it was refused, takes the reason.
    pub(crate) async fn wait_started(&self) -> Result<(), ConsumeError> {
        loop {
            let mut started = std::pin::pin!(self.started.notified());
            started.as_mut().enable();
            {
                let mut inbox = self.inbox.lock();
                match &inbox.phase {
                    Phase::Starting => {}
                    Phase::Running => return Ok(()),
                    Phase::Ended => return Err(ConsumeError::Closed),
                    Phase::Ending(error) => {
                        let error = error.clone();
                        inbox.phase = Phase::Ended;
                        return Err(error);
                    }
                }
            }
            started.await;
        }
    }

    /// Takes a batch in; gives who is to be woken. What comes for a consumer that is over stays in the batch.
    pub(crate) fn deliver(&self, batch: &mut Vec<RawDelivery>) -> Result<Option<Waker>, ProtocolError> {
        let mut guard = self.inbox.lock();
        let inbox = &mut *guard;
        for delivery in &mut *batch {
            delivery.incarnation = inbox.incarnation;
        }
        if matches!(inbox.phase, Phase::Ended) {
            return Ok(None);
        }
        // Twice, because a consumer without acknowledgements that kept as much over a loss is granted some more.
        let prefetch_max = self.options.prefetch_max;
        if inbox.deliveries.len() + batch.len() > 2 * prefetch_max as usize {
            return Err(ProtocolError::PrefetchExceeded { prefetch_max });
        }
        inbox.deliveries.extend(batch.drain(..));
        Ok(inbox.waker.take())
    }

    /// The next delivery, with how many more the broker is to be granted. `None` after the end.
    pub(crate) fn poll_next(&self, context: &Context<'_>) -> Poll<Option<Result<Taken, ConsumeError>>> {
        let mut guard = self.inbox.lock();
        let inbox = &mut *guard;
        if let Some(delivery) = inbox.deliveries.pop_front() {
            let grant = if self.options.no_ack { inbox.grant(self.options.prefetch_max) } else { 0 };
            return Poll::Ready(Some(Ok(Taken { delivery, grant })));
        }
        match std::mem::replace(&mut inbox.phase, Phase::Ended) {
            Phase::Ending(error) => Poll::Ready(Some(Err(error))),
            Phase::Ended => Poll::Ready(None),
            going_on => {
                inbox.phase = going_on;
                if !inbox.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                    inbox.waker = Some(context.waker().clone());
                }
                Poll::Pending
            }
        }
    }
}

impl Inbox {
    /// Half of the room at a time: a frame for each message would cost more than the message.
    fn grant(&mut self, prefetch_max: u32) -> u32 {
        self.taken += 1;
        if self.taken < prefetch_max.div_ceil(2) { 0 } else { std::mem::take(&mut self.taken) }
    }
}

/// A delivery that is handed out.
pub(crate) struct Taken {
    pub(crate) delivery: RawDelivery,
    /// Without acknowledgements: how many more messages the broker may send now.
    pub(crate) grant: u32,
}

/// A delivery that nobody holds yet: dropping it settles nothing.
#[derive(Debug)]
pub(crate) struct RawDelivery {
    flags: u8,
    payload: Bytes,
    body_at: usize,
    pub(crate) consumer: u32,
    pub(crate) tag: u64,
    pub(crate) incarnation: u64,
}

impl RawDelivery {
    pub(crate) fn read(frame: Frame) -> Result<Self, DataError> {
        let Frame { flags, payload, .. } = frame;
        let deliver = Deliver::decode(flags, &payload)?;
        let (consumer, tag) = (deliver.consumer, deliver.tag);
        let body_at = payload.len() - deliver.body.len();
        let payload =
            if payload.len() <= COPY_BYTES_MAX { Bytes::copy_from_slice(&payload) } else { payload };
        Ok(Self { flags, payload, body_at, consumer, tag, incarnation: 0 })
    }

    pub(crate) fn body(&self) -> &[u8] {
        self.payload.get(self.body_at..).unwrap_or_default()
    }

    pub(crate) fn body_bytes(&self) -> Bytes {
        self.payload.slice(self.body_at.min(self.payload.len())..)
    }

    /// All fields, read in place. [`RawDelivery::read`] has read them once, so they can be read again.
    pub(crate) fn fields(&self) -> Deliver<'_> {
        Deliver::decode(self.flags, &self.payload).unwrap_or(Deliver {
            consumer: self.consumer,
            tag: self.tag,
            redelivered: None,
            persistent: false,
            priority: None,
            ttl_ms: None,
            published_at_ms: 0,
            exchange: "",
            routing_key: "",
            cc: Keys::default(),
            deaths: &[],
            properties: &[],
            body: &[],
        })
    }
}
