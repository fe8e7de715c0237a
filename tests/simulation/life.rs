//! One seed: several lives of a broker, each with clients that do random things and a disk that fails at a random
//! call, until the process is killed, the power is cut, or the broker stops in order.

use std::sync::Arc;

use leveret_broker::exchange::{Publisher, Routable, Route};
use leveret_broker::queue::{
    ConsumerSpec, Credit, Delivery, HolderId, Outlet, Queue, Recipient, Settings, Verb,
};
use leveret_broker::store::{Head, Message};
use leveret_broker::topology::{BindingDefinition, DeclareExchange, DeclareQueue, Pending};
use leveret_journal::{Call, Loss, Position, SimDisk};
use leveret_protocol::{Destination, ExchangeName, Outcome, QueueName, RoutingKey, Table, Value, VhostName};
use parking_lot::Mutex;

use crate::core::{CONNECTION, Core, Failed, VHOSTS};
use crate::figures::Figures;
use crate::look::{agree, check_body, difference, observe, with_failures};
use crate::model::{BRIEF, Change, DEAD, Model, Place, QUEUES, State, TEMPORARY, TTL_MS, WORK, moved};
use crate::random::Random;

const LIVES: u64 = 4;
pub(crate) const FAN: &str = "fan";
/// The queue with a consumer; the others are asked for one message at a time.
const CONSUMED: usize = 0;
const PREFETCH: u32 = 3;

/// Keeps what a consumer is given.
#[derive(Debug, Default)]
struct Inbox(Mutex<Vec<Delivery>>);

impl Recipient for Inbox {
    fn deliver(&self, deliveries: &mut dyn Iterator<Item = Delivery>) {
        self.0.lock().extend(deliveries);
    }

    fn cancelled(&self, _: &str) {}
}

/// A delivery that is not settled.
struct Held {
    queue: usize,
    holder: HolderId,
    tag: u64,
    id: u32,
}

pub(crate) struct Simulation {
    seed: u64,
    random: Random,
    disk: SimDisk,
    model: Model,
    now_ms: u64,
    next_id: u32,
    figures: Figures,
    /// The process ends after so many calls of the disk.
    stops_after: u64,
    /// Of this life.
    inbox: Arc<Inbox>,
    consumer: Option<HolderId>,
    holders: [Option<HolderId>; QUEUES.len()],
    held: Vec<Held>,
    /// Where the journal has to be for each confirm that is due, and for how many messages.
    unconfirmed: Vec<(Position, u64)>,
}

/// Says which seed it was, whatever panics.
struct Running(u64);

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("FAILED: LEVERET_SEED={} brings it back", self.0);
        }
    }
}

/// Runs one seed, and panics with it at the first violation.
pub(crate) fn run(seed: u64) -> Figures {
    let _running = Running(seed);
    let mut random = Random::new(seed);
    let disk = SimDisk::new(random.next());
    let mut simulation = Simulation {
        seed,
        random,
        disk,
        model: Model::default(),
        now_ms: 1_000_000,
        next_id: 0,
        figures: Figures::default(),
        stops_after: u64::MAX,
        inbox: Arc::default(),
        consumer: None,
        holders: [None; QUEUES.len()],
        held: Vec::new(),
        unconfirmed: Vec::new(),
    };
    for _ in 0..LIVES {
        let core = simulation.start();
        simulation.live(core);
        simulation.figures.lives += 1;
    }
    drop(simulation.start());
    simulation.figures
}

