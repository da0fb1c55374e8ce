//! Snapshot files outside a running store: looking at one, and beginning a new cluster from one.

use std::io;
use std::ops::Bound;
use std::sync::Arc;

use redb::WriteTransaction;
use ringfence_disk::Disk;
use ringfence_types::{Guard, LeaseId, Revision};

use crate::base::Base;
use crate::error::StoreError;
use crate::file::{self, OpenFile};
use crate::hash::{self, RowSum, StateHash};
use crate::layout::{self, HISTORY, INDEX, STATE_FILE, UNFINISHED_SUFFIX};
use crate::meta::{self, Housekeeping};
use crate::record_layout::{self, RECORDS};
use crate::row::{Row, Stamp};
use crate::snapshot::{self, PASSING_CACHE_BYTES};
use crate::state::{Position, State};

/// How far the revision of a restored cluster is above the snapshot's: further than the old cluster can have come since,
/// so that no revision, and no token made of one, is ever given twice.
pub const RESTORED_REVISION_STEP: i64 = 1_000_000_000;

/// What a snapshot file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The last entry and the last membership in it.
    pub position: Position,
    /// The store's revision.
    pub revision: Revision,
    /// The oldest revision that can be read; 0 if nothing was compacted.
    pub compacted: Revision,
    /// Keys that exist.
    pub keys: u64,
    /// Versions of keys, tombstones included.
    pub versions: u64,
    /// The hash of the logical state, as computed from the file's content.
    pub hash: StateHash,
    /// The file's length.
    pub bytes: u64,
}

/// Reads the whole snapshot `name` and compares it with its own hashes. The file is not changed.
///
/// # Errors
/// [`StoreError::Corrupt`] where it is not a whole and true snapshot; else as the file system's.
pub fn inspect(disk: &dyn Disk, name: &str) -> Result<Summary, StoreError> {
    let base = open(disk, name)?;
    file::guarded(|| summarize(&base))
}

/// Makes the state file of a new cluster in `target` out of the snapshot `name` of `source`.
///
/// The keys that exist are kept with their values, create and mod revisions and versions, and so are the guards. The revision goes up by
/// [`RESTORED_REVISION_STEP`] and everything below is compacted. What belonged to the old cluster is left out: its log's
/// position, its membership, its members' records, its sessions, and its leases with the keys that hang on them, as if each had ended:
/// nobody is left to keep them alive, and a key without its lease would never go. Returns what the new file holds.
///
/// # Errors
/// [`StoreError::Corrupt`] where the snapshot is not whole and true, `AlreadyExists` where `target` has a state file; else
/// as the file system's. `target` has no state file then.
pub fn restore(source: &dyn Disk, name: &str, target: &dyn Disk) -> Result<Summary, StoreError> {
    if target.list()?.iter().any(|present| present == STATE_FILE) {
        let reason = format!("{STATE_FILE} is already there");
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, reason).into());
    }
    let old = open(source, name)?;
    file::guarded(|| snapshot::verify(&old))?;
    let unfinished = format!("{STATE_FILE}{UNFINISHED_SUFFIX}");
    snapshot::discard(target, &unfinished)?;
    let open_file = OpenFile::create(target, &unfinished, PASSING_CACHE_BYTES)?;
    let transaction = open_file.begin_write()?;
    file::guarded(|| write_restored(&transaction, &old))?;
    transaction.commit()?;
    file::finish(target, open_file, &unfinished, STATE_FILE)?;
    inspect(target, STATE_FILE)
}

fn open(disk: &dyn Disk, name: &str) -> Result<Base, StoreError> {
    let file = OpenFile::examine(disk, name, PASSING_CACHE_BYTES)?;
    file::guarded(|| Base::new(Arc::new(file)))
}

fn summarize(base: &Base) -> Result<Summary, StoreError> {
    let check = snapshot::verify(base)?;
    Ok(Summary {
        position: base.state.position.clone(),
        revision: base.state.revision,
        compacted: base.state.compacted,
        keys: check.keys,
        versions: check.versions,
        hash: base.state.hash(),
        bytes: base.file.bytes()?,
    })
}

