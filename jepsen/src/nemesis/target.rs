//! Which nodes a fault strikes.

use std::thread;
use std::time::{Duration, Instant};

use rand::RngExt as _;
use rand::seq::SliceRandom as _;

use super::Strike;

/// How long a strike at the leader waits for there to be one; then it strikes any node.
const LEADER_WAIT: Duration = Duration::from_secs(3);
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// A choice of nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// Any one.
    One,
    /// Whoever leads.
    Leader,
    /// As many as a majority can do without.
    Minority,
    /// So many that the others are none.
    Majority,
    /// Each.
    All,
}

impl Target {
    /// The nodes, by number, in ascending order.
    pub(super) fn choose(self, strike: &mut Strike<'_>) -> Vec<usize> {
        let nodes = strike.world.nodes();
        match self {
            Target::One => vec![any(strike)],
            Target::Leader => vec![leader(strike)],
            Target::Minority => some(strike, minority_of(nodes)),
            Target::Majority => some(strike, majority_of(nodes)),
            Target::All => (1..=nodes).collect(),
        }
    }
}

/// How many of so many nodes are a majority.
pub(super) fn majority_of(nodes: usize) -> usize {
    nodes / 2 + 1
}

/// How many of so many nodes a majority can do without, but one at least.
pub(super) fn minority_of(nodes: usize) -> usize {
    (nodes - majority_of(nodes)).max(1)
}

/// Any node.
pub(super) fn any(strike: &mut Strike<'_>) -> usize {
    strike.rng.random_range(1..=strike.world.nodes())
}

/// The leader; any node where none is found.
pub(super) fn leader(strike: &mut Strike<'_>) -> usize {
    let begun = Instant::now();
    loop {
        if let Some(leader) = strike.world.leader() {
            return leader;
        }
        if begun.elapsed() > LEADER_WAIT {
            return any(strike);
        }
        thread::sleep(LOOK_INTERVAL);
    }
}

/// All nodes in any order.
pub(super) fn shuffled(strike: &mut Strike<'_>) -> Vec<usize> {
    let mut nodes: Vec<usize> = (1..=strike.world.nodes()).collect();
    nodes.shuffle(&mut strike.rng);
    nodes
}

fn some(strike: &mut Strike<'_>, count: usize) -> Vec<usize> {
    let mut nodes = shuffled(strike);
    nodes.truncate(count);
    nodes.sort_unstable();
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minorities_and_majorities_of_common_sizes() {
        let of = |nodes| (minority_of(nodes), majority_of(nodes));
        assert_eq!([1, 2, 3, 4, 5, 7].map(of), [(1, 1), (1, 2), (1, 2), (1, 3), (2, 3), (3, 4)]);
    }
}
