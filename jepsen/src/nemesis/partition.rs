//! Partitions: which nodes hear which. All are cuts of directed links, set at once.

use std::ops::RangeInclusive;

use anyhow::Result;
use rand::RngExt as _;

use super::network::{self, Path, Sign};
use super::target::{Target, any, leader, majority_of, minority_of, shuffled};
use super::{Effect, Family, Nemesis, Strike, named};
use crate::world::{Capability, Host, Link};

const NEEDS: &[Capability] = &[Capability::Network];
/// How long a flapping link stays as it is.
const FLAP: RangeInclusive<u64> = 50..=500;

/// All of this file.
pub(super) const ALL: &[Nemesis] = &[
    Nemesis::new(
        "partition-halves",
        Family::Network,
        NEEDS,
        halves,
        "a minority is cut off from the majority",
    ),
    Nemesis::new(
        "partition-leader",
        Family::Network,
        NEEDS,
        isolate_leader,
        "the leader is cut off from all others",
    ),
    Nemesis::new(
        "partition-one-way",
        Family::Network,
        NEEDS,
        one_way,
        "a node, often the leader, cannot be heard or cannot hear",
    ),
    Nemesis::new(
        "partition-bridge",
        Family::Network,
        NEEDS,
        bridge,
        "two groups that only one node between them connects",
    ),
    Nemesis::new(
        "partition-ring",
        Family::Network,
        NEEDS,
        ring,
        "each node sees a majority, but not the same one",
    ),
    Nemesis::new(
        "partition-clients",
        Family::Network,
        NEEDS,
        isolate_from_clients,
        "clients cannot reach the leader, the other nodes can",
    ),
    Nemesis::new(
        "flap",
        Family::Network,
        NEEDS,
        flap,
        "the leader's links are cut and joined again several times a second",
    ),
];

fn halves(strike: &mut Strike<'_>) -> Result<Effect> {
    let mut nodes = shuffled(strike);
    let mut majority = nodes.split_off(minority_of(nodes.len()));
    nodes.sort_unstable();
    majority.sort_unstable();
    let detail = format!("{} | {}", named(&nodes), named(&majority));
    let paths = both_ways(&nodes, &majority);
    network::hold(strike, nodes, detail, &paths, Link::cut(), Sign::Dropped)
}

fn isolate_leader(strike: &mut Strike<'_>) -> Result<Effect> {
    let alone = leader(strike);
    let others = others(strike, alone);
    let detail = format!("n{alone} | {}", named(&others));
    let paths = both_ways(&[alone], &others);
    network::hold(strike, vec![alone], detail, &paths, Link::cut(), Sign::Dropped)
}

fn one_way(strike: &mut Strike<'_>) -> Result<Effect> {
    let target = if strike.rng.random_bool(0.7) { Target::Leader } else { Target::One };
    let nodes = target.choose(strike);
    let others = others(strike, nodes[0]);
    let (detail, paths) = if strike.rng.random_bool(0.5) {
        (format!("{} is not heard", named(&nodes)), one_way_paths(&nodes, &others))
    } else {
        (format!("{} does not hear", named(&nodes)), one_way_paths(&others, &nodes))
    };
    network::hold(strike, nodes, detail, &paths, Link::cut(), Sign::Dropped)
}

fn bridge(strike: &mut Strike<'_>) -> Result<Effect> {
    let mut left = shuffled(strike);
    let led = leader(strike);
    if left.last() == Some(&led) {
        // All hear a leader that is the bridge, and nothing is sent over the links that are cut.
        left.rotate_right(1);
    }
    let middle = left.pop().unwrap_or(1);
    let right = left.split_off(left.len() / 2);
    let detail = format!("{} | n{middle} | {}, and n{middle} sees both", named(&left), named(&right));
    let paths = both_ways(&left, &right);
    let nodes = [left, right].concat();
    network::hold(strike, nodes, detail, &paths, Link::cut(), Sign::Dropped)
}

