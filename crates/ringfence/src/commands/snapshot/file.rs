//! A saved snapshot as a read-only disk with one file: the part before the hash, which is all that the store knows.

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ringfence_disk::{Disk, File, Open};
use sha2::{Digest as _, Sha256};

use crate::exit::{Exit, Failure};

/// The one file's name.
pub(super) const SNAPSHOT: &str = "snapshot";
/// Length of the SHA-256 at the end.
pub(super) const HASH_BYTES: usize = 32;
/// The part before it is a multiple of this, as in etcd.
pub(super) const SECTOR_BYTES: u64 = 512;
/// A node may take this long to make a snapshot before the first piece comes.
pub(super) const PIECE_TIMEOUT_MIN: Duration = Duration::from_secs(60);

/// The disk.
#[derive(Debug)]
pub(super) struct SnapshotDisk {
    file: Arc<SnapshotFile>,
}

#[derive(Debug)]
struct SnapshotFile {
    file: fs::File,
    /// Length of the part before the hash.
    length: u64,
}

impl SnapshotDisk {
    /// Opens a file that was saved, and checks its hash.
    pub(super) fn open(path: &Path) -> Result<SnapshotDisk, Failure> {
        let wrong = |reason: &str| {
            Failure::new(Exit::StateCorrupt, format!("{} is no usable snapshot: {reason}", path.display()))
                .next("save a new one; it is checked while it is being saved")
        };
        let mut file = fs::File::open(path)
            .map_err(|error| Failure::new(Exit::NotFound, format!("{}: {error}", path.display())))?;
        let length = file.metadata()?.len();
        let Some(length) = length
            .checked_sub(HASH_BYTES as u64)
            .filter(|length| *length > 0 && length.is_multiple_of(SECTOR_BYTES))
        else {
            return Err(wrong("its length shows that it is not complete"));
        };
        let mut hash = Sha256::new();
        io::copy(&mut (&mut file).take(length), &mut hash)?;
        let mut expected = [0; HASH_BYTES];
        file.read_exact_at(&mut expected, length)?;
        if hash.finalize()[..] != expected {
            return Err(wrong("its hash is wrong"));
        }
        Ok(SnapshotDisk { file: Arc::new(SnapshotFile { file, length }) })
    }
}

fn read_only() -> io::Error {
    io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "a saved snapshot is never changed")
}

impl Disk for SnapshotDisk {
    fn open(&self, name: &str, mode: Open) -> io::Result<Arc<dyn File>> {
        match mode {
            Open::Existing | Open::Any if name == SNAPSHOT => Ok(Arc::clone(&self.file) as Arc<dyn File>),
            Open::Existing => Err(io::Error::from(io::ErrorKind::NotFound)),
            Open::New | Open::Any => Err(read_only()),
        }
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(vec![SNAPSHOT.to_owned()])
    }

    fn rename(&self, _from: &str, _to: &str) -> io::Result<()> {
        Err(read_only())
    }

    fn remove(&self, _name: &str) -> io::Result<()> {
        Err(read_only())
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }

    fn subdirectory(&self, _name: &str) -> io::Result<Arc<dyn Disk>> {
        Err(read_only())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(0)
    }
}

impl File for SnapshotFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.length)
    }

    fn set_len(&self, _len: u64) -> io::Result<()> {
        Err(read_only())
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        match offset.checked_add(buffer.len() as u64) {
            Some(end) if end <= self.length => self.file.read_exact_at(buffer, offset),
            _ => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
        }
    }

    fn write_all_at(&self, _bytes: &[u8], _offset: u64) -> io::Result<()> {
        Err(read_only())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_checked_and_hidden() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let path = folder.path().join("s");
        let content = vec![9u8; 1_024];
        let mut whole = content.clone();
        whole.extend_from_slice(&Sha256::digest(&content));
        fs::write(&path, &whole).expect("the folder is writable");
        let disk = SnapshotDisk::open(&path).expect("it is whole");
        let file = disk.open(SNAPSHOT, Open::Existing).expect("it is there");
        assert_eq!(file.len().expect("it has a length"), 1_024);
        let mut buffer = [0; 24];
        file.read_exact_at(&mut buffer, 1_000).expect("it lies within");
        assert_eq!(buffer, [9; 24]);
        assert!(file.read_exact_at(&mut buffer, 1_001).is_err(), "the hash is no part of the file");

        for damaged in [&whole[..1_024], &whole[..1_055], &whole[..10]] {
            fs::write(&path, damaged).expect("the folder is writable");
            assert_eq!(SnapshotDisk::open(&path).expect_err("it is cut short").exit(), Exit::StateCorrupt);
        }
        whole[100] ^= 1;
        fs::write(&path, &whole).expect("the folder is writable");
        assert!(SnapshotDisk::open(&path).is_err());
    }
}
