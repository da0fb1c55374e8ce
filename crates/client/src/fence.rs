//! Fences, for both who carry them and who check them: what a write to Ringfence carries, and the check that any other storage
//! needs, a database, a file or a device that a lock's holder writes to.
//!
//! The rule is one line: *for this scope, refuse a token smaller than the largest one seen.* An equal token passes, since a holder
//! writes more than once. What makes it a fence is when it is judged: the check and the write must be one step, which nothing can
//! come between, and a larger token must be kept as durably as the write that it came with.
//!
//! ```
//! use ringfence_client::fence::{Gate, Scope};
//!
//! let jobs = Scope::Lock("jobs".into());
//! let mut gate = Gate::new(1_000);
//! // A holds the lock with token 33, and writes.
//! assert!(gate.pass(&jobs, 33).is_ok());
//! // A is paused for too long, and B is granted the lock with token 34, and writes.
//! assert!(gate.pass(&jobs, 34).is_ok());
//! // A goes on.
//! let refused = gate.pass(&jobs, 33).unwrap_err();
//! assert_eq!(refused.to_string(), "stale fence: token 33 of lock:jobs came after token 34");
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bytes::Bytes;
use ringfence_proto::extension::scope_message;
use ringfence_proto::metadata::{percent_decode, percent_encode};
use ringfence_proto::ringfence_v1 as v1;
pub use ringfence_types::Scope;
use thiserror::Error;

/// What a write to Ringfence carries so that it happens only while this token of a lock or an election is in force.
#[must_use]
pub fn of_lock(name: impl Into<Bytes>, token: i64) -> v1::Fence {
    v1::Fence { scope: Some(scope_message(&Scope::Lock(name.into()))), token }
}

/// What a write to Ringfence carries so that it happens only while the key exists that was created at this revision.
#[must_use]
pub fn of_key(key: impl Into<Bytes>, create_revision: i64) -> v1::Fence {
    v1::Fence { scope: Some(scope_message(&Scope::Key(key.into()))), token: create_revision }
}

/// Why a gate lets nothing pass.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// A larger token has passed before: whoever carries this one lost its right meanwhile.
    #[error("stale fence: token {presented} of {scope} came after token {largest}")]
    Stale {
        /// What the fence is about.
        scope: Scope,
        /// The token presented.
        presented: i64,
        /// The largest token that has passed.
        largest: i64,
    },
    /// No token that was ever granted is like this.
    #[error("tokens are above 0, and {0} is not")]
    NoToken(i64),
    /// There are as many scopes as the gate has room for. None is forgotten to make room: its next token could be a stale one.
    #[error("the gate knows {0} scopes, and has no room for another one")]
    Full(usize),
}

/// Whether there is something to keep before the write may be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a larger token must be kept with the write, or before it"]
pub enum Passed {
    /// The largest token seen, again.
    Known,
    /// A larger token than any before: it must be durable no later than the write, or a restart would let smaller ones pass.
    Larger,
}

/// What stands before a storage system: it knows the largest token of each scope, and refuses smaller ones.
///
/// It says nothing of whether a token is *in force*: only Ringfence knows that. A former holder's write passes until the first
/// write of the next one has; so a new holder that wants to be sure passes the gate before it reads.
///
/// - What [`Gate::pass`] lets pass is remembered at once; hold whatever makes the write and this call one step.
/// - [`Gate::encode`] and [`Gate::decode`] keep it across restarts.
/// - Tokens go on growing when Ringfence is restored or recovered, so a gate outlives that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gate {
    largest: BTreeMap<Scope, i64>,
    scopes_max: usize,
}

impl Gate {
    /// A gate that has seen nothing, with room for so many scopes.
    #[must_use]
    pub fn new(scopes_max: usize) -> Gate {
        Gate { largest: BTreeMap::new(), scopes_max }
    }

    /// The largest token that has passed for a scope.
    #[must_use]
    pub fn largest(&self, scope: &Scope) -> Option<i64> {
        self.largest.get(scope).copied()
    }

    /// Judges a token without remembering it: what a read does.
    ///
    /// # Errors
    /// As [`Gate::pass`].
    pub fn check(&self, scope: &Scope, token: i64) -> Result<Passed, Refusal> {
        if token <= 0 {
            return Err(Refusal::NoToken(token));
        }
        match self.largest(scope) {
            Some(largest) if token < largest => {
                Err(Refusal::Stale { scope: scope.clone(), presented: token, largest })
            }
            Some(largest) if token == largest => Ok(Passed::Known),
            None if self.largest.len() >= self.scopes_max => Err(Refusal::Full(self.largest.len())),
            Some(_) | None => Ok(Passed::Larger),
        }
    }

    /// Judges the token that a write carries, and remembers it: from now on smaller ones of this scope are refused.
    ///
    /// # Errors
    /// See [`Refusal`]. Nothing is remembered then, and the write must not be done.
    pub fn pass(&mut self, scope: &Scope, token: i64) -> Result<Passed, Refusal> {
        let passed = self.check(scope, token)?;
        if passed == Passed::Larger {
            self.largest.insert(scope.clone(), token);
        }
        Ok(passed)
    }

