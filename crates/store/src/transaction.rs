//! Carrying out one command on one state: every change that it makes, or a refusal and none.

use bytes::Bytes;
use ringfence_canary::Canary;
use ringfence_types::limits::WRITE_ANSWER_BYTES_MAX;
use ringfence_types::{
    Compare, CompareOperator, CompareTarget, DeleteRange, DeleteRangeReply, KeyValue, Lease, LeaseId,
    Operation, Put, PutLease, PutReply, PutValue, RangeQuery, RangeReply, Rejection, Reply, Revision, Scope,
    Txn, TxnReply,
};

use crate::budget::Budget;
use crate::error::{ReadError, StoreError};
use crate::hash::RowHash;
use crate::read::Reader;
use crate::records::RecordChanges;
use crate::row::{Change, Row, Stamp};
use crate::sources::{Changes, Found, Sources};
use crate::state::State;

/// One command under way.
///
/// Its changes share the revision after the state's, and are numbered within it from 0. They are collected beside the
/// state, seen by the command's own later steps, and become part of the state only as a whole.
pub(crate) struct Transaction<'a> {
    sources: &'a Sources,
    state: &'a State,
    changes: Changes,
    /// What each change has replaced as the key's newest version, in step with `changes`.
    replaced: Vec<Option<Row>>,
    records: RecordChanges,
    /// The keys created with a lease, each behind the lock whose candidate it may be.
    pub(crate) created: Vec<(Bytes, Bytes)>,
    /// What the answer may hold.
    budget: Budget,
}

/// What a command has made.
pub(crate) struct Made {
    pub changes: Vec<Change>,
    /// What each change has replaced, in step with `changes`.
    pub replaced: Vec<Option<Row>>,
    pub records: RecordChanges,
}

