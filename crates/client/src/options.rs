//! What a caller may choose, and how an endpoint is written.

use std::time::Duration;

use crate::{Error, Reads};

/// How a client behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// Longest that one call may take, all its attempts together.
    pub timeout: Duration,
    /// Longest that the making of one connection may take.
    pub connect_timeout: Duration,
    /// Connections to each node; calls take them in turn.
    pub connections_per_node: usize,
    /// Wait before the second round of attempts; it doubles with each further round.
    pub backoff_min: Duration,
    /// Longest wait between two rounds of attempts.
    pub backoff_max: Duration,
    /// Largest answer accepted.
    pub response_bytes_max: usize,
    /// How reads are made, where a request does not say it.
    pub reads: Reads,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(1),
            connections_per_node: 1,
            backoff_min: Duration::from_millis(10),
            backoff_max: Duration::from_millis(250),
            response_bytes_max: 1 << 30,
            reads: Reads::default(),
        }
    }
}

/// The `host:port` of an endpoint, which may be written as a URL.
///
/// # Errors
/// [`Error::BadEndpoint`] where it is empty, asks for TLS or has no port.
pub fn endpoint_authority(endpoint: &str) -> Result<String, Error> {
    let bad = |reason: &str| Error::BadEndpoint { endpoint: endpoint.to_owned(), reason: reason.to_owned() };
    let trimmed = endpoint.trim();
    if trimmed.starts_with("https://") {
        return Err(bad("TLS is not supported; write http://host:port or host:port"));
    }
    let authority = trimmed.strip_prefix("http://").unwrap_or(trimmed).trim_end_matches('/');
    let Some((host, port)) = authority.rsplit_once(':') else {
        return Err(bad("it has no port; write host:port, such as 127.0.0.1:2379"));
    };
    if host.is_empty() || (host.contains(':') && !host.starts_with('[')) {
        return Err(bad("it has no host; write host:port, an IPv6 address in brackets"));
    }
    match port.parse::<u16>() {
        Ok(port) if port != 0 => Ok(authority.to_owned()),
        _ => Err(bad("its port is not a number from 1 to 65535")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_understood_with_and_without_a_scheme() {
        for (written, expected) in [
            ("127.0.0.1:2379", Some("127.0.0.1:2379")),
            (" http://db.example:1/ ", Some("db.example:1")),
            ("[::1]:2379", Some("[::1]:2379")),
            ("::1:2379", None),
            ("https://db.example:1", None),
            ("db.example", None),
            (":2379", None),
            ("a:0", None),
            ("a:65536", None),
            ("", None),
        ] {
            assert_eq!(endpoint_authority(written).ok().as_deref(), expected, "{written:?}");
        }
    }
}
