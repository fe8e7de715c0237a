//! What holds for a queue or a consumer as a whole.

use super::{Checker, Outcome, Published, Rule, Step};
use crate::history::{Event, Held, Id};
use crate::model::{BIN, QUEUES, SINGLE};

/// What is known of a queue.
#[derive(Default)]
pub(super) struct QueueState {
    /// Whether it is there; `None` if nobody can know.
    exists: Option<bool>,
    /// What was published before this place in the history is gone, and before that one may be gone.
    emptied: usize,
    maybe_emptied: usize,
    /// The same of the try before the last one.
    tried: usize,
    /// Of [`BIN`]: what was published since it was last known to be empty.
    published: Vec<Id>,
    /// Of [`SINGLE`]: who gets everything.
    active: Option<u16>,
    /// How many more messages it has, after somebody counted.
    counted: Option<i64>,
}

impl QueueState {
    pub(super) fn published(&mut self, queue: u8, id: Id) {
        if queue == BIN {
            self.published.push(id);
        }
    }

    /// Others may use the queue from now on.
    pub(super) fn broker_ended(&mut self) {
        (self.active, self.counted) = (None, None);
    }

    /// Whether a message that does not come may have been purged.
    pub(super) fn may_lack(&self, message: &Published) -> bool {
        message.begun < self.maybe_emptied
    }
}

impl Checker {
    pub(super) fn about_queue(&mut self, event: &Event) {
        match *event {
            Event::Opened { consumer, prefetch } => {
                self.prefetch.insert(consumer, prefetch);
                self.holds.remove(&consumer);
                self.leave(consumer);
            }
            Event::Left { consumer } => self.leave(consumer),
            Event::EmptyBegun { queue, delete } => {
                let at = self.at;
                let state = &mut self.queues[usize::from(queue)];
                state.tried = std::mem::replace(&mut state.maybe_emptied, at);
                if delete {
                    state.exists = None;
                }
            }
            Event::Emptied { queue, delete, removed } => self.emptied(queue, delete, removed),
            Event::DeclareBegun { queue } => {
                let exists = &mut self.queues[usize::from(queue)].exists;
                *exists = exists.filter(|exists| *exists);
            }
            Event::Declared { queue } => self.queues[usize::from(queue)].exists = Some(true),
            Event::Found { queue, exists } => {
                let known = self.queues[usize::from(queue)].exists.replace(exists);
                if known.is_some_and(|known| known != exists) {
                    let what = format!("{} exists: {exists}", QUEUES[usize::from(queue)]);
                    self.violation(Rule::Definitions, None, what);
                }
            }
            Event::Counted { queue, messages } => {
                let counted = &mut self.queues[usize::from(queue)].counted;
                let missing = counted.take();
                // The second count ends the counting.
                *counted = missing.is_none().then_some(messages.cast_signed());
                if missing.is_some_and(|missing| missing != messages.cast_signed()) {
                    let what = format!("{} delivers less than it counts", QUEUES[usize::from(queue)]);
                    self.violation(Rule::Accounting, None, what);
                }
            }
            _ => {}
        }
    }

    fn leave(&mut self, consumer: u16) {
        let active = &mut self.queues[usize::from(SINGLE)].active;
        *active = active.filter(|other| *other != consumer);
    }

    /// Its only client asked for it, so that all that was published before was answered before.
    fn emptied(&mut self, queue: u8, delete: bool, removed: u64) {
        self.figures.emptied += 1;
        self.figures.removed += removed;
        let state = &mut self.queues[usize::from(queue)];
        state.emptied = state.maybe_emptied;
        let tried = state.tried;
        if delete {
            state.exists = Some(false);
        }
        let published = std::mem::take(&mut state.published);
        let (mut least, mut most) = (0, 0);
        for id in published {
            let life = self.life;
            let Some(message) = self.message(id) else { continue };
            let place = message.places[usize::from(queue)];
            let stored = message.outcome == Outcome::Confirmed || message.seen;
            let possible = !matches!(message.outcome, Outcome::NotStored | Outcome::Full);
            let back = place.life < life;
            let (sure, may) = match place.step {
                Step::None => (stored, possible),
                Step::Requeued => (true, true),
                Step::Held | Step::Rejected => (back, back),
                Step::Acked => (false, back),
                Step::Durable => (false, false),
            };
            least += u64::from(sure && message.begun >= tried);
            most += u64::from(may);
        }
        if !(least..=most).contains(&removed) {
            let name = QUEUES[usize::from(queue)];
            let what = format!("{removed} messages were removed from {name}, which had {least} to {most}");
            self.violation(Rule::Accounting, None, what);
        }
    }

    pub(super) fn check_emptied(&mut self, held: &Held) {
        let emptied = self.queues[usize::from(held.queue)].emptied;
        if self.message(held.id).is_some_and(|message| message.begun < emptied) {
            let what = format!("{} was emptied since it was published", QUEUES[usize::from(held.queue)]);
            self.violation(Rule::Emptied, Some(held.id), what);
        }
    }

    /// A consumer got one more.
    pub(super) fn check_holder(&mut self, held: &Held) {
        let holds = self.holds.entry(held.consumer).or_insert((held.life, 0));
        if holds.0 != held.life {
            *holds = (held.life, 0);
        }
        holds.1 += 1;
        let (_, number) = *holds;
        let prefetch = self.prefetch.get(&held.consumer).copied().unwrap_or(u32::MAX);
        if number > prefetch {
            let what = format!("consumer {} holds {number}, of at most {prefetch}", held.consumer);
            self.violation(Rule::Prefetch, Some(held.id), what);
        }
        let state = &mut self.queues[usize::from(held.queue)];
        state.counted = state.counted.map(|counted| counted - 1);
        if state.counted.is_some_and(|counted| counted < 0) {
            state.counted = None;
            let what = format!("{} delivers more than it counts", QUEUES[usize::from(held.queue)]);
            self.violation(Rule::Accounting, Some(held.id), what);
        }
        if held.queue == SINGLE {
            let active = self.queues[usize::from(SINGLE)].active.replace(held.consumer);
            if let Some(other) = active.filter(|other| *other != held.consumer) {
                let what = format!("consumer {} gets it, and {other} is active", held.consumer);
                self.violation(Rule::SingleActive, Some(held.id), what);
            }
        }
    }

    /// A consumer holds one less, as far as it knows: the broker learns that later, and never earlier.
    pub(super) fn settles(&mut self, held: &Held) {
        if let Some((_, number)) = self.holds.get_mut(&held.consumer).filter(|(life, _)| *life == held.life) {
            *number = number.saturating_sub(1);
        }
    }
}
