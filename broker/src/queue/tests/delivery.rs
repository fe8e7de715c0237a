use super::*;

/// How many deliveries each holder got.
fn shares(deliveries: &[Seen], holders: &[HolderId]) -> Vec<usize> {
    holders.iter().map(|holder| deliveries.iter().filter(|seen| seen.0 == *holder).count()).collect()
}

#[test]
fn messages_are_delivered_in_the_order_of_their_arrival() {
    let mut rig = rig(&[]);
    rig.publish_all("a b");
    let holder = rig.consumer(Credit::Unlimited);
    rig.publish_all("c");
    let expected = [(holder, 1, "a".to_owned()), (holder, 2, "b".to_owned()), (holder, 3, "c".to_owned())];
    assert_eq!(rig.dispatch(), expected);
}

#[test]
fn prefetch_bounds_what_is_unsettled() {
    let mut rig = rig(&[]);
    let holder = rig.consumer(Credit::prefetch(2));
    rig.publish_all("a b c d e");
    assert_eq!(rig.bodies(), "a b");
    assert_eq!(rig.bodies(), "");
    rig.settle(holder, &[(2, 2)], &Verb::Ack).unwrap();
    assert_eq!(rig.bodies(), "c");
    // What comes back makes room, too.
    rig.settle(holder, &[(1, 1)], &Verb::Release).unwrap();
    assert_eq!(rig.bodies(), "a");
    assert_eq!(rig.state.unacked_of(holder), 2);
}

#[test]
fn a_consumer_may_get_beyond_its_prefetch_and_is_served_again_when_it_has_settled() {
    let mut rig = rig(&[]);
    let holder = rig.consumer(Credit::prefetch(1));
    rig.publish_all("a b c");
    rig.get(holder).unwrap();
    assert_eq!(rig.bodies(), "");
    rig.get(holder).unwrap();
    rig.settle(holder, &[(1, 1)], &Verb::Ack).unwrap();
    assert_eq!(rig.bodies(), "");
    rig.settle(holder, &[(2, 2)], &Verb::Ack).unwrap();
    assert_eq!(rig.bodies(), "c");
}

#[test]
fn counted_credit_is_used_up_by_deliveries_and_not_given_back_by_settles() {
    for no_ack in [false, true] {
        let mut rig = rig(&[]);
        let wishes = ConsumerSpec { no_ack, ..spec(Credit::Counted(2)) };
        let holder = rig.state.subscribe(wishes).unwrap();
        rig.publish_all("a b c d e");
        assert_eq!(rig.bodies(), "a b");
        if no_ack {
            assert_eq!((rig.gone(), rig.counts()), (vec![0, 1], (3, 0)));
        } else {
            rig.settle(holder, &[(1, 2)], &Verb::Ack).unwrap();
        }
        assert_eq!(rig.bodies(), "");
        rig.state.add_credit(holder, 2);
        assert_eq!(rig.bodies(), "c d");
    }
}

#[test]
fn without_acknowledgement_a_delivery_is_gone_at_once_and_prefetch_means_nothing() {
    let mut rig = rig(&[]);
    let holder = rig.state.subscribe(ConsumerSpec { no_ack: true, ..spec(Credit::prefetch(1)) }).unwrap();
    rig.publish_all("a b c");
    assert_eq!((rig.bodies(), rig.gone(), rig.counts()), ("a b c".to_owned(), vec![0, 1, 2], (0, 0)));
    assert_eq!(rig.settle(holder, &[(1, 1)], &Verb::Ack), Err(UnknownTag { tag: 1 }));
}

#[test]
fn few_messages_are_shared_one_by_one_and_many_in_runs() {
    let mut rig = rig(&[]);
    let holders = [(); 3].map(|()| rig.consumer(Credit::Unlimited));
    rig.publish_all("a b c");
    let few = rig.dispatch();
    assert_eq!(shares(&few, &holders), [1, 1, 1]);
    for _ in 0..300 {
        rig.publish_all("x");
    }
    let many = rig.dispatch();
    let first_run = many.iter().take_while(|seen| seen.0 == many[0].0).count();
    assert_eq!(first_run, 16);
    assert!(shares(&many, &holders).iter().all(|share| (84..=116).contains(share)));
}

#[test]
fn one_message_at_a_time_goes_round() {
    let mut rig = rig(&[]);
    let holders = [(); 3].map(|()| rig.consumer(Credit::prefetch(1)));
    let mut order = Vec::new();
    for _ in 0..6 {
        rig.publish_all("x");
        let (holder, tag, _) = rig.dispatch().remove(0);
        rig.settle(holder, &[(tag, tag)], &Verb::Ack).unwrap();
        order.push(holder);
    }
    assert_eq!(order, [holders, holders].concat());
}

