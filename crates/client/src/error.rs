//! What a call can end in besides its answer. Each kind is a promise about side effects.

use std::time::Duration;

use thiserror::Error;
use tonic::Code;

use crate::CausalToken;

/// Why a call failed, and what that proves.
#[derive(Debug, Clone, Error)]
pub enum Error {
    /// The cluster understood the request and refused it: nothing has changed, and the same request would be refused
    /// again until something else changes.
    #[error("refused: {message}")]
    Refused {
        /// The gRPC code, which groups the reasons.
        code: Code,
        /// The reason as a word for programs, empty where the server gave none.
        reason: String,
        /// The reason in the server's words.
        message: String,
    },
    /// The outcome is unknown: the write may have been applied, or may still be applied.
    #[error("outcome unknown, the write may have been applied: {message}")]
    Indefinite {
        /// What happened to the attempt whose outcome is unknown.
        message: String,
    },
    /// The write carried fences or its place in a session, and the answer does not say that they were checked: the server knows
    /// nothing of them. The write was applied, whatever is in force.
    #[error("the write was applied, but {message}")]
    Unchecked {
        /// What was not checked.
        message: String,
    },
    /// The write was applied, and when the time for it was over fewer voters had it on disk than the request wanted.
    #[error(
        "applied at revision {revision}, and on the disks of {reached} voters of {wanted} wanted when the time was over"
    )]
    TooFewAcks {
        /// Where the write was applied.
        revision: i64,
        /// How many voters are known to have it.
        reached: u32,
        /// How many were wanted.
        wanted: u32,
        /// The members that have it, by id.
        durable_at: Vec<u64>,
    },
    /// The causal token is of another cluster than the one that answers: its position means nothing there. Only reads that were
    /// to be causal end so.
    #[error("the causal token {token} is of another cluster than this one, which is {cluster_id:016x}")]
    OtherCluster {
        /// The token.
        token: CausalToken,
        /// The id of the cluster that answered.
        cluster_id: u64,
    },
    /// The session has ended, by its time or by somebody's will: what is of it is refused from now on.
    #[error("the session has ended{}", if *.perhaps_applied { ", and the write may have been applied before" } else { "" })]
    SessionLost {
        /// Whether an attempt of the write may have been applied before; else it surely was not.
        perhaps_applied: bool,
    },
    /// The write of a session was applied, and its answer did not come and was too large to be kept.
    #[error("the write was applied at revision {revision}, but its answer is lost")]
    AnswerNotKept {
        /// The store's revision after it.
        revision: i64,
    },
    /// A watch needs history that is gone. What is there now has to be read, and watched from its revision on.
    #[error("the history from revision {wanted} on is gone: it was compacted up to revision {oldest}")]
    Compacted {
        /// The first revision that the watch needs.
        wanted: i64,
        /// The first revision from which a watch can begin.
        oldest: i64,
    },
    /// No node could do it before the deadline. A write that ends so was surely not applied.
    #[error("unavailable after {}: {message}", tried(*attempts, *elapsed))]
    Unavailable {
        /// What the last attempt ended in.
        message: String,
        /// Number of attempts made.
        attempts: u32,
        /// How long they took together.
        elapsed: Duration,
    },
    /// An endpoint cannot be understood.
    #[error("endpoint {endpoint:?}: {reason}")]
    BadEndpoint {
        /// The endpoint as it was given.
        endpoint: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The answer breaks the protocol: there is a bug in the server or in this client, or something that is no etcd
    /// server listens there.
    #[error("the answer breaks the protocol: {0}")]
    Protocol(String),
}

impl Error {
    /// Whether this proves that a write was not applied.
    #[must_use]
    pub fn is_definite(&self) -> bool {
        match self {
            Error::Refused { .. }
            | Error::Unavailable { .. }
            | Error::BadEndpoint { .. }
            | Error::OtherCluster { .. }
            | Error::Compacted { .. } => true,
            Error::SessionLost { perhaps_applied } => !perhaps_applied,
            Error::Indefinite { .. }
            | Error::Unchecked { .. }
            | Error::TooFewAcks { .. }
            | Error::AnswerNotKept { .. }
            | Error::Protocol(_) => false,
        }
    }
}

/// How often something was tried, and for how long.
fn tried(attempts: u32, elapsed: Duration) -> String {
    match attempts {
        1 => "one attempt".to_owned(),
        attempts => format!("{attempts} attempts in {:.1} s", elapsed.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_tried_is_told_for_people() {
        let unavailable = |attempts, milliseconds| {
            let (message, elapsed) = ("n1: no leader".to_owned(), Duration::from_millis(milliseconds));
            Error::Unavailable { message, attempts, elapsed }.to_string()
        };
        assert_eq!(unavailable(1, 0), "unavailable after one attempt: n1: no leader");
        assert_eq!(unavailable(30, 4_955), "unavailable after 30 attempts in 5.0 s: n1: no leader");
    }
}
