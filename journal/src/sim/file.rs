//! A file of the simulated disk: what is visible, what is on disk, and what a power cut makes of the difference.

use std::ops::Range;

use crate::segment::mix;

const PAGE_BYTES: usize = 4096;
const SECTOR_BYTES: usize = 512;

/// What a power cut takes of what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Nothing.
    Nothing,
    /// Everything.
    Everything,
    /// The earlier half of the changes; the later ones last.
    Earlier,
    /// Any subset, some pages torn.
    Random,
}

impl Loss {
    /// Whether the change with that index, of so many, lasts.
    pub(super) fn spares(self, index: usize, count: usize, random: &mut Random) -> bool {
        match self {
            Self::Nothing => true,
            Self::Everything => false,
            Self::Earlier => index >= count.div_ceil(2),
            Self::Random => random.one_in(2),
        }
    }
}

#[derive(Clone, Default)]
pub(super) struct SimFile {
    durable: Vec<u8>,
    pub(super) visible: Vec<u8>,
    /// The pages that a sync would write, in the order in which they were first written.
    dirty: Vec<usize>,
    /// It was emptied, and that is not durable.
    truncated: bool,
}

impl SimFile {
    /// A file that is on disk.
    pub(super) fn durable(bytes: Vec<u8>) -> Self {
        Self { durable: bytes.clone(), visible: bytes, ..Self::default() }
    }

    pub(super) fn write(&mut self, bytes: &[u8], offset: usize) {
        let end = offset + bytes.len();
        if self.visible.len() < end {
            self.visible.resize(end, 0);
        }
        if let Some(place) = self.visible.get_mut(offset..end) {
            place.copy_from_slice(bytes);
        }
        for page in offset / PAGE_BYTES..end.div_ceil(PAGE_BYTES) {
            if !self.dirty.contains(&page) {
                self.dirty.push(page);
            }
        }
    }

    pub(super) fn truncate(&mut self) {
        *self = Self { durable: std::mem::take(&mut self.durable), truncated: true, ..Self::default() };
    }

    pub(super) fn sync(&mut self, succeeds: bool) {
        if succeeds {
            if self.truncated {
                self.durable.clear();
            }
            self.durable.resize(self.visible.len(), 0);
            for page in std::mem::take(&mut self.dirty) {
                self.keep(page * PAGE_BYTES, PAGE_BYTES);
            }
        }
        self.dirty.clear();
        self.truncated = false;
    }

    /// Whether these bytes are on disk as they are visible, and nothing can change that.
    pub(crate) fn is_durable(&self, bytes: Range<usize>) -> bool {
        // A page that was written again may be torn: of two versions that agree here either will do.
        !self.truncated && self.durable.get(bytes.clone()) == self.visible.get(bytes)
    }

    /// Makes visible bytes durable.
    fn keep(&mut self, from: usize, length: usize) {
        let end = (from + length).min(self.visible.len());
        if self.durable.len() < end {
            self.durable.resize(end, 0);
        }
        if let (Some(place), Some(bytes)) = (self.durable.get_mut(from..end), self.visible.get(from..end)) {
            place.copy_from_slice(bytes);
        }
    }

    pub(super) fn lose(&mut self, loss: Loss, random: &mut Random) {
        let dirty = std::mem::take(&mut self.dirty);
        if loss.spares(1, 1, random) {
            if std::mem::take(&mut self.truncated) {
                self.durable.clear();
            }
            self.durable.resize(self.visible.len(), 0);
        }
        for (index, page) in dirty.iter().enumerate() {
            let from = page * PAGE_BYTES;
            if loss == Loss::Random && random.one_in(3) {
                let sectors = (from..from + PAGE_BYTES).step_by(SECTOR_BYTES);
                sectors.filter(|_| random.one_in(2)).for_each(|sector| self.keep(sector, SECTOR_BYTES));
            } else if loss.spares(index, dirty.len(), random) {
                self.keep(from, PAGE_BYTES);
            }
        }
        self.visible.clone_from(&self.durable);
        self.truncated = false;
    }
}

#[derive(Clone, Default)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn one_in(&mut self, chances: u64) -> bool {
        self.0 = self.0.wrapping_add(1);
        mix(self.0).is_multiple_of(chances)
    }
}
