//! The definitions as they were at one position of the journal, so that the journal before it can go.

use std::panic::AssertUnwindSafe;
use std::path::Path;

use leveret_journal::Position;
use leveret_journal::faults::crash_point;
use redb::backends::InMemoryBackend;
use redb::{Database, ReadableDatabase, ReadableTable, StorageBackend as _, TableDefinition};

/// What a checkpoint holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Checkpoint {
    /// Definitions before this position are in `definitions`; those from it on are in the journal.
    pub position: Position,
    /// The number of the next queue.
    pub next_queue: u64,
    /// Definition records that make everything anew, in order.
    pub definitions: Vec<Vec<u8>>,
}

/// A checkpoint that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("the checkpoint of definitions: {0}")]
pub struct CheckpointError(#[from] redb::Error);

const FIGURES: TableDefinition<'_, &str, u64> = TableDefinition::new("figures");
const DEFINITIONS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("definitions");

impl Checkpoint {
    /// Reads the checkpoint; an empty one if there is none yet.
    pub fn load(path: &Path) -> Result<Self, CheckpointError> {
        if !path.exists() {
            return Ok(Self::default());
        }
        no_panic(|| Self::read(path)).map_err(CheckpointError)
    }

    /// Reads the checkpoint without changing anything: it reads a copy, because opening a database that was not closed
    /// repairs it. With `verify` every page of it is checked.
    pub fn inspect(path: &Path, verify: bool) -> Result<Self, CheckpointError> {
        if !path.exists() {
            return Ok(Self::default());
        }
        let failed = |error: std::io::Error| CheckpointError(error.into());
        let folder = tempfile::tempdir().map_err(failed)?;
        let copy = folder.path().join("definitions.redb");
        std::fs::copy(path, &copy).map_err(failed)?;
        if verify {
            no_panic(|| Self::verify(&copy)).map_err(CheckpointError)?;
        }
        no_panic(|| Self::read(&copy)).map_err(CheckpointError)
    }

    /// Replaces the checkpoint: after a crash it is either the old one or this.
    pub fn save(&self, path: &Path) -> Result<(), CheckpointError> {
        // In a file of its own each time. A database that was killed while it was made cannot be opened again. And one
        // whose sync failed must never be believed: the page cache shows what that sync has dropped, until a power cut
        // leaves a file that cannot be read.
        let new = path.with_extension("new");
        let failed = |error: std::io::Error| CheckpointError(error.into());
        if new.exists() {
            std::fs::remove_file(&new).map_err(failed)?;
        }
        self.write(&new).map_err(CheckpointError)?;
        crash_point("checkpoint.written");
        let folder = path.parent().map(std::fs::File::open).transpose().map_err(failed)?;
        let sync_names = || folder.as_ref().map_or(Ok(()), std::fs::File::sync_all).map_err(failed);
        // Before the new name is given away: it may still be that of an older file, which was left half written.
        sync_names()?;
        std::fs::rename(&new, path).map_err(failed)?;
        crash_point("checkpoint.renamed");
        sync_names()
    }

    fn read(path: &Path) -> Result<Self, redb::Error> {
        Self::from_bytes(&std::fs::read(path)?)
    }

    /// Reads the file of a checkpoint from a copy of it in memory. To open a database is to write to it, and what was
    /// written once with a sync must stay as it is: more writes would rest on what only the page cache has, if the
    /// process that closed it had a sync that failed, and then a power cut makes it unreadable.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, redb::Error> {
        let copy = InMemoryBackend::new();
        copy.set_len(bytes.len() as u64)?;
        copy.write(0, bytes)?;
        let database = Database::builder().create_with_backend(copy)?;
        let transaction = database.begin_read()?;
        let figures = match transaction.open_table(FIGURES) {
            Ok(figures) => figures,
            // Made, and never written to: the process was killed in between.
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Self::default()),
            Err(error) => return Err(error.into()),
        };
        let figure = |name| Ok::<_, redb::Error>(figures.get(name)?.map_or(0, |value| value.value()));
        let mut definitions = Vec::new();
        for entry in transaction.open_table(DEFINITIONS)?.iter()? {
            definitions.push(entry?.1.value().to_vec());
        }
        Ok(Self { position: Position(figure("position")?), next_queue: figure("next_queue")?, definitions })
    }

    fn verify(path: &Path) -> Result<(), redb::Error> {
        if Database::create(path)?.check_integrity()? {
            Ok(())
        } else {
            Err(redb::Error::Corrupted("a checksum does not fit what it covers".to_owned()))
        }
    }

    fn write(&self, path: &Path) -> Result<(), redb::Error> {
        self.write_to(&Database::create(path)?)
    }

    /// Replaces what a database holds, in one transaction.
    pub fn write_to(&self, database: &Database) -> Result<(), redb::Error> {
        let transaction = database.begin_write()?;
        {
            let mut figures = transaction.open_table(FIGURES)?;
            figures.insert("position", self.position.0)?;
            figures.insert("next_queue", self.next_queue)?;
            let mut definitions = transaction.open_table(DEFINITIONS)?;
            for (index, definition) in (0..).zip(&self.definitions) {
                definitions.insert(index, definition.as_slice())?;
            }
            definitions.retain(|index, _| index < self.definitions.len() as u64)?;
        }
        crash_point("checkpoint.before_commit");
        transaction.commit()?;
        crash_point("checkpoint.committed");
        Ok(())
    }
}

/// The database panics where a damaged page is none of its own; for us that is damage like any other.
fn no_panic<T>(read: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, redb::Error> {
    std::panic::catch_unwind(AssertUnwindSafe(read))
        .unwrap_or_else(|_| Err(redb::Error::Corrupted("a page of definitions.redb is damaged".to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_checkpoint_that_was_killed_half_way_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("definitions.redb");
        std::fs::write(path.with_extension("new"), [0; 4096]).unwrap();
        assert_eq!(Checkpoint::load(&path).unwrap(), Checkpoint::default());
        let checkpoint = Checkpoint { position: Position(640), next_queue: 7, definitions: vec![vec![1]] };
        checkpoint.save(&path).unwrap();
        assert_eq!(Checkpoint::load(&path).unwrap(), checkpoint);
    }

    #[test]
    fn the_newest_checkpoint_replaces_the_older_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("definitions.redb");
        assert_eq!(Checkpoint::load(&path).unwrap(), Checkpoint::default());
        for definitions in [vec![vec![1], vec![2], vec![3]], vec![vec![4]], vec![]] {
            let checkpoint = Checkpoint { position: Position(640), next_queue: 7, definitions };
            checkpoint.save(&path).unwrap();
            assert_eq!(Checkpoint::load(&path).unwrap(), checkpoint);
        }
    }
}
