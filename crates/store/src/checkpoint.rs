//! Checkpoints: the head becomes part of the file.

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use redb::WriteTransaction;

use crate::base::Base;
use crate::compaction::{self, Swept};
use crate::error::StoreError;
use crate::file::guarded;
use crate::head::Head;
use crate::layout::{self, HISTORY, INDEX};
use crate::meta::{self, Housekeeping};
use crate::record_layout::RECORDS;
use crate::row::Stamp;
use crate::sources::Sources;
use crate::state::{Position, State};
use crate::store::Store;

/// Changes that are copied out of a head at a time.
const CHANGES_A_TIME: usize = 1_024;

impl Store {
    /// Merges the head into the file, durably, then a bounded piece of compaction. Takes its time, on the caller's
    /// thread, and holds up neither apply nor reads; a second call waits for the first. None if there was nothing to do.
    ///
    /// # Errors
    /// A failure of the file. What it holds is then unknown until a restart, and the store takes no more changes.
    pub fn checkpoint(&self) -> Result<Option<Position>, StoreError> {
        let mut retired = self.maintenance.lock();
        self.check_usable()?;
        let Some((frozen, base, state)) = self.freeze() else {
            retired.take(None, None);
            return Ok(None);
        };
        let sweeps = !self.rebuilding.load(Ordering::Acquire);
        let merged = self.fail(guarded(|| merge(&frozen, &base, &state, sweeps)))?;
        let mut fresh = self.fail(Base::new(Arc::clone(&base.file)))?;
        assert_eq!(fresh.state.position, state.position, "the file holds the state that was checkpointed");
        fresh.warm = base.warm.successor();
        self.replace_base(fresh);
        retired.take(Some(frozen), Some(base));
        self.counters.checkpoints.fetch_add(1, Ordering::Relaxed);
        self.counters.rows_merged.fetch_add(merged.rows, Ordering::Relaxed);
        self.counters.versions_compacted.fetch_add(merged.versions_compacted, Ordering::Relaxed);
        Ok(Some(state.position.clone()))
    }

    /// Between two batches, puts an empty head in the place of the current one. None where the file has everything.
    fn freeze(&self) -> Option<(Arc<Head>, Arc<Base>, Arc<State>)> {
        let _applying = self.applying.lock();
        let mut current = self.current.write();
        let sources = Arc::clone(&current.sources);
        assert!(sources.frozen.is_none(), "one checkpoint at a time");
        if current.state.position == sources.base.state.position && !self.has_compaction_to_do(&sources.base)
        {
            return None;
        }
        current.sources = Arc::new(Sources {
            head: Arc::default(),
            frozen: Some(Arc::clone(&sources.head)),
            base: Arc::clone(&sources.base),
            leases: Arc::clone(&sources.leases),
        });
        Some((Arc::clone(&sources.head), Arc::clone(&sources.base), Arc::clone(&current.state)))
    }
}

struct Merged {
    rows: u64,
    versions_compacted: u64,
}

/// Writes `head` and `state` over what the file held, in one transaction, and compacts a piece if it `sweeps`.
fn merge(head: &Head, base: &Base, state: &State, sweeps: bool) -> Result<Merged, StoreError> {
    let transaction = base.file.begin_write()?;
    merge_index(&transaction, head)?;
    merge_records(&transaction, head)?;
    let (rows, added) = merge_history(&transaction, head)?;
    let swept = match sweeps {
        true => compaction::sweep(&transaction, base.swept, state.compacted)?,
        false => Swept::nothing(base.swept),
    };
    let housekeeping = Housekeeping { swept: swept.up_to, row_bytes: base.row_bytes + added - swept.bytes };
    meta::write(&transaction, state, housekeeping)?;
    transaction.commit()?;
    Ok(Merged { rows, versions_compacted: swept.versions })
}

/// The head's rows come in the order of the index. They are inserted one by one: scattered among many keys that costs 4 us
/// a row where a cursor for each run costs 7, and in the order of the keys 0.6 us where a cursor costs 0.4.
fn merge_index(transaction: &WriteTransaction, head: &Head) -> Result<(), StoreError> {
    let mut index = transaction.open_table(INDEX)?;
    let mut key_bytes = Vec::new();
    for (key, row) in head.versions() {
        layout::encode_index_key(&key, row.stamp, &mut key_bytes);
        index.insert(key_bytes.as_slice(), &layout::encode_index_value(&row))?;
    }
    Ok(())
}

/// Of each record its newest version alone is kept.
fn merge_records(transaction: &WriteTransaction, head: &Head) -> Result<(), StoreError> {
    let mut records = transaction.open_table(RECORDS)?;
    for (key, value) in head.records(Bound::Unbounded, u64::MAX) {
        match value {
            Some(value) => drop(records.insert(key.as_ref(), value.as_ref())?),
            None => drop(records.remove(key.as_ref())?),
        }
    }
    Ok(())
}

/// The history only grows at its end. Returns the number of rows, and their bytes in index and history.
fn merge_history(transaction: &WriteTransaction, head: &Head) -> Result<(u64, u64), StoreError> {
    let mut history = transaction.open_table(HISTORY)?;
    let mut cursor = history.upper_bound_mut(Bound::<&[u8; layout::STAMP_BYTES]>::Unbounded)?;
    let (mut rows, mut bytes) = (0, 0);
    let mut value = Vec::new();
    let mut from = Stamp::MIN;
    loop {
        let changes = head.changes_from(from, CHANGES_A_TIME);
        let Some(last) = changes.last() else { break };
        from = last.row.stamp.after();
        for change in &changes {
            layout::encode_history_value(change, &mut value);
            cursor.insert_before(&layout::encode_stamp(change.row.stamp), value.as_slice())?;
            rows += 1;
            bytes += layout::version_bytes(change.key.len(), change.value.len());
        }
    }
    cursor.close()?;
    Ok((rows, bytes))
}
