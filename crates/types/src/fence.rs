//! Fences: what a write may demand of the state, and what a guard demands of writes (DESIGN, section 6).

use std::fmt;

use bytes::Bytes;

use crate::key::{KeyRange, Revision, prefix_end};
use crate::lease::Grant;

/// What a fence is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// A key: it holds while the key exists, and its token is the key's create revision.
    Key(Bytes),
    /// A lock or an election of etcd, by its name: it is held by the oldest of its candidates, and its token is that key's
    /// create revision.
    Lock(Bytes),
}

/// A scope with a token, carried by a write: the write happens only if the token is in force when it is applied.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Fence {
    /// What it is about.
    pub scope: Scope,
    /// The token presented.
    pub token: Revision,
}

/// A key range that takes no write without a current fence of a scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    /// The keys guarded.
    pub range: KeyRange,
    /// The scope whose fence they want.
    pub scope: Scope,
}

/// The oldest candidate of a lock, which holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The candidate's key.
    pub key: Bytes,
    /// Its create revision: what fences present.
    pub token: Revision,
}

/// A write's place among those of its session, so that a copy of it is known as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionStamp {
    /// The session: a grant of a lease.
    pub session: Grant,
    /// The write's number, never used for another write of the session.
    pub sequence: u64,
    /// The smallest number whose answer the client may still ask for.
    pub first_incomplete: u64,
    /// What tells this request from every other one.
    pub digest: u128,
}

impl Scope {
    /// The lock whose candidate `key` would be, if a put with a lease created it: what stands before the last slash, where
    /// something stands after it.
    #[must_use]
    pub fn lock_of(key: &Bytes) -> Option<Bytes> {
        let slash = key.iter().rposition(|byte| *byte == b'/')?;
        (slash + 1 < key.len()).then(|| key.slice(..slash))
    }

    /// Whether `range` holds a key that decides who holds this scope: the key itself, or a possible candidate.
    #[must_use]
    pub fn is_decided_in(&self, range: &KeyRange) -> bool {
        let name = match self {
            Scope::Key(key) => return range.contains(key),
            Scope::Lock(name) => name,
        };
        let prefix = [name.as_ref(), b"/"].concat();
        if let crate::key::RangeEnd::Single = range.end {
            return Scope::lock_of(&range.start).is_some_and(|lock| lock == *name);
        }
        // A range within one nested name (`N/x/…`) holds no candidate of N.
        let nested = range.start.strip_prefix(prefix.as_slice()).and_then(|rest| {
            let slash = rest.iter().position(|byte| *byte == b'/')?;
            prefix_end(&range.start[..prefix.len() + slash + 1])
        });
        if let (Some(nested), crate::key::RangeEnd::Before(end)) = (nested, &range.end)
            && *end <= nested
        {
            return false;
        }
        range.overlaps(&KeyRange::prefix(Bytes::from(prefix)))
    }
}

impl fmt::Display for Scope {
    /// As people write it: the kind, a colon, and the name with everything that is not plain text escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scope::Key(key) => write!(f, "key:{}", key.escape_ascii()),
            Scope::Lock(name) => write!(f, "lock:{}", name.escape_ascii()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[test]
    fn a_candidate_stands_right_below_its_lock() {
        assert_eq!(Scope::lock_of(&bytes("jobs/1")), Some(bytes("jobs")));
        assert_eq!(Scope::lock_of(&bytes("a/b/1")), Some(bytes("a/b")));
        assert_eq!(Scope::lock_of(&bytes("/1")), Some(bytes("")));
        assert_eq!(Scope::lock_of(&bytes("jobs/")), None);
        assert_eq!(Scope::lock_of(&bytes("jobs")), None);
    }

    #[test]
    fn a_range_decides_a_scope_if_it_may_hold_its_candidates() {
        let lock = Scope::Lock(bytes("jobs"));
        for (start, end, decides) in [
            ("jobs/1", "", true),
            ("jobs/1/x", "", false),
            ("jobs", "", false),
            ("jobs/", "jobs0", true),
            ("jobs/1/", "jobs/10", false),
            ("jobs/1/", "jobs/11", true),
            ("jobs/1/", "\0", true),
            ("a", "z", true),
            ("jobs0", "z", false),
        ] {
            let range = KeyRange::from_etcd(bytes(start), bytes(end));
            assert_eq!(lock.is_decided_in(&range), decides, "{start:?} to {end:?}");
        }
        assert!(Scope::Key(bytes("k")).is_decided_in(&KeyRange::from_etcd(bytes("a"), bytes("z"))));
        assert!(!Scope::Key(bytes("k")).is_decided_in(&KeyRange::single(bytes("k1"))));
    }

    #[test]
    fn scopes_are_written_with_their_kind() {
        assert_eq!(Scope::Lock(bytes("a/b")).to_string(), "lock:a/b");
        assert_eq!(Scope::Key(Bytes::from_static(b"\xff")).to_string(), "key:\\xff");
    }
}