impl Simulation {
    /// Opens the broker, cut short now and then, and compares what it has with what it must have.
    fn start(&mut self) -> Core {
        while self.random.below(3) == 0 && self.model.declared {
            self.figures.recoveries_cut += 1;
            if self.random.below(2) == 0 {
                self.disk.stop_after(self.random.below(20));
            } else {
                let calls = [Call::Read, Call::Write, Call::Sync, Call::SyncDir, Call::Rename, Call::Create];
                let call = calls[self.random.below(6) as usize];
                self.disk.fail_after(call, self.random.below(4), std::io::ErrorKind::Other);
            }
            match Core::open(&self.disk, self.random.next(), self.now_ms) {
                Ok(_) | Err(Failed::Disk) => {}
                Err(Failed::Wrong(what)) => panic!("seed {}: a start that is cut finds {what}", self.seed),
            }
            if self.random.below(2) == 0 { self.disk.kill() } else { self.disk.cut_power(Loss::Random) }
        }
        self.disk.kill();
        let entropy = self.random.next();
        // Looking into the queues changes them, and so is done elsewhere.
        let twin = Core::open(&self.disk.fork(), entropy, self.now_ms);
        let mut twin = twin.unwrap_or_else(|error| panic!("seed {}: a start finds {error:?}", self.seed));
        if self.model.declared {
            self.compare(&mut twin);
        }
        let mut core = Core::open(&self.disk, entropy, self.now_ms).unwrap();
        assert_eq!(core.recovery, twin.recovery, "seed {}: two starts from the same disk differ", self.seed);
        self.inbox = Arc::default();
        (self.consumer, self.holders) = (None, [None; QUEUES.len()]);
        self.held.clear();
        self.unconfirmed.clear();
        if !self.model.declared {
            declare(&mut core);
            assert!(core.commit());
            self.model.declared = true;
            self.model.restart(State::default(), core.synced());
        }
        let start = core.recovery.end.max(self.model.synced);
        self.tick(&mut core, start);
        core
    }

    /// Compares what a start has recovered with what it must have.
    fn compare(&mut self, twin: &mut Core) {
        let (end, synced) = (twin.recovery.end, self.model.synced);
        assert!(end >= synced, "seed {}: {synced} was synced, and only {end} is recovered", self.seed);
        if let Some(queue) = twin.queue(0, QUEUES[BRIEF].1) {
            queue.tick(&mut twin.work).unwrap();
            twin.vhost(0).finish(&mut twin.work);
        }
        let found = observe(twin);
        let possible = self.model.expected(end);
        self.figures.requests_cut += u64::from(possible.len() > 1);
        let expired = |state: &State| {
            let mut state = state.clone();
            state.expire(self.now_ms);
            state
        };
        let Some(right) = possible.iter().find(|state| agree(&expired(state), &found)) else {
            let differences: String =
                possible.iter().map(|state| difference(&expired(state), &found)).collect();
            panic!(
                "seed {}: the journal ends at {end} and was synced up to {synced}; what must be there and what is, by \
                 the ways in which a request may have been cut:\n{differences}",
                self.seed
            );
        };
        let there = |state: &State| state.queues.iter().map(Vec::len).sum::<usize>() as u64;
        self.figures.lost_unconfirmed += there(&self.model.now).saturating_sub(there(right));
        self.model.restart(with_failures(right, &found), end);
    }

    /// Clients use the broker until it ends.
    fn live(&mut self, mut core: Core) {
        self.arm();
        let requests = 10 + self.random.below(40);
        for _ in 0..requests {
            // A process that has ended reads nothing either.
            if self.disk.calls() >= self.stops_after {
                break;
            }
            self.request(&mut core);
            if self.disk.calls() < self.stops_after {
                self.harvest(&mut core);
            }
            if self.random.below(3) == 0 {
                self.step(&mut core);
            }
            if let Some(reason) = core.failure() {
                assert!(!reason.is_empty());
                self.figures.journals_failed += 1;
                // Whatever is still asked of it, nothing is confirmed any more.
                let synced = core.synced();
                self.publish(&mut core);
                core.step();
                assert_eq!(core.synced(), synced, "seed {}: synced after a failure", self.seed);
                break;
            }
        }
        self.end(core);
    }

