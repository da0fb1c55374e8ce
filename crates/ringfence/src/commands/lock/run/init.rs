//! The container's first process, `ringfence run-init`: it stands between the watchdog and the command, reaps what the command
//! leaves behind, passes signals on, and ends everything if the watchdog dies.
//!
//! In a PID namespace it is process 1, and the kernel ends all others with it. Elsewhere it is the third who can end the
//! command: should the wrapper and the watchdog both be stopped, the kernel ends the watchdog at its deadline, and this
//! process sees that.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::process::Command;

use rustix::process::{Pid, PidfdFlags, Signal, WaitStatus, pidfd_open, pidfd_send_signal, setsid};
use tokio::signal::unix::{SignalKind, signal};

use super::container::{Container, ContainerFlags, Means};
use super::link::{Link, Message};
use super::{namespace, tell, tree};
use crate::exit::Failure;

/// The codes of a command that cannot be started, as shells have them.
const NOT_RUNNABLE: u8 = 126;
const NOT_FOUND: u8 = 127;
/// What shells add to the number of the signal that ended a command.
pub(super) const BY_SIGNAL: i32 = 128;

/// The command, from its start to its end.
struct Running {
    pid: Pid,
    /// Names this process for ever, whoever gets its id later.
    pidfd: OwnedFd,
}

/// Runs as the first process of a container.
pub(crate) async fn run(flags: ContainerFlags) -> Result<(), Failure> {
    let container = Container::made(&flags);
    let mut watchdog = Link::inherited(flags.control)?;
    if let Err(why) = enter(&container) {
        watchdog.send(&Message::Failed(why));
        return Ok(());
    }
    let mut child_ended = signal(SignalKind::child())?;
    watchdog.send(&Message::Ready);
    let Some(Message::Go(before)) = watchdog.receive().await else { return Ok(()) };
    // This process may have waited long for its turn.
    if before.has_come() {
        return Ok(());
    }
    let running = match start(&flags.command) {
        Ok(running) => running,
        Err(error) => {
            watchdog.send(&Message::Ended(not_started(&flags.command, &error)));
            return Ok(());
        }
    };
    // Out of the terminal's reach: what it sends is for the command and the wrapper. A group of its own would not do: being
    // the parent of the command in another group of the same session, this process would be all that keeps the wrapper's
    // group from being an orphaned one, and by its end the kernel would hang up that group if anything in it was stopped.
    let _ = setsid();
    loop {
        tokio::select! {
            message = watchdog.receive() => match message {
                Some(Message::Signal(number)) => pass_on(&running, number),
                Some(_) => {}
                None => break,
            },
            _ = child_ended.recv() => {
                let (ended, childless) = tree::reap();
                if let Some((_, status)) = ended.iter().find(|(pid, _)| *pid == running.pid) {
                    watchdog.send(&Message::Ended(exit_code(*status)));
                }
                if childless {
                    return Ok(());
                }
            }
        }
    }
    container.kill_and_wait(&BTreeSet::new());
    Ok(())
}

fn enter(container: &Container) -> Result<(), String> {
    tree::become_subreaper().map_err(|error| format!("cannot become a subreaper: {error}"))?;
    match container.cgroup() {
        Some(cgroup) => cgroup.join(),
        None if container.means() == Means::PidNamespace => namespace::enter(),
        None => Ok(()),
    }
}

fn start(command: &[OsString]) -> io::Result<Running> {
    let (program, arguments) = command.split_first().ok_or(ErrorKind::InvalidInput)?;
    let child = Command::new(program).args(arguments).spawn()?;
    let pid = Pid::from_child(&child);
    Ok(Running { pid, pidfd: pidfd_open(pid, PidfdFlags::empty())? })
}

/// Tells why the command did not start; returns the exit code that says it to scripts.
fn not_started(command: &[OsString], error: &io::Error) -> u8 {
    let program = command.first().map(|program| program.to_string_lossy()).unwrap_or_default();
    tell(&format!("error: cannot run {program}: {error}"));
    if error.kind() == ErrorKind::NotFound { NOT_FOUND } else { NOT_RUNNABLE }
}

fn pass_on(running: &Running, number: i32) {
    if let Some(signal) = Signal::from_named_raw(number) {
        // A command that has ended takes no signals.
        let _ = pidfd_send_signal(&running.pidfd, signal);
    }
}

/// The code that a shell would give.
fn exit_code(status: WaitStatus) -> u8 {
    let code = status.exit_status().or_else(|| status.terminating_signal().map(|number| BY_SIGNAL + number));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}
