//! The log in memory: what is staged, what is durable, and what readers see.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use crate::cache::Cache;
use crate::error::WalError;
use crate::history::{self, History, Place};
use crate::layout::Record;
use crate::segment::Segment;
use crate::{Entry, Ticket};

/// A record on its way to the disk.
#[derive(Debug, Clone)]
pub(crate) enum Staged {
    Entry(Entry),
    Vote(Bytes),
    Truncate { after: Option<u64> },
    Purge { through: u64, mark: Bytes },
}

/// Everything behind the log's short mutex.
#[derive(Debug)]
pub(crate) struct State {
    /// What is staged takes effect here at once; see `history` for what is durable.
    pub(crate) range: Option<(u64, u64)>,
    pub(crate) purged: Option<(u64, Bytes)>,
    pub(crate) vote: Option<Bytes>,
    /// Set by the caller at any time; written with the next batch.
    pub(crate) committed: Option<Bytes>,
    staged: VecDeque<Staged>,
    pub(crate) staged_bytes: usize,
    /// The ticket of the last record staged.
    pub(crate) last: Ticket,
    /// The ticket through which all is durable.
    pub(crate) durable: Ticket,
    pub(crate) cache: Cache,
    /// Grows with each truncation, so that a reader that takes several steps does not mix entries from before and after.
    pub(crate) truncations: u64,
    pub(crate) history: History,
    /// All segments from the oldest that is needed to the one being written, without gaps.
    pub(crate) segments: VecDeque<Segment>,
    /// Empty segments that follow, ready to be written.
    pub(crate) spares: VecDeque<Segment>,
    /// Segments that are not needed any more, oldest first.
    pub(crate) retired: VecDeque<Segment>,
    poison: Option<Arc<str>>,
    pub(crate) batches_written: u64,
    pub(crate) records_written: u64,
}

impl Staged {
    pub(crate) fn record(&self) -> Record<'_> {
        match self {
            Staged::Entry(entry) => Record::Entry { index: entry.index, data: &entry.data },
            Staged::Vote(vote) => Record::Vote(vote),
            Staged::Truncate { after } => Record::Truncate { after: *after },
            Staged::Purge { through, mark } => Record::Purge { through: *through, mark },
        }
    }
}

impl State {
    pub(crate) fn new(history: History, segments: VecDeque<Segment>) -> State {
        State {
            range: history.range,
            purged: history.purged.clone(),
            vote: history.vote.clone(),
            committed: history.committed.clone(),
            staged: VecDeque::new(),
            staged_bytes: 0,
            last: Ticket(0),
            durable: Ticket(0),
            cache: Cache::default(),
            truncations: 0,
            history,
            segments,
            spares: VecDeque::new(),
            retired: VecDeque::new(),
            poison: None,
            batches_written: 0,
            records_written: 0,
        }
    }

    /// Refuses everything once a write or sync has failed.
    pub(crate) fn check(&self) -> Result<(), WalError> {
        self.poison.as_ref().map_or(Ok(()), |cause| Err(WalError::Poisoned(cause.clone())))
    }

    /// Stops the log for good; the first cause is kept.
    pub(crate) fn poison(&mut self, cause: &WalError) {
        self.poison.get_or_insert_with(|| cause.to_string().into());
    }

    /// The index that the next entry must have; `None` if it may have any.
    pub(crate) fn next_index(&self) -> Option<u64> {
        let last = self.range.map(|(_, last)| last).or(self.purged.as_ref().map(|(through, _)| *through));
        last.map(|last| last + 1)
    }

    pub(crate) fn append(&mut self, entry: Entry) {
        let next = self.next_index().unwrap_or(entry.index);
        assert_eq!(entry.index, next, "log rule: an appended entry follows the last one without a gap");
        let first = self.range.map_or(entry.index, |(first, _)| first);
        self.range = Some((first, entry.index));
        self.stage(Staged::Entry(entry.clone()));
        self.cache.push(entry, self.last);
    }

    pub(crate) fn save_vote(&mut self, vote: Bytes) {
        self.vote = Some(vote.clone());
        self.stage(Staged::Vote(vote));
    }

    pub(crate) fn truncate_after(&mut self, after: Option<u64>) {
        if let (Some(after), Some((purged, _))) = (after, &self.purged) {
            assert!(
                after >= *purged,
                "log rule: a truncation after {after} never reaches what is purged ({purged})"
            );
        }
        let range = history::truncated(self.range, after);
        if range == self.range {
            return;
        }
        self.range = range;
        self.truncations += 1;
        self.cache.truncate_after(after);
        self.stage(Staged::Truncate { after });
    }

    pub(crate) fn purge(&mut self, through: u64, mark: Bytes) {
        if self.purged.as_ref().is_some_and(|(purged, _)| through <= *purged) {
            return;
        }
        self.range = history::purged(self.range, through);
        self.purged = Some((through, mark.clone()));
        self.cache.purge(through);
        self.stage(Staged::Purge { through, mark });
    }

    pub(crate) fn has_staged(&self) -> bool {
        !self.staged.is_empty()
    }

    /// Takes the oldest records: as many as fit into `bytes_max`, at least one.
    pub(crate) fn take_staged(&mut self, bytes_max: usize, taken: &mut Vec<Staged>) {
        let mut bytes = 0;
        while let Some(staged) = self.staged.front() {
            bytes += staged.record().encoded_bytes();
            if bytes > bytes_max && !taken.is_empty() {
                return;
            }
            self.staged_bytes -= staged.record().encoded_bytes();
            taken.extend(self.staged.pop_front());
        }
    }

    /// Enters a batch that is now durable.
    pub(crate) fn settle(
        &mut self,
        place: Place,
        records: &[Staged],
        committed: Option<&Bytes>,
        cache_bytes: usize,
    ) {
        let committed = committed.map(|mark| Record::Committed(mark));
        let written = committed.into_iter().chain(records.iter().map(Staged::record));
        self.history.apply(place, written.map(Ok)).expect("what was staged was checked when it was staged");
        self.durable = Ticket(self.durable.0 + records.len() as u64);
        self.batches_written += 1;
        self.records_written += records.len() as u64;
        self.cache.evict(cache_bytes, self.durable);
        self.retire();
    }

    /// Takes out the segments that hold no entry of the log any more. The registers stand in the first batch of the
    /// segment being written, which always stays.
    pub(crate) fn retire(&mut self) {
        let active = self.segments.back().expect("a log always has a segment").header.number;
        let needed = self.history.oldest_segment().unwrap_or(active);
        while self.segments.front().is_some_and(|oldest| oldest.header.number < needed) {
            self.retired.extend(self.segments.pop_front());
        }
    }

    /// The number that the next new segment gets.
    pub(crate) fn next_segment_number(&self) -> u64 {
        let newest = self.spares.back().or(self.segments.back());
        newest.expect("a log always has a segment").header.number + 1
    }

    /// The segment of that number, if it is needed still.
    pub(crate) fn segment(&self, number: u64) -> Option<&Segment> {
        let oldest = self.segments.front()?.header.number;
        self.segments.get(usize::try_from(number.checked_sub(oldest)?).ok()?)
    }

    fn stage(&mut self, staged: Staged) {
        self.staged_bytes += staged.record().encoded_bytes();
        self.staged.push_back(staged);
        self.last = Ticket(self.last.0 + 1);
    }
}
