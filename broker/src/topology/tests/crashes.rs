//! Queues over a disk that loses what was not synced: killed and cut off at any point, again and again. What clients
//! saw before decides what they may see afterwards.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use leveret_journal::{Journal, Loss, Options, Position, SimDisk, Stepper};
use leveret_protocol::{ExchangeName, Outcome, QueueName, RoutingKey, Table, Value, VhostName};
use parking_lot::Mutex;

use crate::queue::{
    ConnectionId, ConsumerSpec, Credit, Delivery, HolderId, Outlet, Queue, Recipient, Settings, Verb, Work,
};
use crate::store::{Head, Memory, Message, Pins, ProgressReporter, Replay, Seq, Store};
use crate::topology::{
    Alarms, DeclareQueue, Definition, Pending, Resolved, Topology, Vhost, VhostLimits, compact,
};

const SEGMENT_BYTES: u64 = 16 << 10;
const QUEUES: [&str; 3] = ["plain", "other", "urgent"];
/// More than the window of a horizon, so that a part of the backlog is never near a delivery.
const BACKLOG: u64 = 500;
/// The longest window of a horizon.
const NEAR: u64 = 32;
const LIVES: u64 = 6;
const STEPS: u64 = 120;

/// A message in a queue, by the number in its body.
type Place = (usize, u64);

/// What a client knows of a message in a queue.
#[derive(Debug, Default, Clone, Copy)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
struct Known {
    /// It is stored for certain when the journal has reached this, or in a life before.
    stored_at: Option<Position>,
    stored: bool,
    /// It came back from a holder, sent or not.
    returned: bool,
    /// A client has it or had it.
    seen: bool,
    /// It was settled for good; with certainty when the journal has reached this.
    settled_at: Option<Position>,
    settled: bool,
    /// It was settled, perhaps in vain.
    settle_tried: bool,
    /// The broker was interrupted since it was published.
    interrupted: bool,
}

/// One consumer's connection: deliveries wait here until they may be sent, in order.
#[derive(Debug, Default)]
struct Line(Mutex<VecDeque<Delivery>>);

impl Recipient for Line {
    fn deliver(&self, deliveries: &mut dyn Iterator<Item = Delivery>) {
        self.0.lock().extend(deliveries);
    }

    fn cancelled(&self, _: &str) {}
}

struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}

/// One life of the broker.
struct Life {
    stepper: Stepper,
    journal: Arc<Journal>,
    store: Arc<Store>,
    topology: Topology,
    vhost: Arc<Vhost>,
    queues: Vec<Arc<Queue>>,
    consumers: Vec<(usize, HolderId, Arc<Line>)>,
    work: Work,
    moved_bytes: u64,
}

impl Life {
    fn begin(disk: &SimDisk, seed: u64, definitions: &[Definition]) -> Self {
        // In every other life memory is short.
        let memory = if seed.is_multiple_of(2) { u64::MAX } else { 5000 };
        let options = Options {
            segment_bytes: SEGMENT_BYTES,
            staged_bytes_max: 4 * SEGMENT_BYTES as usize,
            ..Options::new("/journal", seed)
        };
        let pins = Arc::new(Pins::new(options.segment_bytes));
        let (reporter, progress) = ProgressReporter::new();
        let mut replay = Replay::new(Arc::clone(&pins), 0);
        let (journal, stepper, recovery) =
            Journal::open_stepped(Arc::new(disk.clone()), options, reporter, &mut |record| {
                replay.apply(&record).map_err(Into::into)
            })
            .unwrap();
        // All definitions are in the checkpoint.
        let recovered = replay.finish(Position(u64::MAX), recovery.clean);
        let store = Store::new(Arc::clone(&journal), pins, Memory::new(memory), progress);
        if !recovery.clean {
            store.note_interruption().unwrap();
        }
        let limits = VhostLimits { queues_max: 10, exchanges_max: 100, bindings_max: 10 };
        let topology = Topology::new(Arc::clone(&store), Arc::new(Alarms::default()), Arc::default(), limits);
        let mut work = Work::default();
        topology.restore(compact(definitions.to_vec()), &mut work);
        topology.restore_messages(recovered, &mut work);
        let vhost = topology.ensure_vhost(&VhostName::new("/").unwrap()).unwrap();
        let mut life = Self {
            stepper,
            journal,
            store,
            topology,
            vhost,
            queues: Vec::new(),
            consumers: Vec::new(),
            work,
            moved_bytes: 0,
        };
        life.queues = QUEUES.iter().map(|name| life.declare(name)).collect();
        while life.stepper.step() {}
        life
    }

