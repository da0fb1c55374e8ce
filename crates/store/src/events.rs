//! The history as events, in order of time: what watches read.

use std::ops::Bound;

use bytes::Bytes;
use ringfence_types::{Event, EventKind, KeyRange, KeyValue, RangeEnd, Rejection, Revision};

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

/// Which events are wanted, and how much of the history is read for them at a time.
#[derive(Debug, Clone, Copy)]
pub struct EventQuery<'a> {
    /// The first revision.
    pub from: Revision,
    /// The keys.
    pub range: &'a KeyRange,
    /// Whether puts are wanted.
    pub puts: bool,
    /// Whether deletions are wanted.
    pub deletes: bool,
    /// No further, once there are so many events.
    pub events_max: usize,
    /// No further, once their keys and values have so many bytes.
    pub bytes_max: usize,
    /// No further, once so many changes were looked at, wanted or not.
    pub looked_max: usize,
}

impl<'a> EventQuery<'a> {
    /// All events of a range from a revision on, as many as there are.
    #[must_use]
    pub fn new(range: &'a KeyRange, from: Revision) -> EventQuery<'a> {
        let (events_max, bytes_max, looked_max) = (usize::MAX, usize::MAX, usize::MAX);
        EventQuery { from, range, puts: true, deletes: true, events_max, bytes_max, looked_max }
    }

    fn wants(&self, deleted: bool, key: &[u8]) -> bool {
        (if deleted { self.deletes } else { self.puts }) && self.range.contains(key)
    }
}

/// Takes changes in order of time, for as long as the chunk has room.
struct Collector<'a> {
    query: EventQuery<'a>,
    chunk: EventChunk,
    bytes: usize,
    looked: usize,
    /// The revision of the last change looked at.
    under_way: Option<Revision>,
}

impl Collector<'_> {
    /// Whether a change of this revision still belongs to the chunk: the one under way always does, since events of one
    /// revision belong together.
    fn goes_on(&mut self, revision: Revision) -> bool {
        if self.under_way != Some(revision) {
            let is_full = self.chunk.events.len() >= self.query.events_max.max(1)
                || self.bytes >= self.query.bytes_max
                || self.looked >= self.query.looked_max;
            if is_full && self.under_way.is_some() {
                self.chunk.next = revision;
                return false;
            }
            self.under_way = Some(revision);
        }
        self.looked += 1;
        true
    }

    fn push(&mut self, event: Event) {
        self.bytes += event.kv.key.len() + event.kv.value.len();
        self.chunk.events.push(event);
    }
}

impl View {
    /// The events from revision `from` on, up to the view's revision: no further, once there are `events_max` of them,
    /// than the end of the revision under way, since events of one revision belong together.
    ///
    /// # Errors
    /// Refused where a part of what is asked for has been compacted.
    pub fn events(&self, from: Revision, events_max: usize) -> Result<EventChunk, ReadError> {
        self.events_of(&EventQuery { events_max, ..EventQuery::new(&KeyRange::all(), from) })
    }

    /// The wanted events from a revision on, up to the view's revision: once there are enough of them, no further than the
    /// end of the revision under way, since events of one revision belong together. Those of a single key are found
    /// without a look at the others.
    ///
    /// # Errors
    /// Refused where a part of what is asked for has been compacted.
    pub fn events_of(&self, query: &EventQuery<'_>) -> Result<EventChunk, ReadError> {
        if query.from < self.state.compacted {
            return Err(Rejection::Compacted { oldest: self.state.compacted }.into());
        }
        let chunk = EventChunk { events: Vec::new(), next: self.state.revision.next().max(query.from) };
        let mut collector = Collector { query: *query, chunk, bytes: 0, looked: 0, under_way: None };
        let read = || match query.range.end {
            RangeEnd::Single => self.collect_key(&mut collector),
            RangeEnd::Before(_) | RangeEnd::Unbounded => self.collect_range(&mut collector),
        };
        guarded(read)?;
        Ok(collector.chunk)
    }

    /// The key as it was before an event; none where it did not exist, or is not known any more.
    ///
    /// # Errors
    /// Where the state cannot be read.
    pub fn before(&self, event: &Event) -> Result<Option<KeyValue>, ReadError> {
        let KeyValue { key, create_revision, mod_revision, .. } = &event.kv;
        let before = Revision(mod_revision.0 - 1);
        if (event.kind == EventKind::Put && create_revision == mod_revision) || before < self.state.compacted
        {
            return Ok(None);
        }
        let Some(found) = self.sources.newest(None, key, before)?.filter(|found| !found.row.deleted) else {
            return Ok(None);
        };
        let value = self.sources.value(key, &found)?;
        Ok(Some(found.row.key_value(key.clone(), value)))
    }

    fn collect_range(&self, collector: &mut Collector<'_>) -> Result<(), StoreError> {
        let mut from = Stamp { revision: collector.query.from, sub: 0 };
        if from.revision <= self.sources.base.state.revision {
            for entry in self.sources.base.history_from(from)? {
                let (stamp, value) = entry?;
                let stamp = layout::decode_stamp(stamp.value())?;
                if !collector.goes_on(stamp.revision) {
                    return Ok(());
                }
                let (deleted, key) = layout::peek_history_row(value.value())?;
                if collector.query.wants(deleted, key) {
                    collector
                        .push(layout::decode_history_row(stamp, value.value())?.to_change().into_event());
                }
            }
        }
        for head in [self.sources.frozen.as_ref(), Some(&self.sources.head)].into_iter().flatten() {
            loop {
                let changes = head.changes_from(from, CHANGES_A_TIME);
                let Some(last) = changes.last() else { break };
                from = last.row.stamp.after();
                for change in changes {
                    let revision = change.row.stamp.revision;
                    if revision > self.state.revision || !collector.goes_on(revision) {
                        return Ok(());
                    }
                    if collector.query.wants(change.row.deleted, &change.key) {
                        collector.push(change.into_event());
                    }
                }
            }
        }
        Ok(())
    }

    fn collect_key(&self, collector: &mut Collector<'_>) -> Result<(), StoreError> {
        let key = collector.query.range.start.clone();
        let from = Stamp { revision: collector.query.from, sub: 0 };
        if from.revision <= self.sources.base.state.revision {
            let newest = layout::index_key(&key, Stamp::last_of(Revision(i64::MAX)));
            let oldest = layout::index_key(&key, from);
            let bounds = (Bound::Included(newest.as_slice()), Bound::Included(oldest.as_slice()));
            for entry in self.sources.base.index.range::<&[u8]>(bounds)?.rev() {
                let (index_key, value) = entry?;
                let row = layout::decode_index_row(index_key.value(), value.value())?;
                if !collector.goes_on(row.stamp.revision) {
                    return Ok(());
                }
                if collector.query.wants(row.deleted, &key) {
                    let value = self.sources.base.value(&key, &row)?;
                    collector.push(Change { key: key.clone(), row, value }.into_event());
                }
            }
        }
        for head in [self.sources.frozen.as_ref(), Some(&self.sources.head)].into_iter().flatten() {
            for (row, value) in head.versions_of(&key, from) {
                if row.stamp.revision > self.state.revision || !collector.goes_on(row.stamp.revision) {
                    return Ok(());
                }
                if collector.query.wants(row.deleted, &key) {
                    collector
                        .push(Change { key: key.clone(), row, value: Bytes::clone(&value) }.into_event());
                }
            }
        }
        Ok(())
    }
}
