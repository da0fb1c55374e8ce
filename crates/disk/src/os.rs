//! The real disk: a directory of the operating system.

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use ringfence_canary::Canary;

use crate::let_go::LastHeld;
use crate::{Disk, File, Open, check_name};

/// A directory of the operating system. Files are made readable by their owner alone, since they hold every value.
pub struct OsDisk {
    path: PathBuf,
    /// Held open so that syncing and asking for space need no lookup by name.
    directory: fs::File,
}

struct OsFile {
    path: PathBuf,
    file: LastHeld,
    /// Bytes written since the last sync, or since the system was last told to write them.
    unwritten: AtomicU64,
}

/// From so many bytes on that nobody has synced the system is told to begin to write them. A copy of gigabytes would otherwise
/// lie in memory until its sync, which then holds up the syncs of everybody on that disk, those of the log among them.
const WRITE_BACK_BYTES: u64 = 8 << 20;

impl OsDisk {
    /// Opens the directory at `path`, making it (and what leads to it) where it does not exist.
    ///
    /// # Errors
    /// As the file system's.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Arc<OsDisk>> {
        let path = path.as_ref();
        if !path.is_dir() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|e| at(path, &e))?;
            sync_parent(path)?;
        }
        let directory = fs::File::open(path).map_err(|e| at(path, &e))?;
        Ok(Arc::new(OsDisk { path: path.to_path_buf(), directory }))
    }

    /// Where the directory is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn join(&self, name: &str) -> io::Result<PathBuf> {
        check_name(name)?;
        Ok(self.path.join(name))
    }
}

impl Disk for OsDisk {
    fn open(&self, name: &str, mode: Open) -> io::Result<Arc<dyn File>> {
        let path = self.join(name)?;
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true).mode(0o600);
        match mode {
            Open::Existing => &mut options,
            Open::New => options.create_new(true),
            Open::Any => options.create(true).truncate(false),
        };
        let file = options.open(&path).map_err(|e| at(&path, &e))?;
        Ok(Arc::new(OsFile { path, file: LastHeld::new(file), unwritten: AtomicU64::new(0) }))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(|e| at(&self.path, &e))? {
            let entry = entry.map_err(|e| at(&self.path, &e))?;
            // Names that are not UTF-8 are nobody of ours.
            if entry.file_type().map_err(|e| at(&entry.path(), &e))?.is_file()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (from, to) = (self.join(from)?, self.join(to)?);
        let _replaced = LastHeld::open(&to);
        fs::rename(&from, &to).map_err(|e| at(&from, &e))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let path = self.join(name)?;
        let _removed = LastHeld::open(&path);
        fs::remove_file(&path).map_err(|e| at(&path, &e))
    }

    fn sync_dir(&self) -> io::Result<()> {
        synced(&self.path, || self.directory.sync_all())
    }

    fn subdirectory(&self, name: &str) -> io::Result<Arc<dyn Disk>> {
        Ok(OsDisk::open(self.join(name)?)?)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let mut facts = std::mem::MaybeUninit::<libc::statvfs>::uninit();
        // SAFETY: the descriptor is open for as long as `self.directory` lives, and `facts` has room for the answer.
        let code = unsafe { libc::fstatvfs(self.directory.as_raw_fd(), facts.as_mut_ptr()) };
        if code != 0 {
            return Err(at(&self.path, &io::Error::last_os_error()));
        }
        // SAFETY: fstatvfs has filled the whole of it, since it returned 0.
        let facts = unsafe { facts.assume_init() };
        // What an unprivileged process may still use; the file system's own reserve is not ours.
        Ok(facts.f_bavail.saturating_mul(facts.f_frsize))
    }
}

impl File for OsFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata().map_err(|e| at(&self.path, &e))?.len())
    }

    fn disk_bytes(&self) -> io::Result<u64> {
        // POSIX leaves the unit open; on Linux it is 512 bytes, whatever the file system.
        Ok(self.file.metadata().map_err(|e| at(&self.path, &e))?.blocks() * 512)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len).map_err(|e| at(&self.path, &e))
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset).map_err(|e| at(&self.path, &e))
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset).map_err(|e| at(&self.path, &e))?;
        let unwritten = self.unwritten.fetch_add(bytes.len() as u64, Relaxed) + bytes.len() as u64;
        if unwritten < WRITE_BACK_BYTES {
            return Ok(());
        }
        self.unwritten.store(0, Relaxed);
        begin_write_back(&self.file).map_err(|e| at(&self.path, &e))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.unwritten.store(0, Relaxed);
        synced(&self.path, || self.file.sync_data())
    }
}

impl fmt::Debug for OsDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OsDisk({})", self.path.display())
    }
}

