//! Tokens: those in force only grow, and no write that carries an older one is applied after a newer one came into force
//! (DESIGN, section 6).

use std::collections::BTreeMap;

use bytes::Bytes;
use ringfence_types::Revision;

use super::{Holds, broken};

const RULE: &str = "tokens";

/// One lock, and the writes that carry its tokens.
#[derive(Default)]
struct Lock {
    /// The newest state's revision and the token in force there.
    newest: Revision,
    in_force: Option<Revision>,
    /// The largest token that was ever in force, and a revision at which it was.
    largest: Option<(Revision, Revision)>,
    /// The token of each write that was applied, by the write's revision.
    writes: BTreeMap<Revision, Revision>,
    /// When each token was first seen in force, as a revision.
    granted: BTreeMap<Revision, Revision>,
}

#[derive(Default)]
pub(super) struct Tokens {
    locks: BTreeMap<Bytes, Lock>,
}

impl Tokens {
    /// The token in force in a newer state than before, and the newest fenced write: its revision and its token.
    pub(super) fn apply(
        &mut self,
        name: &Bytes,
        revision: Revision,
        in_force: Option<Revision>,
        write: Option<(Revision, Revision)>,
    ) -> Holds {
        let lock = self.locks.entry(name.clone()).or_default();
        (lock.newest, lock.in_force) = (revision, in_force);
        if let Some(token) = in_force {
            lock.granted.entry(token).or_insert(revision);
            if let Some((largest, at)) = lock.largest.filter(|(largest, _)| token < *largest) {
                let facts = format!("{name:?}: {token} is in force at {revision}, and {largest} was at {at}");
                return broken(RULE, facts);
            }
            lock.largest = Some((token, revision));
        }
        write.map_or(Ok(()), |(at, token)| self.write(name, at, token))
    }

    /// A write that carries a token was applied at a revision.
    pub(super) fn write(&mut self, name: &Bytes, at: Revision, token: Revision) -> Holds {
        let lock = self.locks.entry(name.clone()).or_default();
        let known = lock.writes.insert(at, token);
        if known.is_some_and(|known| known != token) {
            return broken(RULE, format!("{name:?}: the write of {at} carries {token}, and was {known:?}"));
        }
        let newer = lock.granted.range(token..).find(|(granted, since)| **granted > token && **since < at);
        if let Some((newer, since)) = newer {
            let facts =
                format!("{name:?}: a write with {token} is applied at {at}; {newer} was in force at {since}");
            return broken(RULE, facts);
        }
        let before = lock.writes.range(..at).next_back().filter(|(_, before)| **before > token);
        let after = lock.writes.range(at..).nth(1).filter(|(_, after)| **after < token);
        if let Some((other, with)) = before.or(after) {
            let facts =
                format!("{name:?}: a write with {token} is applied at {at}, and one with {with} at {other}");
            return broken(RULE, facts);
        }
        Ok(())
    }

    /// The token in force in the newest state.
    pub(super) fn in_force(&self, name: &Bytes) -> Option<Revision> {
        self.locks.get(name)?.in_force
    }

    /// Fenced writes seen.
    pub(super) fn writes(&self) -> usize {
        self.locks.values().map(|lock| lock.writes.len()).sum()
    }

    /// Tokens seen in force.
    pub(super) fn granted(&self) -> usize {
        self.locks.values().map(|lock| lock.granted.len()).sum()
    }
}
