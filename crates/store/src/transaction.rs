//! Carrying out one command on one state: every change that it makes, or a refusal and none.

use bytes::Bytes;
use ringfence_canary::Canary;
use ringfence_types::{
    Compare, CompareOperator, CompareTarget, DeleteRange, DeleteRangeReply, LeaseId, Operation, Put,
    PutLease, PutReply, PutValue, RangeQuery, RangeReply, Rejection, Reply, Revision, Txn, TxnReply,
};

use crate::error::{ReadError, StoreError};
use crate::hash::RowHash;
use crate::read::Reader;
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
}

impl<'a> Transaction<'a> {
    pub fn new(sources: &'a Sources, state: &'a State) -> Transaction<'a> {
        Transaction { sources, state, changes: Changes::default(), replaced: Vec::new() }
    }

    /// The changes made, each with what it replaced.
    pub fn into_changes(self) -> (Vec<Change>, Vec<Option<Row>>) {
        (self.changes.into_list(), self.replaced)
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
            (PutLease::Set(LeaseId(0)), _) => LeaseId(0),
            // There are no leases yet, so none can be named.
            (PutLease::Set(_), _) => return Err(Rejection::LeaseNotFound.into()),
            (PutLease::Keep, Some(found)) => found.row.lease,
            (PutLease::Keep, None) => return Err(Rejection::KeyNotFound.into()),
        };
        let prev_kv = match existing {
            Some(found) if put.prev_kv => {
                Some(found.row.key_value(put.key.clone(), self.sources.value(&put.key, found)?))
            }
            _ => None,
        };
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
            doomed.push((place.key(), place.found()?));
            Ok(())
        })?;
        let mut prev_kvs = Vec::new();
        let deleted = doomed.len() as u64;
        for (key, found) in doomed {
            if delete.prev_kv {
                prev_kvs.push(found.row.key_value(key.clone(), self.sources.value(&key, &found)?));
            }
            let row = Row::tombstone(&key, self.next_stamp());
            self.push(Change { key, row, value: Bytes::new() }, Some(found.row));
        }
        Ok(DeleteRangeReply { deleted, prev_kvs })
    }

    pub fn range(&self, query: &RangeQuery) -> Result<RangeReply, ReadError> {
        self.reader(true).range(query)
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

    fn holds(&self, compare: &Compare) -> Result<bool, StoreError> {
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
                let found = place.found()?;
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
