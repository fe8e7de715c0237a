//! A disk in memory that loses, tears, fails and lies, as real ones do; for tests. One seed decides everything.
//!
//! - Written bytes are visible at once and last only once synced, in pages of 4 KiB. A power cut keeps any of the pages
//!   written since, loses others, and tears some at 512 bytes. A size may last without the bytes.
//! - Names are durable separately, by a sync of their directory. Each change since may last or not. If that sync fails
//!   they stay as they are until the next: file systems that lose track of their own directories go read-only instead.
//! - A failed sync leaves its pages visible and clean: they are not on disk, and the next sync succeeds without writing
//!   them. (This is what Linux does.)

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::file::{Loss, Random, SimFile};
use crate::disk::{Disk, DiskFile, DiskLock};

/// The calls that can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// [`Disk::create`]
    Create,
    /// [`Disk::rename`]
    Rename,
    /// [`Disk::remove`]
    Remove,
    /// [`Disk::sync_dir`]
    SyncDir,
    /// [`DiskFile::allocate`]
    Allocate,
    /// [`DiskFile::read_at`]
    Read,
    /// [`DiskFile::write_at`]
    Write,
    /// [`DiskFile::sync_data`]
    Sync,
}

/// The disk. Clones are handles to the same one.
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

impl SimDisk {
    /// An empty disk.
    pub fn new(seed: u64) -> Self {
        Self { state: Arc::new(Mutex::new(State { random: Random(seed), ..State::default() })) }
    }

    /// A disk of its own with the same files, and nobody using them.
    #[must_use]
    pub fn fork(&self) -> Self {
        let mut state = self.state.lock().clone();
        state.restart();
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// The calls that changed something or synced, since the disk was made or restarted.
    pub fn calls(&self) -> u64 {
        self.state.lock().calls
    }

    /// Such calls of one kind.
    pub fn calls_of(&self, call: Call) -> u64 {
        self.state.lock().calls_by_kind.get(&call).copied().unwrap_or(0)
    }

    /// After `calls` calls (as [`SimDisk::calls`] counts) all fail, as the process is no longer there.
    pub fn stop_after(&self, calls: u64) {
        self.state.lock().stop_after = Some(calls);
    }

    /// Makes the call of that kind after the next `after` ones fail, once.
    pub fn fail_after(&self, call: Call, after: u64, error: io::ErrorKind) {
        self.state.lock().fault = Some(Fault { call, after, error });
    }

    /// Ends the process, not the machine: what was written stays visible. Old handles fail from now on.
    pub fn kill(&self) {
        self.state.lock().restart();
    }

    /// Ends the machine: only what is on disk remains.
    pub fn cut_power(&self, loss: Loss) {
        let mut state = self.state.lock();
        state.lose(loss);
        state.restart();
    }

    /// The paths of all files.
    pub fn files(&self) -> Vec<PathBuf> {
        self.state.lock().names.keys().cloned().collect()
    }

    /// The sizes of all files together, in bytes.
    pub fn used_bytes(&self) -> u64 {
        self.state.lock().used_bytes()
    }

    /// How many bytes all files may have together; what there is already stays. No limit unless set.
    pub fn set_capacity(&self, bytes: u64) {
        self.state.lock().capacity = Some(bytes);
    }

    /// What a file contains; `None` if there is none.
    pub fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state.lock();
        state.names.get(path).and_then(|id| state.files.get(id)).map(|file| file.visible.clone())
    }

    /// Whether a power cut at this moment would leave these bytes of the file as they are now, whatever it took.
    pub fn is_durable(&self, path: &Path, bytes: Range<usize>) -> bool {
        let state = self.state.lock();
        let id = state.names.get(path);
        // Its name would have to last under every order in which the pending changes may or may not happen.
        id.is_some()
            && state.durable_names.get(path) == id
            && !state.pending.iter().any(|change| change.touches(path))
            && id.and_then(|id| state.files.get(id)).is_some_and(|file| file.is_durable(bytes))
    }

    /// Puts a file on disk, as if something outside had damaged or restored it.
    pub fn set_contents(&self, path: &Path, bytes: Vec<u8>) {
        let mut state = self.state.lock();
        let id = state.add(SimFile::durable(bytes));
        state.names.insert(path.to_owned(), id);
        state.durable_names.insert(path.to_owned(), id);
    }

    /// Removes a file, as if something outside had.
    pub fn delete(&self, path: &Path) {
        let mut state = self.state.lock();
        state.names.remove(path);
        state.durable_names.remove(path);
    }

    fn handle(&self, state: &State, id: u64) -> Box<dyn DiskFile> {
        Box::new(SimHandle { disk: self.clone(), id, boot: state.boot })
    }
}

impl Disk for SimDisk {
    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.state.lock();
        let inside = state.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.filter_map(|path| path.file_name()?.to_str().map(str::to_owned)).collect())
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let state = self.state.lock();
        let id = *state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.handle(&state, id))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state.lock();
        state.count(Call::Create)?;
        let id = if let Some(id) = state.names.get(path).copied() {
            state.files.entry(id).and_modify(SimFile::truncate);
            id
        } else {
            let id = state.add(SimFile::default());
            state.change(Change::Link { path: path.to_owned(), id });
            id
        };
        Ok(self.handle(&state, id))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.count(Call::Rename)?;
        if !state.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change(Change::Rename { from: from.to_owned(), to: to.to_owned() });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.count(Call::Remove)?;
        if !state.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change(Change::Remove { path: path.to_owned() });
        Ok(())
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.count(Call::SyncDir)?;
        for change in std::mem::take(&mut state.pending) {
            change.apply(&mut state.durable_names);
        }
        Ok(())
    }

    fn free_bytes(&self, _dir: &Path) -> io::Result<u64> {
        let state = self.state.lock();
        Ok(state.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(state.used_bytes())))
    }

    fn lock(&self, path: &Path) -> io::Result<Option<DiskLock>> {
        let mut state = self.state.lock();
        let boot = state.boot;
        // Made only if it is taken: one that is dropped here would wait for the state that is locked here.
        let lock = || Box::new(SimLock { disk: self.clone(), path: path.to_owned(), boot }) as DiskLock;
        Ok(state.locks.insert(path.to_owned()).then(lock))
    }
}

