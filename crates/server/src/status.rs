//! From everything that can go wrong to what the client is told: the one place that does it.
//!
//! A gRPC code is a promise about side effects, and so is `attempt_applied` in the detail that every status carries:
//!
//! | fact | gRPC code | this attempt applied |
//! |---|---|---|
//! | malformed, too large, unknown or contradictory option | `INVALID_ARGUMENT` | no |
//! | compacted or future revision | `OUT_OF_RANGE` | no |
//! | a limit or overload | `RESOURCE_EXHAUSTED` | no |
//! | an ended session, a key that can never hold its lock, a causal token of another cluster | `FAILED_PRECONDITION` | no |
//! | nobody leads an election, or not who says so | `UNKNOWN`, as in etcd | no |
//! | no leader, no leader lease, read-only minority, starting, state quarantine | `UNAVAILABLE` | no |
//! | the members have different states (alarm CORRUPT) | `DATA_LOSS` | no |
//! | the deadline of a wait for a lock, a stop of the server during one | `DEADLINE_EXCEEDED`, `UNAVAILABLE` | **unknown** |
//! | leadership lost, forward broken, deadline after proposing, node stopped | `UNAVAILABLE` | **unknown** |
//!
//! Where etcd has a fixed code and message for a fact, that pair is used, and the plain words are in the detail.

use bytes::Bytes;
use prost::Message;
use ringfence_consensus::{BarrierError, Failure, MemberError, ProposeError, ReadOnly, TransferError};
use ringfence_proto::ERROR_DETAIL_KEY;
use ringfence_proto::codec::REFUSAL_PREFIX;
use ringfence_proto::extension::{ExtensionError, scope_message};
use ringfence_proto::request::ParseError;
use ringfence_proto::ringfence_v1::error_detail::AttemptApplied;
use ringfence_proto::ringfence_v1::{ErrorDetail, StaleFence};
use ringfence_store::ReadError;
use ringfence_types::Rejection;
use ringfence_types::limits::LEASE_TTL_SECONDS_MAX;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use crate::auth::AuthTrouble;
use crate::etcd_errors::{self as etcd, Fixed};

/// The reason of a refusal because more is under way than may be: the same may go well a little later.
const OVERLOADED: &str = "overloaded";
/// When to try again what was refused for overload, in milliseconds: by then much of what was under way has ended.
const RETRY_AFTER_MS: u32 = 100;
/// The metadata in which gRPC's clients read that.
const RETRY_PUSHBACK_KEY: &str = "grpc-retry-pushback-ms";

/// Why a call is not answered with a response.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The request is malformed.
    Parse(ParseError),
    /// The request carries something that this version would overlook, in these words.
    Overlooked(String),
    /// The request's text is no message, for this reason.
    Malformed(String),
    /// The request is larger than any may be.
    TooLarge {
        /// Its size in bytes.
        size: usize,
        /// The bound in bytes.
        max: usize,
    },
    /// The client asked to be refused where no leader is known.
    LeaderRequired,
    /// A fence of the write does not hold and never will again: what every later apply would say.
    StaleAtGate(Rejection),
    /// The write has no outcome.
    Propose(ProposeError),
    /// The write, or the question, was refused.
    Rejected(Rejection),
    /// The read could not be made as fresh as asked for.
    Barrier(BarrierError),
    /// The state could not be read.
    Read(ReadError),
    /// Leadership was not handed over.
    Transfer(TransferError),
    /// The members were not changed, or not yet.
    Member(MemberError),
    /// A copy of the state could not be made.
    Snapshot(Failure),
    /// The state file could not be rebuilt.
    Rebuild(Failure),
    /// The state could not be scrubbed.
    Scrub(Failure),
    /// A file could not be read while it was being sent.
    SnapshotFile(std::io::Error),
    /// A lease was to last longer than any may.
    LeaseTtl {
        /// How long, in seconds.
        seconds: u64,
    },
    /// More is under way than may be, in these words.
    Overloaded(String),
    /// Too many calls of an expensive kind are under way.
    Busy(&'static str),
    /// A downgrade was asked for, to what is no version.
    DowngradeFormat,
    /// A downgrade was asked for, and there is no version that this one could go back to.
    DowngradeTarget,
    /// A downgrade was to be cancelled, and none is under way.
    NoDowngrade,
    /// A lock or an election is not had.
    Lock(LockTrouble),
    /// The call is about users or roles, of which there are none.
    Auth(AuthTrouble),
    /// History is compacted, but the file of this member has not been freed of it before the deadline.
    Unswept,
    /// A stream without an end of its own ends, since the server stops.
    Stopping,
    /// The call is part of the API, but this version does not serve it.
    Unsupported(&'static str),
}

/// Why a lock or an election is not had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LockTrouble {
    /// The session's lease ended, or its key was deleted, while the call waited for a lock.
    SessionExpired,
    /// The session's key exists and can never hold the lock.
    NotACandidate,
    /// The lock was not had before the deadline.
    Deadline,
    /// The queue could not be read after the call's key had been put into it.
    Unsettled,
    /// Nobody leads the election.
    NoLeader,
    /// Whoever says that it leads the election does not, or no longer.
    NotLeader,
    /// A call about a leader of an election names none.
    LeaderMissing,
    /// The server stops; the call could have waited for ever.
    Stopping,
}

