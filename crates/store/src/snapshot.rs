//! Snapshots: the state as one file, for peers and for backups.
//!
//! A snapshot is a file of the state file's own layout, written in key order and so without gaps. Copying recomputes
//! every hash from the values that are there and compares the sum with the running one: a state that differs from what
//! was applied is never handed on.

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use redb::WriteTransaction;
use ringfence_disk::{Disk, Open};
use ringfence_types::Revision;

use crate::base::Base;
use crate::error::StoreError;
use crate::file::{self, OpenFile};
use crate::hash::{self, RowSum, StateHash};
use crate::layout::{self, HISTORY, INDEX, STATE_FILE, UNFINISHED_SUFFIX};
use crate::lease_table::LeaseTable;
use crate::meta::{self, Housekeeping};
use crate::record_layout::RECORDS;
use crate::row::{Change, Row, Stamp};
use crate::sources::Sources;
use crate::state::{Position, State};
use crate::store::Store;
use crate::view::View;

/// Page cache of a file that is written once, or read once, from its beginning to its end.
pub(crate) const PASSING_CACHE_BYTES: usize = 16 << 20;
/// Changes that are copied out of a head at a time.
const CHANGES_A_TIME: usize = 1_024;

/// What a snapshot holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotMeta {
    /// The last entry and the last membership in it.
    pub position: Position,
    /// The store's revision.
    pub revision: Revision,
    /// The hash of the logical state.
    pub hash: StateHash,
    /// The file's length.
    pub bytes: u64,
}

/// That a snapshot file of a store's disk was read whole, and is true to its own hashes. Only such a file can take the place of a
/// state.
#[derive(Debug, Clone)]
pub struct ExaminedSnapshot {
    name: String,
}

impl Store {
    /// Writes the newest state into the file `name` of the store's disk, durably, over what had that name. Takes its
    /// time, on the caller's thread; apply, reads and checkpoints go on.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] where the state is not what was applied; else a failure of the disk. No file has the name
    /// then but one that had it before.
    pub fn write_snapshot(&self, name: &str) -> Result<SnapshotMeta, StoreError> {
        assert_ne!(name, STATE_FILE, "a snapshot does not take the place of the state file");
        self.check_usable()?;
        let unfinished = format!("{name}{UNFINISHED_SUFFIX}");
        discard(self.disk.as_ref(), &unfinished)?;
        let written = file::guarded(|| self.copy_to(&unfinished, name));
        if written.is_err() {
            // The copy is of no use. That it cannot be removed would be the smaller trouble, and the next start does it.
            let _ = discard(self.disk.as_ref(), &unfinished);
        }
        written
    }

    fn copy_to(&self, unfinished: &str, name: &str) -> Result<SnapshotMeta, StoreError> {
        let view = self.view();
        let open = OpenFile::create(self.disk.as_ref(), unfinished, PASSING_CACHE_BYTES)?;
        let transaction = open.begin_write()?;
        copy(&transaction, &view)?;
        transaction.commit()?;
        file::finish(self.disk.as_ref(), open, unfinished, name)?;
        let bytes = self.disk.open(name, Open::Existing)?.len()?;
        Ok(SnapshotMeta { position: view.position(), revision: view.revision(), hash: view.hash(), bytes })
    }

    /// Reads the whole snapshot `name` of the store's disk and compares it with its own hashes. Takes its time, on the caller's
    /// thread; everything else goes on.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] where the file is not a whole and true snapshot; else as the file system's.
    pub fn examine_snapshot(&self, name: &str) -> Result<ExaminedSnapshot, StoreError> {
        let snapshot = OpenFile::examine(self.disk.as_ref(), name, PASSING_CACHE_BYTES)?;
        file::guarded(|| verify(&Base::new(Arc::new(snapshot))?))?;
        Ok(ExaminedSnapshot { name: name.to_owned() })
    }

    /// Puts a snapshot in the place of the whole state, in one step, and durably; the file's name is gone afterwards. Views taken
    /// before stay readable. Must not run beside [`Store::apply`].
    ///
    /// # Errors
    /// A failure of the disk, after which the store takes no more changes.
    pub fn install_snapshot(&self, snapshot: &ExaminedSnapshot) -> Result<Position, StoreError> {
        self.check_usable()?;
        self.put_in_place(&snapshot.name)
    }