struct SimLock {
    disk: SimDisk,
    path: PathBuf,
    boot: u64,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.disk.state.lock();
        if state.boot == self.boot {
            state.locks.remove(&self.path);
        }
    }
}

struct SimHandle {
    disk: SimDisk,
    id: u64,
    boot: u64,
}

impl SimHandle {
    /// Does something with the file, unless this handle is of a process that ended, or the call is to fail.
    fn with<T>(&self, call: Option<Call>, act: impl FnOnce(&mut SimFile, bool) -> T) -> io::Result<T> {
        let mut state = self.disk.state.lock();
        if state.boot != self.boot {
            return Err(io::Error::other("the process that opened this file has ended"));
        }
        let outcome = call.map_or(Ok(()), |call| state.count(call));
        let file = state.files.get_mut(&self.id).ok_or(io::ErrorKind::NotFound)?;
        if outcome.is_ok() || call == Some(Call::Sync) {
            let result = act(file, outcome.is_ok());
            outcome.map(|()| result)
        } else {
            Err(outcome.err().unwrap_or_else(|| io::ErrorKind::Other.into()))
        }
    }
}

impl DiskFile for SimHandle {
    fn size(&self) -> io::Result<u64> {
        self.with(None, |file, _| file.visible.len() as u64)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        {
            let state = self.disk.state.lock();
            let more =
                bytes.saturating_sub(state.files.get(&self.id).map_or(0, |file| file.visible.len() as u64));
            if state.capacity.is_some_and(|capacity| state.used_bytes() + more > capacity) {
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        self.with(Some(Call::Allocate), |file, _| {
            let size = file.visible.len().max(bytes as usize);
            file.visible.resize(size, 0);
        })
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.with(Some(Call::Read), |file, _| {
            let from = offset as usize;
            let found = file.visible.get(from..from + bytes.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
            bytes.copy_from_slice(found);
            Ok(())
        })?
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.with(Some(Call::Write), |file, _| file.write(bytes, offset as usize))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(Some(Call::Sync), SimFile::sync)
    }
}

/// A change of a directory. Applied to names that an earlier lost change did not leave there, it has no effect.
#[derive(Clone)]
enum Change {
    Link { path: PathBuf, id: u64 },
    Rename { from: PathBuf, to: PathBuf },
    Remove { path: PathBuf },
}

impl Change {
    fn touches(&self, name: &Path) -> bool {
        match self {
            Self::Link { path, .. } | Self::Remove { path } => path == name,
            Self::Rename { from, to } => from == name || to == name,
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, u64>) {
        match self {
            Self::Link { path, id } => {
                names.insert(path.clone(), *id);
            }
            Self::Rename { from, to } => {
                if let Some(id) = names.remove(from) {
                    names.insert(to.clone(), id);
                }
            }
            Self::Remove { path } => {
                names.remove(path);
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Fault {
    call: Call,
    after: u64,
    error: io::ErrorKind,
}

#[derive(Clone, Default)]
struct State {
    random: Random,
    /// Rises when the process ends, so that its handles and locks are known for old.
    boot: u64,
    files: BTreeMap<u64, SimFile>,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    /// Changes of names that are not durable.
    pending: Vec<Change>,
    locks: BTreeSet<PathBuf>,
    calls: u64,
    calls_by_kind: BTreeMap<Call, u64>,
    stop_after: Option<u64>,
    capacity: Option<u64>,
    fault: Option<Fault>,
}

impl State {
    fn add(&mut self, file: SimFile) -> u64 {
        let id = self.files.last_key_value().map_or(0, |(id, _)| id + 1);
        self.files.insert(id, file);
        id
    }

    fn used_bytes(&self) -> u64 {
        let files = self.names.values().filter_map(|id| self.files.get(id));
        files.map(|file| file.visible.len() as u64).sum()
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.names);
        self.pending.push(change);
    }

    /// Counts a call, and says whether it is to fail.
    fn count(&mut self, call: Call) -> io::Result<()> {
        if self.stop_after.is_some_and(|last| self.calls >= last) {
            return Err(io::Error::other("the process has ended"));
        }
        if call != Call::Read {
            self.calls += 1;
        }
        *self.calls_by_kind.entry(call).or_default() += 1;
        match &mut self.fault {
            Some(fault) if fault.call == call && fault.after == 0 => {
                let error = fault.error;
                self.fault = None;
                Err(error.into())
            }
            Some(fault) if fault.call == call => {
                fault.after -= 1;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn restart(&mut self) {
        self.boot += 1;
        self.locks.clear();
        (self.calls, self.stop_after, self.fault) = (0, None, None);
        self.calls_by_kind.clear();
    }

    fn lose(&mut self, loss: Loss) {
        let pending = std::mem::take(&mut self.pending);
        for (index, change) in pending.iter().enumerate() {
            if loss.spares(index, pending.len(), &mut self.random) {
                change.apply(&mut self.durable_names);
            }
        }
        self.names.clone_from(&self.durable_names);
        let linked: BTreeSet<u64> = self.names.values().copied().collect();
        self.files.retain(|id, _| linked.contains(id));
        for file in self.files.values_mut() {
            file.lose(loss, &mut self.random);
        }
    }
}
