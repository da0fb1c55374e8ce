//! The way of a watch that is not up to date: it reads the history, a bounded part at a time and each from a view of its own, at
//! the pace at which its client takes what was read.

use std::sync::Arc;

use ringfence_consensus::rt;
use ringfence_store::{EventQuery, ReadError, View};
use ringfence_types::{Rejection, Revision};

use super::group::Interest;
use super::hub::pieces_of;
use super::limits::{CHUNK_BYTES_MAX, CHUNK_EVENTS_MAX, CHUNK_LOOKED_MAX, UNREADABLE_PAUSE};
use super::outbox::WatchKey;
use super::wire::Piece;
use crate::served::Served;
use crate::status::Trouble;

/// A part of the history for one watch.
#[derive(Debug)]
pub(super) enum Part {
    /// Its events, and the revision from which the history goes on.
    Events { pieces: Vec<Piece>, next: Revision },
    /// A part of what it wants is gone: only from this revision on there is everything.
    Compacted { oldest: Revision },
}

/// Reads the next part of the history for a watch. While the state cannot be read or is not believed, it waits.
pub(super) async fn read(
    served: Served,
    watch: WatchKey,
    interest: Arc<Interest>,
    from: Revision,
) -> (WatchKey, Part) {
    loop {
        let interest = Arc::clone(&interest);
        match served.read_long(move |view| part(view, &interest, from)).await {
            Ok((pieces, next)) => return (watch, Part::Events { pieces, next }),
            Err(Trouble::Read(ReadError::Rejected(Rejection::Compacted { oldest }))) => {
                return (watch, Part::Compacted { oldest });
            }
            Err(trouble) => {
                drop(served.status(&trouble));
                rt::sleep(UNREADABLE_PAUSE).await;
            }
        }
    }
}

fn part(view: &View, interest: &Interest, from: Revision) -> Result<(Vec<Piece>, Revision), ReadError> {
    let chunk = view.events_of(&EventQuery {
        from,
        range: &interest.range,
        puts: interest.puts,
        deletes: interest.deletes,
        events_max: CHUNK_EVENTS_MAX,
        bytes_max: CHUNK_BYTES_MAX,
        looked_max: CHUNK_LOOKED_MAX,
    })?;
    Ok((pieces_of(view, &chunk.events, interest.prev_kv)?, chunk.next))
}