impl fmt::Debug for OsFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OsFile({})", self.path.display())
    }
}

/// Waits until what the system is writing of a file is written, and has it begin with the rest. Nothing is durable by that. An
/// error is one of the disk, and told to whoever hears of it first: no later sync would tell it again.
#[cfg(target_os = "linux")]
fn begin_write_back(file: &fs::File) -> io::Result<()> {
    let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE;
    // SAFETY: the descriptor is open for as long as `file` lives; no memory is passed.
    match unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, flags) } {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            // Where the file system cannot do it, or the process may not ask, the file is written when it is synced, as before.
            error if is_no_answer_of_the_disk(error.kind()) => Ok(()),
            error => Err(error),
        },
    }
}

/// Whether a call was refused before it came to the disk: by a kernel or file system without it, or by a filter of system calls.
#[cfg(target_os = "linux")]
fn is_no_answer_of_the_disk(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput)
}

/// Elsewhere there is no such call.
#[cfg(not(target_os = "linux"))]
fn begin_write_back(_file: &fs::File) -> io::Result<()> {
    Ok(())
}

/// Makes the name of a new directory durable.
fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Ok(()),
    };
    synced(parent, || fs::File::open(parent)?.sync_all())
}

/// Carries out a sync; an error says which file it is about.
fn synced(path: &Path, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    if Canary::LyingSync.sings() {
        // What was written stays in memory, and nobody is told.
        return Ok(());
    }
    sync().map_err(|e| at(path, &e))
}

/// The same error, saying which file it is about; the kind stays, so callers can still tell a full disk.
fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A directory that is removed when the test ends.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Scratch {
            let path = std::env::temp_dir().join(format!("ringfence-disk-{}-{name}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            Scratch(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn only_the_disks_own_errors_end_a_write() {
        let ends = |code| !is_no_answer_of_the_disk(io::Error::from_raw_os_error(code).kind());
        assert!([libc::EIO, libc::ENOSPC, libc::EDQUOT].into_iter().all(ends));
        assert!(![libc::ENOSYS, libc::EOPNOTSUPP, libc::EPERM, libc::EINVAL].into_iter().any(ends));
    }

    #[test]
    fn what_is_written_at_length_is_there_before_and_after_its_sync() {
        let scratch = Scratch::new("length");
        let disk = OsDisk::open(&scratch.0).unwrap();
        let file = disk.open("a", Open::New).unwrap();
        let piece = vec![7; 1 << 20];
        for at in 0..(2 * WRITE_BACK_BYTES) >> 20 {
            file.write_all_at(&piece, at << 20).unwrap();
        }
        let mut back = vec![0; 1 << 20];
        file.read_exact_at(&mut back, WRITE_BACK_BYTES).unwrap();
        assert_eq!((back, file.len().unwrap()), (piece, 2 * WRITE_BACK_BYTES));
        file.sync_data().unwrap();
    }

    #[test]
    fn files_keep_what_was_written_under_their_new_name() {
        let scratch = Scratch::new("files");
        let disk = OsDisk::open(&scratch.0).unwrap();
        let file = disk.open("a", Open::New).unwrap();
        file.write_all_at(b"hello", 3).unwrap();
        file.sync_data().unwrap();
        disk.rename("a", "b").unwrap();
        disk.sync_dir().unwrap();
        disk.subdirectory("inner").unwrap().open("c", Open::Any).unwrap();

        assert_eq!(disk.list().unwrap(), ["b"]);
        let file = disk.open("b", Open::Existing).unwrap();
        let mut bytes = [9; 8];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"\0\0\0hello");
        assert_eq!(file.read_exact_at(&mut bytes, 1).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        file.set_len(4).unwrap();
        assert_eq!(file.len().unwrap(), 4);
        file.set_len(1 << 30).unwrap();
        assert!(file.disk_bytes().unwrap() < 1 << 20, "a hole takes no space");
        disk.remove("b").unwrap();
        assert!(disk.list().unwrap().is_empty());
        assert!(disk.free_bytes().unwrap() > 0);
    }

    #[test]
    fn opening_modes_are_kept_and_errors_name_the_file() {
        let scratch = Scratch::new("modes");
        let disk = OsDisk::open(&scratch.0).unwrap();
        let absent = disk.open("a", Open::Existing).unwrap_err();
        assert_eq!(absent.kind(), io::ErrorKind::NotFound);
        assert!(absent.to_string().contains("modes/a"), "{absent}");
        disk.open("a", Open::New).unwrap();
        assert_eq!(disk.open("a", Open::New).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(disk.open("../a", Open::Any).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(fs::metadata(&scratch.0).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(scratch.0.join("a")).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
