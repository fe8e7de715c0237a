//! What a delivery and its settle must and must not be.

use super::{ACK_WINDOW_US, Checker, Outcome, Place, Rule, Step};
use crate::history::{Held, Id};
use crate::model::{BRIEF, QUEUES, ROUTES, TTL, chain_behind, dead_letter};

/// How much later than its time a message may reach the test that was delivered before, in microseconds: clients wait
/// for their turn, too.
const EXPIRY_SLACK_US: u64 = 5_000_000;

impl Checker {
    pub(super) fn delivered(&mut self, held: Held, route: u8, redelivered: bool, failures: u32) {
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
        let expired_to = held.queue == BRIEF + 1 && ROUTES[usize::from(published.route)].queues == [BRIEF];
        let outcome = published.outcome;
        let stored = outcome != Outcome::NotStored;
        if published.route != route || !stored || !(published_to || rejected_to || expired_to) {
            self.violation(Rule::Phantom, Some(held.id), format!("{name} has what does not belong there"));
        }
        if outcome == Outcome::Full {
            self.violation(Rule::Refusal, Some(held.id), format!("{name} has what it refused"));
        }
        self.check_expiry(&held, expired_to && !rejected_to);
        self.check_emptied(&held);
        self.check_settled(&held, &place);
        self.figures.needless += u64::from(redelivered && place.step == Step::None);
        self.check_flag(&held, &place, redelivered);
        self.check_failures(&held, &place, failures);
        if published_to && (place.step == Step::None || place.life < held.life) {
            self.check_order(&held);
        }
        self.check_chain(&held);
        self.check_holder(&held);
        if let Some(place) = self.place(&held) {
            (place.step, place.life, place.failures) = (Step::Held, held.life, failures);
        }
    }

    fn check_expiry(&mut self, held: &Held, expired: bool) {
        let now_us = self.at_us;
        let Some(published) = self.message(held.id) else { return };
        let ttl_us = TTL.as_micros() as u64;
        if expired && now_us < published.begun_us + ttl_us {
            self.violation(Rule::Expiry, Some(held.id), "it expired before its time".to_owned());
        } else if held.queue == BRIEF
            && published.confirmed_us.is_some_and(|at_us| now_us > at_us + ttl_us + EXPIRY_SLACK_US)
        {
            self.violation(Rule::Expiry, Some(held.id), "it came although it had expired".to_owned());
        }
        self.figures.expired += u64::from(expired);
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
        // A move that did not survive the end of a life leaves the message where it expires once more, unseen, and makes
        // another dead letter of it.
        let expired_again = held.queue == BRIEF + 1 && place.life < held.life;
        if place.step != Step::None && !redelivered && !expired_again {
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
        let Some(behind) = chain_behind(held.queue) else { return };
        let Some(published) = self.message(held.id) else { return };
        let places = published.places;
        let name = QUEUES[usize::from(held.queue)];
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
        let step = places[usize::from(queue)].step;
        // What a consumer gave back may have expired since; its time is checked elsewhere.
        let left = step == Step::Rejected || queue == BRIEF && step == Step::Requeued;
        let moved = left && dead_letter(queue) == Some(held.queue);
        if queue != held.queue && !moved {
            let what = format!("{name} has it, and so had {} in life {life}", QUEUES[usize::from(queue)]);
            self.violation(Rule::DeadLetter, Some(held.id), what);
        }
    }

    pub(super) fn ack_sent(&mut self, held: &Held) {
        self.figures.acks += 1;
        self.settles(held);
        let sent = self.acks_sent.entry((held.consumer, held.life)).or_insert(0);
        let number = *sent;
        *sent += 1;
        let at_us = self.at_us;
        self.settled(held, Step::Acked);
        if let Some(place) = self.place(held).filter(|place| place.life == held.life) {
            (place.acker, place.ack_number, place.acked_at_us) = (held.consumer, number, at_us);
        }
    }

    pub(super) fn ack_durable(&mut self, held: &Held) {
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
    pub(super) fn settled(&mut self, held: &Held, step: Step) {
        if let Some(place) = self.place(held).filter(|place| place.life == held.life) {
            place.step = step;
        }
    }
}
