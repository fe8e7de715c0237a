//! The rules of a queue, as tables and as a model.

mod delivery;
mod ending;
mod model;
mod paging;
mod settings;
mod settling;

use std::sync::Arc;

use leveret_journal::Position;
use leveret_protocol::{DeathReason, Table, Value};

use super::*;
use crate::store::{Content, Head, Message, Pins, Seq, Stub};

/// When the tests start, in milliseconds since 1970.
const START: u64 = 1_000_000;

/// A queue with its clock and the effects that nobody has looked at yet.
struct Rig {
    state: State,
    fx: Effects,
    now: u64,
}

/// The body of a delivery, and to whom under which tag it went.
type Seen = (HolderId, u64, String);

fn arguments(arguments: &[(&str, Value)]) -> Table {
    arguments.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
}

fn rig(given: &[(&str, Value)]) -> Rig {
    rig_with(Settings::from_arguments(true, false, false, &arguments(given)).unwrap())
}

fn rig_with(settings: Settings) -> Rig {
    Rig { state: State::new(settings, START), fx: Effects::default(), now: START }
}

/// A consumer's wishes, with an outlet that is never full.
fn spec(credit: Credit) -> ConsumerSpec {
    let outlet = Arc::new(Outlet::new(usize::MAX));
    ConsumerSpec { outlet, priority: 0, exclusive: false, no_ack: false, credit }
}

fn message(body: &str, now: u64) -> Message {
    Message::new(Head { published_at_ms: now, ..Head::default() }, body.as_bytes())
}

fn text(message: &Message) -> String {
    String::from_utf8(message.body().to_vec()).unwrap()
}

/// What a restart finds of a message.
fn stub(seq: u64, arrived_ms: u64) -> Stub {
    Stub {
        seq: Seq(seq),
        place: Pins::new(1 << 20).pin(Position(seq * 8)),
        body_bytes: 1,
        priority: 0,
        arrived_ms,
        deadline_ms: u64::MAX,
        failed: 0,
        redelivered: false,
    }
}

fn content_text(content: &Content) -> String {
    match content {
        Content::Loaded(message) => text(message),
        Content::Stored(place) => format!("at {}", place.position().0),
    }
}

impl Rig {
    fn publish(&mut self, body: &str) -> Result<Seq, Refused> {
        self.publish_message(message(body, self.now))
    }

    fn publish_message(&mut self, message: Message) -> Result<Seq, Refused> {
        self.state.enqueue(message, self.now, &mut self.fx)
    }

    fn publish_all(&mut self, bodies: &str) {
        for body in bodies.split_whitespace() {
            self.publish(body).unwrap();
        }
    }

    fn publish_with_ttl(&mut self, body: &str, ttl_ms: u64) {
        self.publish_message(message(body, self.now).with(|head| head.ttl_ms = Some(ttl_ms))).unwrap();
    }

    fn publish_with_priority(&mut self, body: &str, priority: u8) {
        self.publish_message(message(body, self.now).with(|head| head.priority = priority)).unwrap();
    }

    fn consumer(&mut self, credit: Credit) -> HolderId {
        self.state.subscribe(spec(credit)).unwrap()
    }

    fn settle(&mut self, holder: HolderId, ranges: &[(u64, u64)], verb: &Verb) -> Result<(), UnknownTag> {
        self.state.settle(holder, ranges, verb, &mut self.fx)
    }

    fn reject(&mut self, holder: HolderId, tag: u64) {
        self.settle(holder, &[(tag, tag)], &Verb::Reject { note: None }).unwrap();
    }

    fn get(&mut self, holder: HolderId) -> Option<Got> {
        self.state.get(holder, false, self.now, &mut self.fx)
    }

    fn tick_at(&mut self, now: u64) {
        self.now = now;
        self.state.tick(now, &mut self.fx);
    }

    /// Dispatches, and takes the deliveries since the last call.
    fn dispatch(&mut self) -> Vec<Seen> {
        self.state.dispatch(self.now, &mut self.fx);
        self.fx.deliveries.drain(..).map(|d| (d.holder, d.tag, text(&d.message))).collect()
    }

    /// Dispatches, and takes the bodies of the deliveries since the last call.
    fn bodies(&mut self) -> String {
        self.dispatch().into_iter().map(|(_, _, body)| body).collect::<Vec<_>>().join(" ")
    }

    /// Takes the dead since the last call.
    fn dead(&mut self) -> Vec<(String, DeathReason)> {
        self.fx.dead.drain(..).map(|dead| (content_text(&dead.content), dead.reason)).collect()
    }

    /// Takes the places that were left for good since the last call.
    fn gone(&mut self) -> Vec<u64> {
        self.fx.gone.drain(..).map(|seq| seq.0).collect()
    }

    /// Reads what is to be delivered next, all of it; a message's body is its seq.
    fn read(&mut self) {
        loop {
            let Wanted { seqs, places, .. } = self.state.wanted_by_get();
            if seqs.is_empty() {
                return;
            }
            for (seq, place) in seqs.into_iter().zip(places) {
                let place = Some(place);
                let message = message(&seq.0.to_string(), START).with(|head| head.place = place);
                self.state.load(seq, message);
            }
        }
    }

    fn counts(&self) -> (u64, u64) {
        (self.state.ready(), self.state.unacked())
    }
}

fn dead(all: &[(&str, DeathReason)]) -> Vec<(String, DeathReason)> {
    all.iter().map(|(body, reason)| ((*body).to_owned(), *reason)).collect()
}
