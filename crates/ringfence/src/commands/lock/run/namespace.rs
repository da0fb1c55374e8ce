//! A namespace of process ids of its own for the command: when its first process ends, the kernel ends all others, and when
//! the watchdog ends, the kernel ends that first process. So nothing here needs a process of ours to get a turn.

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Lets the next child of this process be the first process of a new namespace.
///
/// # Errors
/// Where this user may make none: it takes `CAP_SYS_ADMIN`. A namespace of users would give that to everybody, but the command
/// would find itself in it with fewer rights than its user has.
pub(super) fn unshare_children() -> Result<(), String> {
    // SAFETY: the new namespace is for children alone; nothing of this process changes, and no descriptor table is split.
    unsafe { unshare_unsafe(UnshareFlags::NEWPID) }
        .map_err(|error| format!("cannot make a PID namespace: {error}"))
}

/// Makes the first process of the namespace what it must be: one that ends with its parent, the watchdog, and whose `/proc`
/// shows the namespace's own processes.
///
/// # Errors
/// Where `/proc` cannot be mounted.
pub(super) fn enter() -> Result<(), String> {
    let told = |what: &str| {
        let what = what.to_owned();
        move |error: rustix::io::Errno| format!("{what}: {error}")
    };
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(told("cannot be ended by the kernel"))?;
    // SAFETY: this process has one thread, and it neither changed its root nor opened a directory that it goes on to use.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.map_err(told("cannot make a mount namespace"))?;
    // Mounts of the machine go on to be seen inside, those made inside are not seen outside.
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .map_err(told("cannot keep mounts apart"))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("proc", "/proc", "proc", flags, None).map_err(told("cannot mount /proc"))
}