    fn declare(&mut self, name: &str) -> Arc<Queue> {
        let mut arguments = Table::from([("x-delivery-limit".to_owned(), Value::from(-1))]);
        if name == "urgent" {
            arguments.insert("x-max-priority".to_owned(), Value::from(3));
        }
        let settings = Settings::from_arguments(true, false, false, &arguments).unwrap();
        let name = QueueName::new(name).unwrap();
        let declare = DeclareQueue { name: name.clone(), settings };
        let (queue, ..) = self.vhost.declare_queue(declare, &name, ConnectionId(1), &mut self.work).unwrap();
        self.vhost.finish(&mut self.work);
        queue
    }

    fn consume(&mut self, queue: usize, no_ack: bool, prefetch: u32) {
        let line = Arc::new(Line::default());
        let spec = ConsumerSpec {
            outlet: Arc::new(Outlet::new(usize::MAX)),
            priority: 0,
            exclusive: false,
            no_ack,
            credit: Credit::prefetch(prefetch),
        };
        let recipient: Arc<dyn Recipient> = Arc::<Line>::clone(&line);
        let holder =
            self.queues[queue].subscribe(spec, None, recipient, &mut self.work, || ()).unwrap().unwrap();
        self.consumers.push((queue, holder, line));
    }

    /// What the readers do.
    fn read(&mut self) {
        for queue in &self.queues {
            queue.read(&mut self.work).unwrap();
            self.vhost.finish(&mut self.work);
        }
    }

    /// Moves the messages of the journal's first segments.
    fn evacuate(&mut self, segments: u64) {
        let before = Position(self.store.needed_from().0 + segments * SEGMENT_BYTES);
        let before_end = self.store.end();
        for queue in &self.queues {
            let mut from = Some(Seq(0));
            while let Some(at) = from {
                from = queue.move_messages(before, at).next;
            }
        }
        self.moved_bytes += self.store.end().0 - before_end.0;
    }

    fn reclaim(&mut self) {
        let needed_from = self.store.needed_from();
        self.topology.keep_horizons(needed_from, &mut self.work);
        self.store.release_before(needed_from);
    }
}

