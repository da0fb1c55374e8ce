//! The gate before consensus: it may only reject, and only what every later step would have to reject too.

use prost::Message;
use ringfence_consensus::Node;
use ringfence_proto::extension::ExtensionError;
use ringfence_proto::metadata::Carried;
use ringfence_types::Command;
use ringfence_types::limits::REQUEST_BYTES_MAX;
use tonic::metadata::{KeyAndValueRef, MetadataMap};

use crate::stale;
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

/// What a call begins with that may change something and takes no extensions: as [`leader`], and it is refused where its metadata
/// carry some, since its client counts on them.
pub(crate) fn unextended(metadata: &MetadataMap, node: &Node) -> Result<(), Trouble> {
    leader(metadata, node)?;
    Ok(carried(metadata)?.refuse()?)
}

/// Whether a call requires a leader: it is refused where none is known, and a stream ends when none is for a while.
pub(crate) fn wants_leader(metadata: &MetadataMap) -> bool {
    metadata.get("hasleader").is_some_and(|value| value.as_bytes() == b"true")
}

/// The extensions that the metadata of a call carries which may change something.
pub(crate) fn carried(metadata: &MetadataMap) -> Result<Carried, ExtensionError> {
    Carried::read(metadata.iter().map(|pair| match pair {
        KeyAndValueRef::Ascii(key, value) => (key.as_str(), value.as_bytes()),
        KeyAndValueRef::Binary(key, value) => (key.as_str(), value.as_encoded_bytes()),
    }))
}

/// Refuses a write whose fence can never hold again. A token that the state has not reached yet passes, and so does a
/// waiter's. A write of a session always passes, since it may be the retry of one that was applied while the fence held.
pub(crate) fn fences(command: &Command, node: &Node) -> Result<(), Trouble> {
    // A state that is not believed refuses nothing.
    let Ok(view) = node.believed_view() else { return Ok(()) };
    stale::refusal(command, &view)?.map_or(Ok(()), |rejection| Err(Trouble::StaleAtGate(rejection)))
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
