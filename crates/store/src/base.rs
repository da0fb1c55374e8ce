//! The base: a snapshot of the state file, as it was at one checkpoint.

use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use redb::{Range, ReadOnlyTable};
use ringfence_types::Revision;

use crate::error::StoreError;
use crate::file::{OpenFile, guarded};
use crate::layout::{self, HISTORY, INDEX, IndexKey, IndexValue, StampKey};
use crate::meta::{self, Housekeeping};
use crate::record_layout::{RecordRange, RecordTable};
use crate::row::{Row, Stamp};
use crate::state::State;
use crate::warm::Warm;

/// A snapshot of the file with its tables open. Its rows stay readable when later checkpoints have changed the file, and
/// when the file has been replaced by another.
pub(crate) struct Base {
    // The tables are closed before the file: a closed file can no longer be read.
    pub index: ReadOnlyTable<IndexKey, IndexValue>,
    pub history: ReadOnlyTable<StampKey, &'static [u8]>,
    /// None in a file of a version that knew none.
    records: Option<RecordTable>,
    pub file: Arc<OpenFile>,
    pub state: State,
    /// Everything up to here has been swept by compaction.
    pub swept: Stamp,
    /// Bytes of all rows.
    pub row_bytes: u64,
    /// What is asked for again and again.
    pub warm: Warm,
}

impl Base {
    /// A snapshot of the file as it is now.
    pub fn new(file: Arc<OpenFile>) -> Result<Base, StoreError> {
        guarded(|| {
            let transaction = file.begin_read()?;
            let (state, Housekeeping { swept, row_bytes }) = meta::read(&transaction)?;
            let index = transaction.open_table(INDEX)?;
            let history = transaction.open_table(HISTORY)?;
            let records = meta::open_records(&transaction)?;
            Ok(Base { index, history, records, file, state, swept, row_bytes, warm: Warm::default() })
        })
    }

    /// The newest version of `key` at `revision`, tombstones included.
    pub fn newest(&self, key: &[u8], revision: Revision) -> Result<Option<Row>, StoreError> {
        let first = layout::index_key(key, Stamp::last_of(revision));
        let last = layout::index_key(key, Stamp::MIN);
        guarded(|| {
            let mut range = self.index.range(first.as_slice()..=last.as_slice())?;
            let Some(entry) = range.next() else { return Ok(None) };
            let (index_key, value) = entry?;
            Ok(Some(layout::decode_index_row(index_key.value(), value.value())?))
        })
    }

    /// The value of a version, checked against the hash that its row carries: redb checks nothing when it reads.
    pub fn value(&self, key: &[u8], row: &Row) -> Result<Bytes, StoreError> {
        let stamp = layout::encode_stamp(row.stamp);
        guarded(|| {
            let Some(guard) = self.history.get(&stamp)? else {
                return Err(StoreError::corrupt(format!(
                    "the history lacks revision {}",
                    row.stamp.revision
                )));
            };
            let found = layout::decode_history_row(row.stamp, guard.value())?;
            if found.key != key || found.row.hash != row.hash {
                return Err(StoreError::corrupt(format!(
                    "the value written at revision {} is not what was written",
                    row.stamp.revision
                )));
            }
            Ok(Bytes::copy_from_slice(found.value))
        })
    }

    /// A record.
    pub fn record(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let Some(records) = &self.records else { return Ok(None) };
        guarded(|| Ok(records.get(key)?.map(|guard| Bytes::copy_from_slice(guard.value()))))
    }

    /// The records from `start` on.
    pub fn records(&self, start: Bound<&Bytes>) -> Result<Option<RecordRange>, StoreError> {
        let Some(records) = &self.records else { return Ok(None) };
        let start = start.map(|key| key.as_ref());
        guarded(|| Ok(Some(records.range::<&[u8]>((start, Bound::Unbounded))?)))
    }

    /// Every version of every key, by key, newest first.
    pub fn versions(&self) -> Result<Range<'static, IndexKey, IndexValue>, StoreError> {
        Ok(self.index.range::<&[u8]>(..)?)
    }

    /// The same from behind one version on; all of them for none.
    pub fn versions_after(
        &self,
        after: Option<(&[u8], Stamp)>,
    ) -> Result<Range<'static, IndexKey, IndexValue>, StoreError> {
        let Some((key, stamp)) = after else { return self.versions() };
        let after = layout::index_key(key, stamp);
        Ok(self.index.range::<&[u8]>((Bound::Excluded(after.as_slice()), Bound::Unbounded))?)
    }

    /// The history from a stamp on.
    pub fn history_from(&self, from: Stamp) -> Result<Range<'static, StampKey, &'static [u8]>, StoreError> {
        let from = layout::encode_stamp(from);
        Ok(self.history.range::<&[u8; layout::STAMP_BYTES]>(&from..)?)
    }
}

impl fmt::Debug for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Base").field("state", &self.state).finish_non_exhaustive()
    }
}
