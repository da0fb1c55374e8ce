//! Syncs that fail or take long, and writes that fail.

use std::sync::atomic::Ordering;

use libc::{c_int, c_void, off64_t, size_t, ssize_t, timespec};

use crate::attach::block;
use crate::real::{Nanosleep, Pwrite, Real, Sync};

static FSYNC: Real = Real::new(c"fsync");
static FDATASYNC: Real = Real::new(c"fdatasync");
static PWRITE: Real = Real::new(c"pwrite64");
static NANOSLEEP: Real = Real::new(c"nanosleep");

/// `fsync(2)`.
///
/// # Safety
/// As of the C library's function.
#[unsafe(no_mangle)]
unsafe extern "C" fn fsync(file: c_int) -> c_int {
    // SAFETY: the caller's promises are passed on.
    unsafe { sync(&FSYNC, file) }
}

/// `fdatasync(2)`.
///
/// # Safety
/// As of the C library's function.
#[unsafe(no_mangle)]
unsafe extern "C" fn fdatasync(file: c_int) -> c_int {
    // SAFETY: the caller's promises are passed on.
    unsafe { sync(&FDATASYNC, file) }
}

/// `pwrite64(2)`, by which the standard library writes at a position.
///
/// # Safety
/// As of the C library's function.
#[unsafe(no_mangle)]
unsafe extern "C" fn pwrite64(file: c_int, bytes: *const c_void, count: size_t, offset: off64_t) -> ssize_t {
    if let Some(block) = block() {
        let error = block.write_error.load(Ordering::Acquire);
        if error != 0 {
            block.writes_failed.fetch_add(1, Ordering::Relaxed);
            set_error(error);
            return -1;
        }
    }
    // SAFETY: the caller's promises are passed on; the type is that of the function.
    unsafe { PWRITE.get::<Pwrite>()(file, bytes, count, offset) }
}

/// # Safety
/// As of `fsync` and `fdatasync`, of which `real` must be one.
unsafe fn sync(real: &Real, file: c_int) -> c_int {
    if let Some(block) = block() {
        let count = block.syncs.fetch_add(1, Ordering::AcqRel) + 1;
        let delay = block.sync_delay.load(Ordering::Acquire);
        if delay != 0 {
            block.syncs_delayed.fetch_add(1, Ordering::Relaxed);
            sleep(delay);
        }
        let fails_from = block.sync_fails_from.load(Ordering::Acquire);
        if fails_from != 0 && count >= fails_from {
            block.syncs_failed.fetch_add(1, Ordering::Relaxed);
            set_error(block.sync_error.load(Ordering::Acquire));
            return -1;
        }
    }
    // SAFETY: the caller's promises are passed on; the type is that of both functions.
    unsafe { real.get::<Sync>()(file) }
}

/// Sleeps for true milliseconds, whatever the server's clocks show.
fn sleep(milliseconds: u64) {
    let milliseconds = i64::try_from(milliseconds).unwrap_or(i64::MAX);
    let span = timespec { tv_sec: milliseconds / 1_000, tv_nsec: milliseconds % 1_000 * 1_000_000 };
    // SAFETY: the span is readable, and what remains after a signal is not asked for; the type is that of the function.
    unsafe { NANOSLEEP.get::<Nanosleep>()(&raw const span, std::ptr::null_mut()) };
}

fn set_error(error: u64) {
    let error = c_int::try_from(error).unwrap_or(libc::EIO);
    // SAFETY: the location of this thread's error number is always valid.
    unsafe { *libc::__errno_location() = error };
}