    /// The disk is to fail at some call, or not.
    fn arm(&mut self) {
        self.stops_after = u64::MAX;
        match self.random.below(5) {
            0 => {
                let calls = self.disk.calls() + self.random.below(80);
                self.stops_after = calls;
                self.disk.stop_after(calls);
            }
            1 => {
                let calls = [Call::Write, Call::Sync, Call::Sync, Call::SyncDir, Call::Rename];
                let call = calls[self.random.below(5) as usize];
                self.disk.fail_after(call, self.random.below(20), std::io::ErrorKind::Other);
            }
            2 => self.disk.fail_after(Call::Allocate, self.random.below(3), std::io::ErrorKind::StorageFull),
            _ => {}
        }
    }

    fn step(&mut self, core: &mut Core) {
        core.step();
        let synced = core.synced();
        self.model.synced = synced;
        let confirmed: u64 =
            self.unconfirmed.iter().filter(|(at, _)| *at <= synced).map(|(_, messages)| messages).sum();
        self.figures.confirmed += confirmed;
        self.unconfirmed.retain(|(at, _)| *at > synced);
    }

    fn end(&mut self, mut core: Core) {
        if self.random.below(4) == 0 && core.failure().is_none() {
            self.give_back(&mut core);
            let end = core.store.end();
            if core.close() {
                self.figures.orderly_stops += 1;
                self.model.synced = end;
            }
        } else {
            drop(core);
        }
        let loss = match self.random.below(6) {
            0 => {
                self.figures.kills += 1;
                return self.disk.kill();
            }
            1 => Loss::Everything,
            2 => Loss::Earlier,
            3 => Loss::Nothing,
            _ => Loss::Random,
        };
        self.figures.power_cuts += 1;
        self.disk.cut_power(loss);
    }

    /// An orderly stop gives all unsettled deliveries back first.
    fn give_back(&mut self, core: &mut Core) {
        let (vhost, name) = QUEUES[CONSUMED];
        if let (Some(consumer), Some(queue)) = (self.consumer.take(), core.queue(vhost, name)) {
            queue.cancel(consumer, &mut core.work).unwrap();
        }
        // What has expired meanwhile leaves as it comes back, and so in the order of the tags.
        self.held.sort_by_key(|held| (held.queue, held.tag));
        for Held { queue, holder, tag, .. } in std::mem::take(&mut self.held) {
            let (vhost, name) = QUEUES[queue];
            if let Some(queue) = core.queue(vhost, name) {
                queue.settle(holder, &[(tag, tag)], &Verb::Release, &mut core.work).unwrap().unwrap();
                core.vhost(vhost).finish(&mut core.work);
            }
        }
    }

    fn request(&mut self, core: &mut Core) {
        core.work.now_ms = self.now_ms;
        match self.random.below(20) {
            0..7 => self.publish(core),
            7..10 => self.get(core),
            10..14 => self.settle(core),
            14 => self.consume(core),
            15 => self.purge(core),
            16 => self.define(core),
            17 | 18 => self.expire(core),
            _ => {
                if self.random.below(2) == 0 {
                    let (end, segments) = (core.store.end(), 1 + self.random.below(2));
                    core.evacuate(segments);
                    self.figures.moved += u64::from(core.failure().is_none() && core.store.end() > end);
                }
                let before = (core.store.segments(), core.store.definitions_end());
                core.reclaim();
                while core.step() {}
                self.step(core);
                self.figures.checkpoints += u64::from(before.0 > 1);
                self.figures.segments_released += before.0.saturating_sub(core.store.segments());
            }
        }
    }

