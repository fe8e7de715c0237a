//! Those who hold deliveries of a queue.

use std::sync::Arc;

use super::consumers::{Consumer, Share};
use super::entry::Entry;
use super::state::Verb;
use super::unacked::Unacked;

/// Who holds deliveries of one queue: a consumer, or a channel that gets messages one by one.
///
/// It names one holder for ever. Its slot is used again, its generation is not, so that a late settle for a consumer
/// that has gone cannot settle what another one holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HolderId {
    slot: u32,
    generation: u32,
}

impl HolderId {
    /// A small number that no other holder of the queue has at the same time: an index for side tables.
    pub fn slot(self) -> u32 {
        self.slot
    }
}

#[derive(Debug)]
pub(super) struct Holder {
    pub(super) role: Role,
    pub(super) unacked: Unacked<Entry>,
    /// Its part in a credit for several consumers. A consumer that leaves has it for as long as it holds something.
    pub(super) share: Option<Arc<Share>>,
    /// What a transaction has taken from `unacked`, with what is to become of it. It counts as unsettled.
    pub(super) set_aside: Vec<(u64, Entry, Verb)>,
}

/// A consumer with what it holds.
pub(super) struct Serving<'a> {
    pub(super) id: HolderId,
    pub(super) consumer: &'a mut Consumer,
    pub(super) unacked: &'a mut Unacked<Entry>,
    pub(super) share: Option<&'a Share>,
    set_aside: usize,
}

impl Serving<'_> {
    /// How many deliveries it may get now, by its own limit.
    pub(super) fn credit_left(&self) -> usize {
        self.consumer.credit_left(self.unacked.len() + self.set_aside)
    }
}

#[derive(Debug)]
pub(super) enum Role {
    Consumer(Consumer),
    /// Gets messages one by one.
    Passive,
    /// Gets nothing more, and goes when it has settled what it holds.
    Leaving,
}

impl Role {
    /// Whether a limit of unsettled deliveries means anything to it.
    pub(super) fn is_limited(&self) -> bool {
        match self {
            Self::Consumer(consumer) => !consumer.no_ack,
            Self::Passive => false,
            Self::Leaving => true,
        }
    }
}

impl Holder {
    /// How many deliveries it has that are not settled.
    pub(super) fn unsettled(&self) -> usize {
        self.unacked.len() + self.set_aside.len()
    }

    /// Takes back what was set aside. `scratch` is empty before and after.
    pub(super) fn put_back(&mut self, scratch: &mut Vec<(u64, Entry)>) {
        scratch.extend(self.set_aside.drain(..).map(|(tag, entry, _)| (tag, entry)));
        self.unacked.put_back(scratch);
    }

    pub(super) fn give_back_share(&self, settled: usize) {
        if let Some(share) = &self.share {
            share.give_back(settled);
        }
    }
}

/// All holders, by slot.
#[derive(Debug, Default)]
pub(super) struct Holders {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    holder: Option<Holder>,
}

impl Holders {
    pub(super) fn insert(&mut self, role: Role) -> HolderId {
        let holder = Some(Holder { role, unacked: Unacked::new(), share: None, set_aside: Vec::new() });
        if let Some(slot) = self.free.pop()
            && let Some(place) = self.slots.get_mut(slot as usize)
        {
            place.holder = holder;
            return HolderId { slot, generation: place.generation };
        }
        let slot = self.slots.len() as u32;
        self.slots.push(Slot { generation: 0, holder });
        HolderId { slot, generation: 0 }
    }

    pub(super) fn remove(&mut self, id: HolderId) {
        if let Some(place) = self.slots.get_mut(id.slot as usize)
            && place.generation == id.generation
            && place.holder.take().is_some()
        {
            place.generation = place.generation.wrapping_add(1);
            self.free.push(id.slot);
        }
    }

    pub(super) fn get_mut(&mut self, id: HolderId) -> Option<&mut Holder> {
        let place = self.slots.get_mut(id.slot as usize)?;
        if place.generation == id.generation { place.holder.as_mut() } else { None }
    }

    pub(super) fn get(&self, id: HolderId) -> Option<&Holder> {
        let place = self.slots.get(id.slot as usize)?;
        if place.generation == id.generation { place.holder.as_ref() } else { None }
    }

    /// All deliveries that anybody holds, those included that are set aside for a transaction.
    pub(super) fn held(&self) -> impl Iterator<Item = &Entry> {
        let holders = self.slots.iter().filter_map(|place| place.holder.as_ref());
        holders.flat_map(|holder| {
            holder.unacked.iter().chain(holder.set_aside.iter().map(|(_, entry, _)| entry))
        })
    }

    /// As [`Self::held`].
    pub(super) fn held_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        let holders = self.slots.iter_mut().filter_map(|place| place.holder.as_mut());
        holders.flat_map(|holder| {
            holder.unacked.iter_mut().chain(holder.set_aside.iter_mut().map(|(_, entry, _)| entry))
        })
    }

    /// The consumer in a slot.
    pub(super) fn consumer_mut(&mut self, slot: u32) -> Option<Serving<'_>> {
        let place = self.slots.get_mut(slot as usize)?;
        let id = HolderId { slot, generation: place.generation };
        match place.holder.as_mut()? {
            Holder { role: Role::Consumer(consumer), unacked, share, set_aside } => {
                Some(Serving { id, consumer, unacked, share: share.as_deref(), set_aside: set_aside.len() })
            }
            _ => None,
        }
    }
}
