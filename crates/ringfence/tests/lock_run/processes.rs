//! The processes of one run, found in `/proc` by a mark in their environment, whatever they did to their parents, groups and
//! sessions.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// The name of the variable that holds the mark.
pub const VARIABLE: &str = "LOCK_RUN_TEST_MARK";

/// What all processes of one run have in their environment.
#[derive(Debug, Clone)]
pub struct Mark(String);

impl Mark {
    pub fn new() -> Mark {
        static RUNS: AtomicU32 = AtomicU32::new(0);
        Mark(format!("{}-{}", std::process::id(), RUNS.fetch_add(1, Ordering::Relaxed)))
    }

    pub fn value(&self) -> &str {
        &self.0
    }

    /// The living processes of the command: all those marked that are not the program itself.
    pub fn command_processes(&self) -> Vec<i32> {
        self.marked().into_iter().filter(|pid| !is_program(*pid)).collect()
    }

    /// Whether the command runs a process with just these arguments.
    pub fn command_runs(&self, arguments: &[&str]) -> bool {
        let wanted: String = arguments.iter().map(|argument| format!("{argument}\0")).collect();
        let is_wanted = |pid: &i32| {
            fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|found| found == wanted.as_bytes())
        };
        self.command_processes().iter().any(is_wanted)
    }

    /// The processes of the program that run as this command of it.
    pub fn roles(&self, subcommand: &str) -> Vec<i32> {
        let runs_as = |pid: &i32| {
            let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            is_program(*pid) && arguments.split(|byte| *byte == 0).nth(1) == Some(subcommand.as_bytes())
        };
        self.marked().into_iter().filter(runs_as).collect()
    }

    /// The only one of them.
    pub fn role(&self, subcommand: &str) -> i32 {
        match self.roles(subcommand)[..] {
            [pid] => pid,
            ref others => panic!("these run as {subcommand}: {others:?}"),
        }
    }

    /// Every living process of the run.
    pub fn marked(&self) -> Vec<i32> {
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
}

fn is_program(pid: i32) -> bool {
    fs::read_link(format!("/proc/{pid}/exe"))
        .is_ok_and(|path| path == Path::new(env!("CARGO_BIN_EXE_ringfence")))
}

/// The time since boot.
pub fn now() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec, and the call writes nothing else.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut time) }, 0);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).expect("it is below a second"))
}

/// Sends a signal to a process of this test.
pub fn signal(pid: i32, signal: libc::c_int) {
    // SAFETY: kill touches no memory.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0, "process {pid} takes signals");
}
