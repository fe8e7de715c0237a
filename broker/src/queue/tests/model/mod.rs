//! Random operations on a queue and on a model of it that is too simple to be wrong: one list, searched every time.
//!
//! The model says what has to happen, with one freedom: among the consumers that could take a message, the queue
//! chooses. The model follows its choice, and checks that it was among those of the highest priority, that nobody
//! exceeded its credit or its outlet, and that nobody was left waiting who could have been served.

mod operations;
mod reference;

use std::collections::VecDeque;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::store::Shortage;
use operations::{Op, operations, settings};
use reference::{Model, Party};

/// When an outlet is full, in bytes: with the weights of the generated messages, after two or three of them.
const OUTLET_CAP: usize = 400;

/// How many deliveries the consumers that share their credit may have unsettled together.
const SHARED_MAX: u32 = 3;

/// The queue and its model side by side.
struct Pair {
    state: State,
    model: Model,
    fx: Effects,
    now: u64,
    outlets: [Arc<Outlet>; 2],
    shared: Arc<SharedCredit>,
    /// All holders that there ever were, also those that are gone.
    holders: Vec<HolderId>,
    pins: Pins,
    /// Every message that can be read back.
    journal: Vec<Message>,
    shortage: Shortage,
}

impl Pair {
    fn new(settings: Settings) -> Self {
        Self {
            model: Model::new(settings.clone(), START),
            state: State::new(settings, START),
            fx: Effects::default(),
            now: START,
            outlets: [(); 2].map(|()| Arc::new(Outlet::new(OUTLET_CAP))),
            shared: Arc::new(SharedCredit::new(SHARED_MAX)),
            holders: Vec::new(),
            pins: Pins::new(1 << 20),
            journal: Vec::new(),
            shortage: Shortage::None,
        }
    }

    /// Does one thing on both sides, and compares everything that can be seen.
    fn step(&mut self, op: &Op) {
        self.fx.clear();
        self.model.clear();
        self.read();
        self.act(op);
        // As a channel does after whatever may settle.
        if self.shared.reopen() {
            self.state.resume();
        }
        self.compare();
        // As a queue's handle does after everything that happens.
        self.state.short_of_memory(self.shortage);
        self.check_memory();
    }

    /// Reads whatever is not in memory, before the model expects it to be delivered.
    fn read(&mut self) {
        loop {
            let Wanted { seqs, places, .. } = self.state.wanted_by_get();
            if seqs.is_empty() {
                return;
            }
            for (seq, place) in seqs.into_iter().zip(places) {
                self.state.load(seq, self.journal[place.position().0 as usize].clone());
            }
        }
    }

    /// What is accounted for is what is in memory: the messages that somebody but the journal has.
    fn check_memory(&self) {
        let anywhere = |item: &&reference::Item| {
            let journaled = usize::from(item.message.place.is_some());
            item.message.holders() > 1 + journaled
        };
        let weight: usize =
            self.model.all().filter(anywhere).map(|item| effects::weight(&item.message)).sum();
        assert_eq!(self.state.loaded_bytes(), weight as u64);
    }

    fn act(&mut self, op: &Op) {
        match op {
            Op::Publish { length, ttl_ms, age_ms, priority, stored } => {
                self.publish(*length, *ttl_ms, *age_ms, *priority, *stored);
            }
            Op::ShortOfMemory(shortage) => self.shortage = *shortage,
            Op::Dispatch => {
                self.state.dispatch(self.now, &mut self.fx);
                let mut deliveries = self.take_deliveries();
                self.model.dispatch(self.now, &mut deliveries);
                assert!(deliveries.is_empty(), "too many deliveries: {deliveries:?}");
            }
            Op::Subscribe { priority, exclusive, no_ack, credit, outlet, shares } => {
                let (priority, exclusive, no_ack, credit) = (*priority, *exclusive, *no_ack, *credit);
                let shared = Arc::clone(&self.outlets[*outlet]);
                let spec = ConsumerSpec { outlet: shared, priority, exclusive, no_ack, credit };
                let result = self.state.subscribe(spec);
                let party = Party::Consumer { priority, exclusive, no_ack, credit, outlet: *outlet };
                assert_eq!(result.map(drop), self.model.subscribe(party));
                if let Some(holder) = result.ok().filter(|_| *shares) {
                    self.state.share(holder, Some(self.share()));
                    self.model.share(self.holders.len(), true);
                }
                self.holders.extend(result);
            }
            Op::OpenPassive => {
                self.holders.push(self.state.open_passive());
                self.model.open(Party::Passive);
            }
            Op::Drain { outlet, bytes } => {
                if self.outlets[*outlet].sub(*bytes) {
                    self.state.resume();
                }
                self.model.drain(*outlet, *bytes);
            }
            Op::Purge => assert_eq!(self.state.purge(&mut self.fx), self.model.purge()),
            Op::Touch => {
                self.state.touch(self.now);
                self.model.touch(self.now);
            }
            Op::Advance { ms } => {
                self.now += ms;
                self.state.tick(self.now, &mut self.fx);
                self.model.tick(self.now);
            }
            Op::ToHolder { at, also_gone, op } => {
                let holders: Vec<_> = self.model.holders(*also_gone).collect();
                if let Some(at) = at.checked_rem(holders.len()) {
                    self.act_on(holders[at], op);
                }
            }
        }
    }

