//! The real binary as a child process.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, SystemTime};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A broker that takes longer to start or to stop than this hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running `leveret`; killed when it is dropped.
pub(crate) struct Server {
    child: Child,
    /// Its process, or that of what runs it.
    pid: Pid,
    log: Arc<Mutex<String>>,
    listening: watch::Receiver<bool>,
    reader: JoinHandle<()>,
}

/// How a server ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The exit code; `None` if a signal killed it.
    pub(crate) code: Option<i32>,
    /// All that it logged.
    pub(crate) log: String,
}

impl Server {
    /// Starts the binary, and does not wait until it listens.
    pub(crate) fn spawn(data_dir: &Path, address: SocketAddr) -> Self {
        Self::spawn_under(&[], data_dir, address)
    }

    /// As [`Server::spawn`], run by another program such as `strace`.
    pub(crate) fn spawn_under(runner: &[&OsStr], data_dir: &Path, address: SocketAddr) -> Self {
        let mut line: Vec<&OsStr> = runner.to_vec();
        line.push(BINARY.as_os_str());
        let mut command = Command::new(line[0]);
        command.args(&line[1..]);
        Self::run(command, data_dir, address)
    }

    /// As [`Server::spawn`], and ends by itself when it comes to a crash point for the `hit`th time.
    pub(crate) fn spawn_armed(point: &str, hit: u64, data_dir: &Path, address: SocketAddr) -> Self {
        let mut command = Command::new(FAULTS.as_os_str());
        command.env("LEVERET_CRASH_POINT", format!("{point}@{hit}"));
        Self::run(command, data_dir, address)
    }

    fn run(mut command: Command, data_dir: &Path, address: SocketAddr) -> Self {
        let mut child = command
            .args([OsStr::new("--data-dir"), data_dir.as_os_str()])
            .args(["--listen", &address.to_string(), "--listen-amqp", "none", "--shutdown-timeout", "10s"])
            // Small segments, so that a run goes through many of them, and gives the oldest back.
            .args(["--journal-segment-bytes", "1MiB", "--limits-message-bytes-max", "256KiB"])
            // Nothing is held back on a disk as small as an image that power cuts are tried on.
            .args(["--disk-free-bytes-low", "8MiB", "--disk-free-bytes-high", "16MiB"])
            // What the one who runs the tests has set for a broker of theirs.
            .env_remove("LEVERET_CONFIG")
            .env_remove("LEVERET_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        let pid = Pid::from_raw(child.id().unwrap().cast_signed()).unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (listens, listening) = watch::channel(false);
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let reader = tokio::spawn({
            let log = log.clone();
            async move {
                while let Ok(Some(line)) = lines.next_line().await {
                    if line.contains("listens on leveret://") {
                        listens.send_replace(true);
                    }
                    let mut log = log.lock().unwrap();
                    log.push_str(&line);
                    log.push('\n');
                }
            }
        });
        Self { child, pid, log, listening, reader }
    }

    /// Starts the binary and waits until it listens.
    pub(crate) async fn start(data_dir: &Path, address: SocketAddr) -> Self {
        let mut server = Self::spawn(data_dir, address);
        server.ready().await;
        server
    }

    /// Waits until it listens.
    pub(crate) async fn ready(&mut self) {
        let listening = tokio::time::timeout(PATIENCE, self.listening.wait_for(|listens| *listens)).await;
        let listens = listening.is_ok_and(|listens| listens.is_ok());
        assert!(listens, "the broker does not start:\n{}", self.log.lock().unwrap());
    }

    /// Waits until it listens or has ended; says whether it listens.
    pub(crate) async fn ready_or_ended(&mut self) -> bool {
        let listening = tokio::time::timeout(PATIENCE, self.listening.wait_for(|listens| *listens)).await;
        assert!(listening.is_ok(), "the broker neither starts nor ends:\n{}", self.log.lock().unwrap());
        listening.is_ok_and(|listens| listens.is_ok())
    }

    /// Waits until it has ended, but not longer than that; says whether it has.
    pub(crate) async fn ends_within(&mut self, patience: Duration) -> bool {
        tokio::time::timeout(patience, self.child.wait()).await.is_ok()
    }

    /// `kill -9`.
    pub(crate) async fn kill(self) -> Ended {
        // It may have ended by itself, which its exit code then says.
        let _ = kill_process(self.pid, Signal::KILL);
        self.ended().await
    }

    /// SIGTERM.
    pub(crate) async fn terminate(self) -> Ended {
        let _ = kill_process(self.pid, Signal::TERM);
        self.ended().await
    }

    /// SIGTERM, without waiting.
    pub(crate) fn request_stop(&self) {
        let _ = kill_process(self.pid, Signal::TERM);
    }

    /// Stops all its threads where they are, and returns when they are stopped.
    pub(crate) async fn freeze(&self) {
        let _ = kill_process(self.pid, Signal::STOP);
        let tasks = format!("/proc/{}/task", self.pid.as_raw_nonzero());
        let runs = |task: std::fs::DirEntry| {
            let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            // The state follows the name, which is in parentheses.
            stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['T', 'Z']))
        };
        while std::fs::read_dir(&tasks).is_ok_and(|mut tasks| tasks.any(|task| task.is_ok_and(runs))) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// `kill -9` for what the program runs that was started in its place, such as `strace`.
    pub(crate) fn kill_traced(&self) {
        let pid = self.pid.as_raw_nonzero();
        let children =
            std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|child| Pid::from_raw(child.parse().ok()?)) {
            let _ = kill_process(child, Signal::KILL);
        }
    }

    /// Waits until it ends.
    pub(crate) async fn ended(mut self) -> Ended {
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        let status =
            status.unwrap_or_else(|_| panic!("the broker does not end:\n{}", self.log.lock().unwrap()));
        self.reader.await.unwrap();
        Ended { code: status.unwrap().code(), log: self.log.lock().unwrap().clone() }
    }
}