/// Who refuses a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Judge {
    /// The checks of form: what is asked for makes no sense.
    Form,
    /// The gate before consensus.
    Gate,
    /// Consensus: there is no leader, no leader lease, no time or no room.
    Consensus,
    /// The replicated state, when the command is applied or the question read.
    State,
}

/// What the client is told.
struct Told {
    code: Code,
    message: std::borrow::Cow<'static, str>,
    reason: &'static str,
    applied: AttemptApplied,
    words: String,
}

impl Trouble {
    /// Whether the leader's address helps: another member may serve what this one did not.
    pub(crate) fn is_elsewhere(&self) -> bool {
        let told = self.told();
        told.code == Code::Unavailable || told.reason == "not_leader"
    }

    /// The status with its detail.
    pub(crate) fn status(&self, leader_client_urls: Vec<String>) -> Status {
        let Told { code, message, reason, applied, words } = self.told();
        let detail = ErrorDetail {
            reason: reason.to_owned(),
            attempt_applied: applied.into(),
            leader_client_urls,
            message: words,
            stale_fence: self.stale_fence(),
            retry_after_ms: if reason == OVERLOADED { RETRY_AFTER_MS } else { 0 },
        };
        let mut status = Status::new(code, message);
        if reason == OVERLOADED {
            // What gRPC's own clients go by, where they are told to try again at all.
            status.metadata_mut().insert(RETRY_PUSHBACK_KEY, MetadataValue::from(RETRY_AFTER_MS));
        }
        let value = MetadataValue::from_bytes(&Bytes::from(detail.encode_to_vec()));
        status.metadata_mut().insert_bin(ERROR_DETAIL_KEY, value);
        status
    }

    /// Who refused, and the reason as a word; none where nobody did, or not before or by what happens to writes.
    pub(crate) fn refusal(&self) -> Option<(Judge, &'static str)> {
        let judge = match self {
            Trouble::Parse(_)
            | Trouble::Overlooked(_)
            | Trouble::Malformed(_)
            | Trouble::TooLarge { .. }
            | Trouble::Auth(_)
            | Trouble::LeaseTtl { .. } => Judge::Form,
            Trouble::LeaderRequired
            | Trouble::StaleAtGate(_)
            | Trouble::Overloaded(_)
            | Trouble::Busy(_)
            | Trouble::Barrier(BarrierError::OtherCluster { .. }) => Judge::Gate,
            Trouble::Rejected(_)
            | Trouble::Lock(_)
            | Trouble::Read(ReadError::Rejected(_))
            | Trouble::Barrier(BarrierError::Rejected(_))
            | Trouble::Member(MemberError::Rejected(_)) => Judge::State,
            Trouble::Propose(_) | Trouble::Barrier(_) | Trouble::Member(_) | Trouble::Transfer(_) => {
                Judge::Consensus
            }
            Trouble::Read(ReadError::Store(_))
            | Trouble::Snapshot(_)
            | Trouble::Rebuild(_)
            | Trouble::Scrub(_)
            | Trouble::SnapshotFile(_)
            | Trouble::DowngradeFormat
            | Trouble::DowngradeTarget
            | Trouble::NoDowngrade
            | Trouble::Unswept
            | Trouble::Stopping
            | Trouble::Unsupported(_) => return None,
        };
        let Told { applied, reason, .. } = self.told();
        (applied != AttemptApplied::Unknown).then_some((judge, reason))
    }

    fn stale_fence(&self) -> Option<StaleFence> {
        match self {
            Trouble::Rejected(Rejection::StaleFence { scope, presented, in_force })
            | Trouble::StaleAtGate(Rejection::StaleFence { scope, presented, in_force }) => {
                Some(StaleFence {
                    scope: Some(scope_message(scope)),
                    presented: presented.0,
                    in_force: in_force.map_or(0, |token| token.0),
                })
            }
            _ => None,
        }
    }

