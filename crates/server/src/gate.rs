//! The gate before consensus: it may only reject, and only what every later step would have to reject too.

use prost::Message;
use ringfence_consensus::Node;
use ringfence_proto::extension::ExtensionError;
use ringfence_proto::metadata::Carried;
use ringfence_store::{ReadError, View};
use ringfence_types::limits::REQUEST_BYTES_MAX;
use ringfence_types::{Command, Conditional, Fence, KeyRange, RangeQuery, Rejection, Revision, Scope};
use tonic::metadata::{KeyAndValueRef, MetadataMap};

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
    let Command::Conditional(Conditional { fences, session: None, .. }) = command else { return Ok(()) };
    // A state that is not believed refuses nothing.
    let Ok(view) = node.believed_view() else { return Ok(()) };
    for fence in fences {
        let in_force = in_force(&view, &fence.scope)?;
        if is_over(fence, in_force, view.revision()) {
            let Fence { scope, token } = fence.clone();
            return Err(Trouble::StaleAtGate(Rejection::StaleFence { scope, presented: token, in_force }));
        }
    }
    Ok(())
}

/// The token in force for a scope.
fn in_force(view: &View, scope: &Scope) -> Result<Option<Revision>, ReadError> {
    match scope {
        Scope::Lock(name) => Ok(view.holder(name)?.map(|holder| holder.token)),
        Scope::Key(key) => {
            let found = view.range(&RangeQuery::new(KeyRange::single(key.clone())))?;
            Ok(found.kvs.first().map(|kv| kv.create_revision))
        }
    }
}

/// Whether a fence will hold in no state after one at `revision` with this token in force: the key with its token is gone.
fn is_over(fence: &Fence, in_force: Option<Revision>, revision: Revision) -> bool {
    // Keys that are created later get larger tokens than this.
    fence.token <= revision
        && match (&fence.scope, in_force) {
            (_, None) => true,
            // The oldest candidate is in force: all others are larger, and one of them may be this waiter's.
            (Scope::Lock(_), Some(token)) => fence.token < token,
            (Scope::Key(_), Some(token)) => fence.token != token,
        }
}

#[cfg(test)]
mod tests {
    use ringfence_proto::etcdserverpb::PutRequest;

    use super::*;

    #[test]
    fn a_fence_is_over_only_if_its_key_is_gone_for_good() {
        let lock = |token| Fence { scope: Scope::Lock("jobs".into()), token: Revision(token) };
        let key = |token| Fence { scope: Scope::Key("k".into()), token: Revision(token) };
        let at = Revision(20);
        for (fence, in_force, expected) in [
            (lock(10), Some(10), false),
            (lock(9), Some(10), true),
            (lock(15), Some(10), false),
            (lock(21), Some(10), false),
            (lock(10), None, true),
            (lock(20), None, true),
            (lock(21), None, false),
            (key(10), Some(10), false),
            (key(9), Some(10), true),
            (key(15), Some(10), true),
            (key(21), Some(10), false),
            (key(10), None, true),
            (key(21), None, false),
        ] {
            assert_eq!(is_over(&fence, in_force.map(Revision), at), expected, "{fence:?} with {in_force:?}");
        }
    }

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
