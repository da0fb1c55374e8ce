//! `CLOCK_BOOTTIME`, which goes on while the machine sleeps: readings of it, an alarm by it, and a timer by which the
//! kernel itself ends this process.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::ptr;
use std::time::Duration;

use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// A moment: the time since the machine booted, the time asleep included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Boottime(pub(super) Duration);

/// Waits for moments. The timers of the runtime would not do: they stand still while the machine sleeps.
#[derive(Debug)]
pub(super) struct Alarm {
    timer: AsyncFd<OwnedFd>,
}

/// Ends this process with SIGKILL at a moment, even while it is stopped.
#[derive(Debug)]
pub(super) struct KernelTimer {
    timer: libc::timer_t,
}

impl Boottime {
    pub(super) fn now() -> Boottime {
        let time = clock_gettime(ClockId::Boottime);
        // The clock is never before its own start.
        Boottime(Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0)))
    }

    pub(super) fn plus(self, time: Duration) -> Boottime {
        Boottime(self.0.saturating_add(time))
    }

    pub(super) fn minus(self, time: Duration) -> Boottime {
        Boottime(self.0.saturating_sub(time))
    }

    pub(super) fn has_come(self) -> bool {
        Boottime::now() >= self
    }

    /// A moment that the kernel takes: zero would switch its timers off.
    fn seconds_and_nanoseconds(self) -> (i64, i64) {
        let time = self.0.max(Duration::from_nanos(1));
        (i64::try_from(time.as_secs()).unwrap_or(i64::MAX), i64::from(time.subsec_nanos()))
    }
}

impl fmt::Display for Boottime {
    /// Nanoseconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.as_nanos())
    }
}

impl Alarm {
    pub(super) fn new() -> io::Result<Alarm> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Boottime, flags)?;
        // SAFETY: the descriptor is owned by what is registered, and lives exactly as long.
        Ok(Alarm { timer: unsafe { AsyncFd::register(timer) }? })
    }

    /// Returns at `moment`, at once if it has come. May be given up at any time.
    pub(super) async fn at(&self, moment: Boottime) -> io::Result<()> {
        let (tv_sec, tv_nsec) = moment.seconds_and_nanoseconds();
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        let once = Itimerspec { it_interval: never, it_value: Timespec { tv_sec, tv_nsec } };
        timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::ABSTIME, &once)?;
        while !moment.has_come() {
            // Readiness may be left over from an earlier moment; the clock has the last word.
            let mut ready = self.timer.readable().await?;
            let _ = rustix::io::read(self.timer.get_ref(), &mut [0; 8]);
            ready.clear_ready();
        }
        Ok(())
    }
}

impl KernelTimer {
    /// A timer that is not set yet.
    pub(super) fn new() -> io::Result<KernelTimer> {
        // SAFETY: an event of zeros is valid, and the two fields that matter are set below.
        let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
        event.sigev_notify = libc::SIGEV_SIGNAL;
        event.sigev_signo = libc::SIGKILL;
        let mut timer: libc::timer_t = ptr::null_mut();
        // SAFETY: both pointers are to live values, and the call writes the timer's id alone.
        if unsafe { libc::timer_create(libc::CLOCK_BOOTTIME, &mut event, &mut timer) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(KernelTimer { timer })
    }

    /// Has the kernel end this process at `moment`, and at no moment that was set before.
    pub(super) fn set(&self, moment: Boottime) -> io::Result<()> {
        let (tv_sec, tv_nsec) = moment.seconds_and_nanoseconds();
        let never = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let once = libc::itimerspec { it_interval: never, it_value: libc::timespec { tv_sec, tv_nsec } };
        // SAFETY: the timer was created and is never deleted, and the pointer is to a live value.
        if unsafe { libc::timer_settime(self.timer, libc::TIMER_ABSTIME, &once, ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_alarm_waits_for_its_moment_and_not_for_an_earlier_one() {
        let alarm = Alarm::new().expect("the kernel has timers");
        alarm.at(Boottime(Duration::ZERO)).await.expect("the kernel has timers");
        for milliseconds in [30, 1, 20] {
            let moment = Boottime::now().plus(Duration::from_millis(milliseconds));
            alarm.at(moment).await.expect("the kernel has timers");
            assert!(Boottime::now() >= moment);
        }
    }
}
