//! A producer: publishes as fast as its window lets it, or at a fixed rate.

use std::collections::VecDeque;
use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};

use super::drive::Shared;
use super::frames::Frames;
use super::{Confirms, Inbound, Link};
use crate::measure::latency::Latencies;

/// How many publishes may be unconfirmed in an open loop, so that a broker that does not keep up is noticed before the
/// memory is full.
const OPEN_LOOP_IN_FLIGHT_MAX: u64 = 2_000_000;

/// One producer.
pub(super) struct Producer<C> {
    pub(super) link: Link,
    pub(super) confirms: C,
    pub(super) frames: Frames,
    /// How many publishes may be unconfirmed; 0 is without confirms.
    pub(super) window: u64,
    /// How many messages, unless it is stopped before.
    pub(super) limit: u64,
    pub(super) pace: Option<Pace>,
}

/// When each message is to be sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Nanoseconds between two messages.
    pub(super) interval: f64,
    /// When the first one is due.
    pub(super) start: u64,
}

impl Pace {
    /// When message `number`, counted from 0, is due.
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "nanoseconds of a run, far below 2^53"
    )]
    fn due(self, number: u64) -> u64 {
        self.start + (number as f64 * self.interval) as u64
    }
}

/// What a producer did.
pub(super) struct Sent {
    /// By stream: how many messages.
    pub(super) streams: Vec<u64>,
    /// From publish to confirm.
    pub(super) confirmed_after: Latencies,
}

impl<C: Confirms> Producer<C> {
    pub(super) fn run(self, shared: &Shared) -> anyhow::Result<Sent> {
        match self.pace {
            None => self.closed(shared),
            Some(pace) => self.open(shared, pace),
        }
    }

    /// Publishes whatever the window has room for, then waits for confirms. The clock is read once a write and once a
    /// read; so the latency of a confirm is known to the batch that its publish went with.
    fn closed(mut self, shared: &Shared) -> anyhow::Result<Sent> {
        let mut latencies = Latencies::new()?;
        // (the last publish, when), for each write that is not confirmed as a whole.
        let mut batches: VecDeque<(u64, u64)> = VecDeque::new();
        let (mut sent, mut confirmed) = (0, 0);
        loop {
            let open = sent < self.limit && !shared.stopped();
            let room = if self.window == 0 { u64::MAX } else { self.window - (sent - confirmed) };
            if open && room > 0 {
                let now = shared.clock.nanos();
                let (bytes, count) = self.frames.take(room.min(self.limit - sent), |_| now);
                self.link.stream.write_all(bytes).context("while publishing")?;
                sent += count;
                shared.published.fetch_add(count, Ordering::Relaxed);
                if self.window > 0 {
                    batches.push_back((sent, now));
                }
            } else if self.window > 0 && confirmed < sent {
                let before = confirmed;
                self.link.inbound.fill(&mut self.link.stream).context("while waiting for confirms")?;
                let (now, measuring) = (shared.clock.nanos(), shared.measuring());
                let mut at = 0;
                self.confirms
                    .read(self.link.inbound.filled(), &mut at, &mut |_, count| confirmed += count)?;
                self.link.inbound.consume(at);
                while let Some((last, when)) = batches.front().copied()
                    && last <= confirmed
                {
                    batches.pop_front();
                    if measuring {
                        latencies.record(now - when, 1);
                    }
                }
                anyhow::ensure!(
                    confirmed <= sent,
                    "{confirmed} publishes were confirmed, and {sent} were sent"
                );
                shared.confirmed.fetch_add(confirmed - before, Ordering::Relaxed);
            } else {
                return Ok(Sent { streams: self.frames.sent(), confirmed_after: latencies });
            }
        }
    }

    /// Publishes each message when it is due, while another thread reads confirms.
    fn open(self, shared: &Shared, pace: Pace) -> anyhow::Result<Sent> {
        // The kernel would else round every sleep up by 50 µs, which is as much as what is measured.
        let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
        let Self { link, mut confirms, mut frames, window, limit, .. } = self;
        let Link { mut stream, inbound } = link;
        let mut reading = stream.try_clone()?;
        let (confirmed, over) = (AtomicU64::new(0), AtomicBool::new(false));
        thread::scope(|scope| {
            let reader = scope.spawn(|| match window {
                0 => Latencies::new(),
                _ => read_confirms(&mut confirms, &mut reading, inbound, (&confirmed, &over), (shared, pace)),
            });
            let mut publish = || {
                let mut sent = 0;
                while sent < limit && !shared.stopped() && !reader.is_finished() {
                    let now = shared.clock.nanos();
                    let next = pace.due(sent);
                    if now < next {
                        thread::sleep(Duration::from_nanos(next - now));
                        continue;
                    }
                    let mut due = 1;
                    while pace.due(sent + due) <= now && due < limit - sent {
                        due += 1;
                    }
                    let (bytes, count) = frames.take(due, |index| pace.due(sent + index));
                    stream.write_all(bytes).context("while publishing")?;
                    sent += count;
                    shared.published.fetch_add(count, Ordering::Relaxed);
                    if window > 0 && sent - confirmed.load(Ordering::Relaxed) > OPEN_LOOP_IN_FLIGHT_MAX {
                        bail!("the broker does not keep up with --rate");
                    }
                }
                while window > 0 && confirmed.load(Ordering::Relaxed) < sent && !reader.is_finished() {
                    thread::sleep(Duration::from_millis(1));
                }
                anyhow::Ok(())
            };
            let published = publish();
            over.store(true, Ordering::Release);
            let _ = stream.shutdown(Shutdown::Read);
            let latencies = reader.join().map_err(|_| anyhow::anyhow!("the reader of confirms panicked"))?;
            published?;
            Ok(Sent { streams: frames.sent(), confirmed_after: latencies? })
        })
    }
}

/// Reads confirms until it is over, and counts them.
fn read_confirms(
    confirms: &mut impl Confirms,
    stream: &mut TcpStream,
    mut inbound: Inbound,
    (confirmed, over): (&AtomicU64, &AtomicBool),
    (shared, pace): (&Shared, Pace),
) -> anyhow::Result<Latencies> {
    let mut latencies = Latencies::new()?;
    loop {
        match inbound.fill(stream) {
            Err(_) if over.load(Ordering::Acquire) => return Ok(latencies),
            other => other.context("while waiting for confirms")?,
        }
        let (now, measuring) = (shared.clock.nanos(), shared.measuring());
        let (mut at, mut more) = (0, 0);
        confirms.read(inbound.filled(), &mut at, &mut |first, count| {
            more += count;
            for number in first..first + if measuring { count } else { 0 } {
                latencies.record(now.saturating_sub(pace.due(number - 1)), 1);
            }
        })?;
        inbound.consume(at);
        confirmed.fetch_add(more, Ordering::Relaxed);
        shared.confirmed.fetch_add(more, Ordering::Relaxed);
    }
}