struct World {
    seed: u64,
    random: Random,
    disk: SimDisk,
    definitions: Vec<Definition>,
    known: HashMap<Place, Known>,
    next: u64,
    /// Deliveries that clients have and have not settled: consumer, tag, place, failures.
    held: Vec<(usize, u64, Place)>,
    /// Of the queue `plain`: seqs below have been handed out.
    handed_below: u64,
    needless_flags: u64,
    deliveries: u64,
    moved_bytes: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            seed,
            random: Random(seed),
            disk: SimDisk::new(seed),
            definitions: Vec::new(),
            known: HashMap::new(),
            next: 0,
            held: Vec::new(),
            handed_below: 0,
            needless_flags: 0,
            deliveries: 0,
            moved_bytes: 0,
        }
    }

    fn publish(&mut self, life: &mut Life, count: u64) {
        let targets: &[usize] = match self.random.below(4) {
            0 => &[0, 1],
            1 => &[2],
            _ => &[0],
        };
        let queues = targets.iter().map(|queue| Arc::clone(&life.queues[*queue])).collect();
        let resolved =
            Arc::new(Resolved::new(ExchangeName::default(), RoutingKey::new("key").unwrap(), queues));
        let first = self.next;
        let mut batch: Vec<Pending> = (0..count)
            .map(|_| {
                let mut body = self.next.to_le_bytes().to_vec();
                body.resize(8 + self.random.below(30) as usize, 7);
                self.next += 1;
                let head = Head {
                    persistent: self.random.below(20) != 0,
                    priority: self.random.below(4) as u8,
                    ..Head::default()
                };
                Pending { message: Message::new(head, &body), resolved: Arc::clone(&resolved) }
            })
            .collect();
        for (number, pending) in (first..).zip(&batch) {
            for queue in targets {
                let transient = !pending.message.persistent;
                self.known.insert(
                    (*queue, number),
                    Known { settled: transient, settle_tried: transient, ..Known::default() },
                );
            }
        }
        let mut outcomes = Vec::new();
        let Ok(position) = life.vhost.publish(&mut batch, &mut outcomes, &mut Vec::new(), &mut life.work)
        else {
            return;
        };
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Routed(_))));
        for number in first..self.next {
            for queue in targets {
                self.known.get_mut(&(*queue, number)).unwrap().stored_at = position;
            }
        }
    }

    /// Sends what may be sent, and what the clients see of it is checked.
    fn send(&mut self, life: &Life) {
        for (consumer, (queue, _, to)) in life.consumers.iter().enumerate() {
            let mut waiting = to.0.lock();
            while let Some(delivery) = waiting.front()
                && delivery.after.is_none_or(|after| life.store.synced().reaches(after))
            {
                let delivery = waiting.pop_front().unwrap();
                self.saw(consumer, *queue, &delivery);
            }
        }
    }

    fn saw(&mut self, consumer: usize, queue: usize, delivery: &Delivery) {
        let place = (queue, number(&delivery.message));
        let known = self.known.get_mut(&place).unwrap();
        let context = || format!("seed {}, {place:?}, {known:?}", self.seed);
        let transient = !delivery.message.persistent;
        assert!(!known.settled || transient, "it was settled for good: {}", context());
        assert!(delivery.redelivered || !known.seen, "it was seen, and that is forgotten: {}", context());
        let reason = known.returned || known.interrupted;
        assert!(!delivery.redelivered || reason, "it is flagged without a reason: {}", context());
        self.deliveries += 1;
        if queue == 0 {
            self.handed_below = self.handed_below.max(delivery.seq.0 + 1);
        }
        known.seen = true;
        self.held.push((consumer, delivery.tag, place));
    }

    fn settle(&mut self, life: &mut Life) {
        let count = self.random.below(self.held.len() as u64 + 1);
        for _ in 0..count {
            let at = self.random.below(self.held.len() as u64) as usize;
            let (consumer, tag, place) = self.held.swap_remove(at);
            let verb = match self.random.below(8) {
                0 => Verb::Requeue,
                1 => Verb::Release,
                _ => Verb::Ack,
            };
            let (queue, holder, _) = &life.consumers[consumer];
            let settled = life.queues[*queue].settle(*holder, &[(tag, tag)], &verb, &mut life.work);
            settled.unwrap().unwrap();
            life.vhost.finish(&mut life.work);
            let known = self.known.get_mut(&place).unwrap();
            match verb {
                Verb::Ack => known.settled_at = Some(life.store.end()),
                _ => known.returned = true,
            }
        }
    }

    /// The life ends; `clean` if in good order. What is certain now?
    fn end(&mut self, life: Life, clean: bool) {
        let synced = if clean { Position(u64::MAX) } else { life.store.synced().position() };
        for (_, _, place) in self.held.drain(..) {
            self.known.entry(place).or_default().returned |= clean;
        }
        for known in self.known.values_mut() {
            known.stored |= known.stored_at.take().is_some_and(|position| position <= synced);
            known.settle_tried |= known.settled_at.is_some();
            known.settled |= known.settled_at.take().is_some_and(|position| position <= synced);
            known.interrupted |= !clean;
        }
        let Life { stepper, queues, consumers, mut work, .. } = life;
        if clean {
            for (queue, holder, line) in consumers {
                for delivery in line.0.lock().iter() {
                    self.known.get_mut(&(queue, number(&delivery.message))).unwrap().returned = true;
                }
                queues[queue].release(holder, &mut work).unwrap();
            }
            stepper.close().unwrap();
            self.disk.kill();
            return;
        }
        drop(stepper);
        match self.random.below(5) {
            0 => self.disk.kill(),
            1 => self.disk.cut_power(Loss::Everything),
            2 => self.disk.cut_power(Loss::Earlier),
            _ => self.disk.cut_power(Loss::Random),
        }
    }

    fn live(&mut self, number: u64) {
        let seed = self.seed * LIVES + number;
        let mut life = Life::begin(&self.disk, seed, &self.definitions);
        if number == 0 {
            (self.definitions, ..) = life.topology.snapshot();
            let count = if self.seed.is_multiple_of(4) { BACKLOG } else { 50 };
            self.publish(&mut life, count);
        }
        let stops = self.random.below(3) == 0;
        if stops {
            self.disk.stop_after(self.disk.calls() + self.random.below(200));
        }
        for _ in 0..self.random.below(STEPS) {
            match self.random.below(13) {
                0 if life.consumers.len() < 6 => {
                    let (queue, prefetch) = (self.random.below(3) as usize, self.random.below(40) as u32 + 1);
                    life.consume(queue, false, prefetch);
                }
                1..3 => {
                    let count = self.random.below(60);
                    self.publish(&mut life, count);
                }
                3..6 => {
                    life.read();
                    self.send(&life);
                }
                6..8 => self.settle(&mut life),
                8 => life.reclaim(),
                9 => {
                    let segments = self.random.below(4);
                    life.evacuate(segments);
                }
                _ => drop(life.stepper.step()),
            }
        }
        for (queue, _, line) in &life.consumers {
            let seqs = line.0.lock().iter().map(|delivery| delivery.seq.0 + 1).max().unwrap_or(0);
            self.handed_below = self.handed_below.max(if *queue == 0 { seqs } else { 0 });
        }
        self.moved_bytes += if stops { 0 } else { life.moved_bytes };
        let clean = !stops && self.random.below(3) == 0;
        self.end(life, clean);
    }

    /// Takes all that is left, and looks whether that is what must be there.
    fn drain(&mut self) {
        let mut life = Life::begin(&self.disk, self.seed * LIVES + LIVES, &self.definitions);
        let mut left: HashMap<Place, u64> = HashMap::new();
        for queue in 0..QUEUES.len() {
            let holder = life.queues[queue].open_passive(&mut life.work).unwrap();
            while let Some(got) = life.queues[queue].get(holder, false, &mut life.work).unwrap() {
                let delivery = got.delivery;
                let place = (queue, number(&delivery.message));
                *left.entry(place).or_default() += 1;
                let known = &self.known[&place];
                assert!(!known.settled, "seed {}: {place:?} is back, {known:?}", self.seed);
                assert!(delivery.redelivered || !known.seen, "seed {}: {place:?}, {known:?}", self.seed);
                let needless = delivery.redelivered && !known.seen && !known.returned;
                self.needless_flags += u64::from(needless);
                let near = queue != 0 || delivery.seq.0 < self.handed_below + NEAR;
                assert!(near || !needless, "seed {}: {place:?} was far from any delivery", self.seed);
            }
        }
        for (place, known) in &self.known {
            let copies = left.get(place).copied().unwrap_or(0);
            let least = u64::from(known.stored && !known.settle_tried);
            assert!(copies <= 1 && copies >= least, "seed {}: {copies} of {place:?}, {known:?}", self.seed);
        }
        drop(life.journal);
    }
}

