//! The history as events, in order of time: what watches will read.

use ringfence_types::{Event, Rejection, Revision};

use crate::error::{ReadError, StoreError};
use crate::file::guarded;
use crate::layout;
use crate::row::{Change, Stamp};
use crate::view::View;

/// Changes that are copied out of a head at a time.
const CHANGES_A_TIME: usize = 256;

/// A part of the history: whole revisions, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventChunk {
    /// What happened.
    pub events: Vec<Event>,
    /// The revision from which the history goes on.
    pub next: Revision,
}

impl View {
    /// The events from revision `from` on, up to the view's revision: no further, once there are `events_max` of them,
    /// than the end of the revision under way, since events of one revision belong together.
    ///
    /// # Errors
    /// Refused where a part of what is asked for has been compacted.
    pub fn events(&self, from: Revision, events_max: usize) -> Result<EventChunk, ReadError> {
        if from < self.state.compacted {
            return Err(Rejection::Compacted { oldest: self.state.compacted }.into());
        }
        let mut chunk = EventChunk { events: Vec::new(), next: self.state.revision.next() };
        let mut visit = |change: &Change| {
            let revision = change.row.stamp.revision;
            if chunk.events.len() >= events_max.max(1)
                && chunk.events.last().is_some_and(|last| last.kv.mod_revision != revision)
            {
                chunk.next = revision;
                return Ok(false);
            }
            chunk.events.push(change.event());
            Ok(true)
        };
        guarded(|| self.changes(Stamp { revision: from, sub: 0 }, &mut visit))?;
        Ok(chunk)
    }

    /// Calls `visit` with each change from `from` on, for as long as it asks for more.
    fn changes(
        &self,
        from: Stamp,
        visit: &mut dyn FnMut(&Change) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        for entry in self.sources.base.history_from(from)? {
            let (stamp, value) = entry?;
            let stamp = layout::decode_stamp(stamp.value())?;
            if !visit(&layout::decode_history_row(stamp, value.value())?.to_change())? {
                return Ok(());
            }
        }
        for head in [self.sources.frozen.as_ref(), Some(&self.sources.head)].into_iter().flatten() {
            let mut from = from;
            loop {
                let changes = head.changes_from(from, CHANGES_A_TIME);
                let Some(last) = changes.last() else { break };
                from = last.row.stamp.after();
                for change in &changes {
                    if change.row.stamp.revision > self.state.revision || !visit(change)? {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }
}
