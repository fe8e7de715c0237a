//! A broker of a few lines that makes right histories.

use crate::history::{Entry, Event, Held, Id};
use crate::model::{BIN, BRIEF, QUEUES, ROUTES, SMALL, TTL, dead_letter};
use crate::random::Random;

pub(super) const LIVES: u32 = 4;
const PUBLISHERS: u64 = 3;
/// Few, so that it is full now and then.
const SMALL_MAX: usize = 4;
/// The publisher of the bin.
const KEEPER: u32 = 3;

/// A message in a queue of the small broker that makes right histories.
#[derive(Clone)]
struct Item {
    id: Id,
    route: u8,
    seq: usize,
    seen: bool,
    failures: u32,
    /// The life in which it came.
    life: u32,
}

struct Simulation {
    random: Random,
    history: Vec<Entry>,
    queues: [Vec<Item>; QUEUES.len()],
    /// Acks that the broker may still lose.
    in_flight: Vec<(u8, Item)>,
    life: u32,
    seq: usize,
    now_us: u64,
    /// The next number of the keeper, and whether its queue is there.
    kept: u32,
    bin: bool,
}

pub(super) fn right_history(seed: u64) -> Vec<Entry> {
    let mut simulation = Simulation {
        random: Random::new(seed),
        history: Vec::new(),
        queues: Default::default(),
        in_flight: Vec::new(),
        life: 0,
        seq: 0,
        now_us: 0,
        kept: 0,
        bin: false,
    };
    for life in 0..LIVES {
        for number in life * 30..(life + 1) * 30 {
            for publisher in 0..PUBLISHERS as u32 {
                simulation.publish(Id { publisher, number });
            }
        }
        simulation.keep_bin();
        simulation.consume(false);
        simulation.end_life();
    }
    simulation.consume(true);
    simulation.history
}

impl Simulation {
    fn add(&mut self, event: Event) {
        self.now_us += 1;
        self.history.push(Entry { at_us: self.now_us, event });
    }

    fn publish(&mut self, id: Id) {
        let routes = [0, 1, 2, 3, 4, 5, 7, 8, 9];
        let route = routes[self.random.below(routes.len() as u64) as usize];
        let queues = ROUTES[usize::from(route)].queues;
        self.add(Event::Begun { id, route });
        let full = queues == [SMALL] && self.queues[usize::from(SMALL)].len() >= SMALL_MAX;
        let stored = match self.random.below(20) {
            _ if full => {
                self.add(Event::Full { id });
                false
            }
            0 => {
                self.add(Event::NotSent { id });
                false
            }
            1 => {
                self.add(Event::Unknown { id });
                self.random.below(2) == 0
            }
            _ => {
                self.add(Event::Confirmed { id, queues: queues.len() as u16 });
                true
            }
        };
        for queue in queues.iter().filter(|_| stored) {
            self.enqueue(*queue, id, route);
        }
    }

    /// Declares the bin, publishes, gets and acks some, and purges or deletes.
    fn keep_bin(&mut self) {
        self.add(Event::Found { queue: BIN, exists: self.bin });
        for _ in 0..3 {
            self.add(Event::DeclareBegun { queue: BIN });
            self.add(Event::Declared { queue: BIN });
            self.bin = true;
            for _ in 0..self.random.below(8) {
                let id = Id { publisher: KEEPER, number: self.kept };
                self.kept += 1;
                self.add(Event::Begun { id, route: 6 });
                self.add(Event::Confirmed { id, queues: 1 });
                self.enqueue(BIN, id, 6);
            }
            let delete = match self.random.below(3) {
                0 => continue,
                chosen => chosen == 1,
            };
            self.add(Event::EmptyBegun { queue: BIN, delete });
            let removed = std::mem::take(&mut self.queues[usize::from(BIN)]).len() as u64;
            self.add(Event::Emptied { queue: BIN, delete, removed });
            self.bin = !delete;
        }
    }

    fn enqueue(&mut self, queue: u8, id: Id, route: u8) {
        self.seq += 1;
        let item = Item { id, route, seq: self.seq, seen: false, failures: 0, life: self.life };
        self.queues[usize::from(queue)].push(item);
    }

    fn consume(&mut self, drain: bool) {
        for queue in 0..QUEUES.len() as u8 {
            self.expire(queue);
            let consumer = u16::from(queue) + if drain { 100 } else { 0 };
            self.add(Event::Opened { consumer, prefetch: 500 });
            let counted = self.queues[usize::from(queue)].len() as u64;
            if drain {
                self.add(Event::Counted { queue, messages: counted });
            }
            let mut left = Vec::new();
            for item in std::mem::take(&mut self.queues[usize::from(queue)]) {
                left.extend(self.deliver(queue, item, drain));
            }
            if drain {
                self.add(Event::Counted { queue, messages: 0 });
            }
            self.queues[usize::from(queue)] = left;
        }
    }

    /// What came in an earlier life has expired.
    fn expire(&mut self, queue: u8) {
        if queue == BRIEF {
            let (kept, expired) = std::mem::take(&mut self.queues[usize::from(BRIEF)])
                .into_iter()
                .partition(|item| item.life == self.life);
            self.queues[usize::from(BRIEF)] = kept;
            for item in expired {
                self.enqueue(BRIEF + 1, item.id, item.route);
            }
        }
    }

    /// Gives the message back if the consumer keeps it.
    fn deliver(&mut self, queue: u8, mut item: Item, drain: bool) -> Option<Item> {
        let consumer = u16::from(queue) + if drain { 100 } else { 0 };
        let held = Held { id: item.id, queue, consumer, life: self.life };
        loop {
            let (route, redelivered, failures) = (item.route, item.seen, item.failures);
            self.add(Event::Delivered { held, route, redelivered, failures });
            item.seen = true;
            match self.random.below(if drain { 2 } else { 10 }) {
                0..2 => {
                    self.add(Event::AckSent { held });
                    self.add(Event::AckDurable { held });
                    self.in_flight.retain(|(other, _)| *other != queue);
                    return None;
                }
                2..4 => {
                    self.add(Event::Requeued { held });
                    item.failures += 1;
                }
                4 => return Some(item),
                5..7 if dead_letter(queue).is_some() => {
                    self.add(Event::Rejected { held });
                    self.enqueue(dead_letter(queue)?, item.id, item.route);
                    return None;
                }
                _ => {
                    self.add(Event::AckSent { held });
                    self.in_flight.push((queue, item));
                    return None;
                }
            }
        }
    }

    fn end_life(&mut self) {
        self.add(Event::Down);
        self.life += 1;
        self.now_us += TTL.as_micros() as u64;
        for (queue, item) in std::mem::take(&mut self.in_flight) {
            if self.random.below(2) == 0 {
                self.queues[usize::from(queue)].push(item);
            }
        }
        for queue in &mut self.queues {
            queue.sort_by_key(|item| item.seq);
        }
    }
}
