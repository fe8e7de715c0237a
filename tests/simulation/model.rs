//! What the broker must have: queues as lists of messages, and a log of changes with their places in the journal.
//!
//! The journal is one log, and a crash keeps a front of it. So whatever a crash takes, what is recovered must be exactly
//! what the changes up to the recovered end make, and that end must not lie before what was called synced. A change of
//! several groups that the end cuts in two may have happened up to any of them.

use leveret_journal::Position;

/// The queues: vhost and name; elsewhere a queue is its index here.
pub(crate) const QUEUES: [(usize, &str); 7] =
    [(0, "a"), (0, "b"), (0, "work"), (0, "dead"), (0, "brief"), (0, "temporary"), (1, "a")];
pub(crate) const WORK: usize = 2;
pub(crate) const DEAD: usize = 3;
pub(crate) const BRIEF: usize = 4;
/// Made, bound and deleted again and again.
pub(crate) const TEMPORARY: usize = 5;
/// How long a message may wait in [`BRIEF`].
pub(crate) const TTL_MS: u64 = 1000;

/// A message in a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) id: u32,
    pub(crate) failures: u32,
    /// Whether anybody has had it.
    pub(crate) seen: bool,
    /// A consumer has it in this life.
    pub(crate) held: bool,
    pub(crate) arrived_ms: u64,
    pub(crate) persistent: bool,
}

#[derive(Debug, Clone)]
pub(crate) enum Change {
    Enqueued(usize, Place),
    Gone(usize, u32),
    /// A client has it.
    Seen(usize, u32),
    /// It is on its way to a client.
    Handed(usize, u32),
    Failed(usize, u32),
    Declared,
    Bound,
    Deleted,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct State {
    /// In the queues' order.
    pub(crate) queues: [Vec<Place>; QUEUES.len()],
    pub(crate) temporary: bool,
    pub(crate) bound: bool,
}

impl State {
    pub(crate) fn apply(&mut self, change: &Change) {
        match *change {
            Change::Enqueued(queue, place) => self.queues[queue].push(place),
            Change::Gone(queue, id) => self.queues[queue].retain(|place| place.id != id),
            Change::Seen(queue, id) => self.with(queue, id, |place| (place.seen, place.held) = (true, true)),
            Change::Handed(queue, id) => self.with(queue, id, |place| place.held = true),
            Change::Failed(queue, id) => self.with(queue, id, |place| {
                place.failures += 1;
                place.held = false;
            }),
            Change::Declared => self.temporary = true,
            Change::Bound => self.bound = true,
            Change::Deleted => {
                (self.temporary, self.bound) = (false, false);
                self.queues[TEMPORARY].clear();
            }
        }
    }

    fn with(&mut self, queue: usize, id: u32, act: impl FnOnce(&mut Place)) {
        if let Some(place) = self.queues[queue].iter_mut().find(|place| place.id == id) {
            act(place);
        }
    }

    /// What a restart leaves: nobody holds anything, and what is not persistent is gone.
    fn restarted(mut self) -> Self {
        for queue in &mut self.queues {
            queue.retain(|place| place.persistent);
            for place in queue {
                place.held = false;
            }
        }
        self
    }

    /// The messages that expire at this time, in order.
    pub(crate) fn due(&self, now_ms: u64) -> Vec<Place> {
        let due = |place: &&Place| !place.held && place.arrived_ms + TTL_MS <= now_ms;
        self.queues[BRIEF].iter().filter(due).copied().collect()
    }

    pub(crate) fn expire(&mut self, now_ms: u64) {
        for place in self.due(now_ms) {
            for change in moved(place, now_ms) {
                self.apply(&change);
            }
        }
    }
}

/// A message of [`BRIEF`] that has expired.
pub(crate) fn moved(place: Place, now_ms: u64) -> [Change; 2] {
    let letter = Place { failures: 0, seen: false, held: false, arrived_ms: now_ms, ..place };
    [Change::Enqueued(DEAD, letter), Change::Gone(BRIEF, place.id)]
}

/// What one request did: groups of changes, in the journal between two places.
struct Request {
    start: Position,
    end: Position,
    groups: Vec<Vec<Change>>,
}

#[derive(Default)]
pub(crate) struct Model {
    /// As of the start of this life.
    base: State,
    requests: Vec<Request>,
    pub(crate) now: State,
    /// The furthest that was ever called synced.
    pub(crate) synced: Position,
    /// Whether the first start has declared everything, for good.
    pub(crate) declared: bool,
}

impl Model {
    pub(crate) fn note(&mut self, start: Position, end: Position, groups: Vec<Vec<Change>>) {
        groups.iter().flatten().for_each(|change| self.now.apply(change));
        self.requests.push(Request { start, end, groups });
    }

    /// The states that a recovery which ended there may have found.
    pub(crate) fn expected(&self, end: Position) -> Vec<State> {
        let mut state = self.base.clone();
        let mut possible = Vec::new();
        for Request { start, end: request_end, groups } in &self.requests {
            let cut = *request_end > end;
            if cut && *start > end {
                break;
            }
            for group in groups {
                if cut {
                    possible.push(state.clone());
                }
                for change in group {
                    state.apply(change);
                }
            }
            if cut {
                break;
            }
        }
        possible.push(state);
        // What a client has seen it has seen, whatever became of the journal.
        let changes = || self.requests.iter().flat_map(|request| request.groups.iter().flatten());
        for state in &mut possible {
            for change in changes().filter(|change| matches!(change, Change::Seen(..))) {
                state.apply(change);
            }
        }
        possible.into_iter().map(State::restarted).collect()
    }

    /// What was found is what there is.
    pub(crate) fn restart(&mut self, found: State, end: Position) {
        self.base = found.clone();
        self.now = found;
        self.requests.clear();
        self.synced = end;
    }
}
