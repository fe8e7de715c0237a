//! The clients: publishers and consumers that write down what they do and see.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use leveret_client::{
    Client, ConnectionState, Consumer, DeclareError, DeleteIf, Delivery, Message, PublishError, Publisher,
    Recovery, ReplyCode, StateWatch,
};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::body;
use crate::history::{Event, Held, History, Id};
use crate::model::{self, BIN, BRIEF, QUEUES, ROUTES, dead_letter};
use crate::random::Random;

/// How long clients wait before they try to connect again: short, since the next kill may be milliseconds away.
const RECONNECT: Duration = Duration::from_millis(4);

/// A delivery that takes longer does not come.
const PATIENCE: Duration = Duration::from_secs(30);

/// One connection, and what is on it.
struct Party {
    /// Whether the client library brings everything back, or it is all made anew.
    recovering: bool,
    /// The numbers of its publishers, with their routes.
    publishers: &'static [(u32, &'static [u8])],
    /// The numbers of its consumers, with their queues.
    consumers: &'static [(u16, u8)],
}

const PARTIES: [Party; 4] = [
    Party {
        recovering: true,
        publishers: &[(0, &[0, 1, 2, 3]), (1, &[5]), (6, &[7, 8])],
        consumers: &[(0, 0), (1, 5), (2, 6), (11, 9)],
    },
    Party { recovering: true, publishers: &[(2, &[4])], consumers: &[(3, 1), (4, 3), (5, 6), (12, 11)] },
    Party {
        recovering: false,
        publishers: &[(3, &[0, 1, 2, 3]), (4, &[5]), (7, &[9])],
        consumers: &[(6, 0), (7, 2), (8, 7), (13, 9)],
    },
    Party { recovering: false, publishers: &[], consumers: &[(9, 4), (10, 5), (14, 10), (15, 12)] },
];

const PUBLISHERS: usize = 8;

/// The number of the client of [`BIN`], as a publisher and as a consumer.
const KEEPER: u16 = 5;
const KEEPER_GETS: u16 = 50;

/// The route to the bin.
const BIN_ROUTE: u8 = 6;

/// The consumers that empty the queues at the end have this number and that of their queue.
const DRAIN: u16 = 100;

/// What all clients share.
pub(crate) struct Fleet {
    pub(crate) history: History,
    url: String,
    /// How many lives of the broker have ended.
    life: AtomicU32,
    /// The number of the next message of each publisher.
    next: [AtomicU32; PUBLISHERS],
    recovering: Mutex<Vec<StateWatch>>,
    /// How many connections without recovery are open.
    sessions: watch::Sender<usize>,
}

impl Fleet {
    /// Starts all clients; they connect as soon as there is a broker, and run until the set is dropped.
    pub(crate) fn launch(url: String, random: &mut Random) -> (Arc<Self>, JoinSet<()>) {
        let fleet = Arc::new(Self {
            history: History::new(),
            url,
            life: AtomicU32::new(0),
            next: Default::default(),
            recovering: Mutex::default(),
            sessions: watch::channel(0).0,
        });
        let mut tasks = JoinSet::new();
        for party in &PARTIES {
            tasks.spawn(fleet.clone().run(party, random.fork()));
        }
        tasks.spawn(fleet.clone().keep_bin(random.fork()));
        (fleet, tasks)
    }

    /// The broker has ended: waits until every client knows, and closes this chapter of the history.
    pub(crate) async fn broker_ended(&self) {
        let noticed = tokio::time::timeout(PATIENCE, self.all_know()).await;
        assert!(noticed.is_ok(), "{} clients do not notice the end", *self.sessions.borrow());
        self.history.add(Event::Down);
        self.life.fetch_add(1, Ordering::Relaxed);
    }

    async fn all_know(&self) {
        let mut sessions = self.sessions.subscribe();
        sessions.wait_for(|sessions| *sessions == 0).await.unwrap();
        let watches = self.recovering.lock().unwrap().clone();
        for mut watch in watches {
            while matches!(watch.current(), ConnectionState::Connected { .. }) {
                if watch.changed().await.is_none() {
                    break;
                }
            }
        }
    }

    pub(crate) fn life(&self) -> u32 {
        self.life.load(Ordering::Relaxed)
    }

    async fn run(self: Arc<Self>, party: &'static Party, mut random: Random) {
        loop {
            let recovery = Recovery::default().delay_min(RECONNECT).delay_max(RECONNECT);
            let recovery = if party.recovering { recovery } else { Recovery::off() };
            if let Ok(client) = Client::builder(&self.url).recovery(recovery).connect().await {
                let _session = (!party.recovering).then(|| Session::begin(&self.sessions));
                if party.recovering {
                    self.recovering.lock().unwrap().push(client.state());
                }
                self.clone().work(party, &client, &mut random).await;
                party
                    .consumers
                    .iter()
                    .for_each(|(consumer, _)| self.history.add(Event::Left { consumer: *consumer }));
            }
            tokio::time::sleep(RECONNECT).await;
        }
    }

