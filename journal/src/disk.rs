//! The disk, as the journal sees it, and the real one: the only caller of `std::fs`.

use std::any::Any;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

/// A lock on a directory; dropping it unlocks.
pub type DiskLock = Box<dyn Any + Send + Sync>;

/// The calls that the journal makes, so that a simulated disk can stand in for the real one.
///
/// A change of the directory (create, rename, remove) lasts only after [`Disk::sync_dir`], bytes and sizes only after
/// [`DiskFile::sync_data`]. A rename replaces its target and is atomic.
pub trait Disk: Send + Sync + 'static {
    /// Makes a directory that lasts, and those above it; fine if it exists.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// The names of the files in a directory, in any order.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Opens a file that exists.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Opens a file that exists, for reading only.
    fn open_to_read(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.open(path)
    }
    /// Makes an empty file, or empties it.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Renames a file.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the changes of a directory last.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// How many bytes the file system of a directory has left for us.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;
    /// Locks a file, making it if need be. `None` if somebody else has it.
    fn lock(&self, path: &Path) -> io::Result<Option<DiskLock>>;
    /// Locks a file that exists against those who [`Disk::lock`] it, not against each other; changes nothing. `None` if
    /// somebody has locked it.
    fn lock_to_read(&self, path: &Path) -> io::Result<Option<DiskLock>> {
        self.lock(path)
    }
}

/// An open file.
pub trait DiskFile: Send + Sync {
    /// Its size in bytes.
    fn size(&self) -> io::Result<u64>;
    /// Gives the file at least that size and, where the file system can, the space for it.
    fn allocate(&self, bytes: u64) -> io::Result<()>;
    /// Fills `bytes` from the file; an error if it ends before.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `bytes`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes what was written last (`fdatasync`).
    fn sync_data(&self) -> io::Result<()>;
}

/// The file system of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let above = dir.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !dir.is_dir() {
            if above != dir {
                self.create_dir(above)?;
            }
            std::fs::create_dir(dir)?;
        }
        // Also if it exists: whoever made it may have been killed before this, and without it a power cut may take the
        // whole directory, with all that was synced in it.
        self.sync_dir(above)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let names = std::fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
        names.filter_map(Result::transpose).collect()
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(OpenOptions::new().read(true).write(true).open(path)?))
    }

    fn open_to_read(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(File::open(path)?))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let system = rustix::fs::statvfs(dir)?;
        Ok(system.f_bavail.saturating_mul(system.f_frsize))
    }

    fn lock(&self, path: &Path) -> io::Result<Option<DiskLock>> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        locked(file.try_lock(), file)
    }

    fn lock_to_read(&self, path: &Path) -> io::Result<Option<DiskLock>> {
        let file = File::open(path)?;
        locked(file.try_lock_shared(), file)
    }
}

fn locked(outcome: Result<(), TryLockError>, file: File) -> io::Result<Option<DiskLock>> {
    match outcome {
        Ok(()) => Ok(Some(Box::new(file))),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

impl DiskFile for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        loop {
            return match rustix::fs::fallocate(self, FallocateFlags::empty(), 0, bytes) {
                Err(Errno::INTR) => continue,
                // Some file systems (NFS, ZFS) reserve nothing. The size alone still spares each sync a change of it.
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.set_len(bytes.max(self.size()?)),
                outcome => Ok(outcome?),
            };
        }
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(bytes, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        Self::sync_data(self)
    }
}
