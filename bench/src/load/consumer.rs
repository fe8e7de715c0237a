//! A consumer: reads, checks, acknowledges.

use std::io::Write;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use bytes::BytesMut;

use super::drive::Shared;
use super::{Checker, Deliveries, Head, Link};
use crate::measure::latency::Latencies;
use crate::workload::Ack;

/// One consumer.
pub(super) struct Consumer<D> {
    pub(super) link: Link,
    pub(super) deliveries: D,
    pub(super) ack: Ack,
    /// One for each of its queues.
    pub(super) checkers: Vec<Checker>,
    /// How long each message takes it, if it is the slow one.
    pub(super) slow: Option<Duration>,
    /// Whether the latency of each message counts, and not only of the last one of each read.
    pub(super) each_latency: bool,
}

/// What a consumer got.
pub(super) struct Got {
    pub(super) checkers: Vec<Checker>,
    /// From publish to delivery.
    pub(super) delivered_after: Latencies,
}

impl<D: Deliveries> Consumer<D> {
    /// Until everything has come: then the one who knows that closes the socket.
    pub(super) fn run(mut self, shared: &Shared) -> anyhow::Result<Got> {
        let mut latencies = Latencies::new()?;
        let mut out = BytesMut::new();
        let mut unsettled = 0;
        loop {
            match self.link.inbound.fill(&mut self.link.stream) {
                Err(_) if shared.finished() => break,
                other => other.context("while waiting for deliveries")?,
            }
            let (now, measuring) = (shared.clock.nanos(), shared.measuring());
            let (mut at, mut count, mut last) = (0, 0, None);
            while let Some(delivery) = self.deliveries.next(self.link.inbound.filled(), &mut at)? {
                let head = Head::decode(delivery.head);
                let checker = self.checkers.get_mut(delivery.queue).context("a delivery of no queue")?;
                checker.check(head, delivery.redelivered)?;
                count += 1;
                unsettled += 1;
                last = Some(head.sent_at);
                if self.each_latency && measuring {
                    latencies.record(now.saturating_sub(head.sent_at), 1);
                }
                if self.ack == Ack::Every(unsettled) {
                    self.deliveries.settle(false, &mut out);
                    unsettled = 0;
                }
                if let Some(time) = self.slow
                    && self.take_slowly(time, &mut out, shared).is_err()
                    && shared.finished()
                {
                    break;
                }
            }
            self.link.inbound.consume(at);
            if matches!(self.ack, Ack::Batch | Ack::Each) {
                self.deliveries.settle(self.ack == Ack::Each, &mut out);
            }
            if !out.is_empty() {
                match self.link.stream.write_all(&out) {
                    Err(_) if shared.finished() => break,
                    other => other.context("while acknowledging")?,
                }
                out.clear();
            }
            if self.slow.is_none() {
                if let Some(sent_at) = last.filter(|_| measuring && !self.each_latency) {
                    latencies.record(now.saturating_sub(sent_at), 1);
                }
                if shared.delivered.fetch_add(count, Ordering::Relaxed) == 0 && count > 0 {
                    shared.first_at.store(now, Ordering::Relaxed);
                }
            }
        }
        Ok(Got { checkers: self.checkers, delivered_after: latencies })
    }

    /// Works for a while on one message.
    fn take_slowly(&mut self, time: Duration, out: &mut BytesMut, shared: &Shared) -> anyhow::Result<()> {
        anyhow::ensure!(!shared.finished(), "it is over");
        thread::sleep(time);
        if self.ack != Ack::None {
            self.deliveries.settle(true, out);
            self.link.stream.write_all(out)?;
            out.clear();
        }
        Ok(())
    }
}
