//! Replays: what the journal says is what the queues get back. And the records' bytes, which must not change.

use std::collections::BTreeMap;
use std::sync::Arc;

use leveret_journal::{Position, Record};
use leveret_protocol::{
    Death, DeathHistory, DeathReason, ExchangeName, PropertiesFormat, QueueName, RoutingKey,
};

use proptest::prelude::*;

use super::record::{self, kind};
use super::{Batch, Head, Message, Moved, Names, Pins, QueueId, Rare, Reach, Replay, Seq};

const A: QueueId = QueueId(1);
const B: QueueId = QueueId(2);

/// A journal in memory: what was written, and a replay of it.
#[derive(Default)]
struct Log {
    records: Vec<(u8, Vec<u8>)>,
}

impl Log {
    /// Writes a message for this many queues; gives its position.
    fn message(&mut self, body: &'static str, queues: u32) -> Position {
        self.urgent_message(body, queues, 0)
    }

    fn urgent_message(&mut self, body: &'static str, queues: u32, priority: u8) -> Position {
        let head = Head { persistent: true, priority, ..Head::default() };
        let message = Message::new(head, body.as_bytes());
        let mut payload = Vec::new();
        record::encode_message_head(&message, queues, &mut payload);
        payload.extend_from_slice(body.as_bytes());
        self.records.push((kind::MESSAGE, payload));
        position(self.records.len())
    }

    fn write(&mut self, write: impl FnOnce(&mut Batch)) {
        let mut batch = Batch::default();
        write(&mut batch);
        let mut rest = batch.bytes.as_slice();
        for (kind, length) in batch.records {
            let (payload, behind) = rest.split_at(length);
            self.records.push((kind, payload.to_vec()));
            rest = behind;
        }
    }

    fn replay(&self) -> Replay {
        let mut replay = Replay::new(Arc::new(Pins::new(1 << 20)), 0);
        for (index, (kind, payload)) in self.records.iter().enumerate() {
            let record = Record { position: position(index + 1), kind: *kind, payload };
            replay.apply(&record).unwrap();
        }
        replay
    }

    /// The bodies that a queue gets back after an orderly stop, in order, with their failed deliveries if anybody may
    /// have seen them.
    fn queue(&self, queue: QueueId) -> Vec<(String, Option<u32>)> {
        self.queue_after(queue, true)
    }

    fn queue_after(&self, queue: QueueId, clean: bool) -> Vec<(String, Option<u32>)> {
        let mut recovered = self.replay().finish(Position::default(), clean);
        let stubs = recovered.queues.remove(&queue).unwrap_or_default().into_stubs().flatten();
        stubs
            .map(|stub| {
                let (kind, payload) = &self.records[stub.place.position().0 as usize / 64 - 1];
                let payload = record::message_in(*kind, payload).unwrap();
                let body = record::decode_message(payload).unwrap().body().to_vec();
                assert_eq!(stub.body_bytes as usize, body.len());
                (String::from_utf8(body).unwrap(), stub.redelivered.then_some(stub.failed))
            })
            .collect()
    }
}

/// Of queues that were never interrupted.
fn reach<const LEVELS: usize>(below: [u64; LEVELS]) -> [Reach; LEVELS] {
    below.map(|below| Reach { below: Seq(below), delivered: Seq(0) })
}

fn position(index: usize) -> Position {
    Position(index as u64 * 64)
}

#[test]
fn a_message_stays_in_a_queue_that_takes_it_after_another_one_has_settled_it() {
    let mut log = Log::default();
    let both = log.message("both", 2);
    log.write(|batch| batch.enqueue(A, Seq(0), 5, &[both]));
    log.write(|batch| batch.gone(A, &mut [Seq(0)]));
    log.write(|batch| batch.enqueue(B, Seq(7), 6, &[both]));
    assert_eq!(log.queue(A), []);
    assert_eq!(log.queue(B), [("both".to_owned(), None)]);
}

#[test]
fn a_replay_keeps_no_message_that_every_queue_has_settled_or_declined() {
    let mut log = Log::default();
    for _ in 0..3 {
        let message = log.message("gone", 3);
        log.write(|batch| {
            batch.enqueue(A, Seq(0), 5, &[message]);
            batch.declined(&[message]);
            batch.enqueue(B, Seq(0), 5, &[message]);
        });
        log.write(|batch| batch.gone(A, &mut [Seq(0)]));
        log.write(|batch| batch.gone(B, &mut [Seq(0)]));
    }
    assert_eq!(log.replay().messages_held(), 0);
}

