//! What an error proves of a request's side effects. `OUTCOMES.md` is the table; this is the one place that decides.

use std::error::Error as _;

use prost::Message as _;
use ringfence_proto::ERROR_DETAIL_KEY;
use ringfence_proto::ringfence_v1::ErrorDetail;
use ringfence_proto::ringfence_v1::error_detail::AttemptApplied;
use tonic::{ConnectError, Status};

/// Whether a request without an answer changed anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// Surely not, now or later.
    No,
    /// Perhaps, now or later.
    Unknown,
}

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What is known of its side effects.
    pub applied: Applied,
    /// The reason, for people.
    pub error: String,
}

impl Failure {
    /// Surely nothing has changed.
    pub fn definite(error: impl Into<String>) -> Failure {
        Failure { applied: Applied::No, error: error.into() }
    }

    /// Nobody can tell.
    pub fn indefinite(error: impl Into<String>) -> Failure {
        Failure { applied: Applied::Unknown, error: error.into() }
    }

    fn new(applied: Applied, error: impl Into<String>) -> Failure {
        Failure { applied, error: error.into() }
    }

    /// What a foreign client's status proves.
    #[must_use]
    pub fn of_status(status: &Status) -> Failure {
        match detail(status) {
            Some(detail) => {
                let applied = match AttemptApplied::try_from(detail.attempt_applied) {
                    Ok(AttemptApplied::No) => Applied::No,
                    Ok(AttemptApplied::Yes | AttemptApplied::Unknown) | Err(_) => Applied::Unknown,
                };
                Failure::new(applied, format!("{}: {}", detail.reason, detail.message))
            }
            None if never_connected(status) => Failure::definite(words(status)),
            None => Failure::indefinite(words(status)),
        }
    }

    /// What an error of the crate `etcd-client` proves.
    #[must_use]
    pub fn of_etcd_client(error: &etcd_client::Error) -> Failure {
        use etcd_client::Error;
        match error {
            Error::GRpcStatus(status) => Failure::of_status(status),
            Error::InvalidArgs(_) | Error::InvalidUri(_) | Error::EndpointError(_) => {
                Failure::definite(error.to_string())
            }
            _ => Failure::indefinite(error.to_string()),
        }
    }

    /// What an error of the project's client proves.
    #[must_use]
    pub fn of_ringfence_client(error: &ringfence_client::Error) -> Failure {
        use ringfence_client::Error;
        let applied = match error {
            Error::Refused { .. }
            | Error::Unavailable { .. }
            | Error::BadEndpoint { .. }
            | Error::OtherCluster { .. }
            | Error::Compacted { .. }
            | Error::SessionLost { perhaps_applied: false } => Applied::No,
            Error::Indefinite { .. }
            | Error::Unchecked { .. }
            | Error::TooFewAcks { .. }
            | Error::SessionLost { perhaps_applied: true }
            | Error::AnswerNotKept { .. }
            | Error::Protocol(_) => Applied::Unknown,
        };
        Failure::new(applied, error.to_string())
    }

    /// What the exit code of a command proves that gave no answer; none: a signal ended it.
    #[must_use]
    pub fn of_exit(code: Option<i32>, said: &str) -> Failure {
        let applied = match code {
            Some(EXIT_USAGE | EXIT_REFUSED | EXIT_UNAVAILABLE) => Applied::No,
            _ => Applied::Unknown,
        };
        let said = said.trim();
        let how = code.map_or_else(|| "a signal".to_owned(), |code| format!("exit code {code}"));
        Failure::new(applied, format!("{how}: {said}"))
    }
}

/// The exit codes of the program that prove something; the manual lists them all.
const EXIT_USAGE: i32 = 2;
const EXIT_REFUSED: i32 = 4;
const EXIT_UNAVAILABLE: i32 = 6;

/// The detail that our servers attach to each error.
fn detail(status: &Status) -> Option<ErrorDetail> {
    let bytes = status.metadata().get_bin(ERROR_DETAIL_KEY)?.to_bytes().ok()?;
    ErrorDetail::decode(bytes).ok()
}

/// Whether no connection could be made, so that nothing was sent.
fn never_connected(status: &Status) -> bool {
    causes(status).any(|cause| cause.is::<ConnectError>())
}

/// A status in words, with what caused it.
fn words(status: &Status) -> String {
    let told = format!("{:?}: {}", status.code(), status.message());
    causes(status).fold(told, |text, cause| format!("{text}: {cause}"))
}

