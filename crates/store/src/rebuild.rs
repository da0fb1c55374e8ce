//! Rebuilding: the state file is written anew without its free pages, and takes the old one's place while everything goes
//! on.
//!
//! ```text
//! copy     a snapshot of the file, row by row, into a new file: each hash recomputed, their sum compared
//! follow   what checkpoints have added to the old file since: the end of its history, however often it takes
//! swap     the last of it, with no checkpoint beside; then sync, rename, and the new file is every later view's base
//! ```
//!
//! Apply goes on all the time, and so do reads; views taken before keep the old file. Checkpoints go on but for the last
//! step, which is bounded by [`REVISIONS_LAST`]. Compaction waits, so that rows are only added to the old file meanwhile
//! and its history tells all of them. A crash before the renaming leaves the old file, one after it the new one.

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use redb::{ReadableTable, Table, WriteTransaction};
use ringfence_types::Revision;

use crate::base::Base;
use crate::error::StoreError;
use crate::file::{self, OpenFile};
use crate::hash::{self, RowSum};
use crate::layout::{self, HISTORY, INDEX, IndexKey, IndexValue, STATE_FILE, UNFINISHED_SUFFIX};
use crate::meta::{self, Housekeeping};
use crate::record_layout::RECORDS;
use crate::row::{Row, Stamp};
use crate::snapshot::{self, PASSING_CACHE_BYTES};
use crate::state::State;
use crate::store::Store;
use crate::view::View;

/// Revisions that the last step takes over at most, if following gets so close at all: a fraction of a second.
const REVISIONS_LAST: i64 = 10_000;
/// Times that a rebuild follows the old file before the last step. Each takes less than the one before, unless rows come
/// faster than they can be copied, which no log can deliver for long.
const FOLLOWS_MAX: usize = 8;

/// How far a rebuild is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the rows in the new file.
    pub row_bytes: u64,
    /// Revisions that the old file has and the new one lacks.
    pub revisions_behind: i64,
}

/// What a rebuild has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rebuilt {
    /// Bytes that the old file took on the disk.
    pub disk_bytes_before: u64,
    /// Bytes that the new file takes.
    pub disk_bytes_after: u64,
}

impl Store {
    /// Writes the state file anew and puts it in the place of the old one. Takes its time, on the caller's thread, and one
    /// at a time; `tell` hears of each step, while nothing waits. None where a snapshot was installed meanwhile.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] where the state is not what was applied, `StorageFull` where the disk has no room for a second
    /// file; else a failure of the disk. The old file is in force then, unless the store [has failed](Store::has_failed).
    pub fn rebuild(&self, tell: &mut dyn FnMut(Progress)) -> Result<Option<Rebuilt>, StoreError> {
        let _one = self.rebuild.lock();
        let hold = CompactionHold::new(self)?;
        self.check_room_for(&hold.base)?;
        let unfinished = format!("{STATE_FILE}{UNFINISHED_SUFFIX}");
        snapshot::discard(self.disk.as_ref(), &unfinished)?;
        let rebuilt = self.rebuild_into(&unfinished, &hold.base, tell);
        if !matches!(rebuilt, Ok(Some(_))) {
            // The copy is of no use. That it cannot be removed would be the smaller trouble, and the next start does it.
            let _ = snapshot::discard(self.disk.as_ref(), &unfinished);
        }
        rebuilt
    }

    fn rebuild_into(
        &self,
        unfinished: &str,
        base: &Arc<Base>,
        tell: &mut dyn FnMut(Progress),
    ) -> Result<Option<Rebuilt>, StoreError> {
        let open = OpenFile::create(self.disk.as_ref(), unfinished, PASSING_CACHE_BYTES)?;
        let mut copy = file::guarded(|| Copy::of(base, open))?;
        for _ in 0..FOLLOWS_MAX {
            let Some(newest) = self.newest_of(base) else { return Ok(None) };
            let revisions_behind = newest.state.revision.0 - copy.state.revision.0;
            tell(Progress { row_bytes: copy.row_bytes, revisions_behind });
            if revisions_behind <= REVISIONS_LAST {
                break;
            }
            file::guarded(|| copy.follow(&newest))?;
        }
        self.swap(unfinished, base, copy)
    }

