//! The queue of a lock or an election as one view of the state shows it: which key stands first, and where one stands.
//!
//! The key of a session is `name/` with the lease's number, and its place is its create revision. Whoever is the scope's
//! holder has the lock only if no older key at all lies under `name/`: that is etcd's rule, so that a lock which a recipe of
//! a client's library has taken, with whatever keys, excludes those taken here.
//!
//! It knows no gRPC, so that the simulator queues by it too.

use bytes::Bytes;
use ringfence_canary::Canary;
use ringfence_store::{ReadError, View};
use ringfence_types::{
    Compare, CompareOperator, CompareTarget, DeleteRange, KeyRange, KeyValue, LeaseId, Operation, Put,
    PutLease, PutValue, RangeQuery, Reply, Revision, SortOrder, SortTarget, Txn, TxnReply,
};

/// A session's key in a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// The lock's or the election's name.
    pub(crate) name: Bytes,
    /// The key.
    pub(crate) key: Bytes,
    /// Its create revision: its place in the queue, and its token once it holds.
    pub(crate) created: Revision,
}

/// Where a candidate stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is the holder, and no older key is there.
    Holds,
    /// There are older keys.
    Waits,
    /// Its key is gone, or is another one of the same name.
    Gone,
    /// Its key is there, nothing is older, and it is no candidate: it was not created with a lease, or together with others.
    Never,
}

/// The key of the session of `lease` in the queue of `name`, as etcd's clients write it.
pub(crate) fn key_of(name: &Bytes, lease: LeaseId) -> Bytes {
    let sign = if lease.0 < 0 { "-" } else { "" };
    let number = format!("/{sign}{:x}", lease.0.unsigned_abs());
    Bytes::from([name.as_ref(), number.as_bytes()].concat())
}

/// The keys of the queue of `name`, and all others below it.
pub(crate) fn keys_of(name: &Bytes) -> KeyRange {
    KeyRange::prefix(Bytes::from([name.as_ref(), b"/"].concat()))
}

/// The oldest key of a queue, without its value.
pub(crate) fn oldest(view: &View, name: &Bytes) -> Result<Option<KeyValue>, ReadError> {
    first_created(view, name, Revision(0))
}

/// The oldest key of a queue that is older than `candidate`, without its value.
pub(crate) fn older(view: &View, candidate: &Candidate) -> Result<Option<KeyValue>, ReadError> {
    first_created(view, &candidate.name, Revision(candidate.created.0 - 1))
}

fn first_created(view: &View, name: &Bytes, created_max: Revision) -> Result<Option<KeyValue>, ReadError> {
    let query = RangeQuery {
        limit: 1,
        sort_order: SortOrder::Ascend,
        sort_target: SortTarget::Create,
        keys_only: true,
        max_create_revision: created_max,
        ..RangeQuery::new(keys_of(name))
    };
    Ok(view.range(&query)?.kvs.into_iter().next())
}

/// One key, with its value.
pub(crate) fn get(view: &View, key: &Bytes) -> Result<Option<KeyValue>, ReadError> {
    Ok(view.range(&RangeQuery::new(KeyRange::single(key.clone())))?.kvs.into_iter().next())
}

/// Where a candidate stands. Reads the whole queue only where it may be the first.
pub(crate) fn standing(view: &View, candidate: &Candidate) -> Result<Standing, ReadError> {
    let own = get(view, &candidate.key)?;
    if own.is_none_or(|own| own.create_revision != candidate.created) {
        return Ok(Standing::Gone);
    }
    let holder = view.holder(&candidate.name)?;
    if holder.as_ref().is_some_and(|holder| holder.token < candidate.created) {
        return Ok(Standing::Waits);
    }
    if older(view, candidate)?.is_some() {
        return Ok(Standing::Waits);
    }
    let holds = holder.is_some_and(|holder| holder.key == candidate.key && holder.token == candidate.created);
    Ok(if holds { Standing::Holds } else { Standing::Never })
}

