//! The model: a list of messages, a list of holders, and a search for everything.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use leveret_protocol::DeathReason::{self, DeliveryLimit, Expired, Maxlen, Rejected};

use super::{OUTLET_CAP, SHARED_MAX};
use crate::queue::{
    Credit, DeleteReason, Delivery, Overflow, Refused, Settings, SubscribeError, UnknownTag, Verb,
};
use crate::store::{Message, Seq};

pub(super) struct Item {
    pub(super) message: Message,
    seq: u64,
    deadline_ms: Option<u64>,
    failed: u32,
    redelivered: bool,
    /// Which holder has it, under which tag.
    held: Option<(usize, u64)>,
    /// Whether a transaction has it, as which of all, and what for.
    set_aside: Option<(usize, Verb)>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Party {
    Consumer { priority: i32, exclusive: bool, no_ack: bool, credit: Credit, outlet: usize },
    Passive,
    Gone,
}

struct Holder {
    party: Party,
    next_tag: u64,
    /// Whether what it holds counts against the shared credit.
    shares: bool,
}

pub(super) struct Model {
    settings: Settings,
    items: Vec<Item>,
    holders: Vec<Holder>,
    next_seq: u64,
    /// How many deliveries were ever set aside.
    set_aside: usize,
    used_ms: u64,
    /// The bytes in each outlet.
    pub(super) waiting: [usize; 2],
    pub(super) gone: Vec<u64>,
    pub(super) returned: Vec<(u64, u32)>,
    pub(super) dead: Vec<(Option<u64>, DeathReason, Option<Arc<str>>)>,
    pub(super) delete: Option<DeleteReason>,
}

impl Model {
    pub(super) fn new(settings: Settings, now: u64) -> Self {
        Self {
            settings,
            items: Vec::new(),
            holders: Vec::new(),
            next_seq: 0,
            set_aside: 0,
            used_ms: now,
            waiting: [0; 2],
            gone: Vec::new(),
            returned: Vec::new(),
            dead: Vec::new(),
            delete: None,
        }
    }

    pub(super) fn clear(&mut self) {
        self.gone.clear();
        self.returned.clear();
        self.dead.clear();
        self.delete = None;
    }

    // What can be seen.

    pub(super) fn all(&self) -> impl Iterator<Item = &Item> {
        self.items.iter()
    }

    pub(super) fn ready(&self) -> impl Iterator<Item = &Item> {
        self.items.iter().filter(|item| item.held.is_none())
    }

    pub(super) fn unacked(&self) -> usize {
        self.items.iter().filter(|item| item.held.is_some()).count()
    }

    pub(super) fn held_by(&self, at: usize) -> impl Iterator<Item = &Item> {
        self.items.iter().filter(move |item| item.held.is_some_and(|(holder, _)| holder == at))
    }

    /// The numbers of the holders that can get messages or have some to settle; or of all that there ever were.
    pub(super) fn holders(&self, also_gone: bool) -> impl Iterator<Item = usize> {
        (0..self.holders.len()).filter(move |at| also_gone || !self.is_forgotten(*at))
    }

    pub(super) fn consumers(&self) -> usize {
        self.holders.iter().filter(|holder| matches!(holder.party, Party::Consumer { .. })).count()
    }

    pub(super) fn next_deadline_ms(&self) -> Option<u64> {
        let heads = self.levels().filter_map(|level| self.head_of(level)?.deadline_ms);
        heads.chain(self.lease_end_ms()).min()
    }

    // What can happen.

