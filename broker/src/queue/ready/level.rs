//! The ready messages of one priority, in the order of their arrival, which is that of their `seq`.

use std::collections::{BTreeMap, VecDeque};

use leveret_journal::Position;

use super::{Wanted, shrink_if_sparse};
use crate::queue::entry::{Entry, NEVER};
use crate::store::{Message, Pack, Place, STUBS_PER_PACK, Seq, Stub};

/// Fewer entries than this are not packed but lose their messages one by one: packs have a size of their own.
/// (In tests so few that random operations make packs.)
const PACKED_MIN: usize = if cfg!(test) { 2 } else { 256 };

/// How many messages are looked at for one that is to leave memory.
const LOOKED_AT_FOR_ONE: usize = 4;

/// One level. A short one is `front` alone; the middle of a long backlog is packed while memory is short.
///
/// ```text
///   front ── packs ── back        and strays, whose places are anywhere
/// ```
#[derive(Debug, Default)]
pub(super) struct Level {
    /// What is next. Most messages that come back go to its front.
    front: VecDeque<Entry>,
    /// What follows: only where it is.
    packs: VecDeque<Pack>,
    /// What came last. Used only while there are packs, or was until a moment ago.
    back: VecDeque<Entry>,
    /// Messages that came back out of order and whose place is inside the run, and those inside what was packed that
    /// could not be.
    strays: BTreeMap<u64, Entry>,
    /// Whether one of the strays may be in memory although it need not.
    strays_to_unload: bool,
}

impl Level {
    pub(super) fn is_empty(&self) -> bool {
        self.front.is_empty() && self.packs.is_empty() && self.back.is_empty() && self.strays.is_empty()
    }

    pub(super) fn put(&mut self, entry: Entry) {
        if self.last().is_none_or(|last| last < entry.seq) {
            let run =
                if self.packs.is_empty() && self.back.is_empty() { &mut self.front } else { &mut self.back };
            run.push_back(entry);
        } else if self.first().is_some_and(|first| entry.seq < first) {
            self.front.push_front(entry);
        } else {
            self.strays_to_unload = true;
            self.strays.insert(entry.seq.0, entry);
        }
    }

    /// Puts messages at the end that are only in the journal. They come in the order of their seqs, behind all others.
    pub(super) fn put_pack(&mut self, pack: Pack) {
        self.packs.push_back(pack);
    }

    /// The next message's place in the queue.
    pub(super) fn head_seq(&self) -> Option<Seq> {
        let stray = self.strays.first_key_value().map(|(seq, _)| Seq(*seq));
        self.first().into_iter().chain(stray).min()
    }

    /// The deadline of the next message; [`NEVER`] if there is none.
    pub(super) fn head_deadline_ms(&self) -> u64 {
        if self.stray_is_first() {
            return self.strays.values().next().map_or(NEVER, |entry| entry.deadline_ms);
        }
        match (self.front.front(), self.packs.front(), self.back.front()) {
            (Some(entry), ..) | (None, None, Some(entry)) => entry.deadline_ms,
            (None, Some(pack), _) => pack.first_deadline_ms(),
            (None, None, None) => NEVER,
        }
    }

    /// Whether the next message is in memory.
    pub(super) fn head_is_loaded(&self) -> bool {
        let head = if self.stray_is_first() {
            self.strays.values().next()
        } else {
            self.front.front().or_else(|| self.back.front().filter(|_| self.packs.is_empty()))
        };
        head.is_some_and(Entry::is_loaded)
    }

    pub(super) fn pop(&mut self) -> Option<Entry> {
        if self.stray_is_first() {
            return self.strays.pop_first().map(|(_, entry)| entry);
        }
        self.fill_front();
        let entry = self.front.pop_front();
        shrink_if_sparse(&mut self.front);
        entry
    }

