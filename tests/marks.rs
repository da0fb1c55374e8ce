//! The processes that a command left in the world, found in `/proc` by a mark in their environment, whatever they did to
//! their parents, groups and sessions.

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::binary;

/// The name of the variable that holds the mark.
const VARIABLE: &str = "RINGFENCE_TEST_MARK";

/// What all processes that descend from one command have in their environment.
#[derive(Debug, Clone)]
pub struct Mark(String);

impl Mark {
    /// Marks a command, and with it all that descends from it.
    #[must_use]
    pub fn on(command: &mut Command) -> Mark {
        static MARKS: AtomicU32 = AtomicU32::new(0);
        let mark = format!("{}-{}", std::process::id(), MARKS.fetch_add(1, Ordering::Relaxed));
        command.env(VARIABLE, &mark);
        Mark(mark)
    }

    /// The living processes that are not the program itself.
    #[must_use]
    pub fn commands(&self) -> Vec<i32> {
        self.all().into_iter().filter(|pid| !is_program(*pid)).collect()
    }

    /// The process of the program that runs as this command of it.
    #[must_use]
    pub fn program(&self, subcommand: &str) -> Option<i32> {
        self.all().into_iter().find(|pid| {
            let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            is_program(*pid) && arguments.split(|byte| *byte == 0).nth(1) == Some(subcommand.as_bytes())
        })
    }

    /// Every living process.
    ///
    /// # Panics
    /// Where `/proc` is not mounted.
    #[must_use]
    pub fn all(&self) -> Vec<i32> {
        let wanted = format!("{VARIABLE}={}", self.0);
        let pids = fs::read_dir("/proc").expect("/proc is mounted").flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(|pid| {
            // That of a process that has ended is empty, or cannot be read.
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
        })
        .collect()
    }

    /// Kills every process.
    pub fn kill(&self) {
        for pid in self.all() {
            signal(pid, libc::SIGKILL);
        }
    }
}

/// Sends a signal to a process, if it is there.
pub fn signal(pid: i32, signal: libc::c_int) {
    // SAFETY: kill touches no memory.
    unsafe { libc::kill(pid, signal) };
}

/// When a process started, by `CLOCK_BOOTTIME`, to a hundredth of a second; `None` if it has ended.
#[must_use]
pub fn started(pid: i32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in which anything may stand, ends with the last parenthesis; the state follows as field 3, the start as 22.
    let ticks: u64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    Some(Duration::from_millis(10 * ticks))
}

/// The time since boot.
///
/// # Panics
/// Never on Linux.
#[must_use]
pub fn boottime() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec, and the call writes nothing else.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut time) }, 0);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).expect("it is below a second"))
}

fn is_program(pid: i32) -> bool {
    fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|path| path == binary::ringfence())
}