    pub(super) fn enqueue(
        &mut self,
        message: &Message,
        now: u64,
        deliveries: &mut VecDeque<(usize, Delivery)>,
    ) -> Result<Seq, Refused> {
        let own = message.ttl_ms.map(|ttl| (message.published_at_ms + ttl).max(now));
        let deadline_ms = self.settings.message_ttl_ms.map(|ttl| now + ttl).into_iter().chain(own).min();
        let due = deadline_ms.is_some_and(|deadline| deadline <= now);
        let item = |seq| Item {
            message: message.clone(),
            seq,
            deadline_ms,
            failed: 0,
            redelivered: false,
            held: None,
            set_aside: None,
        };
        if due || self.would_exceed(message) {
            self.assign(now, deliveries);
            let taken = self.ready().count() == 0 && self.someone_takes(deliveries);
            if !taken {
                self.expire_heads(now);
                if self.settings.overflow != Overflow::DropHead && self.would_exceed(message) {
                    return Err(self.refuse());
                }
            }
            let seq = self.take_seq();
            self.items.push(item(seq));
            if taken {
                self.follow(seq, deliveries);
            } else if due {
                self.die(seq, Expired, None);
            } else {
                self.drop_excess(now);
            }
            return Ok(Seq(seq));
        }
        let seq = self.take_seq();
        self.items.push(item(seq));
        Ok(Seq(seq))
    }

    pub(super) fn dispatch(&mut self, now: u64, deliveries: &mut VecDeque<(usize, Delivery)>) {
        self.assign(now, deliveries);
        self.drop_excess(now);
    }

    pub(super) fn subscribe(&mut self, party: Party) -> Result<(), SubscribeError> {
        let Party::Consumer { exclusive, .. } = party else { panic!("not a consumer") };
        let is_exclusive = |holder: &Holder| matches!(holder.party, Party::Consumer { exclusive: true, .. });
        if self.holders.iter().any(is_exclusive) {
            return Err(SubscribeError::ExclusivelyUsed);
        }
        if exclusive && self.settings.single_active {
            return Err(SubscribeError::ExclusiveOnSingleActive);
        }
        if exclusive && self.consumers() > 0 {
            return Err(SubscribeError::AlreadyUsed);
        }
        self.open(party);
        Ok(())
    }

    pub(super) fn open(&mut self, party: Party) {
        self.holders.push(Holder { party, next_tag: 1, shares: false });
    }

    /// Returns how many messages are left, if there was one to get.
    pub(super) fn get(&mut self, at: usize, no_ack: bool, real: Option<&Delivery>, now: u64) -> Option<u64> {
        self.used_ms = now;
        if matches!(self.holders[at].party, Party::Gone) {
            return None;
        }
        let seq = self.next_live(now)?;
        self.hand_over(seq, at, no_ack, real.expect("there is a message to get"));
        Some(self.ready().count() as u64)
    }

    pub(super) fn settle(&mut self, at: usize, ranges: &[(u64, u64)], verb: &Verb) -> Result<(), UnknownTag> {
        let seqs = self.find(at, ranges)?;
        self.apply(&seqs, verb);
        Ok(())
    }

    fn find(&self, at: usize, ranges: &[(u64, u64)]) -> Result<Vec<u64>, UnknownTag> {
        if self.is_forgotten(at) {
            return Err(UnknownTag { tag: ranges.first().map_or(0, |range| range.0) });
        }
        let mut seen = HashSet::new();
        let mut seqs = Vec::new();
        for &(first, last) in ranges {
            if last < first {
                return Err(UnknownTag { tag: first });
            }
            for tag in first..=last {
                let item = self.items.iter().find(|item| item.held == Some((at, tag)));
                match item.filter(|item| item.set_aside.is_none()) {
                    Some(item) if seen.insert(tag) => seqs.push(item.seq),
                    _ => return Err(UnknownTag { tag }),
                }
            }
        }
        Ok(seqs)
    }

    pub(super) fn settle_up_to(&mut self, at: usize, last: u64, verb: &Verb) -> Result<(), UnknownTag> {
        let seqs = self.find_up_to(at, last)?;
        self.apply(&seqs, verb);
        Ok(())
    }