    /// Until the connection is lost for good. A client that recovers gets here again only if it was interrupted before
    /// everything was open.
    async fn work(self: Arc<Self>, party: &Party, client: &Client, random: &mut Random) {
        let mut tasks = JoinSet::new();
        for (number, queue) in party.consumers {
            // With less a consumer falls behind its publishers, and the backlog makes every start slower.
            let prefetch = 20 + random.below(100) as u32;
            let consumer = client.consumer(QUEUES[usize::from(*queue)]).prefetch_max(prefetch).open().await;
            let Ok(consumer) = consumer else { return };
            self.history.add(Event::Opened { consumer: *number, prefetch });
            tasks.spawn(self.clone().consume(*number, *queue, consumer, random.fork()));
        }
        for (number, routes) in party.publishers {
            let exchange = ROUTES[usize::from(routes[0])].exchange;
            let Ok(publisher) = client.publisher(exchange).open().await else { return };
            tasks.spawn(self.clone().publish(*number, routes, publisher, random.fork()));
        }
        while tasks.join_next().await.is_some() {}
    }

    async fn publish(
        self: Arc<Self>,
        number: u32,
        routes: &'static [u8],
        publisher: Publisher,
        mut random: Random,
    ) {
        let mut receipts = Vec::new();
        let mut ended = false;
        loop {
            for _ in 0..=random.below(40) {
                let id = self.next_id(number);
                let route = routes[random.below(routes.len() as u64) as usize];
                let message = Message::new(body::encode(id, route));
                self.history.add(Event::Begun { id, route });
                match publisher.send(ROUTES[usize::from(route)].key, message).await {
                    Ok(receipt) => receipts.push((id, receipt)),
                    Err(error) => {
                        self.failed(id, &error);
                        ended = true;
                        break;
                    }
                }
            }
            for (id, receipt) in receipts.drain(..) {
                match receipt.confirmed().await {
                    Ok(confirmed) => self.history.add(Event::Confirmed { id, queues: confirmed.queues }),
                    Err(error) => self.failed(id, &error),
                }
            }
            if ended {
                return;
            }
        }
    }

    fn next_id(&self, publisher: u32) -> Id {
        Id { publisher, number: self.next[publisher as usize].fetch_add(1, Ordering::Relaxed) }
    }

    /// The only client of the bin: what it asks for is done before it asks for the next thing.
    async fn keep_bin(self: Arc<Self>, mut random: Random) {
        loop {
            if let Ok(client) = Client::builder(&self.url).recovery(Recovery::off()).connect().await {
                let _session = Session::begin(&self.sessions);
                let _ = self.use_bin(&client, &mut random).await;
            }
            tokio::time::sleep(RECONNECT).await;
        }
    }

    async fn use_bin(self: &Arc<Self>, client: &Client, random: &mut Random) -> Result<(), DeclareError> {
        let name = QUEUES[usize::from(BIN)];
        match client.check_queue(name).await {
            Ok(_) => self.history.add(Event::Found { queue: BIN, exists: true }),
            Err(DeclareError::Refused(refusal)) if refusal.code == ReplyCode::NotFound => {
                self.history.add(Event::Found { queue: BIN, exists: false });
            }
            Err(error) => return Err(error),
        }
        loop {
            self.history.add(Event::DeclareBegun { queue: BIN });
            client.declare(model::definition(BIN)).await?;
            self.history.add(Event::Declared { queue: BIN });
            let Ok(publisher) = client.publisher("").open().await else { return Ok(()) };
            for _ in 0..random.below(6) {
                let id = self.next_id(u32::from(KEEPER));
                self.history.add(Event::Begun { id, route: BIN_ROUTE });
                match publisher.publish(name, body::encode(id, BIN_ROUTE)).await {
                    Ok(confirmed) => self.history.add(Event::Confirmed { id, queues: confirmed.queues }),
                    Err(error) => self.failed(id, &error),
                }
            }
            for _ in 0..random.below(3) {
                let Some(delivery) = client.get(name).await? else { break };
                let Some(held) = self.delivered(KEEPER_GETS, BIN, &delivery) else { continue };
                match random.below(3) {
                    0 => self.clone().ack_durably(held, delivery).await,
                    1 => self.ack(held, delivery),
                    _ => {
                        self.history.add(Event::Requeued { held });
                        delivery.requeue();
                    }
                }
            }
            let delete = match random.below(3) {
                0 => continue,
                chosen => chosen == 1,
            };
            self.history.add(Event::EmptyBegun { queue: BIN, delete });
            let removed = if delete {
                client.delete_queue(name, DeleteIf::Exists).await?
            } else {
                client.purge(name).await?
            };
            self.history.add(Event::Emptied { queue: BIN, delete, removed });
        }
    }

