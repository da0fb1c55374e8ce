//! Clocks that run at another rate, and waits that last as long by those clocks as was asked for.

use std::sync::atomic::Ordering;

use libc::{c_int, c_long, clockid_t, epoll_event, nfds_t, pollfd, timespec};

use crate::attach::block;
use crate::block::{Block, Course, RATE_TRUE};
use crate::real::{ClockGettime, ClockNanosleep, EpollWait, Nanosleep, Poll, Real, Syscall};

const NANOSECONDS: i64 = 1_000_000_000;

static CLOCK_GETTIME: Real = Real::new(c"clock_gettime");
static NANOSLEEP: Real = Real::new(c"nanosleep");
static CLOCK_NANOSLEEP: Real = Real::new(c"clock_nanosleep");
static EPOLL_WAIT: Real = Real::new(c"epoll_wait");
static POLL: Real = Real::new(c"poll");
static SYSCALL: Real = Real::new(c"syscall");

/// `clock_gettime(2)`.
///
/// # Safety
/// As of the C library's function.
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: clockid_t, time: *mut timespec) -> c_int {
    match block() {
        Some(block) if is_ruled(clock) => {
            // SAFETY: the caller's promises are passed on.
            unsafe { read_ruled(block, clock, time) }
        }
        // SAFETY: as above; the type is that of the function.
        _ => unsafe { CLOCK_GETTIME.get::<ClockGettime>()(clock, time) },
    }
}

/// `nanosleep(2)`.
///
/// # Safety
/// As of the C library's function.
#[unsafe(no_mangle)]
unsafe extern "C" fn nanosleep(request: *const timespec, remaining: *mut timespec) -> c_int {
    let Some(course) = course() else {
        // SAFETY: the caller's promises are passed on; the type is that of the function.
        return unsafe { NANOSLEEP.get::<Nanosleep>()(request, remaining) };
    };
    // SAFETY: as above; the caller's span may be read.
    let span = to_timespec(course.to_true(unsafe { nanoseconds(request) }));
    let result = unsafe { NANOSLEEP.get::<Nanosleep>()(&raw const span, remaining) };
    if result != 0 {
        // SAFETY: as above.
        unsafe { show_remaining(course, remaining) };
    }
    result
}

/// `clock_nanosleep(2)`.
///
/// # Safety
/// As of the C library's function.
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_nanosleep(
    clock: clockid_t,
    flags: c_int,
    request: *const timespec,
    remaining: *mut timespec,
) -> c_int {
    // SAFETY: the type is that of the function.
    let real = unsafe { CLOCK_NANOSLEEP.get::<ClockNanosleep>() };
    let Some(course) = course().filter(|_| is_ruled(clock)) else {
        // SAFETY: the caller's promises are passed on.
        return unsafe { real(clock, flags, request, remaining) };
    };
    // SAFETY: the caller's time may be read.
    let mut span = unsafe { nanoseconds(request) };
    if flags & libc::TIMER_ABSTIME != 0 {
        span -= shown_now(clock);
        if span <= 0 {
            return 0;
        }
    }
    let span = to_timespec(course.to_true(span));
    // SAFETY: the caller's promises are passed on.
    let result = unsafe { real(libc::CLOCK_MONOTONIC, 0, &raw const span, remaining) };
    if result != 0 && flags & libc::TIMER_ABSTIME == 0 {
        // SAFETY: as above.
        unsafe { show_remaining(course, remaining) };
    }
    result
}

/// `epoll_wait(2)`.
///
/// # Safety
/// As of the C library's function.
#[unsafe(no_mangle)]
unsafe extern "C" fn epoll_wait(
    epoll: c_int,
    events: *mut epoll_event,
    count: c_int,
    timeout: c_int,
) -> c_int {
    // SAFETY: the caller's promises are passed on; the type is that of the function.
    unsafe { EPOLL_WAIT.get::<EpollWait>()(epoll, events, count, true_milliseconds(timeout)) }
}

/// `poll(2)`.
///
/// # Safety
/// As of the C library's function.
#[unsafe(no_mangle)]
unsafe extern "C" fn poll(polled: *mut pollfd, count: nfds_t, timeout: c_int) -> c_int {
    // SAFETY: the caller's promises are passed on; the type is that of the function.
    unsafe { POLL.get::<Poll>()(polled, count, true_milliseconds(timeout)) }
}

/// `syscall(2)`, through which the standard library waits for futexes. In C it takes as many arguments as the system call has;
/// on x86-64 the first six of these are in the same registers and places as here, whatever their number.
///
/// # Safety
/// As of the C library's function.
#[unsafe(no_mangle)]
unsafe extern "C" fn syscall(
    number: c_long,
    first: usize,
    second: usize,
    third: usize,
    fourth: usize,
    fifth: usize,
    sixth: usize,
) -> c_long {
    let mut timeout = fourth;
    let span;
    if number == libc::SYS_futex
        && fourth != 0
        && let Some(course) = course()
    {
        // SAFETY: the fourth argument of the operations that wait is null or a time, and only those get beyond this point.
        if let Some(waits) = unsafe { true_timeout(course, second as c_int, fourth as *const timespec) } {
            span = waits;
            timeout = &raw const span as usize;
        }
    }
    // SAFETY: the caller's promises are passed on; the type fits every use on this architecture.
    unsafe { SYSCALL.get::<Syscall>()(number, first, second, third, timeout, fifth, sixth) }
}

