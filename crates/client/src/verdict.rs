//! What the status that ended an attempt proves. This is the one place that judges it.

use std::error::Error as _;

use prost::Message as _;
use ringfence_proto::ERROR_DETAIL_KEY;
use ringfence_proto::ringfence_v1::ErrorDetail;
use ringfence_proto::ringfence_v1::error_detail::AttemptApplied;
use tonic::{Code, ConnectError, Status};

/// etcd's message for "this member knows no leader", given before proposing.
const NO_LEADER: &str = "etcdserver: no leader";
/// etcd's message for "the queue of proposals is full", given before proposing.
pub(crate) const TOO_MANY_REQUESTS: &str = "etcdserver: too many requests";
/// etcd's message for "ask the leader", given by the calls that only a leader serves.
const NOT_LEADER: &str = "etcdserver: not leader";
/// How etcd's refusals about elections begin; it gives them no code.
const ELECTION: &str = "election: ";

/// Whether an attempt changed anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Applied {
    No,
    Unknown,
}

/// What to do about a failed attempt whose side effects permit another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// The answer would be the same everywhere.
    GiveUp,
    /// Another node may do better, at once.
    OtherNode,
    /// Every node would say the same now; later they may not.
    Later,
}

/// The judgement of one failed attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) applied: Applied,
    pub(crate) next: Next,
    /// Where the leader is, as far as the answer told.
    pub(crate) leader: Vec<String>,
    pub(crate) code: Code,
    pub(crate) reason: String,
    pub(crate) message: String,
}

impl Verdict {
    /// Judges the status that ended an attempt.
    pub(crate) fn of(status: &Status) -> Verdict {
        match detail(status) {
            Some(detail) => Verdict::from_detail(status, detail),
            None if was_never_sent(status) => Verdict {
                applied: Applied::No,
                next: Next::OtherNode,
                leader: Vec::new(),
                code: status.code(),
                reason: "unreachable".to_owned(),
                message: with_causes(status),
            },
            None => Verdict {
                applied: applied_by_etcd_rules(status),
                next: next_by_code(status.code(), status.message()),
                leader: Vec::new(),
                code: status.code(),
                reason: String::new(),
                message: with_causes(status),
            },
        }
    }

    fn from_detail(status: &Status, detail: ErrorDetail) -> Verdict {
        // Only a plain "no" lets the write be sent again; a "yes" or a value from the future does not.
        let applied = match detail.attempt_applied() {
            AttemptApplied::No => Applied::No,
            _ => Applied::Unknown,
        };
        let message = if detail.message.is_empty() { status.message().to_owned() } else { detail.message };
        Verdict {
            applied,
            next: next_by_code(status.code(), status.message()),
            leader: detail.leader_client_urls,
            code: status.code(),
            reason: detail.reason,
            message,
        }
    }
}

/// Whether a call that ended so surely changed nothing, and may go better at another node or later: for programs that make
/// their calls themselves.
#[must_use]
pub fn may_be_sent_again(status: &Status) -> bool {
    let verdict = Verdict::of(status);
    verdict.applied == Applied::No && verdict.next != Next::GiveUp
}

/// The detail that our servers attach to each error.
fn detail(status: &Status) -> Option<ErrorDetail> {
    let bytes = status.metadata().get_bin(ERROR_DETAIL_KEY)?.to_bytes().ok()?;
    ErrorDetail::decode(bytes).ok()
}

/// Whether the request surely never left this process: no connection could be made, or the connection had broken before
/// the request was taken from its queue (hyper calls that "canceled", and nothing else on a client's side).
fn was_never_sent(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<ConnectError>()
            || error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled)
        {
            return true;
        }
        cause = error.source();
    }
    false
}

/// For a status without our detail: definite are the refusals that etcd gives before proposing, and those that its apply
/// gives instead of a change. The code alone proves nothing, since gRPC libraries use the same codes for their own
/// troubles, even for an answer that was too large to read.
fn applied_by_etcd_rules(status: &Status) -> Applied {
    let refused = match status.code() {
        Code::InvalidArgument
        | Code::OutOfRange
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::NotFound
        | Code::PermissionDenied
        | Code::Unauthenticated => status.message().starts_with("etcdserver: "),
        Code::Unavailable => status.message() == NO_LEADER,
        Code::Unknown => status.message().starts_with(ELECTION),
        Code::Unimplemented => true,
        _ => false,
    };
    if refused { Applied::No } else { Applied::Unknown }
}