#[test]
fn settled_ranges_leave_what_is_between_them_and_returns_are_remembered() {
    let mut log = Log::default();
    let positions: Vec<Position> = ["0", "1", "2", "3", "4"].map(|body| log.message(body, 1)).into();
    log.write(|batch| batch.enqueue(A, Seq(10), 5, &positions));
    log.write(|batch| batch.gone(A, &mut [Seq(14), Seq(10), Seq(12)]));
    log.write(|batch| batch.returned(A, &mut [(Seq(13), 2)]));
    assert_eq!(log.queue(A), [("1".to_owned(), None), ("3".to_owned(), Some(2))]);
    let recovered = log.replay().finish(Position::default(), true);
    assert_eq!(recovered.queues[&A].next, Seq(15), "places are not used again");
}

#[test]
fn only_an_unclean_stop_flags_what_may_have_been_delivered_and_what_it_flags_stays_flagged() {
    let mut log = Log::default();
    let positions: Vec<Position> = ["0", "1", "2"].map(|body| log.message(body, 1)).into();
    log.write(|batch| batch.enqueue(A, Seq(0), 5, &positions));
    log.write(|batch| batch.horizon(A, Seq(3), &reach([2])));
    let seen = |body: &str, seen: bool| (body.to_owned(), seen.then_some(0));
    assert_eq!(log.queue(A), [seen("0", false), seen("1", false), seen("2", false)]);
    assert_eq!(log.queue_after(A, false), [seen("0", true), seen("1", true), seen("2", false)]);
    log.write(|batch| batch.horizon(A, Seq(3), &reach([3])));
    log.write(Batch::interrupted);
    // As the queue writes it once the one before is gone with its segment.
    let written = log.replay().finish(Position::default(), true).queues[&A].horizon.clone();
    assert_eq!(written, [Reach { below: Seq(3), delivered: Seq(3) }]);
    log.write(|batch| batch.horizon(A, Seq(3), &[Reach { below: Seq(10), ..written[0] }]));
    log.records.retain(|(kind, _)| *kind != kind::INTERRUPTED);
    let late = log.message("3", 1);
    log.write(|batch| batch.enqueue(A, Seq(3), 5, &[late]));
    assert_eq!(log.queue(A), [seen("0", true), seen("1", true), seen("2", true), seen("3", false)]);
    assert_eq!(log.queue_after(A, false).last(), Some(&seen("3", true)));
}

#[test]
fn each_priority_has_its_own_horizon_and_the_highest_is_that_of_all_above_it() {
    let mut log = Log::default();
    let positions: Vec<Position> = [0, 1, 2, 9].map(|priority| log.urgent_message("", 1, priority)).into();
    log.write(|batch| batch.enqueue(A, Seq(0), 5, &positions));
    log.write(|batch| batch.horizon(A, Seq(4), &reach([0, 0, 4])));
    let flags: Vec<bool> = log.queue_after(A, false).into_iter().map(|(_, seen)| seen.is_some()).collect();
    assert_eq!(flags, [false, false, true, true]);
    assert_eq!(log.replay().finish(Position::default(), true).queues[&A].next, Seq(4));
}

/// What [`Mover`](super::Mover) writes of a message.
fn moved(log: &mut Log, moved: &Moved, body: &'static str) {
    let mut payload = Vec::new();
    record::encode_moved(moved, &mut payload);
    let message = log.message(body, 1).0 as usize / 64 - 1;
    payload.extend(log.records.remove(message).1);
    log.records.push((kind::MOVED, payload));
}

#[test]
fn a_moved_record_stands_for_all_that_was_known_of_its_message() {
    let whole = |log: &Log| log.queue(A).into_iter().map(|(body, _)| body).collect::<Vec<_>>().join(" ");
    let mut log = Log::default();
    let bodies = ["0", "1", "2", "3", "4", "5", "6", "7"];
    let positions: Vec<Position> = bodies.map(|body| log.message(body, 1)).into();
    log.write(|batch| batch.enqueue(A, Seq(0), 5, &positions));
    log.write(|batch| batch.returned(A, &mut [(Seq(1), 1)]));
    let front = log.records.len();
    let known =
        |seq: usize| Moved { queue: A, seq: Seq(seq as u64), arrived_ms: 5, failed: 0, redelivered: false };
    // In whatever order, several times, and with others in between.
    for seq in [1, 3, 5, 7, 0, 2, 4] {
        moved(&mut log, &known(seq), bodies[seq]);
    }
    moved(&mut log, &Moved { failed: 2, redelivered: true, ..known(1) }, "1");
    assert_eq!(whole(&log), "0 1 2 3 4 5 6 7", "each once, and in its order");
    log.write(|batch| batch.gone(A, &mut [Seq(2), Seq(6)]));
    assert_eq!(whole(&log), "0 1 3 4 5 7");
    log.records.drain(..front);
    assert_eq!(whole(&log), "0 1 3 4 5 7", "without the front");
    assert_eq!(log.queue(A)[1], ("1".to_owned(), Some(2)));
    log.write(|batch| batch.returned(A, &mut [(Seq(3), 4)]));
    assert_eq!(log.queue(A)[2], ("3".to_owned(), Some(4)));
}