    fn told(&self) -> Told {
        match self {
            Trouble::Parse(error) => parse(error),
            Trouble::Overlooked(words) => invalid("invalid_extension", words),
            Trouble::Malformed(words) => invalid("malformed_json", words),
            Trouble::TooLarge { size, max } => too_large(*size, *max),
            Trouble::LeaderRequired => refused(
                etcd::NO_LEADER,
                "no_leader",
                "this member knows no leader, and the call requires one",
            ),
            Trouble::Propose(error) => propose(error),
            Trouble::Rejected(rejection) | Trouble::StaleAtGate(rejection) => rejected(rejection),
            Trouble::Barrier(error) => barrier(error),
            Trouble::Read(ReadError::Rejected(rejection)) => rejected(rejection),
            Trouble::Read(ReadError::Store(error)) => refused(etcd::UNHEALTHY, "state_unreadable", error),
            Trouble::Transfer(error) => transfer(error),
            Trouble::Member(error) => member(error),
            Trouble::Rebuild(failure) => refused(etcd::UNHEALTHY, "rebuild_failed", failure),
            Trouble::Snapshot(failure) => refused(etcd::UNHEALTHY, "snapshot_failed", failure),
            Trouble::Scrub(failure) => refused(etcd::UNHEALTHY, "scrub_failed", failure),
            Trouble::SnapshotFile(error) => {
                refused(etcd::UNHEALTHY, "snapshot_failed", format!("the copy cannot be read back: {error}"))
            }
            Trouble::LeaseTtl { seconds } => refused(
                etcd::LEASE_TTL_TOO_LARGE,
                "lease_ttl",
                format!("a lease lasts at most {LEASE_TTL_SECONDS_MAX} s, and {seconds} s were asked for"),
            ),
            Trouble::Busy(what) => refused(etcd::TOO_MANY_REQUESTS, OVERLOADED, what),
            Trouble::Overloaded(what) => refused(etcd::TOO_MANY_REQUESTS, OVERLOADED, what),
            Trouble::Auth(trouble) => {
                let (fixed, reason, words) = trouble.told();
                refused(fixed, reason, words)
            }
            Trouble::Unswept => Told {
                applied: AttemptApplied::Yes,
                ..refused(
                    etcd::TIMEOUT,
                    "compaction_under_way",
                    "history is compacted, and this member goes on freeing its file of it",
                )
            },
            Trouble::DowngradeFormat => refused(
                etcd::WRONG_DOWNGRADE_FORMAT,
                "downgrade_format",
                "a version is written as two or three numbers with dots between them",
            ),
            Trouble::DowngradeTarget => refused(
                etcd::INVALID_DOWNGRADE_TARGET,
                "downgrade_target",
                "there is no older version that this cluster could go back to",
            ),
            Trouble::NoDowngrade => refused(etcd::NO_DOWNGRADE, "no_downgrade", "no downgrade is under way"),
            Trouble::Lock(trouble) => lock(trouble),
            Trouble::Stopping => {
                refused(etcd::STOPPED, "stopping", "this member is stopping; any other one can go on")
            }
            Trouble::Unsupported(what) => Told {
                code: Code::Unimplemented,
                message: format!("ringfence: {what}").into(),
                reason: "unsupported",
                applied: AttemptApplied::No,
                words: (*what).to_owned(),
            },
        }
    }
}

/// A definite refusal: the attempt changed nothing and never will.
fn refused(fixed: Fixed, reason: &'static str, words: impl ToString) -> Told {
    let words = words.to_string();
    Told { code: fixed.0, message: fixed.1.into(), reason, applied: AttemptApplied::No, words }
}

/// An end that leaves it open whether the attempt changed something.
fn unknown(fixed: Fixed, reason: &'static str, words: impl ToString) -> Told {
    Told { applied: AttemptApplied::Unknown, ..refused(fixed, reason, words) }
}

