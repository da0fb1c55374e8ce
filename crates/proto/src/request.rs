//! From clients' requests to the vocabulary: parsed once, at the door, with every check of form that etcd makes.
//! Keys and values share the memory of the message they came in.

use bytes::Bytes;
use ringfence_types::limits::{SCOPE_BYTES_MAX, TXN_DEPTH_MAX, TXN_OPERATIONS_MAX};
use ringfence_types::{
    Command, Compare, CompareOperator, CompareTarget, DeleteRange, Freshness, GuardChange, KeyRange, LeaseId,
    Operation, Put, PutLease, PutValue, RangeEnd, RangeQuery, Revision, Scope, SortOrder, SortTarget, Txn,
    Write,
};
use thiserror::Error;

use crate::etcdserverpb as etcd;
use crate::etcdserverpb::compare::TargetUnion;
use crate::etcdserverpb::request_op::Request;
use crate::extension::{self, ExtensionError, Extensions};
use crate::freshness::{self, FreshnessError};
use crate::overlap;
use crate::ringfence_v1 as v1;

/// Why a request is malformed. Nothing was done, and the same request can never succeed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ParseError {
    /// A key is empty.
    #[error("key is not provided")]
    KeyNotProvided,
    /// An operation of a transaction holds none of the four requests.
    #[error("an operation of the transaction is empty")]
    OperationNotProvided,
    /// A put with `ignore_value` brings a value.
    #[error("value is provided together with ignore_value")]
    ValueProvided,
    /// A put with `ignore_lease` brings a lease.
    #[error("lease is provided together with ignore_lease")]
    LeaseProvided,
    /// The order, or what it is by, is none that the API names.
    #[error("invalid sort option: order {order}, target {target}")]
    InvalidSortOption {
        /// The order's number.
        order: i32,
        /// The target's number.
        target: i32,
    },
    /// The relation of a compare, or its field, is none that the API names.
    #[error("invalid compare: result {result}, target {target}")]
    InvalidCompare {
        /// The relation's number.
        result: i32,
        /// The field's number.
        target: i32,
    },
    /// A list of a transaction is longer than what the transactions around it leave.
    #[error("too many operations: {count} in one list of the transaction, at most {max} here")]
    TooManyOperations {
        /// Length of the longest list.
        count: usize,
        /// The longest allowed at this depth.
        max: usize,
    },
    /// Transactions are nested too deep.
    #[error("transactions are nested too deep: at most {TXN_DEPTH_MAX} levels")]
    TooDeep,
    /// A transaction would put one key twice, or put and delete it.
    #[error("a key is changed by more than one operation of the transaction")]
    DuplicateKey,
    /// What the request carries beyond etcd's API makes no sense.
    #[error(transparent)]
    Extension(#[from] ExtensionError),
    /// It is not clear how fresh the answer must be.
    #[error(transparent)]
    Freshness(#[from] FreshnessError),
    /// A guard's range has a longer bound than any may have.
    #[error("a bound of the guard's range has {0} bytes, at most {SCOPE_BYTES_MAX} are accepted")]
    GuardTooLong(usize),
    /// A guard's range can hold no key.
    #[error("the range of the guard holds no key: it ends where it begins, or before")]
    EmptyGuard,
}

/// A transaction, by what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transaction {
    /// It can change nothing: it is answered from a state that is fresh enough.
    Read(Txn, Freshness),
    /// It may change something: it is replicated.
    Write(Command),
}

/// A question for a range, and how fresh its answer must be; `wishes` are what the metadata say of that.
pub fn range<'a>(
    mut request: etcd::RangeRequest,
    wishes: impl Iterator<Item = &'a [u8]>,
) -> Result<(RangeQuery, Freshness), ParseError> {
    let freshness = freshness::wanted(request.serializable, request.freshness.take(), wishes)?;
    Ok((query(request)?, freshness))
}

/// The command of a put.
pub fn put(mut request: etcd::PutRequest) -> Result<Command, ParseError> {
    let extensions = Extensions::take(&mut request);
    Ok(extensions.around(Write::Put(put_operation(request)?))?)
}

/// The command of a deletion.
pub fn delete_range(mut request: etcd::DeleteRangeRequest) -> Result<Command, ParseError> {
    let extensions = Extensions::take(&mut request);
    Ok(extensions.around(Write::DeleteRange(delete_operation(request)?))?)
}

