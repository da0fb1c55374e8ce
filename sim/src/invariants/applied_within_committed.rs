//! Applied within committed (Raft paper, section 5.3, figure 2: `lastApplied ≤ commitIndex`): nothing is applied that is not
//! known to be committed.

use ringfence_consensus::simulation::Observation;

use super::{Holds, broken};

const RULE: &str = "applied-within-committed";

pub(super) struct AppliedWithinCommitted;

impl AppliedWithinCommitted {
    pub(super) fn look(number: usize, observation: &Observation) -> Holds {
        let Observation { applied, committed, .. } = observation;
        if applied > committed {
            return broken(
                RULE,
                format!("n{number} has applied {applied:?}, and knows of {committed:?} as committed"),
            );
        }
        Ok(())
    }
}
