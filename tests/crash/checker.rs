//! Judges a history, in time that grows with its length alone.

use std::collections::HashMap;
use std::fmt;

use crate::history::{Entry, Event, Held, Id};
use crate::model::{QUEUES, ROUTES, chain_place, dead_letter};

/// What a broker promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Rule {
    /// A confirmed message stays in every queue that it was routed to until a consumer has settled it.
    Lost,
    /// What comes was published, to this queue, with these bytes; a confirm counts the right queues.
    Phantom,
    /// What a client has seen comes with the flag `redelivered`, and to one client at a time.
    Redelivered,
    /// What was settled does not come again, unless the settle was still under way when the broker ended.
    Resurrected,
    /// Each publisher's messages reach a consumer in the order of publishing, but for what comes again.
    Order,
    /// The count of failures rises with every requeue, and never falls in one life of the broker.
    Failures,
    /// A dead letter is in one queue: not in none, and not in two.
    DeadLetter,
    /// Definitions are there after every restart, and nothing is refused without a reason.
    Refused,
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

/// How long before the end of the broker an ack may have been sent that was lost with it, in microseconds.
const ACK_WINDOW_US: u64 = 1_000_000;

/// What a history holds.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) events: usize,
    pub(crate) published: u64,
    pub(crate) confirmed: u64,
    /// Publishes whose outcome the publisher was never told, and how many of them turned out to be stored.
    pub(crate) unknown: u64,
    pub(crate) unknown_stored: u64,
    pub(crate) not_sent: u64,
    pub(crate) deliveries: u64,
    pub(crate) redeliveries: u64,
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

/// What became of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Begun,
    Confirmed,
    Unknown,
    NotStored,
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
    violations: Vec<Violation>,
    figures: Figures,
    at: usize,
    at_us: u64,
}