/// A transaction. One that only reads may be answered from any state only if it has ranges and every one of them may, or says
/// itself how fresh the state must be; it carries neither fences nor a session, since there is no write that they could be
/// about.
pub fn txn(mut request: etcd::TxnRequest) -> Result<Transaction, ParseError> {
    let extensions = Extensions::take(&mut request);
    let field = request.freshness.take();
    let is_timed = field.is_some();
    let freshness = freshness::wanted(is_serializable(&request), field, std::iter::empty())?;
    let txn = txn_operation(request, TXN_OPERATIONS_MAX, 1)?;
    // Only after every list has been found short enough, so that no request can make this expensive.
    overlap::check(&txn)?;
    if !txn.is_read_only() {
        if is_timed {
            return Err(FreshnessError::OnWrite.into());
        }
        return Ok(Transaction::Write(extensions.around(Write::Txn(txn))?));
    }
    if extensions.is_empty() {
        Ok(Transaction::Read(txn, freshness))
    } else {
        Err(ExtensionError::OnRead.into())
    }
}

/// The command of a compaction.
#[must_use]
pub fn compaction(request: &etcd::CompactionRequest) -> Command {
    Command::Compact { revision: Revision(request.revision) }
}

/// A change of the guards.
pub fn guard_change(request: v1::ChangeGuardRequest) -> Result<Command, ParseError> {
    let longest = request.key.len().max(request.range_end.len());
    if longest > SCOPE_BYTES_MAX {
        return Err(ParseError::GuardTooLong(longest));
    }
    let range = key_range(request.key, request.range_end)?;
    if let RangeEnd::Before(end) = &range.end
        && *end <= range.start
    {
        return Err(ParseError::EmptyGuard);
    }
    Ok(Command::ChangeGuard(GuardChange {
        range,
        scope: request.scope.map(|scope| extension::scope(Some(scope))).transpose()?,
        fences: extension::fences(request.fences)?,
        overrides: request.r#override,
    }))
}

/// The scope that an inspection is about.
pub fn inspection(request: &v1::InspectRequest) -> Result<Scope, ParseError> {
    Ok(extension::scope(request.scope.clone())?)
}

/// The key whose versions are asked for, and the youngest revision of them.
///
/// # Errors
/// Where no key is given.
pub fn versions(request: v1::VersionsRequest) -> Result<(Bytes, Revision), ParseError> {
    Ok((key(request.key)?, Revision(request.revision)))
}

/// What makes a write of a session definite.
pub fn resolve(request: &v1::ResolveRequest) -> Result<Command, ParseError> {
    let session = extension::session(request.session.as_ref())?;
    let v1::ResolveRequest { sequence, first_incomplete, .. } = *request;
    extension::check_place(sequence, first_incomplete)?;
    Ok(Command::Resolve { session, sequence, first_incomplete })
}

/// Whether a transaction has ranges, and each of them may be answered from any state.
fn is_serializable(request: &etcd::TxnRequest) -> bool {
    let mut ranges = request.success.iter().chain(&request.failure).filter_map(|op| match &op.request {
        Some(Request::RequestRange(range)) => Some(range.serializable),
        _ => None,
    });
    ranges.next() == Some(true) && ranges.all(|serializable| serializable)
}

fn key(key: Bytes) -> Result<Bytes, ParseError> {
    if key.is_empty() { Err(ParseError::KeyNotProvided) } else { Ok(key) }
}

fn key_range(start: Bytes, range_end: Bytes) -> Result<KeyRange, ParseError> {
    Ok(KeyRange::from_etcd(key(start)?, range_end))
}

fn query(request: etcd::RangeRequest) -> Result<RangeQuery, ParseError> {
    use etcd::range_request as wire;
    let range = key_range(request.key, request.range_end)?;
    let invalid = ParseError::InvalidSortOption { order: request.sort_order, target: request.sort_target };
    let (Ok(order), Ok(target)) =
        (wire::SortOrder::try_from(request.sort_order), wire::SortTarget::try_from(request.sort_target))
    else {
        return Err(invalid);
    };
    let sort_target = match target {
        wire::SortTarget::Key => SortTarget::Key,
        wire::SortTarget::Version => SortTarget::Version,
        wire::SortTarget::Create => SortTarget::Create,
        wire::SortTarget::Mod => SortTarget::Mod,
        wire::SortTarget::Value => SortTarget::Value,
    };
    let sort_order = match order {
        // As in etcd: who names a target without an order wants that order all the same.
        wire::SortOrder::None if sort_target != SortTarget::Key => SortOrder::Ascend,
        wire::SortOrder::None => SortOrder::None,
        wire::SortOrder::Ascend => SortOrder::Ascend,
        wire::SortOrder::Descend => SortOrder::Descend,
    };
    Ok(RangeQuery {
        range,
        // As in etcd, a negative limit is none, and a negative revision is the newest.
        limit: u64::try_from(request.limit).unwrap_or(0),
        revision: (request.revision > 0).then_some(Revision(request.revision)),
        sort_order,
        sort_target,
        keys_only: request.keys_only,
        count_only: request.count_only,
        min_mod_revision: Revision(request.min_mod_revision),
        max_mod_revision: Revision(request.max_mod_revision),
        min_create_revision: Revision(request.min_create_revision),
        max_create_revision: Revision(request.max_create_revision),
    })
}

