//! Logs: to standard error for people, and through [`LogTap`] into the broker itself, for consumers.
//!
//! A program that embeds the broker installs what it likes instead: [`LogTapLayer`] is a layer like any other.

use std::cell::Cell;
use std::fmt::{self, Write};
use std::io::IsTerminal;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use leveret_protocol::RoutingKey;
use tokio::sync::mpsc;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

/// The longest line of a [`LogEvent`], in bytes. What is beyond is cut off.
pub const LINE_BYTES_MAX: usize = 4096;

/// What is logged: a level, and others for single modules, as in `info,leveret_broker::connection=debug`.
#[derive(Debug, Clone, PartialEq)]
pub struct LogFilter {
    text: String,
    targets: Targets,
}

/// Why a text is not a filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{part:?} is not right; write a level (error, warn, info, debug, trace, off), and module=level after a comma"
)]
pub struct LogFilterError {
    /// The part of the text that is wrong.
    pub part: String,
}

impl FromStr for LogFilter {
    type Err = LogFilterError;

    /// Every part is `level` or `module=level`. A module alone is refused, although it would mean `module=trace`:
    /// a misspelt level, such as `debg`, would look like one and turn everything off but itself.
    fn from_str(text: &str) -> Result<Self, LogFilterError> {
        let mut targets = Targets::new();
        for part in text.split(',').map(str::trim) {
            let (module, level) = part.split_once('=').map_or(("", part), |(module, level)| (module, level));
            let known =
                Some(level.trim()).filter(|level| !level.is_empty() && !level.starts_with(char::is_numeric));
            let Some(level) = known.and_then(|level| level.parse::<LevelFilter>().ok()) else {
                return Err(LogFilterError { part: part.to_owned() });
            };
            targets = match module.trim() {
                "" if part.contains('=') => return Err(LogFilterError { part: part.to_owned() }),
                "" => targets.with_default(level),
                module => targets.with_target(module, level),
            };
        }
        Ok(Self { text: text.to_owned(), targets })
    }
}

impl Default for LogFilter {
    /// `info`.
    fn default() -> Self {
        Self { text: "info".to_owned(), targets: Targets::new().with_default(LevelFilter::INFO) }
    }
}

impl fmt::Display for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A subscriber that writes lines for people to standard error. Layers that are added to it, such as a
/// [`LogTapLayer`], see what passes the filter.
pub fn to_standard_error(
    filter: &LogFilter,
) -> impl Subscriber + for<'span> LookupSpan<'span> + Send + Sync + use<> {
    let stderr = std::io::stderr;
    let lines = tracing_subscriber::fmt::layer().with_ansi(stderr().is_terminal()).with_writer(stderr);
    tracing_subscriber::registry().with(filter.targets.clone()).with(lines)
}

/// One event, ready to be published to `amq.leveret.log`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEvent {
    /// How grave it is.
    pub level: LogLevel,
    /// `<level>.<module>`, such as `warn.connection.reader`: see [`LogTap`].
    pub routing_key: RoutingKey,
    /// The message, then the fields as `name=value`: one line of at most [`LINE_BYTES_MAX`] bytes, in which
    /// control characters are escaped.
    pub line: String,
}

/// The levels that the tap passes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Something failed.
    Error,
    /// Something is not as it should be.
    Warn,
    /// What an operator wants to know of a healthy broker.
    Info,
    /// What a developer wants to know.
    Debug,
}

impl LogLevel {
    /// The level's name in a routing key.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }

    /// `None` for traces: they are too many to be messages.
    fn from_tracing(level: Level) -> Option<Self> {
        match level {
            Level::ERROR => Some(Self::Error),
            Level::WARN => Some(Self::Warn),
            Level::INFO => Some(Self::Info),
            Level::DEBUG => Some(Self::Debug),
            _ => None,
        }
    }
}

/// Offers log events to a reader, through a bounded queue.
///
/// The routing key is `<level>.<module>`. The module is the event's target with dots for `::`; `leveret_broker::`
/// and the `leveret_` of our other crates are left out: `leveret_broker::connection::reader` is
/// `connection.reader`, `leveret_journal::writer` is `journal.writer`, `leveret_broker` is `broker`.
///
/// Logging never waits: when the queue is full, the newest event is dropped and counted.
///
/// **It cannot feed itself** as long as its reader publishes inside [`untapped`](LogTap::untapped): what is
/// logged in there, on that thread, is not offered. Without it, one `debug!` on the way of a message would make a
/// message of each message, for ever. Work that a publish leaves to other threads, such as the journal's, is not
/// covered; those log by the segment and not by the message.
#[derive(Debug)]
pub struct LogTap;

