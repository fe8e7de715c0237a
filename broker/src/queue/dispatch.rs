//! The way of messages in and out: enqueue, dispatch, get, expire, drop.

use leveret_protocol::DeathReason;

use super::consumers::{Place, Share};
use super::effects::{Dead, Delivery, Effects};
use super::entry::Entry;
use super::expiry;
use super::holders::{HolderId, Role, Serving};
use super::limits::Refused;
use super::settings::Overflow;
use super::state::{Got, State};
use super::unacked::Unacked;
use crate::store::{Content, Message, Seq};

/// How many messages a consumer gets in one turn, if there are enough for everybody. Runs of messages for one
/// connection cost less than the same messages one by one for many.
const TURN_MAX: u64 = 16;

/// So many bytes of messages wait while publisher and consumer are both at work; it takes more to make a backlog.
const CROWDED_BYTES: u64 = 1024 * 1024;

impl State {
    /// Takes a message in. It waits until the next [`State::dispatch`], with two exceptions: a queue that is at its
    /// length limit first gives its consumers what they can take, so that a message that need not wait is neither
    /// refused nor displaces another; and a message that may not wait at all (TTL 0) is delivered at once or expires.
    pub fn enqueue(&mut self, message: Message, now_ms: u64, fx: &mut Effects) -> Result<Seq, Refused> {
        let deadline_ms = expiry::deadline_ms(&message, self.settings.message_ttl_ms, now_ms);
        if deadline_ms <= now_ms || self.is_full_for(&message) {
            return self.enqueue_pressed(message, deadline_ms, now_ms, fx);
        }
        let entry = self.admit(message, deadline_ms);
        let seq = entry.seq;
        self.ready.put(entry);
        Ok(seq)
    }

    /// Hands ready messages to consumers, until the messages or the credit of the consumers is used up, and drops
    /// what then exceeds the length limits. To be called once after each batch of events.
    pub fn dispatch(&mut self, now_ms: u64, fx: &mut Effects) {
        self.assign(now_ms, fx);
        self.drop_excess(now_ms, fx);
    }

    /// After a [`State::dispatch`]: the slot of the first consumer that was passed over, if very many messages wait for no
    /// other reason.
    pub fn waits_for_room_of(&self) -> Option<u32> {
        let crowded = self.ready.loaded_bytes() > CROWDED_BYTES && self.ready.next_is_loaded();
        self.starved.first().copied().filter(|_| crowded)
    }

    /// Hands the next message, if there is one, to a holder that asks for it, whatever its credit. Counts as use of
    /// the queue (`x-expires`). The delivery is the answer: it is not in `fx` and not added to any outlet.
    ///
    /// As in RabbitMQ's classic queues this also works beside a single active consumer.
    pub fn get(&mut self, holder: HolderId, no_ack: bool, now_ms: u64, fx: &mut Effects) -> Option<Got> {
        self.touch(now_ms);
        if matches!(self.holders.get(holder)?.role, Role::Leaving) {
            return None;
        }
        let next = self.pop_live(now_ms, fx)?;
        let keeps_unacked = self.keeps_unacked;
        let held = self.holders.get_mut(holder)?;
        if let Some(share) = held.share.as_ref().filter(|_| !no_ack) {
            share.count(1);
        }
        let (delivery, kept_bytes) = hand_over(next, holder, &mut held.unacked, no_ack, keeps_unacked, fx)?;
        self.count_unacked(no_ack, kept_bytes);
        Some(Got { delivery, ready_left: self.ready.len() })
    }

    /// Lets up to `most` messages expire that are at the head of their priority.
    pub(super) fn expire(&mut self, now_ms: u64, most: usize, fx: &mut Effects) {
        for _ in 0..most {
            let Some(entry) = self.ready.pop_expired(now_ms) else { return };
            self.bury(entry, DeathReason::Expired, None, fx);
        }
    }

    /// Takes in a message that may not wait, or for which there is no place as things are.
    #[cold]
    fn enqueue_pressed(
        &mut self,
        message: Message,
        deadline_ms: u64,
        now_ms: u64,
        fx: &mut Effects,
    ) -> Result<Seq, Refused> {
        self.assign(now_ms, fx);
        if self.ready.is_empty()
            && let Some((slot, _)) = self.next_taker()
        {
            let entry = self.admit(message, deadline_ms);
            let seq = entry.seq;
            self.serve(slot, Some(entry), 1, now_ms, fx);
            return Ok(seq);
        }
        self.expire(now_ms, usize::MAX, fx);
        if self.limits.overflow != Overflow::DropHead && self.is_full_for(&message) {
            return Err(self.refuse(message, fx));
        }
        let entry = self.admit(message, deadline_ms);
        let seq = entry.seq;
        if entry.expired(now_ms) {
            self.bury(entry, DeathReason::Expired, None, fx);
        } else {
            self.ready.put(entry);
            self.drop_excess(now_ms, fx);
        }
        Ok(seq)
    }

    fn admit(&mut self, message: Message, deadline_ms: u64) -> Entry {
        let seq = Seq(self.next_seq);
        self.next_seq += 1;
        Entry::new(seq, message, deadline_ms)
    }

    fn is_full_for(&self, message: &Message) -> bool {
        self.limits.exceeded(self.ready.len() + 1, self.ready.body_bytes() + message.body().len() as u64)
    }

    fn refuse(&self, message: Message, fx: &mut Effects) -> Refused {
        if self.limits.overflow == Overflow::RejectPublishDeadLetter && self.settings.dead_letter.is_some() {
            let content = Content::Loaded(message);
            fx.dead.push(Dead { seq: None, content, reason: DeathReason::Maxlen, note: None });
        }
        Refused::Full { ready: self.ready.len(), bytes: self.ready.body_bytes() }
    }