    /// A batch to the queues of one exchange and key.
    fn publish(&mut self, core: &mut Core) {
        let to_fan = self.random.below(4) == 0;
        let target = [0, 0, 1, WORK, WORK, BRIEF, TEMPORARY, 6][self.random.below(8) as usize];
        let (vhost, name) = QUEUES[target];
        let (vhost, exchange, key) = if to_fan { (0, FAN, "") } else { (vhost, "", name) };
        let mut targets = if to_fan { vec![0, 1] } else { vec![target] };
        if to_fan && self.model.now.bound {
            targets.push(TEMPORARY);
        }
        targets.retain(|queue| *queue != TEMPORARY || self.model.now.temporary);
        let handle = core.vhost(vhost);
        let no_headers = Box::new(Table::new());
        let routable = Routable { key, further_keys: &[], headers: &no_headers };
        let resolved = handle.resolve(Publisher::Client, exchange, &routable, &mut Route::default());
        let resolved = Arc::new(resolved.unwrap().0);
        let mut places = Vec::new();
        let mut batch = Vec::new();
        for _ in 0..=self.random.below(3) {
            let id = self.next_id;
            self.next_id += 1;
            let persistent = self.random.below(10) != 0;
            let about = Head {
                names: Arc::new(resolved.names()),
                persistent,
                published_at_ms: self.now_ms,
                ..Head::default()
            };
            let message = Message::new(about, &body(id, vhost, &mut self.random));
            let (failures, seen, held, arrived_ms) = (0, false, false, self.now_ms);
            places.push(Place { id, failures, seen, held, arrived_ms, persistent });
            batch.push(Pending { message, resolved: Arc::clone(&resolved) });
        }
        self.figures.published += batch.len() as u64;
        let (start, messages) = (core.store.end(), batch.len() as u64);
        let mut outcomes = Vec::new();
        let Ok(position) = handle.publish(&mut batch, &mut outcomes, &mut Vec::new(), &mut core.work) else {
            assert!(core.failure().is_some(), "seed {}: refused without a reason", self.seed);
            return;
        };
        let right = match targets.len() {
            0 => Outcome::Unroutable,
            queues => Outcome::Routed(queues as u16),
        };
        assert!(
            outcomes.iter().all(|outcome| *outcome == right),
            "seed {}: {outcomes:?}, not {right:?}",
            self.seed
        );
        self.unconfirmed.extend(position.map(|position| (position, messages)));
        // Each queue journals what it takes in a group of its own.
        let of = |queue: &usize| places.iter().map(|place| Change::Enqueued(*queue, *place)).collect();
        self.model.note(start, core.store.end(), targets.iter().map(of).collect());
    }

    fn get(&mut self, core: &mut Core) {
        let queue = self.random.below(QUEUES.len() as u64) as usize;
        let (vhost, name) = QUEUES[queue];
        let Some(handle) = core.queue(vhost, name) else { return };
        self.expire(core);
        let holder = *self.holders[queue].get_or_insert_with(|| handle.open_passive(&mut core.work).unwrap());
        let got = handle.get(holder, false, &mut core.work).unwrap();
        core.vhost(vhost).finish(&mut core.work);
        let ready = self.model.now.queues[queue].iter().any(|place| !place.held);
        assert_eq!(got.is_some(), ready, "seed {}: whether {name} has a message", self.seed);
        if let Some(got) = got {
            self.delivered(queue, &got.delivery, core);
        }
    }

    /// What the consumer was given.
    fn harvest(&mut self, core: &mut Core) {
        if let Some(queue) = core.queue(QUEUES[CONSUMED].0, QUEUES[CONSUMED].1) {
            // What the readers do as soon as they are asked.
            queue.read(&mut core.work).unwrap();
            core.vhost(QUEUES[CONSUMED].0).finish(&mut core.work);
        }
        let deliveries = std::mem::take(&mut *self.inbox.0.lock());
        for delivery in deliveries {
            self.delivered(CONSUMED, &delivery, core);
            let consumer = delivery.holder;
            let held =
                self.held.iter().filter(|held| held.queue == CONSUMED && held.holder == consumer).count();
            assert!(held <= PREFETCH as usize, "seed {}: a consumer holds {held}", self.seed);
        }
    }

