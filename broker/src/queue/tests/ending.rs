use leveret_protocol::DeathReason::{Expired, Maxlen};

use super::*;
use crate::store::Stubs;

/// The argument that makes a queue dead-letter.
fn dlx() -> (&'static str, Value) {
    ("x-dead-letter-exchange", "dlx".into())
}

#[test]
fn the_shorter_time_to_live_counts() {
    let cases: [(Option<i32>, Option<u64>, Option<u64>); 5] = [
        (None, None, None),
        (Some(100), None, Some(100)),
        (None, Some(50), Some(50)),
        (Some(100), Some(50), Some(50)),
        (Some(30), Some(50), Some(30)),
    ];
    for (queue, own, expected) in cases {
        let mut given: Vec<_> = queue.map(|ttl| ("x-message-ttl", ttl.into())).into_iter().collect();
        given.push(dlx());
        let mut rig = rig(&given);
        rig.publish_message(message("a", START).with(|head| head.ttl_ms = own)).unwrap();
        assert_eq!(rig.state.next_deadline_ms(), expected.map(|ttl| START + ttl));
        let Some(ttl) = expected else { continue };
        rig.tick_at(START + ttl - 1);
        assert_eq!((rig.dead(), rig.counts()), (vec![], (1, 0)));
        rig.tick_at(START + ttl);
        assert_eq!((rig.dead(), rig.counts()), (dead(&[("a", Expired)]), (0, 0)));
    }
}

#[test]
fn the_queue_counts_from_the_arrival_and_the_message_from_its_publish() {
    let mut rig = rig(&[("x-message-ttl", 100.into())]);
    rig.publish_message(message("dead-lettered here", START - 90)).unwrap();
    assert_eq!(rig.state.next_deadline_ms(), Some(START + 100));
    rig.publish_message(message("b", START - 90).with(|head| head.ttl_ms = Some(95))).unwrap();
    assert_eq!(rig.state.purge(&mut rig.fx), 2);
    rig.publish_message(message("c", START - 90).with(|head| head.ttl_ms = Some(95))).unwrap();
    assert_eq!(rig.state.next_deadline_ms(), Some(START + 5));
}

#[test]
fn an_expired_message_is_never_delivered() {
    let mut rig = rig(&[dlx()]);
    rig.publish_with_ttl("a", 10);
    rig.publish_all("b");
    rig.publish_with_ttl("c", 10);
    rig.publish_with_ttl("d", 11);
    rig.now += 10;
    rig.consumer(Credit::Unlimited);
    assert_eq!((rig.bodies(), rig.dead()), ("b d".to_owned(), dead(&[("a", Expired), ("c", Expired)])));
    rig.publish_with_ttl("e", 5);
    let passive = rig.state.open_passive();
    rig.now += 5;
    assert!(rig.get(passive).is_none());
    assert_eq!(rig.dead(), dead(&[("e", Expired)]));
}

#[test]
fn messages_expire_at_the_head_of_their_priority_only() {
    let mut rig = rig(&[dlx(), ("x-max-priority", 5.into())]);
    rig.publish_all("low");
    rig.publish_with_ttl("behind", 10);
    let high = Head { priority: 5, ttl_ms: Some(20), published_at_ms: START, ..Head::default() };
    rig.publish_message(Message::new(high, b"high")).unwrap();
    assert_eq!(rig.state.next_deadline_ms(), Some(START + 20));
    rig.tick_at(START + 100);
    assert_eq!((rig.dead(), rig.counts()), (dead(&[("high", Expired)]), (2, 0)));
    assert_eq!(rig.state.next_deadline_ms(), None);
    rig.consumer(Credit::prefetch(1));
    assert_eq!((rig.bodies(), rig.dead()), ("low".to_owned(), dead(&[("behind", Expired)])));
}

#[test]
fn a_requeue_keeps_the_deadline() {
    let mut rig = rig(&[dlx(), ("x-message-ttl", 100.into())]);
    let holder = rig.consumer(Credit::Unlimited);
    rig.publish_all("a");
    rig.dispatch();
    // What is handed out does not expire.
    rig.tick_at(START + 150);
    assert_eq!((rig.dead(), rig.counts()), (vec![], (0, 1)));
    rig.settle(holder, &[(1, 1)], &Verb::Requeue).unwrap();
    assert_eq!((rig.bodies(), rig.dead()), (String::new(), dead(&[("a", Expired)])));
}

#[test]
fn ttl_zero_is_delivered_at_once_or_expires() {
    let mut rig = rig(&[dlx()]);
    rig.publish_with_ttl("nobody", 0);
    assert_eq!((rig.dead(), rig.counts()), (dead(&[("nobody", Expired)]), (0, 0)));
    rig.consumer(Credit::prefetch(2));
    rig.publish_all("first");
    rig.publish_with_ttl("taken", 0);
    rig.publish_with_ttl("no credit", 0);
    assert_eq!((rig.bodies(), rig.dead()), ("first taken".to_owned(), dead(&[("no credit", Expired)])));
}