fn number(message: &Message) -> u64 {
    u64::from_le_bytes(*message.body().first_chunk().unwrap())
}

#[test]
fn no_crash_loses_brings_back_or_forgets_that_somebody_has_seen_it() {
    let seeds = std::env::var("LEVERET_SIM_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(40);
    let (mut deliveries, mut needless, mut moved_bytes) = (0, 0, 0);
    for seed in 0..seeds {
        let mut world = World::new(seed);
        for life in 0..LIVES {
            world.live(life);
        }
        world.drain();
        deliveries += world.deliveries;
        needless += world.needless_flags;
        moved_bytes += world.moved_bytes;
    }
    println!("{deliveries} deliveries, {needless} flagged without need, {moved_bytes} bytes moved");
    assert!(deliveries > 20 * seeds && needless > 0 && moved_bytes > 1000 * seeds);
}

#[test]
fn what_was_settled_in_the_moment_in_which_it_came_does_not_come_back() {
    let mut world = World::new(0);
    let mut life = Life::begin(&world.disk, 0, &[]);
    (world.definitions, ..) = life.topology.snapshot();
    (0..QUEUES.len()).for_each(|queue| life.consume(queue, true, 1));
    for _ in 0..10 {
        world.publish(&mut life, 5);
        while life.stepper.step() {}
    }
    let delivered: usize = life.consumers.iter().map(|(.., line)| line.0.lock().len()).sum();
    assert!(delivered >= 50, "{delivered}");
    drop(life);
    world.disk.kill();
    let mut life = Life::begin(&world.disk, 2, &world.definitions);
    for queue in &life.queues {
        let holder = queue.open_passive(&mut life.work).unwrap();
        assert!(queue.get(holder, false, &mut life.work).unwrap().is_none());
    }
}
