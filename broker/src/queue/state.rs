//! One queue.

use std::collections::VecDeque;
use std::sync::Arc;

use leveret_protocol::DeathReason;

use super::consumers::{Consumer, ConsumerSpec, Place, Share, SubscribeError};
use super::effects::{DeleteReason, Delivery, Effects};
use super::entry::Entry;
use super::expiry::{self, Lease};
use super::holders::{Holder, HolderId, Holders, Role, Serving};
use super::limits::Limits;
use super::ready::{Ready, Wanted};
use super::settings::{Overflow, Settings};
use super::turns::Turns;
use crate::store::{Message, Seq, Shortage, Stub, Stubs};

/// One queue: what waits in it, who holds what of it, who gets the next message.
///
/// `now_ms` is always in milliseconds since 1970-01-01 UTC and never goes back in the life of a `State`.
#[derive(Debug)]
pub struct State {
    pub(super) settings: Settings,
    pub(super) limits: Limits,
    pub(super) lease: Lease,
    pub(super) next_seq: u64,
    pub(super) ready: Ready,
    pub(super) holders: Holders,
    pub(super) turns: Turns,
    /// The consumers whose outlet was full, or whose shared credit used up, when their turn came.
    pub(super) starved: Vec<u32>,
    /// All consumers in the order in which they came, if only the first of them is served.
    line: VecDeque<HolderId>,
    consumers: usize,
    exclusively_used: bool,
    pub(super) unacked: u64,
    /// What unsettled deliveries take up in memory, in bytes.
    pub(super) unacked_bytes: u64,
    /// Whether what a consumer holds stays in memory: what comes back can be read again.
    pub(super) keeps_unacked: bool,
    reading: Reading,
    /// Empty between calls; kept so that a settle allocates nothing.
    scratch: Vec<(u64, Entry)>,
}

/// Whether messages are being read for consumers. There is one such read at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    No,
    /// Somebody has been asked to, and has not begun.
    Asked,
    Now,
}

/// What becomes of deliveries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    /// Done: they leave the queue.
    Ack,
    /// Failed: they come back to their places, and the failures count towards the delivery limit.
    Requeue,
    /// Not even tried: they come back to their places without blame.
    Release,
    /// Given up: they are dead-lettered, or dropped if the queue has no dead-letter exchange.
    Reject {
        /// Why, in the consumer's words.
        note: Option<Arc<str>>,
    },
}

/// A settle for a delivery that its holder does not hold: never made, or settled already. AMQP: 406.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown delivery tag {tag}: it was never handed out here, or is settled already")]
pub struct UnknownTag {
    /// The first tag that is not known.
    pub tag: u64,
}

/// What [`State::get`] found.
#[derive(Debug, Clone)]
pub struct Got {
    /// The message.
    pub delivery: Delivery,
    /// How many messages are ready after it.
    pub ready_left: u64,
}

/// How many messages one [`State::tick`] lets expire at most, so that it does not hold up everybody else after a
/// long pause. The rest is still due, as [`State::next_deadline_ms`] says.
const EXPIRED_PER_TICK: usize = 4096;

/// How many settled deliveries the queue keeps memory for between calls.
const SCRATCH_KEPT: usize = 1024;

impl State {
    /// An empty queue.
    pub fn new(settings: Settings, now_ms: u64) -> Self {
        Self {
            limits: Limits::new(&settings),
            lease: Lease::new(settings.expires_ms, now_ms),
            next_seq: 0,
            ready: Ready::new(settings.priority_max),
            holders: Holders::default(),
            turns: Turns::default(),
            starved: Vec::new(),
            line: VecDeque::new(),
            consumers: 0,
            exclusively_used: false,
            unacked: 0,
            unacked_bytes: 0,
            keeps_unacked: true,
            reading: Reading::No,
            scratch: Vec::new(),
            settings,
        }
    }

    /// Brings messages back after a restart, in the order of their places, before anything else happens to the queue.
    pub fn restore(&mut self, stubs: impl Iterator<Item = Stubs>, now_ms: u64) {
        let mut next = Seq(self.next_seq);
        let stubs = stubs.inspect(|stubs| next = Seq(stubs.last().0.saturating_add(1)));
        match self.settings.message_ttl_ms {
            None => self.ready.put_stubs(stubs),
            Some(ttl_ms) => {
                let with_deadline = |stub: Stub| {
                    let of_queue = expiry::end_ms(stub.arrived_ms, ttl_ms, now_ms);
                    Stub { deadline_ms: stub.deadline_ms.min(of_queue), arrived_ms: 0, ..stub }
                };
                self.ready.put_stubs(stubs.flatten().map(with_deadline).map(Stubs::One));
            }
        }
        self.skip_to(next);
    }