    /// The same for a store whose own state is damaged or wrong: whatever failed before is forgotten with it.
    ///
    /// # Errors
    /// As [`Store::install_snapshot`].
    pub fn replace_with(&self, snapshot: &ExaminedSnapshot) -> Result<Position, StoreError> {
        self.put_in_place(&snapshot.name)
    }

    fn put_in_place(&self, name: &str) -> Result<Position, StoreError> {
        let mut retired = self.maintenance.lock();
        let _applying = self.applying.lock();
        let fresh = self.fail(self.swap_in(name))?;
        let state = Arc::new(fresh.state.clone());
        let position = state.position.clone();
        let leases = Arc::new(self.fail(file::guarded(|| LeaseTable::of(&fresh)))?);
        let base = Arc::new(fresh);
        let sources = Arc::new(Sources { head: Arc::default(), frozen: None, base, leases });
        let View { sources: replaced, state: _ } =
            std::mem::replace(&mut *self.current.write(), View { sources, state });
        let (head, base) = (Arc::clone(&replaced.head), Arc::clone(&replaced.base));
        drop(replaced);
        retired.take(Some(head), Some(base));
        self.marks.lock().clear();
        self.failed.store(false, Ordering::Release);
        self.counters.checkpoints.fetch_add(1, Ordering::Relaxed);
        Ok(position)
    }

    /// Gives the file `name`, which is whole and durable, the state file's name, and opens it.
    pub(crate) fn swap_in(&self, name: &str) -> Result<Base, StoreError> {
        self.disk.rename(name, STATE_FILE)?;
        self.disk.sync_dir()?;
        let open = OpenFile::open(self.disk.as_ref(), STATE_FILE, self.options.cache_bytes)?;
        Base::new(Arc::new(open))
    }
}