#[test]
fn what_came_back_and_is_not_in_the_journal_says_nothing_about_the_message_that_gets_its_place() {
    let mut log = Log::default();
    // Transient: its return is journaled, and nothing else of it.
    log.write(|batch| batch.returned(A, &mut [(Seq(0), 2)]));
    assert_eq!(log.replay().finish(Position::default(), true).queues[&A].next, Seq(1));
    let persistent = log.message("persistent", 1);
    log.write(|batch| batch.enqueue(A, Seq(0), 5, &[persistent]));
    assert_eq!(log.queue(A), [("persistent".to_owned(), None)]);
}

/// What may happen to a queue of which everything is replayed.
#[derive(Debug, Clone)]
enum Happened {
    Enqueued(u64),
    Gone(Vec<u64>),
    Returned(u64, u32),
    /// A horizon at so many, and a crash.
    Interrupted(u64),
    Moved(u64),
}

fn happened() -> impl Strategy<Value = Happened> {
    prop_oneof![
        (1u64..8).prop_map(Happened::Enqueued),
        proptest::collection::vec(0u64..40, 1..6).prop_map(Happened::Gone),
        (0u64..40, 1u32..4).prop_map(|(seq, failed)| Happened::Returned(seq, failed)),
        (0u64..40).prop_map(Happened::Interrupted),
        (0u64..40).prop_map(Happened::Moved),
    ]
}

proptest! {
    /// Packs are handed on as they are only where that changes nothing.
    #[test]
    fn a_replayed_queue_is_what_happened_to_it(story in proptest::collection::vec(happened(), 1..30)) {
        let mut log = Log::default();
        let mut expected: BTreeMap<u64, (Option<u32>, Position)> = BTreeMap::new();
        let (mut next, mut delivered) = (0, 0);
        for step in story {
            match step {
                Happened::Enqueued(count) => {
                    let positions: Vec<Position> = (0..count).map(|_| log.message("", 1)).collect();
                    log.write(|batch| batch.enqueue(A, Seq(next), 5, &positions));
                    expected.extend((next..).zip(positions.into_iter().map(|position| (None, position))));
                    next += count;
                }
                Happened::Gone(mut seqs) => {
                    seqs.retain(|seq| expected.remove(seq).is_some());
                    log.write(|batch| batch.gone(A, &mut seqs.into_iter().map(Seq).collect::<Vec<_>>()));
                }
                Happened::Returned(seq, failed) => {
                    let Some((seen, _)) = expected.get_mut(&seq) else { continue };
                    *seen = Some(failed);
                    log.write(|batch| batch.returned(A, &mut [(Seq(seq), failed)]));
                }
                Happened::Interrupted(below) => {
                    let reach = Reach { below: Seq(below.max(delivered)), delivered: Seq(delivered) };
                    log.write(|batch| batch.horizon(A, Seq(next), &[reach]));
                    log.write(Batch::interrupted);
                    delivered = delivered.max(below.min(next));
                    for (_, (seen, _)) in expected.range_mut(..below.min(next)) {
                        seen.get_or_insert(0);
                    }
                }
                Happened::Moved(seq) => {
                    let Some((seen, position)) = expected.get_mut(&seq) else { continue };
                    let (failed, redelivered) = (seen.unwrap_or(0), seen.is_some());
                    moved(&mut log, &Moved { queue: A, seq: Seq(seq), arrived_ms: 5, failed, redelivered }, "");
                    *position = super::tests::position(log.records.len());
                }
            }
        }
        let mut recovered = log.replay().finish(Position::default(), true);
        let stubs = recovered.queues.remove(&A).unwrap_or_default().into_stubs().flatten();
        let found: Vec<_> = stubs
            .map(|stub| (stub.seq.0, (stub.redelivered.then_some(stub.failed), stub.place.position())))
            .collect();
        prop_assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
    }
}