#[test]
fn a_tick_lets_a_bounded_number_expire_and_stays_due() {
    let mut rig = rig(&[("x-message-ttl", 1.into())]);
    for _ in 0..5000 {
        rig.publish_all("x");
    }
    rig.tick_at(START + 1);
    assert_eq!((rig.gone().len(), rig.state.next_deadline_ms()), (4096, Some(START + 1)));
    rig.tick_at(START + 1);
    assert_eq!((rig.gone().len(), rig.state.next_deadline_ms()), (904, None));
}

#[test]
fn max_length_drops_the_oldest_and_counts_ready_messages_only() {
    let mut rig = rig(&[dlx(), ("x-max-length", 2.into())]);
    let holder = rig.consumer(Credit::prefetch(2));
    rig.publish_all("a b c d");
    assert_eq!((rig.bodies(), rig.dead(), rig.counts()), ("a b".to_owned(), vec![], (2, 2)));
    rig.publish_all("e");
    assert_eq!((rig.dead(), rig.counts()), (dead(&[("c", Maxlen)]), (2, 2)));
    // What comes back counts again, and is the oldest now.
    rig.state.cancel(holder, START, &mut rig.fx);
    rig.settle(holder, &[(2, 2)], &Verb::Requeue).unwrap();
    assert_eq!((rig.bodies(), rig.dead()), (String::new(), dead(&[("b", Maxlen)])));
}

#[test]
fn both_length_limits_apply_and_bytes_are_those_of_the_bodies() {
    let mut rig = rig(&[("x-max-length", 3.into()), ("x-max-length-bytes", 10.into())]);
    let head = Head { properties_bytes: 100, ..Head::default() };
    rig.publish_message(Message::new(head, &[0; 105])).unwrap();
    rig.publish_all("12345");
    assert_eq!((rig.state.ready_bytes(), rig.gone()), (10, vec![]));
    rig.publish_all("1");
    assert_eq!((rig.state.ready_bytes(), rig.gone()), (6, vec![0]));
    rig.publish_all("2 3");
    assert_eq!((rig.state.ready_bytes(), rig.gone()), (3, vec![1]));
    // A message that can never fit empties the queue, and itself with it.
    rig.publish_all("12345678901");
    assert_eq!((rig.counts(), rig.gone()), ((0, 0), vec![2, 3, 4, 5]));
}

#[test]
fn a_full_priority_queue_drops_the_oldest_of_the_lowest_priority() {
    let mut rig = rig(&[dlx(), ("x-max-length", 2.into()), ("x-max-priority", 9.into())]);
    for (body, priority) in [("a", 9), ("b", 1), ("c", 1), ("d", 9), ("e", 0)] {
        rig.publish_with_priority(body, priority);
    }
    assert_eq!(rig.dead(), dead(&[("b", Maxlen), ("c", Maxlen), ("e", Maxlen)]));
}

#[test]
fn a_full_queue_refuses_if_it_is_asked_to() {
    for (overflow, died) in [("reject-publish", false), ("reject-publish-dlx", true)] {
        let mut rig = rig(&[dlx(), ("x-max-length", 1.into()), ("x-overflow", overflow.into())]);
        rig.publish_all("a");
        assert_eq!(rig.publish("b"), Err(Refused::Full { ready: 1, bytes: 1 }));
        let seqs: Vec<_> = rig.fx.dead.iter().map(|dead| dead.seq).collect();
        assert_eq!(seqs, if died { vec![None] } else { vec![] });
        assert_eq!(rig.dead(), dead(if died { &[("b", Maxlen)] } else { &[] }));
        let holder = rig.consumer(Credit::prefetch(1));
        assert_eq!(rig.bodies(), "a");
        rig.publish_all("c");
        // What comes back is not refused, and is not displaced either.
        rig.settle(holder, &[(1, 1)], &Verb::Requeue).unwrap();
        assert_eq!((rig.counts(), rig.dead()), ((2, 0), vec![]));
    }
}

#[test]
fn a_message_that_a_consumer_can_take_is_neither_refused_nor_displaces_another() {
    for overflow in ["reject-publish", "reject-publish-dlx", "drop-head"] {
        for max in [0, 1] {
            let mut rig = rig(&[dlx(), ("x-max-length", max.into()), ("x-overflow", overflow.into())]);
            rig.consumer(Credit::prefetch(3));
            // All before the dispatch at the end of the batch.
            rig.publish_all("a b c");
            assert_eq!((rig.bodies(), rig.dead()), ("a b c".to_owned(), vec![]), "{overflow} {max}");
        }
    }
}

#[test]
fn what_has_expired_makes_room() {
    let limited = ("x-max-length", Value::from(2));
    let mut rig =
        rig(&[dlx(), limited, ("x-overflow", "reject-publish".into()), ("x-max-priority", 1.into())]);
    rig.publish_with_ttl("a", 10);
    rig.publish_with_priority("live", 1);
    assert!(rig.publish("b").is_err());
    rig.now += 10;
    rig.publish_all("c");
    assert_eq!(rig.dead(), dead(&[("a", Expired)]));
}

