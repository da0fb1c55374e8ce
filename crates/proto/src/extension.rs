//! What writes carry beyond etcd's API: fences that must hold when they are applied, and their place in a session. They stand
//! in fields from 1000 up of the requests; what stands in [`crate::metadata`] instead is put into the fields first, so that
//! there is one way in.

use std::time::Duration;

use ringfence_types::limits::{CHECKED_METADATA_BYTES_MAX, FENCES_MAX, SCOPE_BYTES_MAX};
use ringfence_types::{
    Ack, Acks, Command, Conditional, Fence, Grant, Index, LeaseId, Revision, Scope, SessionStamp, Write,
};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::etcdserverpb as etcd;
use crate::freshness::FreshnessError;
use crate::log_from_types;
use crate::ringfence_v1 as v1;

/// Why what a request carries beyond etcd's API is refused. Nothing was done, and the same request can never succeed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ExtensionError {
    /// A fence, or a question about one, does not say what it is about.
    #[error("a fence names no scope that this version knows: it needs a key, or the name of a lock")]
    NoScope,
    /// A scope is the empty key, which cannot exist.
    #[error("a fence's scope is the empty key, which nobody can hold")]
    EmptyKey,
    /// A scope's key or name is longer than any may be.
    #[error("the key or name of a fence's scope has {0} bytes, at most {SCOPE_BYTES_MAX} are accepted")]
    ScopeTooLong(usize),
    /// A token can never have been granted.
    #[error("a fence of {scope} carries token {token}: tokens are above 0")]
    InvalidToken {
        /// What the fence is about.
        scope: Scope,
        /// The token presented.
        token: i64,
    },
    /// Two fences are about the same scope.
    #[error("two fences of the request are about {0}")]
    ScopeTwice(Scope),
    /// There are more fences than a request may carry.
    #[error("the request carries {0} fences, at most {FENCES_MAX} are accepted")]
    TooManyFences(usize),
    /// The lease or the grant of a session is missing.
    #[error("a session needs the number of its lease and the grant that LeaseGrant told, neither of them 0")]
    NoSession,
    /// A write's number in its session is missing.
    #[error("a write of a session needs a sequence above 0")]
    NoSequence,
    /// The smallest open number of a session is above the write's own.
    #[error(
        "first_incomplete {first_incomplete} of the session is above the write's own sequence {sequence}"
    )]
    SequenceComplete {
        /// The write's number.
        sequence: u64,
        /// The smallest number whose answer the client may still ask for.
        first_incomplete: u64,
    },
    /// An acknowledgement level does not say what to wait for.
    #[error("the acknowledgement level must be quorum, all, or a count of voters above 0")]
    NoLevel,
    /// An acknowledgement level wants more voters than there are.
    #[error("the request wants {wanted} voters to have the write, and the cluster has {voters}")]
    TooManyAcks {
        /// How many are wanted.
        wanted: usize,
        /// How many there are.
        voters: usize,
    },
    /// A transaction that only reads carries fences, a session or an acknowledgement level.
    #[error("fences, sessions and acknowledgement levels are for writes, and the transaction only reads")]
    OnRead,
    /// An operation of a transaction carries fences, a session or an acknowledgement level of its own.
    #[error(
        "fences, sessions and acknowledgement levels belong to a whole transaction, and an operation of it carries its own"
    )]
    Nested,
    /// The same is given in a field and in metadata.
    #[error("the request gives {0} both as a field and as metadata")]
    GivenTwice(&'static str),
    /// It is not clear how fresh the state must be.
    #[error(transparent)]
    Freshness(#[from] FreshnessError),
    /// A field that this version does not know, where overlooking it would change what the request means.
    #[error("the request carries the extension field {0}, which this version does not know")]
    UnknownField(u32),
    /// The message is malformed, or nested deeper than any request may be.
    #[error("the request is malformed, or nested too deep")]
    Malformed,
    /// The fences in the metadata are longer than an answer's metadata could name them.
    #[error(
        "the fences in the metadata have {0} bytes as an answer names them, at most {CHECKED_METADATA_BYTES_MAX} are \
         accepted; requests' fields hold more"
    )]
    MetadataTooLong(usize),
    /// A key of the metadata that this version does not know or serve, where overlooking it would change what the request means.
    #[error("the metadata key {0} is not supported by this version, or not for this call")]
    UnknownKey(String),
    /// A value of the metadata is not in its form.
    #[error("the metadata value of {key} must be {form}")]
    MalformedValue {
        /// The key.
        key: &'static str,
        /// The form, with an example.
        form: &'static str,
    },
}

