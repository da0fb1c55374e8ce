//! One node's file system, and what can be done to it.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::loop_device::LoopDevice;
use super::loss::{Loss, Survey, files_below};
use crate::world::sys::{self, Kind};

/// `_IOR('X', 125, u32)`: the file system is as if the power had gone.
const FS_IOC_SHUTDOWN: libc::Ioctl = 0x8004_587d_u32 as libc::Ioctl;
/// Neither data nor journal is written back.
const NO_LOG_FLUSH: u32 = 2;
/// `_IOWR('X', 119, int)`: whoever writes waits.
const FIFREEZE: libc::Ioctl = 0xc004_5877_u32 as libc::Ioctl;
/// What fills the disk. It lies beside the node's directory.
const BALLAST: &str = "ballast";
/// A block that is synced as zeros when the disk is made. Just before a power cut it is overwritten with ones, which the cut must
/// take, and which need no room on a disk that is full.
const WITNESS: &str = "witness";
/// What is written to see whether anything can be.
const PROBE: &str = "probe";
/// The node's directory on the disk.
const DATA: &str = "data";
/// Longest wait for the last user of a file system to be gone.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest range that a power cut may keep in one piece.
const KEPT_BYTES_MAX: u64 = 128 << 10;
/// The file system's unit of space.
const BLOCK_BYTES: u64 = 4_096;

/// A node's disk: an ext4 file system on a loop device, mounted in a mount namespace of its own. Neither image nor
/// namespace has a name, so that nothing stays when this process ends, however it does.
#[derive(Debug)]
pub struct Image {
    mounts: Arc<File>,
    device: LoopDevice,
    point: PathBuf,
    state: Mutex<State>,
    // The device's own hold on it ends with the device.
    _backing: File,
}

#[derive(Debug, Default)]
struct State {
    /// Thaws the file system when its standard input ends.
    frozen: Option<Child>,
    /// How things stood when the power was cut.
    before: Option<Before>,
}

#[derive(Debug)]
struct Before {
    /// What the node saw.
    files: Survey,
    /// Whether the witness was overwritten: on a disk that is read-only it cannot be.
    has_witness: bool,
}

impl Image {
    /// Makes a file system in `backing`, which has its size, and mounts it at `point`, which is made.
    ///
    /// # Errors
    /// Where this machine cannot do that, or this process may not.
    pub(in crate::world) fn create(backing: File, point: PathBuf) -> anyhow::Result<Image> {
        fs::create_dir_all(&point)?;
        let device = LoopDevice::attach(&backing).context("no loop device for a disk")?;
        make_file_system(&device.path())?;
        let mounts = sys::on_own_thread(|| {
            sys::unshare(Kind::Mounts)?;
            // Otherwise the mount would be seen everywhere.
            sys::mount(None, Path::new("/"), None, libc::MS_REC | libc::MS_PRIVATE, None)?;
            mount(&device, &point)?;
            let mut witness = File::create(point.join(WITNESS))?;
            witness.write_all(&[0; BLOCK_BYTES as usize])?;
            witness.sync_all()?;
            Kind::Mounts.of_this_thread()
        });
        let mounts = Arc::new(mounts.context("the disk cannot be mounted in a mount namespace of its own")?);
        Ok(Image { mounts, device, point, state: Mutex::default(), _backing: backing })
    }