    fn failed(&self, id: Id, error: &PublishError) {
        self.history.add(match error {
            PublishError::OutcomeUnknown { .. } => Event::Unknown { id },
            PublishError::NotSent { .. } => Event::NotSent { id },
            PublishError::Refused { code: ReplyCode::ResourceError, .. } => Event::Full { id },
            refused => Event::Refused { id, why: refused.to_string() },
        });
    }

    async fn consume(self: Arc<Self>, number: u16, queue: u8, mut consumer: Consumer, mut random: Random) {
        let mut kept: VecDeque<(Held, Delivery)> = VecDeque::new();
        let mut acks = JoinSet::new();
        while let Some(Ok(delivery)) = consumer.next().await {
            while acks.try_join_next().is_some() {}
            let Some(held) = self.delivered(number, queue, &delivery) else { continue };
            match random.below(100) {
                0..25 => drop(acks.spawn(self.clone().ack_durably(held, delivery))),
                25..35 => {
                    self.history.add(Event::Requeued { held });
                    delivery.requeue();
                }
                35..45 if dead_letter(queue).is_some() => {
                    self.history.add(Event::Rejected { held });
                    delivery.reject("as it happens");
                }
                45..48 => kept.push_back((held, delivery)),
                _ => self.ack(held, delivery),
            }
            if kept.len() > 6
                && let Some((held, delivery)) = kept.pop_front()
            {
                self.ack(held, delivery);
            }
        }
        while acks.join_next().await.is_some() {}
    }

    fn delivered(&self, consumer: u16, queue: u8, delivery: &Delivery) -> Option<Held> {
        let Some((id, route)) = body::decode(delivery.body()) else {
            self.history.add(Event::Corrupt { queue });
            return None;
        };
        let held = Held { id, queue, consumer, life: self.life() };
        self.history.add(Event::Delivered {
            held,
            route,
            redelivered: delivery.is_redelivered(),
            failures: delivery.failures(),
        });
        Some(held)
    }

    fn ack(&self, held: Held, delivery: Delivery) {
        self.history.add(Event::AckSent { held });
        delivery.ack();
    }

    async fn ack_durably(self: Arc<Self>, held: Held, delivery: Delivery) {
        self.history.add(Event::AckSent { held });
        if delivery.ack_durably().await.is_ok() {
            self.history.add(Event::AckDurable { held });
        }
    }

    /// Takes everything that is left, and gives how much that was. Queues are empty by the broker's word afterwards.
    pub(crate) async fn drain(self: &Arc<Self>) -> u64 {
        let client = Client::connect(&self.url).await.unwrap();
        let mut drained = 0;
        // A deletion may have been the last that the bin saw.
        client.declare(model::definition(BIN)).await.unwrap();
        self.history.add(Event::Declared { queue: BIN });
        let expired = async {
            while client.check_queue(QUEUES[usize::from(BRIEF)]).await.unwrap().messages() > 0 {
                tokio::time::sleep(RECONNECT).await;
            }
        };
        let expired = tokio::time::timeout(PATIENCE, expired).await;
        assert!(expired.is_ok(), "nothing expires in a queue without consumers");
        for (queue, name) in (0..).zip(QUEUES) {
            // Nobody else is connected, so all that the queue holds is ready.
            let ready = client.check_queue(name).await.unwrap().messages();
            self.history.add(Event::Counted { queue, messages: ready });
            let mut consumer = client.consumer(name).open().await.unwrap();
            let mut acks = JoinSet::new();
            for _ in 0..ready {
                let delivery = tokio::time::timeout(PATIENCE, consumer.next()).await;
                let delivery = delivery.unwrap_or_else(|_| panic!("{name} counts more than it delivers"));
                let delivery = delivery.unwrap().unwrap();
                if let Some(held) = self.delivered(DRAIN + u16::from(queue), queue, &delivery) {
                    acks.spawn(self.clone().ack_durably(held, delivery));
                }
            }
            acks.join_all().await;
            drained += ready;
            let left = client.check_queue(name).await.unwrap().messages();
            self.history.add(Event::Counted { queue, messages: left });
        }
        client.close().await.unwrap();
        drained
    }

    /// Looks into every queue once more; what is there is in the history then.
    pub(crate) async fn look_for_leftovers(&self) {
        let client = Client::connect(&self.url).await.unwrap();
        for (queue, name) in (0..).zip(QUEUES) {
            while let Some(delivery) = client.get(name).await.unwrap() {
                if let Some(held) = self.delivered(DRAIN + u16::from(queue), queue, &delivery) {
                    self.ack(held, delivery);
                }
            }
        }
        client.close().await.unwrap();
    }
}

/// Counts as an open connection until it is dropped.
struct Session(watch::Sender<usize>);

impl Session {
    fn begin(sessions: &watch::Sender<usize>) -> Self {
        sessions.send_modify(|sessions| *sessions += 1);
        Self(sessions.clone())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.0.send_modify(|sessions| *sessions -= 1);
    }
}
