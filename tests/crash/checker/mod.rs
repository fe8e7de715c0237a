//! Judges a history, in time that grows with its length alone.

mod deliveries;
mod queues;
mod verdict;

use std::collections::HashMap;

pub(crate) use verdict::{Figures, Rule, Verdict, Violation};

use tokio::time::Instant;

use crate::history::{Entry, Event, Held, Id};
use crate::model::{QUEUES, ROUTES, SMALL, chain_behind};
use queues::QueueState;

/// How long before the end of the broker an ack may have been sent that was lost with it, in microseconds.
const ACK_WINDOW_US: u64 = 1_000_000;

/// What became of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Begun,
    Confirmed,
    Unknown,
    NotStored,
    /// A full queue refused it.
    Full,
}

/// What became of a message's last delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Step {
    #[default]
    None,
    Held,
    Acked,
    Durable,
    Requeued,
    Rejected,
}

/// A message in a queue.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    step: Step,
    /// The delivery that `step` is about.
    life: u32,
    failures: u32,
    /// When the ack was sent, and which of its consumer's acks it was.
    acked_at_us: u64,
    acker: u16,
    ack_number: u32,
    ever_rejected: bool,
}

struct Published {
    /// Where in the history, and when.
    begun: usize,
    begun_us: u64,
    confirmed_us: Option<u64>,
    route: u8,
    outcome: Outcome,
    seen: bool,
    places: [Place; QUEUES.len()],
    /// Of a dead letter: the life and queue of its last delivery.
    last: Option<(u32, u8)>,
}

#[derive(Default)]
struct Checker {
    publishers: Vec<Vec<Published>>,
    life: u32,
    down_at_us: Vec<u64>,
    /// By consumer and life: how many acks it sent, and how many of them a later answer covers.
    acks_sent: HashMap<(u16, u32), u32>,
    acks_covered: HashMap<(u16, u32), u32>,
    /// By consumer and publisher: the highest number of a first delivery in this life.
    newest: HashMap<(u16, u32), u32>,
    queues: [QueueState; QUEUES.len()],
    /// By consumer: its prefetch, and in which life it holds how many.
    prefetch: HashMap<u16, u32>,
    holds: HashMap<u16, (u32, u32)>,
    /// By publisher: the first publish without an outcome.
    open: Vec<u32>,
    violations: Vec<Violation>,
    figures: Figures,
    at: usize,
    at_us: u64,
}

/// Judges a history at whose end every queue was emptied.
pub(crate) fn check(history: &[Entry]) -> Verdict {
    let began = Instant::now();
    let mut checker = Checker::default();
    for (at, entry) in history.iter().enumerate() {
        (checker.at, checker.at_us) = (at, entry.at_us);
        checker.take(&entry.event);
    }
    checker.at = history.len();
    checker.figures.events = history.len();
    checker.finish();
    checker.figures.took_us = began.elapsed().as_micros() as u64;
    Verdict { violations: checker.violations, figures: checker.figures }
}

impl Checker {
    fn take(&mut self, event: &Event) {
        match event {
            Event::Begun { id, route } => self.begun(*id, *route),
            Event::Confirmed { id, queues } => self.confirmed(*id, *queues),
            Event::Unknown { id } => self.outcome(*id, Outcome::Unknown),
            Event::NotSent { id } => {
                self.figures.not_sent += 1;
                self.outcome(*id, Outcome::NotStored);
            }
            Event::Refused { id, why } => {
                self.violation(Rule::Definitions, Some(*id), why.clone());
                self.outcome(*id, Outcome::NotStored);
            }
            Event::Full { id } => self.full(*id),
            Event::Delivered { held, route, redelivered, failures } => {
                self.delivered(*held, *route, *redelivered, *failures);
            }
            Event::Corrupt { queue } => {
                let what = format!("a delivery from {} with wrong bytes", QUEUES[usize::from(*queue)]);
                self.violation(Rule::Phantom, None, what);
            }
            Event::AckSent { held } => self.ack_sent(held),
            Event::AckDurable { held } => self.ack_durable(held),
            Event::Requeued { held } => {
                self.figures.requeues += 1;
                self.settles(held);
                self.settled(held, Step::Requeued);
            }
            Event::Rejected { held } => {
                self.figures.rejections += 1;
                self.settles(held);
                self.settled(held, Step::Rejected);
                if let Some(place) = self.place(held) {
                    place.ever_rejected = true;
                }
            }
            Event::Down => {
                self.life += 1;
                self.down_at_us.push(self.at_us);
                self.newest.clear();
                self.queues.iter_mut().for_each(QueueState::broker_ended);
            }
            Event::Opened { .. }
            | Event::Left { .. }
            | Event::EmptyBegun { .. }
            | Event::Emptied { .. }
            | Event::DeclareBegun { .. }
            | Event::Declared { .. }
            | Event::Found { .. }
            | Event::Counted { .. } => self.about_queue(event),
        }
    }

