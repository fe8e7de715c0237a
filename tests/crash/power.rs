//! The power is cut for a real file system: an ext4 image that is shut down without writing its journal out, so that
//! whatever was not synced is gone, and the broker's process with it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tokio::time::Instant;

use crate::checker::check;
use crate::fleet::Fleet;
use crate::kills;
use crate::random::{self, Random};
use leveret_tests::free_address;

use crate::server::{Server, url};

/// How often the test command cuts.
const CUTS_DEFAULT: u64 = 5;
const IMAGE_BYTES: u64 = 192 << 20;
/// `EXT4_IOC_SHUTDOWN` with `EXT4_GOING_FLAGS_NOLOGFLUSH`. Perl can do it without unsafe code of ours.
const SHUTDOWN: &str =
    r#"open(F, "<", $ARGV[0]) or die; $how = pack("L", 2); ioctl(F, 0x8004587D, $how) or die $!;"#;

/// A file system in a file, mounted.
struct Image {
    folder: tempfile::TempDir,
}

impl Image {
    /// `None` if this machine does not let us: not root, no loop device, a tool is missing.
    fn make() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let image = Self { folder };
        std::fs::File::create(image.file()).unwrap().set_len(IMAGE_BYTES).unwrap();
        std::fs::create_dir(image.mounted()).unwrap();
        let file = image.file();
        let made = run("mkfs.ext4", &["-q", "-F", file.to_str()?]) && image.mount();
        (made && run("perl", &["-e", "1"])).then_some(image)
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    fn mounted(&self) -> PathBuf {
        self.folder.path().join("mounted")
    }

    fn data_dir(&self) -> PathBuf {
        self.mounted().join("data")
    }

    fn mount(&self) -> bool {
        run("mount", &["-o", "loop", path(&self.file()), path(&self.mounted())])
    }

    fn unmount(&self) -> bool {
        run("umount", &[path(&self.mounted())])
    }

    /// From now on nothing reaches the disk.
    fn cut(&self) {
        assert!(run("perl", &["-e", SHUTDOWN, path(&self.mounted())]), "the file system cannot be shut down");
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // It is not mounted if a tool was missing.
        let _ = self.unmount();
    }
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn run(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// `LEVERET_POWER_CUTS=200` cuts that often.
#[tokio::test]
async fn a_power_cut_of_a_real_file_system_loses_nothing_that_was_confirmed() {
    let Some(image) = Image::make() else {
        println!(
            "SKIPPED: an ext4 image cannot be made and mounted here (that needs root, mkfs.ext4 and perl)"
        );
        return;
    };
    let cuts = std::env::var("LEVERET_POWER_CUTS").ok().and_then(|cuts| cuts.parse().ok());
    let cuts: u64 = cuts.unwrap_or(CUTS_DEFAULT);
    let seed = random::seed();
    let began = Instant::now();
    let mut random = Random::new(seed);
    let address = free_address();
    let mut server = kills::first_start(&image.data_dir(), address).await;
    let (fleet, clients) = Fleet::launch(url(address), &mut random);
    for _ in 0..cuts {
        server.ready().await;
        kills::load(&fleet, &mut random).await;
        // All stops at once when the power goes. A broker that ran on could be told of a sync that the kernel was in the
        // middle of: ext4 may then say that it went well, and has dropped the pages.
        server.freeze().await;
        image.cut();
        server.kill().await;
        fleet.broker_ended().await;
        assert!(image.unmount() && image.mount(), "the file system does not come back");
        server = Server::spawn(&image.data_dir(), address);
    }
    drop(clients);
    server.kill().await;
    fleet.broker_ended().await;
    let drained = kills::drain(&fleet, &image.data_dir(), address).await;
    let history = fleet.history.take();
    let verdict = check(&history);
    println!("seed                 {seed} (LEVERET_SEED brings it back)");
    println!("power cuts of ext4   {cuts}, in {:.1} s", began.elapsed().as_secs_f64());
    println!("drained at the end   {drained}");
    println!("{}", verdict.figures);
    println!("violations           {}", verdict.violations.len());
    assert!(verdict.figures.confirmed > cuts, "next to nothing was confirmed, so nothing was tried");
    assert!(verdict.violations.is_empty(), "seed {seed}\n{}", verdict.explain(&history));
}
