//! Whether the broker may take publishes: not while it is short of disk or memory.
//!
//! One state for the whole broker. Who publishes asks with one relaxed load; who has to tell clients watches. Consumers,
//! settles and requests never ask, since they are what makes room.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use leveret_journal::{Disk as _, RealDisk};
use tokio::sync::watch;

/// How often it looks: seldom, since the journal tells by itself when it runs short, and often while clients wait.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_WHILE_ON: Duration = Duration::from_millis(100);

const DISK: &str = "the broker's disk is almost full";
const MEMORY: &str = "the broker is short of memory";

/// The state.
#[derive(Debug)]
pub struct Pressure {
    on: AtomicBool,
    causes: watch::Sender<Causes>,
}

/// Why publishes are held back: each cause with a sentence for people.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Causes(BTreeMap<Cause, Arc<str>>);

/// What publishes are held back for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Cause {
    /// The disk is almost full.
    Disk,
    /// Memory is short.
    Memory,
    /// The program that the broker is embedded in has its reasons.
    Program,
}

/// From where on publishes are held back, and until where. All in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Levels {
    /// Held back while less than this is free on the disk.
    pub disk_low: u64,
    /// Until this is free again.
    pub disk_high: u64,
    /// Held back while the process has more than this in memory, and until it has a tenth less.
    pub resident_max: u64,
}

/// What was found at one look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reading {
    /// The journal cannot keep as many files ready as it should.
    pub journal_short: bool,
    /// Free bytes on the disk of the data; `None` if that cannot be told.
    pub free_bytes: Option<u64>,
    /// Bytes of the process in memory; `None` if that cannot be told.
    pub resident_bytes: Option<u64>,
}

impl Default for Pressure {
    fn default() -> Self {
        Self { on: AtomicBool::new(false), causes: watch::Sender::new(Causes::default()) }
    }
}

impl Causes {
    /// The sentence of the first cause, if there is any.
    pub fn reason(&self) -> Option<Arc<str>> {
        self.0.values().next().cloned()
    }

    fn has(&self, cause: Cause) -> bool {
        self.0.contains_key(&cause)
    }
}

impl Pressure {
    /// Whether publishes are held back.
    pub fn is_on(&self) -> bool {
        // A publish that slips through is one that came a moment earlier; the reserve is for these.
        self.on.load(Ordering::Relaxed)
    }

    /// Why publishes are held back, if they are, and every change of that.
    pub fn watch(&self) -> watch::Receiver<Causes> {
        self.causes.subscribe()
    }

    /// Waits until publishes are taken.
    pub async fn released(&self) {
        let mut causes = self.watch();
        // It ends with the broker, and so do those who wait.
        let _ = causes.wait_for(|causes| causes.0.is_empty()).await;
    }

    /// Holds publishes back until this cause is [released](Pressure::release). The reason goes to clients.
    pub fn hold(&self, cause: Cause, reason: &str) {
        self.causes.send_if_modified(|causes| {
            // Under the same lock, so that the flag and the causes never part.
            self.on.store(true, Ordering::Relaxed);
            let changed = causes.0.get(&cause).map(AsRef::as_ref) != Some(reason);
            if changed {
                causes.0.insert(cause, reason.into());
            }
            changed
        });
    }

    /// Takes publishes again, as far as this cause goes.
    pub fn release(&self, cause: Cause) {
        self.causes.send_if_modified(|causes| {
            let changed = causes.0.remove(&cause).is_some();
            self.on.store(!causes.0.is_empty(), Ordering::Relaxed);
            changed
        });
    }

    /// The journal says that the disk has no room for more.
    pub(crate) fn hold_for_disk(&self) {
        self.hold(Cause::Disk, DISK);
    }