    fn delivered(&mut self, queue: usize, delivery: &Delivery, core: &mut Core) {
        self.figures.deliveries += 1;
        let id = check_body(delivery.message.body(), QUEUES[queue].0);
        let next = self.model.now.queues[queue].iter().find(|place| !place.held).copied();
        let name = QUEUES[queue].1;
        let Some(next) = next.filter(|next| next.id == id) else {
            panic!("seed {}: {name} delivers {id}, and next is {next:?}", self.seed);
        };
        assert!(delivery.redelivered || !next.seen, "seed {}: {name} forgets that {id} was seen", self.seed);
        assert!(
            delivery.delivery_count >= next.failures,
            "seed {}: {name} forgets a failure of {id}",
            self.seed
        );
        let sent = core.sends(delivery);
        let at = core.store.end();
        let change = if sent { Change::Seen(queue, id) } else { Change::Handed(queue, id) };
        self.model.note(at, at, vec![vec![change]]);
        self.held.push(Held { queue, holder: delivery.holder, tag: delivery.tag, id });
    }

    fn settle(&mut self, core: &mut Core) {
        let Some(index) = self.random.next().checked_rem(self.held.len() as u64) else { return };
        let Held { queue, holder, tag, id } = self.held.swap_remove(index as usize);
        let (vhost, name) = QUEUES[queue];
        let Some(handle) = core.queue(vhost, name) else { return };
        let place = self.model.now.queues[queue].iter().find(|place| place.id == id).copied();
        let Some(place) = place else { panic!("seed {}: {name} has no {id} to settle", self.seed) };
        let dead_letters = matches!(queue, WORK | BRIEF);
        let (verb, changes) = match self.random.below(6) {
            // A message that has waited too long would expire as it comes back, which is another story.
            0 | 1 if queue != BRIEF => (Verb::Requeue, vec![Change::Failed(queue, id)]),
            2 | 3 if dead_letters => {
                self.figures.dead_letters += 1;
                let [enqueued, _] = moved(place, self.now_ms);
                (Verb::Reject { note: None }, vec![enqueued, Change::Gone(queue, id)])
            }
            _ => (Verb::Ack, vec![Change::Gone(queue, id)]),
        };
        self.figures.settled += 1;
        let start = core.store.end();
        handle.settle(holder, &[(tag, tag)], &verb, &mut core.work).unwrap().unwrap();
        core.vhost(vhost).finish(&mut core.work);
        self.model.note(start, core.store.end(), vec![changes]);
    }

    fn consume(&mut self, core: &mut Core) {
        if self.consumer.is_some() {
            return;
        }
        let (vhost, name) = QUEUES[CONSUMED];
        let Some(queue) = core.queue(vhost, name) else { return };
        let spec = ConsumerSpec {
            outlet: Arc::new(Outlet::new(1 << 30)),
            priority: 0,
            exclusive: false,
            no_ack: false,
            credit: Credit::Unsettled(PREFETCH),
        };
        let inbox = Arc::clone(&self.inbox) as Arc<dyn Recipient>;
        self.consumer = queue.subscribe(spec, None, inbox, &mut core.work, || {}).unwrap().ok();
    }

    fn purge(&mut self, core: &mut Core) {
        let queue = [0, 1, DEAD, TEMPORARY, 6][self.random.below(5) as usize];
        let (vhost, name) = QUEUES[queue];
        let Some(handle) = core.queue(vhost, name) else { return };
        let start = core.store.end();
        let purged = handle.purge(&mut core.work).unwrap();
        core.vhost(vhost).finish(&mut core.work);
        let ready = self.model.now.queues[queue].iter().filter(|place| !place.held);
        let gone: Vec<_> = ready.map(|place| Change::Gone(queue, place.id)).collect();
        assert_eq!(purged, gone.len() as u64, "seed {}: {name} counts what it purged", self.seed);
        self.figures.purged += purged;
        self.model.note(start, core.store.end(), vec![gone]);
    }

