//! Equal states (Raft paper, section 2: deterministic state machines that apply the same entries are the same): the hash
//! over the whole state at an applied index is the same on every node.

use std::collections::{BTreeMap, BTreeSet};

use ringfence_consensus::simulation::StateMark;

use super::{Holds, broken};

const RULE: &str = "state-hashes";

#[derive(Default)]
pub(super) struct StateHashes {
    states: BTreeMap<u64, (StateMark, usize)>,
    /// Nodes whose data were damaged behind their back: the running hash goes astray with a row that it takes off, and it
    /// is the comparison with the other nodes, and the scrub, that have to find that.
    forgiven: BTreeSet<usize>,
}

impl StateHashes {
    pub(super) fn look(&mut self, number: usize, state: Option<StateMark>) -> Holds {
        let Some(state) = state.filter(|_| !self.forgiven.contains(&number)) else { return Ok(()) };
        let (known, by) = *self.states.entry(state.applied.index.0).or_insert((state, number));
        if known != state {
            return broken(RULE, format!("n{number} has {state:?}, and n{by} had {known:?}"));
        }
        Ok(())
    }

    pub(super) fn forgive(&mut self, number: usize) {
        self.forgiven.insert(number);
    }
}