/// What locks and elections come to. etcd makes these errors in its client's library, which its server uses, so that they have
/// words and no code: they arrive as `UNKNOWN`. The words are kept, since clients know them by these. The code is kept where
/// the words come from an election, whose clients in other languages look at both; an ended session has the code of one.
fn lock(trouble: &LockTrouble) -> Told {
    let told = |code, message: &'static str, reason, words: &str| Told {
        code,
        message: message.into(),
        reason,
        applied: AttemptApplied::No,
        words: words.to_owned(),
    };
    match trouble {
        LockTrouble::SessionExpired => told(
            Code::FailedPrecondition,
            "mutex: session is expired",
            "session_expired",
            "the session's key is gone: its lease has ended, or somebody deleted the key",
        ),
        LockTrouble::NotACandidate => told(
            Code::FailedPrecondition,
            "ringfence: the session's key can never hold the lock",
            "not_a_candidate",
            "the session's key was not created as a lock's key alone by a put with a lease: delete it and try again",
        ),
        LockTrouble::NoLeader => {
            told(Code::Unknown, "election: no leader", "election_no_leader", "nobody leads this election")
        }
        LockTrouble::NotLeader => told(
            Code::Unknown,
            "election: not leader",
            "election_not_leader",
            "the leader's key is gone, or belongs to a later candidacy",
        ),
        LockTrouble::LeaderMissing => told(
            Code::InvalidArgument,
            "\"leader\" field must be provided",
            "leader_missing",
            "the call is about a leader and names none",
        ),
        LockTrouble::Deadline => unknown(
            etcd::DEADLINE_EXCEEDED,
            "deadline",
            "the lock was not had before the deadline; this call's place in the queue is given up",
        ),
        LockTrouble::Unsettled => unknown(
            etcd::TIMEOUT,
            "lock_unsettled",
            "the state could not be read after the session's key had been put into the queue; ask again with the same lease",
        ),
        LockTrouble::Stopping => unknown(
            etcd::STOPPED,
            "stopping",
            "this member is stopping; the call keeps its place in the queue",
        ),
    }
}

fn parse(error: &ParseError) -> Told {
    match error {
        ParseError::KeyNotProvided => refused(etcd::EMPTY_KEY, "key_not_provided", error),
        // etcd answers an operation without content like this.
        ParseError::OperationNotProvided => refused(etcd::KEY_NOT_FOUND, "operation_not_provided", error),
        ParseError::ValueProvided => refused(etcd::VALUE_PROVIDED, "value_provided", error),
        ParseError::LeaseProvided => refused(etcd::LEASE_PROVIDED, "lease_provided", error),
        ParseError::InvalidSortOption { .. } => {
            refused(etcd::INVALID_SORT_OPTION, "invalid_sort_option", error)
        }
        ParseError::InvalidCompare { .. } => invalid("invalid_compare", error),
        ParseError::Freshness(_) => invalid("invalid_freshness", error),
        ParseError::Extension(_) => invalid("invalid_extension", error),
        ParseError::GuardTooLong(_) | ParseError::EmptyGuard => invalid("invalid_guard", error),
        ParseError::TooManyOperations { .. } | ParseError::TooDeep => {
            refused(etcd::TOO_MANY_OPERATIONS, "too_many_operations", error)
        }
        ParseError::DuplicateKey => refused(etcd::DUPLICATE_KEY, "duplicate_key", error),
    }
}

fn too_large(size: usize, max: usize) -> Told {
    let words = format!("the request has {size} bytes; at most {max} are accepted");
    refused(etcd::REQUEST_TOO_LARGE, "request_too_large", words)
}

fn rejected(rejection: &Rejection) -> Told {
    match rejection {
        Rejection::Compacted { .. } => refused(etcd::COMPACTED, "compacted", rejection),
        Rejection::FutureRevision { .. } => refused(etcd::FUTURE_REVISION, "future_revision", rejection),
        Rejection::KeyNotFound => refused(etcd::KEY_NOT_FOUND, "key_not_found", rejection),
        Rejection::LeaseNotFound => refused(etcd::LEASE_NOT_FOUND, "lease_not_found", rejection),
        Rejection::MemberNotFound(_) => refused(etcd::MEMBER_NOT_FOUND, "member_not_found", rejection),
        // As etcd does: whoever is gone is not there.
        Rejection::MemberRemoved(_) => refused(etcd::MEMBER_NOT_FOUND, "member_removed", rejection),
        Rejection::MemberTaken { .. } => refused(etcd::PEER_URL_EXISTS, "member_taken", rejection),
        Rejection::TooManyMembers(_) => refused(etcd::TOO_MANY_LEARNERS, "too_many_members", rejection),
        Rejection::CorruptCluster => refused(etcd::CORRUPT, "corrupt_cluster", rejection),
        Rejection::LeaseExists => refused(etcd::LEASE_EXISTS, "lease_exists", rejection),
        Rejection::LeaseFull(_) => ours(Code::ResourceExhausted, "lease_full", rejection),
        Rejection::StaleFence { .. } => ours(Code::FailedPrecondition, "stale_fence", rejection),
        Rejection::GuardedRange { .. } => ours(Code::FailedPrecondition, "guarded_range", rejection),
        Rejection::GuardNotFound => ours(Code::FailedPrecondition, "guard_not_found", rejection),
        Rejection::GuardOverItsLock { .. } => ours(Code::InvalidArgument, "guard_over_its_lock", rejection),
        Rejection::TooManyGuards(_) => ours(Code::ResourceExhausted, "too_many_guards", rejection),
        Rejection::SessionEnded => ours(Code::FailedPrecondition, "session_ended", rejection),
        Rejection::SequenceClosed(_) => ours(Code::FailedPrecondition, "sequence_closed", rejection),
        Rejection::SequenceAboveWindow { .. } => {
            ours(Code::FailedPrecondition, "sequence_above_window", rejection)
        }
        Rejection::SequenceReused(_) => ours(Code::InvalidArgument, "sequence_reused", rejection),
        Rejection::AnswerNotKept(_) => Told {
            applied: AttemptApplied::Yes,
            ..ours(Code::FailedPrecondition, "answer_not_kept", rejection)
        },
        Rejection::AnswerTooLarge { .. } => ours(Code::ResourceExhausted, "answer_too_large", rejection),
        Rejection::UnknownCommand(_) => refused(etcd::NOT_CAPABLE, "unknown_command", rejection),
    }
}

