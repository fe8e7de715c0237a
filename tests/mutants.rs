//! Mistakes that are built in on purpose, each of which a test must find: a suite that is not shown to find any proves
//! nothing. `LEVERET_MUTANTS=all`, or the name of one, runs them; that takes minutes, so that nothing is done without.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "all of this is a test, and says how long it took"
)]

use std::process::Command;
use std::time::Instant;

const JOURNAL: &[&str] = &["-p", "leveret-journal", "--features", "faults"];
const BROKER: &[&str] = &["-p", "leveret-broker", "--features", "faults", "--lib"];
const SIMULATION: &[&str] = &["-p", "leveret-tests", "--features", "faults", "--test", "simulation"];
const KILLS: &[&str] = &[
    "-p",
    "leveret-tests",
    "--features",
    "faults",
    "--test",
    "crash",
    "--",
    "--test-threads",
    "1",
    "stops",
    "points",
];
const POWER: &[&str] = &["-p", "leveret-tests", "--features", "faults", "--test", "crash", "--", "power"];

/// The mistakes, as `leveret_journal::faults::mutant` knows them, and the tests that are asked in turn.
const MUTANTS: [(&str, &[&[&str]]); 15] = [
    ("synced_too_early", &[JOURNAL, SIMULATION]),
    ("retry_after_failed_sync", &[JOURNAL, SIMULATION]),
    ("failed_sync_ignored", &[JOURNAL, SIMULATION]),
    ("directory_not_synced", &[JOURNAL, SIMULATION]),
    ("no_checksum", &[JOURNAL, SIMULATION]),
    ("zeros_are_a_block", &[JOURNAL, SIMULATION]),
    ("clean_stop_believed_twice", &[JOURNAL, SIMULATION]),
    ("horizon_forgotten", &[BROKER, SIMULATION]),
    ("settle_before_publish", &[BROKER, SIMULATION]),
    ("gone_not_journaled", &[SIMULATION, KILLS]),
    ("seen_forgotten", &[SIMULATION, KILLS]),
    ("prefetch_and_one", &[SIMULATION, KILLS]),
    ("dead_letter_in_two_steps", &[SIMULATION, KILLS]),
    ("any_vhost", &[SIMULATION, KILLS]),
    ("confirm_before_sync", &[POWER]),
];

/// The tests that fail with this mistake.
fn killers(mutant: &str, tests: &[&str]) -> Vec<String> {
    let ended = Command::new(env!("CARGO"))
        .arg("test")
        .args(tests)
        .env("LEVERET_MUTANT", mutant)
        .env("LEVERET_SEEDS", "600")
        .env("LEVERET_POWER_CUTS", "40")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ended.stdout).into_owned();
    let failed = said.lines().filter_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED"));
    let failed: Vec<_> = failed.map(str::to_owned).collect();
    assert!(ended.status.success() || !failed.is_empty(), "{said}{}", String::from_utf8_lossy(&ended.stderr));
    failed
}

#[test]
fn every_mistake_is_found_by_some_test() {
    let Ok(chosen) = std::env::var("LEVERET_MUTANTS") else {
        println!("SKIPPED: LEVERET_MUTANTS=all tries {} mistakes", MUTANTS.len());
        return;
    };
    let mut alive = Vec::new();
    for (mutant, tests) in MUTANTS.iter().filter(|(mutant, _)| chosen == "all" || chosen == *mutant) {
        let began = Instant::now();
        let killers = tests.iter().map(|tests| killers(mutant, tests)).find(|killers| !killers.is_empty());
        let seconds = began.elapsed().as_secs_f64();
        match killers {
            Some(killers) => println!("{mutant:<26} {seconds:>4.0} s  {}", killers.join(", ")),
            None => alive.push(*mutant),
        }
    }
    assert!(alive.is_empty(), "no test finds {alive:?}");
}
