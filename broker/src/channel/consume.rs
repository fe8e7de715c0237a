//! Start, stop and feed consumers; get single messages.

use std::sync::Arc;

use leveret_protocol::QueueName;
use rustc_hash::FxHashSet;

use super::prefetch::SharedPrefetch;
use super::{Channel, ChannelError, Held, Role};
use crate::queue::{ConsumerSpec, Got, Queue, QueueGone, Recipient, Verb, Work};
use crate::topology::TopologyError;

/// What a consumer asks for.
#[derive(Debug)]
pub struct Consume<'a> {
    /// Its number on the channel.
    pub number: u32,
    /// The queue.
    pub queue: &'a QueueName,
    /// How it consumes.
    pub spec: ConsumerSpec,
    /// Where its deliveries go.
    pub recipient: Arc<dyn Recipient>,
}

impl Channel {
    /// Starts a consumer. `admitted` is called before its first delivery, so that the client hears of it first.
    pub fn consume(
        &mut self,
        consume: Consume<'_>,
        work: &mut Work,
        admitted: impl FnOnce(),
    ) -> Result<(), ChannelError> {
        let Consume { number, queue: name, spec, recipient } = consume;
        self.check_number(number, work)?;
        let no_ack = spec.no_ack;
        let queue = self.vhost.queue(name.as_str(), self.connection)?;
        let share = self.shared_prefetch.as_ref().filter(|_| !no_ack).map(SharedPrefetch::share);
        let holder = match queue.subscribe(spec, share.clone(), recipient, work, admitted) {
            Ok(Ok(holder)) => holder,
            Ok(Err(source)) => {
                let (queue, vhost) = (name.to_string(), self.vhost.name.clone());
                return Err(TopologyError::NotSubscribed { queue, vhost, source }.into());
            }
            Err(QueueGone) => return Err(self.no_queue(name)),
        };
        self.held.insert(number, Held { queue, holder, role: Role::Consumer { no_ack }, share });
        self.vhost.finish(work);
        Ok(())
    }

    /// Stops a consumer. What it holds can still be settled.
    pub fn cancel(&mut self, number: u32, work: &mut Work) -> Result<(), ChannelError> {
        // One that the broker has cancelled meanwhile, or that was never there, is stopped already: a client cannot
        // know of a cancellation that crosses its own.
        let Some(held) = self.held.get_mut(&number).filter(|held| held.role.is_consumer()) else {
            return Ok(());
        };
        held.role = Role::Cancelled;
        match held.queue.cancel(held.holder, work) {
            Ok(0) => drop(self.held.remove(&number)),
            Ok(_) => {}
            Err(QueueGone) => {
                held.abandon();
                self.held.remove(&number);
            }
        }
        self.vhost.finish(work);
        self.pass_credit_on(work);
        Ok(())
    }

    /// Allows a consumer without acknowledgements more deliveries.
    pub fn add_credit(&mut self, number: u32, more: u32, work: &mut Work) -> Result<(), ChannelError> {
        // One that the broker has just cancelled may still be sent credit.
        let Some(held) = self.held.get(&number) else { return Ok(()) };
        if held.role == (Role::Consumer { no_ack: false }) {
            return Err(ChannelError::CreditWithAcks { consumer: number });
        }
        let _ = held.queue.add_credit(held.holder, more, work);
        self.vhost.finish(work);
        Ok(())
    }

    /// Ends a consumer that got a delivery which cannot be sent: that one goes back to its place, without blame; what
    /// else it holds can still be settled. Whether it was not ended yet.
    pub fn give_back(&mut self, number: u32, tag: u64, work: &mut Work) -> bool {
        let Some(held) = self.held.get_mut(&number) else { return false };
        let first = held.role.is_consumer();
        held.role = Role::Cancelled;
        // Cancelled first, or it would get at once what it gives back. To a queue that is gone nothing can go back, and
        // without acknowledgements the delivery has counted as done since it was made.
        let _ = held.queue.cancel(held.holder, work);
        match held.queue.settle(held.holder, &[(tag, tag)], &Verb::Release, work) {
            Ok(left) if left.unwrap_or(0) == 0 => drop(self.held.remove(&number)),
            Ok(_) => {}
            Err(QueueGone) => held.abandon(),
        }
        self.vhost.finish(work);
        self.pass_credit_on(work);
        first
    }