#[test]
fn a_message_that_nobody_took_does_not_keep_those_behind_it() {
    let mut log = Log::default();
    let late = log.message("late", 1);
    for seq in 0..100 {
        let message = log.message("taken", 1);
        log.write(|batch| batch.enqueue(A, Seq(seq), 5, &[message]));
    }
    assert_eq!(log.replay().messages_held(), 1);
    assert!(log.replay().messages_kept() < 10);
    log.write(|batch| batch.enqueue(A, Seq(100), 5, &[late]));
    assert_eq!(log.queue(A).last(), Some(&("late".to_owned(), None)));
}

#[test]
fn an_enqueue_of_a_reclaimed_message_is_settled_and_one_of_a_missing_message_is_damage() {
    let mut log = Log::default();
    log.message("first", 1);
    log.write(|batch| batch.enqueue(A, Seq(0), 5, &[Position(8)]));
    assert_eq!(log.queue(A), [], "it lies before the journal's first record");

    let mut replay = log.replay();
    let mut batch = Batch::default();
    batch.enqueue(A, Seq(1), 5, &[Position(100)]);
    let record = Record { position: position(9), kind: kind::ENQUEUE, payload: &batch.bytes };
    assert!(replay.apply(&record).is_err());
}

#[test]
fn definitions_before_the_checkpoint_are_not_replayed() {
    let mut log = Log::default();
    log.write(|batch| batch.definition(b"old"));
    log.write(|batch| batch.definition(b"new"));
    let recovered = log.replay().finish(position(2), true);
    assert_eq!(recovered.definitions, [b"new"]);
}

#[test]
fn a_record_of_an_unknown_kind_is_refused() {
    let record = Record { position: position(1), kind: 77, payload: &[] };
    assert!(Replay::new(Arc::new(Pins::new(1)), 0).apply(&record).is_err());
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// The bytes on disk. A change here needs a new kind of record, or a new version of the format.
#[test]
fn records_have_the_bytes_that_they_always_had() {
    let key = |key: &str| RoutingKey::new(key).unwrap();
    let death = Death {
        queue: QueueName::new("q").unwrap(),
        reason: DeathReason::Rejected,
        count: 1,
        first_at_ms: 3,
        exchange: ExchangeName::default(),
        routing_keys: vec![key("k")],
        original_ttl_ms: None,
        note: None,
    };
    let names = Names { exchange: ExchangeName::new("logs").unwrap(), routing_key: key("a.b") };
    let deaths = Some(DeathHistory::record(None, death));
    let head = Head {
        names: names.into(),
        rare: Rare { cc: vec![key("c")], bcc: vec![key("d")], deaths }.unless_empty(),
        persistent: true,
        priority: 4,
        ttl_ms: Some(1000),
        published_at_ms: 2,
        properties_bytes: 2,
        ..Head::default()
    };
    let message = Message::new(head, b"pp");
    let mut encoded = Vec::new();
    record::encode_message_head(&message, 2, &mut encoded);
    let head = Head { properties_format: PropertiesFormat::Amqp, persistent: true, ..Head::default() };
    let amqp = Message::new(head, &[]);
    let mut amqp_head = Vec::new();
    record::encode_message_head(&amqp, 1, &mut amqp_head);
    let mut batch = Batch::default();
    batch.enqueue(A, Seq(9), 5, &[Position(64), Position(320), Position(128)]);
    batch.gone(A, &mut [Seq(3), Seq(1), Seq(2), Seq(300)]);
    batch.returned(A, &mut [(Seq(5), 1), (Seq(200), 2)]);
    batch.declined(&[Position(64), Position(192)]);
    batch.horizon(
        A,
        Seq(300),
        &[Reach { below: Seq(1324), delivered: Seq(300) }, Reach { below: Seq(7), delivered: Seq(0) }],
    );
    batch.interrupted();
    let moved = Moved { queue: A, seq: Seq(9), arrived_ms: 5, failed: 2, redelivered: true };
    batch.add(kind::MOVED, |out| record::encode_moved(&moved, out));
    let golden =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/store/tests/records.hex")).unwrap();
    let kinds =
        batch.records.iter().map(|(kind, length)| format!("{kind}:{length}")).collect::<Vec<_>>().join(" ");
    let (messages, batch) = ([hex(&encoded), hex(&amqp_head)], hex(&batch.bytes));
    let now = format!("message {}\namqp {}\nbatch {kinds}\n{batch}\n", messages[0], messages[1]);
    assert_eq!(now, golden);
    let mut payload = encoded.clone();
    payload.extend_from_slice(b"pp");
    assert_eq!(record::decode_message(&payload).unwrap().deaths(), message.deaths());
}
