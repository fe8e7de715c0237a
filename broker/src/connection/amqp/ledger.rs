//! Delivery tags: AMQP counts them per channel, the queues per consumer.

use parking_lot::Mutex;

use crate::queue::Unacked;

/// What one channel has been sent and has not settled.
///
/// Tags are given when deliveries are encoded, so that their order is the order of sending, whichever queues they come
/// from. The writer gives them, the reader takes them back.
#[derive(Debug)]
pub(super) struct Ledger(Mutex<Unacked<Place>>);

/// A delivery as its queue knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// The consumer, or what stands for one where messages are got.
    pub(super) consumer: u32,
    /// The tag among that consumer's deliveries.
    pub(super) tag: u64,
}

/// A tag that was never given, or is settled already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown delivery tag {0}")]
pub(super) struct UnknownDelivery(pub(super) u64);

impl Ledger {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Unacked::new()))
    }

    /// Gives the next tag to a delivery that has to be settled; without a place, to one that need not be.
    pub(super) fn give(&self, place: Option<Place>) -> u64 {
        let mut unacked = self.0.lock();
        match place {
            Some(place) => unacked.hold(place),
            None => unacked.skip(),
        }
    }

    /// Takes deliveries to settle them; adds them to `taken`. As in RabbitMQ `multiple` means this one and all before
    /// it, so this one has to be there; 0 means all that there are.
    pub(super) fn take(
        &self,
        tag: u64,
        multiple: bool,
        taken: &mut Vec<(u64, Place)>,
    ) -> Result<(), UnknownDelivery> {
        let mut unacked = self.0.lock();
        match (tag, multiple) {
            (0, true) => unacked.take_up_to(u64::MAX, taken),
            (tag, true) => {
                // To take it and put it back tells whether it is there.
                let start = taken.len();
                unacked.take_range(tag, tag, taken).map_err(|_| UnknownDelivery(tag))?;
                let last = taken.split_off(start);
                unacked.take_up_to(tag, taken);
                taken.extend(last);
            }
            (tag, false) => {
                let one = unacked.take_range(tag, tag, taken);
                unacked.tidy();
                one.map_err(|_| UnknownDelivery(tag))?;
            }
        }
        Ok(())
    }

    /// Undoes what [`Ledger::take`] took; empties `taken`.
    pub(super) fn put_back(&self, taken: &mut Vec<(u64, Place)>) {
        self.0.lock().put_back(taken);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(deliveries: u64) -> Ledger {
        let ledger = Ledger::new();
        for tag in 1..=deliveries {
            ledger.give(Some(Place { consumer: 7, tag: 100 + tag }));
        }
        ledger
    }

    fn take(ledger: &Ledger, tag: u64, multiple: bool) -> Result<Vec<u64>, UnknownDelivery> {
        let mut taken = Vec::new();
        ledger.take(tag, multiple, &mut taken)?;
        Ok(taken.into_iter().map(|(_, place)| place.tag - 100).collect())
    }

    #[test]
    fn multiple_takes_all_up_to_a_delivery_that_is_there() {
        let ledger = ledger(6);
        assert_eq!(take(&ledger, 2, false), Ok(vec![2]));
        assert_eq!(take(&ledger, 2, false), Err(UnknownDelivery(2)));
        assert_eq!(take(&ledger, 2, true), Err(UnknownDelivery(2)));
        assert_eq!(take(&ledger, 4, true), Ok(vec![1, 3, 4]));
        assert_eq!(take(&ledger, 7, true), Err(UnknownDelivery(7)));
        assert_eq!(take(&ledger, 0, false), Err(UnknownDelivery(0)));
        assert_eq!(take(&ledger, 0, true), Ok(vec![5, 6]));
        assert_eq!(take(&ledger, 0, true), Ok(vec![]));
    }

    #[test]
    fn what_is_put_back_can_be_taken_again() {
        let ledger = ledger(4);
        let mut taken = Vec::new();
        ledger.take(2, true, &mut taken).unwrap();
        ledger.take(4, false, &mut taken).unwrap();
        ledger.put_back(&mut taken);
        assert_eq!(take(&ledger, 4, true), Ok(vec![1, 2, 3, 4]));
    }

    #[test]
    fn deliveries_that_need_no_settling_count_and_are_unknown() {
        let ledger = Ledger::new();
        assert_eq!(ledger.give(None), 1);
        assert_eq!(ledger.give(Some(Place { consumer: 1, tag: 101 })), 2);
        assert_eq!(ledger.give(None), 3);
        assert_eq!(take(&ledger, 1, false), Err(UnknownDelivery(1)));
        assert_eq!(take(&ledger, 3, false), Err(UnknownDelivery(3)));
        assert_eq!(take(&ledger, 2, false), Ok(vec![1]));
    }
}
