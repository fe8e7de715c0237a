//! A queue's messages while the journal is replayed: packed as they come, and settled wherever they are.

use std::collections::{BTreeMap, VecDeque};
use std::iter::Peekable;

use super::Seq;
use super::stub::{Pack, STUBS_PER_PACK, Stub, Stubs};

/// Messages in the order of their seqs.
#[derive(Debug, Default)]
pub(super) struct Run {
    packs: VecDeque<Settling>,
    /// Behind the packs, not packed yet.
    open: VecDeque<Stub>,
}

/// A pack of which some have been settled.
#[derive(Debug)]
struct Settling {
    pack: Pack,
    /// Ranges of seqs that are gone (first, one behind the last), none next to another.
    gone: BTreeMap<u64, u64>,
}

impl Run {
    /// The last that was put in, unless it has left.
    pub(super) fn last(&self) -> Option<Seq> {
        let packed = self.packs.back().map(|settling| settling.pack.last());
        self.open.back().map(|stub| stub.seq).or(packed)
    }

    /// Puts a message in, behind all others.
    pub(super) fn take(&mut self, stub: Stub) {
        if self.open.len() == STUBS_PER_PACK {
            let pack = Pack::new(&self.open);
            self.packs.extend(pack.map(|pack| Settling { pack, gone: BTreeMap::new() }));
            self.open.clear();
        }
        self.open.push_back(stub);
    }

    /// Everything from `first` to before `end` has left.
    pub(super) fn leave(&mut self, first: Seq, end: Seq) {
        let from = self.open.partition_point(|stub| stub.seq < first);
        let to = self.open.partition_point(|stub| stub.seq < end);
        self.open.drain(from..to.max(from));
        let mut at = self.packs.partition_point(|settling| settling.pack.last() < first);
        while let Some(settling) = self.packs.get_mut(at)
            && settling.pack.first() < end
        {
            if settling.settle(first.0, end.0) {
                self.packs.remove(at);
            } else {
                at += 1;
            }
        }
    }

    fn into_stubs(self) -> impl Iterator<Item = Stubs> {
        let packed = self.packs.into_iter().flat_map(Settling::into_stubs);
        packed.chain(self.open.into_iter().map(Stubs::One))
    }
}

impl Settling {
    /// Notes a range as gone; whether nothing is left.
    fn settle(&mut self, first: u64, end: u64) -> bool {
        let (mut first, mut end) = (first, end);
        while let Some((&start, &stop)) = self.gone.range(..=end).next_back()
            && stop >= first
        {
            self.gone.remove(&start);
            (first, end) = (first.min(start), end.max(stop));
        }
        self.gone.insert(first, end);
        first <= self.pack.first().0 && self.pack.last().0 < end
    }

    fn into_stubs(self) -> Vec<Stubs> {
        let Self { pack, gone } = self;
        if gone.is_empty() {
            return vec![Stubs::Pack(pack)];
        }
        let is_there = |stub: &Stub| {
            let before = gone.range(..=stub.seq.0).next_back();
            before.is_none_or(|(_, end)| *end <= stub.seq.0)
        };
        pack.stubs().filter(is_there).map(Stubs::One).collect()
    }
}

/// Runs as one, in the order of the seqs.
pub(super) struct Merged<I: Iterator<Item = Stubs>> {
    runs: Vec<Unpacking<I>>,
}

/// The rest of a run.
struct Unpacking<I: Iterator<Item = Stubs>> {
    /// What is left of a pack.
    unpacked: VecDeque<Stub>,
    behind: Peekable<I>,
}

impl Merged<std::iter::Empty<Stubs>> {
    /// Merges runs.
    pub(super) fn new(runs: impl IntoIterator<Item = Run>) -> Merged<impl Iterator<Item = Stubs>> {
        let unpacking =
            |run: Run| Unpacking { unpacked: VecDeque::new(), behind: run.into_stubs().peekable() };
        Merged { runs: runs.into_iter().map(unpacking).collect() }
    }
}

impl<I: Iterator<Item = Stubs>> Merged<I> {
    /// What comes next: a pack only if that is all right with `as_a_whole`, and nothing of another run is inside of it.
    pub(super) fn next(&mut self, as_a_whole: impl Fn(&Pack) -> bool) -> Option<Stubs> {
        let (mut first, mut others): (Option<(Seq, usize)>, Option<Seq>) = (None, None);
        for (at, run) in self.runs.iter_mut().enumerate() {
            let Some(seq) = run.first() else { continue };
            let other = match first {
                Some((least, _)) if least < seq => seq,
                _ => match first.replace((seq, at)) {
                    Some((before, _)) => before,
                    None => continue,
                },
            };
            others = Some(others.map_or(other, |least| least.min(other)));
        }
        let (_, at) = first?;
        let is_apart = |pack: &Pack| others.is_none_or(|other| pack.last() < other);
        self.runs.get_mut(at)?.next(|pack| is_apart(pack) && as_a_whole(pack))
    }
}

impl<I: Iterator<Item = Stubs>> Unpacking<I> {
    fn first(&mut self) -> Option<Seq> {
        let unpacked = self.unpacked.front().map(|stub| stub.seq);
        unpacked.or_else(|| self.behind.peek().map(Stubs::first))
    }

    fn next(&mut self, as_a_whole: impl Fn(&Pack) -> bool) -> Option<Stubs> {
        if let Some(stub) = self.unpacked.pop_front() {
            return Some(Stubs::One(stub));
        }
        match self.behind.next()? {
            Stubs::Pack(pack) if !as_a_whole(&pack) => {
                self.unpacked.extend(pack.stubs());
                self.unpacked.pop_front().map(Stubs::One)
            }
            stubs => Some(stubs),
        }
    }
}