    fn find_up_to(&self, at: usize, last: u64) -> Result<Vec<u64>, UnknownTag> {
        if self.is_forgotten(at) || last >= self.holders[at].next_tag {
            return Err(UnknownTag { tag: last });
        }
        Ok(self.held_in_order(at, if last == 0 { u64::MAX } else { last }))
    }

    pub(super) fn set_aside(
        &mut self,
        at: usize,
        ranges: &[(u64, u64)],
        verb: &Verb,
    ) -> Result<(), UnknownTag> {
        let seqs = match ranges {
            [(0, last)] => self.find_up_to(at, *last)?,
            ranges => self.find(at, ranges)?,
        };
        for seq in seqs {
            self.set_aside += 1;
            let item = self.items.iter_mut().find(|item| item.seq == seq).unwrap();
            item.set_aside = Some((self.set_aside, verb.clone()));
        }
        Ok(())
    }

    pub(super) fn settle_set_aside(&mut self, at: usize) {
        let mut all: Vec<_> =
            self.held_by(at).filter_map(|item| Some((item.set_aside.clone()?, item.seq))).collect();
        all.sort_by_key(|((order, _), _)| *order);
        for ((_, verb), seq) in all {
            self.apply(&[seq], &verb);
        }
    }

    pub(super) fn put_back(&mut self, at: usize) {
        for item in self.items.iter_mut().filter(|item| item.held.is_some_and(|(holder, _)| holder == at)) {
            item.set_aside = None;
        }
    }

    pub(super) fn set_aside_of(&self, at: usize) -> usize {
        self.held_by(at).filter(|item| item.set_aside.is_some()).count()
    }

    pub(super) fn add_credit(&mut self, at: usize, more: u32) {
        if let Party::Consumer { credit: Credit::Counted(left), .. } = &mut self.holders[at].party {
            *left += more;
        }
    }

    pub(super) fn share(&mut self, at: usize, shares: bool) {
        let limited =
            !matches!(self.holders[at].party, Party::Passive | Party::Consumer { no_ack: true, .. });
        if limited && !self.is_forgotten(at) {
            self.holders[at].shares = shares;
        }
    }

    pub(super) fn shared_unsettled(&self) -> usize {
        (0..self.holders.len()).filter(|at| self.holders[*at].shares).map(|at| self.held_by(at).count()).sum()
    }

    pub(super) fn drain(&mut self, outlet: usize, bytes: usize) {
        self.waiting[outlet] = self.waiting[outlet].saturating_sub(bytes);
    }

    pub(super) fn cancel(&mut self, at: usize, now: u64) {
        let was_consumer = matches!(self.holders[at].party, Party::Consumer { .. });
        self.holders[at].party = Party::Gone;
        if was_consumer && self.consumers() == 0 {
            self.used_ms = now;
            if self.settings.auto_delete {
                self.delete = Some(DeleteReason::AutoDelete);
            }
        }
    }

    pub(super) fn release(&mut self, at: usize, now: u64) {
        self.cancel(at, now);
        self.put_back(at);
        let seqs = self.held_in_order(at, u64::MAX);
        self.apply(&seqs, &Verb::Requeue);
    }

    pub(super) fn purge(&mut self) -> u64 {
        let seqs: Vec<_> = self.ready().map(|item| item.seq).collect();
        for seq in &seqs {
            self.remove(*seq);
            self.gone.push(*seq);
        }
        seqs.len() as u64
    }

    pub(super) fn touch(&mut self, now: u64) {
        self.used_ms = now;
    }

    pub(super) fn tick(&mut self, now: u64) {
        self.expire_heads(now);
        if self.lease_end_ms().is_some_and(|end| end <= now) {
            self.delete = Some(DeleteReason::Expired);
        }
    }

    // How it happens.

    fn level(&self, message: &Message) -> u8 {
        message.priority.min(self.settings.priority_max.unwrap_or(0))
    }

    /// All priorities, highest first.
    fn levels(&self) -> impl Iterator<Item = u8> + use<> {
        (0..=self.settings.priority_max.unwrap_or(0)).rev()
    }

