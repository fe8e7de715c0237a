//! One connection at a time, and all that outlives it.
//!
//! [`driver`] owns the socket; everybody else meets it here, in [`Shared`].

pub(crate) mod channels;
pub(crate) mod dispatch;
pub(crate) mod driver;
mod gets;
pub(crate) mod handshake;
pub(crate) mod outbox;
mod requests;
mod settles;
pub(crate) mod subscription;
pub(crate) mod window;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use leveret_protocol::{CloseChannel, Control, Done, OpenChannel, Opened, QueueName};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot, watch};

use self::channels::{Channels, NoChannelLeft, Owner};
use self::gets::Gets;
use self::outbox::Outbox;
use self::requests::{Requests, Waiting};
use self::subscription::CONSUMER;
use self::window::Ended;
use crate::builder::Options;
use crate::delivery::Delivery;
use crate::error::{
    ConnectionLost, ConsumeError, ControlFailure, Interruption, OpenError, Refusal, RequestFailure,
};
use crate::publisher::Publisher;
use crate::request::Replies;
use crate::state::{ConnectionState, Publishing};
use crate::topology::Topology;

/// What the handles of a client, its driver and its recovery share.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) outbox: Outbox,
    pub(crate) channels: Channels,
    pub(crate) requests: Requests,
    pub(crate) topology: Mutex<Topology>,
    pub(crate) gets: Gets,
    pub(crate) state: watch::Sender<ConnectionState>,
    pub(crate) publishing: watch::Sender<Publishing>,
    /// The publisher of requests and replies, made when it is first needed.
    pub(crate) direct: Mutex<Option<Publisher>>,
    /// The queue for replies, made when it is first needed.
    pub(crate) replies: Mutex<Option<Replies>>,
    /// Channels that recovery is to open.
    to_open: Mutex<Vec<u16>>,
    to_open_changed: Notify,
    incarnations: AtomicU64,
    /// Nothing new is taken from the application any more.
    closing: AtomicBool,
    /// Rung to make the driver say goodbye.
    pub(crate) hang_up: Notify,
}

impl Shared {
    pub(crate) fn new(options: Options) -> Self {
        Self {
            options,
            outbox: Outbox::new(),
            channels: Channels::default(),
            requests: Requests::new(),
            topology: Mutex::default(),
            gets: Gets::default(),
            state: watch::Sender::new(ConnectionState::Connecting),
            publishing: watch::Sender::new(Publishing::Open),
            direct: Mutex::default(),
            replies: Mutex::default(),
            to_open: Mutex::default(),
            to_open_changed: Notify::new(),
            incarnations: AtomicU64::new(0),
            closing: AtomicBool::new(false),
            hang_up: Notify::new(),
        }
    }

    /// Waits until requests can be made.
    pub(crate) async fn ready(&self) -> Result<(), RequestFailure> {
        if self.is_closing() {
            return Err(RequestFailure::Closed);
        }
        let mut state = self.state.subscribe();
        let settled = state.wait_for(|state| {
            matches!(state, ConnectionState::Connected { .. } | ConnectionState::Closed { .. })
        });
        match settled.await.as_deref() {
            Ok(ConnectionState::Connected { .. }) => Ok(()),
            Ok(closed) => Err(closed.loss().cloned().map_or(RequestFailure::Closed, RequestFailure::Lost)),
            Err(_) => Err(RequestFailure::Closed),
        }
    }

    /// Asks the broker for something, as soon as there is a connection and a turn.
    pub(crate) async fn ask(
        &self,
        channel: u16,
        frame: impl FnOnce(u32) -> Control,
    ) -> Result<Done, RequestFailure> {
        self.ready().await?;
        let _turn = self.requests.turn().await;
        self.ask_now(channel, frame).await
    }

    /// Asks at once; for recovery, which others wait for.
    pub(crate) async fn ask_now(
        &self,
        channel: u16,
        frame: impl FnOnce(u32) -> Control,
    ) -> Result<Done, RequestFailure> {
        self.answer(self.begin(channel, frame)).await
    }

