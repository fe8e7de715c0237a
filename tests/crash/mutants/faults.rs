//! The faults: each changes a right history, or finds no place for itself in it.

use super::right::LIVES;
use crate::history::{Entry, Event, Held, Id};
use crate::model::{BIN, BRIEF, ROUTES, SINGLE, SMALL, chain_behind};
use crate::random::Random;

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

pub(super) fn lose(history: &mut Vec<Entry>, random: &mut Random) -> Option<()> {
    let found = places(history, |_, event| {
        is_delivery(event)
            && held(event).is_some_and(|held| chain_behind(held.queue).is_none() && held.queue != BIN)
    });
    let found: Vec<usize> = found
        .into_iter()
        .filter(|at| held(&history[*at].event).is_some_and(|held| is_confirmed(history, held.id)))
        .collect();
    let of = held(&history[any(&found, random)?].event)?;
    history.retain(|entry| !same_place(&entry.event, of));
    recount(history);
    Some(())
}

pub(super) fn lose_after_delivery(history: &mut Vec<Entry>, random: &mut Random) -> Option<()> {
    let last = places(history, |at, event| {
        let Some(of) = held(event)
            .filter(|of| is_delivery(event) && chain_behind(of.queue).is_none() && of.queue != BIN)
        else {
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
    recount(history);
    Some(())
}

pub(super) fn deliver_unpublished(history: &mut Vec<Entry>, random: &mut Random) -> Option<()> {
    let at = any(&places(history, |_, event| is_delivery(event)), random)?;
    let of = held(&history[at].event)?;
    let id = Id { number: 1_000_000, ..of.id };
    let held = Held { id, ..of };
    insert(history, at, Event::Delivered { held, route: 0, redelivered: false, failures: 0 });
    Some(())
}

pub(super) fn deliver_elsewhere(history: &mut Vec<Entry>, random: &mut Random) -> Option<()> {
    let at = any(&places(history, |_, event| is_delivery(event)), random)?;
    let Event::Delivered { held, route, .. } = history[at].event else { return None };
    let other = (0..5).find(|queue| !ROUTES[usize::from(route)].queues.contains(queue))?;
    let held = Held { queue: other, ..held };
    insert(history, at, Event::Delivered { held, route, redelivered: false, failures: 0 });
    Some(())
}

pub(super) fn deliver_garbage(history: &mut Vec<Entry>, random: &mut Random) -> Option<()> {
    let at = any(&places(history, |_, event| is_delivery(event)), random)?;
    insert(history, at, Event::Corrupt { queue: 0 });
    Some(())
}

pub(super) fn exchange_body(history: &mut Vec<Entry>, random: &mut Random) -> Option<()> {
    let at = any(&places(history, |_, event| is_delivery(event)), random)?;
    let Event::Delivered { route, .. } = &mut history[at].event else { return None };
    *route = (*route + 1) % ROUTES.len() as u8;
    Some(())
}

pub(super) fn miscount(history: &mut Vec<Entry>, random: &mut Random) -> Option<()> {
    let at = any(&places(history, |_, event| matches!(event, Event::Confirmed { .. })), random)?;
    let Event::Confirmed { queues, .. } = &mut history[at].event else { return None };
    *queues -= 1;
    Some(())
}

pub(super) fn deliver_unsent(history: &mut Vec<Entry>, random: &mut Random) -> Option<()> {
    let at = any(
        &places(history, |at, event| {
            // In the bin the count of what was purged would say it first.
            let to_bin = at > 0 && matches!(history[at - 1].event, Event::Begun { route: 6, .. });
            !to_bin && matches!(event, Event::Confirmed { .. })
        }),
        random,
    )?;
    let id = history[at].event.id()?;
    history[at].event = Event::NotSent { id };
    // Sometimes the publisher learns it only after the message was seen.
    if random.below(2) == 0 {
        let seen =
            places(history, |_, event| is_delivery(event) && held(event).is_some_and(|held| held.id == id));
        let delivery = history[*seen.first()?].event.clone();
        insert(history, at, delivery);
    }
    Some(())
}

pub(super) fn dead_letter_unasked(history: &mut Vec<Entry>, random: &mut Random) -> Option<()> {
    let found = places(history, |_, event| matches!(event, Event::Rejected { held } if held.queue != BRIEF));
    history.remove(any(&found, random)?);
    Some(())
}

pub(super) fn refuse(history: &mut Vec<Entry>, random: &mut Random) -> Option<()> {
    let at = any(&places(history, |_, event| matches!(event, Event::Confirmed { .. })), random)?;
    let id = history[at].event.id()?;
    history[at].event = Event::Refused { id, why: "there is no such exchange".to_owned() };
    Some(())
}

pub(super) fn forget_flag(history: &mut Vec<Entry>, random: &mut Random) -> Option<()> {
    let found = places(
        history,
        |_, event| matches!(event, Event::Delivered { held, redelivered: true, .. } if held.queue != BRIEF + 1),
    );
    let at = any(&found, random)?;
    let Event::Delivered { redelivered, .. } = &mut history[at].event else { return None };
    *redelivered = false;
    Some(())
}

pub(super) fn deliver_twice(history: &mut Vec<Entry>, random: &mut Random) -> Option<()> {
    let at = any(&places(history, |_, event| is_delivery(event)), random)?;
    let of = held(&history[at].event)?;
    insert_again(history, at + 1, of, of.life);
    Some(())
}

pub(super) fn resurrect_durable(history: &mut Vec<Entry>, random: &mut Random) -> Option<()> {
    let at = any(&places(history, |_, event| matches!(event, Event::AckDurable { .. })), random)?;
    let of = held(&history[at].event)?;
    insert_again(history, history.len(), of, LIVES);
    Some(())
}

pub(super) fn resurrect_at_once(history: &mut Vec<Entry>, random: &mut Random) -> Option<()> {
    let at = any(&places(history, |_, event| matches!(event, Event::AckSent { .. })), random)?;
    let of = held(&history[at].event)?;
    insert_again(history, at + 1, of, of.life);
    Some(())
}

pub(super) fn resurrect_covered(history: &mut Vec<Entry>, random: &mut Random) -> Option<()> {
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
pub(super) fn resurrect_old(history: &mut Vec<Entry>, random: &mut Random) -> Option<()> {
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

pub(super) fn disorder(history: &mut Vec<Entry>, random: &mut Random) -> Option<()> {
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

pub(super) fn forget_failure(history: &mut Vec<Entry>, random: &mut Random) -> Option<()> {
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
pub(super) fn keep_both(history: &mut Vec<Entry>, random: &mut Random) -> Option<()> {
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

pub(super) fn lose_dead_letter(history: &mut Vec<Entry>, random: &mut Random) -> Option<()> {
    let found = places(
        history,
        |_, event| matches!(event, Event::Rejected { held } if held.queue == 5 && is_confirmed(history, held.id)),
    );
    let of = held(&history[any(&found, random)?].event)?;
    history.retain(|entry| held(&entry.event).is_none_or(|held| held.id != of.id || held.queue == 5));
    recount(history);
    Some(())
}

/// A broker that loses a message does not count it either.
fn recount(history: &mut [Entry]) {
    for at in 0..history.len() {
        let Event::Counted { queue, .. } = history[at].event else { continue };
        let drained = history[at + 1..]
            .iter()
            .take_while(|entry| !matches!(entry.event, Event::Counted { .. }))
            .filter(|entry| {
                is_delivery(&entry.event) && held(&entry.event).is_some_and(|held| held.queue == queue)
            })
            .count();
        history[at].event = Event::Counted { queue, messages: drained as u64 };
    }
}

/// The same history with publishers of its own. What holds for a queue as a whole is left out.
pub(super) fn renumbered(history: Vec<Entry>, copy: u32) -> Vec<Entry> {
    let own = |id: Id| Id { publisher: copy * 4 + id.publisher, ..id };
    let mut renumbered = Vec::new();
    for Entry { at_us, mut event } in history {
        match &mut event {
            Event::Begun { id, .. }
            | Event::Confirmed { id, .. }
            | Event::Unknown { id }
            | Event::NotSent { id }
            | Event::Full { id }
            | Event::Refused { id, .. } => *id = own(*id),
            Event::Delivered { held, .. }
            | Event::AckSent { held }
            | Event::AckDurable { held }
            | Event::Requeued { held }
            | Event::Rejected { held } => held.id = own(held.id),
            Event::Corrupt { .. } | Event::Down => {}
            _ => continue,
        }
        renumbered.push(Entry { at_us, event });
    }
    renumbered
}

pub(super) fn exceed_prefetch(history: &mut Vec<Entry>, random: &mut Random) -> Option<()> {
    let found = places(history, |at, event| {
        let Event::Opened { consumer, .. } = event else { return false };
        let next = history[at + 1..].iter().find_map(|entry| match &entry.event {
            Event::Delivered { held, .. } => Some(held.consumer),
            _ => None,
        });
        next == Some(*consumer)
    });
    let at = any(&found, random)?;
    let Event::Opened { prefetch, .. } = &mut history[at].event else { return None };
    *prefetch = 0;
    Some(())
}

pub(super) fn activate_two(history: &mut Vec<Entry>, random: &mut Random) -> Option<()> {
    let found = places(history, |at, event| {
        let of = |event: &Event| held(event).filter(|of| is_delivery(event) && of.queue == SINGLE);
        let before = history[..at].iter().rev().find_map(|entry| of(&entry.event));
        of(event).is_some_and(|now| before.is_some_and(|before| before.life == now.life))
    });
    let at = any(&found, random)?;
    let Event::Delivered { held, .. } = &mut history[at].event else { return None };
    held.consumer = 77;
    Some(())
}

pub(super) fn expire_early(history: &mut Vec<Entry>, random: &mut Random) -> Option<()> {
    let found = places(history, |at, event| {
        let Some(of) = held(event).filter(|of| is_delivery(event) && of.queue == BRIEF + 1) else {
            return false;
        };
        !history[..at].iter().any(|entry| matches!(entry.event, Event::Rejected { held } if held.id == of.id))
    });
    let at = any(&found, random)?;
    let id = history[at].event.id()?;
    let begun =
        history.iter().find(|entry| matches!(entry.event, Event::Begun { id: begun, .. } if begun == id))?;
    history[at].at_us = begun.at_us + 1000;
    Some(())
}

pub(super) fn deliver_expired(history: &mut Vec<Entry>, random: &mut Random) -> Option<()> {
    let found = places(history, |_, event| {
        held(event).is_some_and(|of| is_delivery(event) && of.queue == BRIEF && is_confirmed(history, of.id))
    });
    let at = any(&found, random)?;
    history[at..].iter_mut().for_each(|entry| entry.at_us += 60_000_000);
    Some(())
}

pub(super) fn deliver_refused(history: &mut Vec<Entry>, random: &mut Random) -> Option<()> {
    let at = any(&places(history, |_, event| matches!(event, Event::Full { .. })), random)?;
    let id = history[at].event.id()?;
    let held = Held { id, queue: SMALL, consumer: u16::from(SMALL), life: LIVES };
    // Sometimes the publisher learns it only after the message was seen.
    let at = if random.below(2) == 0 { at } else { history.len() };
    insert(history, at, Event::Delivered { held, route: 9, redelivered: false, failures: 0 });
    Some(())
}

pub(super) fn unpurge(history: &mut Vec<Entry>, random: &mut Random) -> Option<()> {
    let last = history.iter().rposition(|entry| matches!(entry.event, Event::EmptyBegun { .. }))?;
    let found = places(history, |at, event| at < last && matches!(event, Event::Begun { route: 6, .. }));
    let id = history[any(&found, random)?].event.id()?;
    let held = Held { id, queue: BIN, consumer: 0, life: LIVES };
    insert_again(history, history.len(), held, LIVES);
    Some(())
}

pub(super) fn miscount_purged(history: &mut Vec<Entry>, random: &mut Random) -> Option<()> {
    let at = any(&places(history, |_, event| matches!(event, Event::Emptied { .. })), random)?;
    let Event::Emptied { removed, .. } = &mut history[at].event else { return None };
    // One more may be an ack that was lost.
    *removed += 100;
    Some(())
}

pub(super) fn miscount_ready(history: &mut Vec<Entry>, random: &mut Random) -> Option<()> {
    let found = places(history, |_, event| matches!(event, Event::Counted { messages: 1.., .. }));
    let at = any(&found, random)?;
    let Event::Counted { messages, .. } = &mut history[at].event else { return None };
    if random.below(2) == 0 {
        *messages += 1;
    } else {
        *messages -= 1;
    }
    Some(())
}

pub(super) fn confirm_twice(history: &mut Vec<Entry>, random: &mut Random) -> Option<()> {
    let at = any(&places(history, |_, event| matches!(event, Event::Confirmed { .. })), random)?;
    let again = history[at].event.clone();
    insert(history, at + 1, again);
    Some(())
}

pub(super) fn forget_confirm(history: &mut Vec<Entry>, random: &mut Random) -> Option<()> {
    let found = places(history, |at, event| {
        let Event::Confirmed { id, .. } = event else { return false };
        let later = |entry: &Entry| matches!(entry.event, Event::Confirmed { id: other, .. } if other.publisher == id.publisher);
        history[at + 1..].iter().any(later)
    });
    history.remove(any(&found, random)?);
    Some(())
}

pub(super) fn forget_definition(history: &mut Vec<Entry>, random: &mut Random) -> Option<()> {
    let found = places(history, |at, event| at > 500 && matches!(event, Event::Found { .. }));
    let at = any(&found, random)?;
    let Event::Found { exists, .. } = &mut history[at].event else { return None };
    *exists = !*exists;
    Some(())
}
