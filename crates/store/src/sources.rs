//! Head, frozen head and base, read as one.
//!
//! Every row of the head is younger than every row of the frozen head, and those are younger than every row of the base.
//! So the first of them that has a visible version of a key has its newest one.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use ringfence_types::{KeyRange, RangeEnd, Revision};

use crate::base::Base;
use crate::base_cursor::BaseCursor;
use crate::error::StoreError;
use crate::head::{Head, HeadCursor};
use crate::lease_table::LeaseTable;
use crate::row::{Change, Row};
use crate::warm::{WarmRow, WarmRows};

/// Where rows lie. Swapped as one by a checkpoint.
#[derive(Debug, Clone)]
pub(crate) struct Sources {
    pub head: Arc<Head>,
    pub frozen: Option<Arc<Head>>,
    pub base: Arc<Base>,
    /// Stays while the others are swapped: it follows the newest state, not what lies where.
    pub leases: Arc<LeaseTable>,
}

/// The changes of the command that is being carried out: the youngest rows of all, and nobody else sees them.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    list: Vec<Change>,
    newest: BTreeMap<Bytes, usize>,
}

impl Changes {
    pub fn push(&mut self, change: Change) {
        self.newest.insert(change.key.clone(), self.list.len());
        self.list.push(change);
    }

    pub fn len(&self) -> usize {
        self.list.len()
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub fn newest(&self, key: &[u8]) -> Option<&Change> {
        if self.list.is_empty() {
            return None;
        }
        self.newest.get(key).map(|place| &self.list[*place])
    }

    pub fn into_list(self) -> Vec<Change> {
        self.list
    }
}

/// A version that was found, tombstones included.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub row: Row,
    /// The value where it lies in memory; else it is in the base.
    pub value: Option<Bytes>,
}

impl Sources {
    /// The newest version of `key` at `revision`, tombstones included.
    pub fn newest(
        &self,
        changes: Option<&Changes>,
        key: &Bytes,
        revision: Revision,
    ) -> Result<Option<Found>, StoreError> {
        if let Some(change) = changes.and_then(|changes| changes.newest(key)) {
            return Ok(Some(Found { row: change.row, value: Some(change.value.clone()) }));
        }
        for head in [Some(&self.head), self.frozen.as_ref()].into_iter().flatten() {
            if let Some((row, value)) = head.newest(key, revision) {
                return Ok(Some(Found { row, value: Some(value) }));
            }
        }
        Ok(self.base.newest(key, revision)?.map(|row| Found { row, value: None }))
    }

    /// The value of what was found.
    pub fn value(&self, key: &[u8], found: &Found) -> Result<Bytes, StoreError> {
        self.value_out_of(key, found.clone())
    }

    /// The same of what is not needed any more.
    pub fn value_out_of(&self, key: &[u8], found: Found) -> Result<Bytes, StoreError> {
        match found.value {
            Some(value) => Ok(value),
            None => self.base.value(key, &found.row),
        }
    }

    /// Walks over the keys of `range` that exist at `revision`, in order; from after `after` on, if that is given.
    pub fn scan<'a>(
        &'a self,
        changes: Option<&'a Changes>,
        range: &'a KeyRange,
        after: Option<&Bytes>,
        revision: Revision,
    ) -> Result<Scan<'a>, StoreError> {
        let start = match after {
            Some(after) if *after >= range.start => Bound::Excluded(after),
            _ if range.start.is_empty() => Bound::Unbounded,
            _ => Bound::Included(&range.start),
        };
        let mut cursors = Vec::with_capacity(4);
        if let Some(changes) = changes.filter(|changes| !changes.is_empty()) {
            cursors.push(Cursor::Changes(ChangesCursor::new(changes, start, &range.end)));
        }
        for head in [Some(&self.head), self.frozen.as_ref()].into_iter().flatten() {
            if !head.is_empty() {
                cursors.push(Cursor::Head(head.cursor(start, &range.end, revision)));
            }
        }
        let warm = if after.is_none() { self.warm_rows(range, revision) } else { None };
        cursors.push(match warm {
            Some(rows) => Cursor::Warm(WarmCursor { rows, at: 0 }),
            None => Cursor::Base(Box::new(self.base.cursor(start, &range.end, revision)?)),
        });
        Ok(Scan { cursors, at: 0, standing: Vec::new(), row: None })
    }

    /// What the base has of a range, where it lies in memory: the newest versions, so of no use to who asks for older ones.
    fn warm_rows(&self, range: &KeyRange, revision: Revision) -> Option<Arc<WarmRows>> {
        (revision >= self.base.state.revision).then(|| self.base.warm.rows(range)).flatten()
    }

    /// Reads what the base has of a range into memory, if that was asked for before and is not there yet.
    pub fn warm_up(&self, range: &KeyRange) -> Result<(), StoreError> {
        let base = &self.base;
        if !base.warm.is_wanted(range) {
            return Ok(());
        }
        let mut rows = WarmRows::default();
        let mut cursor = base.cursor(Bound::Included(&range.start), &range.end, base.state.revision)?;
        while let (Some(key), Some(row)) = (cursor.key(), cursor.row()?) {
            if !row.deleted && !rows.push(key, row, &base.value(key, &row)?) {
                base.warm.hold(range, None);
                return Ok(());
            }
            cursor.advance()?;
        }
        base.warm.hold(range, Some(rows));
        Ok(())
    }
}