fn ring(strike: &mut Strike<'_>) -> Result<Effect> {
    let nodes = shuffled(strike);
    let paths = ring_cuts(&nodes);
    let detail = format!("a ring of {}", named(&nodes));
    network::hold(strike, nodes, detail, &paths, Link::cut(), Sign::Dropped)
}

fn isolate_from_clients(strike: &mut Strike<'_>) -> Result<Effect> {
    let alone = leader(strike);
    let paths = [(Host::node(alone), Host::CLIENTS), (Host::CLIENTS, Host::node(alone))];
    let detail = format!("n{alone} | clients");
    network::hold(strike, vec![alone], detail, &paths, Link::cut(), Sign::Dropped)
}

fn flap(strike: &mut Strike<'_>) -> Result<Effect> {
    let node = if strike.rng.random_bool(0.7) { leader(strike) } else { any(strike) };
    let paths = both_ways(&[node], &others(strike, node));
    let faulty = network::Faulty::new(strike, &paths)?;
    let (deadline, mut flaps) = (strike.deadline(), 0);
    while strike.goes_on(deadline) {
        let link = if flaps % 2 == 0 { Link::cut() } else { Link::default() };
        faulty.set(link);
        flaps += 1;
        strike.pause_within(FLAP);
    }
    let detail = format!("n{node}'s links changed {flaps} times");
    Ok(faulty.heal(strike, vec![node], detail, Sign::Dropped))
}

fn others(strike: &Strike<'_>, node: usize) -> Vec<usize> {
    (1..=strike.world.nodes()).filter(|other| *other != node).collect()
}

fn one_way_paths(from: &[usize], to: &[usize]) -> Vec<Path> {
    from.iter().flat_map(|from| to.iter().map(|to| (Host::node(*from), Host::node(*to)))).collect()
}

fn both_ways(left: &[usize], right: &[usize]) -> Vec<Path> {
    [one_way_paths(left, right), one_way_paths(right, left)].concat()
}

/// The cuts that leave each node of a ring with just so many neighbours that they and it are a majority. Of three nodes any
/// two are one already: there, one pair is cut, so that the third alone sees all.
fn ring_cuts(ring: &[usize]) -> Vec<Path> {
    if ring.len() == 3 {
        return both_ways(&ring[..1], &ring[1..2]);
    }
    let reach = (majority_of(ring.len()) - 1).div_ceil(2);
    let mut cuts = Vec::new();
    for (a, from) in ring.iter().enumerate() {
        for (b, to) in ring.iter().enumerate() {
            let apart = a.abs_diff(b);
            if apart.min(ring.len() - apart) > reach {
                cuts.push((Host::node(*from), Host::node(*to)));
            }
        }
    }
    cuts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_node_of_a_ring_sees_a_majority_and_no_two_see_the_same() {
        for size in [4, 5, 6, 7, 9] {
            let nodes: Vec<usize> = (1..=size).collect();
            let cuts = ring_cuts(&nodes);
            let seen = |node: usize| -> Vec<usize> {
                let hears = |other: &usize| !cuts.contains(&(Host::node(*other), Host::node(node)));
                nodes.iter().copied().filter(hears).collect()
            };
            for node in 1..=size {
                assert!(seen(node).len() >= majority_of(size), "{size}: n{node} sees {:?}", seen(node));
                assert!(seen(node).len() < size, "{size}: n{node} sees all");
                assert!((1..node).all(|other| seen(other) != seen(node)), "{size}: n{node}");
            }
        }
        assert_eq!(ring_cuts(&[3, 1, 2]).len(), 2, "of three, one pair is cut in both directions");
    }

    #[test]
    fn a_cut_between_groups_has_both_directions_of_each_pair() {
        let paths = both_ways(&[1], &[2, 3]);
        assert_eq!(paths.len(), 4);
        assert!(
            paths.contains(&(Host::node(3), Host::node(1)))
                && paths.contains(&(Host::node(1), Host::node(3)))
        );
    }
}