/// The reason of a rejection as a word.
pub(crate) fn reason(rejection: &Rejection) -> &'static str {
    rejected(rejection).reason
}

/// A request that makes no sense, in a way for which etcd has no words.
fn invalid(reason: &'static str, words: impl ToString) -> Told {
    let words = words.to_string();
    let message = format!("{REFUSAL_PREFIX}{words}").into();
    Told { code: Code::InvalidArgument, message, reason, applied: AttemptApplied::No, words }
}

/// A refusal for which etcd has no words.
fn ours(code: Code, reason: &'static str, words: impl ToString) -> Told {
    let words = words.to_string();
    Told { code, message: format!("ringfence: {words}").into(), reason, applied: AttemptApplied::No, words }
}

fn propose(error: &ProposeError) -> Told {
    let told = match error {
        ProposeError::NoLeader { read_only } => no_leader(read_only.as_ref()),
        ProposeError::NoLease(read_only) => no_leader(Some(read_only)),
        ProposeError::NotReady(why) => refused(etcd::NO_LEADER, "not_ready", why),
        ProposeError::Overloaded(_) => refused(etcd::TOO_MANY_REQUESTS, OVERLOADED, error),
        ProposeError::NoSpace(why) => refused(etcd::NO_SPACE, "no_space", why),
        ProposeError::TooLarge { size, max } => too_large(*size, *max),
        ProposeError::DeadlineBefore => refused(etcd::TIMEOUT, "deadline_before_proposing", error),
        ProposeError::DeadlineAfter => unknown(etcd::TIMEOUT, "deadline_after_proposing", error),
        ProposeError::LeadershipLost => unknown(etcd::TIMEOUT_LEADER_FAILED, "leadership_lost", error),
        ProposeError::ForwardBroken => unknown(etcd::TIMEOUT_CONNECTION_LOST, "forward_broken", error),
        ProposeError::Stopped(_) => unknown(etcd::STOPPED, "node_stopped", error),
    };
    assert_eq!(
        told.applied == AttemptApplied::No,
        error.is_definite(),
        "what the client is told of a write's side effects is what consensus knows of them: {error:?}"
    );
    told
}

/// A read changes nothing, so whatever ended it, the attempt is not applied.
fn barrier(error: &BarrierError) -> Told {
    match error {
        BarrierError::NoLeader { read_only } => no_leader(read_only.as_ref()),
        BarrierError::NoQuorum(read_only) => no_leader(Some(read_only)),
        BarrierError::NotReady(why) => refused(etcd::NO_LEADER, "not_ready", why),
        BarrierError::StateQuarantine(why) => refused(etcd::UNHEALTHY, "state_quarantine", why),
        BarrierError::Overloaded(_) => refused(etcd::TOO_MANY_REQUESTS, OVERLOADED, error),
        BarrierError::Deadline => refused(etcd::TIMEOUT, "deadline", error),
        BarrierError::Behind(_) => refused(etcd::TIMEOUT, "behind", error),
        BarrierError::OtherCluster { .. } => ours(Code::FailedPrecondition, "other_cluster", error),
        BarrierError::Rejected(rejection) => rejected(rejection),
    }
}

fn no_leader(read_only: Option<&ReadOnly>) -> Told {
    match read_only {
        Some(read_only) => refused(
            etcd::NO_LEADER,
            "read_only",
            format!(
                "this member is {read_only}; serializable reads still work, and writes will again once a majority is \
                 reachable"
            ),
        ),
        None => refused(
            etcd::NO_LEADER,
            "no_leader",
            "this member knows no leader at the moment; an election may be under way",
        ),
    }
}

fn transfer(error: &TransferError) -> Told {
    match error {
        TransferError::NotLeader => refused(etcd::NOT_LEADER, "not_leader", error),
        TransferError::BadTarget(_) => refused(etcd::BAD_TRANSFEREE, "bad_transferee", error),
        TransferError::NotReady { .. } => refused(etcd::BAD_TRANSFEREE, "transferee_not_ready", error),
        TransferError::Timeout(_) => unknown(etcd::TIMEOUT, "transfer_timeout", error),
    }
}