#[test]
fn a_lower_consumer_priority_gets_only_what_the_higher_cannot_take() {
    let mut rig = rig(&[]);
    let prioritized = |priority| ConsumerSpec { priority, ..spec(Credit::prefetch(2)) };
    let [low, high, normal] = [-5, 5, 0].map(|priority| rig.state.subscribe(prioritized(priority)).unwrap());
    rig.publish_all("a b c d e");
    let order: Vec<_> = rig.dispatch().into_iter().map(|seen| seen.0).collect();
    assert_eq!(order, [high, high, normal, normal, low]);
    rig.settle(high, &[(1, 1)], &Verb::Ack).unwrap();
    rig.publish_all("f");
    assert_eq!(rig.dispatch()[0].0, high);
}

#[test]
fn a_full_outlet_is_passed_over_until_it_has_drained_to_half() {
    let mut rig = rig(&[]);
    let outlet = Arc::new(Outlet::new(1000));
    let slow = ConsumerSpec { outlet: Arc::clone(&outlet), priority: 1, ..spec(Credit::Unlimited) };
    let slow = rig.state.subscribe(slow).unwrap();
    let other = rig.consumer(Credit::Unlimited);
    let body = "x".repeat(300);
    for _ in 0..6 {
        rig.publish_all(&body);
    }
    rig.state.dispatch(START, &mut rig.fx);
    let weight = rig.fx.deliveries[0].weight();
    let seen: Vec<_> = rig.fx.deliveries.drain(..).map(|delivery| delivery.holder).collect();
    assert_eq!(seen, [slow, slow, slow, other, other, other]);
    assert_eq!((outlet.waiting(), outlet.has_room()), (3 * weight, false));

    assert!(!outlet.sub(weight), "it is still more than half full");
    rig.publish_all("a");
    assert_eq!(rig.dispatch()[0].0, other);
    assert!(outlet.sub(weight), "it has drained, and somebody waits for that");
    assert!(!outlet.sub(weight), "once is enough");
    rig.state.resume();
    rig.publish_all("b");
    assert_eq!(rig.dispatch()[0].0, slow);
}

#[test]
fn a_starved_consumer_that_leaves_is_not_waited_for() {
    let mut rig = rig(&[]);
    let outlet = Arc::new(Outlet::new(1));
    outlet.add(1);
    let starved = rig.state.subscribe(ConsumerSpec { outlet, ..spec(Credit::Unlimited) }).unwrap();
    rig.publish_all("a");
    assert_eq!((rig.bodies(), rig.state.starved.len()), (String::new(), 1));
    rig.state.release(starved, START, &mut rig.fx);
    assert_eq!(rig.state.starved.len(), 0);
}

#[test]
fn an_outlet_that_nobody_starves_at_calls_nobody() {
    let outlet = Outlet::new(100);
    outlet.add(100);
    assert!(!outlet.has_room());
    assert!(!outlet.sub(100));
    // Taking off too much must not wrap around to an outlet that is full for ever.
    assert!(!outlet.sub(1));
    assert!(outlet.has_room());
}

#[test]
fn messages_of_higher_priority_come_first_and_those_above_the_maximum_count_as_the_maximum() {
    let cases: [(Option<u8>, &str); 3] =
        [(None, "a b c d e f"), (Some(10), "d e b c f a"), (Some(255), "d e b c f a")];
    for (max, order) in cases {
        let given: Vec<_> =
            max.map(|max| ("x-max-priority", Value::from(u32::from(max)))).into_iter().collect();
        let mut rig = rig(&given);
        let top = max.unwrap_or(10);
        for (body, priority) in [("a", 0), ("b", 5), ("c", 5), ("d", top), ("e", 255), ("f", 1)] {
            rig.publish_with_priority(body, priority);
        }
        rig.consumer(Credit::Unlimited);
        assert_eq!(rig.bodies(), order, "{max:?}");
    }
}

#[test]
fn a_requeued_message_keeps_its_priority_and_place() {
    let mut rig = rig(&[("x-max-priority", 9.into())]);
    let holder = rig.consumer(Credit::prefetch(3));
    for (body, priority) in [("a", 1), ("b", 9), ("c", 1), ("d", 9), ("e", 1)] {
        rig.publish_with_priority(body, priority);
    }
    assert_eq!(rig.bodies(), "b d a");
    rig.publish_with_priority("f", 9);
    rig.settle(holder, &[(1, 3)], &Verb::Requeue).unwrap();
    assert_eq!(rig.bodies(), "b d f");
    rig.settle(holder, &[(4, 6)], &Verb::Ack).unwrap();
    assert_eq!(rig.bodies(), "a c e");
}

