//! Headers of HTTP as metadata of gRPC, and back.

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// What stands before the name of any other metadata, as etcd's gateway has it.
const PREFIX: &str = "grpc-metadata-";
/// Our own metadata go by their own names.
const OURS: &str = "ringfence-";
/// The metadata that says who calls; `Authorization` for users of the gateway.
const TOKEN: HeaderName = HeaderName::from_static("token");

/// Puts what a request's headers mean to the call beside what every call of gRPC has.
pub(super) fn put_into(given: &HeaderMap, metadata: &mut HeaderMap) {
    for (name, value) in given {
        let name = name.as_str();
        if let Some(named) = name.strip_prefix(PREFIX) {
            // What the protocol itself says is not the caller's to say.
            if !named.starts_with("grpc-")
                && ![header::CONTENT_TYPE.as_str(), header::TE.as_str()].contains(&named)
                && let Ok(named) = HeaderName::try_from(named)
            {
                metadata.append(named, value.clone());
            }
        } else if name.starts_with(OURS) || name == "grpc-timeout" {
            metadata.append(HeaderName::try_from(name).expect("it was one"), value.clone());
        }
    }
    if let Some(value) = given.get(header::AUTHORIZATION) {
        metadata.insert(TOKEN, value.clone());
    }
    metadata.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    metadata.insert(header::TE, HeaderValue::from_static("trailers"));
}

/// Gives the metadata of an answer that are ours as headers.
pub(super) fn give_back(metadata: &HeaderMap, headers: &mut HeaderMap) {
    for (name, value) in metadata {
        if name.as_str().starts_with(OURS) {
            headers.append(name.clone(), value.clone());
        }
    }
}

/// Whether a browser sends the request on behalf of a page that is not this server's own. Any page that somebody looks at could
/// otherwise write into a server on their machine.
pub(super) fn is_of_another_origin(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return false };
    let host = headers.get(header::HOST).map(HeaderValue::as_bytes);
    let authority = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    authority.is_none_or(|(_, authority)| Some(authority.as_bytes()) != host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn what_is_meant_for_the_call_reaches_it_and_nothing_else() {
        let given = headers(&[
            ("ringfence-fence", "lock:a;1"),
            ("grpc-metadata-hasleader", "true"),
            ("grpc-metadata-grpc-encoding", "gzip"),
            ("grpc-metadata-content-type", "text/html"),
            ("grpc-timeout", "5S"),
            ("authorization", "secret"),
            ("content-type", "application/json"),
            ("content-length", "7"),
            ("cookie", "x"),
        ]);
        let mut metadata = HeaderMap::new();
        put_into(&given, &mut metadata);
        let expected = headers(&[
            ("ringfence-fence", "lock:a;1"),
            ("hasleader", "true"),
            ("grpc-timeout", "5S"),
            ("token", "secret"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ]);
        assert_eq!(metadata, expected);
        let mut back = HeaderMap::new();
        give_back(
            &headers(&[("ringfence-age", "5"), ("grpc-status", "0"), ("content-type", "x")]),
            &mut back,
        );
        assert_eq!(back, headers(&[("ringfence-age", "5")]));
    }

    #[test]
    fn pages_of_others_are_known_by_their_origin() {
        assert!(!is_of_another_origin(&headers(&[("host", "127.0.0.1:2379")])));
        let own = [("host", "127.0.0.1:2379"), ("origin", "http://127.0.0.1:2379")];
        assert!(!is_of_another_origin(&headers(&own)));
        for origin in ["http://example.org", "http://127.0.0.1:8080", "null", "http://127.0.0.1:23790"] {
            assert!(is_of_another_origin(&headers(&[("host", "127.0.0.1:2379"), ("origin", origin)])));
        }
        assert!(is_of_another_origin(&headers(&[("origin", "http://127.0.0.1:2379")])));
    }
}
