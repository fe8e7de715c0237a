//! Transactions: what they show to whom, and what a crash leaves of them.

use std::collections::BTreeMap;

use leveret_journal::{Loss, Record, ReplayError};
use leveret_protocol::{PropertiesFormat, ReplyCode};

use super::*;
use crate::store::{QueueId, Replay};
use crate::topology::TopologyError;

/// A transactional channel with the publisher of its connection.
struct Client {
    channel: Channel,
    publisher: Publisher,
}

fn publication<'a>(exchange: &'a str, routing_key: &'a str, body: &'a [u8]) -> Publication<'a> {
    Publication {
        exchange,
        routing_key,
        cc: Vec::new(),
        bcc: Vec::new(),
        persistent: true,
        priority: 0,
        ttl_ms: None,
        properties_format: PropertiesFormat::Native,
        properties_bytes: 0,
        content: body,
    }
}

impl Client {
    fn new(world: &World) -> Self {
        Self::with_budget(world, TRANSACTION_BYTES_MAX)
    }

    fn with_budget(world: &World, max: usize) -> Self {
        let mut channel = world.channel();
        channel.select_transactions(&Arc::new(TransactionBudget::new(max))).unwrap();
        Self { channel, publisher: Publisher::default() }
    }

    fn publish(&mut self, world: &World, queue: &str, body: &str) -> Result<(), ChannelError> {
        let publication = publication("", queue, body.as_bytes());
        self.channel.collect(&mut self.publisher, publication, true, &world.work)
    }

    fn publish_all(&mut self, world: &World, queue: &str, bodies: &str) {
        for body in bodies.split_whitespace() {
            self.publish(world, queue, body).unwrap();
        }
    }
}

fn settle(
    world: &mut World,
    client: &mut Client,
    range: (u64, u64),
    verb: &Verb,
) -> Result<(), ChannelError> {
    client.channel.settle(1, &[range], verb, &mut world.work)
}

#[test]
fn nobody_sees_anything_of_a_transaction_before_its_commit_and_everything_after_it() {
    let mut world = World::new();
    let (a, b, c) = (world.queue("a", &[]), world.queue("b", &[]), world.queue("c", &[]));
    world.publish(&c, "c1 c2 c3");
    let mut client = Client::new(&world);
    let inbox = world.consume(&mut client.channel, 1, "c", 2);
    assert_eq!(inbox.bodies(), "c1 c2");
    let mut other = world.channel();
    let seen = world.consume(&mut other, 1, "a", 0);
    client.publish_all(&world, "a", "a1 a2");
    client.publish_all(&world, "b", "b1");
    settle(&mut world, &mut client, (1, 1), &Verb::Ack).unwrap();
    assert_eq!((a.counts().ready, b.counts().ready, c.counts().unacked), (0, 0, 2));
    assert_eq!((seen.bodies().as_str(), inbox.bodies().as_str()), ("", ""), "no credit before the commit");

    client.channel.commit(&mut world.work).unwrap();
    assert_eq!((seen.bodies().as_str(), inbox.bodies().as_str()), ("a1 a2", "c3"));
    assert_eq!((b.counts().ready, c.counts().unacked), (1, 2));
    client.channel.commit(&mut world.work).unwrap();
    assert_eq!(b.counts().ready, 1, "the next transaction is empty");
}

#[test]
fn a_rollback_forgets_publishes_and_leaves_deliveries_unsettled_without_delivering_them_again() {
    let mut world = World::new();
    let (a, c) = (world.queue("a", &[]), world.queue("c", &[]));
    world.publish(&c, "c1 c2");
    let mut client = Client::new(&world);
    let inbox = world.consume(&mut client.channel, 1, "c", 0);
    assert_eq!(inbox.bodies(), "c1 c2");
    client.publish_all(&world, "a", "a1");
    settle(&mut world, &mut client, (0, 0), &Verb::Requeue).unwrap();
    client.channel.rollback(&mut world.work).unwrap();
    client.channel.commit(&mut world.work).unwrap();
    assert_eq!((a.counts().ready, c.counts().unacked, inbox.bodies().as_str()), (0, 2, ""));
    settle(&mut world, &mut client, (1, 2), &Verb::Ack).unwrap();
    client.channel.commit(&mut world.work).unwrap();
    assert_eq!(c.counts().unacked, 0);
}

