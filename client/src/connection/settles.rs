//! Settles of one subscription, collected into ranges until the driver has time for them.

use std::collections::BTreeMap;

use bytes::BytesMut;
use leveret_protocol::{NOTE_BYTES_MAX, SETTLE_RANGES_MAX, SettleParts, Verb, kind};
use tokio::sync::oneshot;

use crate::error::{Interruption, SettleError};

/// Tells the waiting caller of `ack_durably`.
pub(crate) type SettledSender = oneshot::Sender<Result<(), SettleError>>;

/// What a settle frame has besides its ranges: the consumer, and a note with its length.
const SETTLE_HEAD_BYTES_MAX: usize = 4 + 1 + NOTE_BYTES_MAX;

/// What one subscription has settled and not told the broker. Bounded by its prefetch, because an unsettled
/// delivery is settled at most once.
#[derive(Debug)]
pub(crate) struct Settles {
    /// Which life of the subscription its delivery tags belong to; settles of another are dropped.
    pub(crate) incarnation: u64,
    /// Whether it is on the driver's list of those that have something to tell.
    pub(crate) unflushed: bool,
    acks: TagRanges,
    durable_acks: TagRanges,
    requeues: TagRanges,
    releases: TagRanges,
    rejects: Vec<(Option<String>, TagRanges)>,
    /// Who waits for a settled frame, by delivery tag.
    waiting: BTreeMap<u64, SettledSender>,
}

impl Settles {
    pub(crate) fn new(incarnation: u64) -> Self {
        Self {
            incarnation,
            unflushed: false,
            acks: TagRanges::default(),
            durable_acks: TagRanges::default(),
            requeues: TagRanges::default(),
            releases: TagRanges::default(),
            rejects: Vec::new(),
            waiting: BTreeMap::new(),
        }
    }

    pub(crate) fn ack(&mut self, tag: u64) {
        self.acks.push(tag);
    }

    pub(crate) fn ack_durably(&mut self, tag: u64, settled: SettledSender) {
        self.durable_acks.push(tag);
        self.waiting.insert(tag, settled);
    }

    pub(crate) fn requeue(&mut self, tag: u64) {
        self.requeues.push(tag);
    }

    pub(crate) fn release(&mut self, tag: u64) {
        self.releases.push(tag);
    }

    /// Rejections with the same note share a frame.
    pub(crate) fn reject(&mut self, tag: u64, note: String) {
        let note = Some(note).filter(|note| !note.is_empty());
        match self.rejects.last_mut() {
            Some((last, ranges)) if *last == note => ranges.push(tag),
            _ => {
                let mut ranges = TagRanges::default();
                ranges.push(tag);
                self.rejects.push((note, ranges));
            }
        }
    }

    /// Appends the frames for everything that was collected, none of them above the frame limit.
    pub(crate) fn flush(&mut self, subscription: (u16, u32), frame_bytes_max: usize, out: &mut BytesMut) {
        let (channel, consumer) = subscription;
        let ranges_max =
            (frame_bytes_max.saturating_sub(SETTLE_HEAD_BYTES_MAX) / 16).clamp(1, SETTLE_RANGES_MAX);
        self.unflushed = false;
        let mut write = |verb, confirm, note: Option<&str>, ranges: &mut TagRanges| {
            for ranges in ranges.merged().chunks(ranges_max) {
                SettleParts { consumer, verb, confirm, note, ranges }.encode(kind::SETTLE, channel, out);
            }
            ranges.clear();
        };
        write(Verb::Ack, false, None, &mut self.acks);
        write(Verb::Ack, true, None, &mut self.durable_acks);
        write(Verb::Requeue, false, None, &mut self.requeues);
        write(Verb::Release, false, None, &mut self.releases);
        for (note, mut ranges) in self.rejects.drain(..) {
            write(Verb::Reject, false, note.as_deref(), &mut ranges);
        }
    }

