//! What a reader sees: one state at one applied index.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use ringfence_types::{
    Alarm, KeyRange, KeyValue, LogId, Member, NodeId, RangeQuery, RangeReply, Revision, Txn, TxnReply,
};

use crate::base::Base;
use crate::budget::Budget;
use crate::error::ReadError;
use crate::file::guarded;
use crate::hash::{RowSum, StateHash};
use crate::lease_table::LeaseTable;
use crate::read::Reader;
use crate::row::Row;
use crate::sources::Sources;
use crate::state::{Position, State};
use crate::transaction::Transaction;

/// One state at one applied index. Cheap to take and to clone, and never changes; what it sees cannot be freed while it
/// is held, so streams take a new one for each chunk.
#[derive(Debug, Clone)]
pub struct View {
    pub(crate) sources: Arc<Sources>,
    pub(crate) state: Arc<State>,
}

/// A part of a range, in the order of the keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanChunk {
    /// The keys.
    pub kvs: Vec<KeyValue>,
    /// Whether the range goes on after the last of them.
    pub more: bool,
}

/// A hash of all history that can be read, comparable between members, as etcd's HashKV.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashKv {
    /// The hash.
    pub hash: u32,
    /// The oldest revision in it; 0 if nothing was compacted.
    pub compacted: Revision,
    /// The newest revision in it.
    pub revision: Revision,
}

impl View {
    /// What the file holds as it was at one checkpoint, without anything of memory.
    pub(crate) fn of_base(base: Arc<Base>) -> View {
        View::of_base_with(base, Arc::default())
    }

    /// The same, where more will be applied: `leases` are those in the file.
    pub(crate) fn of_base_with(base: Arc<Base>, leases: Arc<LeaseTable>) -> View {
        let state = Arc::new(base.state.clone());
        View { sources: Arc::new(Sources { head: Arc::default(), frozen: None, base, leases }), state }
    }

    /// The last entry of the log that the state holds.
    #[must_use]
    pub fn applied(&self) -> Option<LogId> {
        self.state.position.log_id
    }

    /// The last entry and the last membership that the state holds.
    #[must_use]
    pub fn position(&self) -> Position {
        self.state.position.clone()
    }

    /// The store's revision.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.state.revision
    }

    /// The oldest revision that can be read; 0 if nothing was compacted.
    #[must_use]
    pub fn compacted(&self) -> Revision {
        self.state.compacted
    }

    /// Whether everything that happened from a revision on lies in memory.
    #[must_use]
    pub fn remembers(&self, from: Revision) -> bool {
        from > self.sources.base.state.revision
    }

    /// The hash of the logical state.
    #[must_use]
    pub fn hash(&self) -> StateHash {
        self.state.hash()
    }

    /// Answers a range, however large the answer is.
    ///
    /// # Errors
    /// Refused where the revision asked for is gone or not there yet.
    pub fn range(&self, query: &RangeQuery) -> Result<RangeReply, ReadError> {
        self.range_within(query, u64::MAX)
    }

    /// Answers a range whose keys and values have at most `bytes_max` bytes.
    ///
    /// # Errors
    /// Refused where the revision asked for is gone or not there yet; and where the answer, or what has to be in memory to
    /// sort it, would be larger, once that much has been read.
    pub fn range_within(&self, query: &RangeQuery, bytes_max: u64) -> Result<RangeReply, ReadError> {
        self.reader().range(query, &Budget::new(bytes_max))
    }

    /// Evaluates a transaction that can change nothing, whose ranges together have at most `bytes_max` bytes.
    ///
    /// # Errors
    /// Refused where one of its ranges is.
    ///
    /// # Panics
    /// If the transaction could change something: that would be a write that nobody agreed to.
    pub fn evaluate_within(&self, txn: &Txn, bytes_max: u64) -> Result<TxnReply, ReadError> {
        assert!(txn.is_read_only(), "only a transaction that can change nothing is evaluated beside the log");
        Transaction::with_budget(&self.sources, &self.state, Budget::new(bytes_max)).txn(txn)
    }

    /// The next part of a range at `revision`: the keys after `after`, up to `keys_max` of them, and no further once they
    /// have `bytes_max` bytes, but at least one. With `keys_only` the values are left out. Takes as long as the part is,
    /// however long the range.
    ///
    /// # Errors
    /// Refused where the revision is gone or not there yet.
    pub fn scan(
        &self,
        range: &KeyRange,
        revision: Option<Revision>,
        after: Option<&Bytes>,
        keys_only: bool,
        keys_max: usize,
        bytes_max: usize,
    ) -> Result<ScanChunk, ReadError> {
        let revision = self.state.readable(revision)?;
        if range.is_empty() {
            return Ok(ScanChunk { kvs: Vec::new(), more: false });
        }
        if range.end == ringfence_types::RangeEnd::Single {
            let query = RangeQuery { revision: Some(revision), keys_only, ..RangeQuery::new(range.clone()) };
            let kvs = if after.is_some_and(|after| *after >= range.start) {
                Vec::new()
            } else {
                self.range(&query)?.kvs
            };
            return Ok(ScanChunk { kvs, more: false });
        }
        let mut scan = self.sources.scan(None, range, after, revision)?;
        let mut kvs = Vec::new();
        let mut bytes = 0;
        while scan.step()? {
            if kvs.len() >= keys_max.max(1) || (bytes >= bytes_max && !kvs.is_empty()) {
                return Ok(ScanChunk { kvs, more: true });
            }
            let (key, found) = (scan.key(), scan.found());
            let row = found.row;
            let value = if keys_only { Bytes::new() } else { self.sources.value_out_of(&key, found)? };
            bytes += key.len() + value.len();
            kvs.push(row.key_value(key, value));
        }
        Ok(ScanChunk { kvs, more: false })
    }

    /// A hash over every version of every key that can be read at `revision` or before (the newest revision for 0). It
    /// reads the whole index, so it takes a while on a large store.
    ///
    /// # Errors
    /// Refused where the revision is gone or not there yet.
    pub fn hash_kv(&self, revision: Revision) -> Result<HashKv, ReadError> {
        let revision = self.state.readable(Some(revision))?;
        let compacted = self.state.compacted;
        let mut sum = RowSum::default();
        let mut kept_for: Vec<u8> = Vec::new();
        let mut kept = false;
        // Whether compaction has removed a version yet must make no difference, so only what it will leave is counted:
        // of the versions up to the compacted revision the newest of each key, unless it is a tombstone.
        let mut visit = |key: &[u8], row: &Row| {
            if row.stamp.revision > compacted {
                sum.add(row.hash);
                return Ok(());
            }
            if kept && kept_for == key {
                return Ok(());
            }
            kept = true;
            kept_for.clear();
            kept_for.extend_from_slice(key);
            if !row.deleted {
                sum.add(row.hash);
            }
            Ok(())
        };
        guarded(|| self.sources.versions(revision, &mut visit))?;
        Ok(HashKv { hash: crc32c::crc32c(&sum.0.to_be_bytes()), compacted, revision })
    }

    /// The members' records, those of removed members included.
    #[must_use]
    pub fn members(&self) -> Arc<BTreeMap<NodeId, Member>> {
        self.state.members.clone()
    }

    /// The alarms that are raised, by the members that they are about.
    #[must_use]
    pub fn alarms(&self) -> Vec<Alarm> {
        self.state.alarms.iter().copied().collect()
    }

    pub(crate) fn reader(&self) -> Reader<'_> {
        Reader { sources: &self.sources, state: &self.state, changes: None }
    }
}