    /// Makes, binds or deletes the temporary queue.
    fn define(&mut self, core: &mut Core) {
        let (vhost, name) = QUEUES[TEMPORARY];
        let (start, name) = (core.store.end(), QueueName::new(name).unwrap());
        let change = if !self.model.now.temporary {
            declare_queue(core, TEMPORARY);
            Change::Declared
        } else if !self.model.now.bound && self.random.below(2) == 0 {
            bind(core, TEMPORARY);
            Change::Bound
        } else {
            core.vhost(vhost).delete_queue(&name, false, false, CONNECTION).unwrap();
            self.held.retain(|held| held.queue != TEMPORARY);
            self.holders[TEMPORARY] = None;
            Change::Deleted
        };
        self.model.note(start, core.store.end(), vec![vec![change]]);
    }

    /// Time passes, and messages expire.
    fn expire(&mut self, core: &mut Core) {
        self.now_ms += self.random.below(TTL_MS / 2);
        core.work.now_ms = self.now_ms;
        self.tick(core, core.store.end());
    }

    /// What is due expires, and is in the journal from `start` on.
    fn tick(&mut self, core: &mut Core, start: Position) {
        let (vhost, name) = QUEUES[BRIEF];
        let Some(queue) = core.queue(vhost, name) else { return };
        queue.tick(&mut core.work).unwrap();
        core.vhost(vhost).finish(&mut core.work);
        let due = self.model.now.due(self.now_ms);
        self.figures.dead_letters += due.len() as u64;
        let groups = due.into_iter().map(|place| moved(place, self.now_ms).to_vec()).collect();
        self.model.note(start, core.store.end(), groups);
    }
}

fn body(id: u32, vhost: usize, random: &mut Random) -> Vec<u8> {
    // Some are large, so that a life goes through several segments.
    let filler = if random.below(8) == 0 { 50_000 + random.below(70_000) } else { random.below(300) };
    let mut body = vec![id as u8 ^ vhost as u8; 5 + filler as usize];
    body[..4].copy_from_slice(&id.to_le_bytes());
    body[4] = vhost as u8;
    body
}

fn declare(core: &mut Core) {
    let fan = ExchangeName::new(FAN).unwrap();
    let declare = DeclareExchange::new(fan, "fanout", true, false, false, &Table::new()).unwrap();
    core.vhost(0).declare_exchange(declare).unwrap();
    for queue in (0..QUEUES.len()).filter(|queue| *queue != TEMPORARY) {
        declare_queue(core, queue);
    }
    bind(core, 0);
    bind(core, 1);
}

fn declare_queue(core: &mut Core, queue: usize) {
    let (vhost, name) = QUEUES[queue];
    let mut arguments = Table::new();
    if matches!(queue, WORK | BRIEF) {
        arguments.insert("x-dead-letter-exchange".to_owned(), Value::from(""));
        arguments.insert("x-dead-letter-routing-key".to_owned(), Value::from(QUEUES[DEAD].1));
    }
    if queue == BRIEF {
        arguments.insert("x-message-ttl".to_owned(), Value::from(TTL_MS.cast_signed()));
    }
    let settings = Settings::from_arguments(true, false, false, &arguments).unwrap();
    let name = QueueName::new(name).unwrap();
    let declare = DeclareQueue { name: name.clone(), settings };
    let _: (Arc<Queue>, _, _) =
        core.vhost(vhost).declare_queue(declare, &name, CONNECTION, &mut core.work).unwrap();
    core.vhost(vhost).finish(&mut core.work);
}

fn bind(core: &mut Core, queue: usize) {
    let (vhost, name) = QUEUES[queue];
    let binding = BindingDefinition {
        vhost: VhostName::new(VHOSTS[vhost]).unwrap(),
        source: ExchangeName::new(FAN).unwrap(),
        destination: Destination::Queue(QueueName::new(name).unwrap()),
        routing_key: RoutingKey::new("").unwrap(),
        arguments: Table::new(),
    };
    core.vhost(vhost).bind(&binding, CONNECTION).unwrap();
}
