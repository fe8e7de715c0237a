//! A broker without sockets, threads and tasks, and its one client.

use std::sync::Arc;

use leveret_broker::channel::{Channel, Consume};
use leveret_broker::queue::{
    ConnectionId, ConsumerSpec, Credit, Delivery, Outlet, Recipient, Settings, Verb, Work,
};
use leveret_broker::store::{Memory, Pins, ProgressReporter, Store};
use leveret_broker::topology::{Alarms, DeclareQueue, Readers, Topology, Vhost, VhostLimits};
use leveret_journal::{Journal, Options, Sink, Stepper};
use leveret_protocol::{QueueName, Table, VhostName};
use parking_lot::Mutex;

const CONNECTION: ConnectionId = ConnectionId(1);
const CONSUMER: u32 = 1;
/// More than a batch, as clients that mean to be fast ask for.
const PREFETCH: u32 = 2000;
const OUTBOX_BYTES: usize = 1 << 20;
const SEGMENT_BYTES: u64 = 64 << 20;

/// The parts of the broker, on a disk that forgets.
pub(crate) struct World {
    pub(crate) vhost: Arc<Vhost>,
    pub(crate) channel: Channel,
    pub(crate) work: Work,
    store: Arc<Store>,
    stepper: Stepper,
}

/// What a consumer got.
#[derive(Debug)]
pub(crate) struct Consumed {
    inbox: Arc<Inbox>,
    outlet: Arc<Outlet>,
}

#[derive(Debug, Default)]
struct Inbox(Mutex<(Vec<Delivery>, u64)>);

impl World {
    /// With one queue.
    pub(crate) fn new(queue: &str, durable: bool) -> Self {
        let (reporter, progress) = ProgressReporter::new();
        let options = Options { segment_bytes: SEGMENT_BYTES, ..Options::new("journal", 1) };
        let (journal, stepper, _) =
            Journal::open_stepped(Arc::new(Sink), options, reporter, &mut |_| Ok(())).unwrap();
        let store = Store::new(journal, Arc::new(Pins::new(SEGMENT_BYTES)), Memory::new(u64::MAX), progress);
        let limits = VhostLimits { queues_max: 1000, exchanges_max: 1000, bindings_max: 1000 };
        let (alarms, readers) = (Arc::new(Alarms::default()), Arc::new(Readers::default()));
        let topology = Topology::new(Arc::clone(&store), alarms, readers, limits);
        let vhost = topology.ensure_vhost(&VhostName::new("/").unwrap()).unwrap();
        let channel = Channel::new(Arc::clone(&vhost), CONNECTION, true, 10);
        let mut world = Self { vhost, channel, work: Work::default(), store, stepper };
        let name = QueueName::new(queue).unwrap();
        let settings = Settings::from_arguments(durable, false, false, &Table::new()).unwrap();
        let declare = DeclareQueue { name: name.clone(), settings };
        world.vhost.declare_queue(declare, &name, CONNECTION, &mut world.work).unwrap();
        world.commit();
        world
    }

    pub(crate) fn consume(&mut self, queue: &str, acked: bool) -> Consumed {
        let (inbox, outlet) = (Arc::new(Inbox::default()), Arc::new(Outlet::new(OUTBOX_BYTES)));
        let spec = ConsumerSpec {
            outlet: Arc::clone(&outlet),
            priority: 0,
            exclusive: false,
            no_ack: !acked,
            credit: if acked { Credit::Unsettled(PREFETCH) } else { Credit::Unlimited },
        };
        let queue = &QueueName::new(queue).unwrap();
        let recipient = Arc::clone(&inbox) as Arc<dyn Recipient>;
        let consume = Consume { number: CONSUMER, queue, spec, recipient };
        self.channel.consume(consume, &mut self.work, || ()).unwrap();
        Consumed { inbox, outlet }
    }

    /// What the journal's thread does.
    pub(crate) fn commit(&mut self) {
        while self.stepper.step() {}
        assert!(self.store.synced().reaches(self.store.end()));
    }

    /// Lets go of the front of the journal.
    pub(crate) fn reclaim(&mut self) {
        self.store.release_before(self.store.needed_from());
    }

    /// Acknowledges the deliveries from `first` to `last`.
    pub(crate) fn settle(&mut self, first: u64, last: u64) {
        self.channel.settle(CONSUMER, &[(first, last)], &Verb::Ack, &mut self.work).unwrap();
    }

    /// How many messages a queue has, those that are not settled included.
    pub(crate) fn left(&self, queue: &str) -> u64 {
        let counts = self.vhost.queue(queue, CONNECTION).unwrap().counts();
        counts.ready + counts.unacked
    }
}

impl Consumed {
    /// What the writer does, but for the frames: takes all deliveries, and makes room. Gives the last one's tag.
    pub(crate) fn take(&self) -> u64 {
        let mut guard = self.inbox.0.lock();
        let (deliveries, messages) = &mut *guard;
        let last = deliveries.last().map_or(0, |delivery| delivery.tag);
        *messages += deliveries.len() as u64;
        deliveries.clear();
        let starved = self.outlet.sub(self.outlet.waiting());
        assert!(!starved, "the outbox has room for a batch");
        last
    }

    /// How many were taken.
    pub(crate) fn messages(&self) -> u64 {
        self.inbox.0.lock().1
    }
}

impl Recipient for Inbox {
    fn deliver(&self, deliveries: &mut dyn Iterator<Item = Delivery>) {
        self.0.lock().0.extend(deliveries);
    }

    fn cancelled(&self, _: &str) {}
}