fn next_by_code(code: Code, message: &str) -> Next {
    match code {
        Code::Unknown if message.starts_with(ELECTION) => Next::GiveUp,
        Code::Unavailable
        | Code::DeadlineExceeded
        | Code::Cancelled
        | Code::Unknown
        | Code::Internal
        | Code::Aborted
        | Code::DataLoss => Next::OtherNode,
        Code::ResourceExhausted if message == TOO_MANY_REQUESTS => Next::Later,
        Code::FailedPrecondition if message == NOT_LEADER => Next::OtherNode,
        _ => Next::GiveUp,
    }
}

/// The status's message with what caused it: "transport error" alone helps nobody.
fn with_causes(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = status.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !words.is_empty() && !text.contains(&words) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&words);
        }
        cause = error.source();
    }
    if text.is_empty() { format!("{:?} without a message", status.code()) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_our_detail_only_etcds_refusals_are_definite() {
        for (status, applied, next) in [
            (Status::unavailable("etcdserver: no leader"), Applied::No, Next::OtherNode),
            (Status::resource_exhausted("etcdserver: too many requests"), Applied::No, Next::Later),
            (
                Status::resource_exhausted("etcdserver: mvcc: database space exceeded"),
                Applied::No,
                Next::GiveUp,
            ),
            (Status::invalid_argument("etcdserver: key is not provided"), Applied::No, Next::GiveUp),
            (Status::unimplemented("unknown method"), Applied::No, Next::GiveUp),
            (Status::unavailable("etcdserver: request timed out"), Applied::Unknown, Next::OtherNode),
            (Status::unavailable("etcdserver: leader changed"), Applied::Unknown, Next::OtherNode),
            (Status::unavailable("no leader"), Applied::Unknown, Next::OtherNode),
            (Status::out_of_range("decoded message length too large"), Applied::Unknown, Next::GiveUp),
            (
                Status::resource_exhausted("grpc: received message larger than max"),
                Applied::Unknown,
                Next::GiveUp,
            ),
            (Status::unknown("transport error"), Applied::Unknown, Next::OtherNode),
            (Status::unknown("election: no leader"), Applied::No, Next::GiveUp),
            (Status::deadline_exceeded(""), Applied::Unknown, Next::OtherNode),
            (Status::cancelled("Timeout expired"), Applied::Unknown, Next::OtherNode),
        ] {
            let verdict = Verdict::of(&status);
            assert_eq!((verdict.applied, verdict.next), (applied, next), "{status:?}");
        }
    }

    #[test]
    fn our_detail_decides_alone() {
        let told = |applied: AttemptApplied| {
            let mut status = Status::unavailable("etcdserver: no leader");
            let detail = ErrorDetail {
                reason: "read_only".to_owned(),
                attempt_applied: applied.into(),
                leader_client_urls: vec!["http://a:1".to_owned()],
                message: "read-only since 2 s".to_owned(),
                ..Default::default()
            };
            crate::fake::attach(&mut status, &detail);
            Verdict::of(&status)
        };
        assert_eq!(told(AttemptApplied::No).applied, Applied::No);
        assert_eq!(told(AttemptApplied::Unknown).applied, Applied::Unknown);
        assert_eq!(told(AttemptApplied::Yes).applied, Applied::Unknown);
        let verdict = told(AttemptApplied::No);
        assert_eq!(verdict.leader, ["http://a:1"]);
        assert_eq!((verdict.reason.as_str(), verdict.message.as_str()), ("read_only", "read-only since 2 s"));
    }

    #[test]
    fn a_request_that_never_left_is_definite() {
        let unreachable = Status::from_error(Box::new(ConnectError("refused".into())));
        let verdict = Verdict::of(&unreachable);
        assert_eq!((verdict.applied, verdict.next), (Applied::No, Next::OtherNode));
    }
}
