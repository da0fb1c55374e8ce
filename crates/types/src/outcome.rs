//! Outcomes: the replicated answers to commands, refusals included, and the events that they cause.

use bytes::Bytes;
use thiserror::Error;

use crate::command::Alarm;
use crate::fence::Scope;
use crate::key::{KeyRange, KeyValue, LeaseId, Revision};
use crate::lease::{Grant, Lease};
use crate::member::Member;
use crate::position::{Index, NodeId};

/// What came of a command: the same on every member that applied it. A refusal is an answer too.
pub type Outcome = Result<Applied, Rejection>;

/// A command that was carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The store's revision after the command.
    pub revision: Revision,
    /// The entry that the command is in: what it changed is seen by whoever has applied that. 0 in an answer that a session keeps,
    /// and where the answer is not of one entry.
    pub index: Index,
    /// The answer's body.
    pub reply: Reply,
}

/// The body of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The entry carried no command (a new leader's first entry, a membership).
    Blank,
    /// Answer to a put.
    Put(PutReply),
    /// Answer to a deletion.
    DeleteRange(DeleteRangeReply),
    /// Answer to a range within a transaction.
    Range(RangeReply),
    /// Answer to a transaction.
    Txn(TxnReply),
    /// The compaction is in force; its physical part follows on each member by itself.
    Compact,
    /// The alarms that are raised now.
    Alarms(Vec<Alarm>),
    /// The member is written down.
    PublishMember,
    /// The member as it is wanted now.
    Member(Member),
    /// The lease that was granted.
    LeaseGranted(Lease),
    /// The lease has ended, and its keys with it.
    LeaseRevoked,
    /// Those of the leases that are in force, as they are now.
    LeasesRenewed(Vec<Lease>),
    /// The leases that have ended by this command.
    LeasesExpired(Vec<Grant>),
    /// The lease clock is carried on.
    LeaseClock,
    /// The guards are as wanted.
    GuardChanged,
    /// What a write of a session came to.
    Resolved(Resolution),
}

/// What a write of a session came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    /// It was never applied, and never will be.
    Closed,
    /// It was carried out or refused, with this answer.
    Answered(Box<Outcome>),
    /// It was carried out at this revision; its answer was too large to be kept.
    AppliedAt(Revision),
}

/// Answer to a put.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PutReply {
    /// What stood there before, if asked for and there was something.
    pub prev_kv: Option<KeyValue>,
}

/// Answer to a deletion.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeleteRangeReply {
    /// Number of keys deleted.
    pub deleted: u64,
    /// What was deleted, if asked for.
    pub prev_kvs: Vec<KeyValue>,
}

/// Answer to a range.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RangeReply {
    /// The keys, in the order asked for.
    pub kvs: Vec<KeyValue>,
    /// Whether the limit left some out.
    pub more: bool,
    /// Number of keys in the range, whatever the limit and the revision filters, as in etcd.
    pub count: u64,
}

/// Answer to a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TxnReply {
    /// Whether every compare held.
    pub succeeded: bool,
    /// The store's revision after each operation stands in the transaction's own answer; here are the bodies, in order.
    pub replies: Vec<Reply>,
}

