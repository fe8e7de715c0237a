//! What happens when a connection is lost, and how all that was on it is put back.

use std::sync::Arc;
use std::time::Duration;

use leveret_protocol::{Control, Done, OpenChannel};

use crate::connection::Shared;
use crate::connection::channels::{CONTROL, Owner};
use crate::connection::subscription::Subscription;
use crate::connection::window::{Ended, Window};
use crate::error::{ConnectionLost, ConsumeError, Refusal, RequestFailure};
use crate::topology::{CheckedBinding, RecordedQueue};

/// How many definitions are replayed before their answers are awaited.
const REPLAY_BATCH: usize = 256;

/// How often something is tried again that the broker refuses for a reason that passes. Such a reason is usual
/// after a loss that the broker has not noticed: the old connection still holds its exclusive queues.
const RETRIES_MAX: u32 = 10;

/// Whether and how a client reconnects when its connection is lost. On by default: it tries for ever, after
/// 100 ms at first and then after twice the time, up to 30 s, each with a random part so that the clients of a
/// broker that restarts do not all come at once.
///
/// Declarations, bindings, publishers and consumers are put back as they were. Messages that were not confirmed
/// are not sent again: they end as [`PublishError::OutcomeUnknown`](crate::PublishError::OutcomeUnknown).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    enabled: bool,
    delay_min: Duration,
    delay_max: Duration,
    attempts_max: Option<u32>,
}

impl Default for Recovery {
    fn default() -> Self {
        Self {
            enabled: true,
            delay_min: Duration::from_millis(100),
            delay_max: Duration::from_secs(30),
            attempts_max: None,
        }
    }
}

impl Recovery {
    /// A lost connection ends the client, its publishers and its consumers.
    pub fn off() -> Self {
        Self { enabled: false, ..Self::default() }
    }

    /// The delay before the first attempt.
    #[must_use]
    pub fn delay_min(self, delay: Duration) -> Self {
        Self { delay_min: delay, ..self }
    }

    /// The longest delay between two attempts.
    #[must_use]
    pub fn delay_max(self, delay: Duration) -> Self {
        Self { delay_max: delay, ..self }
    }

    /// How many attempts may fail in a row before the client gives up.
    #[must_use]
    pub fn attempts_max(self, attempts: u32) -> Self {
        Self { attempts_max: Some(attempts), ..self }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.enabled
    }

    /// Whether to make attempt number `attempt`, counted from 0.
    pub(crate) fn allows(&self, attempt: u32) -> bool {
        self.enabled && self.attempts_max.is_none_or(|max| attempt < max)
    }