fn member(error: &MemberError) -> Told {
    match error {
        MemberError::Invalid(_) => refused(etcd::MEMBER_BAD_URLS, "member_urls", error),
        MemberError::NotEnoughHealthy(_) => {
            refused(etcd::MEMBER_NOT_ENOUGH_STARTED, "not_enough_healthy_voters", error)
        }
        MemberError::NotInSync { .. } => refused(etcd::LEARNER_NOT_READY, "learner_not_in_sync", error),
        MemberError::NotLearner(_) => refused(etcd::MEMBER_NOT_LEARNER, "not_a_learner", error),
        MemberError::Rejected(rejection) => rejected(rejection),
        MemberError::Propose(error) => propose(error),
        MemberError::Unfinished(_) => {
            Told { applied: AttemptApplied::Yes, ..unknown(etcd::TIMEOUT, "member_change_under_way", error) }
        }
    }
}

macro_rules! trouble_from {
    ($($error:ty => $variant:ident),* $(,)?) => {
        $(impl From<$error> for Trouble {
            fn from(error: $error) -> Trouble {
                Trouble::$variant(error)
            }
        })*
    };
}

impl From<ExtensionError> for Trouble {
    fn from(error: ExtensionError) -> Trouble {
        Trouble::Parse(error.into())
    }
}

