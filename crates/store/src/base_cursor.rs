//! Walking over the keys of the base.

use std::ops::Bound;

use bytes::Bytes;
use redb::{AccessGuard, Range};
use ringfence_types::{RangeEnd, Revision};

use crate::base::Base;
use crate::error::StoreError;
use crate::file::guarded;
use crate::layout::{self, IndexKey, IndexValue};
use crate::row::{Row, Stamp};

/// Versions of one key that a cursor steps over before it seeks past them.
const STEPS_MAX: usize = 8;

type IndexEntry = (AccessGuard<'static, IndexKey>, AccessGuard<'static, IndexValue>);

/// Walks over keys, standing at one version of each.
pub(crate) struct BaseCursor<'a> {
    base: &'a Base,
    range: Range<'static, IndexKey, IndexValue>,
    current: Option<IndexEntry>,
    end: &'a RangeEnd,
    revision: Revision,
}

impl Base {
    /// The keys of a range, each at its newest version at `revision`, tombstones included.
    pub fn cursor<'a>(
        &'a self,
        start: Bound<&Bytes>,
        end: &'a RangeEnd,
        revision: Revision,
    ) -> Result<BaseCursor<'a>, StoreError> {
        let lower = match start {
            Bound::Included(key) => {
                Bound::Included(layout::index_key(key, Stamp::last_of(Revision(i64::MAX))))
            }
            Bound::Excluded(key) => Bound::Excluded(layout::index_key(key, Stamp::MIN)),
            Bound::Unbounded => Bound::Unbounded,
        };
        guarded(|| {
            let mut range = self.index.range::<&[u8]>((as_slice(&lower), as_slice(&upper_bound(end))))?;
            let current = range.next().transpose()?;
            let mut cursor = BaseCursor { base: self, range, current, end, revision };
            cursor.settle()?;
            Ok(cursor)
        })
    }
}

impl BaseCursor<'_> {
    pub fn key(&self) -> Option<&[u8]> {
        self.current.as_ref().map(|(index_key, _)| layout::key_of(index_key.value()))
    }

    pub fn row(&self) -> Result<Option<Row>, StoreError> {
        let Some((index_key, value)) = &self.current else { return Ok(None) };
        // Whether the key can be read was seen when the cursor came here; redb looks for the value only now.
        guarded(|| Ok(Some(layout::decode_index_row(index_key.value(), value.value())?)))
    }

    /// Goes to the next key that has a version at the revision.
    pub fn advance(&mut self) -> Result<(), StoreError> {
        let Some((passed, _)) = self.current.take() else { return Ok(()) };
        guarded(|| {
            self.seek(layout::key_of(passed.value()), None)?;
            self.settle()
        })
    }

    /// From a key's newest version on, finds the first one that is visible; goes on to later keys where there is none.
    fn settle(&mut self) -> Result<(), StoreError> {
        while let Some((index_key, _)) = &self.current {
            if layout::stamp_of(index_key.value())?.revision <= self.revision {
                return Ok(());
            }
            let Some((above, _)) = self.current.take() else { return Ok(()) };
            let key = layout::key_of(above.value());
            self.seek(key, Some(self.revision))?;
        }
        Ok(())
    }

    /// Goes forward to the first version of `key` that is not above `revision`, or to the first version of a later key:
    /// by steps while that may be near, then by a search.
    fn seek(&mut self, key: &[u8], revision: Option<Revision>) -> Result<(), StoreError> {
        for _ in 0..STEPS_MAX {
            let Some(entry) = self.range.next().transpose()? else { return Ok(()) };
            let passed = layout::key_of(entry.0.value()) == key
                && match revision {
                    None => true,
                    Some(revision) => layout::stamp_of(entry.0.value())?.revision > revision,
                };
            if !passed {
                self.current = Some(entry);
                return Ok(());
            }
        }
        let upper = upper_bound(self.end);
        let from = layout::index_key(key, revision.map_or(Stamp::MIN, Stamp::last_of));
        let lower = match revision {
            None => Bound::Excluded(from.as_slice()),
            Some(_) => Bound::Included(from.as_slice()),
        };
        self.range = self.base.index.range::<&[u8]>((lower, as_slice(&upper)))?;
        self.current = self.range.next().transpose()?;
        Ok(())
    }
}

fn upper_bound(end: &RangeEnd) -> Bound<Vec<u8>> {
    match end {
        RangeEnd::Before(end) => Bound::Excluded(layout::index_key(end, Stamp::last_of(Revision(i64::MAX)))),
        RangeEnd::Single | RangeEnd::Unbounded => Bound::Unbounded,
    }
}

fn as_slice(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    match bound {
        Bound::Included(bytes) => Bound::Included(bytes),
        Bound::Excluded(bytes) => Bound::Excluded(bytes),
        Bound::Unbounded => Bound::Unbounded,
    }
}