/// Until when or how long the kernel must wait; `None`: this operation does not wait, or not by a clock that is ruled.
///
/// # Safety
/// `timeout` must be readable for operations that wait.
unsafe fn true_timeout(course: Course, operation: c_int, timeout: *const timespec) -> Option<timespec> {
    let by_wall_clock = operation & libc::FUTEX_CLOCK_REALTIME != 0;
    match operation & libc::FUTEX_CMD_MASK {
        // A span.
        // SAFETY: this operation waits.
        libc::FUTEX_WAIT => Some(to_timespec(course.to_true(unsafe { nanoseconds(timeout) }))),
        // A moment.
        // SAFETY: as above.
        libc::FUTEX_WAIT_BITSET if !by_wall_clock => {
            Some(to_timespec(course.true_moment(unsafe { nanoseconds(timeout) }).max(0)))
        }
        _ => None,
    }
}

/// Reads a clock as the block wants it to be seen.
///
/// # Safety
/// As of `clock_gettime`.
unsafe fn read_ruled(block: &Block, clock: clockid_t, time: *mut timespec) -> c_int {
    let is_wall = is_wall(clock);
    let (result, is_wrong) = block.with_course(|course| {
        let now = true_now(libc::CLOCK_MONOTONIC);
        // SAFETY: the caller's promises are passed on; the type is that of the function.
        let result = unsafe { CLOCK_GETTIME.get::<ClockGettime>()(clock, time) };
        if result == 0 {
            let offset = if is_wall { course.wall_offset } else { 0 };
            // All clocks gain the same, whatever they count from.
            let gained = course.shown(now) - now;
            // SAFETY: the real function has just written there.
            unsafe { *time = to_timespec(nanoseconds(time) + gained + offset) };
        }
        (result, course.rate != RATE_TRUE || (is_wall && course.wall_offset != 0))
    });
    if is_wrong {
        block.wrong_readings.fetch_add(1, Ordering::Relaxed);
    }
    result
}

fn is_wall(clock: clockid_t) -> bool {
    matches!(clock, libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE)
}

/// Whether a clock is one of time, rather than of what a process has used.
fn is_ruled(clock: clockid_t) -> bool {
    is_wall(clock)
        || matches!(
            clock,
            libc::CLOCK_MONOTONIC
                | libc::CLOCK_MONOTONIC_COARSE
                | libc::CLOCK_MONOTONIC_RAW
                | libc::CLOCK_BOOTTIME
        )
}

fn course() -> Option<Course> {
    block().map(|block| block.with_course(|course| course))
}

/// What the server sees on a clock now.
fn shown_now(clock: clockid_t) -> i64 {
    let mut time = timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: there is room for the answer, and it is read after it was written.
    unsafe {
        clock_gettime(clock, &raw mut time);
        nanoseconds(&raw const time)
    }
}

/// What a clock shows in truth.
fn true_now(clock: clockid_t) -> i64 {
    let mut time = timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: as above; the type is that of the function.
    unsafe {
        CLOCK_GETTIME.get::<ClockGettime>()(clock, &raw mut time);
        nanoseconds(&raw const time)
    }
}

/// How many true milliseconds a wait must take, rounded up, since waits never end early; those without an end have none.
fn true_milliseconds(timeout: c_int) -> c_int {
    match course() {
        Some(course) if timeout > 0 => {
            let milliseconds = i64::from(timeout) * RATE_TRUE / course.rate.max(1) + 1;
            let exact = course.rate == RATE_TRUE;
            if exact { timeout } else { c_int::try_from(milliseconds).unwrap_or(c_int::MAX) }
        }
        _ => timeout,
    }
}

/// Turns what is left of a true span into the server's.
///
/// # Safety
/// `remaining` must be null, or readable and writable.
unsafe fn show_remaining(course: Course, remaining: *mut timespec) {
    if !remaining.is_null() {
        // SAFETY: the caller's promise.
        unsafe { *remaining = to_timespec(course.to_shown(nanoseconds(remaining))) };
    }
}

/// # Safety
/// `time` must be readable.
unsafe fn nanoseconds(time: *const timespec) -> i64 {
    // SAFETY: the caller's promise.
    let time = unsafe { *time };
    time.tv_sec.saturating_mul(NANOSECONDS).saturating_add(time.tv_nsec)
}

fn to_timespec(nanoseconds: i64) -> timespec {
    timespec { tv_sec: nanoseconds.div_euclid(NANOSECONDS), tv_nsec: nanoseconds.rem_euclid(NANOSECONDS) }
}