/// What came of a try to put a key into its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entered {
    /// The key is written, and was created at this revision.
    At(Revision),
    /// Another call has written the key meanwhile, or it has gone: this is its mod revision now, 0 for none.
    Changed(Revision),
}

/// A key's mod revision as a view shows it, 0 for none.
pub(crate) fn modified(view: &View, key: &Bytes) -> Result<Revision, ReadError> {
    Ok(get(view, key)?.map_or(Revision(0), |kv| kv.mod_revision))
}

/// The transaction that puts a session's key into its queue, or writes it anew, if it is still as it was `seen`.
///
/// A call that was seen to begin before another one of its session began must not write after it: it would take the key for
/// its own, and take it out with its own end while the other one relies on it.
pub(crate) fn entry(key: &Bytes, seen: Revision, value: Bytes, lease: LeaseId) -> Txn {
    let put = Put {
        key: key.clone(),
        value: PutValue::Set(value),
        lease: PutLease::Set(lease),
        // It tells since when the session stands.
        prev_kv: true,
    };
    Txn {
        compares: vec![equal(key.clone(), CompareTarget::Mod(seen))],
        success: vec![Operation::Put(put)],
        failure: vec![Operation::Range(RangeQuery {
            keys_only: true,
            ..RangeQuery::new(KeyRange::single(key.clone()))
        })],
    }
}

/// What came of [`entry`], which was answered so at `written`.
pub(crate) fn entered(reply: TxnReply, written: Revision) -> Entered {
    match reply.replies.into_iter().next() {
        Some(Reply::Put(put)) => Entered::At(put.prev_kv.map_or(written, |before| before.create_revision)),
        Some(Reply::Range(range)) => {
            Entered::Changed(range.kvs.first().map_or(Revision(0), |kv| kv.mod_revision))
        }
        other => panic!("a branch is answered by its one operation, and this by {other:?}"),
    }
}

/// The transaction that takes a key out of its queue, if it stands as the call wrote it at `written` and `older` stands before
/// it: neither a key that a retry relies on, nor one that has come to hold the lock meanwhile.
pub(crate) fn removal(candidate: &Candidate, written: Revision, older: &KeyValue) -> Txn {
    let mut compares = vec![
        equal(candidate.key.clone(), CompareTarget::Mod(written)),
        equal(older.key.clone(), CompareTarget::Create(older.create_revision)),
    ];
    if Canary::WaiterRemovedUnseen.sings() {
        compares.clear();
    }
    Txn { compares, success: vec![deletion(candidate.key.clone())], failure: Vec::new() }
}

/// The compare that one key's field equals this.
pub(crate) fn equal(key: Bytes, target: CompareTarget) -> Compare {
    Compare { range: KeyRange::single(key), operator: CompareOperator::Equal, target }
}

/// The deletion of one key.
pub(crate) fn deletion(key: Bytes) -> Operation {
    Operation::DeleteRange(DeleteRange { range: KeyRange::single(key), prev_kv: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_written_as_etcds_clients_write_them() {
        let name = Bytes::from_static(b"jobs");
        for (lease, key) in [
            (0x694d_7f2a, "jobs/694d7f2a"),
            (1, "jobs/1"),
            (i64::MAX, "jobs/7fffffffffffffff"),
            (-0x1f, "jobs/-1f"),
            (i64::MIN, "jobs/-8000000000000000"),
        ] {
            assert_eq!(key_of(&name, LeaseId(lease)), key);
        }
        assert_eq!(key_of(&Bytes::new(), LeaseId(10)), "/a");
    }

    #[test]
    fn a_queue_is_all_that_lies_below_its_name() {
        let keys = keys_of(&Bytes::from_static(b"jobs"));
        for (key, within) in [("jobs/1", true), ("jobs/1/x", true), ("jobs", false), ("jobs0", false)] {
            assert_eq!(keys.contains(key.as_bytes()), within, "{key}");
        }
    }
}
