//! What became of publishes, coalesced.

use leveret_protocol::{Confirm, Outcome};

/// Confirms of several channels, with publishes in a row and of one outcome as one.
#[derive(Debug, Default)]
pub struct ConfirmRuns(Vec<(u16, Confirm)>);

impl ConfirmRuns {
    /// Publish `number` of `channel` came to this.
    pub fn add(&mut self, channel: u16, number: u64, outcome: Outcome) {
        self.merge(channel, Confirm { first: number, count: 1, outcome });
    }

    /// Adds a run to the last one, if it continues it.
    pub fn merge(&mut self, channel: u16, confirm: Confirm) {
        if let Some((last_channel, last)) = self.0.last_mut()
            && *last_channel == channel
            && last.outcome == confirm.outcome
            && last.first + u64::from(last.count) == confirm.first
            && let Some(count) = last.count.checked_add(confirm.count)
        {
            last.count = count;
        } else {
            self.0.push((channel, confirm));
        }
    }

    /// Takes the runs out.
    pub fn drain(&mut self) -> impl Iterator<Item = (u16, Confirm)> + '_ {
        self.0.drain(..)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publishes_in_a_row_with_one_outcome_are_one_run() {
        let mut runs = ConfirmRuns::default();
        for (channel, number, outcome) in [
            (1, 1, Outcome::Routed(1)),
            (1, 2, Outcome::Routed(1)),
            (1, 3, Outcome::Unroutable),
            (2, 4, Outcome::Unroutable),
            (2, 6, Outcome::Unroutable),
        ] {
            runs.add(channel, number, outcome);
        }
        let seen: Vec<_> = runs.drain().map(|(channel, run)| (channel, run.first, run.count)).collect();
        assert_eq!(seen, [(1, 1, 2), (1, 3, 1), (2, 4, 1), (2, 6, 1)]);
    }
}
