//! Messages that are in the journal alone: letting go of them, and reading them back.

use std::sync::Arc;

use super::{Inner, Queue, QueueGone, Work};
use crate::queue::{Delivery, Effects, Got, HolderId, Wanted};
use crate::store::{InMemory, Memory, Shortage};

impl Queue {
    /// Takes one message, if there is one.
    pub fn get(
        self: &Arc<Self>,
        holder: HolderId,
        no_ack: bool,
        work: &mut Work,
    ) -> Result<Option<Got>, QueueGone> {
        loop {
            let get = |inner: &mut Inner, now_ms, effects: &mut Effects| {
                if inner.state.next_is_stored() && !inner.unreadable {
                    return Err(inner.state.wanted_by_get());
                }
                Ok(inner.state.get(holder, no_ack, now_ms, effects))
            };
            let found = self.act_and_answer(work, get, |found| delivery_of(found.as_mut().ok()?))?;
            match found {
                Ok(got) => return Ok(got),
                // Got in the moment in which it is there: while memory is short nothing stays that nobody consumes.
                Err(wanted) => {
                    let get = |inner: &mut Inner, now_ms, effects: &mut Effects| {
                        inner.state.get(holder, no_ack, now_ms, effects)
                    };
                    let got = self.read_wanted(&wanted, work, get, delivery_of)?;
                    if got.is_some() {
                        return Ok(got);
                    }
                }
            }
        }
    }

    /// Reads what is to be delivered next from the journal, and delivers it. Waits for the disk, but not with the
    /// queue's lock held.
    pub fn read(self: &Arc<Self>, work: &mut Work) -> Result<(), QueueGone> {
        let Some(wanted) = self.act(work, |inner, _, _| inner.state.wanted())? else { return Ok(()) };
        let end_read = |inner: &mut Inner, _, _: &mut Effects| {
            if !inner.unreadable {
                inner.state.end_read();
            }
        };
        self.read_wanted(&wanted, work, end_read, |()| None)
    }

    /// Reads, and does something more before anything else can happen to the queue.
    fn read_wanted<R>(
        self: &Arc<Self>,
        wanted: &Wanted,
        work: &mut Work,
        then: impl FnOnce(&mut Inner, u64, &mut Effects) -> R,
        delivery: fn(&mut R) -> Option<&mut Delivery>,
    ) -> Result<R, QueueGone> {
        let Wanted { seqs, places, .. } = wanted;
        let mut read = Vec::with_capacity(seqs.len());
        let mut unreadable = None;
        self.store.read_messages(places, &mut |index, message| match (seqs.get(index), message) {
            (Some(seq), Ok(message)) => read.push((*seq, message)),
            (_, Err(error)) => drop(unreadable.get_or_insert(error)),
            (None, Ok(_)) => {}
        });
        let load = |inner: &mut Inner, now_ms, effects: &mut Effects| {
            for (seq, message) in read {
                inner.state.load(seq, message);
            }
            // The queue delivers nothing beyond it, rather than pass it over in silence.
            if let Some(error) = unreadable {
                tracing::error!(queue = %self.name, %error, "a message cannot be read: its queue is closed");
                inner.unreadable = true;
                inner.close(&format!("a message of the queue cannot be read: {error}"));
            }
            let result = then(inner, now_ms, effects);
            inner.state.dispatch(now_ms, effects);
            result
        };
        self.act_and_answer(work, load, delivery)
    }

    /// Lets go of messages that are in the journal, as long as memory is short. For a queue that nothing else happens to;
    /// if something does after all, it comes in between.
    pub fn unload(self: &Arc<Self>, work: &mut Work) {
        while self.account(&mut self.inner.lock()) {}
        // What that leaves to do.
        let _ = self.act(work, |_, _, _| ());
    }

    /// Tells the store how much memory the queue's messages take up, and acts on what that means: a little at a time, unless
    /// it is too much already. Whether there may be more to let go of.
    pub(super) fn account(&self, inner: &mut Inner) -> bool {
        let memory = &self.store.memory;
        loop {
            inner.tell(memory);
            let shortage = memory.shortage(inner.state.consumers() > 0);
            let has_more = inner.state.short_of_memory(shortage);
            if shortage != Shortage::None {
                inner.tell(memory);
            }
            if shortage != Shortage::Severe || !has_more {
                return has_more;
            }
        }
    }
}

impl Inner {
    fn tell(&mut self, memory: &Memory) {
        let state = &self.state;
        let now = InMemory { bytes: state.loaded_bytes(), journaled_bytes: state.journaled_bytes() };
        memory.account(self.accounted, now);
        self.accounted = now;
    }
}

/// The delivery of what was got.
fn delivery_of(got: &mut Option<Got>) -> Option<&mut Delivery> {
    got.as_mut().map(|got| &mut got.delivery)
}
