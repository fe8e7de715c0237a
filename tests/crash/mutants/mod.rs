//! The checker is worth what it finds: histories that are right, and the same with one fault each, which the rule that
//! it breaks must find.

mod faults;
mod right;

use crate::checker::{Rule, check};
use crate::history::Entry;
use crate::random::Random;
use faults::*;
use right::right_history;

const SEEDS: u64 = 20;

/// A fault: changes a history, or finds no place for itself in it.
type Fault = fn(&mut Vec<Entry>, &mut Random) -> Option<()>;

/// By what a broker would do wrong.
const FAULTS: [(&str, Rule, Fault); 31] = [
    ("loses a confirmed message in one of its queues", Rule::Lost, lose),
    ("loses a message that was requeued or held", Rule::Lost, lose_after_delivery),
    ("delivers what nobody published", Rule::Phantom, deliver_unpublished),
    ("delivers to a queue that is not bound", Rule::Phantom, deliver_elsewhere),
    ("delivers wrong bytes", Rule::Phantom, deliver_garbage),
    ("delivers the body of another message", Rule::Phantom, exchange_body),
    ("confirms for too few queues", Rule::Phantom, miscount),
    ("delivers what was not sent", Rule::Phantom, deliver_unsent),
    ("dead-letters what nobody rejected", Rule::Phantom, dead_letter_unasked),
    ("refuses for no reason", Rule::Definitions, refuse),
    ("forgets that a message was seen", Rule::Redelivered, forget_flag),
    ("delivers to two consumers at a time", Rule::Redelivered, deliver_twice),
    ("brings back what a durable ack removed", Rule::Resurrected, resurrect_durable),
    ("brings back an acked message without a crash", Rule::Resurrected, resurrect_at_once),
    ("brings back an ack that a later answer covers", Rule::Resurrected, resurrect_covered),
    ("brings back an ack that is too old", Rule::Resurrected, resurrect_old),
    ("delivers out of order", Rule::Order, disorder),
    ("forgets a failure", Rule::Failures, forget_failure),
    ("leaves a dead letter in both queues", Rule::DeadLetter, keep_both),
    ("loses a dead letter on its way", Rule::DeadLetter, lose_dead_letter),
    ("gives a consumer more than it asked for", Rule::Prefetch, exceed_prefetch),
    ("has two single active consumers", Rule::SingleActive, activate_two),
    ("lets a message expire too early", Rule::Expiry, expire_early),
    ("delivers what has expired", Rule::Expiry, deliver_expired),
    ("delivers what it refused", Rule::Refusal, deliver_refused),
    ("brings back what was purged", Rule::Emptied, unpurge),
    ("miscounts what it purged", Rule::Accounting, miscount_purged),
    ("delivers less than it counts", Rule::Accounting, miscount_ready),
    ("confirms twice", Rule::Outcome, confirm_twice),
    ("forgets to confirm", Rule::Outcome, forget_confirm),
    ("forgets a deletion or a declaration", Rule::Definitions, forget_definition),
];

#[test]
fn right_histories_are_found_right() {
    for seed in 0..SEEDS {
        let history = right_history(seed);
        let verdict = check(&history);
        assert!(verdict.violations.is_empty(), "seed {seed}\n{}", verdict.explain(&history));
        let figures = verdict.figures;
        let seen =
            [figures.acks_lost, figures.requeues, figures.rejections, figures.refused, figures.expired];
        assert!(seen.into_iter().chain([figures.emptied, figures.removed]).all(|seen| seen > 0), "{figures}");
    }
}

#[test]
fn the_time_to_check_grows_with_the_history_alone() {
    let mut history = Vec::new();
    // The same history over and over, with publishers of its own each time, and the queues of the bin left out.
    for copy in 0..200 {
        history.extend(renumbered(right_history(copy % SEEDS), copy as u32));
    }
    let verdict = check(&history);
    println!(
        "checker: {} events in {:.2} s, {:.0}/s",
        history.len(),
        verdict.figures.took_us as f64 / 1e6,
        history.len() as f64 / verdict.figures.took_us as f64 * 1e6
    );
    let tenth = check(&history[..history.len() / 10]).figures.took_us;
    assert!(
        verdict.figures.took_us < 40 * tenth.max(1000),
        "ten times the history took more than 40 times as long"
    );
}

#[test]
fn every_fault_is_found_by_the_rule_that_it_breaks() {
    for (name, rule, fault) in FAULTS {
        let mut applied = 0;
        for seed in 0..SEEDS {
            let mut history = right_history(seed);
            if fault(&mut history, &mut Random::new(seed)).is_none() {
                continue;
            }
            applied += 1;
            let verdict = check(&history);
            let found = verdict.violations.first().map(|violation| violation.rule);
            assert_eq!(found, Some(rule), "a broker that {name}, seed {seed}\n{}", verdict.explain(&history));
        }
        assert!(
            applied >= SEEDS / 2,
            "a broker that {name}: only {applied} of {SEEDS} histories had a place for it"
        );
    }
}
