//! Random numbers that a seed brings back.

use std::hash::BuildHasher;

/// The generator SplitMix64: a few lines, and good enough to choose when to kill and what to publish.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    /// Another generator, so that what one task draws does not depend on what others do.
    pub(crate) fn fork(&mut self) -> Self {
        Self::new(self.next())
    }
}

/// The seed of this run: `LEVERET_SEED`, or a new one. It is printed, so that a failure can be tried again. The kills
/// fall at the same times then, but what the machine was doing at those times is not repeated.
pub(crate) fn seed() -> u64 {
    if let Some(seed) = std::env::var("LEVERET_SEED").ok().and_then(|seed| seed.parse().ok()) {
        return seed;
    }
    std::hash::RandomState::new().hash_one(std::process::id())
}