/// The end of a [`LogTap`] that takes events from `tracing`.
#[derive(Debug, Clone)]
pub struct LogTapLayer {
    queue: mpsc::Sender<LogEvent>,
    dropped: Arc<AtomicU64>,
}

/// The end of a [`LogTap`] that gives them to the broker.
#[derive(Debug)]
pub struct LogTapReceiver {
    queue: mpsc::Receiver<LogEvent>,
    dropped: Arc<AtomicU64>,
}

thread_local! {
    /// Whether this thread is inside [`LogTap::untapped`].
    static UNTAPPED: Cell<bool> = const { Cell::new(false) };
}

impl LogTap {
    /// Makes a tap that holds at most `capacity` events (at least one).
    #[allow(clippy::new_ret_no_self, reason = "a tap is its two ends")]
    pub fn new(capacity: usize) -> (LogTapLayer, LogTapReceiver) {
        let (sender, receiver) = mpsc::channel(capacity.max(1));
        let dropped = Arc::new(AtomicU64::new(0));
        (LogTapLayer { queue: sender, dropped: dropped.clone() }, LogTapReceiver { queue: receiver, dropped })
    }

    /// Runs `work`; what it logs on this thread goes everywhere but into a tap. It is not for futures: these
    /// move between threads.
    pub fn untapped<T>(work: impl FnOnce() -> T) -> T {
        /// Restores on the way out, also when `work` panics.
        struct Restore(bool);
        impl Drop for Restore {
            fn drop(&mut self) {
                UNTAPPED.set(self.0);
            }
        }
        let _restore = Restore(UNTAPPED.replace(true));
        work()
    }
}

impl LogTapReceiver {
    /// The next event; `None` once every layer is gone and the queue is empty. Safe to cancel.
    pub async fn recv(&mut self) -> Option<LogEvent> {
        self.queue.recv().await
    }

    /// How many events were dropped because the queue was full, since the start.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl<S: Subscriber> Layer<S> for LogTapLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let Some(level) = LogLevel::from_tracing(*event.metadata().level()) else { return };
        // A thread that is being torn down has no flag any more, and nothing to say either.
        if UNTAPPED.try_with(Cell::get).unwrap_or(true) {
            return;
        }
        // A place first, so that events which nobody will see cost no formatting.
        match self.queue.try_reserve() {
            Ok(place) => place.send(LogEvent {
                level,
                routing_key: routing_key(level, event.metadata().target()),
                line: Line::of(event),
            }),
            Err(mpsc::error::TrySendError::Full(())) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
            Err(mpsc::error::TrySendError::Closed(())) => {}
        }
    }
}

fn routing_key(level: LogLevel, target: &str) -> RoutingKey {
    let module =
        target.strip_prefix("leveret_broker::").or_else(|| target.strip_prefix("leveret_")).unwrap_or(target);
    let module = module.replace("::", ".");
    // A target can be any text. One that is no routing key is still one of its level.
    RoutingKey::new(format!("{}.{module}", level.as_str()))
        .or_else(|_| RoutingKey::new(level.as_str()))
        .unwrap_or_default()
}

/// A line that grows to [`LINE_BYTES_MAX`] and stays a line.
#[derive(Default)]
struct Line {
    text: String,
    full: bool,
}

impl Line {
    fn of(event: &Event<'_>) -> String {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let Fields { mut message, others } = fields;
        // The cut-off fields still fit what is written: both parts are lines already.
        let rest = if message.text.is_empty() { others.text.trim_start() } else { &others.text };
        let _ = message.write_str(rest);
        message.text
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            let start = self.text.len();
            if character.is_control() {
                self.text.extend(character.escape_default());
            } else {
                self.text.push(character);
            }
            self.full = self.full || self.text.len() > LINE_BYTES_MAX;
            if self.full {
                self.text.truncate(start.min(LINE_BYTES_MAX));
                return Err(fmt::Error);
            }
        }
        Ok(())
    }
}

/// The message comes first in a line, wherever it stands among the fields.
#[derive(Default)]
struct Fields {
    message: Line,
    others: Line,
}

impl Fields {
    fn put(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        // An error only says that the line is full, and then the rest is what gets lost.
        let _ = match field.name() {
            "message" => self.message.write_fmt(value),
            name => write!(self.others, " {name}={value}"),
        };
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format_args!("{value:?}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.put(field, format_args!("{value}"));
    }
}

#[cfg(test)]
mod tests {
    use tracing::subscriber::with_default;
    use tracing::{debug, error, info, trace, warn};

    use super::*;

    fn tapped(capacity: usize, work: impl FnOnce()) -> LogTapReceiver {
        let (layer, receiver) = LogTap::new(capacity);
        with_default(tracing_subscriber::registry().with(layer), work);
        receiver
    }

