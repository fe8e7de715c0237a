//! Logs of several services, and three readers that each want another part of them.
//!
//! Every line becomes a persistent message with the routing key `<source>.<severity>`, such as `payments.error`. A
//! topic exchange compares the key with the pattern of each subscriber: `*` is one word, `#` any number of them.
//!
//! ```text
//!                                             *.error  ──► queue logs.alerts   ──► alerts
//!  web.log ─┐                               ╱
//!  orders.log ─► web.info, orders.error … ─► topic exchange ─ web.# ──► queue logs.web-team ──► web-team
//!  stdin ───┘                               ╲
//!                                             #        ──► queue logs.archive  ──► archive
//! ```
//!
//! ```sh
//! cargo run -p leveret-examples --example log_fanout -- examples/logs/*.log          # files, to their ends
//! journalctl | cargo run -p leveret-examples --example log_fanout -- -               # the standard input
//! cargo run -p leveret-examples --example log_fanout -- --follow /var/log/*.log      # until Ctrl-C
//! cargo run -p leveret-examples --example log_fanout                                 # the broker's own log
//! ```
//!
//! These start a broker of their own. In earnest the parts are processes around one that runs:
//!
//! ```sh
//! cargo run -p leveret-examples --example log_fanout -- subscribe --url leveret://127.0.0.1 --pattern '*.error'
//! cargo run -p leveret-examples --example log_fanout -- emit --url leveret://127.0.0.1 --follow /var/log/*.log
//! ```
//!
//! What to look at: a subscriber's queue is durable and keeps lines while the subscriber is away, so stop one, emit,
//! and start it again. The closing table counts what each got. All lines that are there at once are published
//! together and share one sync of the disk, which is what makes confirmed publishing cheap.

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::{Args, Parser, Subcommand};
use leveret_broker::Broker;
use leveret_broker::logs::LogTap;
use leveret_client::{Binding, Client, Consumer, Delivery, Exchange, Message, Queue};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer, SubscriberExt};

/// How many lines are published before their confirms are awaited; also how many wait between readers and publisher.
const BATCH_LINES_MAX: usize = 1024;
/// A longer line is published in pieces.
const LINE_BYTES_MAX: usize = 64 * 1024;
/// How often a followed file is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// How many lines of the broker's own log may wait to be published.
const OWN_LOG_LINES_MAX: usize = 1024;
/// The property `type` of the last message that a subscriber gets.
const END: &str = "end";

/// Fans log lines out to subscribers by `<source>.<severity>`.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,
    #[command(flatten)]
    input: Input,
}

#[derive(Subcommand)]
enum Role {
    /// Publishes lines to a broker that runs.
    Emit {
        /// Such as `leveret://user:password@host:7672/vhost`.
        #[arg(long)]
        url: String,
        #[command(flatten)]
        input: Input,
    },
    /// Prints the lines that match a pattern, from a broker that runs, until Ctrl-C.
    Subscribe {
        /// Such as `leveret://user:password@host:7672/vhost`.
        #[arg(long)]
        url: String,
        /// Such as `*.error` or `payments.#`. Subscribers with the same pattern share the lines among them.
        #[arg(long, default_value = "#")]
        pattern: String,
    },
}

#[derive(Args)]
struct Input {
    /// Log files; `-` is the standard input. Without any, the log of the broker itself.
    files: Vec<PathBuf>,
    /// Waits for more lines at the ends of the files, until Ctrl-C; follows files that are rotated or truncated.
    #[arg(long, requires = "files")]
    follow: bool,
}

/// Where lines are published, and where their keys say how grave they are.
#[derive(Clone, Copy)]
struct Feed {
    exchange: &'static str,
    severity: fn(&str) -> Option<&str>,
}

/// `<source>.<severity>`, published by this program.
const LOGS: Feed = Feed { exchange: "logs", severity: |key| key.rsplit('.').next() };
/// `<severity>.<module>`, published by the broker.
const OWN_LOG: Feed = Feed { exchange: "amq.leveret.log", severity: |key| key.split('.').next() };

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Arguments { role, input } = Arguments::parse();
    match role {
        Some(Role::Emit { url, input }) => emit_to(&url, &input).await,
        Some(Role::Subscribe { url, pattern }) => subscribe_to(&url, &pattern).await,
        None if input.files.is_empty() => fan_out_own_log().await,
        None => fan_out(&input).await,
    }
}

