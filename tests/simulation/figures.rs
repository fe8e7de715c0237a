//! What all seeds together have come through.

/// What all seeds together have come through. What never happens is not tested.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Figures {
    pub(crate) lives: u64,
    pub(crate) power_cuts: u64,
    pub(crate) kills: u64,
    pub(crate) orderly_stops: u64,
    pub(crate) recoveries_cut: u64,
    pub(crate) journals_failed: u64,
    pub(crate) requests_cut: u64,
    pub(crate) checkpoints: u64,
    pub(crate) segments_released: u64,
    pub(crate) moved: u64,
    pub(crate) published: u64,
    pub(crate) confirmed: u64,
    pub(crate) lost_unconfirmed: u64,
    pub(crate) deliveries: u64,
    pub(crate) settled: u64,
    pub(crate) dead_letters: u64,
    pub(crate) purged: u64,
}

impl Figures {
    fn all(&mut self) -> [&mut u64; 17] {
        [
            &mut self.lives,
            &mut self.power_cuts,
            &mut self.kills,
            &mut self.orderly_stops,
            &mut self.recoveries_cut,
            &mut self.journals_failed,
            &mut self.requests_cut,
            &mut self.checkpoints,
            &mut self.segments_released,
            &mut self.moved,
            &mut self.published,
            &mut self.confirmed,
            &mut self.lost_unconfirmed,
            &mut self.deliveries,
            &mut self.settled,
            &mut self.dead_letters,
            &mut self.purged,
        ]
    }

    pub(crate) fn add(mut self, mut other: Self) -> Self {
        self.all().into_iter().zip(other.all()).for_each(|(sum, more)| *sum += *more);
        self
    }

    /// How often the rarest thing happened.
    pub(crate) fn least(mut self) -> u64 {
        self.all().into_iter().map(|figure| *figure).min().unwrap_or_default()
    }
}