/// Whether a key whose newest version is `row` goes on to exist in a new cluster.
fn outlives(row: &Row) -> bool {
    !row.deleted && row.lease == LeaseId(0)
}

fn write_restored(transaction: &WriteTransaction, old: &Base) -> Result<(), StoreError> {
    let row_sum = write_newest_index(transaction, old)?;
    let row_bytes = write_newest_history(transaction, old)?;
    let revision = Revision(old.state.revision.0 + RESTORED_REVISION_STEP);
    let state = State {
        position: Position::default(),
        revision,
        compacted: revision,
        row_sum,
        chain: hash::chain_anew(old.state.chain, revision),
        members: Arc::default(),
        alarms: Arc::default(),
        lease_clock: old.state.lease_clock,
        record_sum: write_guards(transaction, &old.state.guards)?,
        guards: Arc::clone(&old.state.guards),
    };
    // Nothing is left for compaction: there is one version of each key, and no tombstone.
    let housekeeping = Housekeeping { swept: Stamp::last_of(revision), row_bytes };
    meta::write(transaction, &state, housekeeping)
}

/// Of the records only the guards outlive a cluster. Returns the sum of their hashes.
fn write_guards(transaction: &WriteTransaction, guards: &[Guard]) -> Result<RowSum, StoreError> {
    let mut records = transaction.open_table(RECORDS)?;
    let mut sum = RowSum::default();
    for guard in guards {
        let (key, value) =
            (record_layout::guard_key(&guard.range), record_layout::encode_scope(&guard.scope));
        sum.add(hash::record(&key, &value));
        records.insert(key.as_ref(), value.as_ref())?;
    }
    Ok(sum)
}

/// Returns the sum of the hashes of what was written.
fn write_newest_index(transaction: &WriteTransaction, old: &Base) -> Result<RowSum, StoreError> {
    let mut row_sum = RowSum::default();
    let mut index = transaction.open_table(INDEX)?;
    let mut cursor = index.upper_bound_mut(Bound::<&[u8]>::Unbounded)?;
    let mut last_key: Option<Vec<u8>> = None;
    for entry in old.versions()? {
        let (index_key, value) = entry?;
        let key = layout::key_of(index_key.value());
        if last_key.as_deref() == Some(key) {
            continue;
        }
        last_key = Some(key.to_vec());
        let row = layout::decode_index_row(index_key.value(), value.value())?;
        if outlives(&row) {
            row_sum.add(row.hash);
            cursor.insert_before(index_key.value(), value.value())?;
        }
    }
    cursor.close()?;
    Ok(row_sum)
}

fn write_newest_history(transaction: &WriteTransaction, old: &Base) -> Result<u64, StoreError> {
    let mut history = transaction.open_table(HISTORY)?;
    let mut cursor = history.upper_bound_mut(Bound::<&[u8; layout::STAMP_BYTES]>::Unbounded)?;
    let mut row_bytes = 0;
    for entry in old.history_from(Stamp::MIN)? {
        let (stamp, value) = entry?;
        let row = layout::decode_history_row(layout::decode_stamp(stamp.value())?, value.value())?;
        let newest = old.newest(row.key, old.state.revision)?;
        if outlives(&row.row) && newest.is_some_and(|newest| newest.stamp == row.row.stamp) {
            row_bytes += layout::version_bytes(row.key.len(), row.value.len());
            cursor.insert_before(stamp.value(), value.value())?;
        }
    }
    cursor.close()?;
    Ok(row_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hangs_on_a_lease_ends_with_its_cluster() {
        let stamp = Stamp { revision: Revision(2), sub: 0 };
        let row = |lease| Row::live(b"key", stamp, Revision(2), 1, LeaseId(lease), b"value");
        assert!(outlives(&row(0)));
        assert!(!outlives(&row(7)));
        assert!(!outlives(&Row::tombstone(b"key", stamp)));
    }
}
