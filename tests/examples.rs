//! Every example does what its first lines say, and the README shows what can be run.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{LazyLock, mpsc};
use std::time::Duration;

use leveret_broker::Broker;

const LOGS: [&str; 4] = ["web.log", "orders.log", "payments.log", "database.log"];

#[test]
fn log_fanout_gives_each_subscriber_its_part_of_the_files() {
    let output = run(example("log_fanout").args(LOGS.map(log_file)));
    assert_eq!(
        table(&output),
        ["alerts *.error 11 11 0 0 0", "web-team web.# 20 3 2 15 0", "archive # 78 11 11 45 11",]
    );
    assert!(output.contains("78 lines published and confirmed, 0 of them unheard"), "{output}");
    // Each subscriber gets the lines themselves, and in their order.
    let web = fs::read_to_string(log_file("web.log")).unwrap();
    assert_eq!(bodies(&output, "web-team"), web.lines().collect::<Vec<_>>());
    let errors: Vec<_> =
        bodies(&output, "alerts").into_iter().filter(|line| line.contains("[error]")).collect();
    assert_eq!(errors, web.lines().filter(|line| line.contains("[error]")).collect::<Vec<_>>());
}

#[test]
fn log_fanout_reads_the_standard_input() {
    let mut program = Running::start(example("log_fanout").arg("-").stdin(Stdio::piped()));
    program.child.stdin.take().unwrap().write_all(b"ERROR: no paper\nall is well\n").unwrap();
    assert_eq!(
        table(&program.rest()),
        ["alerts *.error 1 1 0 0 0", "stdin-team stdin.# 2 1 0 1 0", "archive # 2 1 0 1 0"]
    );
}