    fn head_of(&self, level: u8) -> Option<&Item> {
        self.ready().filter(|item| self.level(&item.message) == level).min_by_key(|item| item.seq)
    }

    fn head(&self) -> Option<&Item> {
        self.levels().find_map(|level| self.head_of(level))
    }

    fn expire_heads(&mut self, now: u64) {
        for level in self.levels() {
            while let Some(head) = self.head_of(level)
                && head.deadline_ms.is_some_and(|deadline| deadline <= now)
            {
                self.die(head.seq, Expired, None);
            }
        }
    }

    fn next_live(&mut self, now: u64) -> Option<u64> {
        loop {
            let head = self.head()?;
            if head.deadline_ms.is_none_or(|deadline| deadline > now) {
                return Some(head.seq);
            }
            self.die(head.seq, Expired, None);
        }
    }

    fn assign(&mut self, now: u64, deliveries: &mut VecDeque<(usize, Delivery)>) {
        while let Some(seq) = self.next_live(now)
            && self.someone_takes(deliveries)
        {
            self.follow(seq, deliveries);
        }
    }

    /// Whether the queue has chosen a consumer for the next message. If not, there must have been none.
    fn someone_takes(&self, deliveries: &VecDeque<(usize, Delivery)>) -> bool {
        if deliveries.is_empty() {
            let left = (0..self.holders.len()).find(|at| self.has_to_be_served(*at));
            assert_eq!(left, None, "this consumer was not served");
        }
        !deliveries.is_empty()
    }

    /// Follows the queue's choice of a consumer, if it was a good one.
    fn follow(&mut self, seq: u64, deliveries: &mut VecDeque<(usize, Delivery)>) {
        let (at, delivery) = deliveries.pop_front().unwrap();
        assert!(self.can_take(at), "consumer {at} cannot take {delivery:?}");
        let Party::Consumer { priority, no_ack, outlet, .. } = self.holders[at].party else {
            panic!("no consumer")
        };
        for other in (0..self.holders.len()).filter(|other| self.has_to_be_served(*other)) {
            assert!(self.priority(other) <= priority, "consumer {other} has precedence over {at}");
        }
        self.waiting[outlet] += delivery.weight();
        if let Party::Consumer { credit: Credit::Counted(left), .. } = &mut self.holders[at].party {
            *left -= 1;
        }
        self.hand_over(seq, at, no_ack, &delivery);
    }

    fn hand_over(&mut self, seq: u64, at: usize, no_ack: bool, real: &Delivery) {
        let tag = self.holders[at].next_tag;
        self.holders[at].next_tag += 1;
        let item = self.items.iter_mut().find(|item| item.seq == seq).unwrap();
        let expected = (tag, Seq(seq), item.redelivered, item.failed);
        assert_eq!((real.tag, real.seq, real.redelivered, real.delivery_count), expected);
        assert!(real.message.is(&item.message));
        item.held = Some((at, tag));
        if no_ack {
            self.remove(seq);
            self.gone.push(seq);
        }
    }

    fn priority(&self, at: usize) -> i32 {
        match self.holders[at].party {
            Party::Consumer { priority, .. } => priority,
            _ => panic!("no consumer"),
        }
    }

    fn can_take(&self, at: usize) -> bool {
        let Party::Consumer { credit, outlet, .. } = self.holders[at].party else { return false };
        let has_credit = match credit {
            Credit::Unlimited => true,
            Credit::Unsettled(max) => self.held_by(at).count() < max as usize,
            Credit::Counted(left) => left > 0,
        };
        let is_consumer = |holder: &Holder| matches!(holder.party, Party::Consumer { .. });
        let active = !self.settings.single_active || self.holders.iter().position(is_consumer) == Some(at);
        let shared = !self.holders[at].shares || self.shared_unsettled() < SHARED_MAX as usize;
        has_credit && shared && active && self.waiting[outlet] < OUTLET_CAP
    }

