//! What the checker says.

use std::fmt;

use crate::history::{Entry, Event, Id};

/// What a broker promises. The numbers are those of the list of invariants in `docs/reliability.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Rule {
    /// S1: a confirmed message stays in every queue that it was routed to until a consumer has settled it.
    Lost,
    /// S2: what comes was published, to this queue, with these bytes; a confirm counts the right queues.
    Phantom,
    /// S3: what a client has seen comes with the flag `redelivered`, and to one client at a time.
    Redelivered,
    /// S4: what was settled does not come again, unless the settle was still under way when the broker ended.
    Resurrected,
    /// S6: each publisher's messages reach a consumer in the order of publishing, but for what comes again.
    Order,
    /// S7: the count of failures rises with every requeue, and never falls in one life of the broker.
    Failures,
    /// S8: a dead letter is in one queue: not in none, and not in two.
    DeadLetter,
    /// S9: no consumer holds more than its prefetch.
    Prefetch,
    /// S10: a single active consumer is followed by another one only when it has gone.
    SingleActive,
    /// S11: nothing expires before its time, and nothing is delivered long after it.
    Expiry,
    /// S13: what a full queue refused is not in it.
    Refusal,
    /// S14: after a purge or a deletion nothing older comes.
    Emptied,
    /// S15: the counts of ready and of removed messages are right.
    Accounting,
    /// S16: each publish has one outcome.
    Outcome,
    /// S17: definitions and deletions are there after every restart, and nothing is refused without a reason.
    Definitions,
}

/// A promise that was broken.
#[derive(Debug, Clone)]
pub(crate) struct Violation {
    pub(crate) rule: Rule,
    /// Where in the history; its length if only the end shows it.
    pub(crate) at: usize,
    pub(crate) id: Option<Id>,
    pub(crate) what: String,
}

/// What a history holds.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) events: usize,
    pub(crate) published: u64,
    pub(crate) confirmed: u64,
    /// Publishes that a full queue refused.
    pub(crate) refused: u64,
    /// Purges and deletions that were answered, and the messages that they removed.
    pub(crate) emptied: u64,
    pub(crate) removed: u64,
    pub(crate) expired: u64,
    /// How long the check took, in microseconds.
    pub(crate) took_us: u64,
    /// Publishes whose outcome the publisher was never told, and how many of them turned out to be stored.
    pub(crate) unknown: u64,
    pub(crate) unknown_stored: u64,
    pub(crate) not_sent: u64,
    pub(crate) deliveries: u64,
    pub(crate) redeliveries: u64,
    /// Redeliveries of what no client had seen: the flag was not needed.
    pub(crate) needless: u64,
    pub(crate) acks: u64,
    pub(crate) acks_durable: u64,
    pub(crate) requeues: u64,
    pub(crate) rejections: u64,
    /// Acks that were lost with the broker, none of them durable, and the age of the oldest.
    pub(crate) acks_lost: u64,
    pub(crate) ack_lost_age_max_us: u64,
}

/// The verdict.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) violations: Vec<Violation>,
    pub(crate) figures: Figures,
}

impl Verdict {
    /// The first violations, each with all that the history says about its message.
    pub(crate) fn explain(&self, history: &[Entry]) -> String {
        let mut rules: Vec<Rule> = self.violations.iter().map(|violation| violation.rule).collect();
        rules.sort_unstable();
        let mut text = String::new();
        for same in rules.chunk_by(PartialEq::eq) {
            text += &format!("{} of {:?}\n", same.len(), same[0]);
        }
        for violation in self.violations.iter().take(10) {
            text += &format!(
                "{:?} at {}: {:?}: {}\n",
                violation.rule, violation.at, violation.id, violation.what
            );
            let Some(id) = violation.id else { continue };
            for (at, entry) in history.iter().enumerate() {
                if entry.event.id() == Some(id) || entry.event == Event::Down {
                    text += &format!("    {at} {:>9.3} ms {:?}\n", entry.at_us as f64 / 1e3, entry.event);
                }
            }
        }
        text
    }
}

impl Event {
    /// The message that it is about.
    pub(crate) fn id(&self) -> Option<Id> {
        match self {
            Self::Begun { id, .. }
            | Self::Confirmed { id, .. }
            | Self::Unknown { id }
            | Self::NotSent { id }
            | Self::Full { id }
            | Self::Refused { id, .. } => Some(*id),
            Self::Delivered { held, .. }
            | Self::AckSent { held }
            | Self::AckDurable { held }
            | Self::Requeued { held }
            | Self::Rejected { held } => Some(held.id),
            _ => None,
        }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per_s = self.events as f64 / self.took_us.max(1) as f64 * 1e6;
        writeln!(f, "events checked       {} ({per_s:.0}/s)", self.events)?;
        writeln!(f, "published            {} ({} confirmed)", self.published, self.confirmed)?;
        writeln!(
            f,
            "outcome unknown      {} ({} of them stored), {} not sent",
            self.unknown, self.unknown_stored, self.not_sent
        )?;
        writeln!(f, "refused, expired     {}, {}", self.refused, self.expired)?;
        writeln!(f, "purged, deleted      {} times, {} messages", self.emptied, self.removed)?;
        writeln!(
            f,
            "deliveries           {} ({} flagged redelivered, {} of them without need)",
            self.deliveries, self.redeliveries, self.needless
        )?;
        writeln!(f, "acks                 {} ({} known durable)", self.acks, self.acks_durable)?;
        writeln!(f, "requeues, rejections {}, {}", self.requeues, self.rejections)?;
        write!(
            f,
            "acks lost in flight  {} (the oldest sent {:.1} ms before the end)",
            self.acks_lost,
            self.ack_lost_age_max_us as f64 / 1e3
        )
    }
}