/// The whole way in one process: a broker, three subscribers, and the files.
async fn fan_out(input: &Input) -> anyhow::Result<()> {
    let source = input.files.first().map(|path| source_of(path)).unwrap_or_default();
    let lines = input.open()?;
    let broker = Broker::builder().temporary().start().await?;
    let client = Client::connect(&broker.url()).await?;
    client.declare(Exchange::topic(LOGS.exchange).durable()).await?;
    let patterns = [
        ("alerts", "*.error".to_owned()),
        (&*format!("{source}-team"), format!("{source}.#")),
        ("archive", "#".to_owned()),
    ];
    let mut subscribers = Subscribers::start(&client, LOGS, &patterns).await?;
    let emitted = tokio::select! {
        emitted = emit(&client, lines) => emitted?,
        error = subscribers.failed() => return Err(error),
    };
    let tallies = subscribers.finish(&client).await?;
    emitted.print();
    print_table(&tallies);
    client.close().await?;
    Ok(broker.stop().await?)
}

/// As [`fan_out`], with what the broker itself logs.
async fn fan_out_own_log() -> anyhow::Result<()> {
    let (tap, events) = LogTap::new(OWN_LOG_LINES_MAX);
    let filter = Targets::new().with_target("leveret_broker", LevelFilter::DEBUG);
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(tap.with_filter(filter)))?;
    let broker = Broker::builder().temporary().log_events(events).start().await?;
    let client = Client::connect(&broker.url()).await?;
    let patterns = [
        ("alerts", "warn.#".to_owned()),
        ("network", "*.connection.#".to_owned()),
        ("archive", "#".to_owned()),
    ];
    let subscribers = Subscribers::start(&client, OWN_LOG, &patterns).await?;
    give_the_broker_something_to_log(&client, &broker.url()).await?;
    let tallies = subscribers.finish(&client).await?;
    print_table(&tallies);
    client.close().await?;
    Ok(broker.stop().await?)
}

async fn emit_to(url: &str, input: &Input) -> anyhow::Result<()> {
    ensure!(!input.files.is_empty(), "name the files to emit, or - for the standard input");
    let lines = input.open()?;
    let client = Client::builder(url).name("log_fanout emit").connect().await?;
    client.declare(Exchange::topic(LOGS.exchange).durable()).await?;
    emit(&client, lines).await?.print();
    Ok(client.close().await?)
}

async fn subscribe_to(url: &str, pattern: &str) -> anyhow::Result<()> {
    let client = Client::builder(url).name("log_fanout subscribe").connect().await?;
    client.declare(Exchange::topic(LOGS.exchange).durable()).await?;
    let subscriber = Subscriber::new(LOGS, pattern, pattern);
    let lines = subscriber.bind(&client).await?;
    let mut interrupts = signal(SignalKind::interrupt())?;
    println!("waiting for {pattern} in the queue {}; Ctrl-C ends", subscriber.queue);
    let interrupted = async { interrupts.recv().await.unwrap_or_default() };
    print_table(&[subscriber.print_lines(lines, interrupted).await?]);
    Ok(client.close().await?)
}

/// What became of the lines that were published.
#[derive(Default)]
struct Emitted {
    lines: u64,
    unheard: u64,
}

/// Publishes until there are no more lines, or until Ctrl-C.
async fn emit(client: &Client, mut lines: mpsc::Receiver<io::Result<Line>>) -> anyhow::Result<Emitted> {
    // Nobody has to listen: a line without a subscriber is counted and not an error.
    let logs = client.publisher(LOGS.exchange).mandatory(false).open().await?;
    let mut emitted = Emitted::default();
    let mut batch = Vec::with_capacity(BATCH_LINES_MAX);
    // Made once: an interrupt that comes while confirms are awaited is seen afterwards.
    let mut interrupts = signal(SignalKind::interrupt())?;
    loop {
        tokio::select! {
            count = lines.recv_many(&mut batch, BATCH_LINES_MAX) => if count == 0 { break },
            _ = interrupts.recv() => break,
        }
        let mut receipts = Vec::with_capacity(batch.len());
        for line in batch.drain(..) {
            let line = line?;
            receipts.push(logs.send(&line.routing_key(), Message::new(line.text)).await?);
        }
        for receipt in receipts {
            emitted.lines += 1;
            emitted.unheard += u64::from(receipt.confirmed().await?.queues == 0);
        }
    }
    Ok(emitted)
}

impl Emitted {
    fn print(&self) {
        println!("\n{} lines published and confirmed, {} of them unheard", self.lines, self.unheard);
    }
}

/// One who wants the lines that match a pattern.
struct Subscriber {
    name: String,
    pattern: String,
    queue: String,
    feed: Feed,
}