    /// A consumer that was passed over once has to be served again when its outlet is down to half, not before.
    fn has_to_be_served(&self, at: usize) -> bool {
        let Party::Consumer { outlet, .. } = self.holders[at].party else { return false };
        self.can_take(at) && self.waiting[outlet] <= OUTLET_CAP / 2
    }

    fn exceeds(&self, messages: u64, bytes: u64) -> bool {
        self.settings.length_max.is_some_and(|max| messages > max)
            || self.settings.bytes_max.is_some_and(|max| bytes > max)
    }

    fn length(&self) -> (u64, u64) {
        (self.ready().count() as u64, self.ready().map(|item| item.message.body().len() as u64).sum())
    }

    fn would_exceed(&self, message: &Message) -> bool {
        let (messages, bytes) = self.length();
        self.exceeds(messages + 1, bytes + message.body().len() as u64)
    }

    fn is_over(&self) -> bool {
        let (messages, bytes) = self.length();
        self.exceeds(messages, bytes)
    }

    fn drop_excess(&mut self, now: u64) {
        if self.settings.overflow != Overflow::DropHead || !self.is_over() {
            return;
        }
        self.expire_heads(now);
        while self.is_over() {
            let least = self.ready().min_by_key(|item| (self.level(&item.message), item.seq)).unwrap().seq;
            self.die(least, Maxlen, None);
        }
    }

    fn refuse(&mut self) -> Refused {
        if self.settings.overflow == Overflow::RejectPublishDeadLetter && self.settings.dead_letter.is_some()
        {
            self.dead.push((None, Maxlen, None));
        }
        let (ready, bytes) = self.length();
        Refused::Full { ready, bytes }
    }

    fn apply(&mut self, seqs: &[u64], verb: &Verb) {
        for &seq in seqs {
            let item = self.items.iter_mut().find(|item| item.seq == seq).unwrap();
            match verb {
                Verb::Ack => {
                    self.remove(seq);
                    self.gone.push(seq);
                }
                Verb::Reject { note } => self.die(seq, Rejected, note.clone()),
                Verb::Release | Verb::Requeue => {
                    (item.held, item.set_aside) = (None, None);
                    item.redelivered = true;
                    item.failed += u32::from(*verb == Verb::Requeue);
                    let failed = item.failed;
                    if *verb == Verb::Requeue && self.settings.delivery_limit.is_some_and(|max| failed > max)
                    {
                        self.die(seq, DeliveryLimit, None);
                    } else {
                        self.returned.push((seq, failed));
                    }
                }
            }
        }
        self.returned.sort_unstable();
    }

    fn die(&mut self, seq: u64, reason: DeathReason, note: Option<Arc<str>>) {
        self.remove(seq);
        if self.settings.dead_letter.is_some() {
            self.dead.push((Some(seq), reason, note));
        } else {
            self.gone.push(seq);
        }
    }

    fn remove(&mut self, seq: u64) {
        let at = self.items.iter().position(|item| item.seq == seq).expect("a message leaves only once");
        self.items.remove(at);
    }

    fn take_seq(&mut self) -> u64 {
        self.next_seq += 1;
        self.next_seq - 1
    }

    fn held_in_order(&self, at: usize, last: u64) -> Vec<u64> {
        let free = self.held_by(at).filter(|item| item.set_aside.is_none());
        let mut held: Vec<_> = free.map(|item| (item.held.unwrap().1, item.seq)).collect();
        held.retain(|(tag, _)| *tag <= last);
        held.sort_unstable();
        held.into_iter().map(|(_, seq)| seq).collect()
    }

    fn is_forgotten(&self, at: usize) -> bool {
        matches!(self.holders[at].party, Party::Gone) && self.held_by(at).count() == 0
    }

    fn lease_end_ms(&self) -> Option<u64> {
        if self.consumers() > 0 { None } else { self.settings.expires_ms.map(|length| self.used_ms + length) }
    }
}
