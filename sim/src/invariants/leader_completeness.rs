//! Leader completeness (Raft paper, section 5.4, figure 3): what was committed before a leadership began is in the log of
//! its leader.

use std::collections::BTreeSet;

use ringfence_consensus::simulation::Observation;
use ringfence_types::{NodeId, Term};

use super::committed_prefix::CommittedPrefix;
use super::log_matching::Mirror;
use super::{Holds, broken};

const RULE: &str = "leader-completeness";

#[derive(Default)]
pub(super) struct LeaderCompleteness {
    judged: BTreeSet<(Term, NodeId)>,
}

impl LeaderCompleteness {
    pub(super) fn look(
        &mut self,
        number: usize,
        observation: &Observation,
        mirror: &Mirror,
        committed: &CommittedPrefix,
    ) -> Holds {
        let Some(vote) = observation.leads else { return Ok(()) };
        if !self.judged.insert((vote.term, vote.node)) {
            return Ok(());
        }
        // Entries before the log's beginning are in the state, which a snapshot or a purge took them into.
        let Some(first) = mirror.first() else { return Ok(()) };
        let Some(last) = committed.last() else { return Ok(()) };
        for index in first..=last.index.0 {
            let Some(mark) = committed.get(index) else { continue };
            // An entry of this leadership or a later one says nothing about its beginning.
            if (mark.log_id.term, mark.log_id.node) >= (vote.term, vote.node) {
                break;
            }
            if mirror.get(index) != Some(mark) {
                let found = mirror.get(index).map(|mark| mark.log_id);
                let facts = format!("n{number} leads by {vote:?} without {}: it has {found:?}", mark.log_id);
                return broken(RULE, facts);
            }
        }
        Ok(())
    }
}