    /// Where the node's directory is, for whoever is in the [namespace](Image::inside).
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.point.join(DATA)
    }

    /// Runs something where the disk is mounted, on a thread of its own.
    ///
    /// # Errors
    /// As the system's, where the namespace cannot be entered.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        sys::within(Kind::Mounts, &self.mounts, work)
    }

    /// The node's files with their lengths, in the order of their paths, which hold inside alone.
    ///
    /// # Errors
    /// As the file system's.
    pub fn files(&self) -> io::Result<Vec<(PathBuf, u64)>> {
        self.inside(|| files_below(&self.data_dir()))?
    }

    /// Cuts the power. From here on everything on the disk fails; what was not synced is lost, but for ranges drawn from
    /// `seed`, which make up a share of `keep` of each file and were lucky to be written back just before. The node must have
    /// been stopped, so that nothing happens between the look at its files and the cut.
    ///
    /// # Errors
    /// As the file system's, or where it does not know how.
    pub fn cut_power(&self, keep: f64, seed: u64) -> io::Result<()> {
        let before = self.inside(|| {
            let files = Survey::of(&self.data_dir())?;
            if keep > 0.0 {
                self.write_back(keep, &mut StdRng::seed_from_u64(seed))?;
            }
            let witness = File::options().write(true).open(self.point.join(WITNESS));
            let has_witness =
                witness.and_then(|file| file.write_all_at(&[1; BLOCK_BYTES as usize], 0)).is_ok();
            let mut flags = NO_LOG_FLUSH;
            // SAFETY: the request is defined with a u32.
            unsafe { sys::ioctl(&File::open(&self.point)?, FS_IOC_SHUTDOWN, &mut flags)? };
            io::Result::Ok(Before { files, has_witness })
        })??;
        self.state().before = Some(before);
        Ok(())
    }

    /// Mounts the disk anew, which replays its journal, after a power cut or once it turned read-only. The node must have
    /// ended. Says what the power cut took.
    ///
    /// # Errors
    /// Where somebody uses the disk, it cannot be mounted, or a power cut took not even what surely was unsynced.
    pub fn restore(&self) -> io::Result<Loss> {
        let before = self.state().before.take();
        self.inside(|| {
            self.unmount()?;
            mount(&self.device, &self.point)?;
            let Some(before) = before else { return Ok(Loss::default()) };
            if before.has_witness && fs::read(self.point.join(WITNESS))?.contains(&1) {
                return Err(io::Error::other("the power cut took nothing"));
            }
            Ok(before.files.lost(&Survey::of(&self.data_dir())?))
        })?
    }

    /// Freezes the disk: whoever writes or syncs waits, in a way that not even `kill -9` ends, until it thaws. Should this
    /// process be killed, it thaws by itself.
    ///
    /// # Errors
    /// As the file system's, and where it is frozen already.
    pub fn freeze(&self) -> anyhow::Result<()> {
        let mut state = self.state();
        ensure!(state.frozen.is_none(), "the disk is frozen already");
        let mut guard = self.guard()?;
        let mut unused: libc::c_int = 0;
        // SAFETY: the request is defined with an int.
        let frozen =
            self.inside(|| unsafe { sys::ioctl(&File::open(&self.point)?, FIFREEZE, &mut unused) })?;
        if let Err(error) = frozen {
            drop(guard.stdin.take());
            guard.wait()?;
            bail!("the disk cannot be frozen: {error}");
        }
        state.frozen = Some(guard);
        Ok(())
    }

    /// Lets a frozen disk go on; does nothing to another.
    ///
    /// # Errors
    /// Where it cannot be thawed.
    pub fn thaw(&self) -> anyhow::Result<()> {
        let Some(mut guard) = self.state().frozen.take() else { return Ok(()) };
        drop(guard.stdin.take());
        let status = guard.wait()?;
        ensure!(status.success(), "the disk cannot be thawed: fsfreeze ended with {status}");
        Ok(())
    }

    /// Fills the disk but for so many bytes; returns how many were taken.
    ///
    /// # Errors
    /// As the file system's, other than that the disk is full.
    pub fn fill(&self, leave: u64) -> io::Result<u64> {
        self.inside(|| {
            let file = File::create(self.point.join(BALLAST))?;
            let before = free_bytes(&self.point)?;
            let (mut at, mut piece) = (0, before);
            // The last blocks are found in ever smaller pieces, since the file's own map needs some too.
            while piece >= BLOCK_BYTES {
                let wanted = piece.min(free_bytes(&self.point)?.saturating_sub(leave));
                if wanted < BLOCK_BYTES {
                    break;
                }
                if !allocate(&file, at, wanted)? {
                    piece /= 2;
                }
                at += wanted;
            }
            Ok(before - free_bytes(&self.point)?)
        })?
    }

    /// Takes away what [`Image::fill`] put there.
    ///
    /// # Errors
    /// As the file system's.
    pub fn free(&self) -> io::Result<()> {
        self.inside(|| match fs::remove_file(self.point.join(BALLAST)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        })?
    }

    /// Makes the file system find an error in itself, upon which it turns read-only. [`Image::restore`] is the way back.
    ///
    /// # Errors
    /// As the system's.
    pub fn turn_read_only(&self) -> io::Result<()> {
        fs::write(format!("/sys/fs/ext4/{}/trigger_fs_error", self.device.name()), "ringfence-jepsen")
    }

    /// Makes a file, and writes a block to it.
    ///
    /// # Errors
    /// As the file system's: that it is full, or read-only.
    pub fn check_writable(&self) -> io::Result<()> {
        let probe = self.point.join(PROBE);
        self.inside(|| {
            let written = fs::write(&probe, [1; BLOCK_BYTES as usize]);
            // Where it could not even be made, it cannot be removed.
            let removed = fs::remove_file(&probe);
            written.and(removed)
        })?
    }

    /// The namespace in which it is mounted.
    pub(in crate::world) fn mounts(&self) -> &Arc<File> {
        &self.mounts
    }

    /// The disk's number in the kernel's tables.
    pub(in crate::world) fn device_number(&self) -> String {
        self.device.device_number()
    }

    /// Writes random ranges of all files to the disk, whatever their owner thinks of it.
    fn write_back(&self, share: f64, random: &mut StdRng) -> io::Result<()> {
        let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE
            | libc::SYNC_FILE_RANGE_WRITE
            | libc::SYNC_FILE_RANGE_WAIT_AFTER;
        for (path, length) in files_below(&self.data_dir())? {
            let file = File::open(&path)?;
            let mut at = 0;
            while at < length {
                let piece = random.random_range(1..=KEPT_BYTES_MAX / BLOCK_BYTES) * BLOCK_BYTES;
                if random.random_bool(share.min(1.0)) {
                    let (at, piece) = (at.cast_signed(), piece.cast_signed());
                    // SAFETY: the descriptor is open, and the call takes no pointer.
                    sys::check(unsafe { libc::sync_file_range(file.as_raw_fd(), at, piece, flags) })?;
                }
                at += piece;
            }
        }
        Ok(())
    }

    /// Unmounts, once the last user is gone: a killed process lets go of its files a moment after it is seen to have ended.
    fn unmount(&self) -> io::Result<()> {
        let deadline = Instant::now() + RELEASE_TIMEOUT;
        loop {
            match sys::unmount(&self.point) {
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                    thread::sleep(Duration::from_millis(5));
                }
                result => return result,
            }
        }
    }

    /// A process that thaws the disk when it hears no more from this one.
    fn guard(&self) -> io::Result<Child> {
        let mounts = Arc::clone(&self.mounts);
        let mut guard = Command::new("/bin/sh");
        guard.args(["-c", "read -r _; exec /sbin/fsfreeze --unfreeze \"$0\""]).arg(&self.point);
        guard.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // SAFETY: between fork and exec only system calls are made.
        unsafe { guard.pre_exec(move || sys::enter(Kind::Mounts, &mounts)) };
        guard.spawn()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        if let Err(error) = self.thaw() {
            eprintln!("{}: {error:#}", self.point.display());
        }
        // The namespace takes the mount with it in any case.
        let _ = self.inside(|| sys::unmount(&self.point));
    }
}

