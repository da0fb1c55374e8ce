//! Ranges of the base that are asked for again and again, in memory.
//!
//! A range costs two searches of the file for each of its keys, and more where keys have many versions: whoever lists the same
//! prefix every second, as controllers do, would pay for them every time. A base never changes, so what was once read from it
//! stays right for as long as it is in use, until the next checkpoint has made another. What the heads have on top is merged as
//! ever. The values were verified when they were read.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use ringfence_types::KeyRange;

use crate::row::Row;

/// A range with fewer keys is found as quickly in the file.
pub(crate) const WARM_KEYS_MIN: u64 = 4;
/// Memory that the rows of one range may take.
const RANGE_BYTES_MAX: usize = 8 << 20;
/// Memory that the rows of all ranges may take.
const BYTES_MAX: usize = 32 << 20;
/// Ranges that are remembered, with rows or without.
const RANGES_MAX: usize = 128;
/// Keys and values lie side by side in blocks of this size, so that handing them out touches few counters.
const BLOCK_BYTES: usize = 64 << 10;

/// The newest version of a key that exists.
#[derive(Debug)]
pub(crate) struct WarmRow {
    pub key: Bytes,
    pub row: Row,
    pub value: Bytes,
}

/// The ranges that were asked for lately. Whichever was asked for least lately makes room for another.
#[derive(Debug, Default)]
pub(crate) struct Warm(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    ranges: BTreeMap<KeyRange, Entry>,
    /// Counts the questions.
    now: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    asked_at: u64,
    rows: Rows,
}

#[derive(Debug, Clone)]
enum Rows {
    /// Not read yet: whoever asks again has them read.
    Unread,
    /// More than may lie in memory.
    TooMany,
    Held(Arc<WarmRows>),
}

/// The rows of a range, in the order of their keys.
#[derive(Debug, Default)]
pub(crate) struct WarmRows {
    pub rows: Vec<WarmRow>,
    block: BytesMut,
    bytes: usize,
}

impl WarmRows {
    /// Takes up the next row; false where that would be too much.
    pub fn push(&mut self, key: &[u8], row: Row, value: &[u8]) -> bool {
        let needed = key.len() + value.len();
        self.bytes += needed + size_of::<WarmRow>();
        if self.bytes > RANGE_BYTES_MAX {
            return false;
        }
        if self.block.capacity() < needed {
            self.block = BytesMut::with_capacity(BLOCK_BYTES.max(needed));
        }
        let mut part = |bytes: &[u8]| {
            self.block.extend_from_slice(bytes);
            self.block.split().freeze()
        };
        let (key, value) = (part(key), part(value));
        self.rows.push(WarmRow { key, row, value });
        true
    }
}

impl Warm {
    /// The rows of a range, if they are held.
    pub fn rows(&self, range: &KeyRange) -> Option<Arc<WarmRows>> {
        let mut known = self.0.lock();
        if known.bytes == 0 {
            return None;
        }
        match &known.ask(range)?.rows {
            Rows::Held(rows) => Some(Arc::clone(rows)),
            Rows::Unread | Rows::TooMany => None,
        }
    }

    /// Whether a range was asked for before, and its rows should be read now.
    pub fn is_wanted(&self, range: &KeyRange) -> bool {
        let mut known = self.0.lock();
        !known.ranges.is_empty() && known.ask(range).is_some_and(|entry| matches!(entry.rows, Rows::Unread))
    }

    /// A range was asked for that is worth to be held.
    pub fn asked(&self, range: &KeyRange) {
        let mut known = self.0.lock();
        if known.ask(range).is_none() {
            known.put(range.clone(), Rows::Unread);
        }
    }

    /// The rows of a range were read; none where they are too many.
    pub fn hold(&self, range: &KeyRange, rows: Option<WarmRows>) {
        let rows = rows.map_or(Rows::TooMany, |rows| Rows::Held(Arc::new(rows)));
        self.0.lock().put(range.clone(), rows);
    }

