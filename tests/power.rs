//! File systems of a test's own: one whose power can be cut, and one that is too small.
//!
//! `kill -9` proves no sync, since the system's page cache survives it. A file system on a loop device can be shut down
//! without writing anything back (`FS_IOC_SHUTDOWN`): what was not synced is gone, as after a real power cut.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::process;

/// `_IOR('X', 125, u32)`.
const FS_IOC_SHUTDOWN: libc::Ioctl = 0x8004_587d_u32 as libc::Ioctl;
/// Neither data nor journal is written back.
static NO_LOG_FLUSH: u32 = 2;
/// Begins the names of mount points; the id of the process that made them follows.
const MOUNT_PREFIX: &str = "ringfence-mount-";

/// A mounted file system. Dropping it unmounts it.
#[derive(Debug)]
pub struct Mounted {
    home: TempDir,
    /// Arguments of `mount` that mount it again.
    again: Vec<String>,
}

impl Mounted {
    /// An ext4 file system in an image on a loop device.
    ///
    /// # Errors
    /// Where this machine cannot do that.
    pub fn loop_ext4(bytes: u64) -> Result<Mounted, String> {
        let home = home()?;
        let image = home.path().join("image");
        File::create(&image).and_then(|file| file.set_len(bytes)).map_err(|error| error.to_string())?;
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image))?;
        mount(home, |home| vec!["-o".into(), "loop".into(), text(&home.join("image"))])
    }

    /// A file system in memory of this size.
    ///
    /// # Errors
    /// Where this machine cannot do that.
    pub fn tmpfs(bytes: u64) -> Result<Mounted, String> {
        let size = format!("size={bytes}");
        mount(home()?, |_| vec!["-t".into(), "tmpfs".into(), "-o".into(), size, "tmpfs".into()])
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.home.path().join("mount")
    }

    /// Gives a file system in memory another size.
    ///
    /// # Panics
    /// Where that is refused.
    pub fn resize(&self, bytes: u64) {
        let options = format!("remount,size={bytes}");
        run(Command::new("mount").args(["-o", &options]).arg(self.path())).expect("a tmpfs can be resized");
    }

    /// Cuts the power: from here on everything fails, and what was not synced is lost.
    ///
    /// # Panics
    /// Where the file system does not know how.
    pub fn cut_power(&self) {
        let root = File::open(self.path()).expect("a mount point can be opened");
        // SAFETY: the descriptor is open, and the request reads one u32 behind the pointer.
        let result = unsafe { libc::ioctl(root.as_raw_fd(), FS_IOC_SHUTDOWN, &raw const NO_LOG_FLUSH) };
        assert_eq!(result, 0, "the power of ext4 can be cut: {}", io::Error::last_os_error());
    }

    /// Gives the power back: unmounts, and mounts again, which replays the journal. Nobody may use a file in it.
    ///
    /// # Panics
    /// Where either fails.
    pub fn restore_power(&self) {
        run(Command::new("umount").arg(self.path())).expect("nobody uses a file in it");
        run(Command::new("mount").args(&self.again).arg(self.path())).expect("it was mounted before");
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily, since a node that a failing test left behind may still use it for a moment.
        if let Err(error) = run(Command::new("umount").arg("-l").arg(self.path())) {
            eprintln!("{} stays mounted: {error}", self.path().display());
        }
    }
}

/// A directory whose name tells who made it.
fn home() -> Result<TempDir, String> {
    unmount_leftovers();
    let prefix = format!("{MOUNT_PREFIX}{}-", std::process::id());
    tempfile::Builder::new().prefix(&prefix).tempdir().map_err(|error| error.to_string())
}

fn mount(home: TempDir, arguments: impl FnOnce(&Path) -> Vec<String>) -> Result<Mounted, String> {
    let point = home.path().join("mount");
    fs::create_dir(&point).map_err(|error| error.to_string())?;
    let again = arguments(home.path());
    run(Command::new("mount").args(&again).arg(&point))?;
    Ok(Mounted { home, again })
}

/// A test that was killed cannot unmount; the next one does it.
fn unmount_leftovers() {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for point in mounts.lines().filter_map(|line| line.split(' ').nth(1)) {
        let Some((_, rest)) = point.split_once(MOUNT_PREFIX) else { continue };
        let owner = rest.split('-').next().unwrap_or_default();
        if !owner.is_empty() && !Path::new("/proc").join(owner).exists() {
            // It may have gone meanwhile.
            let _ = run(Command::new("umount").args(["-l", point]));
        }
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let output = process::spawn(command).and_then(Child::wait_with_output);
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