    /// Asks, and leaves the answer for later.
    pub(crate) fn begin(
        &self,
        channel: u16,
        frame: impl FnOnce(u32) -> Control,
    ) -> oneshot::Receiver<Result<Done, RequestFailure>> {
        let (sender, receiver) = oneshot::channel();
        let request = self.requests.add(Waiting::Answer(sender));
        self.submit(channel, request, &frame(request));
        receiver
    }

    /// The answer to a request that was begun.
    pub(crate) async fn answer<T>(
        &self,
        answer: oneshot::Receiver<Result<T, RequestFailure>>,
    ) -> Result<T, RequestFailure> {
        answer.await.unwrap_or(Err(RequestFailure::Closed))
    }

    /// Sends a request that was given its number, or fails it.
    pub(crate) fn submit(&self, channel: u16, request: u32, control: &Control) {
        let Err(failure) = self.outbox.control(channel, control) else { return };
        let failure = match failure {
            ControlFailure::Offline => self.offline(),
            ControlFailure::TooLarge { size, limit } => RequestFailure::TooLarge { size, limit },
            ControlFailure::Unencodable(error) => RequestFailure::Unencodable(error),
        };
        if let Some(waiting) = self.requests.take(request) {
            waiting.fail(failure);
        }
    }

    /// Takes one message off a queue, if there is one.
    pub(crate) async fn get(
        self: &Arc<Self>,
        queue: QueueName,
        no_ack: bool,
    ) -> Result<Option<Delivery>, RequestFailure> {
        self.ready().await?;
        let _turn = self.requests.turn().await;
        let answer = self.gets.begin(self, queue, no_ack);
        self.answer(answer).await
    }

    /// Gives a publisher or a consumer a channel, and asks recovery to open it.
    pub(crate) fn take_channel(&self, owner: impl FnOnce(u16) -> Owner) -> Result<u16, NoChannelLeft> {
        let channel = self.channels.take(owner)?;
        self.open_later(channel);
        Ok(channel)
    }

    /// Asks recovery to open a channel.
    pub(crate) fn open_later(&self, channel: u16) {
        self.to_open.lock().push(channel);
        self.to_open_changed.notify_one();
    }

    /// Waits for channels that are to be opened.
    pub(crate) async fn channels_to_open(&self) -> Vec<u16> {
        loop {
            let channels = std::mem::take(&mut *self.to_open.lock());
            if !channels.is_empty() {
                return channels;
            }
            self.to_open_changed.notified().await;
        }
    }

    /// Opens a channel on the present connection, if it is not open. False if it has no owner any more.
    pub(crate) async fn open_channel(&self, channel: u16, confirms: bool) -> Result<bool, RequestFailure> {
        let mut answer = None;
        let open = || answer = Some(self.begin(channel, |request| OpenChannel { request, confirms }.into()));
        if !self.channels.open(channel, open) {
            return Ok(false);
        }
        if let Some(answer) = answer
            && let Err(failure) = self.answer(answer).await
        {
            self.channels.not_open(channel);
            return Err(failure);
        }
        Ok(true)
    }

    /// Closes the channel of a publisher or a consumer that is gone; nobody waits for that.
    pub(crate) fn close_channel(&self, channel: u16) {
        self.channels.close(channel, || {
            let request = self.requests.add(Waiting::Close(channel));
            let sent = self.outbox.control(channel, &CloseChannel { request }.into()).is_ok();
            if !sent {
                self.requests.take(request);
            }
            sent
        });
        self.outbox.unsubscribe((channel, CONSUMER), &Interruption::Closed);
    }

