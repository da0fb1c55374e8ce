//! What the durable part of the log says: the registers, the range of entries, and in which batch each entry is.
//!
//! Written by [`History::apply`] alone, with the same records after each flush and at each opening, so that a running
//! log and a reopened one cannot disagree.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::layout::{BLOCK_BYTES, Record};

/// Where a batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) segment: u64,
    /// In blocks from the segment's beginning.
    pub(crate) block: u32,
}

/// A batch that holds entries which are still in the log: `first` and those after it, up to the next position's
/// `first` or the end of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) first: u64,
    pub(crate) place: Place,
}

impl Place {
    /// In bytes from the segment's beginning.
    pub(crate) fn offset(self) -> u64 {
        u64::from(self.block) * BLOCK_BYTES as u64
    }
}

/// The durable log in short. Its size grows with the number of batches, not of entries.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    pub(crate) vote: Option<Bytes>,
    pub(crate) purged: Option<(u64, Bytes)>,
    pub(crate) committed: Option<Bytes>,
    /// The first and last index, if there is any entry.
    pub(crate) range: Option<(u64, u64)>,
    positions: VecDeque<Position>,
    /// Whether any batch has been applied: until then a range is news, afterwards it must be the known one.
    begun: bool,
}

/// Each entry has an index behind it, so that ends of ranges need no second thought.
const INDEX_MAX: u64 = u64::MAX - 1;
const BEYOND_INDEX_MAX: &str = "an entry's index is beyond what a log can hold";

impl History {
    /// Takes in the records of the batch at `place`.
    pub(crate) fn apply<'a>(
        &mut self,
        place: Place,
        records: impl Iterator<Item = Result<Record<'a>, &'static str>>,
    ) -> Result<(), &'static str> {
        for record in records {
            match record? {
                Record::Entry { index, .. } => self.append(index, place)?,
                Record::Vote(vote) => set(&mut self.vote, vote),
                Record::Truncate { after } => self.truncate_after(after),
                Record::Purge { through, mark } => self.purge(through, mark)?,
                Record::Committed(mark) => set(&mut self.committed, mark),
                Record::Range(Some((_, last))) if last > INDEX_MAX => return Err(BEYOND_INDEX_MAX),
                Record::Range(range) if !self.begun => self.range = range,
                Record::Range(range) if range == self.range => {}
                Record::Range(_) => {
                    return Err("a segment begins with another range than the one before ends with");
                }
            }
        }
        self.begun = true;
        Ok(())
    }

    /// The position of the batch that holds `index`, with the end (exclusive) of the entries that it is to be asked
    /// for; `None` for an index that no durable batch holds.
    pub(crate) fn find(&self, index: u64) -> Option<(Position, u64)> {
        let after = self.positions.partition_point(|position| position.first <= index);
        let position = *self.positions.get(after.checked_sub(1)?)?;
        let last = self.range?.1;
        let until = self.positions.get(after).map_or(last + 1, |next| next.first);
        (index < until).then_some((position, until))
    }

    /// The oldest segment with an entry that is still in the log.
    pub(crate) fn oldest_segment(&self) -> Option<u64> {
        self.positions.front().map(|position| position.place.segment)
    }

    /// The first entry whose batch is in `segment` or a later one.
    pub(crate) fn first_in_segment(&self, segment: u64) -> Option<u64> {
        let at = self.positions.partition_point(|position| position.place.segment < segment);
        self.positions.get(at).map(|position| position.first)
    }

    /// Number of positions held in memory.
    pub(crate) fn positions(&self) -> usize {
        self.positions.len()
    }

    /// Whether every entry of the range is in a known batch. A lawful log always is complete once all is applied.
    pub(crate) fn is_complete(&self) -> bool {
        self.range.is_none_or(|(first, _)| self.positions.front().is_some_and(|front| front.first <= first))
    }

    fn append(&mut self, index: u64, place: Place) -> Result<(), &'static str> {
        if index > INDEX_MAX {
            return Err(BEYOND_INDEX_MAX);
        }
        self.range = match self.range {
            None => Some((index, index)),
            Some((first, last)) if index == last + 1 => Some((first, index)),
            Some(_) => return Err("an entry does not follow the one before it"),
        };
        if self.positions.back().is_none_or(|back| back.place != place) {
            self.positions.push_back(Position { first: index, place });
        }
        Ok(())
    }

    fn truncate_after(&mut self, after: Option<u64>) {
        self.range = truncated(self.range, after);
        let Some((_, last)) = self.range else { return self.positions.clear() };
        while self.positions.back().is_some_and(|back| back.first > last) {
            self.positions.pop_back();
        }
    }

    fn purge(&mut self, through: u64, mark: &[u8]) -> Result<(), &'static str> {
        match &self.purged {
            Some((purged, _)) if through < *purged => return Err("a purge goes back behind an earlier one"),
            Some((purged, known)) if through == *purged && mark != known.as_ref() => {
                return Err("a purge has another mark than the same one before");
            }
            Some((purged, _)) if through == *purged => return Ok(()),
            _ => self.purged = Some((through, Bytes::copy_from_slice(mark))),
        }
        self.range = purged(self.range, through);
        let Some((first, _)) = self.range else {
            self.positions.clear();
            return Ok(());
        };
        while self.positions.get(1).is_some_and(|second| second.first <= first) {
            self.positions.pop_front();
        }
        Ok(())
    }
}

/// A range without the entries after `after`.
pub(crate) fn truncated(range: Option<(u64, u64)>, after: Option<u64>) -> Option<(u64, u64)> {
    let (first, last) = range?;
    let last = last.min(after?);
    (first <= last).then_some((first, last))
}

/// A range without the entries up to `through`.
pub(crate) fn purged(range: Option<(u64, u64)>, through: u64) -> Option<(u64, u64)> {
    let (first, last) = range?;
    (through < last).then(|| (first.max(through + 1), last))
}

/// Sets a register, without a new allocation where it holds the value already (as it does in most batches).
fn set(register: &mut Option<Bytes>, value: &[u8]) {
    if register.as_deref() != Some(value) {
        *register = Some(Bytes::copy_from_slice(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place { segment: 1, block: 1 };

    #[test]
    fn an_index_with_nothing_behind_it_is_damage() {
        let entry = Record::Entry { index: u64::MAX, data: b"" };
        let range = Record::Range(Some((1, u64::MAX)));
        for record in [entry, range] {
            let mut history = History::default();
            assert_eq!(history.apply(PLACE, [Ok(record)].into_iter()), Err(BEYOND_INDEX_MAX));
            assert_eq!(history.find(u64::MAX), None);
        }
    }
}