#[test]
fn a_settle_of_what_is_settled_or_unknown_fails_at_once_and_up_to_means_what_was_there_then() {
    let mut world = World::new();
    let c = world.queue("c", &[]);
    world.publish(&c, "c1 c2");
    let mut client = Client::new(&world);
    world.consume(&mut client.channel, 1, "c", 0);
    settle(&mut world, &mut client, (1, 1), &Verb::Ack).unwrap();
    for unknown in [(1, 1), (3, 3)] {
        let refused = settle(&mut world, &mut client, unknown, &Verb::Ack).unwrap_err();
        assert_eq!(refused.code(), ReplyCode::PreconditionFailed);
    }
    settle(&mut world, &mut client, (0, 0), &Verb::Ack).unwrap();
    world.publish(&c, "c3");
    client.channel.commit(&mut world.work).unwrap();
    assert_eq!(c.counts().unacked, 1, "c3 came after the settle of all");
}

#[test]
fn a_channel_that_ends_takes_its_transaction_back() {
    let mut world = World::new();
    let (a, c) = (world.queue("a", &[]), world.queue("c", &[]));
    world.publish(&c, "c1");
    let mut client = Client::new(&world);
    world.consume(&mut client.channel, 1, "c", 0);
    client.publish_all(&world, "a", "a1");
    settle(&mut world, &mut client, (1, 1), &Verb::Ack).unwrap();
    client.channel.close(&mut world.work);
    assert_eq!((a.counts().ready, c.counts().ready, c.counts().unacked), (0, 1, 0));
}

#[test]
fn mandatory_messages_that_no_queue_has_come_back_with_the_commit() {
    let mut world = World::new();
    world.queue("a", &[]);
    let mut client = Client::new(&world);
    client.publish_all(&world, "nowhere", "x1");
    client.publish_all(&world, "a", "a1");
    let silent = publication("", "nowhere", b"x2");
    client.channel.collect(&mut client.publisher, silent, false, &world.work).unwrap();
    world.vhost.delete_queue(&name("a"), false, false, CONNECTION).unwrap();
    let returned = client.channel.commit(&mut world.work).unwrap().returned;
    let returned: Vec<_> = returned.iter().map(|back| (back.routing_key().as_str(), text(back))).collect();
    assert_eq!(returned, [("nowhere", "x1".to_owned()), ("a", "a1".to_owned())], "its queue is gone by now");

    let refused =
        client.channel.collect(&mut client.publisher, publication("none", "", b""), true, &world.work);
    assert!(matches!(refused, Err(ChannelError::Topology(TopologyError::Exchange(_)))), "at once");
}

#[test]
fn a_queue_that_would_refuse_one_message_makes_all_of_the_transaction_fail() {
    let mut world = World::new();
    let limit = [("x-max-length", 2.into()), ("x-overflow", "reject-publish".into())];
    let (a, full, c) = (world.queue("a", &[]), world.queue("full", &limit), world.queue("c", &[]));
    world.publish(&full, "f1");
    world.publish(&c, "c1");
    let mut client = Client::new(&world);
    let inbox = world.consume(&mut client.channel, 1, "c", 0);
    inbox.bodies();
    client.publish_all(&world, "a", "a1");
    client.publish_all(&world, "full", "f2 f3");
    settle(&mut world, &mut client, (1, 1), &Verb::Ack).unwrap();
    let refused = client.channel.commit(&mut world.work).unwrap_err();
    assert_eq!(refused.code(), ReplyCode::PreconditionFailed);
    assert!(refused.to_string().contains("queue 'full' in vhost '/' is full"), "{refused}");
    assert_eq!((a.counts().ready, full.counts().ready, c.counts().unacked), (0, 1, 1));

    client.publish_all(&world, "full", "f2");
    settle(&mut world, &mut client, (1, 1), &Verb::Ack).unwrap();
    client.channel.commit(&mut world.work).unwrap();
    assert_eq!((full.counts().ready, c.counts().unacked), (2, 0), "what fits is taken");
    while world.stepper.step() {}
    assert_eq!(
        recovered(&world).messages(&full).len(),
        1,
        "the refused ones are not in the journal, f1 was transient"
    );
}

#[test]
fn open_transactions_have_a_budget_for_the_whole_connection() {
    let mut world = World::new();
    world.queue("a", &[]);
    let mut client = Client::with_budget(&world, 2_000);
    client.publish_all(&world, "a", "a1 a2 a3");
    let refused = client.publish(&world, "a", "a4").unwrap_err();
    assert_eq!(refused.code(), ReplyCode::PreconditionFailed);
    client.channel.commit(&mut world.work).unwrap();
    client.publish_all(&world, "a", "a5");
    client.channel.rollback(&mut world.work).unwrap();
    client.publish_all(&world, "a", "a6 a7 a8");
}

