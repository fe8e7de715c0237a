//! The checker is worth what it finds: histories that are right, and the same with one fault each, which the rule that
//! it breaks must find.

use crate::checker::{Rule, check};
use crate::history::{Entry, Event, Held, Id};
use crate::model::{QUEUES, ROUTES, chain_place, dead_letter};
use crate::random::Random;

const SEEDS: u64 = 20;
const LIVES: u32 = 4;
const PUBLISHERS: u64 = 3;

/// A fault: changes a history, or finds no place for itself in it.
type Fault = fn(&mut Vec<Entry>, &mut Random) -> Option<()>;

/// By what a broker would do wrong.
const FAULTS: [(&str, Rule, Fault); 20] = [
    ("loses a confirmed message in one of its queues", Rule::Lost, lose),
    ("loses a message that was requeued or held", Rule::Lost, lose_after_delivery),
    ("delivers what nobody published", Rule::Phantom, deliver_unpublished),
    ("delivers to a queue that is not bound", Rule::Phantom, deliver_elsewhere),
    ("delivers wrong bytes", Rule::Phantom, deliver_garbage),
    ("delivers the body of another message", Rule::Phantom, exchange_body),
    ("confirms for too few queues", Rule::Phantom, miscount),
    ("delivers what was not sent", Rule::Phantom, deliver_unsent),
    ("dead-letters what nobody rejected", Rule::Phantom, dead_letter_unasked),
    ("refuses for no reason", Rule::Refused, refuse),
    ("forgets that a message was seen", Rule::Redelivered, forget_flag),
    ("delivers to two consumers at a time", Rule::Redelivered, deliver_twice),
    ("brings back what a durable ack removed", Rule::Resurrected, resurrect_durable),
    ("brings back an acked message without a crash", Rule::Resurrected, resurrect_at_once),
    ("brings back an ack that a later answer covers", Rule::Resurrected, resurrect_covered),
    ("brings back an ack that is too old", Rule::Resurrected, resurrect_old),
    ("delivers out of order", Rule::Order, disorder),
    ("forgets a failure", Rule::Failures, forget_failure),
    ("leaves a dead letter in both queues", Rule::DeadLetter, keep_both),
    ("loses a dead letter on its way", Rule::DeadLetter, lose_dead_letter),
];

#[test]
fn right_histories_are_found_right() {
    for seed in 0..SEEDS {
        let history = right_history(seed);
        let verdict = check(&history);
        assert!(verdict.violations.is_empty(), "seed {seed}\n{}", verdict.explain(&history));
        let figures = verdict.figures;
        assert!(figures.acks_lost > 0 && figures.requeues > 0 && figures.rejections > 0, "{figures}");
    }
}

#[test]
fn every_fault_is_found_by_the_rule_that_it_breaks() {
    for (name, rule, fault) in FAULTS {
        let mut applied = 0;
        for seed in 0..SEEDS {
            let mut history = right_history(seed);
            if fault(&mut history, &mut Random::new(seed)).is_none() {
                continue;
            }
            applied += 1;
            let verdict = check(&history);
            let found = verdict.violations.first().map(|violation| violation.rule);
            assert_eq!(found, Some(rule), "a broker that {name}, seed {seed}\n{}", verdict.explain(&history));
        }
        assert!(
            applied >= SEEDS / 2,
            "a broker that {name}: only {applied} of {SEEDS} histories had a place for it"
        );
    }
}

/// A message in a queue of the small broker that makes right histories.
#[derive(Clone)]
struct Item {
    id: Id,
    route: u8,
    seq: usize,
    seen: bool,
    failures: u32,
}

struct Simulation {
    random: Random,
    history: Vec<Entry>,
    queues: [Vec<Item>; QUEUES.len()],
    /// Acks that the broker may still lose.
    in_flight: Vec<(u8, Item)>,
    life: u32,
    seq: usize,
}

fn right_history(seed: u64) -> Vec<Entry> {
    let mut simulation = Simulation {
        random: Random::new(seed),
        history: Vec::new(),
        queues: Default::default(),
        in_flight: Vec::new(),
        life: 0,
        seq: 0,
    };
    for life in 0..LIVES {
        for number in life * 30..(life + 1) * 30 {
            for publisher in 0..PUBLISHERS as u32 {
                simulation.publish(Id { publisher, number });
            }
        }
        simulation.consume(false);
        simulation.end_life();
    }
    simulation.consume(true);
    simulation.history
}

impl Simulation {
    fn add(&mut self, event: Event) {
        let at_us = self.history.len() as u64;
        self.history.push(Entry { at_us, event });
    }