/// An ext4 file system with few inodes, so that none of it is left to be initialised in the background.
fn make_file_system(device: &Path) -> anyhow::Result<()> {
    let mut command = Command::new("/sbin/mkfs.ext4");
    command.args(["-q", "-F", "-m", "0", "-N", "1024", "-J", "size=16", "-E"]);
    command.arg("nodiscard,lazy_itable_init=0,lazy_journal_init=1").arg(device);
    let made = command.stdin(Stdio::null()).output().context("mkfs.ext4 cannot be run")?;
    ensure!(made.status.success(), "mkfs.ext4: {}", String::from_utf8_lossy(&made.stderr).trim());
    Ok(())
}

fn mount(device: &LoopDevice, point: &Path) -> io::Result<()> {
    sys::mount(Some(&device.path()), point, Some("ext4"), libc::MS_NOATIME, Some("errors=remount-ro"))
}

/// Bytes that nobody has taken.
fn free_bytes(point: &Path) -> io::Result<u64> {
    let directory = File::open(point)?;
    let mut facts = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the descriptor is open, and `facts` has room for the answer.
    sys::check(unsafe { libc::fstatvfs(directory.as_raw_fd(), facts.as_mut_ptr()) })?;
    // SAFETY: the call has filled the whole of it, since it did not fail.
    let facts = unsafe { facts.assume_init() };
    Ok(facts.f_bavail * facts.f_frsize)
}

/// Gives a file more space; says whether there was so much.
fn allocate(file: &File, at: u64, length: u64) -> io::Result<bool> {
    // SAFETY: the descriptor is open, and the call takes no pointer.
    let result = unsafe { libc::fallocate(file.as_raw_fd(), 0, at.cast_signed(), length.cast_signed()) };
    match sys::check(result) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => Ok(false),
        Err(error) => Err(error),
    }
}