/// Removes a file, if it is there.
pub(crate) fn discard(disk: &dyn Disk, name: &str) -> Result<(), StoreError> {
    match disk.remove(name) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Collects what must agree: the hashes that the index carries, the hashes of what the history holds, and the running
/// sum. Both tables are read from one end to the other, so that no row costs a search.
#[derive(Default)]
pub(crate) struct Check {
    index: RowSum,
    newest: RowSum,
    history: RowSum,
    records: RowSum,
    last_key: Option<Vec<u8>>,
    /// Keys that exist.
    pub keys: u64,
    /// Versions of keys, tombstones included.
    pub versions: u64,
}

impl Check {
    /// Takes in a version of the index; versions come by key, newest first.
    pub fn index_row(&mut self, key: &[u8], row: &Row) {
        self.index.add(row.hash);
        self.versions += 1;
        if self.last_key.as_deref() == Some(key) {
            return;
        }
        let last_key = self.last_key.get_or_insert_default();
        last_key.clear();
        last_key.extend_from_slice(key);
        if !row.deleted {
            self.newest.add(row.hash);
            self.keys += 1;
        }
    }

    /// Takes in a row of the history, whose hash was computed from what is there.
    pub fn history_row(&mut self, row: &Row) {
        self.history.add(row.hash);
    }

    /// Takes in a record.
    pub fn record(&mut self, key: &[u8], value: &[u8]) {
        self.records.add(hash::record(key, value));
    }

    /// Whether everything agrees with the running sums.
    pub fn conclude(&self, state: &State) -> Result<(), StoreError> {
        if self.index != self.history {
            return Err(StoreError::corrupt("the values in its history are not those that were written"));
        }
        if self.records != state.record_sum {
            return Err(StoreError::corrupt("its records are not those that were applied: the hash differs"));
        }
        if self.newest != state.row_sum {
            return Err(StoreError::corrupt("its keys are not those that were applied: the hash differs"));
        }
        Ok(())
    }
}

/// Reads a whole file and compares it with its own hashes.
pub(crate) fn verify(base: &Base) -> Result<Check, StoreError> {
    let mut check = Check::default();
    for entry in base.versions()? {
        let (index_key, value) = entry?;
        let row = layout::decode_index_row(index_key.value(), value.value())?;
        check.index_row(layout::key_of(index_key.value()), &row);
    }
    for entry in base.history_from(Stamp::MIN)? {
        let (stamp, value) = entry?;
        let stamp = layout::decode_stamp(stamp.value())?;
        check.history_row(&layout::decode_history_row(stamp, value.value())?.row);
    }
    for entry in base.records(Bound::Unbounded)?.into_iter().flatten() {
        let (key, value) = entry?;
        check.record(key.value(), value.value());
    }
    check.conclude(&base.state)?;
    Ok(check)
}

/// Copies everything that a view sees, in the order of each table. Returns the bytes of the rows.
pub(crate) fn copy(transaction: &WriteTransaction, view: &View) -> Result<u64, StoreError> {
    let mut check = Check::default();
    {
        let mut index = transaction.open_table(INDEX)?;
        let mut cursor = index.upper_bound_mut(Bound::<&[u8]>::Unbounded)?;
        let mut key_bytes = Vec::new();
        view.sources.versions(view.revision(), &mut |key, row| {
            check.index_row(key, row);
            layout::encode_index_key(key, row.stamp, &mut key_bytes);
            Ok(cursor.insert_before(key_bytes.as_slice(), &layout::encode_index_value(row))?)
        })?;
        cursor.close()?;
    }
    let row_bytes = copy_history(transaction, view, &mut check)?;
    copy_records(transaction, view, &mut check)?;
    check.conclude(&view.state)?;
    let housekeeping = Housekeeping { swept: view.sources.base.swept, row_bytes };
    meta::write(transaction, &view.state, housekeeping)?;
    Ok(row_bytes)
}

fn copy_records(transaction: &WriteTransaction, view: &View, check: &mut Check) -> Result<(), StoreError> {
    let mut records = transaction.open_table(RECORDS)?;
    let all = Bytes::new();
    let mut scan = view.sources.records(None, &all, None, view.state.until())?;
    while let Some((key, value)) = scan.step()? {
        check.record(&key, &value);
        records.insert(key.as_ref(), value.as_ref())?;
    }
    Ok(())
}

fn copy_history(transaction: &WriteTransaction, view: &View, check: &mut Check) -> Result<u64, StoreError> {
    let mut history = transaction.open_table(HISTORY)?;
    let mut cursor = history.upper_bound_mut(Bound::<&[u8; layout::STAMP_BYTES]>::Unbounded)?;
    let mut row_bytes = 0;
    let mut buffer = Vec::new();
    for entry in view.sources.base.history_from(Stamp::MIN)? {
        let (stamp, value) = entry?;
        let row = layout::decode_history_row(layout::decode_stamp(stamp.value())?, value.value())?;
        check.history_row(&row.row);
        row_bytes += layout::version_bytes(row.key.len(), row.value.len());
        cursor.insert_before(stamp.value(), value.value())?;
    }
    let heads = [view.sources.frozen.as_ref(), Some(&view.sources.head)];
    for head in heads.into_iter().flatten() {
        let mut from = Stamp::MIN;
        'head: loop {
            let changes = head.changes_from(from, CHANGES_A_TIME);
            let Some(last) = changes.last() else { break };
            from = last.row.stamp.after();
            for change in &changes {
                if change.row.stamp.revision > view.revision() {
                    break 'head;
                }
                // Computed anew: a bit that flipped in memory would else be handed on under a good hash.
                check.history_row(&recomputed(change));
                row_bytes += layout::version_bytes(change.key.len(), change.value.len());
                layout::encode_history_value(change, &mut buffer);
                cursor.insert_before(&layout::encode_stamp(change.row.stamp), buffer.as_slice())?;
            }
        }
    }
    cursor.close()?;
    Ok(row_bytes)
}

fn recomputed(change: &Change) -> Row {
    let hash = crate::hash::row(&change.key, &change.row, &change.value);
    Row { hash, ..change.row }
}

#[cfg(test)]
mod tests {
    use ringfence_types::LeaseId;

    use super::*;

    #[test]
    fn a_copy_must_agree_with_its_own_history_and_with_the_running_sum() {
        let stamp = Stamp { revision: Revision(2), sub: 0 };
        let row = Row::live(b"key", stamp, Revision(2), 1, LeaseId(0), b"value");
        let other = Row::live(b"key", stamp, Revision(2), 1, LeaseId(0), b"another");
        let concluded = |index: &Row, history: &Row, applied: &Row| {
            let mut check = Check::default();
            check.index_row(b"key", index);
            check.history_row(history);
            let mut state = State::empty();
            state.row_sum.add(applied.hash);
            check.conclude(&state)
        };
        assert!(concluded(&row, &row, &row).is_ok());
        assert!(concluded(&row, &other, &row).is_err(), "the history holds another value");
        assert!(concluded(&row, &row, &other).is_err(), "another value was applied");
        assert!(
            concluded(&other, &other, &row).is_err(),
            "a value that was never applied agrees with itself"
        );
    }
}
