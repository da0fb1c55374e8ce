//! The gate before consensus: it may only reject, and only what every later step would have to reject too.

use prost::Message;
use ringfence_consensus::Node;
use ringfence_types::limits::REQUEST_BYTES_MAX;
use tonic::metadata::MetadataMap;

use crate::status::Trouble;

/// Refuses a request that is larger than any may be.
pub(crate) fn size(request: &impl Message) -> Result<(), Trouble> {
    let size = request.encoded_len();
    if size > REQUEST_BYTES_MAX { Err(Trouble::TooLarge { size, max: REQUEST_BYTES_MAX }) } else { Ok(()) }
}

/// Refuses a call that requires a leader where none is known.
pub(crate) fn leader(metadata: &MetadataMap, node: &Node) -> Result<(), Trouble> {
    if wants_leader(metadata) && node.leader().is_none() { Err(Trouble::LeaderRequired) } else { Ok(()) }
}

/// Whether a call requires a leader: it is refused where none is known, and a stream ends when none is for a while.
pub(crate) fn wants_leader(metadata: &MetadataMap) -> bool {
    metadata.get("hasleader").is_some_and(|value| value.as_bytes() == b"true")
}

#[cfg(test)]
mod tests {
    use ringfence_proto::etcdserverpb::PutRequest;

    use super::*;

    #[test]
    fn the_bound_is_on_the_encoded_request() {
        let put =
            |bytes: usize| PutRequest { key: "k".into(), value: vec![0; bytes].into(), ..Default::default() };
        // Three bytes of key and four of the value's tag and length stand around the value.
        assert!(size(&put(REQUEST_BYTES_MAX - 7)).is_ok());
        assert!(matches!(
            size(&put(REQUEST_BYTES_MAX - 6)),
            Err(Trouble::TooLarge { size, max }) if size == REQUEST_BYTES_MAX + 1 && max == REQUEST_BYTES_MAX
        ));
    }
}