    /// Whether somebody is to see to what is [`State::wanted`]. Asked once, until that was done.
    pub fn asks_for_reading(&mut self) -> bool {
        let asks = self.reading == Reading::No && self.consumers > 0 && self.ready.wants();
        if asks {
            self.reading = Reading::Asked;
        }
        asks
    }

    /// What is to be read from the journal for consumers. Nothing if there are none, or while something is being read.
    /// [`State::load`], once for each, and [`State::end_read`] have to follow.
    pub fn wanted(&mut self) -> Option<Wanted> {
        if self.reading == Reading::Now {
            return None;
        }
        let wanted = if self.consumers > 0 { self.ready.wanted(usize::MAX) } else { Wanted::default() };
        let nothing = wanted.seqs.is_empty();
        self.reading = if nothing { Reading::No } else { Reading::Now };
        (!nothing).then_some(wanted)
    }

    /// What is to be read before a [`State::get`] finds it, whoever else is reading. [`State::load`] has to follow.
    pub fn wanted_by_get(&mut self) -> Wanted {
        self.ready.wanted(1)
    }

    /// A message that was wanted has been read. It is ready to be delivered with the next [`State::dispatch`], unless it
    /// has left the queue meanwhile.
    pub fn load(&mut self, seq: Seq, message: Message) {
        self.ready.load(seq, message);
    }

    /// All that was wanted has been read, or will never be.
    pub fn end_read(&mut self) {
        self.reading = Reading::No;
    }

    /// Whether [`State::get`] finds its message only after it was read.
    pub fn next_is_stored(&self) -> bool {
        !self.ready.is_empty() && !self.ready.next_is_loaded()
    }

    /// Says how short memory is. While it is, the queue lets go of messages that are in the journal as well, a few each
    /// time, until there is enough or it has only what its consumers are about to get. Whether it may have more to let go.
    pub fn short_of_memory(&mut self, shortage: Shortage) -> bool {
        self.keeps_unacked = shortage != Shortage::Severe;
        self.ready.unload(shortage, self.consumers > 0)
    }

    /// What the queue's messages take up in memory, in bytes.
    pub fn loaded_bytes(&self) -> u64 {
        self.ready.loaded_bytes() + self.unacked_bytes
    }

    /// What those among its ready messages take up that are in the journal as well, in bytes.
    pub fn journaled_bytes(&self) -> u64 {
        self.ready.journaled_bytes()
    }

    /// New messages get places from `next` on, unless they would anyway. For a restart: places of messages that have
    /// left the queue are not used again either.
    pub fn skip_to(&mut self, next: Seq) {
        self.next_seq = self.next_seq.max(next.0);
    }

    /// Lets a consumer in. It gets its first messages with the next [`State::dispatch`], so that the caller can
    /// answer it before.
    pub fn subscribe(&mut self, spec: ConsumerSpec) -> Result<HolderId, SubscribeError> {
        if self.exclusively_used {
            return Err(SubscribeError::ExclusivelyUsed);
        }
        if spec.exclusive && self.settings.single_active {
            return Err(SubscribeError::ExclusiveOnSingleActive);
        }
        if spec.exclusive && self.consumers > 0 {
            return Err(SubscribeError::AlreadyUsed);
        }
        self.exclusively_used = spec.exclusive;
        self.consumers += 1;
        self.turns.join(spec.priority);
        let id = self.holders.insert(Role::Consumer(Consumer::new(spec)));
        if self.settings.single_active {
            self.line.push_back(id);
        }
        self.wake(id.slot());
        Ok(id)
    }

    /// A holder for messages that a channel gets one by one. It does not count as a consumer.
    pub fn open_passive(&mut self) -> HolderId {
        self.holders.insert(Role::Passive)
    }

    /// A consumer shares its credit from now on, or does not any more. What it holds counts. Without effect on
    /// holders whose deliveries need no settling or are the answer to [`State::get`], as in RabbitMQ.
    pub fn share(&mut self, holder: HolderId, share: Option<Arc<Share>>) {
        let Some(held) = self.holders.get_mut(holder).filter(|held| held.role.is_limited()) else { return };
        let unsettled = held.unsettled();
        if let Some(left) = std::mem::replace(&mut held.share, share) {
            left.give_back(unsettled);
        }
        if let Some(joined) = &held.share {
            joined.count(unsettled);
        }
    }

