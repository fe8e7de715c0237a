//! Every command that needs no broker of its own, once, with little to do, against a broker in this process. What starts
//! brokers (`backlog`, `queues`, `connections`, `compare`) is run by `.ci/run`, where the server is built.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail as tests do")]

use std::process::{Command, Output};

use leveret_broker::Broker;

fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_leveret-bench")).args(arguments).output().expect("the program starts")
}

/// Runs it, and gives what it said; a failure shows what it said instead.
fn succeeds(arguments: &[&str]) -> String {
    let output = bench(arguments);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?} failed:\n{said}\n{complained}");
    said
}

/// Runs it against a broker of this test's own, which is given as URLs of both protocols.
fn with_broker(run: impl Fn(&str, &str)) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let broker = runtime.block_on(Broker::builder().temporary().start()).unwrap();
    run(&broker.url(), &broker.amqp_url());
    runtime.block_on(broker.stop()).unwrap();
}

/// What every run says of 3,000 messages.
fn says_all_came(said: &str, deliveries: u64) {
    let all = format!("3000 published, {deliveries} delivered, all of them once and in order");
    assert!(said.contains(&all), "{said}");
}

const WORKLOADS: &[(&[&str], u64)] = &[
    (&["--size", "1024"], 3000),
    (&["--transient", "--size", "16"], 3000),
    (&["--producers", "3", "--queues", "2", "--consumers", "4", "--ack", "each"], 3000),
    (&["--fan-out", "--queues", "3", "--ack", "64", "--window", "100"], 9000),
    (&["--topic", "30", "--keys", "30", "--size", "70"], 3000),
];

#[test]
fn the_same_workloads_run_over_every_protocol() {
    with_broker(|native, amqp| {
        for (workload, deliveries) in WORKLOADS {
            let commands = [
                &["native", "--raw", "--url", native][..],
                &["native", "--url", native],
                &["amqp", "--url", amqp],
            ];
            for command in commands {
                let arguments = [command, workload, &["--messages", "3000"]].concat();
                says_all_came(&succeeds(&arguments), *deliveries);
            }
        }
    });
}

#[test]
fn a_large_message_goes_in_several_amqp_frames() {
    with_broker(|_, amqp| {
        let said = succeeds(&["amqp", "--url", amqp, "--size", "300000", "--messages", "20"]);
        assert!(said.contains("20 delivered, all of them once and in order"), "{said}");
    });
}

#[test]
fn an_open_loop_gives_latencies_of_every_message() {
    with_broker(|native, amqp| {
        for command in [&["native", "--raw", "--url", native][..], &["amqp", "--url", amqp]] {
            let said = succeeds(&[command, &["--rate", "10000", "--messages", "3000"]].concat());
            says_all_came(&said, 3000);
            assert!(said.contains("publish to confirm:") && said.contains("publish to delivery:"), "{said}");
        }
    });
}

#[test]
fn a_slow_consumer_does_not_hold_up_the_end() {
    with_broker(|native, _| {
        let slow = ["--fan-out", "--queues", "2", "--consumers", "2", "--slow", "100", "--prefetch", "10"];
        let said =
            succeeds(&[&["native", "--raw", "--url", native, "--messages", "3000"][..], &slow].concat());
        assert!(said.contains("3000 published"), "{said}");
    });
}

#[test]
fn the_time_of_a_run_is_kept() {
    with_broker(|native, _| {
        let said = succeeds(&["native", "--raw", "--url", native, "--seconds", "0.2", "--warm-up", "0.05"]);
        assert!(said.contains("deliveries/s in 0.2"), "{said}");
    });
}

#[test]
fn the_limits_are_measured() {
    for (arguments, says) in [
        (&["relay", "--seconds", "0.1", "--sizes", "16,1024"][..], "relay, 1024 B"),
        (&["relay", "--codec", "--pairs", "2", "--seconds", "0.1"], "relay with codec, 256 B, 2 pairs"),
        (&["relay-confirms", "--seconds", "0.1"], "publish to confirm"),
        (&["sink", "--seconds", "0.1"], "server"),
        (&["echo", "--seconds", "0.05", "--windows", "1,100"], "window 100"),
        (&["journal", "--seconds", "0.05", "--sizes", "4096"], "journal, recycled, 4 KiB"),
        (&["memory"], "crc32c, 65536 B"),
    ] {
        let said = succeeds(&[&["limits"], arguments].concat());
        assert!(said.contains(says), "{arguments:?}: {said}");
    }
}

#[test]
fn what_cannot_be_is_refused_in_words() {
    with_broker(|native, amqp| {
        for (arguments, says) in [
            (&["native", "--size", "8", "--url", native][..], "at least 16"),
            (&["amqp", "--url", amqp, "--queue-type", "no-such-type"], "the broker closed the channel"),
            (&["native", "--url", native, "--seconds", "1"], "for --raw"),
            (&["compare", "--only", "nothing"], "no row nothing"),
            (&["report", "no-such-file.json"], "No such file"),
        ] {
            let output = bench(arguments);
            let complained = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success() && complained.contains(says), "{arguments:?}: {complained}");
        }
    });
}

#[test]
fn the_rows_of_the_comparison_are_listed() {
    let listed = succeeds(&["compare", "--list"]);
    assert_eq!(listed.lines().count(), 14, "{listed}");
    assert!(listed.contains("amqp-persistent"), "{listed}");
}