impl Subscriber {
    fn new(feed: Feed, name: &str, pattern: &str) -> Self {
        let queue = format!("{}.{name}", feed.exchange.trim_start_matches("amq."));
        Self { name: name.to_owned(), pattern: pattern.to_owned(), queue, feed }
    }

    /// From here on its queue keeps what matches, also while nobody reads it.
    async fn bind(&self, client: &Client) -> anyhow::Result<Consumer> {
        client.declare(Queue::durable(&self.queue)).await?;
        client.bind(Binding::queue(&self.queue).to(self.feed.exchange).key(&self.pattern)).await?;
        Ok(client.consumer(&self.queue).open().await?)
    }

    /// Prints and counts until the emitter announces the end, or until `stop`.
    async fn print_lines(self, mut lines: Consumer, stop: impl Future<Output = ()>) -> anyhow::Result<Tally> {
        let mut stop = std::pin::pin!(stop);
        let mut by_severity = BTreeMap::new();
        loop {
            let delivery = tokio::select! {
                delivery = lines.try_next() => delivery?.context("the consumer ended")?,
                () = &mut stop => break,
            };
            if is_end(&delivery)? {
                delivery.ack();
                break;
            }
            let (name, key) = (&self.name, delivery.routing_key());
            writeln!(io::stdout(), "{name:<14} {key:<16} {}", printable(delivery.body()))?;
            let severity = (self.feed.severity)(key).and_then(Severity::from_name).unwrap_or(Severity::Info);
            *by_severity.entry(severity).or_default() += 1;
            // Only now: if this program dies on the way, the line comes again.
            delivery.ack();
        }
        Ok(Tally { subscriber: self, by_severity })
    }
}

/// The subscribers of this process, each in its own task.
struct Subscribers {
    queues: Vec<String>,
    tasks: JoinSet<anyhow::Result<Tally>>,
}

impl Subscribers {
    async fn start(client: &Client, feed: Feed, patterns: &[(&str, String)]) -> anyhow::Result<Self> {
        let (mut queues, mut tasks) = (Vec::new(), JoinSet::new());
        for (name, pattern) in patterns {
            let subscriber = Subscriber::new(feed, name, pattern);
            let lines = subscriber.bind(client).await?;
            println!("{name:<14} wants {pattern}");
            queues.push(subscriber.queue.clone());
            tasks.spawn(subscriber.print_lines(lines, std::future::pending()));
        }
        println!();
        Ok(Self { queues, tasks })
    }

    /// Waits until one of them cannot go on, as when nobody reads the standard output any more.
    async fn failed(&mut self) -> anyhow::Error {
        match self.tasks.join_next().await {
            Some(Ok(Err(error))) => error,
            Some(Err(error)) => error.into(),
            Some(Ok(Ok(_))) | None => anyhow::anyhow!("a subscriber ended early"),
        }
    }

    /// Lets them finish what is in their queues. The default exchange routes by the names of queues, and a queue
    /// keeps its order: a message to the queue itself comes last.
    async fn finish(self, client: &Client) -> anyhow::Result<Vec<Tally>> {
        let direct = client.publisher("").open().await?;
        for queue in &self.queues {
            direct.publish(queue, Message::default().kind(END)).await?;
        }
        let mut tallies = self.tasks.join_all().await.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
        tallies.sort_by_key(|tally| self.queues.iter().position(|queue| *queue == tally.subscriber.queue));
        Ok(tallies)
    }
}

fn is_end(delivery: &Delivery) -> anyhow::Result<bool> {
    Ok(delivery.properties()?.kind.as_deref() == Some(END))
}

/// Lines come from anywhere; a terminal must not obey them.
fn printable(line: &[u8]) -> String {
    String::from_utf8_lossy(line)
        .replace(|character: char| character.is_control() && character != '\t', "\u{fffd}")
}

/// What a subscriber got.
struct Tally {
    subscriber: Subscriber,
    by_severity: BTreeMap<Severity, u64>,
}

fn print_table(tallies: &[Tally]) {
    println!("\nsubscriber     pattern          messages   error    warn    info   debug");
    for Tally { subscriber, by_severity } in tallies {
        let messages: u64 = by_severity.values().sum();
        print!("{:<14} {:<16} {messages:>8}", subscriber.name, subscriber.pattern);
        for severity in Severity::ALL {
            print!(" {:>7}", by_severity.get(&severity).copied().unwrap_or_default());
        }
        println!();
    }
}

