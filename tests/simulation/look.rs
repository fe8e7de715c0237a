//! Looks into the queues of a broker, and compares two states.

use std::fmt::Write as _;

use leveret_broker::exchange::{Publisher, Routable, Route};
use leveret_broker::queue::Verb;
use leveret_protocol::Table;

use crate::core::{Core, VHOSTS};
use crate::life::FAN;
use crate::model::{Place, QUEUES, State, TEMPORARY};

/// Everything that a broker has, in order.
pub(crate) fn observe(core: &mut Core) -> State {
    let mut state = State::default();
    for (index, (vhost, name)) in QUEUES.into_iter().enumerate() {
        let Some(queue) = core.queue(vhost, name) else { continue };
        state.temporary |= index == TEMPORARY;
        let holder = queue.open_passive(&mut core.work).unwrap();
        let mut last = 0;
        while let Some(got) = queue.get(holder, false, &mut core.work).unwrap() {
            let delivery = got.delivery;
            last = delivery.tag;
            state.queues[index].push(Place {
                id: check_body(delivery.message.body(), vhost),
                failures: delivery.delivery_count,
                seen: delivery.redelivered,
                held: false,
                arrived_ms: delivery.message.published_at_ms,
                persistent: delivery.message.persistent,
            });
        }
        if last > 0 {
            queue.settle(holder, &[(0, last)], &Verb::Release, &mut core.work).unwrap().unwrap();
        }
        queue.release(holder, &mut core.work).unwrap();
        core.vhost(vhost).finish(&mut core.work);
    }
    let no_headers = Box::new(Table::new());
    let routable = Routable { key: "", further_keys: &[], headers: &no_headers };
    let fan = core.vhost(0).resolve(Publisher::Client, FAN, &routable, &mut Route::default()).unwrap().0;
    state.bound = fan.queues.len() > 2;
    state
}

/// Whether a broker has what it must have. It may flag more as redelivered than was seen, and count a failure for a
/// delivery that a crash cut short.
pub(crate) fn agree(expected: &State, found: &State) -> bool {
    (expected.temporary, expected.bound) == (found.temporary, found.bound)
        && expected.queues.iter().zip(&found.queues).all(|(expected, found)| {
            expected.len() == found.len()
                && expected.iter().zip(found).all(|(expected, found)| {
                    expected.id == found.id
                        && (found.seen || !expected.seen)
                        && (expected.failures..=expected.failures + 1).contains(&found.failures)
                })
        })
}

/// Where two states do not agree.
pub(crate) fn difference(expected: &State, found: &State) -> String {
    let mut text = String::new();
    for (queue, (expected, found)) in expected.queues.iter().zip(&found.queues).enumerate() {
        let show = |places: &[Place]| -> Vec<_> {
            places.iter().map(|place| (place.id, place.failures, place.seen)).collect()
        };
        if show(expected) != show(found) {
            let (expected, found) = (show(expected), show(found));
            writeln!(text, "{:?}\n  {expected:?}\n  {found:?}", QUEUES[queue]).unwrap();
        }
    }
    let defined = |state: &State| (state.temporary, state.bound);
    text + &format!("temporary queue there and bound: {:?}, {:?}\n\n", defined(expected), defined(found))
}

/// A state with the failures that the broker counts.
pub(crate) fn with_failures(state: &State, found: &State) -> State {
    let mut state = state.clone();
    for (places, found) in state.queues.iter_mut().zip(&found.queues) {
        for place in places {
            let same = found.iter().find(|found| found.id == place.id);
            place.failures = same.map_or(place.failures, |same| same.failures);
        }
    }
    state
}

/// The number in a body, of which every byte is right.
pub(crate) fn check_body(body: &[u8], vhost: usize) -> u32 {
    let (id, rest) = body.split_first_chunk().unwrap();
    let id = u32::from_le_bytes(*id);
    let right = rest[0] == vhost as u8 && rest[1..] == vec![id as u8 ^ vhost as u8; rest.len() - 1];
    assert!(right, "message {id} has other bytes, or is in vhost {} by mistake", VHOSTS[vhost]);
    id
}
