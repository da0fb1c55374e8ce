//! Election safety (Raft paper, section 5.2, figure 3): at most one leader in a term. openraft allows several in turn in
//! one term and tells them apart by node, so here a leadership is a term and a node. It belongs to one life of that node: a
//! process that took it up again after a restart could give entries a second content.

use std::collections::BTreeMap;

use ringfence_consensus::simulation::Observation;
use ringfence_types::{NodeId, Term};

use super::{Holds, broken};

const RULE: &str = "one-leader";

#[derive(Default)]
pub(super) struct OneLeader {
    /// The node and the life of it that led.
    leaders: BTreeMap<(Term, NodeId), (usize, u64)>,
}

impl OneLeader {
    pub(super) fn look(&mut self, number: usize, life: u64, observation: &Observation) -> Holds {
        let Some(vote) = observation.leads else { return Ok(()) };
        if vote.node != NodeId(number as u64) {
            return broken(RULE, format!("n{number} leads by the vote {vote:?}"));
        }
        if !vote.committed {
            // A majority has granted it, and the disk is still to note that. The node may die of this very write, and has
            // led nobody then.
            return Ok(());
        }
        let leader = *self.leaders.entry((vote.term, vote.node)).or_insert((number, life));
        if leader != (number, life) {
            let facts = format!(
                "n{number} leads by {vote:?} in its life {life}; n{} did in life {}",
                leader.0, leader.1
            );
            return broken(RULE, facts);
        }
        Ok(())
    }
}