/// Walks over the keys that exist at one revision.
pub(crate) struct Scan<'a> {
    /// Youngest rows first.
    cursors: Vec<Cursor<'a>>,
    /// The cursor that has the current key's newest version.
    at: usize,
    /// The cursors that stand at the current key.
    standing: Vec<usize>,
    /// The current key's version.
    row: Option<Row>,
}

impl Scan<'_> {
    /// Goes to the next key that exists; false at the end.
    pub fn step(&mut self) -> Result<bool, StoreError> {
        loop {
            for place in &self.standing {
                self.cursors[*place].advance()?;
            }
            self.find_smallest();
            let Some(first) = self.standing.first() else { return Ok(false) };
            self.at = *first;
            self.row = self.cursors[self.at].row()?;
            if self.row.is_some_and(|row| !row.deleted) {
                return Ok(true);
            }
        }
    }

    fn find_smallest(&mut self) {
        self.standing.clear();
        let mut smallest: Option<&[u8]> = None;
        for (place, cursor) in self.cursors.iter().enumerate() {
            let Some(key) = cursor.key() else { continue };
            match smallest {
                Some(known) if key > known => {}
                Some(known) if key == known => self.standing.push(place),
                _ => {
                    smallest = Some(key);
                    self.standing.clear();
                    self.standing.push(place);
                }
            }
        }
    }

    /// The current key.
    pub fn key(&self) -> Bytes {
        match &self.cursors[self.at] {
            Cursor::Changes(cursor) => cursor.current().map(|change| change.key.clone()).unwrap_or_default(),
            Cursor::Head(cursor) => cursor.key().cloned().unwrap_or_default(),
            Cursor::Warm(cursor) => cursor.current().map(|row| row.key.clone()).unwrap_or_default(),
            Cursor::Base(cursor) => cursor.key().map(Bytes::copy_from_slice).unwrap_or_default(),
        }
    }

    /// The current key's version.
    pub fn row(&self) -> Row {
        self.row.expect("a scan is asked only while it stands at a key")
    }

    /// The current key's version, with its value where that lies in memory.
    pub fn found(&self) -> Found {
        let value = match &self.cursors[self.at] {
            Cursor::Changes(cursor) => cursor.current().map(|change| change.value.clone()),
            Cursor::Head(cursor) => cursor.row().map(|(_, value)| value.clone()),
            Cursor::Warm(cursor) => cursor.current().map(|row| row.value.clone()),
            Cursor::Base(_) => None,
        };
        Found { row: self.row(), value }
    }
}

enum Cursor<'a> {
    Changes(ChangesCursor<'a>),
    Head(HeadCursor<'a>),
    Warm(WarmCursor),
    Base(Box<BaseCursor<'a>>),
}

impl Cursor<'_> {
    fn key(&self) -> Option<&[u8]> {
        match self {
            Cursor::Changes(cursor) => cursor.current().map(|change| change.key.as_ref()),
            Cursor::Head(cursor) => cursor.key().map(AsRef::as_ref),
            Cursor::Warm(cursor) => cursor.current().map(|row| row.key.as_ref()),
            Cursor::Base(cursor) => cursor.key(),
        }
    }

    fn row(&self) -> Result<Option<Row>, StoreError> {
        Ok(match self {
            Cursor::Changes(cursor) => cursor.current().map(|change| change.row),
            Cursor::Head(cursor) => cursor.row().map(|(row, _)| row),
            Cursor::Warm(cursor) => cursor.current().map(|row| row.row),
            Cursor::Base(cursor) => cursor.row()?,
        })
    }

    fn advance(&mut self) -> Result<(), StoreError> {
        match self {
            Cursor::Changes(cursor) => cursor.advance(),
            Cursor::Head(cursor) => cursor.advance(),
            Cursor::Warm(cursor) => cursor.at += 1,
            Cursor::Base(cursor) => cursor.advance()?,
        }
        Ok(())
    }
}

/// Walks over a range of the base that lies in memory.
struct WarmCursor {
    rows: Arc<WarmRows>,
    at: usize,
}

impl WarmCursor {
    fn current(&self) -> Option<&WarmRow> {
        self.rows.rows.get(self.at)
    }
}

/// Walks over the keys that the current command has changed.
struct ChangesCursor<'a> {
    changes: &'a Changes,
    keys: std::collections::btree_map::Range<'a, Bytes, usize>,
    current: Option<usize>,
}

impl<'a> ChangesCursor<'a> {
    fn new(changes: &'a Changes, start: Bound<&Bytes>, end: &'a RangeEnd) -> ChangesCursor<'a> {
        let end = match end {
            RangeEnd::Before(end) => Bound::Excluded(end),
            RangeEnd::Single | RangeEnd::Unbounded => Bound::Unbounded,
        };
        let mut cursor =
            ChangesCursor { changes, keys: changes.newest.range::<Bytes, _>((start, end)), current: None };
        cursor.advance();
        cursor
    }

    fn current(&self) -> Option<&'a Change> {
        self.current.map(|place| &self.changes.list[place])
    }

    fn advance(&mut self) {
        self.current = self.keys.next().map(|(_, place)| *place);
    }
}