    /// Takes over what is missing and swaps the files. Checkpoints wait meanwhile; apply and reads do not.
    fn swap(
        &self,
        unfinished: &str,
        base: &Arc<Base>,
        mut copy: Copy,
    ) -> Result<Option<Rebuilt>, StoreError> {
        let mut retired = self.maintenance.lock();
        self.check_usable()?;
        let Some(newest) = self.newest_of(base) else { return Ok(None) };
        file::guarded(|| copy.follow(&newest))?;
        copy.open.close()?;
        let disk_bytes_before = newest.file.disk_bytes()?;
        // From the renaming on the old file is nobody's: if the new one is not in force at the end, nothing may be written.
        let (fresh, disk_bytes_after) = self.fail(self.swap_in_like(unfinished, &newest))?;
        self.replace_base(fresh);
        retired.take(None, Some(newest));
        let given_back = disk_bytes_before.saturating_sub(disk_bytes_after);
        self.counters.rebuilds.fetch_add(1, Ordering::Relaxed);
        self.counters.bytes_given_back.fetch_add(given_back, Ordering::Relaxed);
        self.surveyed.store(0, Ordering::Relaxed);
        Ok(Some(Rebuilt { disk_bytes_before, disk_bytes_after }))
    }

    fn swap_in_like(&self, unfinished: &str, newest: &Base) -> Result<(Base, u64), StoreError> {
        let fresh = self.swap_in(unfinished)?;
        if fresh.state.position != newest.state.position || fresh.state.hash() != newest.state.hash() {
            return Err(StoreError::corrupt("the file that was just written reads as another state"));
        }
        let disk_bytes = fresh.file.disk_bytes()?;
        Ok((fresh, disk_bytes))
    }

    /// The newest snapshot of the file that `base` is one of; none where another file has taken its place.
    fn newest_of(&self, base: &Base) -> Option<Arc<Base>> {
        let newest = self.view().sources.base.clone();
        Arc::ptr_eq(&newest.file, &base.file).then_some(newest)
    }

    /// A disk that runs full would stop the node, whose log is on it too.
    fn check_room_for(&self, base: &Base) -> Result<(), StoreError> {
        let (free, needed) = (self.disk.free_bytes()?, base.row_bytes.saturating_mul(2));
        if free < needed {
            let reason = format!("a new state file may need {needed} bytes, the disk has {free}");
            return Err(std::io::Error::new(std::io::ErrorKind::StorageFull, reason).into());
        }
        Ok(())
    }
}

/// While it lives, checkpoints leave compaction alone.
struct CompactionHold<'a> {
    store: &'a Store,
    /// The file as it was when that began.
    base: Arc<Base>,
}

impl CompactionHold<'_> {
    fn new(store: &Store) -> Result<CompactionHold<'_>, StoreError> {
        // Between two checkpoints: none that began before compacts any more.
        let _between = store.maintenance.lock();
        store.check_usable()?;
        store.rebuilding.store(true, Ordering::Release);
        Ok(CompactionHold { store, base: store.view().sources.base.clone() })
    }
}

impl Drop for CompactionHold<'_> {
    fn drop(&mut self) {
        let _between = self.store.maintenance.lock();
        self.store.rebuilding.store(false, Ordering::Release);
    }
}

/// The new file, as far as it is.
struct Copy {
    open: OpenFile,
    state: State,
    swept: Stamp,
    row_bytes: u64,
}

impl Copy {
    /// Copies all that `base` holds.
    fn of(base: &Arc<Base>, open: OpenFile) -> Result<Copy, StoreError> {
        let transaction = open.begin_write()?;
        let row_bytes = snapshot::copy(&transaction, &View::of_base(Arc::clone(base)))?;
        transaction.commit()?;
        Ok(Copy { open, state: base.state.clone(), swept: base.swept, row_bytes })
    }

