//! A queue while memory is short.

use super::*;
use crate::store::{Shortage, Stubs};

/// A queue of durable messages whose bodies are their seqs.
fn paged(messages: u64) -> Rig {
    let mut rig = rig(&[]);
    let pins = Pins::new(1 << 20);
    for seq in 0..messages {
        let place = Some(pins.pin(Position(seq * 8)));
        rig.publish_message(message(&seq.to_string(), START).with(|head| head.place = place)).unwrap();
    }
    run_short(&mut rig);
    rig
}

/// Lets memory be short until the queue has let go of all that it can.
fn run_short(rig: &mut Rig) {
    while rig.state.short_of_memory(Shortage::Severe) {}
}

#[test]
fn a_queue_lets_go_of_its_last_messages_first_and_of_a_few_at_a_time() {
    let mut rig = paged(0);
    let pins = Pins::new(1 << 20);
    rig.state.short_of_memory(Shortage::None);
    for seq in 0..20u64 {
        let place = Some(pins.pin(Position(seq * 8)));
        rig.publish_message(message(&seq.to_string(), START).with(|head| head.place = place)).unwrap();
    }
    let mut before = rig.state.journaled_bytes();
    let weight = effects::weight(&message("10", START)) as u64;
    for _ in 0..4 {
        rig.state.short_of_memory(Shortage::Severe);
        let freed = before - rig.state.journaled_bytes();
        assert!(freed > 0 && freed <= 4 * weight, "{freed} bytes");
        before -= freed;
    }
    rig.consumer(Credit::Unsettled(5));
    assert_eq!(rig.bodies(), "0 1 2 3 4", "what is next is still there");
}

#[test]
fn messages_that_are_nowhere_else_do_not_keep_others_in_memory() {
    let mut rig = paged(0);
    let pins = Pins::new(1 << 20);
    for seq in 0..200u64 {
        let place = (seq % 50 == 7).then(|| pins.pin(Position(seq * 8)));
        rig.publish_message(message(&seq.to_string(), START).with(|head| head.place = place)).unwrap();
    }
    run_short(&mut rig);
    assert_eq!(rig.state.journaled_bytes(), 0);
    rig.consumer(Credit::Unlimited);
    rig.read();
    let all: Vec<String> = (0..200).map(|seq| seq.to_string()).collect();
    assert_eq!(rig.bodies(), all.join(" "));
}

#[test]
fn a_queue_that_nobody_consumes_from_keeps_no_message_in_memory_while_it_is_short() {
    let rig = paged(10);
    assert_eq!(rig.state.loaded_bytes(), 0);
    assert_eq!(rig.counts(), (10, 0));
    assert_eq!(rig.state.ready_bytes(), 10);
}

#[test]
fn a_message_that_is_nowhere_else_stays_in_memory_and_keeps_its_turn() {
    let mut rig = paged(0);
    let pins = Pins::new(1 << 20);
    for seq in 0..9u64 {
        let place = (seq != 4).then(|| pins.pin(Position(seq * 8)));
        rig.publish_message(message(&seq.to_string(), START).with(|head| head.place = place)).unwrap();
    }
    run_short(&mut rig);
    assert_eq!(rig.state.loaded_bytes(), effects::weight(&message("4", START)) as u64);
    rig.consumer(Credit::Unlimited);
    rig.read();
    assert_eq!(rig.bodies(), "0 1 2 3 4 5 6 7 8");
}

#[test]
fn consumers_wait_until_the_next_message_is_read_and_then_get_all_in_order() {
    let mut rig = paged(10);
    rig.consumer(Credit::Unlimited);
    assert_eq!(rig.bodies(), "");
    assert!(rig.state.asks_for_reading());
    assert!(!rig.state.asks_for_reading(), "it asks once");
    let seqs = rig.state.wanted().unwrap().seqs;
    assert!(rig.state.wanted().is_none(), "one read at a time");
    let (last, others) = seqs.split_last().unwrap();
    for seq in others {
        rig.state.load(*seq, message(&seq.0.to_string(), START));
    }
    assert_eq!(rig.bodies(), "0 1", "what is read is delivered, what is not is waited for");
    rig.state.load(*last, message(&last.0.to_string(), START));
    rig.state.end_read();
    rig.read();
    assert_eq!(rig.bodies(), "2 3 4 5 6 7 8 9");
}

#[test]
fn nobody_is_asked_to_read_for_a_queue_without_consumers() {
    let mut rig = paged(10);
    assert!(!rig.state.asks_for_reading());
    assert!(rig.state.wanted().is_none());
}

#[test]
fn what_left_the_queue_while_it_was_read_does_not_come_back() {
    let mut rig = paged(5);
    rig.consumer(Credit::Unlimited);
    let seqs = rig.state.wanted().unwrap().seqs;
    assert_eq!(rig.state.purge(&mut rig.fx), 5);
    for seq in seqs {
        rig.state.load(seq, message("late", START));
    }
    rig.state.end_read();
    assert_eq!((rig.bodies(), rig.counts(), rig.state.loaded_bytes()), (String::new(), (0, 0), 0));
}

#[test]
fn what_comes_back_from_a_consumer_is_read_again_and_keeps_its_place() {
    let mut rig = paged(6);
    let holder = rig.consumer(Credit::Unlimited);
    rig.read();
    assert_eq!(rig.bodies(), "0 1 2 3 4 5");
    assert_eq!(rig.state.loaded_bytes(), 0, "what is with a consumer can be read again as well");
    rig.settle(holder, &[(2, 3), (5, 5)], &Verb::Requeue).unwrap();
    rig.read();
    assert_eq!(rig.bodies(), "1 2 4");
}

#[test]
fn the_next_message_is_read_first_though_another_one_came_back_out_of_order() {
    let mut rig = paged(4);
    let holder = rig.consumer(Credit::Unsettled(3));
    rig.read();
    assert_eq!(rig.bodies(), "0 1 2");
    rig.state.cancel(holder, START, &mut rig.fx);
    for tag in [1, 2] {
        rig.settle(holder, &[(tag, tag)], &Verb::Requeue).unwrap();
    }
    run_short(&mut rig);
    assert_eq!(rig.state.wanted_by_get().seqs, [Seq(0)]);
}

#[test]
fn a_message_that_expires_unread_is_dead_lettered_from_where_it_is() {
    let mut rig = rig(&[("x-dead-letter-exchange", "dlx".into()), ("x-message-ttl", 10.into())]);
    rig.state.restore([stub(3, START), stub(4, START)].into_iter().map(Stubs::One), START);
    rig.tick_at(START + 10);
    assert_eq!(rig.dead(), dead(&[("at 24", DeathReason::Expired), ("at 32", DeathReason::Expired)]));
}