/// A visitor who makes mistakes. Returns when the broker has logged the last of it.
async fn give_the_broker_something_to_log(client: &Client, url: &str) -> anyhow::Result<()> {
    let watched = client.declare(Queue::exclusive()).await?.name();
    client.bind(Binding::queue(&watched).to(OWN_LOG.exchange).key("*.connection")).await?;
    let mut watch = client.consumer(&watched).without_acks().open().await?;

    let visitor = Client::builder(url).name("visitor").connect().await?;
    visitor.declare(Exchange::topic("orders").alternate("nowhere")).await?;
    let orders = visitor.publisher("orders").mandatory(false).open().await?;
    orders.publish("order.placed", "to an exchange whose alternate does not exist").await?;
    visitor.declare(Queue::transient("short-lived").auto_delete()).await?;
    drop(visitor.consumer("short-lived").open().await?);
    let guess = Client::builder(url).credentials("guest", "123456").connect().await;
    ensure!(guess.is_err(), "a wrong password must not let anybody in");
    // Logged when the stranger has gone, which may be a moment after it was told.
    wait_for_line(&mut watch, "a client was not let in").await?;
    visitor.close().await?;
    wait_for_line(&mut watch, "disconnected").await
}

async fn wait_for_line(log: &mut Consumer, beginning: &str) -> anyhow::Result<()> {
    while let Some(line) = log.try_next().await? {
        if line.body().starts_with(beginning.as_bytes()) {
            return Ok(());
        }
    }
    bail!("the broker ended before it logged: {beginning}")
}

/// How grave a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Severity {
    Error,
    Warn,
    Info,
    Debug,
}

impl Severity {
    const ALL: [Self; 4] = [Self::Error, Self::Warn, Self::Info, Self::Debug];

    fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }

    /// The words that syslog, nginx, PostgreSQL and the usual libraries have for it.
    fn from_name(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "error" | "err" | "fatal" | "critical" | "crit" | "alert" | "emerg" | "panic" => {
                Some(Self::Error)
            }
            "warn" | "warning" => Some(Self::Warn),
            "info" | "notice" | "log" => Some(Self::Info),
            "debug" | "trace" => Some(Self::Debug),
            _ => None,
        }
    }

    /// A field that says so (`"level":"warn"`, `level=warn`) decides; else the first word that stands there as a
    /// mark and not in a sentence: `[error]`, `warning:`, `ERROR`. A line without either is [`Severity::Info`].
    fn of_line(line: &str) -> Self {
        let mut marked = None;
        let mut after_field_name = false;
        for piece in line.split_inclusive(|character: char| !character.is_ascii_alphanumeric()) {
            let word = piece.trim_end_matches(|character: char| !character.is_ascii_alphanumeric());
            if word.is_empty() {
                continue;
            }
            let end = piece.chars().next_back();
            let severity = Self::from_name(word);
            if after_field_name && let Some(severity) = severity {
                return severity;
            }
            after_field_name = matches!(word, "level" | "severity") && matches!(end, Some('"' | '='));
            if matches!(end, Some(']' | ':')) || !word.contains(|letter: char| letter.is_ascii_lowercase()) {
                marked = marked.or(severity);
            }
        }
        marked.unwrap_or(Self::Info)
    }
}

/// A line, and where it is from.
struct Line {
    source: Arc<str>,
    text: Vec<u8>,
}

impl Line {
    fn routing_key(&self) -> String {
        let severity = Severity::of_line(&String::from_utf8_lossy(&self.text));
        format!("{}.{}", self.source, severity.as_str())
    }
}

/// The file's name without its extension, as one word of a routing key.
fn source_of(path: &Path) -> String {
    if path == Path::new("-") {
        return "stdin".to_owned();
    }
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let word = stem.chars().map(|character| match character {
        '-' | '_' => character,
        _ if character.is_alphanumeric() => character,
        _ => '-',
    });
    // A routing key has at most 255 bytes, and a character up to 4.
    word.take(50).collect()
}

impl Input {
    /// Starts to read everything at the same time. Reading blocks, so each source has a thread.
    fn open(&self) -> anyhow::Result<mpsc::Receiver<io::Result<Line>>> {
        let (out, lines) = mpsc::channel(BATCH_LINES_MAX);
        for path in &self.files {
            let out = Lines { source: source_of(path).into(), partial: Vec::new(), out: out.clone() };
            if path == Path::new("-") {
                std::thread::spawn(move || out.finish(|out| out.read(&mut io::stdin().lock())));
            } else {
                let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
                let (path, follow) = (path.clone(), self.follow);
                std::thread::spawn(move || out.finish(|out| out.read_file(file, &path, follow)));
            }
        }
        Ok(lines)
    }
}

/// Cuts one source into lines.
struct Lines {
    source: Arc<str>,
    /// The beginning of a line whose end has not been written yet.
    partial: Vec<u8>,
    out: mpsc::Sender<io::Result<Line>>,
}

