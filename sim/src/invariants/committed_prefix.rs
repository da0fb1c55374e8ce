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
        let Some(committed) = observation.committed else { return Ok(()) };
        let index = committed.index.0;
        if let Some(known) = self.entries.get(&index).filter(|known| known.log_id != committed) {
            return broken(
                RULE,
                format!("{committed} is committed for n{number}, but {} was before", known.log_id),
            );
        }
        // The news of a commit may come before the entry. And while a snapshot is installed, the log may still hold what the
        // snapshot is going to replace: only what leads up to the committed entry is committed with it.
        if mirror.get(index).is_none_or(|mark| mark.log_id != committed) {
            return Ok(());
        }
        let from = (*compared).max(mirror.first().unwrap_or(u64::MAX));
        for index in from..=index {
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