    fn act_on(&mut self, at: usize, op: &operations::HolderOp) {
        use operations::HolderOp;
        let holder = self.holders[at];
        match op {
            HolderOp::Settle { ranges, verb } => {
                let result = self.state.settle(holder, ranges, verb, &mut self.fx);
                assert_eq!(result, self.model.settle(at, ranges, verb));
            }
            HolderOp::SettleUpTo { last, verb } => {
                let result = self.state.settle_up_to(holder, *last, verb, &mut self.fx);
                assert_eq!(result, self.model.settle_up_to(at, *last, verb));
            }
            HolderOp::SetAside { ranges, verb } => {
                let result = self.state.set_aside(holder, ranges, verb);
                assert_eq!(result, self.model.set_aside(at, ranges, verb));
            }
            HolderOp::SettleSetAside => {
                self.state.settle_set_aside(holder, &mut self.fx);
                self.model.settle_set_aside(at);
            }
            HolderOp::PutBack => {
                self.state.put_back(holder);
                self.model.put_back(at);
            }
            HolderOp::Get { no_ack } => {
                let got = self.state.get(holder, *no_ack, self.now, &mut self.fx);
                let delivery = got.as_ref().map(|got| &got.delivery);
                let expected = self.model.get(at, *no_ack, delivery, self.now);
                assert_eq!(got.map(|got| got.ready_left), expected);
            }
            HolderOp::AddCredit { more } => {
                self.state.add_credit(holder, *more);
                self.model.add_credit(at, *more);
            }
            HolderOp::Share { shares } => {
                self.state.share(holder, shares.then(|| self.share()));
                // As a channel does when it gives up its limit.
                self.state.resume();
                self.model.share(at, *shares);
            }
            HolderOp::Cancel => {
                self.state.cancel(holder, self.now, &mut self.fx);
                self.model.cancel(at, self.now);
            }
            HolderOp::Release => {
                self.state.release(holder, self.now, &mut self.fx);
                self.model.release(at, self.now);
            }
        }
    }

    fn share(&self) -> Arc<Share> {
        Arc::new(Share::new(Arc::clone(&self.shared)))
    }

    fn publish(&mut self, length: usize, ttl_ms: Option<u64>, age_ms: u64, priority: u8, stored: bool) {
        let published_at_ms = self.now - age_ms;
        let place = stored.then(|| self.pins.pin(Position(self.journal.len() as u64)));
        let head = Head { published_at_ms, ttl_ms, place, priority, ..Head::default() };
        let message = Message::new(head, &vec![0; length]);
        if stored {
            self.journal.push(message.clone());
        }
        let result = self.state.enqueue(message.clone(), self.now, &mut self.fx);
        let mut deliveries = self.take_deliveries();
        let expected = self.model.enqueue(&message, self.now, &mut deliveries);
        assert!(deliveries.is_empty(), "too many deliveries: {deliveries:?}");
        assert_eq!(result, expected);
    }

    /// The deliveries, with the number of the holder instead of its id.
    fn take_deliveries(&mut self) -> VecDeque<(usize, Delivery)> {
        let holders = &self.holders;
        let number = |id| holders.iter().position(|holder| *holder == id).unwrap();
        self.fx.deliveries.drain(..).map(|delivery| (number(delivery.holder), delivery)).collect()
    }

    fn compare(&self) {
        let (state, model) = (&self.state, &self.model);
        assert!(self.fx.deliveries.is_empty(), "only publish and dispatch deliver");
        assert_eq!(state.ready(), model.ready().count() as u64);
        assert_eq!(
            state.ready_bytes(),
            model.ready().map(|item| item.message.body().len() as u64).sum::<u64>()
        );
        assert_eq!(state.unacked(), model.unacked() as u64);
        assert_eq!((state.consumers(), state.in_use()), (model.consumers(), model.consumers() > 0));
        assert_eq!(state.next_deadline_ms(), model.next_deadline_ms());
        for (at, holder) in self.holders.iter().enumerate() {
            assert_eq!(state.unacked_of(*holder), model.held_by(at).count(), "holder {at}");
            assert_eq!(state.set_aside_of(*holder), model.set_aside_of(at), "holder {at}");
        }
        assert_eq!(self.shared.has_room(), model.shared_unsettled() < SHARED_MAX as usize);
        for (outlet, waiting) in self.outlets.iter().zip(model.waiting) {
            assert_eq!(outlet.waiting(), waiting);
        }
        let sorted = |mut seqs: Vec<u64>| {
            seqs.sort_unstable();
            seqs
        };
        let gone = self.fx.gone.iter().map(|seq| seq.0).collect();
        assert_eq!(sorted(gone), sorted(model.gone.clone()));
        let mut returned: Vec<_> = self.fx.returned.iter().map(|(seq, failed)| (seq.0, *failed)).collect();
        returned.sort_unstable();
        assert_eq!(returned, model.returned);
        let dead =
            self.fx.dead.iter().map(|dead| (dead.seq.map(|seq| seq.0), dead.reason, dead.note.clone()));
        assert_eq!(dead.collect::<Vec<_>>(), model.dead);
        assert_eq!(self.fx.delete, model.delete);
    }
}

proptest! {
    #[test]
    fn a_queue_does_what_its_model_does(settings in settings(), operations in operations()) {
        let mut pair = Pair::new(settings);
        for op in &operations {
            pair.step(op);
        }
    }
}
