//! The head: the newest rows, in memory.
//!
//! Rows are only ever added. A reader ignores rows above its own revision, so that a batch becomes visible when its
//! revision is published, and not before.

use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::atomic::{self, AtomicUsize};

use bytes::Bytes;
use crossbeam_skiplist::SkipMap;
use crossbeam_skiplist::map::Entry;
use parking_lot::RwLock;
use ringfence_types::{RangeEnd, Revision};

use crate::row::{Change, Row, Stamp};

/// What a row takes in memory beside its key, its value and the entry it came in: nodes, counters and copies of fields.
const ROW_OVERHEAD_BYTES: usize = 400;

/// Rows by key, newest first, and the same rows by time.
#[derive(Debug, Default)]
pub(crate) struct Head {
    index: SkipMap<HeadKey, HeadRow>,
    history: RwLock<Vec<Change>>,
    bytes: AtomicUsize,
}

#[derive(Debug, PartialEq, Eq)]
struct HeadKey {
    key: Bytes,
    stamp: Stamp,
}

#[derive(Debug)]
struct HeadRow {
    row: Row,
    value: Bytes,
}

impl Ord for HeadKey {
    fn cmp(&self, other: &HeadKey) -> Ordering {
        self.key.cmp(&other.key).then_with(|| other.stamp.cmp(&self.stamp))
    }
}

impl PartialOrd for HeadKey {
    fn partial_cmp(&self, other: &HeadKey) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Head {
    /// Adds the changes of one command. `entry_bytes` is the size of the entry that they came in: their keys and values
    /// are parts of it and keep the whole of it in memory.
    pub fn insert(&self, changes: Vec<Change>, entry_bytes: usize) {
        let mut history = self.history.write();
        let parts: usize = changes.iter().map(|change| change.key.len() + change.value.len()).sum();
        let bytes = parts.max(entry_bytes) + changes.len() * ROW_OVERHEAD_BYTES;
        for change in changes {
            assert!(
                history.last().is_none_or(|last| last.row.stamp < change.row.stamp),
                "changes enter the head in the order of their stamps"
            );
            let key = HeadKey { key: change.key.clone(), stamp: change.row.stamp };
            self.index.insert(key, HeadRow { row: change.row, value: change.value.clone() });
            history.push(change);
        }
        self.bytes.fetch_add(bytes, atomic::Ordering::Relaxed);
    }

    /// Memory that the head takes.
    pub fn bytes(&self) -> usize {
        self.bytes.load(atomic::Ordering::Relaxed)
    }

    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// The newest version of `key` at `revision`, tombstones included, if the head has one.
    pub fn newest(&self, key: &Bytes, revision: Revision) -> Option<(Row, Bytes)> {
        let probe = HeadKey { key: key.clone(), stamp: Stamp::last_of(revision) };
        let entry = self.index.lower_bound(Bound::Included(&probe))?;
        (entry.key().key == *key).then(|| (entry.value().row, entry.value().value.clone()))
    }

    /// The keys of a range, each at its newest version at `revision`, tombstones included.
    pub fn cursor<'a>(
        &'a self,
        start: Bound<&Bytes>,
        end: &'a RangeEnd,
        revision: Revision,
    ) -> HeadCursor<'a> {
        let probe = |key: &Bytes, stamp| HeadKey { key: key.clone(), stamp };
        let entry = match start {
            Bound::Included(key) => {
                self.index.lower_bound(Bound::Included(&probe(key, Stamp::last_of(Revision(i64::MAX)))))
            }
            Bound::Excluded(key) => self.index.lower_bound(Bound::Excluded(&probe(key, Stamp::MIN))),
            Bound::Unbounded => self.index.front(),
        };
        let mut cursor = HeadCursor { head: self, entry, end, revision };
        cursor.settle();
        cursor
    }

    /// Every version of every key, by key, newest first.
    pub fn versions(&self) -> impl Iterator<Item = (Bytes, Row)> {
        self.index.iter().map(|entry| (entry.key().key.clone(), entry.value().row))
    }

    /// The same from behind one version on; all of them for none.
    pub fn versions_after(&self, after: Option<(&[u8], Stamp)>) -> impl Iterator<Item = (Bytes, Row)> {
        let after = after.map(|(key, stamp)| HeadKey { key: Bytes::copy_from_slice(key), stamp });
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.index.range((from, Bound::Unbounded)).map(|entry| (entry.key().key.clone(), entry.value().row))
    }

    /// The value of the version that a key got at `stamp`.
    pub fn value(&self, key: &[u8], stamp: Stamp) -> Option<Bytes> {
        let entry = self.index.get(&HeadKey { key: Bytes::copy_from_slice(key), stamp })?;
        Some(entry.value().value.clone())
    }

    /// The first `count_max` changes from `from` on, in order of time. They are copied out, so that nobody who looks at
    /// them holds up apply.
    pub fn changes_from(&self, from: Stamp, count_max: usize) -> Vec<Change> {
        let history = self.history.read();
        let first = history.partition_point(|change| change.row.stamp < from);
        history[first..].iter().take(count_max).cloned().collect()
    }
}

/// Walks over keys, standing at one version of each.
pub(crate) struct HeadCursor<'a> {
    head: &'a Head,
    entry: Option<Entry<'a, HeadKey, HeadRow>>,
    end: &'a RangeEnd,
    revision: Revision,
}

impl HeadCursor<'_> {
    pub fn key(&self) -> Option<&Bytes> {
        self.entry.as_ref().map(|entry| &entry.key().key)
    }

    pub fn row(&self) -> Option<(Row, &Bytes)> {
        self.entry.as_ref().map(|entry| (entry.value().row, &entry.value().value))
    }

    /// Goes to the next key that has a version at the revision.
    pub fn advance(&mut self) {
        let Some(entry) = &self.entry else { return };
        let past = HeadKey { key: entry.key().key.clone(), stamp: Stamp::MIN };
        // One step is enough for a key with one version; a key with many is passed by one search.
        let next = entry.next();
        self.entry = match next {
            Some(next) if next.key().key == past.key => self.head.index.lower_bound(Bound::Excluded(&past)),
            next => next,
        };
        self.settle();
    }

    /// From a key's first version on, finds the first one that is visible; goes on to later keys where there is none.
    fn settle(&mut self) {
        while let Some(entry) = &self.entry {
            let key = entry.key();
            let beyond = match self.end {
                RangeEnd::Before(end) => key.key >= *end,
                RangeEnd::Single | RangeEnd::Unbounded => false,
            };
            if beyond {
                self.entry = None;
                return;
            }
            if key.stamp.revision <= self.revision {
                return;
            }
            // Rows above the revision are those of batches that are being applied, or of a state younger than the
            // reader's: the search passes them at once. It may land on a later key, whose newest row is judged again.
            let probe = HeadKey { key: key.key.clone(), stamp: Stamp::last_of(self.revision) };
            self.entry = self.head.index.lower_bound(Bound::Included(&probe));
        }
    }
}