/// What caused a status, and what caused that.
fn causes(status: &Status) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(status.source(), |&cause| cause.source())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tonic::Code;
    use tonic::metadata::MetadataValue;

    use super::*;

    fn told(code: Code, message: &str, attempt_applied: i32) -> Status {
        let detail = ErrorDetail {
            reason: "reason".to_owned(),
            attempt_applied,
            leader_client_urls: Vec::new(),
            message: "words".to_owned(),
            ..Default::default()
        };
        let mut status = Status::new(code, message);
        status
            .metadata_mut()
            .insert_bin(ERROR_DETAIL_KEY, MetadataValue::from_bytes(&detail.encode_to_vec()));
        status
    }

    #[test]
    fn our_detail_decides_whatever_the_code() {
        use AttemptApplied::{No, Unknown, Yes};
        for (code, message) in [
            (Code::InvalidArgument, "etcdserver: request is too large"),
            (Code::FailedPrecondition, "ringfence: stale fence"),
            (Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted"),
            (Code::ResourceExhausted, "etcdserver: too many requests"),
            (Code::Unavailable, "etcdserver: no leader"),
            (Code::Unavailable, "etcdserver: request timed out, possibly due to previous leader failure"),
            (Code::DeadlineExceeded, "etcdserver: context deadline exceeded"),
            (Code::Unimplemented, "ringfence: not served"),
        ] {
            for (attempt_applied, applied) in [
                (No as i32, Applied::No),
                (Yes as i32, Applied::Unknown),
                (Unknown as i32, Applied::Unknown),
                (99, Applied::Unknown),
            ] {
                let failure = Failure::of_status(&told(code, message, attempt_applied));
                assert_eq!(failure.applied, applied, "{code:?} {message} {attempt_applied}");
                assert_eq!(failure.error, "reason: words");
            }
        }
    }

    #[test]
    fn a_status_without_our_detail_proves_nothing() {
        for status in [
            Status::unavailable("etcdserver: no leader"),
            Status::invalid_argument("etcdserver: key is not provided"),
            Status::resource_exhausted("etcdserver: too many requests"),
            Status::cancelled("Timeout expired"),
            Status::deadline_exceeded(""),
            Status::unknown("transport error"),
            Status::internal("h2 protocol error"),
        ] {
            assert_eq!(Failure::of_status(&status).applied, Applied::Unknown, "{status:?}");
        }
        let mut garbled = Status::unavailable("etcdserver: no leader");
        garbled.metadata_mut().insert_bin(ERROR_DETAIL_KEY, MetadataValue::from_bytes(&[0xff; 3]));
        assert_eq!(Failure::of_status(&garbled).applied, Applied::Unknown);
    }

    #[test]
    fn what_was_never_sent_is_not_applied() {
        let status = Status::from_error(Box::new(ConnectError("connection refused".into())));
        let failure = Failure::of_status(&status);
        assert_eq!(failure.applied, Applied::No);
        assert!(failure.error.contains("connection refused"), "{}", failure.error);
        let refused = etcd_client::Error::InvalidArgs("empty endpoints".to_owned());
        assert_eq!(Failure::of_etcd_client(&refused).applied, Applied::No);
        let broken = etcd_client::Error::IoError(std::io::ErrorKind::BrokenPipe.into());
        assert_eq!(Failure::of_etcd_client(&broken).applied, Applied::Unknown);
    }

    #[test]
    fn the_projects_client_is_taken_at_its_word() {
        use ringfence_client::Error;
        let words = || "words".to_owned();
        for (error, applied) in [
            (Error::Refused { code: Code::InvalidArgument, reason: words(), message: words() }, Applied::No),
            (
                Error::Unavailable { message: words(), attempts: 2, elapsed: Duration::from_secs(2) },
                Applied::No,
            ),
            (Error::BadEndpoint { endpoint: words(), reason: words() }, Applied::No),
            (Error::Indefinite { message: words() }, Applied::Unknown),
            (Error::Protocol(words()), Applied::Unknown),
        ] {
            let failure = Failure::of_ringfence_client(&error);
            assert_eq!(failure.applied, applied, "{error:?}");
            assert!(failure.error.contains("words"), "{}", failure.error);
        }
    }

    #[test]
    fn exit_codes_prove_what_the_manual_says() {
        for (code, applied) in [
            (Some(0), Applied::Unknown),
            (Some(1), Applied::Unknown),
            (Some(2), Applied::No),
            (Some(3), Applied::Unknown),
            (Some(4), Applied::No),
            (Some(5), Applied::Unknown),
            (Some(6), Applied::No),
            (Some(101), Applied::Unknown),
            (None, Applied::Unknown),
        ] {
            assert_eq!(Failure::of_exit(code, "words\n").applied, applied, "{code:?}");
        }
        assert_eq!(Failure::of_exit(None, "error: x\n").error, "a signal: error: x");
    }
}
