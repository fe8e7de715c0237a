//! What somebody has been handed and has not settled, by dense tags.

use std::collections::{BTreeMap, VecDeque};

/// Below this many slots it is not worth while to look for gaps.
const SLOTS_KEPT: usize = 64;

/// A holder's deliveries by tag, or whatever else is numbered from 1 and settled in almost that order. Tags are dense, so a settle is an index and not a search.
///
/// A settled delivery leaves an empty slot until it is the oldest. A holder that keeps one old delivery while it
/// works through millions would keep millions of empty slots; once they are most of all, the few that are left move
/// to `stragglers` and the slots start afresh. So the memory is in proportion to what is unsettled.
#[derive(Debug)]
pub(crate) struct Unacked<E> {
    /// The tag of the first slot.
    first: u64,
    slots: VecDeque<Option<E>>,
    /// Deliveries with tags below `first`.
    stragglers: BTreeMap<u64, E>,
    /// How many slots are not empty.
    held: usize,
}

impl<E> Unacked<E> {
    pub(crate) fn new() -> Self {
        Self { first: 1, slots: VecDeque::new(), stragglers: BTreeMap::new(), held: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.held + self.stragglers.len()
    }

    /// Keeps a delivery until it is settled, and gives it its tag.
    pub(crate) fn hold(&mut self, entry: E) -> u64 {
        let tag = self.next_tag();
        self.slots.push_back(Some(entry));
        self.held += 1;
        tag
    }

    /// The tag of a delivery that needs no settling.
    pub(crate) fn skip(&mut self) -> u64 {
        let tag = self.next_tag();
        if self.slots.is_empty() {
            self.first += 1;
        } else {
            self.slots.push_back(None);
            self.tidy();
        }
        tag
    }

    /// Moves the deliveries `first..=last` to `taken`. If one of them is not held, `Err` names it and those before it
    /// have been moved. The work is bounded by what is held, whatever the range. [`Self::tidy`] has to follow.
    pub(crate) fn take_range(&mut self, first: u64, last: u64, taken: &mut Vec<(u64, E)>) -> Result<(), u64> {
        if last < first {
            return Err(first);
        }
        for tag in first..=last {
            taken.push((tag, self.take(tag).ok_or(tag)?));
        }
        Ok(())
    }

    /// Undoes what [`Self::take_range`] took.
    pub(crate) fn put_back(&mut self, taken: &mut Vec<(u64, E)>) {
        for (tag, entry) in taken.drain(..) {
            match tag.checked_sub(self.first).and_then(|at| self.slots.get_mut(at as usize)) {
                Some(slot) => {
                    *slot = Some(entry);
                    self.held += 1;
                }
                None => {
                    self.stragglers.insert(tag, entry);
                }
            }
        }
    }

    /// Moves every delivery with a tag up to `last` to `taken`, in the order of the tags.
    pub(crate) fn take_up_to(&mut self, last: u64, taken: &mut Vec<(u64, E)>) {
        while let Some(oldest) = self.stragglers.first_entry()
            && *oldest.key() <= last
        {
            taken.push(oldest.remove_entry());
        }
        while self.first <= last
            && let Some(slot) = self.slots.pop_front()
        {
            if let Some(entry) = slot {
                taken.push((self.first, entry));
                self.held -= 1;
            }
            self.first += 1;
        }
        self.tidy();
    }

    /// Gives up the slots that nobody needs. To be called after any number of takes.
    pub(crate) fn tidy(&mut self) {
        while let Some(None) = self.slots.front() {
            self.slots.pop_front();
            self.first += 1;
        }
        if self.slots.len() >= SLOTS_KEPT && self.held * 4 <= self.slots.len() {
            for slot in self.slots.drain(..) {
                if let Some(entry) = slot {
                    self.stragglers.insert(self.first, entry);
                }
                self.first += 1;
            }
            self.held = 0;
        }
        super::ready::shrink_if_sparse(&mut self.slots);
    }

    /// What is held.
    pub(super) fn iter(&self) -> impl Iterator<Item = &E> {
        self.stragglers.values().chain(self.slots.iter().flatten())
    }

    /// What is held.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut E> {
        self.stragglers.values_mut().chain(self.slots.iter_mut().flatten())
    }

    /// How many slots take up memory.
    #[cfg(test)]
    pub(super) fn slots(&self) -> usize {
        self.slots.capacity()
    }

    pub(crate) fn next_tag(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    fn take(&mut self, tag: u64) -> Option<E> {
        match tag.checked_sub(self.first) {
            Some(at) => {
                let entry = self.slots.get_mut(usize::try_from(at).ok()?)?.take()?;
                self.held -= 1;
                Some(entry)
            }
            None => self.stragglers.remove(&tag),
        }
    }
}
