//! The checkpoint of definitions on the simulated disk: the broker's own code through redb, whose storage this is.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{fmt, io};

use leveret_broker::store::Checkpoint;
use leveret_journal::{Disk as _, DiskFile, SimDisk};
use redb::{Database, StorageBackend};

const DIR: &str = "/data";
const PATH: &str = "/data/definitions.redb";

/// A file of the simulated disk, for redb.
struct Storage {
    file: Box<dyn DiskFile>,
    /// The simulated file only grows. What redb cut off is not looked at any more.
    length: AtomicU64,
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Storage").finish_non_exhaustive()
    }
}

impl StorageBackend for Storage {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.length.load(Ordering::Relaxed))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.file.read_at(out, offset)
    }

    fn set_len(&self, length: u64) -> Result<(), io::Error> {
        self.file.allocate(length)?;
        self.length.store(length, Ordering::Relaxed);
        Ok(())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.file.write_at(data, offset)
    }
}

fn create(disk: &SimDisk, path: &str) -> Result<Database, redb::Error> {
    let path = Path::new(path);
    let file = disk.create(path).map_err(redb::Error::Io)?;
    let length = AtomicU64::new(file.size().map_err(redb::Error::Io)?);
    Ok(Database::builder().create_with_backend(Storage { file, length })?)
}

fn exists(disk: &SimDisk) -> bool {
    disk.files().iter().any(|path| path == Path::new(PATH))
}

/// As `Checkpoint::load`: the file is read, and never written to again.
pub(crate) fn load(disk: &SimDisk) -> Result<Checkpoint, redb::Error> {
    if !exists(disk) {
        return Ok(Checkpoint::default());
    }
    let file = disk.open(Path::new(PATH)).map_err(redb::Error::Io)?;
    let mut bytes = vec![0; file.size().map_err(redb::Error::Io)? as usize];
    file.read_at(&mut bytes, 0).map_err(redb::Error::Io)?;
    Checkpoint::from_bytes(&bytes)
}

/// As `Checkpoint::save`.
pub(crate) fn save(disk: &SimDisk, checkpoint: &Checkpoint) -> Result<(), redb::Error> {
    let new = "/data/definitions.new";
    let last = |outcome: io::Result<()>| outcome.map_err(redb::Error::Io);
    if disk.files().iter().any(|path| path == Path::new(new)) {
        last(disk.remove(Path::new(new)))?;
    }
    checkpoint.write_to(&create(disk, new)?)?;
    last(disk.sync_dir(Path::new(DIR)))?;
    last(disk.rename(Path::new(new), Path::new(PATH)))?;
    last(disk.sync_dir(Path::new(DIR)))
}
