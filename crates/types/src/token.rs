//! How far into a cluster's history somebody has seen, in a form that can be handed on.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::key::Revision;
use crate::position::Index;

/// A position in a cluster's history. Whoever reads at this position or a later one sees everything that its first owner has
/// written or read.
///
/// As text it is `CLUSTER.REVISION.INDEX`, such as `00c0ffee00c0ffee.42.97`: safe in a header, a URL or a cookie. The index is left
/// out where it is not known; such a token says nothing of what changes without a revision: leases, guards and sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CausalToken {
    /// The cluster's id: positions of different clusters have nothing to do with each other.
    pub cluster_id: u64,
    /// The store's revision, above 0.
    pub revision: Revision,
    /// The newest entry of the log that was seen; 0 where that is not known.
    pub index: Index,
}

/// The text is no causal token.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{0:?} is no causal token: it is sixteen hexadecimal digits, a point and a revision above 0, and mostly another point and an \
     index above 0"
)]
pub struct MalformedToken(pub String);

impl CausalToken {
    /// The token, if its numbers are those of one.
    #[must_use]
    pub fn new(cluster_id: u64, revision: i64, index: u64) -> Option<CausalToken> {
        let token = CausalToken { cluster_id, revision: Revision(revision), index: Index(index) };
        (revision > 0).then_some(token)
    }

    /// The position that has seen what both have, of one cluster.
    #[must_use]
    pub fn join(self, other: CausalToken) -> CausalToken {
        CausalToken {
            cluster_id: self.cluster_id,
            revision: self.revision.max(other.revision),
            index: self.index.max(other.index),
        }
    }
}

impl fmt::Display for CausalToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}.{}", self.cluster_id, self.revision)?;
        if self.index > Index(0) { write!(f, ".{}", self.index) } else { Ok(()) }
    }
}

impl FromStr for CausalToken {
    type Err = MalformedToken;

    fn from_str(text: &str) -> Result<CausalToken, MalformedToken> {
        read(text).ok_or_else(|| MalformedToken(text.to_owned()))
    }
}

fn read(text: &str) -> Option<CausalToken> {
    let mut parts = text.split('.');
    let cluster = parts.next()?;
    let is_plain = cluster.len() == 16 && cluster.bytes().all(|byte| byte.is_ascii_hexdigit());
    let cluster_id = u64::from_str_radix(cluster, 16).ok().filter(|_| is_plain)?;
    let revision = number(parts.next()?)?;
    let index = parts.next().map_or(Some(0), |index| number(index).filter(|index| *index > 0))?;
    let token = CausalToken::new(cluster_id, i64::try_from(revision).ok()?, index)?;
    parts.next().is_none().then_some(token)
}

/// A number of digits alone: no sign, no spaces.
fn number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(cluster_id: u64, revision: i64, index: u64) -> CausalToken {
        CausalToken::new(cluster_id, revision, index).expect("the revision is above 0")
    }

    #[test]
    fn a_token_is_read_back_from_its_text() {
        for token in [
            token(0xc0ffee, 1, 0),
            token(0xc0ffee, 1, 1),
            token(u64::MAX, i64::MAX, 0),
            token(u64::MAX, i64::MAX, u64::MAX),
        ] {
            assert_eq!(token.to_string().parse(), Ok(token));
        }
        assert_eq!(token(0xc0ffee, 42, 97).to_string(), "0000000000c0ffee.42.97");
        // As tokens were before they had an index.
        assert_eq!("0000000000c0ffee.42".parse(), Ok(token(0xc0ffee, 42, 0)));
        assert_eq!(token(0xc0ffee, 42, 0).to_string(), "0000000000c0ffee.42");
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for text in [
            "",
            "42",
            "c0ffee.42",
            "0000000000c0ffee.",
            "0000000000c0ffee.0",
            "0000000000c0ffee.-1",
            "0000000000c0ffee.+1",
            "+000000000c0ffee.1",
            "0000000000c0ffee.9223372036854775808",
            "0000000000c0ffee.42 ",
            "0000000000c0ffee.42.",
            "0000000000c0ffee.42.0",
            "0000000000c0ffee.42.+1",
            "0000000000c0ffee.42.18446744073709551616",
            "0000000000c0ffee.42.1.1",
            "0000000000c0ffee.0.1",
        ] {
            assert_eq!(text.parse::<CausalToken>(), Err(MalformedToken(text.to_owned())), "{text:?}");
        }
    }

    #[test]
    fn two_positions_joined_are_behind_neither() {
        assert_eq!(token(1, 5, 90).join(token(1, 7, 80)), token(1, 7, 90));
    }
}
