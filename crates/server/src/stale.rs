//! Fences that can never hold again, as one state shows it: what the gate may refuse before consensus.
//!
//! It knows no gRPC, so that the simulator asks the same question.

use ringfence_canary::Canary;
use ringfence_store::{ReadError, View};
use ringfence_types::{Command, Conditional, Fence, KeyRange, RangeQuery, Rejection, Revision, Scope};

/// The refusal that every later state must repeat, if there is one: of a write without a session, whose answer nobody keeps.
pub(crate) fn refusal(command: &Command, view: &View) -> Result<Option<Rejection>, ReadError> {
    let Command::Conditional(Conditional { fences, session: None, .. }) = command else { return Ok(None) };
    for fence in fences {
        let in_force = in_force(view, &fence.scope)?;
        if is_over(fence, in_force, view.revision()) {
            let Fence { scope, token } = fence.clone();
            return Ok(Some(Rejection::StaleFence { scope, presented: token, in_force }));
        }
    }
    Ok(None)
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
    (fence.token <= revision || Canary::LaggardRefuses.sings())
        && match (&fence.scope, in_force) {
            (_, None) => true,
            // The oldest candidate is in force: all others are larger, and one of them may be this waiter's.
            (Scope::Lock(_), Some(token)) => fence.token < token,
            (Scope::Key(_), Some(token)) => fence.token != token,
        }
}

#[cfg(test)]
mod tests {
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
}
