//! Whether every message came once, and those of one stream in order.

use std::collections::HashMap;

use anyhow::{bail, ensure};

use crate::workload::{HEAD_BYTES, Plan};

/// What a body begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) stream: u16,
    /// Counts from 0 in each stream; below 2^48.
    pub(crate) number: u64,
    /// When it was sent, or was to be sent: nanoseconds of the run's clock.
    pub(crate) sent_at: u64,
}

const NUMBER_BITS: u32 = 48;

impl Head {
    pub(crate) fn encode(self) -> [u8; HEAD_BYTES] {
        let first = u64::from(self.stream) << NUMBER_BITS | self.number;
        (u128::from(first) | u128::from(self.sent_at) << 64).to_le_bytes()
    }

    pub(crate) fn decode(bytes: [u8; HEAD_BYTES]) -> Self {
        let both = u128::from_le_bytes(bytes);
        let first = both as u64;
        Self {
            stream: (first >> NUMBER_BITS) as u16,
            number: first & ((1 << NUMBER_BITS) - 1),
            sent_at: (both >> 64) as u64,
        }
    }
}

/// What one consumer has got of one queue.
#[derive(Debug)]
pub(crate) struct Checker {
    queue: usize,
    /// By stream.
    seen: Vec<Seen>,
    /// Whether others consume from the same queue: then numbers may be missing here, but not in all.
    shared: bool,
    deliveries: u64,
    redelivered: u64,
}

#[derive(Debug, Default, Clone)]
struct Seen {
    /// Whether the queue gets this stream.
    expected: bool,
    /// The number after the last one that came.
    next: u64,
    /// One bit for each number, if the queue is shared.
    bits: Vec<u64>,
}

impl Checker {
    pub(crate) fn new(plan: &Plan, queue: usize) -> Self {
        let mut seen = vec![Seen::default(); plan.streams.len()];
        for stream in plan.queues.get(queue).map(|queue| queue.streams.as_slice()).unwrap_or_default() {
            if let Some(seen) = seen.get_mut(*stream) {
                seen.expected = true;
            }
        }
        let consumers = plan.consumers.iter().filter(|queues| queues.contains(&queue)).count();
        Self { queue, seen, shared: consumers > 1, deliveries: 0, redelivered: 0 }
    }

    /// Takes the next delivery into account.
    #[inline]
    pub(crate) fn check(&mut self, head: Head, redelivered: bool) -> anyhow::Result<()> {
        self.deliveries += 1;
        self.redelivered += u64::from(redelivered);
        let queue = self.queue;
        let Some(seen) = self.seen.get_mut(usize::from(head.stream)).filter(|seen| seen.expected) else {
            bail!("queue {queue}: a message of stream {} came, which does not go there", head.stream);
        };
        if self.shared {
            let number = head.number;
            ensure!(
                number >= seen.next,
                "queue {queue}: message {number} of stream {} came after {}",
                head.stream,
                seen.next.saturating_sub(1)
            );
            let word = (number / 64) as usize;
            if seen.bits.len() <= word {
                seen.bits.resize(word + 1, 0);
            }
            if let Some(word) = seen.bits.get_mut(word) {
                *word |= 1 << (number % 64);
            }
        } else {
            ensure!(
                head.number == seen.next,
                "queue {queue}: message {} of stream {} came, and {} was due",
                head.number,
                head.stream,
                seen.next
            );
        }
        seen.next = head.number + 1;
        Ok(())
    }
}

/// What came of all consumers' deliveries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) deliveries: u64,
    /// How many of them had been handed out before: none in a run without failures.
    pub(crate) redelivered: u64,
}

/// Puts together what all consumers saw. `sent` has how many messages of each stream there were.
pub(crate) fn verdict(plan: &Plan, checkers: &[Checker], sent: &[u64]) -> anyhow::Result<Verdict> {
    let mut by_queue: HashMap<usize, Vec<&Checker>> = HashMap::new();
    for checker in checkers {
        by_queue.entry(checker.queue).or_default().push(checker);
    }
    for (queue, checkers) in &by_queue {
        for (stream, sent) in sent.iter().enumerate() {
            let views: Vec<&Seen> =
                checkers.iter().filter_map(|one| one.seen.get(stream)).filter(|one| one.expected).collect();
            if !views.is_empty() {
                whole(&views, *sent, checkers.iter().any(|checker| checker.shared), plan.is_complete(*queue))
                    .map_err(|error| anyhow::anyhow!("queue {queue}, stream {stream}: {error}"))?;
            }
        }
    }
    Ok(Verdict {
        deliveries: checkers.iter().map(|checker| checker.deliveries).sum(),
        redelivered: checkers.iter().map(|checker| checker.redelivered).sum(),
    })
}

