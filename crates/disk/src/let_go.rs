//! How a file that nobody can read any more goes: in small steps, on a thread of its own.
//!
//! The system gives the space of a file back as the last handle of it is closed, or as its name goes where nobody has it open, and
//! does so in one step. For gigabytes on ext4 that is half a second, in which the syncs of everybody on that disk are held up,
//! those of the log among them.

// Nobody waits for this or sees it: it happens to files without a name, and on the real disk alone.
#![allow(clippy::disallowed_methods)]

use std::fs;
use std::io;
use std::ops::Deref;
use std::path::Path;
use std::thread;
use std::time::Instant;

/// How much of a file goes in one step: what ext4 does within a few milliseconds.
const STEP_BYTES: u64 = 4 << 20;

/// A handle of a file. If it is the last, and the file has no name, the file goes in steps.
pub(crate) struct LastHeld(fs::File);

impl LastHeld {
    pub(crate) fn new(file: fs::File) -> LastHeld {
        LastHeld(file)
    }

    /// A handle of the file at `path`, which is about to lose that name; none where there is no such file to open.
    pub(crate) fn open(path: &Path) -> Option<LastHeld> {
        fs::OpenOptions::new().read(true).write(true).open(path).ok().map(LastHeld)
    }
}

impl Deref for LastHeld {
    type Target = fs::File;

    fn deref(&self) -> &fs::File {
        &self.0
    }
}

impl Drop for LastHeld {
    fn drop(&mut self) {
        // Nothing is lost by a refusal of any of this: the system lets go of all at once then.
        let _ = hand_over(&self.0);
    }
}

/// Has a file that only this handle keeps cut down by a thread of its own.
fn hand_over(file: &fs::File) -> io::Result<()> {
    if file.metadata()?.len() <= STEP_BYTES || !is_forsaken(file)? {
        return Ok(());
    }
    let file = file.try_clone()?;
    thread::Builder::new().name("let-go".to_owned()).spawn(move || cut_down(&file)).map(drop)
}

/// Cuts a file down to one step. After each it rests for as long as that took, so that others have the disk at least half of the
/// time.
fn cut_down(file: &fs::File) -> io::Result<()> {
    let mut len = file.metadata()?.len();
    while len > STEP_BYTES {
        len -= STEP_BYTES;
        let begun = Instant::now();
        file.set_len(len)?;
        thread::sleep(begun.elapsed());
    }
    Ok(())
}

/// Whether nobody else has, or can get, a handle of this file. The kernel is asked: it grants a lease for writing to the only
/// handle of a file (fcntl(2), "Leases").
#[cfg(target_os = "linux")]
fn is_forsaken(file: &fs::File) -> io::Result<bool> {
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::MetadataExt;

    /// The same on all processors that Ringfence is built for; `libc` names it for few of them.
    const F_SETSIG: libc::c_int = 10;

    let control = |command, argument: libc::c_int| {
        // SAFETY: the descriptor is open for as long as `file` lives; no memory is passed.
        match unsafe { libc::fcntl(file.as_raw_fd(), command, argument) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    };
    if file.metadata()?.nlink() != 0 {
        return Ok(false);
    }
    // Should anybody open the file meanwhile, as only a debugger can, this process is told by a signal. SIGIO would end it; SIGURG
    // is ignored.
    control(F_SETSIG, libc::SIGURG)?;
    match control(libc::F_SETLEASE, libc::F_WRLCK) {
        Ok(()) => control(libc::F_SETLEASE, libc::F_UNLCK).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

/// Elsewhere nobody can be asked.
#[cfg(not(target_os = "linux"))]
fn is_forsaken(_file: &fs::File) -> io::Result<bool> {
    Ok(false)
}

#[cfg(target_os = "linux")]
#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use super::*;

    const LEN: u64 = 2 * STEP_BYTES + 1;

    /// A new file of [`LEN`] bytes.
    fn made(name: &str) -> (PathBuf, fs::File) {
        let path = std::env::temp_dir().join(format!(
            "ringfence-disk-{}-{name}-{:?}",
            std::process::id(),
            thread::current().id()
        ));
        let file = fs::File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        file.set_len(LEN).unwrap();
        (path, file)
    }

    fn len(file: &fs::File) -> u64 {
        file.metadata().unwrap().len()
    }

    /// Whether the file system of these tests grants leases; else files go at once on it, and there is nothing to see.
    fn grants_leases() -> bool {
        let (path, file) = made("leases");
        fs::remove_file(path).unwrap();
        let granted = is_forsaken(&file);
        if let Err(error) = &granted {
            eprintln!("left out: no leases in {}: {error}", std::env::temp_dir().display());
        }
        granted.is_ok()
    }

    #[test]
    fn only_a_file_that_nobody_can_read_any_more_is_forsaken() {
        if !grants_leases() {
            return;
        }
        let (path, file) = made("forsaken");
        // Nothing but the name keeps it now.
        let named = is_forsaken(&file);
        let reader = fs::File::open(&path).unwrap();
        let writer = fs::File::options().write(true).open(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert!(!named.unwrap(), "it has a name");
        assert!(!is_forsaken(&file).unwrap(), "others hold it");
        drop(writer);
        assert!(!is_forsaken(&file).unwrap(), "another reads it");
        drop(reader);
        assert!(is_forsaken(&file).unwrap());
    }

    #[test]
    fn the_last_handle_has_the_file_cut_down() {
        if !grants_leases() {
            return;
        }
        let (path, file) = made("last");
        // The same handle twice, for the kernel.
        let witness = file.try_clone().unwrap();
        let other = LastHeld::open(&path).unwrap();
        fs::remove_file(&path).unwrap();
        drop(LastHeld::new(file));
        assert_eq!(len(&witness), LEN, "another holds it");
        drop(witness);

        let witness = other.try_clone().unwrap();
        drop(other);
        let deadline = Instant::now() + Duration::from_secs(60);
        while len(&witness) > 1 {
            assert!(Instant::now() < deadline, "{} bytes are left", len(&witness));
            thread::sleep(Duration::from_millis(1));
        }
    }
}