fn put_operation(request: etcd::PutRequest) -> Result<Put, ParseError> {
    let key = key(request.key)?;
    let value = match request.ignore_value {
        false => PutValue::Set(request.value),
        true if request.value.is_empty() => PutValue::Keep,
        true => return Err(ParseError::ValueProvided),
    };
    let lease = match request.ignore_lease {
        false => PutLease::Set(LeaseId(request.lease)),
        true if request.lease == 0 => PutLease::Keep,
        true => return Err(ParseError::LeaseProvided),
    };
    Ok(Put { key, value, lease, prev_kv: request.prev_kv })
}

fn delete_operation(request: etcd::DeleteRangeRequest) -> Result<DeleteRange, ParseError> {
    Ok(DeleteRange { range: key_range(request.key, request.range_end)?, prev_kv: request.prev_kv })
}

/// One transaction whose lists may hold `operations_max` members; what its longest list uses of them is lost to the
/// transactions nested in it, as in etcd.
fn txn_operation(request: etcd::TxnRequest, operations_max: usize, depth: usize) -> Result<Txn, ParseError> {
    if depth > TXN_DEPTH_MAX {
        return Err(ParseError::TooDeep);
    }
    let count = request.compare.len().max(request.success.len()).max(request.failure.len());
    if count > operations_max {
        return Err(ParseError::TooManyOperations { count, max: operations_max });
    }
    let operations = |list: Vec<etcd::RequestOp>| {
        list.into_iter().map(|op| operation(op, operations_max - count, depth)).collect::<Result<Vec<_>, _>>()
    };
    Ok(Txn {
        compares: request.compare.into_iter().map(compare).collect::<Result<_, _>>()?,
        success: operations(request.success)?,
        failure: operations(request.failure)?,
    })
}

fn operation(op: etcd::RequestOp, operations_max: usize, depth: usize) -> Result<Operation, ParseError> {
    Ok(match op.request.ok_or(ParseError::OperationNotProvided)? {
        Request::RequestRange(range) => Operation::Range(query(range)?),
        Request::RequestPut(mut put) => {
            Extensions::take(&mut put).refuse_nested()?;
            Operation::Put(put_operation(put)?)
        }
        Request::RequestDeleteRange(mut delete) => {
            Extensions::take(&mut delete).refuse_nested()?;
            Operation::DeleteRange(delete_operation(delete)?)
        }
        Request::RequestTxn(mut txn) => {
            Extensions::take(&mut txn).refuse_nested()?;
            if txn.freshness.is_some() {
                return Err(ExtensionError::Nested.into());
            }
            Operation::Txn(txn_operation(txn, operations_max, depth + 1)?)
        }
    })
}

fn compare(request: etcd::Compare) -> Result<Compare, ParseError> {
    use etcd::compare as wire;
    let range = key_range(request.key, request.range_end)?;
    let invalid = ParseError::InvalidCompare { result: request.result, target: request.target };
    let (Ok(result), Ok(target)) =
        (wire::CompareResult::try_from(request.result), wire::CompareTarget::try_from(request.target))
    else {
        return Err(invalid);
    };
    let operator = match result {
        wire::CompareResult::Equal => CompareOperator::Equal,
        wire::CompareResult::Greater => CompareOperator::Greater,
        wire::CompareResult::Less => CompareOperator::Less,
        wire::CompareResult::NotEqual => CompareOperator::NotEqual,
    };
    // As in etcd, the field named decides, and an operand of another field counts as zero or empty.
    let target = match (target, request.target_union) {
        (wire::CompareTarget::Version, Some(TargetUnion::Version(version))) => {
            CompareTarget::Version(version)
        }
        (wire::CompareTarget::Version, _) => CompareTarget::Version(0),
        (wire::CompareTarget::Create, Some(TargetUnion::CreateRevision(revision))) => {
            CompareTarget::Create(Revision(revision))
        }
        (wire::CompareTarget::Create, _) => CompareTarget::Create(Revision(0)),
        (wire::CompareTarget::Mod, Some(TargetUnion::ModRevision(revision))) => {
            CompareTarget::Mod(Revision(revision))
        }
        (wire::CompareTarget::Mod, _) => CompareTarget::Mod(Revision(0)),
        (wire::CompareTarget::Value, Some(TargetUnion::Value(value))) => CompareTarget::Value(value),
        (wire::CompareTarget::Value, _) => CompareTarget::Value(Bytes::new()),
        (wire::CompareTarget::Lease, Some(TargetUnion::Lease(lease))) => CompareTarget::Lease(LeaseId(lease)),
        (wire::CompareTarget::Lease, _) => CompareTarget::Lease(LeaseId(0)),
    };
    Ok(Compare { range, operator, target })
}