#[test]
fn a_transaction_that_does_not_fit_one_group_is_refused_before_anything_is_applied() {
    let mut world = World::new();
    let c = world.queue("c", &[]);
    let a = world.queue("a", &[]);
    world.publish(&c, &"c ".repeat(1000));
    let mut client = Client::new(&world);
    world.consume(&mut client.channel, 1, "c", 0);
    settle(&mut world, &mut client, (0, 0), &Verb::Ack).unwrap();
    client.publish_all(&world, "a", "a1");
    let refused = client.channel.commit(&mut world.work).unwrap_err();
    assert!(refused.to_string().contains("the journal takes"), "{refused}");
    assert_eq!((a.counts().ready, c.counts().unacked), (0, 1000));
}

#[test]
fn transactions_and_confirms_exclude_each_other() {
    let world = World::new();
    let budget = Arc::new(TransactionBudget::default());
    let mut channel = world.channel();
    let mut work = Work::default();
    assert_eq!(channel.commit(&mut work).unwrap_err().to_string(), "channel is not transactional");
    assert_eq!(channel.rollback(&mut work).unwrap_err().to_string(), "channel is not transactional");
    channel.select_transactions(&budget).unwrap();
    channel.select_transactions(&budget).unwrap();
    assert_eq!(channel.select_confirms().unwrap_err().to_string(), "cannot switch from tx to confirm mode");
    let mut channel = world.channel();
    channel.select_confirms().unwrap();
    let refused = channel.select_transactions(&budget).unwrap_err();
    assert_eq!(refused.to_string(), "cannot switch from confirm to tx mode");
}

#[test]
fn a_leaving_consumer_ends_when_a_commit_settles_the_last_that_it_holds() {
    let mut world = World::new();
    let c = world.queue("c", &[]);
    world.publish(&c, "c1");
    let mut client = Client::new(&world);
    world.consume(&mut client.channel, 1, "c", 0);
    settle(&mut world, &mut client, (1, 1), &Verb::Ack).unwrap();
    client.channel.cancel(1, &mut world.work).unwrap();
    client.channel.commit(&mut world.work).unwrap();
    assert_eq!(c.counts().unacked, 0);
    assert!(client.channel.held.is_empty());
}

#[test]
fn transactions_that_meet_in_several_queues_do_not_wait_for_each_other_for_ever() {
    let mut world = World::new();
    let queues = [world.queue("a", &[]), world.queue("b", &[])];
    let world = &world;
    std::thread::scope(|scope| {
        for order in [["a", "b"], ["b", "a"]] {
            scope.spawn(move || {
                let mut client = Client::new(world);
                let mut work = Work::default();
                for _ in 0..300 {
                    client.publish_all(world, order[0], "1");
                    client.publish_all(world, order[1], "2");
                    client.channel.commit(&mut work).unwrap();
                }
            });
        }
    });
    assert_eq!(queues.map(|queue| queue.counts().ready), [600, 600]);
}

/// How many messages the transaction of the crash tests brings to each of two queues, and how many it settles in a
/// third: so many that the records of all three do not go into one block of the journal unless they are one group.
const MESSAGES: usize = 250;

/// What a segment begins with.
const HEADER_BYTES: usize = 4096;

fn recovered(world: &World) -> Recovered {
    recovered_from(&world.disk)
}

/// The bodies that each queue gets back from what is on the disk.
fn recovered_from(disk: &SimDisk) -> Recovered {
    let pins = Arc::new(Pins::new(SEGMENT_BYTES));
    let mut replay = Replay::new(Arc::clone(&pins), 0);
    let disk = disk.fork();
    let (reporter, progress) = ProgressReporter::new();
    let mut apply = |record: Record<'_>| replay.apply(&record).map_err(ReplayError::from);
    let (journal, ..) = Journal::open_stepped(Arc::new(disk), options(), reporter, &mut apply).unwrap();
    let store = Store::new(journal, pins, Memory::new(u64::MAX), progress);
    let queues = replay.finish(leveret_journal::Position::default(), true).queues;
    let bodies = queues.into_iter().map(|(queue, content)| {
        let places: Vec<_> = content.into_stubs().flatten().map(|stub| stub.place).collect();
        let mut bodies = Vec::new();
        store.read_messages(&places, &mut |_, message| bodies.push(text(&message.unwrap())));
        (queue, bodies)
    });
    Recovered(bodies.collect())
}

struct Recovered(BTreeMap<QueueId, Vec<String>>);

