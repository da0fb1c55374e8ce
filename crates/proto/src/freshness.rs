//! How fresh a read wants the state, as a field, as metadata and in etcd's own word for it; and how old it was.
//!
//! - `ringfence-freshness: linearizable`, `quorum`, `revision=N`, `token=CLUSTER.REVISION.INDEX`, `max-age=2s` (or `ms`), or `any`.
//! - Answers say in `ringfence-age` how many milliseconds old the state was at most; a member that cannot tell says nothing.

use std::time::Duration;

use ringfence_types::{CausalToken, Freshness, Revision};
use thiserror::Error;

use crate::ringfence_v1::{self as v1, freshness::Kind};

/// The key of a read's wish.
pub const FRESHNESS_KEY: &str = "ringfence-freshness";
/// The key under which an answer says how old its state was.
pub const AGE_KEY: &str = "ringfence-age";
/// The key under which the answer to a change of leases or guards tells its causal token. That of a change of keys is made of the
/// header's cluster and revision.
pub const POSITION_KEY: &str = "ringfence-position";

/// The longest age that may be asked for: beyond it `any` says the same.
const MAX_AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Why it is not clear how fresh the state must be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FreshnessError {
    /// It is said in two ways, which may mean two things.
    #[error("the request says in more than one way how fresh its answer must be")]
    GivenTwice,
    /// The field says nothing, or what this version does not know.
    #[error("the request's freshness is of a kind that this version does not know")]
    Unknown,
    /// A request that may write says it.
    #[error("how fresh the state must be is for reads to say, and the transaction may write")]
    OnWrite,
    /// The text is not in its form.
    #[error(
        "freshness must be linearizable, quorum, any, revision=N above 0, token=CLUSTER.REVISION.INDEX, or max-age=DURATION such as \
         2s or 500ms, at most a day"
    )]
    Malformed,
}

/// What a request says: etcd's `serializable`, the field, and the values in its metadata.
///
/// # Errors
/// Where it says so twice, or nothing that can be understood.
pub fn wanted<'a>(
    serializable: bool,
    field: Option<v1::Freshness>,
    metadata: impl Iterator<Item = &'a [u8]>,
) -> Result<Freshness, FreshnessError> {
    let mut wishes = Vec::new();
    if serializable {
        wishes.push(Freshness::Any);
    }
    if let Some(field) = field {
        wishes.push(from_field(&field)?);
    }
    for value in metadata {
        wishes.push(parse(std::str::from_utf8(value).map_err(|_| FreshnessError::Malformed)?)?);
    }
    match wishes.as_slice() {
        [] => Ok(Freshness::Linearizable),
        [only] => Ok(*only),
        _ => Err(FreshnessError::GivenTwice),
    }
}

/// The wish that a person or a program has written.
///
/// # Errors
/// Where it is not in one of its forms.
pub fn parse(text: &str) -> Result<Freshness, FreshnessError> {
    if let Some(revision) = text.strip_prefix("revision=") {
        return at_least(revision.parse().map_err(|_| FreshnessError::Malformed)?);
    }
    if let Some(token) = text.strip_prefix("token=") {
        return token.parse().map(Freshness::Token).map_err(|_| FreshnessError::Malformed);
    }
    if let Some(age) = text.strip_prefix("max-age=") {
        let (digits, unit) = age.split_at(age.find(|c: char| !c.is_ascii_digit()).unwrap_or(age.len()));
        let count: u64 = digits.parse().map_err(|_| FreshnessError::Malformed)?;
        return at_most(match unit {
            "ms" => Duration::from_millis(count),
            "s" => Duration::from_secs(count),
            _ => return Err(FreshnessError::Malformed),
        });
    }
    match text {
        "linearizable" => Ok(Freshness::Linearizable),
        "quorum" => Ok(Freshness::Quorum),
        "any" => Ok(Freshness::Any),
        _ => Err(FreshnessError::Malformed),
    }
}