    fn publish(&mut self, id: Id) {
        let route = self.random.below(ROUTES.len() as u64) as u8;
        let queues = ROUTES[usize::from(route)].queues;
        self.add(Event::Begun { id, route });
        let stored = match self.random.below(20) {
            0 => {
                self.add(Event::NotSent { id });
                false
            }
            1 => {
                self.add(Event::Unknown { id });
                self.random.below(2) == 0
            }
            _ => {
                self.add(Event::Confirmed { id, queues: queues.len() as u16 });
                true
            }
        };
        for queue in queues.iter().filter(|_| stored) {
            self.enqueue(*queue, id, route);
        }
    }

    fn enqueue(&mut self, queue: u8, id: Id, route: u8) {
        self.seq += 1;
        let item = Item { id, route, seq: self.seq, seen: false, failures: 0 };
        self.queues[usize::from(queue)].push(item);
    }

    fn consume(&mut self, drain: bool) {
        for queue in 0..QUEUES.len() as u8 {
            let mut left = Vec::new();
            for item in std::mem::take(&mut self.queues[usize::from(queue)]) {
                left.extend(self.deliver(queue, item, drain));
            }
            self.queues[usize::from(queue)] = left;
        }
    }

    /// Gives the message back if the consumer keeps it.
    fn deliver(&mut self, queue: u8, mut item: Item, drain: bool) -> Option<Item> {
        let consumer = u16::from(queue) + if drain { 100 } else { 0 };
        let held = Held { id: item.id, queue, consumer, life: self.life };
        loop {
            let (route, redelivered, failures) = (item.route, item.seen, item.failures);
            self.add(Event::Delivered { held, route, redelivered, failures });
            item.seen = true;
            match self.random.below(if drain { 2 } else { 10 }) {
                0..2 => {
                    self.add(Event::AckSent { held });
                    self.add(Event::AckDurable { held });
                    self.in_flight.retain(|(other, _)| *other != queue);
                    return None;
                }
                2..4 => {
                    self.add(Event::Requeued { held });
                    item.failures += 1;
                }
                4 => return Some(item),
                5..7 if dead_letter(queue).is_some() => {
                    self.add(Event::Rejected { held });
                    self.enqueue(dead_letter(queue)?, item.id, item.route);
                    return None;
                }
                _ => {
                    self.add(Event::AckSent { held });
                    self.in_flight.push((queue, item));
                    return None;
                }
            }
        }
    }

    fn end_life(&mut self) {
        self.add(Event::Down);
        self.life += 1;
        for (queue, item) in std::mem::take(&mut self.in_flight) {
            if self.random.below(2) == 0 {
                self.queues[usize::from(queue)].push(item);
            }
        }
        for queue in &mut self.queues {
            queue.sort_by_key(|item| item.seq);
        }
    }
}

/// The places of all entries for which `is` holds.
fn places(history: &[Entry], is: impl Fn(usize, &Event) -> bool) -> Vec<usize> {
    history.iter().enumerate().filter(|(at, entry)| is(*at, &entry.event)).map(|(at, _)| at).collect()
}

fn any(places: &[usize], random: &mut Random) -> Option<usize> {
    places.get(random.below(places.len() as u64) as usize).copied()
}

fn held(event: &Event) -> Option<Held> {
    match event {
        Event::Delivered { held, .. }
        | Event::AckSent { held }
        | Event::AckDurable { held }
        | Event::Requeued { held }
        | Event::Rejected { held } => Some(*held),
        _ => None,
    }
}

fn is_delivery(event: &Event) -> bool {
    matches!(event, Event::Delivered { .. })
}

fn same_place(event: &Event, other: Held) -> bool {
    held(event).is_some_and(|held| (held.id, held.queue) == (other.id, other.queue))
}

fn is_confirmed(history: &[Entry], id: Id) -> bool {
    history
        .iter()
        .any(|entry| matches!(entry.event, Event::Confirmed { id: confirmed, .. } if confirmed == id))
}

/// The delivery of this message from this queue before `at`.
fn delivery_before(history: &[Entry], at: usize, of: Held) -> Option<usize> {
    history[..at].iter().rposition(|entry| is_delivery(&entry.event) && same_place(&entry.event, of))
}

fn insert(history: &mut Vec<Entry>, at: usize, event: Event) {
    let at_us = history[at.min(history.len() - 1)].at_us;
    history.insert(at, Entry { at_us, event });
}

fn again(held: Held, life: u32) -> Event {
    let held = Held { life, consumer: held.consumer + 200, ..held };
    Event::Delivered { held, route: u8::MAX, redelivered: true, failures: 99 }
}

/// Puts in a delivery of a message that was published, with the route that it had.
fn insert_again(history: &mut Vec<Entry>, at: usize, of: Held, life: u32) {
    let published_to = history.iter().find_map(|entry| match entry.event {
        Event::Begun { id, route } if id == of.id => Some(route),
        _ => None,
    });
    let Event::Delivered { held, redelivered, failures, .. } = again(of, life) else { return };
    let route = published_to.unwrap_or_default();
    insert(history, at, Event::Delivered { held, route, redelivered, failures });
}

