//! The real binary, killed, stopped and given a failing disk, under clients that write down all that they see.
//!
//! `LEVERET_KILLS=200` sets how often it is killed, `LEVERET_CRASH_HITS=20` how often it ends at each crash point,
//! `LEVERET_KILL_POINTS=1000` at how many calls of the system it is killed, and `LEVERET_SEED` repeats the random choices of a run.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::format_push_string,
    clippy::cast_precision_loss,
    clippy::similar_names,
    clippy::ptr_arg,
    reason = "all of this is a test, though not every function of it is marked as one"
)]

mod body;
mod checker;
mod fleet;
mod history;
mod kills;
mod model;
mod mutants;
mod points;
mod power;
mod random;
mod reclaim;
mod server;
mod stops;
mod syscalls;

/// How often the test kills unless `LEVERET_KILLS` says otherwise: as often as half a minute allows.
const KILLS_DEFAULT: u32 = 20;

#[tokio::test]
async fn no_kill_loses_what_was_confirmed_or_brings_back_what_was_settled() {
    let kills = std::env::var("LEVERET_KILLS").ok().and_then(|kills| kills.parse().ok());
    let seed = random::seed();
    println!("seed {seed}");
    let report = kills::run(seed, kills.unwrap_or(KILLS_DEFAULT)).await;
    println!("{report}");
    assert!(report.verdict.violations.is_empty(), "{report}\n{}", report.verdict.explain(&report.history));
}