/// A request that may carry extensions.
pub trait Extended {
    /// Where the request keeps its fences.
    fn fences(&mut self) -> &mut Vec<v1::Fence>;
    /// Where the request keeps its place in a session.
    fn session(&mut self) -> &mut Option<v1::SessionStamp>;
    /// Where the request keeps its level of acknowledgement.
    fn ack(&mut self) -> &mut Option<v1::Ack>;
    /// Where the request keeps how fresh the state must be, if it may turn out to be a read.
    fn freshness(&mut self) -> Option<&mut Option<v1::Freshness>>;
}

macro_rules! extended {
    ($($request:ty: |$this:ident| $freshness:expr),*) => {
        $(impl Extended for $request {
            fn fences(&mut self) -> &mut Vec<v1::Fence> {
                &mut self.fences
            }

            fn session(&mut self) -> &mut Option<v1::SessionStamp> {
                &mut self.session
            }

            fn ack(&mut self) -> &mut Option<v1::Ack> {
                &mut self.ack
            }

            fn freshness(&mut self) -> Option<&mut Option<v1::Freshness>> {
                let $this = self;
                $freshness
            }
        })*
    };
}

extended!(
    etcd::PutRequest: |_request| None,
    etcd::DeleteRangeRequest: |_request| None,
    etcd::TxnRequest: |request| Some(&mut request.freshness)
);

/// An answer that says which extensions of its request were evaluated.
pub trait Checks {
    /// What was evaluated; none where the request carried nothing, or the server knows no extensions.
    fn checked(&self) -> Option<&v1::Checked>;
    /// The revision at which the request was answered; 0 where the answer does not say so.
    fn revision(&self) -> i64;
}

macro_rules! checks {
    ($($response:ty),*) => {
        $(impl Checks for $response {
            fn checked(&self) -> Option<&v1::Checked> {
                self.checked.as_ref()
            }

            fn revision(&self) -> i64 {
                self.header.as_ref().map_or(0, |header| header.revision)
            }
        })*
    };
}

checks!(etcd::PutResponse, etcd::DeleteRangeResponse, etcd::TxnResponse);

/// When a write is to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AckWish {
    /// How many voters shall have it on disk.
    pub ack: Ack,
    /// How long the answer may be held back for that; none for as long as the call has.
    pub within: Option<Duration>,
}

impl AckWish {
    /// Takes it out of a request: it is about the answer and no part of the write.
    ///
    /// # Errors
    /// [`ExtensionError::NoLevel`] where the request has one that says nothing.
    pub fn take(request: &mut impl Extended) -> Result<Option<AckWish>, ExtensionError> {
        let Some(v1::Ack { level, within_ms }) = request.ack().take() else { return Ok(None) };
        let ack = match level {
            Some(v1::ack::Level::Quorum(true)) => Ack::Quorum,
            Some(v1::ack::Level::All(true)) => Ack::All,
            Some(v1::ack::Level::Count(count)) if count > 0 => Ack::Count(count),
            _ => return Err(ExtensionError::NoLevel),
        };
        let within = (within_ms > 0).then(|| Duration::from_millis(within_ms.into()));
        Ok(Some(AckWish { ack, within }))
    }

    /// Refuses a count that can never be reached.
    ///
    /// # Errors
    /// [`ExtensionError::TooManyAcks`].
    pub fn check(&self, voters: usize) -> Result<(), ExtensionError> {
        let wanted = self.ack.wanted(voters);
        if wanted > voters { Err(ExtensionError::TooManyAcks { wanted, voters }) } else { Ok(()) }
    }
}

/// How far a write has come, as its answer says.
#[must_use]
pub fn acks_message(acks: &Acks) -> v1::Acks {
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    v1::Acks {
        reached: count(acks.durable_at.len()),
        wanted: count(acks.wanted),
        durable_at: acks.durable_at.iter().map(|id| id.0).collect(),
    }
}

/// The extensions of one request, as they came in.
#[derive(Debug)]
pub(crate) struct Extensions {
    fences: Vec<v1::Fence>,
    session: Option<v1::SessionStamp>,
    /// None in a whole request: see [`AckWish::take`].
    ack: Option<v1::Ack>,
}

impl Extensions {
    /// Takes them out of a request.
    pub(crate) fn take(request: &mut impl Extended) -> Extensions {
        Extensions {
            fences: std::mem::take(request.fences()),
            session: request.session().take(),
            ack: request.ack().take(),
        }
    }

    /// Whether there is nothing that is evaluated when the write is applied.
    pub(crate) fn is_empty(&self) -> bool {
        self.fences.is_empty() && self.session.is_none()
    }

    pub(crate) fn refuse_nested(&self) -> Result<(), ExtensionError> {
        if self.is_empty() && self.ack.is_none() { Ok(()) } else { Err(ExtensionError::Nested) }
    }