    /// Watches the disk and the memory for as long as it is polled.
    /// `news` tells, by way of `is_short`, whether the journal cannot keep as many files ready as it should.
    pub(crate) async fn run<N>(
        &self,
        levels: Levels,
        dir: PathBuf,
        mut news: watch::Receiver<N>,
        is_short: impl Fn(&N) -> bool,
    ) {
        loop {
            let told = is_short(&news.borrow_and_update());
            // A system call that may take long on a disk that is in trouble.
            let looked = tokio::task::spawn_blocking({
                let dir = dir.clone();
                move || look(&dir, told)
            });
            let Ok(reading) = looked.await else { return };
            self.judge(reading, levels);
            let pause = if self.is_on() { PAUSE_WHILE_ON } else { PAUSE };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                changed = news.wait_for(|news| is_short(news) != told) => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// With hysteresis: what is short stays so until there is clearly enough, or publishers would start and stop with
    /// every message that leaves.
    fn judge(&self, reading: Reading, levels: Levels) {
        let Reading { journal_short, free_bytes, resident_bytes } = reading;
        let before = self.causes.borrow().clone();
        let free_level = if before.has(Cause::Disk) { levels.disk_high } else { levels.disk_low };
        let disk_low = free_bytes.is_some_and(|free| free < free_level);
        let tenth = if before.has(Cause::Memory) { levels.resident_max / 10 } else { 0 };
        let much_memory = resident_bytes.is_some_and(|resident| resident > levels.resident_max - tenth);
        for (short, cause, reason) in
            [(journal_short || disk_low, Cause::Disk, DISK), (much_memory, Cause::Memory, MEMORY)]
        {
            if short {
                self.hold(cause, reason);
            } else {
                self.release(cause);
            }
            if short != before.has(cause) {
                tracing::warn!(
                    ?cause,
                    short,
                    ?reading,
                    ?levels,
                    "publishers are told whether they may go on"
                );
            }
        }
    }
}

fn look(dir: &Path, journal_short: bool) -> Reading {
    Reading {
        journal_short,
        free_bytes: RealDisk.free_bytes(dir).ok(),
        resident_bytes: super::resident_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEVELS: Levels = Levels { disk_low: 100, disk_high: 150, resident_max: 1000 };

    fn with(free_bytes: u64, journal_short: bool, resident_bytes: u64) -> Reading {
        Reading { journal_short, free_bytes: Some(free_bytes), resident_bytes: Some(resident_bytes) }
    }

    #[test]
    fn what_is_short_stays_so_until_there_is_clearly_enough() {
        let pressure = Pressure::default();
        let steps = [
            (with(100, false, 1000), (false, false)),
            (with(99, false, 0), (true, false)),
            (with(149, false, 0), (true, false)),
            (with(150, false, 1001), (false, true)),
            (with(149, false, 901), (false, true)),
            (with(149, false, 900), (false, false)),
            (with(500, true, 0), (true, false)),
            (with(149, false, 0), (true, false)),
            (with(500, false, 0), (false, false)),
            (Reading::default(), (false, false)),
        ];
        for (index, (reading, (disk, memory))) in steps.into_iter().enumerate() {
            pressure.judge(reading, LEVELS);
            let causes = pressure.watch().borrow().clone();
            let found = (causes.has(Cause::Disk), causes.has(Cause::Memory));
            assert_eq!((found, pressure.is_on()), ((disk, memory), disk || memory), "step {index}");
        }
        // The journal says so at once, and the next look goes by the higher level.
        pressure.hold_for_disk();
        pressure.judge(with(149, false, 0), LEVELS);
        assert!(pressure.is_on());
        pressure.judge(with(150, false, 0), LEVELS);
        assert!(!pressure.is_on());
    }

    #[test]
    fn a_watcher_is_told_of_changes_and_only_of_these() {
        let pressure = Pressure::default();
        let mut watch = pressure.watch();
        pressure.release(Cause::Disk);
        assert!(!pressure.is_on() && !watch.has_changed().unwrap());
        for reason in ["a", "b"] {
            pressure.hold(Cause::Program, reason);
            assert!(pressure.is_on() && watch.has_changed().unwrap());
            assert_eq!(watch.borrow_and_update().reason().as_deref(), Some(reason));
            pressure.hold(Cause::Program, reason);
            assert!(!watch.has_changed().unwrap());
        }
        pressure.hold(Cause::Disk, "first");
        pressure.release(Cause::Program);
        assert!(pressure.is_on(), "there is another cause");
        assert_eq!(watch.borrow_and_update().reason().as_deref(), Some("first"));
        pressure.release(Cause::Disk);
        assert!(!pressure.is_on() && watch.borrow().reason().is_none());
    }
}