/// Judges a history at whose end every queue was emptied.
pub(crate) fn check(history: &[Entry]) -> Verdict {
    let mut checker = Checker::default();
    for (at, entry) in history.iter().enumerate() {
        (checker.at, checker.at_us) = (at, entry.at_us);
        checker.take(&entry.event);
    }
    checker.at = history.len();
    checker.figures.events = history.len();
    checker.finish();
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
                self.violation(Rule::Refused, Some(*id), why.clone());
                self.outcome(*id, Outcome::NotStored);
            }
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
                self.settled(held, Step::Requeued);
            }
            Event::Rejected { held } => {
                self.figures.rejections += 1;
                self.settled(held, Step::Rejected);
                if let Some(place) = self.place(held) {
                    place.ever_rejected = true;
                }
            }
            Event::Down => {
                self.life += 1;
                self.down_at_us.push(self.at_us);
                self.newest.clear();
            }
        }
    }

    fn begun(&mut self, id: Id, route: u8) {
        self.figures.published += 1;
        let publisher = id.publisher as usize;
        if self.publishers.len() <= publisher {
            self.publishers.resize_with(publisher + 1, Vec::new);
        }
        assert_eq!(self.publishers[publisher].len(), id.number as usize, "numbers have no gaps");
        self.publishers[publisher].push(Published {
            route,
            outcome: Outcome::Begun,
            seen: false,
            places: Default::default(),
            last: None,
        });
    }

    fn confirmed(&mut self, id: Id, queues: u16) {
        self.figures.confirmed += 1;
        self.outcome(id, Outcome::Confirmed);
        let Some(published) = self.message(id) else { return };
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
        if outcome == Outcome::NotStored && published.seen {
            self.violation(Rule::Phantom, Some(id), "it was not stored, and somebody has it".to_owned());
        }
        if before != Outcome::Begun {
            let what = format!("two outcomes: {before:?}, then {outcome:?}");
            self.violation(Rule::Phantom, Some(id), what);
        }
    }

    fn delivered(&mut self, held: Held, route: u8, redelivered: bool, failures: u32) {
        self.figures.deliveries += 1;
        self.figures.redeliveries += u64::from(redelivered);
        let name = QUEUES[usize::from(held.queue)];
        let Some(published) = self.message(held.id) else {
            return self.violation(Rule::Phantom, Some(held.id), format!("{name} has what nobody published"));
        };
        published.seen = true;
        let place = published.places[usize::from(held.queue)];
        let published_to = ROUTES[usize::from(published.route)].queues.contains(&held.queue);
        let rejected_to = (0..held.queue).any(|from| {
            dead_letter(from) == Some(held.queue) && published.places[usize::from(from)].ever_rejected
        });
        let stored = published.outcome != Outcome::NotStored;
        if published.route != route || !stored || !(published_to || rejected_to) {
            self.violation(Rule::Phantom, Some(held.id), format!("{name} has what does not belong there"));
        }
        self.check_settled(&held, &place);
        self.check_flag(&held, &place, redelivered);
        self.check_failures(&held, &place, failures);
        if published_to && (place.step == Step::None || place.life < held.life) {
            self.check_order(&held);
        }
        self.check_chain(&held);
        if let Some(place) = self.place(&held) {
            (place.step, place.life, place.failures) = (Step::Held, held.life, failures);
        }
    }

    fn check_settled(&mut self, held: &Held, place: &Place) {
        let again = match place.step {
            Step::Durable => "although its ack was on disk",
            Step::Acked if place.life == held.life => "in the life of the broker that was sent its ack",
            Step::Rejected if place.life == held.life => {
                "in the life of the broker that was sent its rejection"
            }
            Step::Acked => {
                let covered = self.acks_covered.get(&(place.acker, place.life)).copied().unwrap_or(0);
                let age_us = self.down_at_us[place.life as usize].saturating_sub(place.acked_at_us);
                self.figures.acks_lost += 1;
                self.figures.ack_lost_age_max_us = self.figures.ack_lost_age_max_us.max(age_us);
                if place.ack_number < covered {
                    "although an answer to a later ack came"
                } else if age_us > ACK_WINDOW_US {
                    "although its ack was sent long before the broker ended"
                } else {
                    return;
                }
            }
            Step::None | Step::Held | Step::Requeued | Step::Rejected => return,
        };
        let what = format!("{} has it again, {again}", QUEUES[usize::from(held.queue)]);
        self.violation(Rule::Resurrected, Some(held.id), what);
    }

    fn check_flag(&mut self, held: &Held, place: &Place, redelivered: bool) {
        let name = QUEUES[usize::from(held.queue)];
        if place.step != Step::None && !redelivered {
            let what = format!("{name} delivers it again, without the flag");
            self.violation(Rule::Redelivered, Some(held.id), what);
        }
        if place.step == Step::Held && place.life == held.life {
            let what = format!("{name} delivers it to two consumers at a time");
            self.violation(Rule::Redelivered, Some(held.id), what);
        }
    }

    fn check_failures(&mut self, held: &Held, place: &Place, failures: u32) {
        let same_life = place.step != Step::None && place.life == held.life;
        let least = place.failures + u32::from(place.step == Step::Requeued);
        if same_life && failures < least {
            let what = format!("{failures} failures, of at least {least}");
            self.violation(Rule::Failures, Some(held.id), what);
        }
    }

    fn check_order(&mut self, held: &Held) {
        let Id { publisher, number } = held.id;
        let newest = self.newest.entry((held.consumer, publisher)).or_insert(number);
        let before = std::mem::replace(newest, number.max(*newest));
        if before > number {
            let what = format!("{} delivers it after {before}", QUEUES[usize::from(held.queue)]);
            self.violation(Rule::Order, Some(held.id), what);
        }
    }

    /// Within one life a dead letter only goes forward, and only by a rejection. Whether a move survived the end of a
    /// life is known if something behind it is durable. If it did not survive, the message is back where it came from,
    /// and its next rejection makes another dead letter, that nobody has seen.
    fn check_chain(&mut self, held: &Held) {
        if chain_place(held.queue).is_none() {
            return;
        }
        let Some(published) = self.message(held.id) else { return };
        let places = published.places;
        let name = QUEUES[usize::from(held.queue)];
        let behind = usize::from(held.queue) + 1..QUEUES.len();
        if behind.clone().any(|queue| places[queue].step == Step::Durable) {
            let what = format!("{name} has it, and it was acked for good as a dead letter");
            self.violation(Rule::DeadLetter, Some(held.id), what);
        }
        let last =
            self.message(held.id).and_then(|published| published.last.replace((held.life, held.queue)));
        let Some((life, queue)) = last else { return };
        if life < held.life {
            if let Some(published) = self.message(held.id) {
                published.places[behind].fill(Place::default());
            }
            return;
        }
        let moved =
            places[usize::from(queue)].step == Step::Rejected && dead_letter(queue) == Some(held.queue);
        if queue != held.queue && !moved {
            let what = format!("{name} has it, and so had {} in life {life}", QUEUES[usize::from(queue)]);
            self.violation(Rule::DeadLetter, Some(held.id), what);
        }
    }

    fn ack_sent(&mut self, held: &Held) {
        self.figures.acks += 1;
        let sent = self.acks_sent.entry((held.consumer, held.life)).or_insert(0);
        let number = *sent;
        *sent += 1;
        let at_us = self.at_us;
        self.settled(held, Step::Acked);
        if let Some(place) = self.place(held).filter(|place| place.life == held.life) {
            (place.acker, place.ack_number, place.acked_at_us) = (held.consumer, number, at_us);
        }
    }

    fn ack_durable(&mut self, held: &Held) {
        self.figures.acks_durable += 1;
        let Some(place) = self.place(held).copied() else { return };
        if place.life != held.life || place.step != Step::Acked {
            let what = "its ack is on disk, and it was delivered again since".to_owned();
            return self.violation(Rule::Resurrected, Some(held.id), what);
        }
        // Acks of one consumer are sent in order, so the earlier ones are on disk, too.
        let covered = self.acks_covered.entry((held.consumer, held.life)).or_insert(0);
        *covered = (*covered).max(place.ack_number + 1);
        self.settled(held, Step::Durable);
    }

    /// A settle of the last delivery counts; one of an earlier delivery must have no effect, and has none here.
    fn settled(&mut self, held: &Held, step: Step) {
        if let Some(place) = self.place(held).filter(|place| place.life == held.life) {
            place.step = step;
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
                    lost.extend(
                        queues.iter().filter_map(|queue| message.lost(*queue)).map(|lost| (id, lost)),
                    );
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
        let chain = chain_place(queue).is_some();
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
            | Self::Refused { id, .. } => Some(*id),
            Self::Delivered { held, .. }
            | Self::AckSent { held }
            | Self::AckDurable { held }
            | Self::Requeued { held }
            | Self::Rejected { held } => Some(held.id),
            Self::Corrupt { .. } | Self::Down => None,
        }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "events checked       {}", self.events)?;
        writeln!(f, "published            {} ({} confirmed)", self.published, self.confirmed)?;
        writeln!(
            f,
            "outcome unknown      {} ({} of them stored), {} not sent",
            self.unknown, self.unknown_stored, self.not_sent
        )?;
        writeln!(f, "deliveries           {} ({} flagged redelivered)", self.deliveries, self.redeliveries)?;
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
