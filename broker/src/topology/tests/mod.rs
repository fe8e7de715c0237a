//! What of a queue is left behind, and what is not.

mod crashes;

use std::sync::Arc;

use leveret_journal::{Journal, Options, RealDisk};
use leveret_protocol::{
    Destination, ExchangeName, QueueName, ReplyCode, RoutingKey, Table, Value, VhostName,
};

use super::vhost::Registry;
use super::{
    Alarms, BindingDefinition, DeclareExchange, DeclareQueue, Definition, Topology, Vhost, VhostLimits,
};
use crate::queue::{ConnectionId, Queue, Settings, Work};
use crate::store::{Memory, Message, Pins, ProgressReporter, Store};

const CONNECTION: ConnectionId = ConnectionId(1);

/// A vhost with one queue, which expires after an hour.
struct World {
    store: Arc<Store>,
    alarms: Arc<Alarms>,
    vhost: Arc<Vhost>,
    queue: Arc<Queue>,
    work: Work,
    _folder: tempfile::TempDir,
}

fn name() -> QueueName {
    QueueName::new("q").unwrap()
}

fn world() -> World {
    let folder = tempfile::tempdir().unwrap();
    let (reporter, progress) = ProgressReporter::new();
    let options =
        Options { segment_bytes: 256 << 10, staged_bytes_max: 1 << 20, ..Options::new(folder.path(), 1) };
    let pins = Arc::new(Pins::new(options.segment_bytes));
    let (journal, _) = Journal::open(Arc::new(RealDisk), options, reporter, &mut |_| Ok(())).unwrap();
    let store = Store::new(journal, pins, Memory::new(u64::MAX), progress);
    let alarms = Arc::new(Alarms::default());
    let kept = Arc::clone(&store);
    let limits = VhostLimits { queues_max: 10, exchanges_max: 100, bindings_max: BINDINGS };
    let topology = Topology::new(store, Arc::clone(&alarms), Arc::default(), limits);
    let vhost = topology.ensure_vhost(&VhostName::new("/").unwrap()).unwrap();
    let arguments = Table::from([("x-expires".to_owned(), Value::from(3_600_000))]);
    let settings = Settings::from_arguments(true, false, false, &arguments).unwrap();
    let mut work = Work::default();
    let declare = DeclareQueue { name: name(), settings };
    let (queue, ..) = vhost.declare_queue(declare, &name(), CONNECTION, &mut work).unwrap();
    vhost.finish(&mut work);
    World { store: kept, alarms, vhost, queue, work, _folder: folder }
}

#[test]
fn a_deleted_queue_keeps_no_messages_though_somebody_remembers_it() {
    let World { vhost, queue, mut work, _folder, .. } = world();
    let message = Message::default();
    queue.enqueue(std::iter::once(&message), None, &mut work, |_, _| {});
    assert_eq!(message.holders(), 2);
    vhost.delete_queue(&name(), false, false, CONNECTION).unwrap();
    assert_eq!(message.holders(), 1);
    drop(queue);
}

#[test]
fn a_deleted_queue_leaves_no_alarm() {
    let World { alarms, vhost, _folder, .. } = world();
    assert_eq!(alarms.times(), [3_600_000]);
    vhost.delete_queue(&name(), false, false, CONNECTION).unwrap();
    assert_eq!(alarms.times(), []);
}

/// Many turns of the lock.
const BINDINGS: usize = 5000;

