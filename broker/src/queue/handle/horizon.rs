//! Keeps a queue's deliveries behind its horizon: see [`Horizon`](crate::store::Horizon).

use leveret_journal::Position;
use smallvec::SmallVec;

use super::{Inner, Queue, Work};
use crate::queue::{Delivery, Effects};
use crate::store::{Batch, Seq};

impl Queue {
    /// The journal is about to lose what is `before` a position: writes again what of the horizon still counts.
    pub fn keep_horizon(&self, before: Position, work: &mut Work) {
        let mut inner = self.inner.lock();
        let next = inner.state.next();
        if let Some(reach) = inner.horizon.lost_before(before) {
            work.batch.horizon(self.id, next, reach);
            let end = self.write(&mut work.batch);
            inner.horizon.written_again(end);
        }
    }

    /// Looks how near the deliveries are to the horizon, and moves it ahead if need be. Whether there is a new one in
    /// `batch`.
    pub(super) fn extend_horizon(
        &self,
        inner: &mut Inner,
        effects: &Effects,
        got: Option<&Delivery>,
        batch: &mut Batch,
    ) -> bool {
        let Inner { state, horizon, .. } = inner;
        let level = |delivery: &Delivery| state.level(delivery.message.priority);
        // Only what the journal has can come back after a crash.
        let delivered =
            || effects.deliveries.iter().chain(got).filter(|delivery| delivery.message.persistent);
        let near = delivered().any(|delivery| horizon.is_near(level(delivery), delivery.seq));
        let stale = state.in_use() && horizon.is_stale(state.next());
        if !near && !stale {
            return false;
        }
        let mut upcoming: SmallVec<[Seq; 1]> = state.upcoming().collect();
        for delivery in delivered() {
            if let Some(upcoming) = upcoming.get_mut(level(delivery)) {
                *upcoming = Seq(upcoming.0.max(delivery.seq.0 + 1));
            }
        }
        let extended = horizon.extend(state.next(), &upcoming);
        extended.map(|reach| batch.horizon(self.id, state.next(), reach)).is_some()
    }

    /// Notes with the deliveries that are beyond the horizon on disk what they have to wait for.
    pub(super) fn hold_back(&self, inner: &mut Inner, effects: &mut Effects, got: Option<&mut Delivery>) {
        let Inner { state, horizon, .. } = inner;
        horizon.look_at_disk(|| self.store.synced());
        for delivery in
            effects.deliveries.iter_mut().chain(got).filter(|delivery| delivery.message.persistent)
        {
            delivery.after = horizon.wait_for(state.level(delivery.message.priority), delivery.seq);
        }
    }
}
