//! Bars for those who wait, on standard error, and nowhere but on a terminal.

use std::sync::LazyLock;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::workload::Workload;

/// How far a run is.
pub(crate) struct Progress {
    bar: ProgressBar,
    /// Milliseconds count, and not messages.
    timed: bool,
}

/// All bars that are shown, since a run of a comparison has one below that of the comparison. They are drawn on standard
/// error, and hidden where that is no terminal.
static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

const TEMPLATE: &str = "{bar:40} {percent:>3} % {msg}";

impl Progress {
    /// Of one run.
    pub(crate) fn of(workload: &Workload) -> Self {
        let timed = workload.seconds.is_some();
        let length = match workload.seconds {
            Some(seconds) => Duration::from_secs_f64(seconds + workload.warm_up).as_millis() as u64,
            None => workload.messages * workload.copies(),
        };
        Self { bar: bar(length), timed }
    }

    /// Of so many steps.
    pub(crate) fn steps(count: u64) -> Self {
        Self { bar: bar(count), timed: false }
    }

    pub(crate) fn show(&self, elapsed: Duration, messages: u64) {
        self.bar.set_position(if self.timed { elapsed.as_millis() as u64 } else { messages });
    }

    /// Goes one step on, and says what comes.
    pub(crate) fn step(&self, what: &str) {
        self.bar.set_message(what.to_owned());
        self.bar.inc(1);
    }

    /// A line that stays, above the bars.
    pub(crate) fn say(line: &str) {
        BARS.suspend(|| println!("{line}"));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn bar(length: u64) -> ProgressBar {
    let bar = BARS.add(ProgressBar::new(length));
    if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
        bar.set_style(style);
    }
    bar
}