    pub(crate) fn next_incarnation(&self) -> u64 {
        // Only uniqueness matters.
        self.incarnations.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Takes nothing new from now on.
    pub(crate) fn begin_closing(&self) {
        self.closing.store(true, Ordering::Release);
    }

    pub(crate) fn retry_delay(&self, attempt: u32) -> Duration {
        // Without randomness the delays are merely less spread.
        self.options.recovery.delay(attempt, getrandom::u32().unwrap_or_default())
    }

    /// A new connection is there; nothing is open on it.
    pub(crate) fn online(&self, opened: &Opened) {
        for owner in self.channels.connected(opened.channels_max) {
            let text = format!("the broker now grants {} channels, and this is beyond", opened.channels_max);
            let refusal = Refusal {
                operation: "OpenChannel".to_owned(),
                code: leveret_protocol::ReplyCode::ResourceError,
                text,
            };
            end(&owner, &Ended::Refused(refusal));
        }
        // Everybody is opened anew in the order of the channels.
        self.to_open.lock().clear();
        self.outbox.go_online(opened.frame_bytes_max as usize);
    }

    /// Everything is back.
    pub(crate) fn connected(&self, connection: u64) {
        self.state.send_replace(ConnectionState::Connected { connection });
    }

    /// The connection is lost and another will follow.
    pub(crate) fn interrupted(&self, lost: &ConnectionLost) {
        self.state.send_replace(ConnectionState::Recovering { cause: lost.clone(), attempt: 0 });
        let cause = Interruption::Connection(lost.clone());
        self.disconnect(&cause, &RequestFailure::Lost(lost.clone()));
        for owner in self.channels.owners() {
            match owner {
                Owner::Publisher(window) => window.interrupt(&cause),
                Owner::Consumer(subscription) => subscription.interrupt(),
            }
        }
    }

    /// The client is at its end, in good order if there is no cause.
    pub(crate) fn finished(&self, lost: Option<ConnectionLost>) {
        let cause = lost.clone().map_or(Interruption::Closed, Interruption::Connection);
        let failure = lost.clone().map_or(RequestFailure::Closed, RequestFailure::Lost);
        // The reason first: who is refused because the client is closing looks for it.
        self.state.send_replace(ConnectionState::Closed { cause: lost });
        self.begin_closing();
        self.disconnect(&cause, &failure);
        for owner in self.channels.owners() {
            end(&owner, &Ended::Interrupted(cause.clone()));
        }
        // They refer back to this, so they would keep each other alive.
        let direct = self.direct.lock().take();
        let replies = self.replies.lock().take();
        drop((direct, replies));
    }

    /// The broker said whether it takes publishes.
    pub(crate) fn publishing_is(&self, publishing: Publishing) {
        self.outbox.pause(matches!(publishing, Publishing::Paused { .. }));
        self.publishing.send_replace(publishing);
    }

    fn disconnect(&self, cause: &Interruption, failure: &RequestFailure) {
        // First the outbox, so that nothing is added for a connection that is gone while the rest is told.
        self.outbox.go_offline(cause);
        // The next connection is told anew.
        self.publishing.send_if_modified(|publishing| {
            let paused = matches!(publishing, Publishing::Paused { .. });
            *publishing = Publishing::Open;
            paused
        });
        self.requests.fail_all(failure);
        self.gets.clear();
    }

    fn offline(&self) -> RequestFailure {
        self.state.borrow().loss().cloned().map_or(RequestFailure::Closed, RequestFailure::Lost)
    }
}

/// Ends a publisher or a consumer for good.
fn end(owner: &Owner, ended: &Ended) {
    match owner {
        Owner::Publisher(window) => window.end(ended.clone()),
        Owner::Consumer(subscription) => match ended {
            Ended::Interrupted(Interruption::Closed) => drop(subscription.stop()),
            Ended::Refused(refusal) | Ended::Interrupted(Interruption::Channel(refusal)) => {
                subscription.begin(0);
                subscription.end(ConsumeError::ChannelClosed(refusal.clone()));
            }
            Ended::Interrupted(Interruption::Connection(lost)) => {
                subscription.begin(0);
                subscription.end(ConsumeError::ConnectionLost(lost.clone()));
            }
        },
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("options", &self.options).finish_non_exhaustive()
    }
}

impl From<RequestFailure> for OpenError {
    fn from(failure: RequestFailure) -> Self {
        match failure {
            RequestFailure::Refused(refusal) => Self::Refused(refusal),
            RequestFailure::Lost(lost) => Self::ConnectionLost(lost),
            _ => Self::Closed,
        }
    }
}