    /// Settles the deliveries of one holder with tags in `ranges` (first and last, both included).
    ///
    /// If any of them is not held, nothing of the call is applied. The work is bounded by the number of ranges and of
    /// deliveries that the holder has, however far the ranges reach.
    pub fn settle(
        &mut self,
        holder: HolderId,
        ranges: &[(u64, u64)],
        verb: &Verb,
        fx: &mut Effects,
    ) -> Result<(), UnknownTag> {
        self.take(holder, ranges)?;
        self.settle_taken(holder, verb, fx);
        Ok(())
    }

    /// Settles all deliveries of one holder with tags up to `last`; 0 stands for all, as in AMQP. Fails if there
    /// never was a delivery `last`. That there is nothing left to settle is no error.
    pub fn settle_up_to(
        &mut self,
        holder: HolderId,
        last: u64,
        verb: &Verb,
        fx: &mut Effects,
    ) -> Result<(), UnknownTag> {
        self.take_up_to(holder, last)?;
        self.settle_taken(holder, verb, fx);
        Ok(())
    }

    /// Takes deliveries out of their holder's hands for a transaction: they stay unsettled, and can be settled neither
    /// otherwise nor again, until [`State::settle_set_aside`] does it or [`State::put_back`] undoes this. A single
    /// range that begins with 0 means all up to its end, of those that there are now.
    pub fn set_aside(
        &mut self,
        holder: HolderId,
        ranges: &[(u64, u64)],
        verb: &Verb,
    ) -> Result<(), UnknownTag> {
        match ranges {
            [(0, last)] => self.take_up_to(holder, *last)?,
            ranges => self.take(holder, ranges)?,
        }
        if let Some(held) = self.holders.get_mut(holder) {
            held.set_aside.extend(self.scratch.drain(..).map(|(tag, entry)| (tag, entry, verb.clone())));
        }
        Ok(())
    }

    /// Settles what was set aside, in the order in which it was.
    pub fn settle_set_aside(&mut self, holder: HolderId, fx: &mut Effects) {
        let Some(held) = self.holders.get_mut(holder) else { return };
        let mut set_aside = std::mem::take(&mut held.set_aside).into_iter().peekable();
        held.give_back_share(set_aside.len());
        while let Some((tag, entry, verb)) = set_aside.next() {
            self.scratch.push((tag, entry));
            while let Some((tag, entry, _)) = set_aside.next_if(|(_, _, next)| *next == verb) {
                self.scratch.push((tag, entry));
            }
            self.apply(&verb, fx);
        }
        self.after_settle(holder);
    }

    /// Gives what was set aside back to its holder, as if it never had been. Nothing is delivered again.
    pub fn put_back(&mut self, holder: HolderId) {
        if let Some(held) = self.holders.get_mut(holder) {
            held.put_back(&mut self.scratch);
        }
    }

    /// How many deliveries are set aside for this holder.
    pub fn set_aside_of(&self, holder: HolderId) -> usize {
        self.holders.get(holder).map_or(0, |held| held.set_aside.len())
    }

    /// Whether it takes so many more messages, with bodies of so many bytes, if no consumer takes any of them.
    pub fn has_room_for(&self, messages: u64, bytes: u64) -> bool {
        self.limits.overflow == Overflow::DropHead
            || !self.limits.exceeded(
                self.ready.len().saturating_add(messages),
                self.ready.body_bytes().saturating_add(bytes),
            )
    }

    /// Allows a consumer with [`Credit::Counted`](super::Credit::Counted) this many more deliveries. Without effect
    /// on others.
    pub fn add_credit(&mut self, holder: HolderId, more: u32) {
        if let Some(held) = self.holders.get_mut(holder)
            && let Role::Consumer(consumer) = &mut held.role
        {
            consumer.add_credit(more);
            self.wake(holder.slot());
        }
    }

    /// An outlet has drained, see [`Outlet::sub`](super::Outlet::sub), or shared credit came back, see
    /// [`SharedCredit::reopen`](super::SharedCredit::reopen): those who were passed over wait for their turn again.
    pub fn resume(&mut self) {
        for slot in std::mem::take(&mut self.starved) {
            if let Some(Serving { consumer, .. }) = self.holders.consumer_mut(slot) {
                consumer.place = Place::Idle;
                self.wake(slot);
            }
        }
    }

