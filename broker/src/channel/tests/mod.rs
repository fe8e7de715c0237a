//! Channels over real queues and a real journal, without a connection.

mod headers;
mod prefetch;
mod transactions;

use std::sync::Arc;

use leveret_journal::{Journal, Options, SimDisk, Stepper};
use leveret_protocol::{QueueName, Table, Value, VhostName};
use parking_lot::Mutex;

use super::*;
use crate::queue::{ConsumerSpec, Credit, Delivery, Outlet, Recipient, Settings, Verb};
use crate::store::{Head, Memory, Message, Pins, ProgressReporter, Store};
use crate::topology::{DeclareQueue, Topology, VhostLimits};

const CONNECTION: ConnectionId = ConnectionId(1);

const SEGMENT_BYTES: u64 = 16 << 10;

fn options() -> Options {
    // Files for what may be staged are kept ready, so that there are only a few of these small ones.
    let staged_bytes_max = 4 * SEGMENT_BYTES as usize;
    Options { segment_bytes: SEGMENT_BYTES, staged_bytes_max, ..Options::new("/data", 1) }
}

/// A broker without sockets, on a disk that does nothing of itself.
struct World {
    disk: SimDisk,
    stepper: Stepper,
    vhost: Arc<Vhost>,
    work: Work,
}

/// What a consumer got and nobody has looked at yet.
#[derive(Debug, Default)]
struct Inbox(Mutex<Vec<Delivery>>);

impl Recipient for Inbox {
    fn deliver(&self, deliveries: &mut dyn Iterator<Item = Delivery>) {
        self.0.lock().extend(deliveries);
    }

    fn cancelled(&self, _: &str) {}
}

impl Inbox {
    /// The bodies of the deliveries since the last call.
    fn bodies(&self) -> String {
        self.0.lock().drain(..).map(|delivery| text(&delivery.message)).collect::<Vec<_>>().join(" ")
    }
}

fn text(message: &Message) -> String {
    String::from_utf8(message.body().to_vec()).unwrap()
}

fn name(name: &str) -> QueueName {
    QueueName::new(name).unwrap()
}

impl World {
    fn new() -> Self {
        Self::on(SimDisk::new(1))
    }

    fn on(disk: SimDisk) -> Self {
        let (reporter, progress) = ProgressReporter::new();
        let opened = Journal::open_stepped(Arc::new(disk.clone()), options(), reporter, &mut |_| Ok(()));
        let (journal, stepper, _) = opened.unwrap();
        let store = Store::new(journal, Arc::new(Pins::new(SEGMENT_BYTES)), Memory::new(u64::MAX), progress);
        let limits = VhostLimits { queues_max: 100, exchanges_max: 100, bindings_max: 100 };
        let topology = Topology::new(store, Arc::default(), Arc::default(), limits);
        let vhost = topology.ensure_vhost(&VhostName::new("/").unwrap()).unwrap();
        let mut work = Work::default();
        work.now_ms = 1_000_000;
        Self { disk, stepper, vhost, work }
    }

    fn queue(&mut self, queue: &str, arguments: &[(&str, Value)]) -> Arc<Queue> {
        let arguments: Table =
            arguments.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let settings = Settings::from_arguments(true, false, false, &arguments).unwrap();
        let declare = DeclareQueue { name: name(queue), settings };
        let declared = self.vhost.declare_queue(declare, &name("unused"), CONNECTION, &mut self.work);
        self.vhost.finish(&mut self.work);
        declared.unwrap().0
    }

    fn channel(&self) -> Channel {
        Channel::new(Arc::clone(&self.vhost), CONNECTION, false, 100)
    }

    fn publish(&mut self, queue: &Arc<Queue>, bodies: &str) {
        let messages: Vec<_> =
            bodies.split_whitespace().map(|body| Message::new(Head::default(), body.as_bytes())).collect();
        queue.enqueue(messages.iter(), None, &mut self.work, |_, _| {});
        self.vhost.finish(&mut self.work);
    }

    fn consume(&mut self, channel: &mut Channel, number: u32, queue: &str, prefetch: u32) -> Arc<Inbox> {
        self.consume_with(channel, number, queue, Credit::prefetch(prefetch), false)
    }

    fn consume_with(
        &mut self,
        channel: &mut Channel,
        number: u32,
        queue: &str,
        credit: Credit,
        no_ack: bool,
    ) -> Arc<Inbox> {
        let inbox = Arc::new(Inbox::default());
        let outlet = Arc::new(Outlet::new(usize::MAX));
        let spec = ConsumerSpec { outlet, priority: 0, exclusive: false, no_ack, credit };
        let recipient: Arc<dyn Recipient> = Arc::<Inbox>::clone(&inbox);
        let consume = Consume { number, queue: &name(queue), spec, recipient };
        channel.consume(consume, &mut self.work, || {}).unwrap();
        inbox
    }

    fn ack(&mut self, channel: &mut Channel, number: u32, tag: u64) {
        channel.settle(number, &[(tag, tag)], &Verb::Ack, &mut self.work).unwrap();
    }
}
