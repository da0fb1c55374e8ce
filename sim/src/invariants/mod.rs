//! What must hold in every state that a cluster comes to: one file each, with the section of the Raft paper ("In Search of
//! an Understandable Consensus Algorithm", extended version) or of openraft's or our design that it is taken from.
//!
//! All are looked at after each step of a node, as far as that node has changed in it. They know nothing of how the product
//! works: they are told positions, votes and marks of entries, and compare.

mod applied_within_committed;
mod committed_prefix;
mod durable_claims;
mod leader_completeness;
mod log_matching;
mod one_leader;
mod state_hashes;

use std::collections::BTreeMap;

use ringfence_consensus::simulation::{Observation, Probe, StateMark, Vote};
use ringfence_types::LogId;

use applied_within_committed::AppliedWithinCommitted;
use committed_prefix::CommittedPrefix;
use durable_claims::DurableClaims;
use leader_completeness::LeaderCompleteness;
use log_matching::{LogMatching, Mirror};
use one_leader::OneLeader;
use state_hashes::StateHashes;

/// A rule that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// The rule's name, which is its file's.
    pub rule: &'static str,
    /// What was seen, with figures.
    pub facts: String,
}

/// What a rule says of a look.
pub(crate) type Holds = Result<(), Broken>;

/// One node as it was seen last, in one life of it.
struct Seen {
    life: u64,
    observation: Observation,
    state: Option<StateMark>,
    mirror: Mirror,
    /// Whether the mirror could follow: a disk may refuse a look into the log, and then the next one is made anyway.
    is_complete: bool,
}

/// All invariants of one run, with what they remember.
#[derive(Default)]
pub struct Invariants {
    nodes: BTreeMap<usize, Seen>,
    one_leader: OneLeader,
    log_matching: LogMatching,
    leader_completeness: LeaderCompleteness,
    committed_prefix: CommittedPrefix,
    durable_claims: DurableClaims,
    state_hashes: StateHashes,
    broken: Vec<Broken>,
    looks: u64,
    snapshots: u64,
}

impl Invariants {
    /// Looks at a node after a step of it. `life` counts the starts of its process.
    pub fn look(&mut self, number: usize, life: u64, probe: &Probe) {
        let observation = probe.observe();
        let seen = self.nodes.get(&number).filter(|seen| seen.life == life);
        let shown = seen.and_then(|seen| seen.state);
        let is_shown = shown.map(|state| state.applied) == observation.applied;
        let state = if is_shown { shown } else { probe.state() };
        if seen.is_some_and(|seen| seen.is_complete && seen.observation == observation && seen.state == state)
        {
            return;
        }
        self.looks += 1;
        if let Err(broken) = self.judge(number, life, &observation, state, probe) {
            // One break of a rule leads to others: the first of each rule is enough.
            if self.broken.iter().all(|known| known.rule != broken.rule) {
                self.broken.push(broken);
            }
        }
    }

    fn judge(
        &mut self,
        number: usize,
        life: u64,
        observation: &Observation,
        state: Option<StateMark>,
        probe: &Probe,
    ) -> Holds {
        let is_new_life = self.nodes.get(&number).is_none_or(|seen| seen.life != life);
        let before = self.nodes.remove(&number).filter(|_| !is_new_life);
        let mut mirror = before.map(|seen| seen.mirror).unwrap_or_default();
        let is_complete = mirror.follow(observation, probe);
        self.snapshots += u64::from(mirror.was_replaced());
        self.nodes.insert(number, Seen { life, observation: *observation, state, mirror, is_complete });
        let mirror = &self.nodes[&number].mirror;
        self.one_leader.look(number, life, observation)?;
        self.log_matching.look(number, mirror)?;
        AppliedWithinCommitted::look(number, observation)?;
        self.committed_prefix.look(number, is_new_life, observation, mirror)?;
        self.leader_completeness.look(number, observation, mirror, &self.committed_prefix)?;
        self.durable_claims.look(number, is_new_life, observation, mirror)?;
        self.state_hashes.look(number, state)
    }

    /// A node was wiped or its data damaged: what it once claimed to keep is no longer asked of it.
    pub fn forgive(&mut self, number: usize) {
        self.durable_claims.forgive(number);
        self.state_hashes.forgive(number);
    }

    /// A rule that the run itself found broken.
    pub fn report(&mut self, rule: &'static str, facts: String) {
        self.broken.push(Broken { rule, facts });
    }

    /// The rules that did not hold, each once.
    #[must_use]
    pub fn broken(&self) -> &[Broken] {
        &self.broken
    }

    /// The vote by which a node leads, as it was seen last.
    #[must_use]
    pub fn leads(&self, number: usize) -> Option<Vote> {
        self.nodes.get(&number)?.observation.leads
    }

    /// Looks at which a node had changed.
    #[must_use]
    pub fn looks(&self) -> u64 {
        self.looks
    }

    /// Snapshots that took the place of a node's log, while it ran.
    #[must_use]
    pub fn snapshots(&self) -> u64 {
        self.snapshots
    }

    /// The largest index known to be committed anywhere, if there is one.
    #[must_use]
    pub fn committed(&self) -> Option<LogId> {
        self.committed_prefix.last()
    }
}

pub(crate) fn broken(rule: &'static str, facts: String) -> Holds {
    Err(Broken { rule, facts })
}