    /// Takes over what `newest`, a later snapshot of the same file, has beyond this copy.
    fn follow(&mut self, newest: &Base) -> Result<(), StoreError> {
        let transaction = self.open.begin_write()?;
        let (row_sum, bytes) = append(&transaction, newest, self.state.revision, self.state.row_sum)?;
        let record_sum = follow_records(&transaction, newest)?;
        if row_sum != newest.state.row_sum || record_sum != newest.state.record_sum {
            return Err(StoreError::corrupt(
                "the rows of its newest revisions are not those that were applied: the hash differs",
            ));
        }
        let row_bytes = self.row_bytes + bytes;
        meta::write(&transaction, &newest.state, Housekeeping { swept: self.swept, row_bytes })?;
        transaction.commit()?;
        self.state = newest.state.clone();
        self.row_bytes = row_bytes;
        Ok(())
    }
}

/// Adds all rows of `newest` above `revision` to both tables. Their hashes are computed from what is there, and so is the
/// sum: returned are what `row_sum` has become by them, and their bytes.
fn append(
    transaction: &WriteTransaction,
    newest: &Base,
    revision: Revision,
    mut row_sum: RowSum,
) -> Result<(RowSum, u64), StoreError> {
    let mut index = transaction.open_table(INDEX)?;
    let mut history = transaction.open_table(HISTORY)?;
    let mut key_bytes = Vec::new();
    let mut bytes = 0;
    for entry in newest.history_from(Stamp::last_of(revision).after())? {
        let (stamp, value) = entry?;
        let row = layout::decode_history_row(layout::decode_stamp(stamp.value())?, value.value())?;
        if let Some(replaced) = newest_in(&index, row.key)?.filter(|replaced| !replaced.deleted) {
            row_sum.subtract(replaced.hash);
        }
        if !row.row.deleted {
            row_sum.add(row.row.hash);
        }
        layout::encode_index_key(row.key, row.row.stamp, &mut key_bytes);
        index.insert(key_bytes.as_slice(), &layout::encode_index_value(&row.row))?;
        history.insert(stamp.value(), value.value())?;
        bytes += layout::version_bytes(row.key.len(), row.value.len());
    }
    Ok((row_sum, bytes))
}

/// Makes the records what those of `newest` are, and returns the sum of their hashes. Both are in order, and nearly the same.
fn follow_records(transaction: &WriteTransaction, newest: &Base) -> Result<RowSum, StoreError> {
    let mut table = transaction.open_table(RECORDS)?;
    let mut sum = RowSum::default();
    let (mut changed, mut gone) = (Vec::new(), Vec::new());
    {
        let mut old = table.iter()?;
        let mut ahead = old.next().transpose()?;
        for entry in newest.records(Bound::Unbounded)?.into_iter().flatten() {
            let (key, value) = entry?;
            sum.add(hash::record(key.value(), value.value()));
            while let Some((old_key, _)) = ahead.as_ref().filter(|(old_key, _)| old_key.value() < key.value())
            {
                gone.push(old_key.value().to_vec());
                ahead = old.next().transpose()?;
            }
            match &ahead {
                Some((old_key, old_value)) if old_key.value() == key.value() => {
                    if old_value.value() != value.value() {
                        changed.push((key.value().to_vec(), value.value().to_vec()));
                    }
                    ahead = old.next().transpose()?;
                }
                _ => changed.push((key.value().to_vec(), value.value().to_vec())),
            }
        }
        while let Some((old_key, _)) = &ahead {
            gone.push(old_key.value().to_vec());
            ahead = old.next().transpose()?;
        }
    }
    for key in gone {
        table.remove(key.as_slice())?;
    }
    for (key, value) in changed {
        table.insert(key.as_slice(), value.as_slice())?;
    }
    Ok(sum)
}

/// The newest version of `key` in a table that is being written.
fn newest_in(index: &Table<'_, IndexKey, IndexValue>, key: &[u8]) -> Result<Option<Row>, StoreError> {
    let first = layout::index_key(key, Stamp::last_of(Revision(i64::MAX)));
    let last = layout::index_key(key, Stamp::MIN);
    let mut range = index.range(first.as_slice()..=last.as_slice())?;
    let Some(entry) = range.next() else { return Ok(None) };
    let (index_key, value) = entry?;
    Ok(Some(layout::decode_index_row(index_key.value(), value.value())?))
}
