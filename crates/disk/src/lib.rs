//! The seam to the file system: everything that Ringfence keeps goes through [`Disk`] and [`File`], so that a
//! simulated disk, which loses, tears and refuses writes by a seed, can stand in for the real one.
//!
//! What a caller may rely on, on either side of the seam, is what POSIX and Linux promise and no more:
//!
//! - written bytes are durable once [`File::sync_data`] has returned, and before that in any part and order;
//! - a created, renamed or removed name is durable once [`Disk::sync_dir`] has returned;
//! - a rename replaces its target in one step;
//! - after a failed sync nothing is known of what was written since the last good one: callers stop.

use std::fmt;
use std::io;
use std::sync::Arc;

mod let_go;
mod os;
mod sim;
mod unsynced;
mod whole;

pub use os::OsDisk;
pub use sim::{Fault, SimDisk};
pub use whole::{read_whole, replace_whole};

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// It must exist.
    Existing,
    /// It must not exist, and is made.
    New,
    /// It is made where it does not exist.
    Any,
}

/// One directory and the files in it.
pub trait Disk: fmt::Debug + Send + Sync {
    /// Opens a file for reading and writing.
    ///
    /// # Errors
    /// As the file system's: absent, already there, no permission, no space.
    fn open(&self, name: &str, mode: Open) -> io::Result<Arc<dyn File>>;

    /// The names of the files here, sorted; directories are left out.
    ///
    /// # Errors
    /// As the file system's.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Gives a file another name, replacing what had it, in one step.
    ///
    /// # Errors
    /// As the file system's.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file. Open handles go on working.
    ///
    /// # Errors
    /// As the file system's; absent files included.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes durable which names stand here.
    ///
    /// # Errors
    /// As the file system's. After an error the caller must stop.
    fn sync_dir(&self) -> io::Result<()>;

    /// A directory within this one, made (durably) where it does not exist.
    ///
    /// # Errors
    /// As the file system's.
    fn subdirectory(&self, name: &str) -> io::Result<Arc<dyn Disk>>;

    /// Bytes that can still be written here.
    ///
    /// # Errors
    /// As the file system's.
    fn free_bytes(&self) -> io::Result<u64>;
}

/// An open file. Positions are absolute; no call moves a cursor, so one file may be used by several threads.
pub trait File: fmt::Debug + Send + Sync {
    /// The file's length in bytes.
    ///
    /// # Errors
    /// As the file system's.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file holds nothing.
    ///
    /// # Errors
    /// As the file system's.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// The bytes that the file takes on the disk: fewer than its length where it has holes that were never written.
    ///
    /// # Errors
    /// As the file system's.
    fn disk_bytes(&self) -> io::Result<u64> {
        self.len()
    }

    /// Cuts the file off, or extends it by zeros.
    ///
    /// # Errors
    /// As the file system's.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    /// `UnexpectedEof` where the file ends before; else as the file system's.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// As the file system's; part of the bytes may then have been written.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes all that was written durable.
    ///
    /// # Errors
    /// As the file system's. After an error the caller must stop: a later success would prove nothing.
    fn sync_data(&self) -> io::Result<()>;
}

/// Refuses a name that would lead out of its directory.
fn check_name(name: &str) -> io::Result<()> {
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} is not a file's name")));
    }
    Ok(())
}