    /// Whether one of the next messages is not in memory, up to those with `ahead_bytes` together, of which those that
    /// are in memory are taken off.
    pub(super) fn wants(&self, ahead_bytes: &mut u64) -> bool {
        let mut is_stored = |entry: &Entry| {
            *ahead_bytes = ahead_bytes.saturating_sub(entry.loaded_bytes());
            !entry.is_loaded() || *ahead_bytes == 0
        };
        let back = self.back.iter().filter(|_| self.packs.is_empty());
        let packed = self.packs.front().map(Pack::first);
        let next = in_order(&self.strays, self.front.iter().chain(back));
        // Strays behind what is packed do not come before that was read, however many they are.
        match next
            .take_while(|entry| packed.is_none_or(|first| entry.seq < first))
            .find(|entry| is_stored(entry))
        {
            Some(entry) => !entry.is_loaded(),
            None => !self.packs.is_empty(),
        }
    }

    /// Lists messages among the next ones that are not in memory. Whether `wanted` takes more.
    pub(super) fn want(&mut self, wanted: &mut Wanted) -> bool {
        let Self { front, packs, back, strays, .. } = self;
        let mut strays = strays.values().peekable();
        let mut look_at = |entry: &Entry| {
            while let Some(stray) = strays.next_if(|stray| stray.seq < entry.seq) {
                if !wanted.look_at(stray) {
                    return false;
                }
            }
            wanted.look_at(entry)
        };
        let mut at = 0;
        loop {
            while let Some(entry) = front.get(at) {
                if !look_at(entry) {
                    return false;
                }
                at += 1;
            }
            // Read ahead, beyond what is unpacked.
            match packs.pop_front() {
                Some(pack) => front.extend(pack.stubs().map(Entry::from_stub)),
                None => break,
            }
        }
        back.iter().all(look_at) && strays.all(|stray| wanted.look_at(stray))
    }

    /// A message has been read. Gives how much memory it takes, in bytes; nothing, if nobody waits for it any more.
    pub(super) fn load(&mut self, seq: Seq, message: Message) -> u64 {
        self.strays_to_unload = true;
        match self.entry_mut(seq) {
            Some(entry) if !entry.is_loaded() => {
                entry.load(message);
                entry.loaded_bytes()
            }
            _ => 0,
        }
    }

    /// The first messages from `from` on whose records are before a position, a segment's beginning. No more than
    /// `most` of each part.
    pub(super) fn before(&self, position: Position, from: Seq, most: usize) -> impl Iterator<Item = Stub> {
        let behind = |run: &VecDeque<Entry>| run.partition_point(|entry| entry.seq < from);
        let packs = self.packs.range(self.packs.partition_point(|pack| pack.last() < from)..);
        let packed = packs.filter(move |pack| pack.reaches_before(position)).flat_map(Pack::stubs);
        let is_before = move |stub: &Stub| stub.seq >= from && stub.place.position() < position;
        let stubs = |entries| Iterator::filter_map(entries, Entry::stub);
        let front = stubs(self.front.range(behind(&self.front)..)).filter(is_before).take(most);
        let back = stubs(self.back.range(behind(&self.back)..)).filter(is_before).take(most);
        let strays = self.strays.range(from.0..).filter_map(|(_, entry)| entry.stub());
        strays
            .filter(is_before)
            .take(most)
            .chain(front)
            .chain(packed.filter(is_before).take(most))
            .chain(back)
    }

    /// Moves the records of some of its messages, which are in the order of their seqs: see [`Entry::relocate`].
    pub(super) fn relocate(&mut self, stubs: &[&Stub], put: &mut dyn FnMut(&Stub) -> Option<Place>) {
        let mut rest = stubs;
        while let Some((stub, others)) = rest.split_first() {
            rest = others;
            if let Some(entry) = self.entry_mut(stub.seq) {
                entry.relocate(stub, put);
                continue;
            }
            let at = self.packs.partition_point(|pack| pack.last() < stub.seq);
            let Some(pack) = self.packs.get_mut(at).filter(|pack| pack.first() <= stub.seq) else { continue };
            let (_, behind) = rest.split_at(rest.partition_point(|stub| stub.seq <= pack.last()));
            let inside =
                stubs.get(stubs.len() - others.len() - 1..stubs.len() - behind.len()).unwrap_or_default();
            if let Some(moved) = relocated(pack, inside, put) {
                *pack = moved;
            }
            rest = behind;
        }
    }

