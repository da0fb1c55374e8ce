//! The state file, and files of its layout: opening, making, closing.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use redb::{Builder, Database, Durability, ReadTransaction, ReadableDatabase, WriteTransaction};
use ringfence_disk::{Disk, File, Open};

use crate::backend::{FileBackend, OverlayBackend};
use crate::error::StoreError;
use crate::layout::{self, HISTORY, INDEX, STATE_FILE};
use crate::meta::{self, Housekeeping};
use crate::record_layout::RECORDS;
use crate::row::Stamp;
use crate::state::State;

/// A file of the state's layout, open.
pub(crate) struct OpenFile {
    /// There until this is dropped.
    database: Option<Database>,
    file: Arc<dyn File>,
}

impl Drop for OpenFile {
    /// redb writes once more as it closes a file, and panics on damage that it comes across. Whoever closes it has no use for
    /// an answer: a state that is in use is read, and its damage told, by others, and what is closed here is behind it.
    fn drop(&mut self) {
        let database = self.database.take();
        let closed = guarded(|| {
            drop(database);
            Ok(())
        });
        drop(closed);
    }
}

impl OpenFile {
    /// Makes an empty redb file under `name`, which must not exist.
    pub fn create(disk: &dyn Disk, name: &str, cache_bytes: usize) -> Result<OpenFile, StoreError> {
        let file = disk.open(name, Open::New)?;
        OpenFile::with_file(file, cache_bytes)
    }

    /// Opens the redb file `name`, which must exist.
    pub fn open(disk: &dyn Disk, name: &str, cache_bytes: usize) -> Result<OpenFile, StoreError> {
        OpenFile::with_file(existing(disk, name)?, cache_bytes)
    }

    fn with_file(file: Arc<dyn File>, cache_bytes: usize) -> Result<OpenFile, StoreError> {
        let backend = FileBackend(Arc::clone(&file));
        let database =
            guarded(|| Ok(Builder::new().set_cache_size(cache_bytes).create_with_backend(backend)?))?;
        Ok(OpenFile { database: Some(database), file })
    }

    /// Opens the redb file `name` without changing it, and has redb check each of its pages, which it does not do when
    /// it reads: a broken branch of a tree would else go unnoticed until a search comes along.
    pub fn examine(disk: &dyn Disk, name: &str, cache_bytes: usize) -> Result<OpenFile, StoreError> {
        let file = existing(disk, name)?;
        let backend = OverlayBackend::new(Arc::clone(&file))?;
        let mut builder = Builder::new();
        builder.set_cache_size(cache_bytes).set_check_integrity_on_open(true);
        let database = guarded(|| Ok(builder.create_with_backend(backend)?))?;
        Ok(OpenFile { database: Some(database), file })
    }

    fn database(&self) -> &Database {
        self.database.as_ref().expect("it is there until this is dropped")
    }

    /// The file's length.
    pub fn bytes(&self) -> io::Result<u64> {
        self.file.len()
    }

    /// The bytes that the file takes on the disk.
    pub fn disk_bytes(&self) -> io::Result<u64> {
        self.file.disk_bytes()
    }

    /// Closes a file that is complete, durably.
    pub fn close(self) -> io::Result<()> {
        let file = Arc::clone(&self.file);
        // Closing writes too, so the last sync comes after it.
        drop(self);
        file.sync_data()
    }

    pub fn begin_read(&self) -> Result<ReadTransaction, StoreError> {
        Ok(self.database().begin_read()?)
    }

    /// Begins a transaction whose commit is durable, and after which a start needs no repair.
    pub fn begin_write(&self) -> Result<WriteTransaction, StoreError> {
        let mut transaction = self.database().begin_write()?;
        transaction
            .set_durability(Durability::Immediate)
            .map_err(|error| StoreError::corrupt(error.to_string()))?;
        transaction.set_quick_repair(true);
        Ok(transaction)
    }
}

/// Opens a file that holds something.
fn existing(disk: &dyn Disk, name: &str) -> Result<Arc<dyn File>, StoreError> {
    let file = disk.open(name, Open::Existing)?;
    if file.is_empty()? {
        // redb would take it for a new one and begin from nothing.
        return Err(StoreError::corrupt(format!("{name} is empty")));
    }
    Ok(file)
}

