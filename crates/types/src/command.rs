//! Commands: what is replicated. A command carries everything that `apply` needs; `apply` adds neither clock nor
//! randomness.

use bytes::Bytes;

use crate::fence::{Fence, Guard, SessionStamp};
use crate::key::{KeyRange, LeaseId, Revision};
use crate::lease::{Grant, LeaseTime};
use crate::member::MemberChange;
use crate::position::NodeId;
use crate::query::RangeQuery;

/// What a leader proposes and every member applies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Store a value under a key.
    Put(Put),
    /// Delete a range of keys.
    DeleteRange(DeleteRange),
    /// Compare, then do one of two lists of operations.
    Txn(Txn),
    /// Forget the history below a revision.
    Compact {
        /// The oldest revision that can still be read.
        revision: Revision,
    },
    /// Write down a member's name and how clients reach it; each member proposes its own when it has started.
    PublishMember {
        /// The member.
        id: NodeId,
        /// Its name.
        name: String,
        /// Where peers reach it, as URLs; counts only where nothing is known of the member yet.
        peer_urls: Vec<String>,
        /// Where clients reach it, as URLs.
        client_urls: Vec<String>,
    },
    /// Change who shall belong to the cluster.
    ChangeMember(MemberChange),
    /// Raise an alarm, or clear it.
    ChangeAlarm {
        /// Which one.
        alarm: Alarm,
        /// Whether it is raised from now on.
        raised: bool,
    },
    /// A write that happens only under conditions, or once however often it is sent.
    Conditional(Conditional),
    /// Something about leases, with the leader's reading of the lease clock.
    Lease {
        /// What is to be done.
        command: LeaseCommand,
        /// The reading; put in by the leader when it proposes the command, 0 until then.
        clock: LeaseTime,
    },
    /// Set, change or remove a guard.
    ChangeGuard(GuardChange),
    /// Make a write of a session definite: its answer if it has one, else it can never be applied any more.
    Resolve {
        /// The session.
        session: Grant,
        /// The write's number in it.
        sequence: u64,
        /// The smallest number whose answer the client may still ask for, as the write itself carries it; 0 where it is not told.
        first_incomplete: u64,
    },
}

/// A write that happens only under conditions, or once however often it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conditional {
    /// What is written.
    pub write: Write,
    /// All of them must hold when the write is applied, whatever branch a transaction takes.
    pub fences: Vec<Fence>,
    /// The write's place in a session.
    pub session: Option<SessionStamp>,
}

/// A write of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Store a value under a key.
    Put(Put),
    /// Delete a range of keys.
    DeleteRange(DeleteRange),
    /// Compare, then do one of two lists of operations.
    Txn(Txn),
}

/// What is done about leases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseCommand {
    /// Grant a lease.
    Grant {
        /// Its number, not 0.
        lease: LeaseId,
        /// How long it lasts from its grant or a renewal on, in seconds.
        ttl_seconds: u64,
    },
    /// End a lease now, with all keys that hang on it.
    Revoke {
        /// Its number.
        lease: LeaseId,
    },
    /// Let leases begin anew.
    Renew {
        /// The grants; those that have ended stay ended.
        grants: Vec<Grant>,
    },
    /// End those leases whose deadlines the clock has reached.
    Expire {
        /// The grants that seem to be due.
        grants: Vec<Grant>,
    },
    /// Only carry the clock.
    Tick,
}

/// A change of the guards. Over a key range that is guarded already it needs a current fence of the scope of each guard that
/// it overlaps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardChange {
    /// The keys, and the scope that writes of them shall need; none to remove the guard on exactly these keys.
    pub range: KeyRange,
    /// The scope, or none to remove the guard.
    pub scope: Option<crate::fence::Scope>,
    /// Fences that the change carries.
    pub fences: Vec<Fence>,
    /// Whether an administrator does it without the fences that it needs.
    pub overrides: bool,
}

impl GuardChange {
    /// The guard that shall be there afterwards.
    #[must_use]
    pub fn guard(&self) -> Option<Guard> {
        let scope = self.scope.clone()?;
        Some(Guard { range: self.range.clone(), scope })
    }
}

/// Store a value under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Put {
    /// The key, never empty.
    pub key: Bytes,
    /// The new value.
    pub value: PutValue,
    /// The lease that the key shall hang on.
    pub lease: PutLease,
    /// Whether the answer holds what stood there before.
    pub prev_kv: bool,
}

/// The value of a put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PutValue {
    /// This one.
    Set(Bytes),
    /// The one that stands there (etcd's `ignore_value`); refused where the key does not exist.
    Keep,
}

/// The lease of a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutLease {
    /// This one; 0 for none.
    Set(LeaseId),
    /// The one that the key has (etcd's `ignore_lease`); refused where the key does not exist.
    Keep,
}

/// Delete a range of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteRange {
    /// The keys to delete.
    pub range: KeyRange,
    /// Whether the answer holds what was deleted.
    pub prev_kv: bool,
}

/// Compare, then do one of two lists of operations: all at one revision, or nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Txn {
    /// All must hold for `success`; no compare holds.
    pub compares: Vec<Compare>,
    /// Done in order if every compare holds.
    pub success: Vec<Operation>,
    /// Done in order otherwise.
    pub failure: Vec<Operation>,
}

/// One step of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Read a range; sees the transaction's own earlier writes.
    Range(RangeQuery),
    /// Store a value.
    Put(Put),
    /// Delete a range.
    DeleteRange(DeleteRange),
    /// A transaction within the transaction. Its compares see the state before the outermost one, as in etcd.
    Txn(Txn),
}

/// A condition that every key of a range must meet. Where the range holds no key at all it is judged on one absent
/// key: its revisions, version and lease are 0, and a compare of its value never holds. Both as in etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compare {
    /// The keys compared.
    pub range: KeyRange,
    /// The relation that must hold between the key's field and the operand.
    pub operator: CompareOperator,
    /// The field, with the operand.
    pub target: CompareTarget,
}

/// The relation of a compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompareOperator {
    /// The key's field equals the operand.
    Equal,
    /// The key's field is greater.
    Greater,
    /// The key's field is less.
    Less,
    /// The key's field differs.
    NotEqual,
}

/// The field that a compare looks at, with its operand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CompareTarget {
    /// Number of changes since creation.
    Version(i64),
    /// Revision of creation.
    Create(Revision),
    /// Revision of the last change.
    Mod(Revision),
    /// The value.
    Value(Bytes),
    /// The lease.
    Lease(LeaseId),
}

/// Something that is wrong with the cluster, for everybody to see until somebody clears it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Alarm {
    /// The member that it is about.
    pub member: NodeId,
    /// What is wrong.
    pub kind: AlarmKind,
}

/// What an alarm is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AlarmKind {
    /// The members have different states, and no majority agrees on one: writes are refused.
    Corrupt,
    /// The leader's state has reached its quota, or its disk is nearly full: what stores more is refused at its gate.
    NoSpace,
}

impl Txn {
    /// Whether the transaction can change nothing, whatever its compares say: it is then a read.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.success.iter().chain(&self.failure).all(|operation| matches!(operation, Operation::Range(_)))
    }
}