    /// How many of its first messages, up to `most`, take up no more than that many bytes in memory; and how much that is.
    pub(super) fn first_with(&self, bytes: u64, most: usize) -> (usize, u64) {
        let mut sum = 0;
        for (count, entry) in self.front.iter().take(most).enumerate() {
            let with = sum + entry.loaded_bytes();
            if with > bytes {
                return (count, sum);
            }
            sum = with;
        }
        (self.front.len().min(most), sum)
    }

    /// Lets go of messages that are in the journal, the last ones first, but not of the first `kept`: of `most`, or a few
    /// more. Those that are nowhere else are no obstacle, but then there may be fewer, and the next call goes on.
    pub(super) fn unload(&mut self, kept: usize, most: usize) -> Freed {
        let mut freed = Freed::default();
        if self.packs.is_empty() {
            // Nothing is between them any more.
            self.front.append(&mut self.back);
        }
        let is_enough =
            |freed: &Freed| freed.messages >= most as u64 || freed.moved >= LOOKED_AT_FOR_ONE * most;
        while !is_enough(&freed) && self.back.len() >= PACKED_MIN {
            let first: VecDeque<Entry> = self.back.drain(..self.back.len().min(STUBS_PER_PACK)).collect();
            let packs = self.pack(first, &mut freed);
            self.packs.extend(packs);
        }
        while !is_enough(&freed) && self.front.len() >= kept + PACKED_MIN {
            let last = self.front.len().saturating_sub(STUBS_PER_PACK).max(kept);
            // What was packed is unpacked only when somebody is about to get it.
            if last == kept && !self.front.range(last..).any(|entry| entry.journaled_bytes() > 0) {
                break;
            }
            let behind = self.front.split_off(last);
            for pack in self.pack(behind, &mut freed).into_iter().rev() {
                self.packs.push_front(pack);
            }
        }
        if !is_enough(&freed) {
            // Too few to be packed: packs have a size of their own.
            let few = self.front.len().min(kept + PACKED_MIN);
            self.front.range_mut(kept.min(few)..few).for_each(|entry| freed.unload(entry));
            self.back.iter_mut().take(PACKED_MIN).for_each(|entry| freed.unload(entry));
        }
        shrink_if_sparse(&mut self.front);
        shrink_if_sparse(&mut self.back);
        // Those that are nowhere else may be many, and are not to be looked at again and again.
        if std::mem::take(&mut self.strays_to_unload) {
            self.strays.values_mut().for_each(|entry| freed.unload(entry));
        }
        freed
    }

    fn entry_mut(&mut self, seq: Seq) -> Option<&mut Entry> {
        match self.front.binary_search_by_key(&seq, |entry| entry.seq) {
            Ok(at) => self.front.get_mut(at),
            Err(_) => match self.back.binary_search_by_key(&seq, |entry| entry.seq) {
                Ok(at) => self.back.get_mut(at),
                Err(_) => self.strays.get_mut(&seq.0),
            },
        }
    }

    /// Packs a part of the run. What has to stay in memory is among the strays then.
    fn pack(&mut self, entries: VecDeque<Entry>, freed: &mut Freed) -> Vec<Pack> {
        let mut packs = Vec::new();
        let mut stubs: Vec<Stub> = Vec::with_capacity(entries.len().min(STUBS_PER_PACK));
        freed.moved += entries.len();
        for mut entry in entries {
            freed.unload(&mut entry);
            match entry.stub().filter(|_| !entry.is_loaded()) {
                Some(stub) => stubs.push(stub),
                None => drop(self.strays.insert(entry.seq.0, entry)),
            }
            if stubs.len() == STUBS_PER_PACK {
                packs.extend(Pack::new(&stubs));
                stubs.clear();
            }
        }
        packs.extend(Pack::new(&stubs));
        packs
    }