impl Recovered {
    fn messages(&self, queue: &Queue) -> Vec<String> {
        self.0.get(&queue.id).cloned().unwrap_or_default()
    }
}

/// A broker with a transaction over three queues that is staged and not written yet.
fn staged(disk: SimDisk) -> (World, [Arc<Queue>; 3]) {
    let mut world = World::on(disk);
    let queues = ["a", "b", "c"].map(|queue| world.queue(queue, &[]));
    let mut publisher = Publisher::default();
    for number in 0..2 * MESSAGES {
        let ticket = Ticket { channel: 1, number: None };
        let body = number.to_string();
        let publication = publication("", "c", body.as_bytes());
        assert!(publisher.add(&world.vhost, publication, ticket, 1).unwrap());
    }
    publisher.flush(&world.vhost, &mut world.work, &mut ConfirmRuns::default()).unwrap();
    while world.stepper.step() {}

    let mut client = Client::new(&world);
    world.consume(&mut client.channel, 1, "c", 0);
    let fill = "x".repeat(60);
    for number in 0..MESSAGES {
        let mut both = publication("", "a", fill.as_bytes());
        both.cc = vec![leveret_protocol::RoutingKey::new("b").unwrap()];
        client.channel.collect(&mut client.publisher, both, true, &world.work).unwrap();
        let tag = 2 * number as u64 + 1;
        settle(&mut world, &mut client, (tag, tag), &Verb::Ack).unwrap();
    }
    client.channel.commit(&mut world.work).unwrap();
    (world, queues)
}

/// Whether all of the transaction is there; panics if there is a part of it.
fn is_all_there(recovered: &Recovered, queues: &[Arc<Queue>; 3], context: &str) -> bool {
    let found = queues.each_ref().map(|queue| recovered.messages(queue).len());
    match found {
        [0, 0, messages] if messages == 2 * MESSAGES => false,
        [MESSAGES, MESSAGES, MESSAGES] => true,
        _ => panic!("{context}: a part of the transaction: {found:?}"),
    }
}

#[test]
fn a_journal_that_ends_anywhere_in_a_transaction_has_all_of_it_or_nothing() {
    let (mut world, queues) = staged(SimDisk::new(1));
    let files = |disk: &SimDisk| -> BTreeMap<_, _> {
        disk.files().into_iter().map(|path| (path.clone(), disk.contents(&path).unwrap())).collect()
    };
    let before = files(&world.disk);
    while world.stepper.step() {}
    let after = files(&world.disk);
    let mut seen = [0, 0];
    for (path, bytes) in &after {
        // A new file gets its name when it is allocated and has its header.
        let mut old =
            before.get(path).cloned().unwrap_or_else(|| bytes.iter().take(HEADER_BYTES).copied().collect());
        old.resize(bytes.len(), 0);
        let changed = |at: &usize| bytes[*at] != old[*at];
        let Some(first) = (0..bytes.len()).find(changed) else { continue };
        let last = (0..bytes.len()).rfind(changed).unwrap_or(first);
        for cut in (first..=last + 1).step_by(56).chain([last + 1]) {
            let disk = SimDisk::new(1);
            for (other, bytes) in &before {
                disk.set_contents(other, bytes.clone());
            }
            for (other, bytes) in after.iter().filter(|(other, _)| *other < path) {
                disk.set_contents(other, bytes.clone());
            }
            let kept = bytes.iter().take(cut).chain(old.iter().skip(cut)).copied();
            disk.set_contents(path, kept.collect());
            let all = is_all_there(&recovered_from(&disk), &queues, &format!("{} {cut}", path.display()));
            seen[usize::from(all)] += 1;
        }
    }
    assert!(seen[0] > 100 && seen[1] > 0, "{seen:?}");
}

#[test]
fn a_power_cut_while_a_transaction_is_written_leaves_all_of_it_or_nothing() {
    let calls = {
        let (mut world, _) = staged(SimDisk::new(1));
        let before = world.disk.calls();
        while world.stepper.step() {}
        world.disk.calls() - before
    };
    let mut seen = [0, 0];
    for seed in 0..4 * (calls + 1) {
        let disk = SimDisk::new(seed);
        let (mut world, queues) = staged(disk.clone());
        disk.stop_after(disk.calls() + seed / 4);
        while world.stepper.step() {}
        disk.cut_power([Loss::Random, Loss::Earlier, Loss::Everything, Loss::Nothing][seed as usize % 4]);
        seen[usize::from(is_all_there(&recovered(&world), &queues, &format!("seed {seed}")))] += 1;
    }
    assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
}