pub(crate) fn url(address: SocketAddr) -> String {
    format!("leveret://guest:guest@{address}")
}

/// The binary of the profile that this test was built with. Cargo does not build the binaries of other packages for a
/// test, so it is built here if it is not there, or is older than its sources and would be another program.
///
/// With the feature `faults`, which is for mutants, it is the other program.
static BINARY: LazyLock<PathBuf> = LazyLock::new(|| {
    if cfg!(feature = "faults") { FAULTS.clone() } else { built("leveret", &["-p", "leveret-broker"]) }
});

/// The same with the crash points of `leveret_journal::faults` in it.
static FAULTS: LazyLock<PathBuf> =
    LazyLock::new(|| built("leveret-faults", &["-p", "leveret-tests", "--features", "faults"]));

fn built(name: &str, package: &[&str]) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let folder = test.ancestors().nth(2).unwrap();
    let binary = folder.join(name);
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let sources =
        ["broker/src", "journal/src", "protocol/src"].map(|sources| newest(&workspace.join(sources)));
    let built = modified(&binary);
    if built < sources.into_iter().max().flatten() || built.is_none() {
        let profile = match folder.file_name().and_then(OsStr::to_str) {
            Some("debug") | None => "dev",
            Some(profile) => profile,
        };
        let built = std::process::Command::new(env!("CARGO"))
            .arg("build")
            .args(package)
            .args(["--bin", name, "--profile", profile])
            .current_dir(workspace)
            .status();
        assert!(built.is_ok_and(|status| status.success()), "{name} cannot be built");
    }
    binary
}

fn newest(folder: &Path) -> Option<SystemTime> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { newest(&path) } else { modified(&path) }).max().flatten()
}

fn modified(path: &Path) -> Option<SystemTime> {
    path.metadata().and_then(|metadata| metadata.modified()).ok()
}
