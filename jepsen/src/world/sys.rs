//! The system calls that the world is made of, each with its result as an `io::Result`.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

/// A kind of namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Network devices, addresses and sockets.
    Network,
    /// Mounted file systems.
    Mounts,
}

impl Kind {
    fn flag(self) -> libc::c_int {
        match self {
            Kind::Network => libc::CLONE_NEWNET,
            Kind::Mounts => libc::CLONE_NEWNS,
        }
    }

    /// The calling thread's own namespace of this kind.
    pub(super) fn of_this_thread(self) -> io::Result<File> {
        let name = match self {
            Kind::Network => "net",
            Kind::Mounts => "mnt",
        };
        File::open(format!("/proc/thread-self/ns/{name}"))
    }
}

/// What a system call that tells errors by a negative number answered.
pub(super) fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Gives the calling thread a new namespace, which nobody else is in.
pub(super) fn unshare(kind: Kind) -> io::Result<()> {
    // SAFETY: the call takes no pointer; it changes the calling thread alone.
    check(unsafe { libc::unshare(kind.flag()) }).map(drop)
}

/// Takes the calling thread into a namespace. Made of one or two system calls and nothing else, so that it may be used
/// between fork and exec.
pub(super) fn enter(kind: Kind, namespace: &File) -> io::Result<()> {
    if kind == Kind::Mounts {
        // A thread that shares its root directory with others may not go into other mounts alone.
        // SAFETY: the call takes no pointer; it changes the calling thread alone.
        check(unsafe { libc::unshare(libc::CLONE_FS) })?;
    }
    // SAFETY: the descriptor is open for as long as `namespace` lives.
    check(unsafe { libc::setns(namespace.as_raw_fd(), kind.flag()) }).map(drop)
}

/// Runs something on a thread of its own, since threads do not come back from namespaces.
pub(super) fn on_own_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| match scope.spawn(work).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// Runs something in a namespace.
pub(super) fn within<T: Send>(
    kind: Kind,
    namespace: &File,
    work: impl FnOnce() -> T + Send,
) -> io::Result<T> {
    on_own_thread(|| {
        enter(kind, namespace)?;
        Ok(work())
    })
}

/// Asks that the calling process be killed when the thread that started it ends. May be used between fork and exec.
pub(super) fn die_with_parent(parent: u32) -> io::Result<()> {
    // SAFETY: this option takes a number, and no pointer.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })?;
    // SAFETY: the call cannot fail.
    let now = unsafe { libc::getppid() };
    // The parent may have ended before the request was made.
    if now.unsigned_abs() != parent {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    Ok(())
}

/// Mounts something; what is not needed is `None`.
pub(super) fn mount(
    source: Option<&Path>,
    target: &Path,
    kind: Option<&str>,
    flags: libc::c_ulong,
    options: Option<&str>,
) -> io::Result<()> {
    let source = source.map(c_path).transpose()?;
    let target = c_path(target)?;
    let kind = kind.map(CString::new).transpose()?;
    let options = options.map(CString::new).transpose()?;
    let pointer = |text: &Option<CString>| text.as_ref().map_or(std::ptr::null(), |text| text.as_ptr());
    // SAFETY: every pointer is null or that of a string that ends with a zero and outlives the call.
    check(unsafe {
        libc::mount(pointer(&source), target.as_ptr(), pointer(&kind), flags, pointer(&options).cast())
    })
    .map(drop)
}

/// Unmounts what is mounted there.
pub(super) fn unmount(target: &Path) -> io::Result<()> {
    let target = c_path(target)?;
    // SAFETY: the pointer is that of a string that ends with a zero and outlives the call.
    check(unsafe { libc::umount2(target.as_ptr(), 0) }).map(drop)
}

/// An ioctl whose argument is a number.
pub(super) fn ioctl_number(
    file: &File,
    request: libc::Ioctl,
    number: libc::c_ulong,
) -> io::Result<libc::c_int> {
    // SAFETY: the descriptor is open; the requests that this is used for take the argument as a number.
    check(unsafe { libc::ioctl(file.as_raw_fd(), request, number) })
}

/// An ioctl whose argument is a structure, which must be the one that the request is defined with.
///
/// # Safety
/// The kernel reads and writes as many bytes behind `argument` as `request` says.
pub(super) unsafe fn ioctl<T>(
    file: &File,
    request: libc::Ioctl,
    argument: &mut T,
) -> io::Result<libc::c_int> {
    // SAFETY: the descriptor is open, and the caller answers for the size.
    check(unsafe { libc::ioctl(file.as_raw_fd(), request, std::ptr::from_mut(argument)) })
}

/// A file in memory that has no name, and ends with its last descriptor.
pub(super) fn memory_file(name: &str) -> io::Result<File> {
    let name = CString::new(name)?;
    // SAFETY: the pointer is that of a string that ends with a zero and outlives the call.
    let descriptor = check(unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) })?;
    // SAFETY: the descriptor is new, and nobody else's.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(descriptor) }))
}

/// Something to wake a thread that polls.
pub(super) fn event() -> io::Result<File> {
    // SAFETY: the call takes no pointer.
    let descriptor = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
    // SAFETY: the descriptor is new, and nobody else's.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(descriptor) }))
}

/// Nanoseconds on a clock of this process.
pub(super) fn clock(id: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` has room for the answer.
    let result = unsafe { libc::clock_gettime(id, &raw mut time) };
    assert_eq!(result, 0, "this clock is part of every Linux that has namespaces");
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

/// Another number each time, for names that must be unique in this process.
pub(super) fn serial() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Whether this process has all the rights of root.
pub(super) fn is_root() -> bool {
    // SAFETY: the call touches no memory and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}
