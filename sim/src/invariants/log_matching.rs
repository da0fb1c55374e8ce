//! Log matching (Raft paper, section 5.3, figure 3): if two logs have an entry of the same index and leadership, they are
//! the same up to that entry. By induction it is enough that each entry has one content and one predecessor, wherever and
//! whenever it is seen.

use std::collections::BTreeMap;

use ringfence_consensus::simulation::{EntryMark, Observation, Probe};
use ringfence_types::LogId;

use super::{Holds, broken};

const RULE: &str = "log-matching";
/// Entries that are looked back at once for the place where a log was cut off.
const BACK: u64 = 16;

/// A node's log as it was seen last, in one life of it.
#[derive(Default)]
pub(super) struct Mirror {
    entries: BTreeMap<u64, EntryMark>,
    /// Entries from here on were not judged yet.
    changed_from: u64,
    /// The last look found a log that goes on beyond the end of the one before: a snapshot came between.
    replaced: bool,
}

impl Mirror {
    /// Takes over what has changed since the last look. False where the log could not be read.
    pub(super) fn follow(&mut self, observation: &Observation, probe: &Probe) -> bool {
        let last = observation.last.map(|last| last.index.0);
        (self.changed_from, self.replaced) = (u64::MAX, false);
        let Some(last) = last else {
            self.entries.clear();
            return true;
        };
        let known_last = self.entries.last_key_value().map(|(index, _)| *index);
        if self.entries.get(&last).is_some_and(|known| Some(known.log_id) == observation.last)
            && self.entries.last_key_value().is_some_and(|(index, _)| *index == last)
        {
            return true;
        }
        // What is known at the old end may have been replaced: look back until something known is found again.
        let mut from = self.entries.last_key_value().map_or(0, |(index, _)| (*index).min(last));
        let found = loop {
            let Ok(found) = probe.entries(from, last + 1) else { return false };
            let agrees = found.first().is_none_or(|first| {
                from == 0 || first.log_id.index.0 > from || self.entries.get(&from) == Some(first)
            });
            if agrees {
                break found;
            }
            from = from.saturating_sub(BACK);
        };
        self.entries.split_off(&from);
        self.changed_from = from;
        // What lay before the log's beginning is purged. A log that a snapshot has emptied has a last position and no entry.
        let first = found.first().map_or(last + 1, |first| first.log_id.index.0);
        self.replaced = known_last.is_some_and(|known| first > known + 1);
        if first > from {
            self.entries.clear();
        }
        for mark in found {
            self.entries.insert(mark.log_id.index.0, mark);
        }
        self.last() == observation.last || self.entries.is_empty()
    }

    /// Whether a snapshot took the place of the log since the look before.
    pub(super) fn was_replaced(&self) -> bool {
        self.replaced
    }

    /// The mark at an index, if the log had it.
    pub(super) fn get(&self, index: u64) -> Option<&EntryMark> {
        self.entries.get(&index)
    }

    /// The smallest index in it.
    pub(super) fn first(&self) -> Option<u64> {
        self.entries.first_key_value().map(|(index, _)| *index)
    }

    /// The largest index in it.
    pub(super) fn last(&self) -> Option<LogId> {
        self.entries.last_key_value().map(|(_, mark)| mark.log_id)
    }
}

/// Each entry ever seen, with its content and its predecessor, where that was seen.
#[derive(Default)]
pub(super) struct LogMatching {
    entries: BTreeMap<LogId, (u32, Option<LogId>)>,
}

impl LogMatching {
    pub(super) fn look(&mut self, number: usize, mirror: &Mirror) -> Holds {
        for (index, mark) in mirror.entries.range(mirror.changed_from..) {
            let before = index.checked_sub(1).and_then(|before| mirror.get(before)).map(|mark| mark.log_id);
            let known = self.entries.entry(mark.log_id).or_insert((mark.crc, before));
            if known.0 != mark.crc {
                return broken(RULE, format!("{} has two contents, one of them on n{number}", mark.log_id));
            }
            match (known.1, before) {
                (Some(known), Some(before)) if known != before => {
                    let facts =
                        format!("{} follows {before} on n{number}, and {known} elsewhere", mark.log_id);
                    return broken(RULE, facts);
                }
                (None, before) => known.1 = before,
                _ => {}
            }
        }
        Ok(())
    }
}