    /// The command of a write with these extensions: a plain one where there are none.
    pub(crate) fn around(self, write: Write) -> Result<Command, ExtensionError> {
        if self.is_empty() {
            return Ok(match write {
                Write::Put(put) => Command::Put(put),
                Write::DeleteRange(delete) => Command::DeleteRange(delete),
                Write::Txn(txn) => Command::Txn(txn),
            });
        }
        let mut conditional = Conditional { write, fences: fences(self.fences)?, session: None };
        if let Some(stamp) = self.session {
            conditional.session = Some(session_stamp(&stamp, digest(&conditional))?);
        }
        Ok(Command::Conditional(conditional))
    }
}

/// The fences of a request.
pub(crate) fn fences(carried: Vec<v1::Fence>) -> Result<Vec<Fence>, ExtensionError> {
    if carried.len() > FENCES_MAX {
        return Err(ExtensionError::TooManyFences(carried.len()));
    }
    let mut fences: Vec<Fence> = Vec::with_capacity(carried.len());
    for v1::Fence { scope, token } in carried {
        let scope = self::scope(scope)?;
        if token <= 0 {
            return Err(ExtensionError::InvalidToken { scope, token });
        }
        if fences.iter().any(|fence| fence.scope == scope) {
            return Err(ExtensionError::ScopeTwice(scope));
        }
        fences.push(Fence { scope, token: Revision(token) });
    }
    Ok(fences)
}

/// What a fence is about. The empty name of a lock is a name: its candidates are the keys `/x`.
pub(crate) fn scope(scope: Option<v1::Scope>) -> Result<Scope, ExtensionError> {
    let kind = scope.and_then(|scope| scope.kind).ok_or(ExtensionError::NoScope)?;
    let (v1::scope::Kind::Key(name) | v1::scope::Kind::Lock(name)) = &kind;
    if name.len() > SCOPE_BYTES_MAX {
        return Err(ExtensionError::ScopeTooLong(name.len()));
    }
    match kind {
        v1::scope::Kind::Key(key) if key.is_empty() => Err(ExtensionError::EmptyKey),
        v1::scope::Kind::Key(key) => Ok(Scope::Key(key)),
        v1::scope::Kind::Lock(name) => Ok(Scope::Lock(name)),
    }
}

/// The grant of a lease that a session is.
pub(crate) fn session(session: Option<&v1::Session>) -> Result<Grant, ExtensionError> {
    match session {
        Some(session) if session.lease != 0 && session.grant != 0 => {
            Ok(Grant { lease: LeaseId(session.lease), index: Index(session.grant) })
        }
        _ => Err(ExtensionError::NoSession),
    }
}

fn session_stamp(stamp: &v1::SessionStamp, digest: u128) -> Result<SessionStamp, ExtensionError> {
    let session = session(stamp.session.as_ref())?;
    let v1::SessionStamp { sequence, first_incomplete, .. } = *stamp;
    check_place(sequence, first_incomplete)?;
    Ok(SessionStamp { session, sequence, first_incomplete, digest })
}

/// Refuses a place in a session that no write can have.
pub(crate) fn check_place(sequence: u64, first_incomplete: u64) -> Result<(), ExtensionError> {
    if sequence == 0 {
        return Err(ExtensionError::NoSequence);
    }
    if first_incomplete > sequence {
        return Err(ExtensionError::SequenceComplete { sequence, first_incomplete });
    }
    Ok(())
}

/// What tells this write, with its fences, from every other one: the first half of the SHA-256 of its form in the log. It is
/// the same on every member and in every version, since a copy of a write may come in through any of them.
fn digest(write: &Conditional) -> u128 {
    use prost::Message as _;
    debug_assert!(write.session.is_none(), "a write's place in its session is no part of the write");
    let hash = Sha256::digest(log_from_types::conditional(write).encode_to_vec());
    hash.iter().take(16).fold(0, |digest, byte| digest << 8 | u128::from(*byte))
}

/// A scope as clients write it.
#[must_use]
pub fn scope_message(scope: &Scope) -> v1::Scope {
    let kind = match scope {
        Scope::Key(key) => v1::scope::Kind::Key(key.clone()),
        Scope::Lock(name) => v1::scope::Kind::Lock(name.clone()),
    };
    v1::Scope { kind: Some(kind) }
}

/// Which extensions of a command are evaluated when it is applied: what its answer says. None where it carries none.
#[must_use]
pub fn checked(command: &Command) -> Option<v1::Checked> {
    let Command::Conditional(conditional) = command else { return None };
    let fence = |fence: &Fence| v1::Fence { scope: Some(scope_message(&fence.scope)), token: fence.token.0 };
    Some(v1::Checked {
        fences: conditional.fences.iter().map(fence).collect(),
        session: conditional.session.is_some(),
        acks: None,
    })
}