#[test]
fn a_single_active_consumer_is_followed_in_the_order_of_arrival() {
    let mut rig = rig(&[("x-single-active-consumer", true.into())]);
    let prioritized = |priority| ConsumerSpec { priority, ..spec(Credit::prefetch(1)) };
    let [first, second, third] =
        [0, 1, 9].map(|priority| rig.state.subscribe(prioritized(priority)).unwrap());
    rig.publish_all("a b c d");
    // Neither a higher priority nor a lack of credit makes another one active.
    assert_eq!(rig.dispatch(), [(first, 1, "a".to_owned())]);
    assert_eq!(rig.state.active_consumer(), Some(first));
    rig.state.cancel(second, START, &mut rig.fx);
    rig.state.cancel(first, START, &mut rig.fx);
    assert_eq!(
        (rig.state.active_consumer(), rig.dispatch()),
        (Some(third), vec![(third, 1, "b".to_owned())])
    );
    let fourth = rig.consumer(Credit::Unlimited);
    rig.state.release(third, START, &mut rig.fx);
    assert_eq!((rig.state.active_consumer(), rig.bodies()), (Some(fourth), "b c d".to_owned()));
    rig.state.release(fourth, START, &mut rig.fx);
    assert_eq!(rig.state.active_consumer(), None);
}

#[test]
fn basic_get_works_beside_a_single_active_consumer() {
    let mut rig = rig(&[("x-single-active-consumer", true.into())]);
    rig.consumer(Credit::prefetch(1));
    rig.publish_all("a b c");
    assert_eq!(rig.bodies(), "a");
    let passive = rig.state.open_passive();
    let got = rig.get(passive).unwrap();
    assert_eq!((text(&got.delivery.message).as_str(), got.delivery.tag, got.ready_left), ("b", 1, 1));
    assert_eq!(rig.state.consumers(), 1);
}

#[test]
fn exclusive_consumers_tolerate_nobody() {
    use SubscribeError::{AlreadyUsed, ExclusiveOnSingleActive, ExclusivelyUsed};
    let exclusive = || ConsumerSpec { exclusive: true, ..spec(Credit::Unlimited) };
    let mut rig = rig(&[]);
    let shared = rig.consumer(Credit::Unlimited);
    assert_eq!(rig.state.subscribe(exclusive()), Err(AlreadyUsed));
    rig.state.cancel(shared, START, &mut rig.fx);
    let only = rig.state.subscribe(exclusive()).unwrap();
    assert_eq!(rig.state.subscribe(exclusive()), Err(ExclusivelyUsed));
    assert_eq!(rig.state.subscribe(spec(Credit::Unlimited)), Err(ExclusivelyUsed));
    rig.state.release(only, START, &mut rig.fx);
    rig.consumer(Credit::Unlimited);

    let mut single = super::rig(&[("x-single-active-consumer", true.into())]);
    assert_eq!(single.state.subscribe(exclusive()), Err(ExclusiveOnSingleActive));
}

#[test]
fn a_cancelled_passive_holder_gets_nothing_more() {
    let mut rig = rig(&[]);
    rig.publish_all("a b");
    let passive = rig.state.open_passive();
    rig.get(passive).unwrap();
    rig.state.cancel(passive, START, &mut rig.fx);
    assert!(rig.get(passive).is_none());
    rig.settle(passive, &[(1, 1)], &Verb::Ack).unwrap();
    assert!(rig.get(passive).is_none());
    assert_eq!(rig.counts(), (1, 0));
}

#[test]
fn a_single_active_consumer_that_leaves_hands_over_before_it_has_settled() {
    let mut rig = rig(&[("x-single-active-consumer", true.into())]);
    let first = rig.consumer(Credit::Unsettled(2));
    let second = rig.consumer(Credit::Unsettled(1));
    rig.publish_all("a b c d");
    assert_eq!(rig.bodies(), "a b");
    rig.state.cancel(first, rig.now, &mut rig.fx);
    assert_eq!(rig.dispatch(), [(second, 1, "c".to_owned())], "a client that never settles stops nobody");
    rig.settle(first, &[(1, 2)], &Verb::Requeue).unwrap();
    rig.settle(second, &[(1, 1)], &Verb::Ack).unwrap();
    assert_eq!(rig.dispatch(), [(second, 2, "a".to_owned())], "what came back is in its old place");
}

#[test]
fn a_publisher_is_asked_to_give_way_only_when_very_much_waits_for_nothing_but_room() {
    let mut rig = rig(&[]);
    let outlet = Arc::new(Outlet::new(1));
    let consumer =
        rig.state.subscribe(ConsumerSpec { outlet: Arc::clone(&outlet), ..spec(Credit::Unlimited) }).unwrap();
    rig.publish_all("first second");
    assert_eq!(rig.bodies(), "first");
    assert_eq!(rig.state.waits_for_room_of(), None, "a little may wait");
    rig.publish(&"x".repeat(2 << 20)).unwrap();
    rig.dispatch();
    assert_eq!(rig.state.waits_for_room_of(), Some(consumer.slot()));
    assert!(outlet.sub(outlet.waiting()));
    rig.state.resume();
    assert_eq!(rig.bodies(), "second");
    rig.state.cancel(consumer, START, &mut rig.fx);
    assert_eq!(rig.state.waits_for_room_of(), None, "nobody is left to give way to");
}
