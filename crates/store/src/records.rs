//! Records: rows of the small tables beside the keys, read over head, frozen head and base as one.
//!
//! A record has no history: of its versions a reader sees the newest that is not younger than the last entry in its own state.

use std::collections::BTreeMap;
use std::collections::btree_map;
use std::ops::Bound;

use bytes::Bytes;

use crate::error::StoreError;
use crate::file::guarded;
use crate::head::HeadRecords;
use crate::record_layout::RecordRange;
use crate::sources::Sources;

/// The records that the command changes which is being carried out; none for one that it removes.
pub(crate) type RecordChanges = BTreeMap<Bytes, Option<Bytes>>;

impl Sources {
    /// A record as it was after the entry `until`; `changes` are younger.
    pub fn record(
        &self,
        changes: Option<&RecordChanges>,
        key: &Bytes,
        until: u64,
    ) -> Result<Option<Bytes>, StoreError> {
        if let Some(changed) = changes.and_then(|changes| changes.get(key)) {
            return Ok(changed.clone());
        }
        for head in [Some(&self.head), self.frozen.as_ref()].into_iter().flatten() {
            if let Some(found) = head.record(key, until) {
                return Ok(found);
            }
        }
        self.base.record(key)
    }

    /// The records whose keys begin with `prefix`, in order, from after `after` on if that is given.
    pub fn records<'a>(
        &'a self,
        changes: Option<&'a RecordChanges>,
        prefix: &'a Bytes,
        after: Option<&'a Bytes>,
        until: u64,
    ) -> Result<RecordScan<'a>, StoreError> {
        let start = after.map_or(Bound::Included(prefix), Bound::Excluded);
        let mut cursors = Vec::with_capacity(4);
        if let Some(changes) = changes.filter(|changes| !changes.is_empty()) {
            cursors.push(Cursor::new(Rows::Changes(changes.range::<Bytes, _>((start, Bound::Unbounded))))?);
        }
        for head in [Some(&self.head), self.frozen.as_ref()].into_iter().flatten() {
            if head.has_records() {
                cursors.push(Cursor::new(Rows::Head(head.records(start, until)))?);
            }
        }
        if let Some(rows) = self.base.records(start)? {
            cursors.push(Cursor::new(Rows::Base(Box::new(rows)))?);
        }
        Ok(RecordScan { cursors, prefix })
    }
}

/// Walks over records that exist.
pub(crate) struct RecordScan<'a> {
    /// Youngest rows first.
    cursors: Vec<Cursor<'a>>,
    prefix: &'a Bytes,
}

impl RecordScan<'_> {
    /// The next record.
    pub fn step(&mut self) -> Result<Option<(Bytes, Bytes)>, StoreError> {
        loop {
            let keys = self.cursors.iter().filter_map(|cursor| cursor.row.as_ref().map(|(key, _)| key));
            let Some(smallest) = keys.min().cloned() else { return Ok(None) };
            if !smallest.starts_with(self.prefix) {
                return Ok(None);
            }
            let mut newest = None;
            for cursor in &mut self.cursors {
                if cursor.row.as_ref().is_some_and(|(key, _)| *key == smallest) {
                    let row = cursor.advance()?;
                    newest = newest.or(row.map(|(_, value)| value));
                }
            }
            if let Some(Some(value)) = newest {
                return Ok(Some((smallest, value)));
            }
        }
    }

    /// All of them that are left, up to `count_max`.
    pub fn collect(mut self, count_max: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let mut records = Vec::new();
        while records.len() < count_max
            && let Some(record) = self.step()?
        {
            records.push(record);
        }
        Ok(records)
    }
}

/// A record, or that there is none any more.
type RecordRow = (Bytes, Option<Bytes>);

/// One source's rows, with the next one in hand.
struct Cursor<'a> {
    rows: Rows<'a>,
    row: Option<RecordRow>,
}

enum Rows<'a> {
    Changes(btree_map::Range<'a, Bytes, Option<Bytes>>),
    Head(HeadRecords<'a>),
    Base(Box<RecordRange>),
}

impl Cursor<'_> {
    fn new(rows: Rows<'_>) -> Result<Cursor<'_>, StoreError> {
        let mut cursor = Cursor { rows, row: None };
        cursor.advance()?;
        Ok(cursor)
    }

    /// Takes the row in hand, and reads the one after it.
    fn advance(&mut self) -> Result<Option<RecordRow>, StoreError> {
        let next = match &mut self.rows {
            Rows::Changes(rows) => rows.next().map(|(key, value)| (key.clone(), value.clone())),
            Rows::Head(rows) => rows.next(),
            Rows::Base(rows) => guarded(|| {
                let Some(entry) = rows.next() else { return Ok(None) };
                let (key, value) = entry?;
                let value = Bytes::copy_from_slice(value.value());
                Ok(Some((Bytes::copy_from_slice(key.value()), Some(value))))
            })?,
        };
        Ok(std::mem::replace(&mut self.row, next))
    }
}
