//! Keys, values, revisions and ranges of keys: etcd's data model.

use std::fmt;

use bytes::Bytes;

/// The store's version: it grows by one with each transaction that changes keys. 0 means "never"; the first
/// change of a new cluster makes revision 2, since an empty store stands at 1, as in etcd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Revision(pub i64);

/// A lease's number, chosen by the client or the server; 0 means "no lease".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LeaseId(pub i64);

/// A key with everything that etcd tells about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// The key: any bytes, never empty.
    pub key: Bytes,
    /// The revision at which the key was last created.
    pub create_revision: Revision,
    /// The revision of the last change.
    pub mod_revision: Revision,
    /// Number of changes since creation; 1 for a new key.
    pub version: i64,
    /// The value; empty where only keys were asked for.
    pub value: Bytes,
    /// The lease that the key hangs on, 0 for none.
    pub lease: LeaseId,
}

/// Where a range of keys ends.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RangeEnd {
    /// The range is the start key alone.
    Single,
    /// The range holds the keys from the start up to, and without, this one.
    Before(Bytes),
    /// The range holds every key from the start on.
    Unbounded,
}

/// A range of keys: one key, an interval, or everything from a key on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyRange {
    /// The first key; empty only in a range that begins at the first key of all.
    pub start: Bytes,
    /// Where the range ends.
    pub end: RangeEnd,
}

impl Revision {
    /// The revision of a store that has never changed.
    pub const EMPTY: Revision = Revision(1);

    /// The revision after this one.
    #[must_use]
    pub fn next(self) -> Revision {
        Revision(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl KeyRange {
    /// The range that holds `key` alone.
    #[must_use]
    pub fn single(key: Bytes) -> KeyRange {
        KeyRange { start: key, end: RangeEnd::Single }
    }

    /// The range of all keys.
    #[must_use]
    pub fn all() -> KeyRange {
        KeyRange { start: Bytes::new(), end: RangeEnd::Unbounded }
    }

    /// The range of the keys that begin with `prefix`; all keys when it is empty.
    #[must_use]
    pub fn prefix(prefix: Bytes) -> KeyRange {
        let end = prefix_end(&prefix).map_or(RangeEnd::Unbounded, RangeEnd::Before);
        KeyRange { start: prefix, end }
    }

    /// A range as etcd writes it: no end for a single key, one zero byte for "from `start` on", else the end
    /// that is not part of it.
    #[must_use]
    pub fn from_etcd(start: Bytes, range_end: Bytes) -> KeyRange {
        let end = match range_end.as_ref() {
            [] => RangeEnd::Single,
            [0] => RangeEnd::Unbounded,
            _ => RangeEnd::Before(range_end),
        };
        KeyRange { start, end }
    }

    /// The range's end as etcd writes it (see [`KeyRange::from_etcd`]).
    #[must_use]
    pub fn etcd_range_end(&self) -> Bytes {
        match &self.end {
            RangeEnd::Single => Bytes::new(),
            RangeEnd::Before(end) => end.clone(),
            RangeEnd::Unbounded => Bytes::from_static(&[0]),
        }
    }

    /// Whether `key` lies in the range.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        match &self.end {
            RangeEnd::Single => key == self.start.as_ref(),
            RangeEnd::Before(end) => key >= self.start.as_ref() && key < end.as_ref(),
            RangeEnd::Unbounded => key >= self.start.as_ref(),
        }
    }

    /// Whether the two ranges have a key in common, among all possible keys.
    #[must_use]
    pub fn overlaps(&self, other: &KeyRange) -> bool {
        !self.is_empty() && !other.is_empty() && self.reaches(&other.start) && other.reaches(&self.start)
    }

    /// Whether no key can lie in the range.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(&self.end, RangeEnd::Before(end) if end <= &self.start)
    }

    /// Whether the range goes on to `key` or beyond it, wherever it starts.
    fn reaches(&self, key: &[u8]) -> bool {
        match &self.end {
            RangeEnd::Single => key <= self.start.as_ref(),
            RangeEnd::Before(end) => key < end.as_ref(),
            RangeEnd::Unbounded => true,
        }
    }
}

/// The first key after all keys that begin with `prefix`; none when every longer key begins with it (an empty prefix,
/// or one of 0xff bytes alone).
#[must_use]
pub fn prefix_end(prefix: &[u8]) -> Option<Bytes> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(Bytes::from(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: &'static str, end: &'static str) -> KeyRange {
        KeyRange::from_etcd(Bytes::from_static(start.as_bytes()), Bytes::from_static(end.as_bytes()))
    }

    #[test]
    fn ranges_contain_their_start_and_not_their_end() {
        assert!(range("a", "c").contains(b"a") && range("a", "c").contains(b"bzz"));
        assert!(!range("a", "c").contains(b"c"));
        assert!(range("a", "").contains(b"a") && !range("a", "").contains(b"a\0"));
        assert!(range("b", "\0").contains(b"zzz") && !range("b", "\0").contains(b"a"));
    }

    #[test]
    fn overlap_is_symmetric_and_ignores_empty_ranges() {
        for (a, b, expected) in [
            (range("a", "c"), range("b", "d"), true),
            (range("a", "b"), range("b", "c"), false),
            (range("a", ""), range("a", "b"), true),
            (range("b", ""), range("a", "b"), false),
            (range("c", "\0"), range("a", "b"), false),
            (range("c", "\0"), range("a", "d"), true),
            (range("c", "a"), range("a", "z"), false),
        ] {
            assert_eq!((a.overlaps(&b), b.overlaps(&a)), (expected, expected), "{a:?} and {b:?}");
        }
    }

    #[test]
    fn a_prefix_ends_before_its_successor() {
        assert_eq!(prefix_end(b"ab").as_deref(), Some(&b"ac"[..]));
        assert_eq!(prefix_end(b"a\xff").as_deref(), Some(&b"b"[..]));
        assert_eq!(prefix_end(b"\xff\xff"), None);
        assert_eq!(KeyRange::prefix(Bytes::new()), KeyRange::all());
    }
}