    /// What follows this one in a base that follows its base: nothing is held, but who asks again need not ask twice.
    pub fn successor(&self) -> Warm {
        let known = self.0.lock();
        let unread = |(range, entry): (&KeyRange, &Entry)| {
            (range.clone(), Entry { asked_at: entry.asked_at, rows: Rows::Unread })
        };
        let ranges = known.ranges.iter().map(unread).collect();
        Warm(Mutex::new(Known { ranges, now: known.now, bytes: 0 }))
    }
}

impl Rows {
    fn bytes(&self) -> usize {
        match self {
            Rows::Held(rows) => rows.bytes,
            Rows::Unread | Rows::TooMany => 0,
        }
    }
}

impl Known {
    fn ask(&mut self, range: &KeyRange) -> Option<&Entry> {
        self.now += 1;
        let entry = self.ranges.get_mut(range)?;
        entry.asked_at = self.now;
        Some(entry)
    }

    fn put(&mut self, range: KeyRange, rows: Rows) {
        self.now += 1;
        self.bytes += rows.bytes();
        let entry = Entry { asked_at: self.now, rows };
        if let Some(replaced) = self.ranges.insert(range, entry) {
            self.bytes -= replaced.rows.bytes();
        }
        while self.bytes > BYTES_MAX || self.ranges.len() > RANGES_MAX {
            let oldest = self.ranges.iter().min_by_key(|(_, entry)| entry.asked_at);
            let Some(oldest) = oldest.map(|(range, _)| range.clone()) else { return };
            let removed = self.ranges.remove(&oldest);
            self.bytes -= removed.map_or(0, |entry| entry.rows.bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use ringfence_types::{LeaseId, Revision};

    use super::*;
    use crate::row::Stamp;

    fn range(number: usize) -> KeyRange {
        KeyRange::prefix(format!("range {number}").into())
    }

    fn rows(values: &[usize]) -> Option<WarmRows> {
        let mut rows = WarmRows::default();
        let fits = values.iter().all(|bytes| {
            let (stamp, value) = (Stamp::last_of(Revision(1)), vec![7; *bytes]);
            let row = Row::live(b"key", stamp, Revision(1), 1, LeaseId(0), &value);
            rows.push(b"key", row, &value)
        });
        fits.then_some(rows)
    }

    #[test]
    fn a_range_is_read_when_it_is_asked_for_again_and_held_until_the_next_base() {
        let warm = Warm::default();
        assert!(!warm.is_wanted(&range(1)), "nobody has asked for it");
        warm.asked(&range(1));
        assert!(warm.is_wanted(&range(1)) && warm.rows(&range(1)).is_none());
        warm.hold(&range(1), rows(&[1, BLOCK_BYTES, 2]));
        assert!(!warm.is_wanted(&range(1)));
        let held = warm.rows(&range(1)).expect("it is held");
        let lengths: Vec<usize> = held.rows.iter().map(|row| row.value.len()).collect();
        assert_eq!(lengths, [1, BLOCK_BYTES, 2]);
        assert!(held.rows.iter().all(|row| row.key == "key" && row.value.iter().all(|byte| *byte == 7)));
        assert!(warm.rows(&range(2)).is_none());
        let next = warm.successor();
        assert!(next.rows(&range(1)).is_none() && next.is_wanted(&range(1)));
    }

    #[test]
    fn what_is_too_large_is_not_read_again_and_what_was_asked_for_least_lately_makes_room() {
        let warm = Warm::default();
        let large = RANGE_BYTES_MAX - 1_000;
        assert!(rows(&[large, 1_000]).is_none());
        warm.asked(&range(0));
        warm.hold(&range(0), None);
        assert!(!warm.is_wanted(&range(0)) && warm.rows(&range(0)).is_none());
        for number in 1..=4 {
            warm.hold(&range(number), rows(&[large]));
        }
        assert!(warm.rows(&range(1)).is_some());
        warm.hold(&range(5), rows(&[large]));
        let held: Vec<usize> = (1..=5).filter(|number| warm.rows(&range(*number)).is_some()).collect();
        assert_eq!(held, [1, 3, 4, 5], "the second was asked for before the first");
        (6..6 + 2 * RANGES_MAX).for_each(|number| warm.asked(&range(number)));
        let known = warm.0.lock();
        assert_eq!((known.ranges.len(), known.bytes), (RANGES_MAX, 0));
    }
}