/// The field that says the same.
#[must_use]
pub fn to_field(freshness: Freshness) -> v1::Freshness {
    let kind = match freshness {
        Freshness::Linearizable => Kind::Linearizable(true),
        Freshness::Quorum => Kind::Quorum(true),
        Freshness::Revision(revision) => Kind::Revision(revision.0),
        Freshness::Token(token) => Kind::Token(token_message(token)),
        Freshness::MaxAge(age) => Kind::MaxAgeMs(u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        Freshness::Any => Kind::Any(true),
    };
    v1::Freshness { kind: Some(kind) }
}

/// A token as clients read it.
#[must_use]
pub fn token_message(token: CausalToken) -> v1::CausalToken {
    let CausalToken { cluster_id, revision, index } = token;
    v1::CausalToken { cluster_id, revision: revision.0, index: index.0 }
}

/// The token that an answer tells; none where it is none.
#[must_use]
pub fn token_of(message: &v1::CausalToken) -> Option<CausalToken> {
    CausalToken::new(message.cluster_id, message.revision, message.index)
}

fn from_field(field: &v1::Freshness) -> Result<Freshness, FreshnessError> {
    match field.kind {
        Some(Kind::Linearizable(true)) => Ok(Freshness::Linearizable),
        Some(Kind::Quorum(true)) => Ok(Freshness::Quorum),
        Some(Kind::Revision(revision)) => at_least(revision),
        Some(Kind::Token(token)) => token_of(&token).map(Freshness::Token).ok_or(FreshnessError::Malformed),
        Some(Kind::MaxAgeMs(milliseconds)) => at_most(Duration::from_millis(milliseconds)),
        Some(Kind::Any(true)) => Ok(Freshness::Any),
        Some(Kind::Linearizable(false) | Kind::Quorum(false) | Kind::Any(false)) | None => {
            Err(FreshnessError::Unknown)
        }
    }
}

fn at_least(revision: i64) -> Result<Freshness, FreshnessError> {
    if revision > 0 { Ok(Freshness::Revision(Revision(revision))) } else { Err(FreshnessError::Malformed) }
}

fn at_most(age: Duration) -> Result<Freshness, FreshnessError> {
    if age <= MAX_AGE_MAX { Ok(Freshness::MaxAge(age)) } else { Err(FreshnessError::Malformed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(index: u64) -> Freshness {
        Freshness::Token(CausalToken::new(0xc0ffee, 7, index).expect("the revision is above 0"))
    }

    const TEXTS: [(&str, Freshness); 6] = [
        ("linearizable", Freshness::Linearizable),
        ("quorum", Freshness::Quorum),
        ("any", Freshness::Any),
        ("revision=7", Freshness::Revision(Revision(7))),
        ("max-age=2s", Freshness::MaxAge(Duration::from_secs(2))),
        ("max-age=500ms", Freshness::MaxAge(Duration::from_millis(500))),
    ];

    #[test]
    fn text_and_field_say_the_same() {
        let tokens = [("token=0000000000c0ffee.7.9", token(9)), ("token=0000000000c0ffee.7", token(0))];
        for (text, freshness) in TEXTS.into_iter().chain(tokens) {
            assert_eq!(parse(text), Ok(freshness), "{text}");
            assert_eq!(wanted(false, Some(to_field(freshness)), std::iter::empty()), Ok(freshness), "{text}");
            assert_eq!(wanted(false, None, [text.as_bytes()].into_iter()), Ok(freshness), "{text}");
        }
    }

    #[test]
    fn silence_is_linearizable_and_etcds_word_is_any() {
        assert_eq!(wanted(false, None, std::iter::empty()), Ok(Freshness::Linearizable));
        assert_eq!(wanted(true, None, std::iter::empty()), Ok(Freshness::Any));
    }

    #[test]
    fn what_is_said_twice_is_refused_even_if_it_is_the_same() {
        let any = || Some(to_field(Freshness::Any));
        let none = || std::iter::empty::<&[u8]>();
        assert_eq!(wanted(true, any(), none()), Err(FreshnessError::GivenTwice));
        assert_eq!(wanted(false, any(), [&b"any"[..]].into_iter()), Err(FreshnessError::GivenTwice));
        assert_eq!(wanted(true, None, [&b"quorum"[..]].into_iter()), Err(FreshnessError::GivenTwice));
        let both = [&b"quorum"[..], b"any"];
        assert_eq!(wanted(false, None, both.into_iter()), Err(FreshnessError::GivenTwice));
    }

    #[test]
    fn what_is_malformed_is_refused() {
        for text in [
            "",
            "Any",
            "max-age",
            "max-age=",
            "max-age=2",
            "max-age=-2s",
            "max-age=2h",
            "max-age=86401s",
            "revision=0",
            "revision=x",
            "token=",
            "token=7",
            "token=0000000000c0ffee.0.9",
            "any ",
        ] {
            assert_eq!(parse(text), Err(FreshnessError::Malformed), "{text:?}");
        }
        let empty = v1::Freshness { kind: None };
        assert_eq!(wanted(false, Some(empty), std::iter::empty()), Err(FreshnessError::Unknown));
        let no = v1::Freshness { kind: Some(Kind::Any(false)) };
        assert_eq!(wanted(false, Some(no), std::iter::empty()), Err(FreshnessError::Unknown));
        assert_eq!(wanted(false, None, [&b"\xff"[..]].into_iter()), Err(FreshnessError::Malformed));
        let nowhere = v1::Freshness { kind: Some(Kind::Token(v1::CausalToken::default())) };
        assert_eq!(wanted(false, Some(nowhere), std::iter::empty()), Err(FreshnessError::Malformed));
    }
}
