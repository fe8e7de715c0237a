use super::*;

/// A queue that has delivered `a` to `e` to a consumer, with tags 1 to 5.
fn five_delivered() -> (Rig, HolderId) {
    let mut rig = rig(&[("x-dead-letter-exchange", "dlx".into())]);
    let holder = rig.consumer(Credit::Unlimited);
    rig.publish_all("a b c d e");
    assert_eq!(rig.bodies(), "a b c d e");
    (rig, holder)
}

#[test]
fn ranges_settle_exactly_what_they_name() {
    type Ranges<'a> = &'a [(u64, u64)];
    let cases: [(Ranges<'_>, Result<&[u64], u64>); 13] = [
        (&[(1, 5)], Ok(&[0, 1, 2, 3, 4])),
        (&[(2, 2)], Ok(&[1])),
        (&[(4, 5), (1, 1)], Ok(&[3, 4, 0])),
        (&[], Ok(&[])),
        (&[(0, 0)], Err(0)),
        (&[(0, 3)], Err(0)),
        (&[(6, 6)], Err(6)),
        (&[(1, 6)], Err(6)),
        (&[(1, u64::MAX)], Err(6)),
        (&[(u64::MAX, u64::MAX)], Err(u64::MAX)),
        (&[(3, 2)], Err(3)),
        (&[(1, 3), (3, 4)], Err(3)),
        (&[(2, 3), (1, u64::MAX)], Err(2)),
    ];
    for (ranges, expected) in cases {
        let (mut rig, holder) = five_delivered();
        let result = rig.settle(holder, ranges, &Verb::Ack);
        match expected {
            Ok(gone) => assert_eq!((result, rig.gone()), (Ok(()), gone.to_vec()), "{ranges:?}"),
            // Nothing of a wrong call is applied: everything can still be settled.
            Err(tag) => {
                assert_eq!((result, rig.counts()), (Err(UnknownTag { tag }), (0, 5)), "{ranges:?}");
                assert_eq!(rig.settle(holder, &[(1, 5)], &Verb::Ack), Ok(()));
                assert_eq!(rig.gone(), [0, 1, 2, 3, 4]);
            }
        }
    }
}

#[test]
fn settling_twice_is_an_error() {
    let (mut rig, holder) = five_delivered();
    rig.settle(holder, &[(2, 3)], &Verb::Ack).unwrap();
    for verb in [Verb::Ack, Verb::Requeue, Verb::Release, Verb::Reject { note: None }] {
        assert_eq!(rig.settle(holder, &[(3, 3)], &verb), Err(UnknownTag { tag: 3 }));
        assert_eq!(rig.settle(holder, &[(1, 2)], &verb), Err(UnknownTag { tag: 2 }));
    }
    assert_eq!(
        UnknownTag { tag: 3 }.to_string(),
        "unknown delivery tag 3: it was never handed out here, or is settled already"
    );
}

#[test]
fn up_to_a_tag_settles_what_is_left_of_it() {
    let (mut rig, holder) = five_delivered();
    rig.settle(holder, &[(2, 2)], &Verb::Ack).unwrap();
    assert_eq!(rig.state.settle_up_to(holder, 6, &Verb::Ack, &mut rig.fx), Err(UnknownTag { tag: 6 }));
    rig.state.settle_up_to(holder, 3, &Verb::Ack, &mut rig.fx).unwrap();
    assert_eq!((rig.gone(), rig.counts()), (vec![1, 0, 2], (0, 2)));
    rig.state.settle_up_to(holder, 3, &Verb::Ack, &mut rig.fx).unwrap();
    rig.state.settle_up_to(holder, 0, &Verb::Ack, &mut rig.fx).unwrap();
    assert_eq!((rig.gone(), rig.counts()), (vec![3, 4], (0, 0)));
}

#[test]
fn a_requeue_goes_back_to_its_original_place() {
    let (mut rig, holder) = five_delivered();
    rig.state.cancel(holder, START, &mut rig.fx);
    rig.publish_all("f g");
    for ranges in [[(3, 3)], [(1, 1)], [(5, 5)], [(4, 4)]] {
        rig.settle(holder, &ranges, &Verb::Requeue).unwrap();
    }
    rig.consumer(Credit::Unlimited);
    assert_eq!(rig.bodies(), "a c d e f g");
}

#[test]
fn only_failures_count_and_everything_handed_out_before_is_redelivered() {
    let (mut rig, holder) = five_delivered();
    rig.settle(holder, &[(1, 1)], &Verb::Requeue).unwrap();
    rig.settle(holder, &[(2, 2)], &Verb::Release).unwrap();
    assert_eq!(rig.fx.returned, [(Seq(0), 1), (Seq(1), 0)]);
    rig.state.release(holder, START, &mut rig.fx);
    assert_eq!(rig.fx.returned[2..], [(Seq(4), 1), (Seq(3), 1), (Seq(2), 1)]);
    rig.publish_all("f");
    rig.consumer(Credit::Unlimited);
    rig.state.dispatch(START, &mut rig.fx);
    let seen: Vec<_> = rig.fx.deliveries.iter().map(|d| (d.seq.0, d.redelivered, d.delivery_count)).collect();
    assert_eq!(seen, [(0, true, 1), (1, true, 0), (2, true, 1), (3, true, 1), (4, true, 1), (5, false, 0)]);
}

#[test]
fn more_failures_than_the_delivery_limit_are_death() {
    let mut rig = rig(&[("x-dead-letter-exchange", "dlx".into()), ("x-delivery-limit", 2.into())]);
    let holder = rig.consumer(Credit::Unlimited);
    rig.publish_all("poison");
    for tag in 1..=2 {
        assert_eq!(rig.dispatch().len(), 1);
        rig.settle(holder, &[(tag, tag)], &Verb::Requeue).unwrap();
    }
    // Coming back without blame does not count, however often.
    for tag in 3..=9 {
        assert_eq!(rig.dispatch().len(), 1);
        rig.settle(holder, &[(tag, tag)], &Verb::Release).unwrap();
    }
    assert_eq!((rig.dispatch().len(), rig.dead().len()), (1, 0));
    rig.state.release(holder, START, &mut rig.fx);
    assert_eq!(rig.dead(), dead(&[("poison", DeathReason::DeliveryLimit)]));
    assert_eq!(rig.counts(), (0, 0));
}

#[test]
fn a_rejected_message_is_dead_with_its_note_or_gone_without_a_dead_letter_exchange() {
    let (mut rig, holder) = five_delivered();
    let note: Arc<str> = "no such customer".into();
    rig.settle(holder, &[(2, 3)], &Verb::Reject { note: Some(note.clone()) }).unwrap();
    let dead: Vec<_> = rig.fx.dead.iter().map(|dead| (dead.seq, dead.reason, dead.note.clone())).collect();
    let expected = |seq| (Some(Seq(seq)), DeathReason::Rejected, Some(note.clone()));
    assert_eq!((dead, rig.gone()), (vec![expected(1), expected(2)], vec![]));

    let mut plain = super::rig(&[]);
    let holder = plain.consumer(Credit::Unlimited);
    plain.publish_all("a");
    plain.dispatch();
    plain.reject(holder, 1);
    assert_eq!((plain.gone(), plain.dead()), (vec![0], vec![]));
}

#[test]
fn a_cancelled_consumer_settles_what_it_holds_and_is_gone_then() {
    let (mut rig, holder) = five_delivered();
    rig.state.cancel(holder, START, &mut rig.fx);
    rig.publish_all("f");
    assert_eq!((rig.bodies(), rig.state.consumers(), rig.counts()), (String::new(), 0, (1, 5)));
    rig.settle(holder, &[(1, 5)], &Verb::Ack).unwrap();
    assert_eq!(rig.settle(holder, &[(5, 5)], &Verb::Ack), Err(UnknownTag { tag: 5 }));
}

#[test]
fn a_late_settle_does_not_touch_the_next_holder_of_the_slot() {
    let (mut rig, old) = five_delivered();
    rig.state.release(old, START, &mut rig.fx);
    let new = rig.consumer(Credit::Unlimited);
    assert_eq!((rig.dispatch().len(), new.slot()), (5, old.slot()));
    assert_eq!(rig.settle(old, &[(1, 1)], &Verb::Ack), Err(UnknownTag { tag: 1 }));
    rig.state.release(old, START, &mut rig.fx);
    rig.state.cancel(old, START, &mut rig.fx);
    assert_eq!((rig.counts(), rig.state.consumers()), ((0, 5), 1));
}

#[test]
fn one_old_delivery_among_millions_costs_no_memory_for_the_others() {
    let mut rig = rig(&[]);
    let holder = rig.consumer(Credit::Unlimited);
    rig.publish_all("old");
    rig.dispatch();
    for tag in 2..20_000 {
        rig.publish_all("x");
        rig.dispatch();
        rig.settle(holder, &[(tag, tag)], &Verb::Ack).unwrap();
        rig.fx.clear();
    }
    assert_eq!(rig.state.unacked_of(holder), 1);
    assert!(rig.state.holders.get(holder).unwrap().unacked.slots() < 200);
    rig.settle(holder, &[(1, 1)], &Verb::Ack).unwrap();
    assert_eq!(rig.gone(), [0]);
}

#[test]
fn deliveries_without_acknowledgement_after_an_unsettled_one_cost_no_memory() {
    let mut rig = rig(&[]);
    let holder = rig.state.open_passive();
    rig.publish_all("old");
    rig.get(holder).unwrap();
    for _ in 0..20_000 {
        rig.publish_all("x");
        rig.state.get(holder, true, START, &mut rig.fx).unwrap();
        rig.fx.clear();
    }
    assert!(rig.state.holders.get(holder).unwrap().unacked.slots() < 200);
    rig.settle(holder, &[(1, 1)], &Verb::Ack).unwrap();
}

#[test]
fn tags_are_dense_across_gets_with_and_without_acknowledgement() {
    let mut rig = rig(&[]);
    let holder = rig.state.open_passive();
    rig.publish_all("a b c d");
    let mut tags = Vec::new();
    for no_ack in [true, false, true, false] {
        let got = rig.state.get(holder, no_ack, START, &mut rig.fx).unwrap();
        tags.push((got.delivery.tag, got.ready_left));
    }
    assert_eq!(tags, [(1, 3), (2, 2), (3, 1), (4, 0)]);
    assert_eq!((rig.gone(), rig.counts()), (vec![0, 2], (0, 2)));
    assert_eq!(rig.settle(holder, &[(3, 3)], &Verb::Ack), Err(UnknownTag { tag: 3 }));
    rig.settle(holder, &[(2, 2), (4, 4)], &Verb::Ack).unwrap();
}