    fn full(&mut self, id: Id) {
        self.figures.refused += 1;
        self.outcome(id, Outcome::Full);
        if self.message(id).is_some_and(|published| ROUTES[usize::from(published.route)].queues != [SMALL]) {
            self.violation(Rule::Definitions, Some(id), "a queue without a limit refused it".to_owned());
        }
    }

    fn begun(&mut self, id: Id, route: u8) {
        self.figures.published += 1;
        let publisher = id.publisher as usize;
        if self.publishers.len() <= publisher {
            self.publishers.resize_with(publisher + 1, Vec::new);
        }
        assert_eq!(self.publishers[publisher].len(), id.number as usize, "numbers have no gaps");
        let (begun, begun_us) = (self.at, self.at_us);
        self.publishers[publisher].push(Published {
            begun,
            begun_us,
            confirmed_us: None,
            route,
            outcome: Outcome::Begun,
            seen: false,
            places: Default::default(),
            last: None,
        });
        for queue in ROUTES[usize::from(route)].queues {
            self.queues[usize::from(*queue)].published(*queue, id);
        }
    }

    fn confirmed(&mut self, id: Id, queues: u16) {
        self.figures.confirmed += 1;
        self.outcome(id, Outcome::Confirmed);
        let at_us = self.at_us;
        let Some(published) = self.message(id) else { return };
        published.confirmed_us = Some(at_us);
        let expected = ROUTES[usize::from(published.route)].queues.len();
        if usize::from(queues) != expected {
            self.violation(Rule::Phantom, Some(id), format!("confirmed for {queues} queues, not {expected}"));
        }
    }

    fn outcome(&mut self, id: Id, outcome: Outcome) {
        let Some(published) = self.message(id) else {
            return self.violation(
                Rule::Phantom,
                Some(id),
                "an outcome of what was not published".to_owned(),
            );
        };
        let before = std::mem::replace(&mut published.outcome, outcome);
        let seen = published.seen;
        if outcome == Outcome::NotStored && seen {
            self.violation(Rule::Phantom, Some(id), "it was not stored, and somebody has it".to_owned());
        }
        if outcome == Outcome::Full && seen {
            self.violation(Rule::Refusal, Some(id), "it was refused, and somebody has it".to_owned());
        }
        if before != Outcome::Begun {
            let what = format!("two outcomes: {before:?}, then {outcome:?}");
            self.violation(Rule::Outcome, Some(id), what);
        }
        self.check_outcomes_before(id);
    }

    /// A publisher hears of its publishes in their order.
    fn check_outcomes_before(&mut self, id: Id) {
        let publisher = id.publisher as usize;
        if self.open.len() <= publisher {
            self.open.resize(publisher + 1, 0);
        }
        while self.open[publisher] <= id.number {
            let older = Id { number: self.open[publisher], ..id };
            self.open[publisher] += 1;
            if self.message(older).is_some_and(|older| older.outcome == Outcome::Begun) {
                self.violation(Rule::Outcome, Some(older), "a later publish had an outcome first".to_owned());
            }
        }
    }

    fn finish(&mut self) {
        let mut lost = Vec::new();
        for (publisher, messages) in (0..).zip(&self.publishers) {
            for (number, message) in (0..).zip(messages) {
                let id = Id { publisher, number };
                if matches!(message.outcome, Outcome::Unknown | Outcome::Begun) {
                    self.figures.unknown += 1;
                    self.figures.unknown_stored += u64::from(message.seen);
                }
                if message.outcome == Outcome::Confirmed {
                    let queues = ROUTES[usize::from(message.route)].queues;
                    let kept =
                        queues.iter().filter(|queue| !self.queues[usize::from(**queue)].may_lack(message));
                    lost.extend(kept.filter_map(|queue| message.lost(*queue)).map(|lost| (id, lost)));
                }
            }
        }
        for (id, (rule, what)) in lost {
            self.violation(rule, Some(id), what);
        }
    }

    fn message(&mut self, id: Id) -> Option<&mut Published> {
        self.publishers.get_mut(id.publisher as usize)?.get_mut(id.number as usize)
    }

    fn place(&mut self, held: &Held) -> Option<&mut Place> {
        self.message(held.id).map(|message| &mut message.places[usize::from(held.queue)])
    }

    fn violation(&mut self, rule: Rule, id: Option<Id>, what: String) {
        self.violations.push(Violation { rule, at: self.at, id, what });
    }
}

impl Published {
    /// Whether a confirmed message is missing from this queue, and from those that it could have gone on to.
    fn lost(&self, queue: u8) -> Option<(Rule, String)> {
        let chain = chain_behind(queue).is_some();
        let last = self.last.map_or(queue, |(_, last)| if chain { last } else { queue });
        let name = QUEUES[usize::from(last)];
        match self.places[usize::from(last)].step {
            Step::Acked | Step::Durable => None,
            Step::None => Some((Rule::Lost, format!("it never came from {name}"))),
            Step::Rejected if chain => {
                Some((Rule::DeadLetter, format!("rejected from {name}, it came from nowhere")))
            }
            step => Some((Rule::Lost, format!("it did not come again from {name}, where it was {step:?}"))),
        }
    }
}