    /// The broker says that these are on disk.
    pub(crate) fn settled(&mut self, first: u64, last: u64) {
        let after = last.checked_add(1).map(|after| self.waiting.split_off(&after));
        let settled = self.waiting.split_off(&first);
        self.waiting.extend(after.into_iter().flatten());
        for waiting in settled.into_values() {
            // A caller that stopped waiting has nothing to be told.
            let _ = waiting.send(Ok(()));
        }
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The connection or the channel is gone.
    pub(crate) fn interrupt(self, cause: &Interruption) {
        for waiting in self.waiting.into_values() {
            let _ = waiting.send(Err(SettleError::OutcomeUnknown(cause.clone())));
        }
    }
}

/// Delivery tags as ranges. Tags that come in order, which is the rule, are one range.
#[derive(Debug, Default)]
struct TagRanges(Vec<(u64, u64)>);

impl TagRanges {
    fn push(&mut self, tag: u64) {
        match self.0.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(tag) => *last = tag,
            _ => self.0.push((tag, tag)),
        }
    }

    /// Sorted, with neighbours joined.
    fn merged(&mut self) -> &[(u64, u64)] {
        if self.0.len() > 1 {
            self.0.sort_unstable();
            self.0.dedup_by(|next, kept| {
                let joins = kept.1.checked_add(1) == Some(next.0);
                if joins {
                    kept.1 = next.1;
                }
                joins
            });
        }
        &self.0
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use leveret_protocol::{FRAME_BYTES_MIN, Frame, Settle};
    use proptest::prelude::*;

    use super::*;

    type Told = (Verb, Option<String>, Vec<(u64, u64)>);

    fn frames(settles: &mut Settles) -> Vec<Told> {
        let mut out = BytesMut::new();
        settles.flush((7, 1), FRAME_BYTES_MIN, &mut out);
        std::iter::from_fn(|| Frame::decode(&mut out, FRAME_BYTES_MIN).unwrap())
            .map(|frame| {
                assert_eq!((frame.kind, frame.channel), (kind::SETTLE, 7));
                let settle = Settle::decode(frame.flags, &frame.payload).unwrap();
                (settle.verb, settle.note.map(str::to_owned), settle.ranges.iter().collect())
            })
            .collect()
    }

    #[test]
    fn acks_in_order_are_one_range() {
        let mut settles = Settles::new(1);
        (1..=500).for_each(|tag| settles.ack(tag));
        assert_eq!(frames(&mut settles), [(Verb::Ack, None, vec![(1, 500)])]);
        assert!(frames(&mut settles).is_empty(), "nothing is told twice");
    }

    #[test]
    fn rejections_share_a_frame_by_their_note() {
        let mut settles = Settles::new(1);
        for (tag, note) in [(1, "bad"), (2, "bad"), (3, ""), (4, "ü")] {
            settles.reject(tag, if note == "ü" { note.repeat(200) } else { note.to_owned() });
        }
        let expected = [
            (Verb::Reject, Some("bad".to_owned()), vec![(1, 2)]),
            (Verb::Reject, None, vec![(3, 3)]),
            (Verb::Reject, Some("ü".repeat(127)), vec![(4, 4)]),
        ];
        assert_eq!(frames(&mut settles), expected);
    }

    proptest! {
        #[test]
        fn every_acked_tag_is_told_once_whatever_the_order(tags in proptest::collection::btree_set(1u64..20_000, 1..6_000), seed: u64) {
            let mut shuffled: Vec<u64> = tags.iter().copied().collect();
            shuffled.sort_by_key(|tag| (tag ^ seed).wrapping_mul(0x9E37_79B9_7F4A_7C15));
            let mut settles = Settles::new(1);
            for tag in shuffled {
                settles.ack(tag);
            }
            let mut told = BTreeSet::new();
            for (_, _, ranges) in frames(&mut settles) {
                for tag in ranges.into_iter().flat_map(|(first, last)| first..=last) {
                    prop_assert!(told.insert(tag), "{tag} twice");
                }
            }
            prop_assert_eq!(told, tags);
        }
    }
}