fn lose(history: &mut Vec<Entry>, random: &mut Random) -> Option<()> {
    let found = places(history, |_, event| {
        is_delivery(event) && held(event).is_some_and(|held| chain_place(held.queue).is_none())
    });
    let found: Vec<usize> = found
        .into_iter()
        .filter(|at| held(&history[*at].event).is_some_and(|held| is_confirmed(history, held.id)))
        .collect();
    let of = held(&history[any(&found, random)?].event)?;
    history.retain(|entry| !same_place(&entry.event, of));
    Some(())
}

fn lose_after_delivery(history: &mut Vec<Entry>, random: &mut Random) -> Option<()> {
    let last = places(history, |at, event| {
        let Some(of) = held(event).filter(|of| is_delivery(event) && chain_place(of.queue).is_none()) else {
            return false;
        };
        let later =
            history[at + 1..].iter().any(|entry| is_delivery(&entry.event) && same_place(&entry.event, of));
        let before = history[..at].iter().rfind(|entry| same_place(&entry.event, of));
        let kept = before.is_some_and(|before| {
            is_delivery(&before.event) || matches!(before.event, Event::Requeued { .. })
        });
        !later && kept && is_confirmed(history, of.id)
    });
    let at = any(&last, random)?;
    let of = held(&history[at].event)?;
    let mut index = 0;
    history.retain(|entry| {
        index += 1;
        index <= at || !same_place(&entry.event, of)
    });
    Some(())
}

fn deliver_unpublished(history: &mut Vec<Entry>, random: &mut Random) -> Option<()> {
    let at = any(&places(history, |_, event| is_delivery(event)), random)?;
    let of = held(&history[at].event)?;
    let id = Id { number: 1_000_000, ..of.id };
    let held = Held { id, ..of };
    insert(history, at, Event::Delivered { held, route: 0, redelivered: false, failures: 0 });
    Some(())
}

fn deliver_elsewhere(history: &mut Vec<Entry>, random: &mut Random) -> Option<()> {
    let at = any(&places(history, |_, event| is_delivery(event)), random)?;
    let Event::Delivered { held, route, .. } = history[at].event else { return None };
    let other = (0..5).find(|queue| !ROUTES[usize::from(route)].queues.contains(queue))?;
    let held = Held { queue: other, ..held };
    insert(history, at, Event::Delivered { held, route, redelivered: false, failures: 0 });
    Some(())
}

fn deliver_garbage(history: &mut Vec<Entry>, random: &mut Random) -> Option<()> {
    let at = any(&places(history, |_, event| is_delivery(event)), random)?;
    insert(history, at, Event::Corrupt { queue: 0 });
    Some(())
}

fn exchange_body(history: &mut Vec<Entry>, random: &mut Random) -> Option<()> {
    let at = any(&places(history, |_, event| is_delivery(event)), random)?;
    let Event::Delivered { route, .. } = &mut history[at].event else { return None };
    *route = (*route + 1) % ROUTES.len() as u8;
    Some(())
}

fn miscount(history: &mut Vec<Entry>, random: &mut Random) -> Option<()> {
    let at = any(&places(history, |_, event| matches!(event, Event::Confirmed { .. })), random)?;
    let Event::Confirmed { queues, .. } = &mut history[at].event else { return None };
    *queues -= 1;
    Some(())
}

fn deliver_unsent(history: &mut Vec<Entry>, random: &mut Random) -> Option<()> {
    let at = any(&places(history, |_, event| matches!(event, Event::Confirmed { .. })), random)?;
    let id = history[at].event.id()?;
    // Sometimes the publisher learns it only after the message was seen.
    let last = history.iter().rposition(|entry| entry.event.id() == Some(id))?;
    history[at].event = Event::NotSent { id };
    if random.below(2) == 0 {
        history[at..=last].rotate_left(1);
    }
    Some(())
}

fn dead_letter_unasked(history: &mut Vec<Entry>, random: &mut Random) -> Option<()> {
    let found = places(history, |_, event| matches!(event, Event::Rejected { .. }));
    history.remove(any(&found, random)?);
    Some(())
}

fn refuse(history: &mut Vec<Entry>, random: &mut Random) -> Option<()> {
    let at = any(&places(history, |_, event| matches!(event, Event::Confirmed { .. })), random)?;
    let id = history[at].event.id()?;
    history[at].event = Event::Refused { id, why: "there is no such exchange".to_owned() };
    Some(())
}

fn forget_flag(history: &mut Vec<Entry>, random: &mut Random) -> Option<()> {
    let found = places(history, |_, event| matches!(event, Event::Delivered { redelivered: true, .. }));
    let at = any(&found, random)?;
    let Event::Delivered { redelivered, .. } = &mut history[at].event else { return None };
    *redelivered = false;
    Some(())
}

