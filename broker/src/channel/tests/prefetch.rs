//! The prefetch that all consumers of a channel share.

use super::*;

/// Two queues with messages, and a consumer of one channel on each; together they may have `max` unsettled.
fn shared(max: u32) -> (World, Channel, [Arc<Inbox>; 2]) {
    let mut world = World::new();
    let (a, b) = (world.queue("a", &[]), world.queue("b", &[]));
    world.publish(&a, "a1 a2 a3 a4");
    world.publish(&b, "b1 b2 b3 b4");
    let mut channel = world.channel();
    channel.set_shared_prefetch(max, &mut world.work);
    let inboxes = [world.consume(&mut channel, 1, "a", 0), world.consume(&mut channel, 2, "b", 0)];
    (world, channel, inboxes)
}

#[test]
fn consumers_of_several_queues_share_one_limit_and_what_one_settles_goes_round() {
    let (mut world, mut channel, inboxes) = shared(1);
    let mut seen = Vec::new();
    for _ in 0..8 {
        let deliveries: Vec<_> = (1..)
            .zip(&inboxes)
            .flat_map(|(number, inbox)| {
                inbox.0.lock().drain(..).map(move |got| (number, got)).collect::<Vec<_>>()
            })
            .collect();
        let [(number, delivery)] = deliveries.as_slice() else { panic!("not one at a time: {deliveries:?}") };
        seen.push(text(&delivery.message));
        world.ack(&mut channel, *number, delivery.tag);
    }
    assert_eq!(seen, ["a1", "a2", "b1", "a3", "b2", "a4", "b3", "b4"]);
}

#[test]
fn a_requeue_and_a_cancel_give_shared_credit_back_with_what_is_settled() {
    let (mut world, mut channel, [a, b]) = shared(2);
    assert_eq!((a.bodies().as_str(), b.bodies().as_str()), ("a1 a2", ""));
    channel.cancel(1, &mut world.work).unwrap();
    assert_eq!(b.bodies(), "", "what it holds still counts");
    channel.settle(1, &[(0, 2)], &Verb::Requeue, &mut world.work).unwrap();
    assert_eq!(b.bodies(), "b1 b2");
}

#[test]
fn a_consumer_keeps_its_own_limit_beside_the_shared_one() {
    let (mut world, mut channel, [a, b]) = shared(3);
    assert_eq!((a.bodies().as_str(), b.bodies().as_str()), ("a1 a2 a3", ""));
    let c = world.consume(&mut channel, 3, "b", 1);
    channel.settle(1, &[(0, 3)], &Verb::Ack, &mut world.work).unwrap();
    channel.cancel(2, &mut world.work).unwrap();
    channel.cancel(1, &mut world.work).unwrap();
    channel.settle(2, &[(0, 0)], &Verb::Ack, &mut world.work).ok();
    b.bodies();
    assert_eq!(
        c.bodies().split_whitespace().count(),
        1,
        "its own limit is 1, and there is shared credit for 2 more"
    );
}

#[test]
fn a_limit_that_comes_later_counts_what_consumers_have_and_ends_when_it_is_taken_back() {
    let mut world = World::new();
    let (a, b) = (world.queue("a", &[]), world.queue("b", &[]));
    let mut channel = world.channel();
    let inboxes = [world.consume(&mut channel, 1, "a", 0), world.consume(&mut channel, 2, "b", 0)];
    world.publish(&a, "a1 a2 a3");
    assert_eq!(inboxes[0].bodies(), "a1 a2 a3");
    channel.set_shared_prefetch(2, &mut world.work);
    world.publish(&b, "b1 b2 b3 b4");
    world.ack(&mut channel, 1, 1);
    assert_eq!(inboxes[1].bodies(), "", "two are unsettled");
    world.ack(&mut channel, 1, 2);
    assert_eq!(inboxes[1].bodies(), "b1");
    channel.set_shared_prefetch(3, &mut world.work);
    assert_eq!(inboxes[1].bodies(), "b2", "a higher limit wakes who was passed over");
    channel.set_shared_prefetch(0, &mut world.work);
    assert_eq!(inboxes[1].bodies(), "b3 b4", "no limit, too");
}

#[test]
fn gets_and_deliveries_without_acknowledgement_do_not_count() {
    let (mut world, mut channel, [a, b]) = shared(5);
    assert_eq!((a.bodies().as_str(), b.bodies().as_str()), ("a1 a2 a3 a4", "b1"));
    let (c, d) = (world.queue("c", &[]), world.queue("d", &[]));
    world.publish(&c, "c1 c2 c3 c4");
    world.publish(&d, "d1");
    channel.get(4, &name("d"), false, &mut world.work).unwrap().unwrap();
    let c = world.consume_with(&mut channel, 3, "c", Credit::Unlimited, true);
    assert_eq!(c.bodies(), "c1 c2 c3 c4");
    world.ack(&mut channel, 4, 1);
    assert_eq!(b.bodies(), "", "the get took no credit, so it gives none back");
    world.ack(&mut channel, 1, 1);
    assert_eq!(b.bodies(), "b2");
}

#[test]
fn what_a_deleted_queue_had_is_given_back_with_the_next_word_about_it() {
    for by_cancel in [false, true] {
        let (mut world, mut channel, [a, b]) = shared(1);
        assert_eq!((a.bodies().as_str(), b.bodies().as_str()), ("a1", ""));
        world.vhost.delete_queue(&name("a"), false, false, CONNECTION).unwrap();
        if by_cancel {
            channel.cancel(1, &mut world.work).unwrap();
        } else {
            world.ack(&mut channel, 1, 1);
        }
        assert_eq!(b.bodies(), "b1");
    }
}

#[test]
fn publishes_from_other_threads_never_exceed_the_shared_limit_and_all_messages_arrive() {
    const MESSAGES: usize = 2_000;
    let (mut world, mut channel, inboxes) = shared(3);
    let queues = [world.vhost.queue("a", CONNECTION).unwrap(), world.vhost.queue("b", CONNECTION).unwrap()];
    let total = 2 * (MESSAGES + 4);
    let mut seen = 0;
    let mut unsettled: Vec<(u32, u64)> = Vec::new();
    std::thread::scope(|scope| {
        for queue in &queues {
            scope.spawn(move || {
                let mut work = Work::default();
                let message = Message::default();
                for _ in 0..MESSAGES {
                    queue.enqueue(std::iter::once(&message), None, &mut work, |_, _| {});
                    work.aftermath.clear();
                }
            });
        }
        while seen < total {
            for (number, inbox) in (1..).zip(&inboxes) {
                for delivery in inbox.0.lock().drain(..) {
                    unsettled.push((number, delivery.tag));
                    seen += 1;
                }
            }
            assert!(unsettled.len() <= 3, "{unsettled:?}");
            match unsettled.pop() {
                Some((number, tag)) => world.ack(&mut channel, number, tag),
                None => std::thread::yield_now(),
            }
        }
    });
    assert_eq!(seen, total);
}
