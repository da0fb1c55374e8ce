//! Processes as the kernel's tree has them: who descends from whom, how to end them all, and the proof that none is left.
//!
//! A subreaper (`PR_SET_CHILD_SUBREAPER`) becomes the parent of every orphan among its descendants, whatever that one did to
//! its session or group. So a subreaper without children is one without descendants, and `wait` says so exactly.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::thread;
use std::time::Duration;

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, WaitStatus, getpid, pidfd_open, pidfd_send_signal,
    set_child_subreaper, wait,
};

/// Between two looks at processes that were killed.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);

/// A process as it was seen: its id alone might be another's by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Seen {
    pid: i32,
    /// When it started, in ticks since boot.
    started: u64,
}

/// Makes this process the parent of every orphan among its descendants.
pub(super) fn become_subreaper() -> io::Result<()> {
    Ok(set_child_subreaper(Some(getpid()))?)
}

/// Signals every living descendant of a process, those below `strangers` excepted.
pub(super) fn signal_descendants(root: Pid, strangers: &BTreeSet<i32>, signal: Signal) -> usize {
    let mut living = 0;
    for seen in descendants(root, strangers) {
        living += 1;
        // It may end while we look: then there is nobody to signal.
        let Some(pid) = Pid::from_raw(seen.pid) else { continue };
        let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
        // The id was not given to another process before the descriptor was opened, and cannot be after.
        if read(seen.pid).is_some_and(|now| now.seen == seen) {
            let _ = pidfd_send_signal(&pidfd, signal);
        }
    }
    living
}

/// The children that this process has before it starts any: a shell may have left them to it.
pub(super) fn children_before_the_first() -> BTreeSet<i32> {
    let this = getpid().as_raw_nonzero().get();
    all().into_values().filter(|process| process.parent == this).map(|process| process.seen.pid).collect()
}

/// Reaps what has ended. Returns each with its status, and whether no child is left.
pub(super) fn reap() -> (Vec<(Pid, WaitStatus)>, bool) {
    let mut ended = Vec::new();
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some(one)) => ended.push(one),
            Ok(None) => return (ended, false),
            Err(rustix::io::Errno::INTR) => {}
            // There is no child: the only other failure that the call knows.
            Err(_) => return (ended, true),
        }
    }
}

/// Kills every descendant of this process, which must be a subreaper, and returns when the last has ended; `also` is done
/// before each look. There is no limit of time: as long as one lives, the lock must not be given back.
pub(super) fn kill_all(strangers: &BTreeSet<i32>, mut also: impl FnMut()) {
    let mut looks_without_any = 0;
    loop {
        also();
        let living = signal_descendants(getpid(), strangers, Signal::KILL);
        let (_, childless) = reap();
        // With children that are not ours there is no such proof; a process that was starting during one look is seen in
        // the next.
        looks_without_any = if living == 0 { looks_without_any + 1 } else { 0 };
        if childless || (!strangers.is_empty() && looks_without_any > 1) {
            return;
        }
        thread::sleep(LOOK_INTERVAL);
    }
}

#[derive(Debug, Clone, Copy)]
struct Process {
    seen: Seen,
    parent: i32,
    /// It does nothing any more and waits to be reaped.
    has_ended: bool,
}

/// The living descendants of a process.
fn descendants(root: Pid, strangers: &BTreeSet<i32>) -> Vec<Seen> {
    let processes = all();
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for process in processes.values() {
        children.entry(process.parent).or_default().push(process.seen.pid);
    }
    let mut found = Vec::new();
    let mut waiting = vec![root.as_raw_nonzero().get()];
    while let Some(parent) = waiting.pop() {
        for pid in children.remove(&parent).unwrap_or_default() {
            if strangers.contains(&pid) {
                continue;
            }
            waiting.push(pid);
            found
                .extend(processes.get(&pid).filter(|process| !process.has_ended).map(|process| process.seen));
        }
    }
    found
}

fn all() -> BTreeMap<i32, Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return BTreeMap::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Some((pid, read(pid)?))).collect()
}

fn read(pid: i32) -> Option<Process> {
    parse(&fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// One line of `/proc/PID/stat`. The second field is the name, in parentheses, in which anything may stand.
fn parse(stat: &[u8]) -> Option<Process> {
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    let name_start = stat.iter().position(|byte| *byte == b'(')?;
    let pid = std::str::from_utf8(&stat[..name_start]).ok()?.trim().parse().ok()?;
    let fields: Vec<&str> = std::str::from_utf8(&stat[name_end + 1..]).ok()?.split_whitespace().collect();
    // The state is the third field, the parent the fourth, the number of threads the twentieth, the start the twenty-second.
    let started = fields.get(19)?.parse().ok()?;
    let threads: u64 = fields.get(17)?.parse().ok()?;
    Some(Process {
        seen: Seen { pid, started },
        parent: fields.get(1)?.parse().ok()?,
        // A leader whose other threads live on looks like one that has ended.
        has_ended: matches!(*fields.first()?, "Z" | "X") && threads <= 1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_name() {
        let stat = b"42 (a) Z (b) S 7 42 42 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 12345 1 1\n";
        let process = parse(stat).expect("it is well formed");
        assert_eq!(process.seen, Seen { pid: 42, started: 12_345 });
        assert_eq!(process.parent, 7);
        assert!(!process.has_ended);
        let zombie =
            |threads: &str| format!("42 (a) Z 7 42 42 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 {threads} 0 1 1 1");
        assert!(parse(zombie("1").as_bytes()).expect("it is well formed").has_ended);
        assert!(!parse(zombie("2").as_bytes()).expect("it is well formed").has_ended);
        assert!(parse(b"42 (a) Z 7").is_none());
        assert!(parse(b"").is_none());
    }

    #[test]
    fn this_process_descends_from_its_parent() {
        let this = getpid();
        let parent = rustix::process::getppid().expect("tests are started by another process");
        let of_parent = descendants(parent, &BTreeSet::new());
        assert!(of_parent.iter().any(|seen| seen.pid == this.as_raw_nonzero().get()));
        let without = descendants(parent, &BTreeSet::from([this.as_raw_nonzero().get()]));
        assert!(without.iter().all(|seen| seen.pid != this.as_raw_nonzero().get()));
    }
}
