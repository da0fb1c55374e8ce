//! How far into a cluster's history a client has seen, in a form that can be handed on.

use std::fmt;
use std::str::FromStr;

use ringfence_proto::etcdserverpb::ResponseHeader;
use thiserror::Error;

/// A position in a cluster's history. Whoever reads at this position or a later one sees everything that its first owner has
/// written or read.
///
/// As text it is `CLUSTER.REVISION`, such as `00c0ffee00c0ffee.42`: safe in a header, a URL or a cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CausalToken {
    /// The cluster's id: positions of different clusters have nothing to do with each other.
    pub cluster_id: u64,
    /// The store's revision.
    pub revision: i64,
}

/// The text is no causal token.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is no causal token: it is sixteen hexadecimal digits, a point and a revision above 0")]
pub struct MalformedToken(pub String);

impl CausalToken {
    /// The position at which an answer was given; none where the answer does not tell.
    pub(crate) fn of(header: &ResponseHeader) -> Option<CausalToken> {
        let ResponseHeader { cluster_id, revision, .. } = *header;
        (revision > 0).then_some(CausalToken { cluster_id, revision })
    }
}

impl fmt::Display for CausalToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}.{}", self.cluster_id, self.revision)
    }
}

impl FromStr for CausalToken {
    type Err = MalformedToken;

    fn from_str(text: &str) -> Result<CausalToken, MalformedToken> {
        let read = || {
            let (cluster, revision) = text.split_once('.')?;
            let is_plain = cluster.len() == 16
                && cluster.bytes().all(|byte| byte.is_ascii_hexdigit())
                && revision.bytes().all(|byte| byte.is_ascii_digit());
            let cluster_id = u64::from_str_radix(cluster, 16).ok()?;
            let revision = revision.parse().ok()?;
            (is_plain && revision > 0).then_some(CausalToken { cluster_id, revision })
        };
        read().ok_or_else(|| MalformedToken(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_back_from_its_text() {
        for token in [
            CausalToken { cluster_id: 0xc0ffee, revision: 1 },
            CausalToken { cluster_id: u64::MAX, revision: i64::MAX },
        ] {
            assert_eq!(token.to_string().parse(), Ok(token));
        }
        assert_eq!(CausalToken { cluster_id: 0xc0ffee, revision: 42 }.to_string(), "0000000000c0ffee.42");
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
            "0000000000c0ffee.42.1",
        ] {
            assert_eq!(text.parse::<CausalToken>(), Err(MalformedToken(text.to_owned())), "{text:?}");
        }
    }
}
