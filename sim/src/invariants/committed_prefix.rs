//! State machine safety (Raft paper, section 5.4.3, figure 3): once an entry is committed at an index, no other ever is, on
//! any node.

use std::collections::BTreeMap;

use ringfence_consensus::simulation::{EntryMark, Observation};
use ringfence_types::LogId;

use super::log_matching::Mirror;
use super::{Holds, broken};

const RULE: &str = "committed-prefix";

#[derive(Default)]
pub(super) struct CommittedPrefix {
    entries: BTreeMap<u64, EntryMark>,
    /// By node: up to here, and without it, its committed entries have been compared.
    compared: BTreeMap<usize, u64>,
}

impl CommittedPrefix {
    pub(super) fn look(
        &mut self,
        number: usize,
        is_new_life: bool,
        observation: &Observation,
        mirror: &Mirror,
    ) -> Holds {
        let compared = self.compared.entry(number).or_default();
        if is_new_life {
            *compared = 0;
        }
        let from = (*compared).max(mirror.first().unwrap_or(u64::MAX));
        // The news of a commit may come before the entry.
        let Some(committed) = observation.committed.min(mirror.last()) else { return Ok(()) };
        for index in from..=committed.index.0 {
            let Some(mark) = mirror.get(index) else { break };
            let known = self.entries.entry(index).or_insert(*mark);
            if known != mark {
                let facts =
                    format!("{} is committed on n{number}, but {} was before", mark.log_id, known.log_id);
                return broken(RULE, facts);
            }
            *compared = index + 1;
        }
        Ok(())
    }

    /// The committed entry at an index, if one is known.
    pub(super) fn get(&self, index: u64) -> Option<&EntryMark> {
        self.entries.get(&index)
    }

    /// The last entry known to be committed.
    pub(super) fn last(&self) -> Option<LogId> {
        self.entries.last_key_value().map(|(_, mark)| mark.log_id)
    }
}