    /// The delay before attempt number `attempt`: half of it is fixed, and half is random.
    pub(crate) fn delay(&self, attempt: u32, random: u32) -> Duration {
        let full = self.delay_min.saturating_mul(2u32.saturating_pow(attempt)).min(self.delay_max);
        full / 2 + (full / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
    }
}

/// Puts everything back on a new connection, then opens channels as they are asked for. Ends only with the
/// connection, or if the broker refuses what every connection needs.
pub(crate) async fn mend(shared: &Arc<Shared>, connection: u64) -> ConnectionLost {
    let failure = match put_back(shared, connection).await {
        Ok(retries) => open_as_asked(shared, retries).await,
        Err(failure) => failure,
    };
    match failure {
        RequestFailure::Refused(refusal) => ConnectionLost::Ended(refusal),
        RequestFailure::Lost(lost) => lost,
        // The control channel's requests are small and plain; and a client that closes ends by the driver.
        RequestFailure::Closed | RequestFailure::TooLarge { .. } | RequestFailure::Unencodable(_) => {
            ConnectionLost::HungUp
        }
    }
}

async fn put_back(shared: &Arc<Shared>, connection: u64) -> Result<Vec<Retry>, RequestFailure> {
    shared.ask_now(CONTROL, |request| OpenChannel { request, confirms: false }.into()).await?;
    replay_topology(shared).await?;
    let mut retries = Vec::new();
    for owner in shared.channels.owners() {
        retries.extend(open(shared, owner.channel(), 0).await?);
    }
    shared.connected(connection);
    Ok(retries)
}

/// A channel to open again later, because the broker's reason to refuse it may pass.
struct Retry {
    channel: u16,
    attempt: u32,
}

async fn open_as_asked(shared: &Arc<Shared>, mut retries: Vec<Retry>) -> RequestFailure {
    loop {
        let attempt = retries.iter().map(|retry| retry.attempt).min();
        let due = async {
            match attempt {
                Some(attempt) => tokio::time::sleep(shared.retry_delay(attempt)).await,
                None => std::future::pending().await,
            }
        };
        let asked = tokio::select! {
            asked = shared.channels_to_open() => asked.into_iter().map(|channel| Retry { channel, attempt: 0 }).collect(),
            () = due => std::mem::take(&mut retries),
        };
        for Retry { channel, attempt } in asked {
            match open(shared, channel, attempt).await {
                Ok(again) => retries.extend(again),
                Err(failure) => return failure,
            }
        }
    }
}

/// Opens the channel of a publisher or a consumer. What the broker refuses ends that one alone; an error is the
/// connection's.
async fn open(shared: &Arc<Shared>, channel: u16, attempt: u32) -> Result<Option<Retry>, RequestFailure> {
    let Some(owner) = shared.channels.owner(channel) else { return Ok(None) };
    let opened = match &owner {
        Owner::Publisher(window) => open_publisher(shared, window).await,
        Owner::Consumer(subscription) => open_consumer(shared, subscription).await,
    };
    let refusal = match opened {
        Ok(()) => return Ok(None),
        Err(RequestFailure::Refused(refusal)) => refusal,
        Err(failure) => return Err(failure),
    };
    let passes = refusal.is_retryable() || owner.may_be_blocked_by_itself(&refusal);
    if shared.options.recovery.is_on() && passes && attempt < RETRIES_MAX {
        return Ok(Some(Retry { channel, attempt: attempt + 1 }));
    }
    match owner {
        Owner::Publisher(window) => window.end(Ended::Refused(refusal)),
        Owner::Consumer(subscription) => subscription.end(ConsumeError::Refused(refusal)),
    }
    Ok(None)
}

async fn open_publisher(shared: &Arc<Shared>, window: &Window) -> Result<(), RequestFailure> {
    if window.is_over() {
        shared.channels.free(window.channel);
        return Ok(());
    }
    let confirms = window.options.confirms;
    if shared.open_channel(window.channel, confirms).await? {
        window.open();
    }
    Ok(())
}

async fn open_consumer(shared: &Arc<Shared>, subscription: &Subscription) -> Result<(), RequestFailure> {
    if subscription.is_over() {
        return Ok(());
    }
    if !shared.open_channel(subscription.channel, false).await? {
        return Ok(());
    }
    // Before the request, because deliveries may come in one read with its answer.
    let incarnation = shared.next_incarnation();
    subscription.begin(incarnation);
    shared.outbox.subscribe(subscription.address(), incarnation);
    shared.ask_now(subscription.channel, |request| subscription.frame(request)).await?;
    subscription.running();
    Ok(())
}

async fn replay_topology(shared: &Arc<Shared>) -> Result<(), RequestFailure> {
    let exchanges = shared.topology.lock().exchanges();
    replay(shared, exchanges, |(name, exchange), request| exchange.frame(name, request), |_, _| {}).await?;
    let queues = shared.topology.lock().queues();
    let declared = |queue: &RecordedQueue, done: Done| {
        let old = queue.name.lock().clone();
        if let Some(new) = done.queue.filter(|new| *new != old) {
            shared.topology.lock().renamed(&old, &new);
        }
    };
    replay(shared, queues, RecordedQueue::frame, declared).await?;
    let bindings = shared.topology.lock().bindings();
    replay(shared, bindings, CheckedBinding::bind, |_, _| {}).await
}

/// Asks for each item, many at a time. What the broker refuses for good is left as it is and logged: somebody
/// else has changed it since, and those who depend on it will be told by name.
async fn replay<T>(
    shared: &Arc<Shared>,
    mut items: Vec<T>,
    frame: impl Fn(&T, u32) -> Control,
    done: impl Fn(&T, Done),
) -> Result<(), RequestFailure> {
    for attempt in 0..=RETRIES_MAX {
        let mut again = Vec::new();
        while !items.is_empty() {
            let batch: Vec<T> = items.drain(..items.len().min(REPLAY_BATCH)).collect();
            let answers: Vec<_> =
                batch.iter().map(|item| shared.begin(CONTROL, |request| frame(item, request))).collect();
            for (item, answer) in batch.into_iter().zip(answers) {
                match shared.answer(answer).await {
                    Ok(answer) => done(&item, answer),
                    Err(RequestFailure::Refused(refusal))
                        if refusal.is_retryable() && attempt < RETRIES_MAX =>
                    {
                        again.push(item);
                    }
                    Err(RequestFailure::Refused(refusal)) => warn_refused(&refusal),
                    Err(failure) => return Err(failure),
                }
            }
        }
        if again.is_empty() {
            break;
        }
        items = again;
        tokio::time::sleep(shared.retry_delay(attempt)).await;
    }
    Ok(())
}

fn warn_refused(refusal: &Refusal) {
    tracing::warn!(%refusal, "the broker refused a definition that recovery replayed");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_limit_and_half_of_each_is_random() {
        let recovery = Recovery::default().delay_max(Duration::from_secs(1));
        let range =
            |attempt| (recovery.delay(attempt, 0).as_millis(), recovery.delay(attempt, u32::MAX).as_millis());
        assert_eq!(
            [range(0), range(1), range(3), range(4), range(99)],
            [(50, 100), (100, 200), (400, 800), (500, 1_000), (500, 1_000)]
        );
    }

    #[test]
    fn attempts_end_where_they_are_limited() {
        let recovery = Recovery::default().attempts_max(2);
        assert!(recovery.allows(0) && recovery.allows(1) && !recovery.allows(2));
        assert!(Recovery::default().allows(u32::MAX));
        assert!(!Recovery::off().allows(0));
    }
}
