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

/// What a record takes in memory beside its key and its value.
const RECORD_OVERHEAD_BYTES: usize = 176;

/// Rows by key, newest first, and the same rows by time; and records by key, newest first.
#[derive(Debug, Default)]
pub(crate) struct Head {
    index: SkipMap<HeadKey, HeadRow>,
    history: RwLock<Vec<Change>>,
    records: SkipMap<HeadRecordKey, Option<Bytes>>,
    bytes: AtomicUsize,
}

/// A record's version: its key, and the entry that made it.
#[derive(Debug, PartialEq, Eq)]
struct HeadRecordKey {
    /// The first bytes of the key, filled up with zeros: most comparisons of a search end here, without a look at memory
    /// that lies elsewhere.
    front: u128,
    key: Bytes,
    index: u64,
}

impl HeadRecordKey {
    fn new(key: Bytes, index: u64) -> HeadRecordKey {
        let mut front = [0; size_of::<u128>()];
        front.iter_mut().zip(&key[..]).for_each(|(front, byte)| *front = *byte);
        HeadRecordKey { front: u128::from_be_bytes(front), key, index }
    }
}

impl Ord for HeadRecordKey {
    fn cmp(&self, other: &HeadRecordKey) -> Ordering {
        let by_front = self.front.cmp(&other.front);
        by_front.then_with(|| self.key.cmp(&other.key)).then_with(|| other.index.cmp(&self.index))
    }
}

impl PartialOrd for HeadRecordKey {
    fn partial_cmp(&self, other: &HeadRecordKey) -> Option<Ordering> {
        Some(self.cmp(other))
    }
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

    /// Adds what the entry `index` made of a record: none where it removed it.
    pub fn insert_record(&self, key: Bytes, index: u64, value: Option<Bytes>) {
        let bytes = key.len() + value.as_ref().map_or(0, Bytes::len) + RECORD_OVERHEAD_BYTES;
        self.records.insert(HeadRecordKey::new(key, index), value);
        self.bytes.fetch_add(bytes, atomic::Ordering::Relaxed);
    }

    /// A record as it was after the entry `until`, or that it was removed by then, if the head knows of it.
    pub fn record(&self, key: &Bytes, until: u64) -> Option<Option<Bytes>> {
        let probe = HeadRecordKey::new(key.clone(), until);
        let entry = self.records.lower_bound(Bound::Included(&probe))?;
        (entry.key().key == *key).then(|| entry.value().clone())
    }

    /// Whether there are any records.
    pub fn has_records(&self) -> bool {
        !self.records.is_empty()
    }

    /// The records from `start` on, each as it was after the entry `until`.
    pub fn records(&self, start: Bound<&Bytes>, until: u64) -> HeadRecords<'_> {
        let entry = match start {
            Bound::Included(key) => {
                self.records.lower_bound(Bound::Included(&HeadRecordKey::new(key.clone(), u64::MAX)))
            }
            Bound::Excluded(key) => {
                self.records.lower_bound(Bound::Excluded(&HeadRecordKey::new(key.clone(), 0)))
            }
            Bound::Unbounded => self.records.front(),
        };
        HeadRecords { head: self, entry, until }
    }

    /// The newest version of `key` at `revision`, tombstones included, if the head has one.
    pub fn newest(&self, key: &Bytes, revision: Revision) -> Option<(Row, Bytes)> {
        let probe = HeadKey { key: key.clone(), stamp: Stamp::last_of(revision) };
        let entry = self.index.lower_bound(Bound::Included(&probe))?;
        (entry.key().key == *key).then(|| (entry.value().row, entry.value().value.clone()))
    }

    /// The versions of `key` from `from` on, oldest first.
    pub fn versions_of(&self, key: &Bytes, from: Stamp) -> impl Iterator<Item = (Row, Bytes)> {
        let probe = |stamp| Bound::Included(HeadKey { key: key.clone(), stamp });
        let versions = self.index.range((probe(Stamp::last_of(Revision(i64::MAX))), probe(from)));
        versions.rev().map(|entry| (entry.value().row, entry.value().value.clone()))
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

/// Walks over records, by key.
pub(crate) struct HeadRecords<'a> {
    head: &'a Head,
    /// A version of the next key.
    entry: Option<Entry<'a, HeadRecordKey, Option<Bytes>>>,
    until: u64,
}

impl Iterator for HeadRecords<'_> {
    type Item = (Bytes, Option<Bytes>);

    fn next(&mut self) -> Option<(Bytes, Option<Bytes>)> {
        loop {
            let entry = self.entry.take()?;
            if entry.key().index > self.until {
                // Perhaps lands on a later key, whose newest version is judged again.
                let probe = HeadRecordKey::new(entry.key().key.clone(), self.until);
                self.entry = self.head.records.lower_bound(Bound::Included(&probe));
                continue;
            }
            let (key, value) = (entry.key().key.clone(), entry.value().clone());
            let next = entry.next();
            self.entry = match next {
                Some(next) if next.key().key == key => {
                    let past = HeadRecordKey::new(key.clone(), 0);
                    self.head.records.lower_bound(Bound::Excluded(&past))
                }
                next => next,
            };
            return Some((key, value));
        }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn records_lie_in_the_order_of_their_keys_and_the_newest_first(
            (a, b) in (prop::collection::vec(0_u8..3, 0..20), prop::collection::vec(0_u8..3, 0..20)),
            (i, j) in (0_u64..3, 0_u64..3),
        ) {
            let made = |key: &[u8], index| HeadRecordKey::new(Bytes::copy_from_slice(key), index);
            prop_assert_eq!(made(&a, i).cmp(&made(&b, j)), a.cmp(&b).then(j.cmp(&i)));
        }
    }
}