trouble_from! {
    ParseError => Parse,
    ProposeError => Propose,
    Rejection => Rejected,
    BarrierError => Barrier,
    ReadError => Read,
    TransferError => Transfer,
    MemberError => Member,
    LockTrouble => Lock,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ringfence_types::{CausalToken, NodeId, Revision};

    use super::*;

    fn token() -> CausalToken {
        CausalToken::new(7, 8, 9).expect("the revision is above 0")
    }

    fn read_only() -> ReadOnly {
        ReadOnly { since: Duration::from_secs(3), reason: "only 1 of 3 voters answers".to_owned() }
    }

    fn detail(status: &Status) -> ErrorDetail {
        let value = status.metadata().get_bin(ERROR_DETAIL_KEY).expect("every status carries a detail");
        ErrorDetail::decode(value.to_bytes().unwrap()).unwrap()
    }

    #[test]
    fn each_fact_has_its_code_message_and_promise() {
        use AttemptApplied::{No, Unknown};
        let table: Vec<(Trouble, Fixed, AttemptApplied)> = vec![
            (ParseError::KeyNotProvided.into(), etcd::EMPTY_KEY, No),
            (ParseError::OperationNotProvided.into(), etcd::KEY_NOT_FOUND, No),
            (ParseError::ValueProvided.into(), etcd::VALUE_PROVIDED, No),
            (ParseError::LeaseProvided.into(), etcd::LEASE_PROVIDED, No),
            (ParseError::InvalidSortOption { order: 9, target: 0 }.into(), etcd::INVALID_SORT_OPTION, No),
            (ParseError::TooManyOperations { count: 9, max: 8 }.into(), etcd::TOO_MANY_OPERATIONS, No),
            (ParseError::TooDeep.into(), etcd::TOO_MANY_OPERATIONS, No),
            (ParseError::DuplicateKey.into(), etcd::DUPLICATE_KEY, No),
            (Trouble::TooLarge { size: 2, max: 1 }, etcd::REQUEST_TOO_LARGE, No),
            (Trouble::LeaderRequired, etcd::NO_LEADER, No),
            (Rejection::Compacted { oldest: Revision(4) }.into(), etcd::COMPACTED, No),
            (Rejection::FutureRevision { current: Revision(4) }.into(), etcd::FUTURE_REVISION, No),
            (Rejection::KeyNotFound.into(), etcd::KEY_NOT_FOUND, No),
            (Rejection::LeaseNotFound.into(), etcd::LEASE_NOT_FOUND, No),
            (Rejection::CorruptCluster.into(), etcd::CORRUPT, No),
            (Rejection::UnknownCommand("x".to_owned()).into(), etcd::NOT_CAPABLE, No),
            (ProposeError::NoLeader { read_only: None }.into(), etcd::NO_LEADER, No),
            (ProposeError::NoLease(read_only()).into(), etcd::NO_LEADER, No),
            (ProposeError::NotReady("starting".to_owned()).into(), etcd::NO_LEADER, No),
            (ProposeError::Overloaded("8192 wait".to_owned()).into(), etcd::TOO_MANY_REQUESTS, No),
            (ProposeError::NoSpace("it is full".to_owned()).into(), etcd::NO_SPACE, No),
            (Trouble::Overloaded("5 of 5".to_owned()), etcd::TOO_MANY_REQUESTS, No),
            (Trouble::Unswept, etcd::TIMEOUT, AttemptApplied::Yes),
            (Trouble::Auth(AuthTrouble::NotEnabled), etcd::AUTH_NOT_ENABLED, No),
            (Trouble::Auth(AuthTrouble::RootUserNotFound), etcd::ROOT_USER_NOT_FOUND, No),
            (ProposeError::TooLarge { size: 2, max: 1 }.into(), etcd::REQUEST_TOO_LARGE, No),
            (ProposeError::DeadlineBefore.into(), etcd::TIMEOUT, No),
            (ProposeError::DeadlineAfter.into(), etcd::TIMEOUT, Unknown),
            (ProposeError::LeadershipLost.into(), etcd::TIMEOUT_LEADER_FAILED, Unknown),
            (ProposeError::ForwardBroken.into(), etcd::TIMEOUT_CONNECTION_LOST, Unknown),
            (ProposeError::Stopped("disk".to_owned()).into(), etcd::STOPPED, Unknown),
            (BarrierError::NoLeader { read_only: None }.into(), etcd::NO_LEADER, No),
            (BarrierError::NoQuorum(read_only()).into(), etcd::NO_LEADER, No),
            (BarrierError::NotReady("starting".to_owned()).into(), etcd::NO_LEADER, No),
            (BarrierError::StateQuarantine("rot".to_owned()).into(), etcd::UNHEALTHY, No),
            (BarrierError::Overloaded("65536 wait".to_owned()).into(), etcd::TOO_MANY_REQUESTS, No),
            (BarrierError::Deadline.into(), etcd::TIMEOUT, No),
            (BarrierError::Behind(token()).into(), etcd::TIMEOUT, No),
            (
                BarrierError::Rejected(Rejection::FutureRevision { current: Revision(1) }).into(),
                etcd::FUTURE_REVISION,
                No,
            ),
            (TransferError::NotLeader.into(), etcd::NOT_LEADER, No),
            (TransferError::BadTarget(NodeId(9)).into(), etcd::BAD_TRANSFEREE, No),
            (TransferError::Timeout(NodeId(2)).into(), etcd::TIMEOUT, Unknown),
            (MemberError::Invalid("nowhere".to_owned()).into(), etcd::MEMBER_BAD_URLS, No),
            (MemberError::NotEnoughHealthy("1 of 2".to_owned()).into(), etcd::MEMBER_NOT_ENOUGH_STARTED, No),
            (
                MemberError::NotInSync { id: NodeId(7), reason: "it lags".to_owned() }.into(),
                etcd::LEARNER_NOT_READY,
                No,
            ),
            (MemberError::NotLearner(NodeId(7)).into(), etcd::MEMBER_NOT_LEARNER, No),
            (MemberError::Unfinished(NodeId(7)).into(), etcd::TIMEOUT, AttemptApplied::Yes),
            (Rejection::MemberNotFound(NodeId(7)).into(), etcd::MEMBER_NOT_FOUND, No),
            (Rejection::MemberRemoved(NodeId(7)).into(), etcd::MEMBER_NOT_FOUND, No),
            (
                Rejection::MemberTaken { what: "a:1".to_owned(), member: NodeId(7) }.into(),
                etcd::PEER_URL_EXISTS,
                No,
            ),
            (Rejection::TooManyMembers(128).into(), etcd::TOO_MANY_LEARNERS, No),
            (Trouble::LeaseTtl { seconds: 9_000_000_001 }, etcd::LEASE_TTL_TOO_LARGE, No),
            (Rejection::LeaseExists.into(), etcd::LEASE_EXISTS, No),
            (Trouble::Busy("reads"), etcd::TOO_MANY_REQUESTS, No),
            (Trouble::DowngradeFormat, etcd::WRONG_DOWNGRADE_FORMAT, No),
            (Trouble::DowngradeTarget, etcd::INVALID_DOWNGRADE_TARGET, No),
            (Trouble::NoDowngrade, etcd::NO_DOWNGRADE, No),
            (Trouble::Stopping, etcd::STOPPED, No),
            (LockTrouble::SessionExpired.into(), (Code::FailedPrecondition, "mutex: session is expired"), No),
            (LockTrouble::NoLeader.into(), (Code::Unknown, "election: no leader"), No),
            (LockTrouble::NotLeader.into(), (Code::Unknown, "election: not leader"), No),
            (
                LockTrouble::LeaderMissing.into(),
                (Code::InvalidArgument, "\"leader\" field must be provided"),
                No,
            ),
            (LockTrouble::Deadline.into(), etcd::DEADLINE_EXCEEDED, Unknown),
            (LockTrouble::Unsettled.into(), etcd::TIMEOUT, Unknown),
            (LockTrouble::Stopping.into(), etcd::STOPPED, Unknown),
        ];
        for (trouble, (code, message), applied) in table {
            let status = trouble.status(Vec::new());
            assert_eq!((status.code(), status.message()), (code, message), "{trouble:?}");
            let detail = detail(&status);
            assert_eq!(detail.attempt_applied(), applied, "{trouble:?}");
            assert!(!detail.reason.is_empty() && !detail.message.is_empty(), "{trouble:?}");
        }
    }

    #[test]
    fn a_read_only_member_says_since_when_and_where_to_go() {
        let trouble = Trouble::from(ProposeError::NoLeader { read_only: Some(read_only()) });
        assert!(trouble.is_elsewhere());
        let status = trouble.status(vec!["http://127.0.0.1:2389".to_owned()]);
        assert_eq!(status.message(), "etcdserver: no leader");
        let detail = detail(&status);
        assert_eq!(detail.reason, "read_only");
        assert!(
            detail.message.contains("read-only since 3.0 s: only 1 of 3 voters answers"),
            "{}",
            detail.message
        );
        assert_eq!(detail.leader_client_urls, ["http://127.0.0.1:2389"]);
    }

    #[test]
    fn a_stale_fence_is_told_with_the_token_in_force_by_the_gate_and_by_the_state() {
        let scope = ringfence_types::Scope::Lock(Bytes::from_static(b"jobs"));
        let stale =
            |in_force| Rejection::StaleFence { scope: scope.clone(), presented: Revision(4), in_force };
        for (in_force, expected) in [(Some(Revision(9)), 9), (None, 0)] {
            for (trouble, judge) in [
                (Trouble::Rejected(stale(in_force)), Judge::State),
                (Trouble::StaleAtGate(stale(in_force)), Judge::Gate),
            ] {
                assert_eq!(trouble.refusal(), Some((judge, "stale_fence")));
                let status = trouble.status(Vec::new());
                assert_eq!(status.code(), Code::FailedPrecondition);
                let detail = detail(&status);
                assert_eq!(
                    (detail.reason.as_str(), detail.attempt_applied()),
                    ("stale_fence", AttemptApplied::No)
                );
                let told = detail.stale_fence.unwrap();
                assert_eq!((told.presented, told.in_force), (4, expected));
                assert_eq!(told.scope, Some(scope_message(&scope)));
            }
        }
    }

    #[test]
    fn overload_says_when_to_try_again() {
        for trouble in [Trouble::Busy("reads"), Trouble::Overloaded("5 of 5".to_owned())] {
            let status = trouble.status(Vec::new());
            assert_eq!(detail(&status).retry_after_ms, RETRY_AFTER_MS);
            let hint = status.metadata().get(RETRY_PUSHBACK_KEY).expect("it is overload");
            assert_eq!(hint.to_str().ok(), Some("100"));
        }
        let full = Trouble::from(ProposeError::NoSpace("it is full".to_owned())).status(Vec::new());
        assert_eq!(detail(&full).retry_after_ms, 0, "to try again at once is of no use");
        assert!(full.metadata().get(RETRY_PUSHBACK_KEY).is_none());
    }

    #[test]
    fn an_end_that_leaves_things_open_is_no_refusal() {
        assert_eq!(Trouble::from(ProposeError::LeadershipLost).refusal(), None);
        let refused = Trouble::from(ProposeError::NoLeader { read_only: None }).refusal();
        assert_eq!(refused, Some((Judge::Consensus, "no_leader")));
        assert_eq!(Trouble::from(ParseError::EmptyGuard).refusal(), Some((Judge::Form, "invalid_guard")));
    }

    #[test]
    fn what_has_no_fixed_error_never_looks_like_etcds() {
        for trouble in [
            Trouble::from(ParseError::InvalidCompare { result: 7, target: 0 }),
            Trouble::Unsupported("members cannot be changed yet"),
            LockTrouble::NotACandidate.into(),
            Trouble::from(ExtensionError::OnRead),
            Trouble::Overlooked("the request carries the extension field 1002".to_owned()),
            Trouble::from(ParseError::EmptyGuard),
            Rejection::AnswerTooLarge { max: 9 }.into(),
            BarrierError::OtherCluster { token: token(), own: 9 }.into(),
        ] {
            assert!(trouble.status(Vec::new()).message().starts_with("ringfence: "), "{trouble:?}");
            assert!(!trouble.is_elsewhere());
        }
    }
}