    fn next(receiver: &mut LogTapReceiver) -> Option<(String, String)> {
        let event = receiver.queue.try_recv().ok()?;
        Some((event.routing_key.to_string(), event.line))
    }

    #[test]
    fn events_become_routing_keys_and_lines() {
        let long = "m".repeat(300);
        let mut receiver = tapped(16, || {
            info!(target: "leveret_broker::connection::reader", peer = %"127.0.0.1:5", frames = 3, "slow {}", "peer");
            warn!(target: "leveret_journal::writer", text = "two\nlines", "disk\u{1b}[31m");
            error!(target: "leveret_broker", "stops");
            debug!(target: "h2::codec", field = 1);
            trace!("never");
        });
        let cases = [
            ("info.connection.reader", "slow peer peer=127.0.0.1:5 frames=3"),
            ("warn.journal.writer", "disk\\u{1b}[31m text=\"two\\nlines\""),
            ("error.broker", "stops"),
            ("debug.h2.codec", "field=1"),
        ];
        for (routing_key, line) in cases {
            assert_eq!(next(&mut receiver), Some((routing_key.to_owned(), line.to_owned())));
        }
        assert_eq!(next(&mut receiver), None);
        assert_eq!(routing_key(LogLevel::Warn, &long).as_str(), "warn");
        assert_eq!(routing_key(LogLevel::Warn, "two\nlines").as_str(), "warn");
    }

    #[test]
    fn a_line_has_an_end() {
        for text in ["x".repeat(LINE_BYTES_MAX + 1), "ü".repeat(LINE_BYTES_MAX), "\n".repeat(LINE_BYTES_MAX)]
        {
            let mut receiver = tapped(1, || info!(text, "{text} {text}"));
            let (_, line) = next(&mut receiver).unwrap();
            assert!((LINE_BYTES_MAX - 2..=LINE_BYTES_MAX).contains(&line.len()), "{}", line.len());
        }
    }

    #[test]
    fn a_full_tap_drops_the_newest_and_counts_it() {
        let mut receiver = tapped(2, || (0..5).for_each(|number| info!("{number}")));
        assert_eq!(receiver.dropped(), 3);
        assert_eq!(next(&mut receiver).unwrap().1, "0");
        assert_eq!(next(&mut receiver).unwrap().1, "1");
        assert_eq!(next(&mut receiver), None);
    }

    #[test]
    fn a_tap_does_not_feed_itself() {
        let mut receiver = tapped(8, || {
            info!("before");
            let inner = LogTap::untapped(|| {
                info!("unheard");
                LogTap::untapped(|| info!("unheard"));
                info!("unheard");
                5
            });
            info!("after {inner}");
            let _ = std::panic::catch_unwind(|| LogTap::untapped(|| panic!("on purpose")));
            info!("after a panic");
        });
        for line in ["before", "after 5", "after a panic"] {
            assert_eq!(next(&mut receiver).unwrap().1, line);
        }
        assert_eq!(next(&mut receiver), None);
        assert_eq!(receiver.dropped(), 0);
    }

    #[tokio::test]
    async fn a_reader_learns_when_there_is_nothing_more_to_come() {
        let mut receiver = tapped(2, || info!("last"));
        assert_eq!(
            receiver.recv().await.map(|event| (event.level, event.line)),
            Some((LogLevel::Info, "last".into()))
        );
        assert_eq!(receiver.recv().await, None);
    }

    #[test]
    fn logging_goes_on_without_a_reader() {
        let (layer, receiver) = LogTap::new(1);
        drop(receiver);
        with_default(tracing_subscriber::registry().with(layer.clone()), || {
            (0..3).for_each(|number| info!("{number}"));
        });
        assert_eq!(layer.dropped.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_filter_is_levels_for_modules() {
        let mut receiver = {
            let filter: LogFilter = "warn, leveret_broker::queue=debug,h2=off".parse().unwrap();
            let (layer, receiver) = LogTap::new(8);
            let subscriber = tracing_subscriber::registry().with(filter.targets.clone()).with(layer);
            with_default(subscriber, || {
                info!("no");
                warn!("yes");
                debug!(target: "leveret_broker::queue::state", "yes");
                error!(target: "h2", "no");
            });
            receiver
        };
        assert_eq!(next(&mut receiver).unwrap().1, "yes");
        assert_eq!(next(&mut receiver).unwrap().1, "yes");
        assert_eq!(next(&mut receiver), None);
        for wrong in ["", "debg", "info,", "=debug", "h2=", "h2=loud", "3", "leveret_broker"] {
            assert!(wrong.parse::<LogFilter>().is_err(), "{wrong:?}");
        }
    }
}
