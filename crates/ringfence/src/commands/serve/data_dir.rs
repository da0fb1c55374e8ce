//! The data directory belongs to one process at a time: the file `LOCK` in it is locked for as long as the process lives,
//! and names the process.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use crate::exit::{Exit, Failure};

/// The name of the file that is locked.
pub(crate) const LOCK: &str = "LOCK";

/// The lock on a data directory; the system lets go of it when the process ends, in whatever way.
#[derive(Debug)]
pub(crate) struct DataDirLock {
    _file: File,
}

/// Makes the data directory where it does not exist, and locks it.
pub(crate) fn lock(path: &Path) -> Result<DataDirLock, Failure> {
    let failed = |error: io::Error| {
        Failure::new(Exit::Disk, format!("the data directory {}: {error}", path.display()))
            .next("check that --data-dir names a directory that this user may write")
    };
    if !path.is_dir() {
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
    }
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path.join(LOCK))
        .map_err(failed)?;
    // SAFETY: the descriptor is that of `file`, which is open.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::WouldBlock {
            return Err(failed(error));
        }
        return Err(in_use(path, &mut file));
    }
    file.set_len(0).and_then(|()| file.rewind()).map_err(failed)?;
    writeln!(file, "{}", std::process::id()).map_err(failed)?;
    Ok(DataDirLock { _file: file })
}

fn in_use(path: &Path, file: &mut File) -> Failure {
    let mut text = String::new();
    let holder = match file.read_to_string(&mut text) {
        Ok(_) if !text.trim().is_empty() => format!("process {}", text.trim()),
        _ => "another process".to_owned(),
    };
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    Failure::new(Exit::DataDirectoryInUse, format!("{holder} uses the data directory {}", path.display()))
        .next("stop that process, or give this node a data directory of its own with --data-dir")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_is_refused_and_names_the_first() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let path = folder.path().join("a/b");
        let first = lock(&path).expect("the directory is new");
        let failure = lock(&path).expect_err("it is locked");
        assert_eq!(failure.exit(), Exit::DataDirectoryInUse);
        assert!(failure.to_string().contains(&format!("process {}", std::process::id())), "{failure}");
        drop(first);
        lock(&path).expect("it is free again");
    }
}