    /// What the gate knows, as text: a line for each scope, such as `lock:jobs;33`.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        for (scope, token) in &self.largest {
            let (kind, name) = match scope {
                Scope::Key(key) => ("key", key),
                Scope::Lock(name) => ("lock", name),
            };
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{kind}:{};{token}", percent_encode(name));
        }
        text
    }

    /// A gate that knows what [`Gate::encode`] wrote, with room for so many scopes, or as many as there are.
    ///
    /// # Errors
    /// Where a line is no fence, or a scope comes twice. What cannot be read whole must not be used: a gate that has forgotten
    /// something lets a stale token pass.
    pub fn decode(text: &str, scopes_max: usize) -> Result<Gate, MalformedGate> {
        let mut largest = BTreeMap::new();
        for (number, line) in (1..).zip(text.lines()) {
            let malformed = || MalformedGate { line: number };
            let (scope, token) = read(line).ok_or_else(malformed)?;
            if largest.insert(scope, token).is_some() {
                return Err(malformed());
            }
        }
        if !text.is_empty() && !text.ends_with('\n') {
            // The last line may have lost its end, and with it some digits.
            return Err(MalformedGate { line: text.lines().count() });
        }
        let scopes_max = scopes_max.max(largest.len());
        Ok(Gate { largest, scopes_max })
    }
}

/// What was to be read as a gate is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("line {line} is no whole fence such as lock:jobs;33, or its scope came before")]
pub struct MalformedGate {
    /// The line, counted from 1.
    pub line: usize,
}

fn read(line: &str) -> Option<(Scope, i64)> {
    let (scope, token) = line.rsplit_once(';')?;
    let (kind, name) = scope.split_once(':')?;
    let name = Bytes::from(percent_decode(name)?);
    let scope = match kind {
        "key" => Scope::Key(name),
        "lock" => Scope::Lock(name),
        _ => return None,
    };
    let token = token.parse().ok().filter(|token| *token > 0)?;
    Some((scope, token))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(name: &'static str) -> Scope {
        Scope::Lock(name.into())
    }

    #[test]
    fn smaller_tokens_are_refused_and_equal_ones_pass() {
        let mut gate = Gate::new(10);
        assert_eq!(gate.pass(&lock("a"), 5), Ok(Passed::Larger));
        assert_eq!(gate.pass(&lock("a"), 5), Ok(Passed::Known));
        assert_eq!(gate.pass(&lock("a"), 9), Ok(Passed::Larger));
        let stale = |presented| Err(Refusal::Stale { scope: lock("a"), presented, largest: 9 });
        assert_eq!(gate.pass(&lock("a"), 5), stale(5));
        assert_eq!(gate.pass(&lock("a"), 8), stale(8));
        assert_eq!(gate.pass(&lock("a"), 9), Ok(Passed::Known));
        // Other scopes have tokens of their own, also the key of the lock's name.
        assert_eq!(gate.pass(&lock("b"), 1), Ok(Passed::Larger));
        assert_eq!(gate.pass(&Scope::Key("a".into()), 1), Ok(Passed::Larger));
        assert_eq!(gate.largest(&lock("a")), Some(9));
    }

    #[test]
    fn a_look_changes_nothing() {
        let mut gate = Gate::new(10);
        assert_eq!(gate.check(&lock("a"), 7), Ok(Passed::Larger));
        assert_eq!(gate.largest(&lock("a")), None);
        assert_eq!(gate.pass(&lock("a"), 3), Ok(Passed::Larger));
        assert!(gate.check(&lock("a"), 2).is_err());
        for token in [0, -1, i64::MIN] {
            assert_eq!(gate.pass(&lock("c"), token), Err(Refusal::NoToken(token)));
        }
    }

    #[test]
    fn a_full_gate_forgets_nobody() {
        let mut gate = Gate::new(2);
        assert!(gate.pass(&lock("a"), 1).is_ok() && gate.pass(&lock("b"), 2).is_ok());
        assert_eq!(gate.pass(&lock("c"), 3), Err(Refusal::Full(2)));
        assert_eq!(gate.pass(&lock("a"), 4), Ok(Passed::Larger), "those that are known go on");
    }

    #[test]
    fn it_is_read_back_as_it_was() {
        let mut gate = Gate::new(10);
        for (scope, token) in
            [(lock("jobs"), 33), (Scope::Key(Bytes::from_static(b"a;\n\xff")), i64::MAX), (lock(""), 1)]
        {
            assert!(gate.pass(&scope, token).is_ok());
        }
        let text = gate.encode();
        assert_eq!(text, "key:a%3B%0A%FF;9223372036854775807\nlock:;1\nlock:jobs;33\n");
        assert_eq!(Gate::decode(&text, 10), Ok(gate.clone()));
        assert_eq!(Gate::decode(&text, 1).map(|gate| gate.largest.len()), Ok(3), "what is known is kept");
        assert_eq!(Gate::decode("", 10), Ok(Gate::new(10)));
    }

    #[test]
    fn half_a_gate_is_none() {
        for (text, line) in [
            ("lock:jobs;33", 1),
            ("lock:jobs;33\nlock:jobs", 2),
            ("lock:jobs;33\nlock:jobs;34\n", 2),
            ("lock:jobs;0\n", 1),
            ("lock:jobs;x\n", 1),
            ("jobs;33\n", 1),
            ("door:jobs;33\n", 1),
            ("lock:%zz;33\n", 1),
            ("\n", 1),
        ] {
            assert_eq!(Gate::decode(text, 10), Err(MalformedGate { line }), "{text:?}");
        }
    }
}