fn deliver_twice(history: &mut Vec<Entry>, random: &mut Random) -> Option<()> {
    let at = any(&places(history, |_, event| is_delivery(event)), random)?;
    let of = held(&history[at].event)?;
    insert_again(history, at + 1, of, of.life);
    Some(())
}

fn resurrect_durable(history: &mut Vec<Entry>, random: &mut Random) -> Option<()> {
    let at = any(&places(history, |_, event| matches!(event, Event::AckDurable { .. })), random)?;
    let of = held(&history[at].event)?;
    insert_again(history, history.len(), of, LIVES);
    Some(())
}

fn resurrect_at_once(history: &mut Vec<Entry>, random: &mut Random) -> Option<()> {
    let at = any(&places(history, |_, event| matches!(event, Event::AckSent { .. })), random)?;
    let of = held(&history[at].event)?;
    insert_again(history, at + 1, of, of.life);
    Some(())
}

fn resurrect_covered(history: &mut Vec<Entry>, random: &mut Random) -> Option<()> {
    let found = places(history, |at, event| {
        let Event::AckSent { held } = event else { return false };
        let durable = history.get(at + 1).is_some_and(|next| matches!(next.event, Event::AckDurable { .. }));
        let covered = history[at..].iter().any(|later| {
            matches!(later.event, Event::AckDurable { held: other } if (other.consumer, other.life) == (held.consumer, held.life))
        });
        !durable && covered
    });
    let at = any(&found, random)?;
    let of = held(&history[at].event)?;
    insert_again(history, history.len(), of, LIVES);
    Some(())
}

/// The broker lives on for two seconds after an ack that it then loses.
fn resurrect_old(history: &mut Vec<Entry>, random: &mut Random) -> Option<()> {
    let found = places(history, |at, event| {
        let Some(of) = held(event).filter(|_| is_delivery(event)) else { return false };
        let before = history[..at].iter().rfind(|entry| same_place(&entry.event, of));
        before.is_some_and(|before| matches!(before.event, Event::AckSent { .. }))
    });
    let at = any(&found, random)?;
    let of = held(&history[at].event)?;
    let acked_in = held(&history[delivery_before(history, at, of)?].event)?.life;
    let down = *places(history, |_, event| *event == Event::Down).get(acked_in as usize)?;
    history[down..].iter_mut().for_each(|entry| entry.at_us += 2_000_000);
    Some(())
}

fn disorder(history: &mut Vec<Entry>, random: &mut Random) -> Option<()> {
    let first_in_life = |at: usize, event: &Event| {
        let Some(of) = held(event).filter(|of| is_delivery(event) && of.queue < 6) else { return false };
        delivery_before(history, at, of)
            .is_none_or(|before| held(&history[before].event).is_some_and(|before| before.life < of.life))
    };
    let found = places(history, first_in_life);
    let late = any(&found, random)?;
    let of = held(&history[late].event)?;
    let early = found.into_iter().find(|at| {
        held(&history[*at].event).is_some_and(|other| {
            (other.consumer, other.life, other.id.publisher) == (of.consumer, of.life, of.id.publisher)
        })
    })?;
    if early == late {
        return None;
    }
    history[early..=late].rotate_right(1);
    Some(())
}

fn forget_failure(history: &mut Vec<Entry>, random: &mut Random) -> Option<()> {
    let found = places(history, |at, event| {
        let before = at.checked_sub(1).map(|before| &history[before].event);
        is_delivery(event) && matches!(before, Some(Event::Requeued { .. }))
    });
    let at = any(&found, random)?;
    let Event::Delivered { failures, .. } = &mut history[at].event else { return None };
    *failures -= 1;
    Some(())
}

/// A dead letter that was rejected in an earlier life, and is in its first queue as well.
fn keep_both(history: &mut Vec<Entry>, random: &mut Random) -> Option<()> {
    let found = places(history, |at, event| {
        let Some(of) = held(event).filter(|of| is_delivery(event) && of.queue == 6) else { return false };
        let Some(before) = delivery_before(history, at, Held { queue: 5, ..of }) else { return false };
        held(&history[before].event).is_some_and(|before| before.life < of.life)
    });
    let at = any(&found, random)?;
    let of = held(&history[at].event)?;
    insert_again(history, at, Held { queue: 5, ..of }, of.life);
    Some(())
}

fn lose_dead_letter(history: &mut Vec<Entry>, random: &mut Random) -> Option<()> {
    let found = places(
        history,
        |_, event| matches!(event, Event::Rejected { held } if held.queue == 5 && is_confirmed(history, held.id)),
    );
    let of = held(&history[any(&found, random)?].event)?;
    history.retain(|entry| held(&entry.event).is_none_or(|held| held.id != of.id || held.queue == 5));
    Some(())
}