    /// Takes one message off a queue, if there is one; also says how many messages are ready, or are left. All gets
    /// from one queue may use the same number, which settles name.
    pub fn get(
        &mut self,
        number: u32,
        name: &QueueName,
        no_ack: bool,
        work: &mut Work,
    ) -> Result<Option<Got>, ChannelError> {
        let queue = self.vhost.queue(name.as_str(), self.connection)?;
        self.get_from(number, &queue, no_ack, work)
    }

    /// As [`Channel::get`], from a queue that has been looked up.
    pub fn get_from(
        &mut self,
        number: u32,
        queue: &Arc<Queue>,
        no_ack: bool,
        work: &mut Work,
    ) -> Result<Option<Got>, ChannelError> {
        let holder = match self.held.get(&number) {
            Some(held) if held.role == Role::Passive && Arc::ptr_eq(&held.queue, queue) => held.holder,
            _ => {
                self.check_number(number, work)?;
                let holder = queue.open_passive(work).map_err(|QueueGone| self.no_queue(&queue.name))?;
                let held = Held { queue: Arc::clone(queue), holder, role: Role::Passive, share: None };
                self.held.insert(number, held);
                holder
            }
        };
        let got = queue.get(holder, no_ack, work).map_err(|QueueGone| self.no_queue(&queue.name))?;
        self.vhost.finish(work);
        Ok(got)
    }

    /// Whether this is a consumer that is served, or may be: not cancelled, and not gone with its queue.
    pub fn is_consuming(&self, number: u32) -> bool {
        self.held.get(&number).is_some_and(|held| held.role.is_consumer() && !held.queue.is_gone())
    }

    /// Whether anything is known of this number.
    pub fn holds(&self, number: u32) -> bool {
        self.held.contains_key(&number)
    }

    /// Whether it has as many consumers, and queues that are got from, as it may have.
    pub fn is_full(&self) -> bool {
        self.held.len() >= self.consumers_max
    }

    /// Forgets what only stands for gets and has nothing left to settle: a channel may get from any number of queues,
    /// one after the other.
    pub fn release_idle(&mut self, work: &mut Work) {
        self.held.retain(|_, held| {
            let idle = held.role == Role::Passive && held.is_idle();
            if idle {
                let _ = held.queue.release(held.holder, work);
                self.vhost.finish(work);
            }
            !idle
        });
    }

    /// The connection can take deliveries again after it was full: consumers that were passed over wait for their
    /// turn again.
    pub fn resume(&self, work: &mut Work) {
        let mut resumed = FxHashSet::default();
        for held in self.held.values().filter(|held| held.role.is_consumer()) {
            if resumed.insert(held.queue.id) {
                let _ = held.queue.resume(work);
                self.vhost.finish(work);
            }
        }
    }

    fn check_number(&mut self, number: u32, work: &mut Work) -> Result<(), ChannelError> {
        match self.held.get(&number) {
            // A queue that was deleted took its consumers along, and the client was told.
            Some(held) if held.queue.is_gone() => {
                held.abandon();
                self.held.remove(&number);
            }
            Some(_) => return Err(ChannelError::ConsumerInUse { consumer: number }),
            None => {}
        }
        if self.held.len() >= self.consumers_max {
            // Whose queue was deleted is no consumer any more, though its client may never name it again.
            self.held.retain(|_, held| {
                let gone = held.queue.is_gone();
                if gone {
                    held.abandon();
                }
                !gone
            });
        }
        self.pass_credit_on(work);
        if self.held.len() >= self.consumers_max {
            return Err(ChannelError::TooManyConsumers { max: self.consumers_max });
        }
        Ok(())
    }

    fn no_queue(&self, name: &QueueName) -> ChannelError {
        TopologyError::NoQueue { queue: name.to_string(), vhost: self.vhost.name.clone() }.into()
    }
}