/// A deterministic refusal: every member refuses the same command in the same way, and nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Rejection {
    /// The revision asked for is older than the history kept.
    #[error("required revision has been compacted: the oldest readable one is {oldest}")]
    Compacted {
        /// The oldest revision that can still be read.
        oldest: Revision,
    },
    /// The revision asked for does not exist yet.
    #[error("required revision is a future revision: the store stands at {current}")]
    FutureRevision {
        /// The store's revision.
        current: Revision,
    },
    /// `ignore_value` or `ignore_lease` on a key that does not exist.
    #[error("key not found: there is no value or lease to keep")]
    KeyNotFound,
    /// The put names a lease that does not exist.
    #[error("requested lease not found")]
    LeaseNotFound,
    /// There is no such member.
    #[error("member {0} is not known")]
    MemberNotFound(NodeId),
    /// The member has been removed, and its number is never used again.
    #[error(
        "member {0} was removed from the cluster; it can come back on an empty data directory alone, as a new member"
    )]
    MemberRemoved(NodeId),
    /// Another member has one of the addresses, or the name, with another disk.
    #[error(
        "{what} is that of member {member} already; if its disk was lost or emptied, `ringfence member rejoin` brings it back"
    )]
    MemberTaken {
        /// The address or the name.
        what: String,
        /// Whose it is.
        member: NodeId,
    },
    /// The cluster has as many members as it can.
    #[error("the cluster has {0} members already, as many as it can")]
    TooManyMembers(usize),
    /// The alarm CORRUPT is raised: the members have different states.
    #[error("the members have different states, and nobody can say which is right: writes are refused")]
    CorruptCluster,
    /// The lease's number is in use.
    #[error("lease already exists")]
    LeaseExists,
    /// As many keys as may hang on one lease do.
    #[error("{0} keys hang on the lease, as many as may")]
    LeaseFull(u32),
    /// A fence of the write does not hold.
    #[error(
        "stale fence: the write carries token {presented} of {scope}, {}",
        in_force.map_or("which nobody holds".to_owned(), |token| format!("and token {token} is in force"))
    )]
    StaleFence {
        /// What the fence is about.
        scope: Scope,
        /// The token that the write carries.
        presented: Revision,
        /// The token in force; none where nobody holds the scope.
        in_force: Option<Revision>,
    },
    /// A write of guarded keys carries no current fence of the guard's scope.
    #[error("the keys {} are guarded: a write of them needs a fence of {scope}", range.start.escape_ascii())]
    GuardedRange {
        /// The guarded keys.
        range: KeyRange,
        /// The scope whose fence they want.
        scope: Scope,
    },
    /// There is no guard on exactly these keys.
    #[error("there is no guard on exactly these keys")]
    GuardNotFound,
    /// The guard would cover keys that decide who holds a guard's scope: nobody could take it any more.
    #[error("a guard must not cover the keys that decide who holds {scope}")]
    GuardOverItsLock {
        /// The scope that would be covered.
        scope: Scope,
    },
    /// There are as many guards as may be.
    #[error("there are {0} guards, as many as may be")]
    TooManyGuards(usize),
    /// The session's lease has ended, or was never granted so.
    #[error("the session has ended")]
    SessionEnded,
    /// The write's number is below the smallest one that is open in its session, or was closed.
    #[error("sequence {0} of the session is closed: this attempt is not applied")]
    SequenceClosed(u64),
    /// The write's number is too far above the smallest one that is open in its session.
    #[error("sequence {sequence} of the session is above its window: {max} may be open")]
    SequenceAboveWindow {
        /// The number.
        sequence: u64,
        /// How many may be open.
        max: u64,
    },
    /// The number was used for another write.
    #[error("sequence {0} of the session was used for another request")]
    SequenceReused(u64),
    /// The write was carried out before, and its answer was too large to be kept.
    #[error("the write was applied before, at revision {0}; its answer was too large to be kept")]
    AnswerNotKept(Revision),
    /// The answer would be larger than an answer may be; nothing has changed.
    #[error(
        "the answer would have more than {max} bytes: ask for fewer keys (limit, keys_only), or use RangeStream"
    )]
    AnswerTooLarge {
        /// The bound in bytes.
        max: u64,
    },
    /// The command is of a kind that this build does not know. Cannot happen while the cluster version gates new kinds.
    #[error("unknown command: {0}")]
    UnknownCommand(String),
}

/// A change of one key, as watchers will see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The key after the change; of a deleted key only `key` and `mod_revision` are set.
    pub kv: KeyValue,
}

/// What happened to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// It was put.
    Put,
    /// It was deleted.
    Delete,
}

impl Event {
    /// The event of a deletion at `revision`.
    #[must_use]
    pub fn deletion(key: Bytes, revision: Revision) -> Event {
        let kv = KeyValue {
            key,
            create_revision: Revision(0),
            mod_revision: revision,
            version: 0,
            value: Bytes::new(),
            lease: LeaseId(0),
        };
        Event { kind: EventKind::Delete, kv }
    }
}