#[test]
fn without_a_dead_letter_exchange_what_is_given_up_is_gone() {
    let mut rig = rig(&[("x-max-length", 1.into()), ("x-message-ttl", 10.into())]);
    rig.publish_all("a b");
    rig.tick_at(START + 10);
    assert_eq!((rig.gone(), rig.dead()), (vec![0, 1], vec![]));
}

#[test]
fn purge_removes_ready_messages_only_and_dead_letters_none() {
    let mut rig = rig(&[dlx()]);
    rig.consumer(Credit::prefetch(1));
    rig.publish_all("a b c");
    rig.dispatch();
    assert_eq!(rig.state.purge(&mut rig.fx), 2);
    assert_eq!((rig.gone(), rig.dead(), rig.counts()), (vec![1, 2], vec![], (0, 1)));
    assert_eq!((rig.state.ready_bytes(), rig.state.purge(&mut rig.fx)), (0, 0));
}

#[test]
fn an_unused_queue_expires_and_publishes_are_no_use() {
    let mut rig = rig(&[("x-expires", 100.into())]);
    assert_eq!(rig.state.next_deadline_ms(), Some(START + 100));
    rig.now = START + 50;
    rig.publish_all("a");
    assert_eq!(rig.state.next_deadline_ms(), Some(START + 100));
    rig.state.touch(START + 60);
    assert_eq!(rig.state.next_deadline_ms(), Some(START + 160));
    let passive = rig.state.open_passive();
    rig.now = START + 70;
    rig.get(passive).unwrap();
    assert_eq!(rig.state.next_deadline_ms(), Some(START + 170));
    let consumer = rig.consumer(Credit::Unlimited);
    assert_eq!(rig.state.next_deadline_ms(), None);
    rig.tick_at(START + 1000);
    assert_eq!(rig.fx.delete, None);
    rig.state.cancel(consumer, START + 1000, &mut rig.fx);
    rig.tick_at(START + 1099);
    assert_eq!(rig.fx.delete, None);
    rig.tick_at(START + 1100);
    assert_eq!(rig.fx.delete, Some(DeleteReason::Expired));
}

#[test]
fn an_auto_delete_queue_goes_with_its_last_consumer_and_not_before_it_had_one() {
    let mut rig = rig_with(Settings::from_arguments(true, false, true, &Table::new()).unwrap());
    let passive = rig.state.open_passive();
    rig.state.release(passive, START, &mut rig.fx);
    rig.tick_at(START + 1000);
    let first = rig.consumer(Credit::Unlimited);
    let second = rig.consumer(Credit::Unlimited);
    rig.state.cancel(first, START, &mut rig.fx);
    assert_eq!((rig.fx.delete, rig.state.in_use()), (None, true));
    rig.state.release(second, START, &mut rig.fx);
    assert_eq!((rig.fx.delete, rig.state.in_use()), (Some(DeleteReason::AutoDelete), false));
}

#[test]
fn a_restart_keeps_order_counts_flags_and_deadlines() {
    let mut rig = rig(&[("x-message-ttl", 100.into())]);
    let restored = [3, 5, 7, 9].map(|seq| Stub {
        failed: u32::from(seq == 3),
        redelivered: seq < 6,
        ..stub(seq, START - 50)
    });
    rig.state.restore(restored.into_iter().map(Stubs::One), START);
    assert_eq!(rig.state.next_deadline_ms(), Some(START + 50));
    assert_eq!(rig.publish("new"), Ok(Seq(10)));
    rig.state.skip_to(Seq(5));
    assert_eq!(rig.publish("newer"), Ok(Seq(11)));
    rig.state.skip_to(Seq(20));
    assert_eq!(rig.publish("newest"), Ok(Seq(20)));
    rig.consumer(Credit::Unlimited);
    assert_eq!(rig.dispatch(), [], "nothing is in memory yet");
    rig.read();
    rig.state.dispatch(START, &mut rig.fx);
    let seen: Vec<_> = rig.fx.deliveries.iter().map(|d| (d.seq.0, d.delivery_count, d.redelivered)).collect();
    let old = [(3, 1, true), (5, 0, true), (7, 0, false), (9, 0, false)];
    assert_eq!(seen, [old.as_slice(), &[(10, 0, false), (11, 0, false), (20, 0, false)]].concat());
}

#[test]
fn a_clock_that_went_back_across_a_restart_prolongs_no_life() {
    let cases = [(START + 5_000, 100), (START, 100), (START - 40, 60), (START - 100, 0), (0, 0)];
    for (arrived_ms, left) in cases {
        let mut rig = rig(&[("x-message-ttl", 100.into())]);
        rig.state.restore([Stubs::One(stub(0, arrived_ms))].into_iter(), START);
        assert_eq!(rig.state.next_deadline_ms(), Some(START + left), "{arrived_ms}");
    }
}

#[test]
fn effects_are_empty_after_clear() {
    let mut rig = rig(&[dlx(), ("x-max-length", 1.into())]);
    rig.publish_all("a b");
    assert!(!rig.fx.is_empty());
    rig.fx.clear();
    assert!(rig.fx.is_empty());
}