    /// Gives consumers their turns as long as there are live messages and consumers that can take them.
    fn assign(&mut self, now_ms: u64, fx: &mut Effects) {
        // The head is looked at before a consumer is chosen, so that nobody loses its turn to an expired message.
        while self.has_next(now_ms, fx)
            && let Some((slot, peers)) = self.next_taker()
        {
            let share = (self.ready.len() / (peers as u64 + 1)).clamp(1, TURN_MAX);
            self.serve(slot, None, share as usize, now_ms, fx);
        }
    }

    /// The consumer whose turn it is, among those that can take a message; and how many others of its priority wait.
    /// If it shares its credit, that for one message is taken, which it has to get.
    fn next_taker(&mut self) -> Option<(u32, usize)> {
        loop {
            let (slot, peers) = self.turns.pop()?;
            let Some(serving) = self.holders.consumer_mut(slot) else { continue };
            if serving.credit_left() == 0 {
                serving.consumer.place = Place::Idle;
            } else if serving.consumer.outlet.room_or_starve() == 0 || !serving.share.is_none_or(Share::take)
            {
                serving.consumer.place = Place::Starved;
                self.starved.push(slot);
            } else {
                return Some((slot, peers));
            }
        }
    }

    /// One turn of a consumer: up to `most` messages, `first` before the ready ones. Then it waits for the next.
    fn serve(&mut self, slot: u32, mut first: Option<Entry>, most: usize, now_ms: u64, fx: &mut Effects) {
        let Some(Serving { consumer, share, .. }) = self.holders.consumer_mut(slot) else { return };
        let room = consumer.outlet.room();
        let shares = share.is_some();
        let mut weight = 0;
        let keeps_unacked = self.keeps_unacked;
        for turn in 0..most {
            // Credit that is taken and not used would have to go back, and whoever was passed over meanwhile would
            // not hear of it. So it is taken only for a message that is there.
            if shares && turn > 0 && !(self.has_next(now_ms, fx) && self.take_share(slot)) {
                break;
            }
            let Some(next) = first.take().or_else(|| self.pop_live(now_ms, fx)) else { break };
            let Some(serving) = self.holders.consumer_mut(slot) else { break };
            weight += next.loaded_bytes() as usize;
            serving.consumer.spend_credit();
            let no_ack = serving.consumer.no_ack;
            let Some((delivery, kept_bytes)) =
                hand_over(next, serving.id, serving.unacked, no_ack, keeps_unacked, fx)
            else {
                break;
            };
            fx.deliveries.push(delivery);
            let last = serving.credit_left() == 0 || weight >= room;
            self.count_unacked(no_ack, kept_bytes);
            if last {
                break;
            }
        }
        // Once a turn and not once a message: the outlet's counter is shared with the connection's writer.
        if let Some(Serving { consumer, .. }) = self.holders.consumer_mut(slot) {
            consumer.outlet.add(weight);
            consumer.place = Place::Idle;
        }
        self.wake(slot);
    }

    fn take_share(&mut self, slot: u32) -> bool {
        self.holders.consumer_mut(slot).is_some_and(|serving| serving.share.is_none_or(Share::take))
    }

    /// Lets the next messages expire until one is live; whether there is one.
    fn has_live(&mut self, now_ms: u64, fx: &mut Effects) -> bool {
        while let Some(entry) = self.ready.pop_next_expired(now_ms) {
            self.bury(entry, DeathReason::Expired, None, fx);
        }
        !self.ready.is_empty()
    }

    /// Whether there is a live message next, and it is in memory.
    fn has_next(&mut self, now_ms: u64, fx: &mut Effects) -> bool {
        self.has_live(now_ms, fx) && self.ready.next_is_loaded()
    }

    /// Takes the next message, if there is one and it is in memory.
    fn pop_live(&mut self, now_ms: u64, fx: &mut Effects) -> Option<Entry> {
        if self.has_next(now_ms, fx) { self.ready.pop_next() } else { None }
    }

    fn count_unacked(&mut self, no_ack: bool, kept_bytes: u64) {
        self.unacked += u64::from(!no_ack);
        self.unacked_bytes += kept_bytes;
    }

    /// Drops what exceeds the length limits, if that is how they are kept. What has expired goes first, and as
    /// expired.
    fn drop_excess(&mut self, now_ms: u64, fx: &mut Effects) {
        if self.limits.overflow != Overflow::DropHead || !self.is_over() {
            return;
        }
        self.expire(now_ms, usize::MAX, fx);
        while self.is_over()
            && let Some(entry) = self.ready.pop_least()
        {
            self.bury(entry, DeathReason::Maxlen, None, fx);
        }
    }

    fn is_over(&self) -> bool {
        self.limits.exceeded(self.ready.len(), self.ready.body_bytes())
    }
}

/// Makes a message that is in memory a delivery, which the holder keeps until it is settled, if it has to be. Gives how
/// much memory is kept with it, in bytes.
fn hand_over(
    mut entry: Entry,
    holder: HolderId,
    unacked: &mut Unacked<Entry>,
    no_ack: bool,
    keeps_unacked: bool,
    fx: &mut Effects,
) -> Option<(Delivery, u64)> {
    let Entry { seq, redelivered, failed: delivery_count, .. } = entry;
    let mut kept_bytes = 0;
    let (tag, message) = if no_ack {
        fx.gone.push(seq);
        (unacked.skip(), entry.content.into_loaded()?)
    } else {
        let message = entry.content.loaded()?.clone();
        if !keeps_unacked {
            entry.unload();
        }
        kept_bytes = entry.loaded_bytes();
        (unacked.hold(entry), message)
    };
    Some((Delivery { holder, tag, seq, message, redelivered, delivery_count, after: None }, kept_bytes))
}
