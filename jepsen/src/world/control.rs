//! A server's clocks and its disk's manners, ruled through the shim that it was started with.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::ptr::NonNull;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::block::{BLOCK_VARIABLE, Block, Course, MAGIC, RATE_TRUE};
use super::sys;

/// The control block of one node, and the shim that reads it.
#[derive(Debug)]
pub(super) struct Control {
    shim: PathBuf,
    file: PathBuf,
    pub(super) clock: NodeClock,
    pub(super) syncs: NodeSyncs,
}

impl Control {
    /// Makes a block in a file of that name, which rules nothing yet.
    ///
    /// # Errors
    /// As the file system's.
    pub(super) fn create(shim: &Path, file: PathBuf) -> io::Result<Control> {
        let made = File::options().read(true).write(true).create(true).truncate(true).open(&file)?;
        made.set_len(size_of::<Block>() as u64)?;
        let block = Mapped::new(&made)?;
        block.change_course(|_| Course::TRUE);
        block.magic.store(MAGIC, Ordering::Release);
        Ok(Control {
            shim: shim.to_path_buf(),
            file,
            clock: NodeClock { block, turn: Mutex::new(()) },
            syncs: NodeSyncs { block },
        })
    }

    /// Makes a command start with the shim.
    pub(super) fn prepare(&self, command: &mut Command) {
        let variable = OsStr::from_bytes(BLOCK_VARIABLE.to_bytes());
        command.env("LD_PRELOAD", &self.shim).env(variable, &self.file);
    }

    /// How many processes the shim has begun to rule.
    pub(super) fn attached(&self) -> u64 {
        self.clock.block.attached.load(Ordering::Acquire)
    }
}

/// A node's clocks: `CLOCK_MONOTONIC`, `CLOCK_BOOTTIME` and all waits run at one rate; the wall clock too, and off by
/// something. A change of the rate is no jump, and a restart of the node changes nothing.
#[derive(Debug)]
pub struct NodeClock {
    block: Mapped,
    turn: Mutex<()>,
}

impl NodeClock {
    /// Makes the clocks run faster by so many millionths (slower, if negative).
    ///
    /// # Panics
    /// Where they would stand still or go backwards.
    pub fn set_rate(&self, ppm: i64) {
        let rate = RATE_TRUE + ppm;
        assert!(rate > 0, "a monotonic clock goes forwards");
        self.change(|course| {
            let now = sys::clock(libc::CLOCK_MONOTONIC).cast_signed();
            Course { base_true: now, base_shown: course.shown(now), rate, ..course }
        });
    }

    /// Puts the wall clock off by so many nanoseconds.
    pub fn set_wall_offset(&self, nanoseconds: i64) {
        self.change(|course| Course { wall_offset: nanoseconds, ..course });
    }

    /// Lets the clocks run at the true rate, and the wall clock be right but for what the monotonic clock gained or lost,
    /// which it cannot give back.
    pub fn heal(&self) {
        self.set_rate(0);
        self.set_wall_offset(0);
    }

    /// How many millionths faster the clocks run.
    #[must_use]
    pub fn rate(&self) -> i64 {
        self.course().rate - RATE_TRUE
    }

    /// By how many nanoseconds the wall clock was put off.
    #[must_use]
    pub fn wall_offset(&self) -> i64 {
        self.course().wall_offset
    }

    /// What the node's monotonic clock has gained since the run began, in nanoseconds.
    #[must_use]
    pub fn gained(&self) -> i64 {
        self.block.with_course(|course| {
            let now = sys::clock(libc::CLOCK_MONOTONIC).cast_signed();
            course.shown(now) - now
        })
    }

    /// How often the node has read a clock that was wrong: the evidence that the fault reached it.
    #[must_use]
    pub fn wrong_readings(&self) -> u64 {
        self.block.wrong_readings.load(Ordering::Relaxed)
    }

    fn change(&self, change: impl FnOnce(Course) -> Course) {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.block.change_course(change);
    }

    fn course(&self) -> Course {
        self.block.with_course(|course| course)
    }
}

/// A node's syncs and writes: errors that no kernel would give at will, and delays.
#[derive(Debug)]
pub struct NodeSyncs {
    block: Mapped,
}

impl NodeSyncs {
    /// Makes the next sync but `after` fail, and all that follow it, with this error number (`libc::EIO`, ...).
    pub fn fail(&self, after: u64, error: i32) {
        self.block.sync_error.store(u64::from(error.unsigned_abs()), Ordering::Release);
        let first = self.count() + after + 1;
        self.block.sync_fails_from.store(first, Ordering::Release);
    }

    /// Makes every write fail with this error number (`libc::ENOSPC`, ...).
    pub fn fail_writes(&self, error: i32) {
        self.block.write_error.store(u64::from(error.unsigned_abs()), Ordering::Release);
    }

    /// Makes each sync take longer, to the millisecond.
    pub fn delay(&self, delay: Duration) {
        let milliseconds = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        self.block.sync_delay.store(milliseconds, Ordering::Release);
    }

    /// Lets everything work again.
    pub fn heal(&self) {
        self.block.sync_fails_from.store(0, Ordering::Release);
        self.block.write_error.store(0, Ordering::Release);
        self.block.sync_delay.store(0, Ordering::Release);
    }

    /// How many syncs the node has begun.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.block.syncs.load(Ordering::Acquire)
    }

    /// How many syncs were made to fail.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.block.syncs_failed.load(Ordering::Acquire)
    }

    /// How many syncs were delayed.
    #[must_use]
    pub fn delayed(&self) -> u64 {
        self.block.syncs_delayed.load(Ordering::Acquire)
    }

    /// How many writes were made to fail.
    #[must_use]
    pub fn writes_failed(&self) -> u64 {
        self.block.writes_failed.load(Ordering::Acquire)
    }
}

/// A block mapped into this process, for as long as the process lives: a run has a handful of them, of a page each.
#[derive(Debug, Clone, Copy)]
struct Mapped(NonNull<Block>);

// SAFETY: a block consists of atomics alone, so that any thread may use it at any time.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// Maps a file that is at least as long as a block.
    fn new(file: &File) -> io::Result<Mapped> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the kernel chooses the address, and the descriptor is open.
        let address = unsafe {
            let null = std::ptr::null_mut();
            libc::mmap(null, size_of::<Block>(), protection, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Mapped(NonNull::new(address.cast()).expect("a mapping does not lie at address 0")))
    }
}

impl std::ops::Deref for Mapped {
    type Target = Block;

    fn deref(&self) -> &Block {
        // SAFETY: the mapping is as long as a block, aligned to a page, never unmapped, and used through atomics alone.
        unsafe { self.0.as_ref() }
    }
}