/// One stream in one queue, as its consumers saw it.
fn whole(seen: &[&Seen], sent: u64, shared: bool, complete: bool) -> anyhow::Result<()> {
    let last = seen.iter().map(|seen| seen.next).max().unwrap_or_default();
    ensure!(last <= sent, "message {} came, and only {sent} were sent", last - 1);
    if !complete {
        return Ok(());
    }
    if !shared {
        ensure!(last == sent, "{sent} were sent, and the last that came was the {last}th");
        return Ok(());
    }
    for word in 0..sent.div_ceil(64) {
        let bits = seen.iter().map(|seen| seen.bits.get(word as usize).copied().unwrap_or_default());
        let (mut once, mut twice) = (0, 0);
        bits.for_each(|bits: u64| {
            twice |= once & bits;
            once |= bits;
        });
        let left = sent - word * 64;
        let all = if left >= 64 { u64::MAX } else { (1 << left) - 1 };
        ensure!(twice == 0, "message {} came twice", word * 64 + u64::from(twice.trailing_zeros()));
        let missing = all & !once;
        ensure!(missing == 0, "message {} never came", word * 64 + u64::from(missing.trailing_zeros()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Workload;

    fn plan(producers: usize, consumers: usize) -> Plan {
        Plan::new(&Workload { producers, consumers, ..Workload::default() }).unwrap()
    }

    /// What becomes of these numbers, if each consumer gets its list of (stream, number).
    fn run(plan: &Plan, got: &[&[(u16, u64)]], sent: &[u64]) -> Result<Verdict, String> {
        let mut checkers = Vec::new();
        for got in got {
            let mut checker = Checker::new(plan, 0);
            for (stream, number) in *got {
                let head = Head { stream: *stream, number: *number, sent_at: 0 };
                checker.check(head, false).map_err(|error| error.to_string())?;
            }
            checkers.push(checker);
        }
        verdict(plan, &checkers, sent).map_err(|error| error.to_string())
    }

    #[test]
    fn heads_come_back_as_they_were() {
        for head in [
            Head { stream: 0, number: 0, sent_at: 0 },
            Head { stream: 65_534, number: (1 << 48) - 1, sent_at: u64::MAX },
            Head { stream: 3, number: 77, sent_at: 1_234_567_890 },
        ] {
            assert_eq!(Head::decode(head.encode()), head);
        }
    }

    #[test]
    fn what_is_whole_passes() {
        let verdict = run(&plan(2, 1), &[&[(0, 0), (1, 0), (0, 1), (1, 1), (1, 2)]], &[2, 3]).unwrap();
        assert_eq!(verdict, Verdict { deliveries: 5, redelivered: 0 });
        let two = plan(1, 2);
        run(&two, &[&[(0, 0), (0, 3)], &[(0, 1), (0, 2)]], &[4]).unwrap();
    }

    #[test]
    fn a_lost_message_is_found() {
        assert!(run(&plan(1, 1), &[&[(0, 0), (0, 2)]], &[3]).unwrap_err().contains("1 was due"));
        assert!(run(&plan(1, 1), &[&[(0, 0), (0, 1)]], &[3]).unwrap_err().contains("3 were sent"));
        let shared = run(&plan(1, 2), &[&[(0, 0), (0, 3)], &[(0, 2)]], &[4]);
        assert!(shared.unwrap_err().contains("message 1 never came"));
        let last = run(&plan(1, 2), &[&[(0, 0)], &[(0, 1)]], &[3]);
        assert!(last.unwrap_err().contains("message 2 never came"));
    }

    #[test]
    fn a_duplicate_is_found() {
        assert!(run(&plan(1, 1), &[&[(0, 0), (0, 0)]], &[1]).is_err());
        let shared = run(&plan(1, 2), &[&[(0, 0), (0, 1)], &[(0, 1), (0, 2)]], &[3]);
        assert!(shared.unwrap_err().contains("message 1 came twice"));
    }

    #[test]
    fn wrong_order_is_found() {
        assert!(run(&plan(1, 1), &[&[(0, 1), (0, 0)]], &[2]).is_err());
        assert!(run(&plan(1, 2), &[&[(0, 1), (0, 0)], &[]], &[2]).unwrap_err().contains("came after"));
    }

    #[test]
    fn a_stranger_is_found() {
        assert!(run(&plan(1, 1), &[&[(7, 0)]], &[1]).unwrap_err().contains("does not go there"));
        assert!(run(&plan(1, 1), &[&[(0, 0), (0, 1)]], &[1]).unwrap_err().contains("only 1 were sent"));
    }
}