    /// The holder gets nothing more. What it holds it can still settle; then it is gone.
    pub fn cancel(&mut self, holder: HolderId, now_ms: u64, fx: &mut Effects) {
        self.detach(holder, now_ms, fx);
        self.after_settle(holder);
    }

    /// The holder's channel or connection is gone: what it holds comes back as failed, and it is gone, too.
    pub fn release(&mut self, holder: HolderId, now_ms: u64, fx: &mut Effects) {
        self.detach(holder, now_ms, fx);
        if let Some(held) = self.holders.get_mut(holder) {
            held.put_back(&mut self.scratch);
            held.unacked.take_up_to(u64::MAX, &mut self.scratch);
            held.give_back_share(self.scratch.len());
            self.apply(&Verb::Requeue, fx);
        }
        self.holders.remove(holder);
    }

    /// Removes all ready messages, and says how many there were. None of them is dead-lettered.
    pub fn purge(&mut self, fx: &mut Effects) -> u64 {
        let purged = self.ready.len();
        while let Some(entry) = self.ready.pop_next() {
            fx.gone.push(entry.seq);
        }
        purged
    }

    /// To be called when the time of [`State::next_deadline_ms`] has come: lets messages, or the queue, expire.
    pub fn tick(&mut self, now_ms: u64, fx: &mut Effects) {
        self.expire(now_ms, EXPIRED_PER_TICK, fx);
        if self.lease_end_ms().is_some_and(|end| end <= now_ms) {
            fx.delete = Some(DeleteReason::Expired);
        }
    }