#[test]
fn log_fanout_shows_the_log_of_the_broker_itself() {
    let output = run(&mut example("log_fanout"));
    let alert = bodies(&output, "alerts");
    assert_eq!(alert, [r#"the alternate exchange does not exist exchange="orders" alternate=nowhere"#]);
    let network = bodies(&output, "network");
    assert!(network.iter().any(|line| line.starts_with("a client was not let in")), "{output}");
    assert!(network.last().unwrap().starts_with("disconnected"), "{output}");
    assert_eq!(table(&output)[0], "alerts warn.# 1 0 1 0 0");
}

#[test]
fn log_fanout_follows_files_that_grow_rotate_and_shrink() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.log");
    fs::write(&path, "one\n").unwrap();
    let mut program = Running::start(example("log_fanout").arg("--follow").arg(&path));
    program.wait_for("archive        app.info         one");

    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    write!(file, "tw").unwrap();
    writeln!(file, "o ERROR").unwrap();
    program.wait_for("archive        app.error        two ERROR");

    fs::rename(&path, folder.path().join("app.log.1")).unwrap();
    writeln!(file, "three, after the rotation").unwrap();
    fs::write(&path, "four, in the new file\n").unwrap();
    program.wait_for("archive        app.info         three, after the rotation");
    program.wait_for("archive        app.info         four, in the new file");

    fs::write(&path, "five\n").unwrap();
    program.wait_for("archive        app.info         five");
    let rest = program.interrupt();
    assert_eq!(table(&rest), ["alerts *.error 1 1 0 0 0", "app-team app.# 5 1 0 4 0", "archive # 5 1 0 4 0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn log_fanout_emits_to_and_subscribes_at_a_running_broker() {
    let broker = Broker::builder().temporary().start().await.unwrap();
    let url = broker.url();
    tokio::task::spawn_blocking(move || {
        let subscribe = ["subscribe", "--url", &url, "--pattern", "*.error"];
        let mut program = Running::start(example("log_fanout").args(subscribe));
        program.wait_for("waiting for *.error in the queue logs.*.error; Ctrl-C ends");
        let emit = || run(example("log_fanout").args(["emit", "--url", &url, &log_file("orders.log")]));
        assert!(emit().contains("26 lines published and confirmed, 24 of them unheard"));
        program.wait_for("order 20420 not paid");
        assert_eq!(table(&program.interrupt()), ["*.error *.error 2 2 0 0 0"]);

        // While nobody subscribes, the durable queue keeps what matches.
        emit();
        let mut program = Running::start(example("log_fanout").args(subscribe));
        program.wait_for("order 20419 not paid");
        program.wait_for("order 20420 not paid");
        program.interrupt();
    })
    .await
    .unwrap();
    broker.stop().await.unwrap();
}

#[test]
fn log_fanout_names_what_it_cannot_read() {
    let output = example("log_fanout").arg("no/such.log").output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && error.contains("cannot read no/such.log"), "{error}");
}

#[test]
fn work_queue_does_every_job_once_although_a_worker_dies() {
    let output = run(&mut example("work_queue"));
    assert!(output.contains("unlucky    takes job 1 and dies"), "{output}");
    assert!(output.contains("does job 1, which came back from another worker"), "{output}");
    assert!(output.contains("22 different jobs are done"), "{output}");
    let attempts: Vec<_> = (1..=4).filter(|n| output.contains(&format!("at job 7, attempt {n}"))).collect();
    assert_eq!(attempts, [1, 2, 3], "{output}");
    assert!(output.contains("died in work.jobs: delivery_limit, 1 time; no note"), "{output}");
    assert!(output.contains("died in work.jobs: rejected, 1 time; a body that is not the JSON"), "{output}");
    let (_, workers) = output.split_once("jobs done\n").unwrap();
    let done: Vec<u32> =
        workers.lines().map(|line| line.split_whitespace().nth(1).unwrap().parse().unwrap()).collect();
    assert_eq!((done.len(), done.iter().sum()), (3, 22), "{output}");
}

#[test]
fn request_reply_matches_replies_that_come_in_another_order() {
    let output = run(&mut example("request_reply"));
    let after = |start: &str| -> Vec<_> {
        output.lines().filter_map(|line| line.strip_prefix(start)).map(str::to_owned).collect()
    };
    let mut taken = after("service   takes the question for ");
    assert_eq!(taken.pop().as_deref(), Some("unicorn"));
    let mut answered = after("service   answers for ");
    answered.reverse();
    assert_eq!(answered, taken, "the last question is answered first");
    let got: BTreeSet<_> = after("shop      asked for ").into_iter().collect();
    let expected = [
        "desk, got desk: 4000 cents",
        "stool, got stool: 5000 cents",
        "lamp, got lamp: 4000 cents",
        "unicorn: no reply came within 200 ms, worth another try: true",
    ];
    assert_eq!(got, expected.map(str::to_owned).into());
    assert!(output.contains("asked the queue pricez: ") && output.contains("no queue is bound"), "{output}");
}

#[test]
fn order_events_keeps_each_guarantee() {
    let output = run(&mut example("order_events"));
    for line in [
        "order 8 is placed: 4 queues have it, on disk where they are durable",
        "analytics  saw 8 orders of 36000 cents, and acknowledged none",
        "             maxlen: orders [2, 3, 4, 5]",
        "             expired: orders [6, 7, 8]",
        "payment    has 8 orders",
        "inventory  has 8 orders",
        "email      has 0 orders",
        "payment    of order 5 fails, attempt 3",
        "payment    has collected 7 orders; order 5 is put aside: delivery_limit",
        "inventory  the first reader takes [1, 2, 3, 4] and leaves, the spare goes on with [5, 6, 7, 8]",
    ] {
        assert!(output.lines().any(|printed| printed == line), "{line}\nis not in\n{output}");
    }
    assert!(output.contains("analytics  is gone: "), "{output}");
}

#[test]
fn the_readme_shows_the_client_as_it_runs() {
    let output = run(&mut example("hello"));
    assert_eq!(output, "on disk in 1 queue\nhello.world: Hello, world!\n");
    let source = fs::read_to_string(root().join("examples/hello.rs")).unwrap();
    let shown = source.split("// README: ").nth(1).and_then(|part| part.strip_prefix("from here\n")).unwrap();
    assert!(
        readme().contains(shown.trim_end()),
        "README.md does not show this part of examples/hello.rs:\n{shown}"
    );
}

#[test]
fn the_readme_begins_with_the_commands_that_work() {
    let commands: Vec<String> =
        readme().lines().filter(|line| line.starts_with("cargo ")).map(str::to_owned).collect();
    assert_eq!(
        commands.get(..2).unwrap(),
        ["cargo run --release --example log_fanout -- examples/logs/*.log", "cargo test --workspace"]
    );
}

fn readme() -> String {
    fs::read_to_string(root().join("README.md")).unwrap()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn log_file(name: &str) -> String {
    root().join("examples/logs").join(name).to_str().unwrap().to_owned()
}

/// The example's program. Cargo builds all of them for `cargo test --workspace`, beside this one; who tests only this
/// package gets them built here.
fn example(name: &str) -> Command {
    static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
        let this = std::env::current_exe().unwrap();
        let profile = this.parent().and_then(Path::parent).unwrap();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(root()).args(["build", "--quiet", "--workspace", "--examples", "--target-dir"]);
        cargo.arg(profile.parent().unwrap());
        match profile.file_name().and_then(|name| name.to_str()).unwrap() {
            "debug" => {}
            other => drop(cargo.args(["--profile", other])),
        }
        assert!(cargo.status().unwrap().success(), "the examples do not build");
        profile.join("examples")
    });
    let mut command = Command::new(FOLDER.join(name));
    command.stdin(Stdio::null());
    command
}

fn run(command: &mut Command) -> String {
    let mut program = Running::start(command);
    program.rest()
}

/// The rows of the closing table, with one space between the columns.
fn table(output: &str) -> Vec<String> {
    let rows = output.lines().skip_while(|line| !line.starts_with("subscriber ")).skip(1);
    rows.map(|row| row.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// What a subscriber printed, without its name and the routing key.
fn bodies<'a>(output: &'a str, subscriber: &str) -> Vec<&'a str> {
    let lines =
        output.lines().skip_while(|line| !line.is_empty()).skip(1).take_while(|line| !line.is_empty());
    let own = lines.filter_map(|line| line.strip_prefix(subscriber)?.trim_start().split_once(' '));
    own.map(|(_, body)| body.trim_start()).collect()
}

/// A program, for at most [`PATIENCE`].
struct Running {
    child: Child,
    output: BufReader<ChildStdout>,
    /// Tells the watchdog, by its end, that it is no longer needed.
    _watched: mpsc::Sender<()>,
}

/// An example that hangs is to fail its test, and not to hold up all the others for ever.
const PATIENCE: Duration = Duration::from_secs(60);

impl Running {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let pid = child.id();
        let (watched, ended) = mpsc::channel();
        std::thread::spawn(move || {
            if ended.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
                signal("-KILL", pid);
            }
        });
        Self { child, output, _watched: watched }
    }

    /// Reads up to a line that contains the text.
    fn wait_for(&mut self, text: &str) {
        let mut line = String::new();
        while !line.contains(text) {
            line.clear();
            assert_ne!(self.output.read_line(&mut line).unwrap(), 0, "the output ended without {text:?}");
        }
    }

    /// As Ctrl-C does. Gives the rest of the output.
    fn interrupt(mut self) -> String {
        signal("-INT", self.child.id());
        self.rest()
    }

    /// Waits for the program's end, which has to be a good one.
    fn rest(&mut self) -> String {
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "it ends with {status} after\n{rest}");
        rest
    }
}

impl Drop for Running {
    /// A test that fails must not leave a process behind.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn signal(name: &str, pid: u32) {
    assert!(Command::new("kill").args([name, &pid.to_string()]).status().unwrap().success());
}