impl<'a> Transaction<'a> {
    /// A command of the log. The bound on its answer is the same on every member: an answer decides whether the command is refused.
    pub fn new(sources: &'a Sources, state: &'a State) -> Transaction<'a> {
        Transaction::with_budget(sources, state, Budget::new(WRITE_ANSWER_BYTES_MAX))
    }

    /// The same with another bound on the answer.
    pub fn with_budget(sources: &'a Sources, state: &'a State, budget: Budget) -> Transaction<'a> {
        Transaction {
            sources,
            state,
            changes: Changes::default(),
            replaced: Vec::new(),
            records: RecordChanges::new(),
            created: Vec::new(),
            budget,
        }
    }

    /// The end of the command: everything that it has made.
    pub fn finish(self) -> Made {
        assert!(self.created.is_empty(), "candidates are entered before the end");
        Made { changes: self.changes.into_list(), replaced: self.replaced, records: self.records }
    }

    /// The revision of the state's keys once this command is a part of it.
    pub fn revision(&self) -> Revision {
        if self.changes.is_empty() { self.state.revision } else { self.state.revision.next() }
    }

    /// The revision that changes of this command get.
    pub fn next_revision(&self) -> Revision {
        self.state.revision.next()
    }

    /// The state that the command is carried out on.
    pub fn state(&self) -> &State {
        self.state
    }

    /// A record, as this command has left it.
    pub fn record(&self, key: &Bytes) -> Result<Option<Bytes>, StoreError> {
        // Every earlier entry counts, and so does what an earlier part of this one has made.
        self.sources.record(Some(&self.records), key, u64::MAX)
    }

    /// A record, as this command has made or removed it; none where it has not touched it.
    pub fn changed_record(&self, key: &Bytes) -> Option<Option<&Bytes>> {
        self.records.get(key).map(Option::as_ref)
    }

    /// A lease as it was before this command.
    pub fn newest_lease(&self, lease: LeaseId) -> Option<Lease> {
        self.sources.leases.lease(lease)
    }

    /// The records whose keys begin with `prefix`, as this command has left them.
    pub fn scan_records(&self, prefix: &Bytes) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.sources.records(Some(&self.records), prefix, None, u64::MAX)?.collect(usize::MAX)
    }

    /// The first of them behind `after`.
    pub fn scan_records_after(
        &self,
        prefix: &Bytes,
        after: &Bytes,
    ) -> Result<Option<(Bytes, Bytes)>, StoreError> {
        self.sources.records(Some(&self.records), prefix, Some(after), u64::MAX)?.step()
    }

    /// Changes a record, or removes it.
    pub fn set_record(&mut self, key: Bytes, value: Option<Bytes>) {
        self.records.insert(key, value);
    }

    /// The newest version of a key that exists, before this command or in it.
    pub fn existing(&self, key: &Bytes) -> Result<Option<Row>, StoreError> {
        let found = self.sources.newest(Some(&self.changes), key, self.state.revision)?;
        Ok(found.map(|found| found.row).filter(|row| !row.deleted))
    }

    pub fn put(&mut self, put: &Put) -> Result<PutReply, ReadError> {
        let previous = self.sources.newest(Some(&self.changes), &put.key, self.state.revision)?;
        let existing = previous.as_ref().filter(|found| !found.row.deleted);
        let value = match (&put.value, existing) {
            (PutValue::Set(value), _) => value.clone(),
            (PutValue::Keep, Some(found)) => self.sources.value(&put.key, found)?,
            (PutValue::Keep, None) => return Err(Rejection::KeyNotFound.into()),
        };
        let lease = match (put.lease, existing) {
            (PutLease::Set(lease), _) => lease,
            (PutLease::Keep, Some(found)) => found.row.lease,
            (PutLease::Keep, None) => return Err(Rejection::KeyNotFound.into()),
        };
        let prev_kv = match existing {
            Some(found) if put.prev_kv => Some(self.answered(put.key.clone(), found)?),
            _ => None,
        };
        self.rehang(&put.key, existing.map_or(LeaseId(0), |found| found.row.lease), lease)?;
        if existing.is_none()
            && lease != LeaseId(0)
            && let Some(lock) = Scope::lock_of(&put.key)
        {
            self.created.push((lock, put.key.clone()));
        }
        let stamp = self.next_stamp();
        let (create_revision, version) = match existing {
            Some(found) => (found.row.create_revision, found.row.version + 1),
            None => (stamp.revision, 1),
        };
        let row = Row::live(&put.key, stamp, create_revision, version, lease, &value);
        self.push(Change { key: put.key.clone(), row, value }, previous.map(|found| found.row));
        Ok(PutReply { prev_kv })
    }

    pub fn delete_range(&mut self, delete: &DeleteRange) -> Result<DeleteRangeReply, ReadError> {
        let mut doomed: Vec<(Bytes, Found)> = Vec::new();
        self.reader(true).walk(&delete.range, |place| {
            doomed.push((place.key(), place.found()));
            Ok(())
        })?;
        let mut prev_kvs = Vec::new();
        let deleted = doomed.len() as u64;
        for (key, found) in doomed {
            if delete.prev_kv {
                prev_kvs.push(self.answered(key.clone(), &found)?);
            }
            self.delete(key, found.row)?;
        }
        Ok(DeleteRangeReply { deleted, prev_kvs })
    }

    /// Deletes a key, if it exists.
    pub fn delete_key(&mut self, key: &Bytes) -> Result<(), ReadError> {
        match self.existing(key)? {
            Some(row) => self.delete(key.clone(), row),
            None => Ok(()),
        }
    }

    fn delete(&mut self, key: Bytes, newest: Row) -> Result<(), ReadError> {
        self.rehang(&key, newest.lease, LeaseId(0))?;
        self.leave_candidates(&key, newest.create_revision)?;
        // What one command creates and deletes was never there for anybody.
        self.created.retain(|(_, created)| *created != key);
        let row = Row::tombstone(&key, self.next_stamp());
        self.push(Change { key, row, value: Bytes::new() }, Some(newest));
        Ok(())
    }

    pub fn range(&self, query: &RangeQuery) -> Result<RangeReply, ReadError> {
        self.reader(true).range(query, &self.budget)
    }

    /// Compares, then does one of the two lists. Compares see the state before the outermost transaction, so they do not
    /// depend on what stands before them.
    pub fn txn(&mut self, txn: &Txn) -> Result<TxnReply, ReadError> {
        let mut succeeded = true;
        for compare in &txn.compares {
            succeeded = succeeded && self.holds(compare)?;
        }
        let operations = if succeeded { &txn.success } else { &txn.failure };
        let mut replies = Vec::with_capacity(operations.len());
        for operation in operations {
            replies.push(match operation {
                Operation::Range(query) => Reply::Range(self.range(query)?),
                Operation::Put(put) => Reply::Put(self.put(put)?),
                Operation::DeleteRange(delete) => Reply::DeleteRange(self.delete_range(delete)?),
                Operation::Txn(nested) => Reply::Txn(self.txn(nested)?),
            });
        }
        Ok(TxnReply { succeeded, replies })
    }

    /// A key as the answer shows it, if there is room for it.
    fn answered(&self, key: Bytes, found: &Found) -> Result<KeyValue, ReadError> {
        let value = self.sources.value(&key, found)?;
        self.budget.spend(&key, &value)?;
        Ok(found.row.key_value(key, value))
    }

    fn reader(&self, own_changes: bool) -> Reader<'_> {
        Reader { sources: self.sources, state: self.state, changes: own_changes.then_some(&self.changes) }
    }

    fn next_stamp(&self) -> Stamp {
        let sub =
            u32::try_from(self.changes.len()).expect("a command changes fewer keys than memory can hold");
        Stamp { revision: self.state.revision.next(), sub }
    }

    fn push(&mut self, change: Change, replaced: Option<Row>) {
        self.changes.push(change);
        self.replaced.push(replaced);
    }

    /// Whether a compare holds on the state before the command.
    pub fn holds(&self, compare: &Compare) -> Result<bool, StoreError> {
        if Canary::CompareSkipped.sings() {
            // The first branch is taken, whatever the state says.
            return Ok(true);
        }
        let reader = self.reader(false);
        let mut holds = true;
        let mut any = false;
        reader.walk(&compare.range, |place| {
            any = true;
            if holds {
                let found = place.found();
                let value = match compare.target {
                    CompareTarget::Value(_) => Some(self.sources.value(&place.key(), &found)?),
                    _ => None,
                };
                holds = judge(compare, &found.row, value.as_ref());
            }
            Ok(())
        })?;
        if any {
            return Ok(holds);
        }
        let absent = Row {
            stamp: Stamp::MIN,
            create_revision: Revision(0),
            version: 0,
            lease: LeaseId(0),
            deleted: true,
            hash: RowHash(0),
        };
        Ok(judge(compare, &absent, None))
    }
}

/// Whether a compare holds for one version of a key. A compare of a value never holds where there is none.
fn judge(compare: &Compare, row: &Row, value: Option<&Bytes>) -> bool {
    let ordering = match &compare.target {
        CompareTarget::Version(version) => row.version.cmp(version),
        CompareTarget::Create(revision) => row.create_revision.cmp(revision),
        CompareTarget::Mod(revision) => row.stamp.revision.cmp(revision),
        CompareTarget::Lease(lease) => row.lease.cmp(lease),
        CompareTarget::Value(operand) => match value {
            Some(value) => value.cmp(operand),
            None => return false,
        },
    };
    match compare.operator {
        CompareOperator::Equal => ordering.is_eq(),
        CompareOperator::NotEqual => ordering.is_ne(),
        CompareOperator::Greater => ordering.is_gt(),
        CompareOperator::Less => ordering.is_lt(),
    }
}
