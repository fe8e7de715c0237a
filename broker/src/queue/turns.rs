//! Whose turn it is: round-robin among the consumers of the highest priority that can take a message.

use std::collections::VecDeque;

/// The consumers that wait for their turn, by slot. Each is in at most once.
///
/// Whether a consumer can really take a message is judged when its turn comes, not when it loses its credit: so
/// neither needs a search.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// One for each priority that has consumers, highest first.
    rings: Vec<Ring>,
}

#[derive(Debug)]
struct Ring {
    priority: i32,
    /// How many consumers have this priority, waiting or not. With the last of them the ring goes.
    members: usize,
    waiting: VecDeque<u32>,
}

impl Turns {
    /// A consumer of this priority came. It waits for no turn yet.
    pub(super) fn join(&mut self, priority: i32) {
        match self.find(priority) {
            Ok(at) => {
                if let Some(ring) = self.rings.get_mut(at) {
                    ring.members += 1;
                }
            }
            Err(at) => self.rings.insert(at, Ring { priority, members: 1, waiting: VecDeque::new() }),
        }
    }

    /// A consumer of this priority left.
    pub(super) fn leave(&mut self, priority: i32, slot: u32) {
        let Ok(at) = self.find(priority) else { return };
        let Some(ring) = self.rings.get_mut(at) else { return };
        ring.members -= 1;
        ring.waiting.retain(|waiting| *waiting != slot);
        if ring.members == 0 {
            self.rings.remove(at);
        }
    }

    /// Puts a consumer behind all others of its priority.
    pub(super) fn push(&mut self, priority: i32, slot: u32) {
        if let Ok(at) = self.find(priority)
            && let Some(ring) = self.rings.get_mut(at)
        {
            ring.waiting.push_back(slot);
        }
    }

    /// Takes the one whose turn it is, and says how many others of its priority wait.
    pub(super) fn pop(&mut self) -> Option<(u32, usize)> {
        self.rings.iter_mut().find_map(|ring| Some((ring.waiting.pop_front()?, ring.waiting.len())))
    }

    fn find(&self, priority: i32) -> Result<usize, usize> {
        self.rings.binary_search_by(|ring| priority.cmp(&ring.priority))
    }
}