#[test]
fn a_queue_goes_with_all_of_its_bindings_however_many_and_no_snapshot_sees_some_of_them() {
    let World { vhost, _folder, .. } = world();
    let exchange = ExchangeName::new("logs").unwrap();
    let declare = DeclareExchange::new(exchange.clone(), "topic", true, true, false, &Table::new()).unwrap();
    vhost.declare_exchange(declare).unwrap();
    for source in [exchange, ExchangeName::new("amq.topic").unwrap()] {
        for number in 0..BINDINGS / 2 {
            let binding = BindingDefinition {
                vhost: vhost.name.clone(),
                source: source.clone(),
                destination: Destination::Queue(name()),
                routing_key: RoutingKey::new(format!("*.{number}")).unwrap(),
                arguments: Table::new(),
            };
            vhost.bind(&binding, CONNECTION).unwrap();
        }
    }
    // The bindings, and whether there is the queue.
    let snapshot = || {
        let definitions = vhost.durable_definitions(&vhost.lock_for_snapshot());
        let bindings = definitions.iter().filter(|definition| matches!(definition, Definition::Bound(_)));
        (bindings.count(), definitions.iter().any(|it| matches!(it, Definition::Queue { .. })))
    };
    assert_eq!(snapshot(), (BINDINGS, true));
    std::thread::scope(|scope| {
        let deleting = scope.spawn(|| vhost.delete_queue(&name(), false, false, CONNECTION));
        while !deleting.is_finished() {
            let seen = snapshot();
            assert!([(BINDINGS, true), (0, false)].contains(&seen), "{seen:?}");
        }
    });
    assert_eq!(snapshot(), (0, false));
    assert_eq!(vhost.read(|registry| registry.router.bindings_len()), 0);
    let logs = ExchangeName::new("logs").unwrap();
    assert!(vhost.check_exchange(&logs).is_err(), "it deletes itself with its last binding");
}

#[test]
fn the_earlier_of_two_alarms_rings_in_whatever_order_they_come() {
    let World { alarms, vhost, queue, _folder, .. } = world();
    for at_ms in [50, 100, 20, 70] {
        alarms.set(at_ms, &vhost, &queue);
    }
    assert_eq!(alarms.times(), [20]);
}

#[test]
fn more_can_come_back_at_once_than_one_segment_notes() {
    const MESSAGES: usize = 150_000;
    let World { store, queue, mut work, _folder: folder, .. } = world();
    let message = Message::default();
    queue.enqueue(std::iter::repeat_n(&message, MESSAGES), None, &mut work, |_, _| {});
    let holder = queue.open_passive(&mut work).unwrap();
    for _ in 0..MESSAGES {
        queue.get(holder, false, &mut work).unwrap().unwrap();
    }
    let before = store.end();
    queue.release(holder, &mut work).unwrap();
    assert!(store.end().0 - before.0 > 2 * MESSAGES as u64, "each takes two bytes in the journal");
    drop(folder);
}

#[test]
fn the_exclusive_queues_of_a_connection_go_with_it_and_no_others() {
    let World { vhost, mut work, .. } = world();
    let mut declare = |queue: &str, connection| {
        let settings = Settings::from_arguments(false, true, false, &Table::new()).unwrap();
        let declare = DeclareQueue { name: QueueName::new(queue).unwrap(), settings };
        vhost.declare_queue(declare, &name(), ConnectionId(connection), &mut work).unwrap();
    };
    declare("one", 1);
    declare("two", 1);
    declare("three", 2);
    declare("four", 2);
    vhost.delete_queue(&QueueName::new("two").unwrap(), false, false, CONNECTION).unwrap();
    vhost.delete_exclusive(CONNECTION);
    vhost.delete_exclusive(ConnectionId(3));
    let mut left: Vec<String> = vhost.queues().iter().map(|queue| queue.name.to_string()).collect();
    left.sort();
    assert_eq!(left, ["four", "q", "three"]);
    assert_eq!(vhost.read(Registry::owners), 1);
}

#[test]
fn a_shared_queue_is_locked_for_who_wants_it_exclusive_and_the_other_way_round() {
    let World { vhost, mut work, .. } = world();
    let mut declare = |queue: &str, exclusive| {
        let settings = Settings::from_arguments(false, exclusive, false, &Table::new()).unwrap();
        let declare = DeclareQueue { name: QueueName::new(queue).unwrap(), settings };
        vhost.declare_queue(declare, &name(), CONNECTION, &mut work).map(drop)
    };
    declare("shared", false).unwrap();
    declare("mine", true).unwrap();
    declare("mine", true).unwrap();
    for (queue, exclusive) in [("shared", true), ("mine", false)] {
        let refused = declare(queue, exclusive).unwrap_err();
        assert_eq!(refused.code(), ReplyCode::ResourceLocked);
        let text =
            format!("cannot obtain exclusive access to locked queue '{queue}' in vhost '/'. It could be");
        assert!(refused.to_string().starts_with(&text), "{refused}");
    }
}