/// Said of a file whose damage made redb panic.
pub const PAGES_CONTRADICT: &str = "its pages contradict each other";

thread_local! {
    /// Panics since this thread began to read a file that may be damaged; none while it does not.
    static PANICS: Cell<Option<u32>> = const { Cell::new(None) };
}

/// What a panic on the calling thread means, for a program's panic hook, which asks once for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PanicCause {
    /// A bug, as far as the store knows.
    Bug,
    /// The state file is damaged: the store catches it, and answers with an error.
    Damage,
    /// The same, and redb has panicked once more while it was cleaning up after it. Rust ends the process with a signal
    /// after this one, and nobody will be told why.
    DamageTwice,
}

/// See [`PanicCause`].
#[must_use]
pub fn cause_of_panic() -> PanicCause {
    let panics = PANICS.get().map(|panics| panics + 1);
    PANICS.set(panics);
    match panics {
        None => PanicCause::Bug,
        Some(1) => PanicCause::Damage,
        Some(_) => PanicCause::DamageTwice,
    }
}

/// Runs something that reads a file which may be damaged: redb panics on some damage, which is an answer too.
pub(crate) fn guarded<T>(read: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    let outer = PANICS.replace(Some(0));
    let result = catch_unwind(AssertUnwindSafe(read));
    PANICS.set(outer);
    result.unwrap_or_else(|_| Err(StoreError::corrupt(PAGES_CONTRADICT)))
}

/// Opens the store's state file, making an empty one where there is none, and clears away what a crash left unfinished.
pub(crate) fn open_state_file(disk: &dyn Disk, cache_bytes: usize) -> Result<OpenFile, StoreError> {
    let names = disk.list()?;
    let unfinished: Vec<&String> =
        names.iter().filter(|name| name.ends_with(layout::UNFINISHED_SUFFIX)).collect();
    for name in unfinished {
        disk.remove(name)?;
    }
    if !names.iter().any(|name| name == STATE_FILE) {
        create_state_file(disk, cache_bytes)?;
    }
    // Whoever gave the file its name (a first start, a snapshot put in its place) may have been killed before the name was
    // durable. What the file says may be believed, and the log dropped up to it, only once a power cut would leave it.
    disk.sync_dir()?;
    OpenFile::open(disk, STATE_FILE, cache_bytes)
}

/// Makes the file whole under another name first: a state file that exists has always been complete once, so an empty
/// or short one is known to be damaged.
fn create_state_file(disk: &dyn Disk, cache_bytes: usize) -> Result<(), StoreError> {
    let name = format!("{STATE_FILE}{}", layout::UNFINISHED_SUFFIX);
    let open = OpenFile::create(disk, &name, cache_bytes)?;
    let transaction = open.begin_write()?;
    let housekeeping = Housekeeping { swept: Stamp::MIN, row_bytes: 0 };
    meta::write(&transaction, &State::empty(), housekeeping)?;
    transaction.open_table(INDEX)?;
    transaction.open_table(HISTORY)?;
    transaction.open_table(RECORDS)?;
    transaction.commit()?;
    finish(disk, open, &name, STATE_FILE)
}

/// Closes a file that is complete, and gives it its name durably.
pub(crate) fn finish(
    disk: &dyn Disk,
    open: OpenFile,
    unfinished: &str,
    name: &str,
) -> Result<(), StoreError> {
    open.close()?;
    disk.rename(unfinished, name)?;
    disk.sync_dir()?;
    Ok(())
}

impl fmt::Debug for OpenFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenFile").field("file", &self.file).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_damage_only_while_a_file_is_read() {
        assert_eq!(cause_of_panic(), PanicCause::Bug);
        let read = guarded(|| {
            assert_eq!(cause_of_panic(), PanicCause::Damage);
            assert_eq!(cause_of_panic(), PanicCause::DamageTwice);
            let inner: Result<(), StoreError> = guarded(|| panic!("as redb does on contradicting pages"));
            assert!(matches!(inner, Err(StoreError::Corrupt(_))), "{inner:?}");
            assert_eq!(cause_of_panic(), PanicCause::DamageTwice);
            Ok(())
        });
        assert!(read.is_ok());
        assert_eq!(cause_of_panic(), PanicCause::Bug);
    }
}