    /// When [`State::tick`] has something to do: the first message at the head of its priority expires, or the
    /// queue does.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        self.ready.next_deadline_ms().into_iter().chain(self.lease_end_ms()).min()
    }

    /// The queue was declared again: that counts as use (`x-expires`). So does [`State::get`]; a publish does not.
    pub fn touch(&mut self, now_ms: u64) {
        self.lease.renew(now_ms);
    }

    /// On which level the messages of a priority are: 0 is the lowest.
    pub fn level(&self, priority: u8) -> usize {
        self.ready.level_of(priority)
    }

    /// Of each level the place that is delivered next, whether it is there yet or to come.
    pub fn upcoming(&self) -> impl Iterator<Item = Seq> {
        self.ready.firsts().map(|first| first.unwrap_or(Seq(self.next_seq)))
    }

    /// All places below this one have been used.
    pub fn next(&self) -> Seq {
        Seq(self.next_seq)
    }

    /// What the queue is to be like.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// How many messages are ready.
    pub fn ready(&self) -> u64 {
        self.ready.len()
    }

    /// How many bytes the bodies of the ready messages have.
    pub fn ready_bytes(&self) -> u64 {
        self.ready.body_bytes()
    }

    /// How many deliveries are not settled.
    pub fn unacked(&self) -> u64 {
        self.unacked
    }

    /// How many deliveries this holder has not settled; none if it has gone.
    pub fn unacked_of(&self, holder: HolderId) -> usize {
        self.holders.get(holder).map_or(0, Holder::unsettled)
    }

    /// How many consumers there are, served or not.
    pub fn consumers(&self) -> usize {
        self.consumers
    }

    /// Whether `if-unused` forbids to delete it.
    pub fn in_use(&self) -> bool {
        self.consumers > 0
    }

    /// The one consumer that is served, if the queue serves only one at a time.
    pub fn active_consumer(&self) -> Option<HolderId> {
        self.line.front().copied()
    }

    /// Puts a consumer behind those that wait for their turn, if it may get messages.
    pub(super) fn wake(&mut self, slot: u32) {
        if self.line.front().is_some_and(|active| active.slot() != slot) {
            return;
        }
        let Some(serving) = self.holders.consumer_mut(slot) else { return };
        if serving.consumer.place == Place::Idle && serving.credit_left() > 0 {
            serving.consumer.place = Place::Waiting;
            self.turns.push(serving.consumer.priority, slot);
        }
    }

    /// Gives a message up.
    pub(super) fn bury(&self, entry: Entry, reason: DeathReason, note: Option<&Arc<str>>, fx: &mut Effects) {
        fx.bury(entry, reason, note, self.settings.dead_letter.is_some());
    }

    /// Moves deliveries of a holder to `scratch`; all of them, or none if one is not held.
    fn take(&mut self, holder: HolderId, ranges: &[(u64, u64)]) -> Result<(), UnknownTag> {
        let unknown = UnknownTag { tag: ranges.first().map_or(0, |range| range.0) };
        let held = &mut self.holders.get_mut(holder).ok_or(unknown)?.unacked;
        for &(first, last) in ranges {
            if let Err(tag) = held.take_range(first, last, &mut self.scratch) {
                held.put_back(&mut self.scratch);
                return Err(UnknownTag { tag });
            }
        }
        held.tidy();
        Ok(())
    }

    /// Moves a holder's deliveries up to `last` to `scratch`; all of them, if that is 0.
    fn take_up_to(&mut self, holder: HolderId, last: u64) -> Result<(), UnknownTag> {
        let unknown = UnknownTag { tag: last };
        let held = &mut self.holders.get_mut(holder).ok_or(unknown)?.unacked;
        if last >= held.next_tag() {
            return Err(unknown);
        }
        held.take_up_to(if last == 0 { u64::MAX } else { last }, &mut self.scratch);
        Ok(())
    }

    /// Settles what was taken from a holder.
    fn settle_taken(&mut self, holder: HolderId, verb: &Verb, fx: &mut Effects) {
        if let Some(held) = self.holders.get(holder) {
            held.give_back_share(self.scratch.len());
        }
        self.apply(verb, fx);
        self.after_settle(holder);
    }

    /// Settles what `scratch` holds, and empties it.
    fn apply(&mut self, verb: &Verb, fx: &mut Effects) {
        let mut settled = std::mem::take(&mut self.scratch);
        self.unacked -= settled.len() as u64;
        self.unacked_bytes -= settled.iter().map(|(_, entry)| entry.loaded_bytes()).sum::<u64>();
        match verb {
            Verb::Ack => fx.gone.extend(settled.drain(..).map(|(_, entry)| entry.seq)),
            Verb::Requeue => self.give_back(&mut settled, 1, fx),
            Verb::Release => self.give_back(&mut settled, 0, fx),
            Verb::Reject { note } => {
                for (_, entry) in settled.drain(..) {
                    self.bury(entry, DeathReason::Rejected, note.as_ref(), fx);
                }
            }
        }
        settled.shrink_to(SCRATCH_KEPT);
        self.scratch = settled;
    }

    /// Puts messages back to their places, as failed or without blame; those that failed too often are given up.
    fn give_back(&mut self, settled: &mut Vec<(u64, Entry)>, failures: u32, fx: &mut Effects) {
        let dead_letter = self.settings.dead_letter.is_some();
        for (_, entry) in settled.extract_if(.., |(_, entry)| {
            entry.failed = entry.failed.saturating_add(failures);
            entry.redelivered = true;
            self.limits.poisonous(entry.failed)
        }) {
            fx.bury(entry, DeathReason::DeliveryLimit, None, dead_letter);
        }
        // From the newest to the oldest, so that each goes to the front of the run, without a search for its place.
        for (_, entry) in settled.drain(..).rev() {
            fx.returned.push((entry.seq, entry.failed));
            self.ready.put(entry);
        }
    }

    /// A holder that leaves and has settled everything is forgotten; any other may have credit again.
    fn after_settle(&mut self, holder: HolderId) {
        let Some(held) = self.holders.get(holder) else { return };
        if matches!(held.role, Role::Leaving) && held.unsettled() == 0 {
            self.holders.remove(holder);
        } else {
            self.wake(holder.slot());
        }
    }

    /// The holder gets nothing more, and is no consumer any more if it was one.
    fn detach(&mut self, holder: HolderId, now_ms: u64, fx: &mut Effects) {
        let Some(held) = self.holders.get_mut(holder) else { return };
        let Role::Consumer(consumer) = std::mem::replace(&mut held.role, Role::Leaving) else { return };
        let slot = holder.slot();
        self.turns.leave(consumer.priority, slot);
        self.starved.retain(|starved| *starved != slot);
        self.line.retain(|in_line| *in_line != holder);
        if let Some(next) = self.line.front() {
            self.wake(next.slot());
        }
        self.consumers -= 1;
        if consumer.exclusive {
            self.exclusively_used = false;
        }
        if self.consumers == 0 {
            self.lease.renew(now_ms);
            if self.settings.auto_delete {
                fx.delete = Some(DeleteReason::AutoDelete);
            }
        }
    }

    fn lease_end_ms(&self) -> Option<u64> {
        if self.consumers == 0 { self.lease.end_ms() } else { None }
    }
}