    /// Brings the next of the run to the front.
    fn fill_front(&mut self) {
        if !self.front.is_empty() {
            return;
        }
        match self.packs.pop_front() {
            Some(pack) => self.front.extend(pack.stubs().map(Entry::from_stub)),
            None => std::mem::swap(&mut self.front, &mut self.back),
        }
    }

    fn first(&self) -> Option<Seq> {
        let front = self.front.front().map(|entry| entry.seq);
        front
            .or_else(|| self.packs.front().map(Pack::first))
            .or_else(|| self.back.front().map(|entry| entry.seq))
    }

    fn last(&self) -> Option<Seq> {
        let back = self.back.back().map(|entry| entry.seq);
        back.or_else(|| self.packs.back().map(Pack::last))
            .or_else(|| self.front.back().map(|entry| entry.seq))
    }

    fn stray_is_first(&self) -> bool {
        match self.strays.first_key_value() {
            None => false,
            Some((seq, _)) => self.first().is_none_or(|first| *seq < first.0),
        }
    }
}

/// The pack with the new places of those among its messages whose records were moved.
fn relocated(pack: &Pack, stubs: &[&Stub], put: &mut dyn FnMut(&Stub) -> Option<Place>) -> Option<Pack> {
    let mut stubs = stubs.iter().peekable();
    let moved = pack.stubs().map(|now| {
        while stubs.next_if(|stub| stub.seq < now.seq).is_some() {}
        let is_there = stubs.peek().is_some_and(|stub| stub.seq == now.seq && stub.place == now.place);
        match is_there.then(|| put(&now)).flatten() {
            Some(place) => Stub { place, ..now },
            None => now,
        }
    });
    Pack::new(&moved.collect::<Vec<_>>())
}

/// The entries of a run and those that are strewn over it, in the order of their seqs.
fn in_order<'a>(
    strays: &'a BTreeMap<u64, Entry>,
    run: impl Iterator<Item = &'a Entry>,
) -> impl Iterator<Item = &'a Entry> {
    let (mut strays, mut run) = (strays.values().peekable(), run.peekable());
    std::iter::from_fn(move || {
        let next = run.peek().map_or(u64::MAX, |entry| entry.seq.0);
        strays.next_if(|stray| stray.seq.0 < next).or_else(|| run.next())
    })
}

/// What was let go of.
#[derive(Debug, Default)]
pub(super) struct Freed {
    /// How much memory that was.
    pub(super) bytes: u64,
    pub(super) messages: u64,
    /// How many messages are elsewhere in the level for that.
    moved: usize,
}

impl Freed {
    /// Whether another call may find more.
    pub(super) fn goes_on(&self) -> bool {
        self.messages > 0 || self.moved > 0
    }

    fn unload(&mut self, entry: &mut Entry) {
        let bytes = entry.unload();
        self.bytes += bytes;
        self.messages += u64::from(bytes > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Head, Pins};

    #[test]
    fn what_is_packed_is_wanted_however_much_there_is_behind_it_that_is_nowhere_but_in_memory() {
        let pins = Pins::new(1 << 20);
        let mut level = Level::default();
        for seq in 0..20 {
            // From the fifth on they have no records, and stay in memory, strewn over the run.
            let place = (!(5..15).contains(&seq)).then(|| pins.pin(Position(seq * 8)));
            let message = Message::new(Head { place, ..Head::default() }, &[0; 1000]);
            level.put(Entry::new(Seq(seq), message, NEVER));
        }
        level.unload(0, 1000);
        assert!(!level.head_is_loaded());
        assert!(level.wants(&mut 2000), "the head is to be read, or nothing is ever delivered again");
        assert_eq!(level.pop().map(|entry| entry.seq), Some(Seq(0)));
    }
}