impl Lines {
    /// Runs `read`, then hands over its error, or what it left as a last line without an end.
    fn finish(mut self, read: impl FnOnce(&mut Self) -> io::Result<()>) {
        match read(&mut self) {
            Ok(()) => self.send(),
            // If nobody takes the error, nobody waits for the lines either.
            Err(error) => drop(self.out.blocking_send(Err(error))),
        }
    }

    /// Reads the lines up to the end as it is now.
    fn read(&mut self, file: &mut impl BufRead) -> io::Result<()> {
        loop {
            let room = LINE_BYTES_MAX - self.partial.len();
            let read = io::Read::take(&mut *file, room as u64).read_until(b'\n', &mut self.partial)?;
            if read == 0 || self.out.is_closed() {
                return Ok(());
            }
            if self.partial.ends_with(b"\n") || self.partial.len() == LINE_BYTES_MAX {
                self.send();
            }
        }
    }

    /// Reads a file; with `follow`, for as long as anybody takes the lines.
    fn read_file(&mut self, file: File, path: &Path, follow: bool) -> io::Result<()> {
        let mut file = BufReader::new(file);
        loop {
            self.read(&mut file)?;
            if !follow || self.out.is_closed() {
                return Ok(());
            }
            std::thread::sleep(POLL_INTERVAL);
            // A file that is being rotated may be missing for a moment; the old one is read until there is a new one.
            let Ok(successor) = File::open(path) else { continue };
            let (old, new) = (file.get_ref().metadata()?, successor.metadata()?);
            if (old.dev(), old.ino()) != (new.dev(), new.ino()) {
                // What was written between the last look and the rotation.
                self.read(&mut file)?;
                self.send();
                file = BufReader::new(successor);
            } else if new.len() < file.stream_position()? {
                self.partial.clear();
                file.seek(SeekFrom::Start(0))?;
            }
        }
    }

    /// Hands over the line that is complete, unless it is empty.
    fn send(&mut self) {
        let mut text = std::mem::take(&mut self.partial);
        text.truncate(text.trim_ascii_end().len());
        if !text.is_empty() {
            // An error says that nobody waits for lines any more, which `read` sees by itself.
            let _ = self.out.blocking_send(Ok(Line { source: Arc::clone(&self.source), text }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_severity_is_read_from_the_usual_formats() {
        use Severity::{Debug, Error, Info, Warn};
        let cases = [
            (Error, "2026/03/02 09:16:48 [error] 815#815: *57 upstream timed out"),
            (Error, "2026/03/02 09:17:14 [crit] 815#815: SSL: error:0A00006C"),
            (Error, "Mar  2 09:17:02 db-1 postgres[251]: [9-1] FATAL:  no connection slots"),
            (Error, r#"{"msg":"all is well","level":"error"}"#),
            (Warn, r#"{"level": "warn", "msg": "ERROR budget is low"}"#),
            (Warn, "time=09:14 level=warning msg=\"last error: none\""),
            (Warn, "Mar  2 09:17:02 host cron[7]: warning: the job takes long"),
            (Warn, "2026-03-02T09:14:00Z  WARN leveret_broker::listener: a connection could not be accepted"),
            (Info, "[INFO] log level: debug, no errors"),
            (Info, "GET /help/error-codes HTTP/1.1 200"),
            (Info, ""),
            (Debug, "2026-03-02 09:14:00 [DEBUG] pool.size=16"),
        ];
        for (severity, line) in cases {
            assert_eq!(Severity::of_line(line), severity, "{line}");
        }
    }

    #[test]
    fn a_source_is_one_word_of_a_routing_key() {
        for (path, source) in [
            ("-", "stdin"),
            ("/var/log/web.log", "web"),
            ("shop.web-1.log", "shop-web-1"),
            ("with space", "with-space"),
        ] {
            assert_eq!(source_of(Path::new(path)), source);
        }
        assert!(source_of(Path::new(&"ü".repeat(300))).len() < 250);
    }

    #[test]
    fn a_line_without_an_end_is_cut_and_kept_to_its_last_byte() {
        let (out, mut lines) = mpsc::channel(8);
        let text = [vec![b'x'; LINE_BYTES_MAX + 1], b"\r\n\nlast".to_vec()].concat();
        Lines { source: "a".into(), partial: Vec::new(), out }.finish(|out| out.read(&mut text.as_slice()));
        let lengths: Vec<usize> =
            std::iter::from_fn(|| lines.blocking_recv()).map(|line| line.unwrap().text.len()).collect();
        assert_eq!(lengths, [LINE_BYTES_MAX, 1, 4]);
    }
}
