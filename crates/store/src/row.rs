//! Rows: one version of one key each.

use bytes::Bytes;
use ringfence_types::{Event, EventKind, KeyValue, LeaseId, Revision};

use crate::hash::{self, RowHash};

/// When a change happened: its revision, and its place among the changes of that revision. Ordered by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stamp {
    pub revision: Revision,
    pub sub: u32,
}

impl Stamp {
    /// Before every change.
    pub const MIN: Stamp = Stamp { revision: Revision(0), sub: 0 };

    /// The last possible change of `revision`.
    pub fn last_of(revision: Revision) -> Stamp {
        Stamp { revision, sub: u32::MAX }
    }

    /// The first stamp above this one.
    pub fn after(self) -> Stamp {
        match self.sub.checked_add(1) {
            Some(sub) => Stamp { revision: self.revision, sub },
            None => Stamp { revision: self.revision.next(), sub: 0 },
        }
    }
}

/// What the index knows of one version of a key; key and value stand beside it.
///
/// A deletion is a version too (a tombstone), with all of etcd's fields at 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row {
    pub stamp: Stamp,
    pub create_revision: Revision,
    pub version: i64,
    pub lease: LeaseId,
    pub deleted: bool,
    /// Covers everything that is logical about the version: its key, its fields and its value.
    pub hash: RowHash,
}

impl Row {
    /// The version that a put makes.
    pub fn live(
        key: &[u8],
        stamp: Stamp,
        create_revision: Revision,
        version: i64,
        lease: LeaseId,
        value: &[u8],
    ) -> Row {
        let mut row = Row { stamp, create_revision, version, lease, deleted: false, hash: RowHash(0) };
        row.hash = hash::row(key, &row, value);
        row
    }

    /// The version that a deletion makes.
    pub fn tombstone(key: &[u8], stamp: Stamp) -> Row {
        let mut row = Row {
            stamp,
            create_revision: Revision(0),
            version: 0,
            lease: LeaseId(0),
            deleted: true,
            hash: RowHash(0),
        };
        row.hash = hash::row(key, &row, &[]);
        row
    }

    /// The key as clients see it at this version.
    pub fn key_value(&self, key: Bytes, value: Bytes) -> KeyValue {
        KeyValue {
            key,
            create_revision: self.create_revision,
            mod_revision: self.stamp.revision,
            version: self.version,
            value,
            lease: self.lease,
        }
    }
}

/// One version of a key, whole: what apply makes, the head keeps and the history tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub key: Bytes,
    pub row: Row,
    pub value: Bytes,
}

impl Change {
    /// The change as watchers see it.
    pub fn into_event(self) -> Event {
        if self.row.deleted {
            return Event::deletion(self.key, self.row.stamp.revision);
        }
        Event { kind: EventKind::Put, kv: self.row.key_value(self.key, self.value) }
    }
}
