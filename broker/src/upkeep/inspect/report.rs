//! An inspection as a person reads it.

use std::fmt;

use super::{Inspection, QueueFigures};

/// How many places of lost messages are listed for a queue; further ones are counted.
const PLACES_MAX: usize = 20;

impl Inspection {
    /// Whether a broker would refuse to start on it.
    pub fn is_damaged(&self) -> bool {
        !self.journal.damage.is_empty() || self.checkpoint_damage.is_some()
    }

    fn segments(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let journal = &self.journal;
        let recovery = &journal.recovery;
        let stop = if recovery.clean { "stopped in good order" } else { "not stopped in good order" };
        let (segments, size) = (journal.segments.len(), journal.segment_bytes);
        writeln!(f, "journal: {segments} segments of {size} bytes, {} spare files, {stop}", journal.spares)?;
        if recovery.torn_bytes > 0 {
            let torn = recovery.torn_bytes;
            writeln!(f, "journal: a crash left {torn} bytes behind its end that were never confirmed")?;
        }
        if segments > 0 {
            writeln!(
                f,
                "\n{:>16} {:>12} {:>14} {:>14} {:>6}",
                "segment", "records", "bytes", "live bytes", "live"
            )?;
        }
        for segment in &journal.segments {
            let live = self.live_bytes.get(&segment.number).copied().unwrap_or(0);
            let percent = (live * 100).checked_div(segment.bytes).unwrap_or(0);
            let (number, records, bytes) = (segment.number, segment.records, segment.bytes);
            writeln!(f, "{number:>16x} {records:>12} {bytes:>14} {live:>14} {percent:>5}%")?;
        }
        Ok(())
    }

    fn queues(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (definitions, queues) = (self.definitions, self.queues.len());
        writeln!(f, "\ndefinitions: {definitions}, of which {queues} are durable queues")?;
        if queues > 0 {
            writeln!(
                f,
                "\n{:>12} {:>14}  queue (messages that consumers held count, too)",
                "messages", "bytes"
            )?;
        }
        for queue in &self.queues {
            writeln!(f, "{:>12} {:>14}  {}", queue.messages, queue.bytes, queue.title())?;
        }
        Ok(())
    }

    fn damage(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f)?;
        for lost in &self.journal.damage {
            match lost.bytes {
                0 => writeln!(f, "damage: {}", lost.damage)?,
                bytes => writeln!(f, "damage: {}; up to {bytes} bytes are lost", lost.damage)?,
            }
        }
        if let Some(error) = &self.checkpoint_damage {
            writeln!(f, "damage: {error}; restore definitions.redb from a backup")?;
        }
        for queue in self.queues.iter().filter(|queue| !queue.lost.is_empty()) {
            let places: Vec<String> = queue.lost.iter().take(PLACES_MAX).map(u64::to_string).collect();
            let more = queue.lost.len() - places.len();
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let (count, title, places) = (queue.lost.len(), queue.title(), places.join(", "));
            writeln!(f, "lost: {count} messages of {title}, at the places {places}{more}")?;
        }
        if self.ownerless > 0 {
            let count = self.ownerless;
            writeln!(f, "lost: the queues of {count} messages, so that these are in none")?;
        }
        if self.is_damaged() {
            writeln!(f, "Settles may be lost too, and their messages then come again.")
        } else {
            writeln!(f, "no damage: every checksum of the journal is right")
        }
    }
}

impl QueueFigures {
    fn title(&self) -> String {
        if self.vhost.is_empty() {
            format!("a queue whose definition is lost, {}", self.name)
        } else {
            format!("{:?} in vhost {:?}", self.name, self.vhost)
        }
    }
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.data_dir.display())?;
        self.segments(f)?;
        self.queues(f)?;
        self.damage(f)
    }
}
