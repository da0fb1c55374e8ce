//! Links that delay, lose, repeat, reorder or choke, and what is common to all faults of the network.

use std::time::Duration;

use anyhow::{Context as _, Result};
use rand::RngExt as _;

use super::target::leader;
use super::{Effect, Family, Nemesis, Strike};
use crate::world::{Capability, Counters, Host, Link, Switch};

/// A direction between two hosts.
pub(super) type Path = (Host, Host);

const NEEDS: &[Capability] = &[Capability::Network];

/// All of this file.
pub(super) const ALL: &[Nemesis] = &[
    Nemesis::new(
        "delay",
        Family::Network,
        NEEDS,
        delay,
        "each packet between nodes takes 10 to 120 ms longer",
    ),
    Nemesis::new(
        "jitter",
        Family::Network,
        NEEDS,
        jitter,
        "packets take up to 80 ms longer, each another time, and overtake each other",
    ),
    Nemesis::new(
        "loss",
        Family::Network,
        NEEDS,
        loss,
        "5 to 30 % of the packets of nodes and clients are lost",
    ),
    Nemesis::new(
        "duplicate",
        Family::Network,
        NEEDS,
        duplicate,
        "20 to 60 % of the packets of nodes and clients arrive twice",
    ),
    Nemesis::new("slow-link", Family::Network, NEEDS, slow, "the leader's links carry 30 to 200 kB a second"),
];

/// What shows that a fault of the network had an effect.
#[derive(Debug, Clone, Copy)]
pub(super) enum Sign {
    /// Packets were lost.
    Dropped,
    /// Packets were held back.
    Delayed,
    /// Packets were sent twice.
    Duplicated,
    /// Packets overtook others.
    Reordered,
}

impl Sign {
    fn of(self, counters: Counters) -> (u64, &'static str) {
        match self {
            Sign::Dropped => (counters.dropped, "dropped"),
            Sign::Delayed => (counters.delayed, "delayed"),
            Sign::Duplicated => (counters.duplicated, "sent twice"),
            Sign::Reordered => (counters.reordered, "overtaken by later ones"),
        }
    }
}

/// Links that something is done to. Dropping it heals them.
pub(super) struct Faulty<'a> {
    switch: &'a Switch,
    paths: Vec<Path>,
    before: Counters,
}

impl<'a> Faulty<'a> {
    pub(super) fn new(strike: &Strike<'a>, paths: &[Path]) -> Result<Faulty<'a>> {
        let switch = strike.world.network().context("the nodes are not on a network of their own")?;
        Ok(Faulty { switch, paths: paths.to_vec(), before: total(switch, paths) })
    }

    pub(super) fn set(&self, link: Link) {
        self.switch.set_all(self.paths.iter().map(|(from, to)| (*from, *to, link)));
    }

    /// Heals the links and tells what has happened on them.
    pub(super) fn heal(self, strike: &Strike<'_>, nodes: Vec<usize>, detail: String, sign: Sign) -> Effect {
        let healing = strike.world.clock().now();
        let (count, word) = sign.of(total(self.switch, &self.paths) - self.before);
        drop(self);
        Effect {
            nodes,
            detail,
            healing,
            evidence: format!("{count} packets {word}"),
            effective: count > 0,
            violation: None,
        }
    }
}

impl Drop for Faulty<'_> {
    fn drop(&mut self) {
        self.set(Link::default());
    }
}

/// Sets links, holds the fault, and heals them.
pub(super) fn hold(
    strike: &mut Strike<'_>,
    nodes: Vec<usize>,
    detail: String,
    paths: &[Path],
    link: Link,
    sign: Sign,
) -> Result<Effect> {
    let faulty = Faulty::new(strike, paths)?;
    faulty.set(link);
    strike.hold();
    Ok(faulty.heal(strike, nodes, detail, sign))
}

fn total(switch: &Switch, paths: &[Path]) -> Counters {
    paths.iter().fold(Counters::default(), |total, (from, to)| total.plus(switch.counters(*from, *to)))
}

fn delay(strike: &mut Strike<'_>) -> Result<Effect> {
    let delay = Duration::from_millis(strike.rng.random_range(10..=120));
    let link = Link { delay, ..Link::default() };
    let paths = between_nodes(strike);
    hold(strike, all_nodes(strike), format!("{delay:?} in each direction"), &paths, link, Sign::Delayed)
}

fn jitter(strike: &mut Strike<'_>) -> Result<Effect> {
    let jitter = Duration::from_millis(strike.rng.random_range(10..=80));
    let link = Link { jitter, fifo: false, ..Link::default() };
    let paths = everywhere(strike);
    hold(strike, all_nodes(strike), format!("0 to {jitter:?}"), &paths, link, Sign::Reordered)
}

fn loss(strike: &mut Strike<'_>) -> Result<Effect> {
    let loss = strike.rng.random_range(0.05..=0.3);
    let link = Link { loss, ..Link::default() };
    let paths = everywhere(strike);
    hold(strike, all_nodes(strike), format!("{:.0} % lost", loss * 100.0), &paths, link, Sign::Dropped)
}

fn duplicate(strike: &mut Strike<'_>) -> Result<Effect> {
    let duplicate = strike.rng.random_range(0.2..=0.6);
    let link = Link { duplicate, ..Link::default() };
    let paths = everywhere(strike);
    hold(
        strike,
        all_nodes(strike),
        format!("{:.0} % twice", duplicate * 100.0),
        &paths,
        link,
        Sign::Duplicated,
    )
}

fn slow(strike: &mut Strike<'_>) -> Result<Effect> {
    let node = leader(strike);
    let rate = strike.rng.random_range(30_000..=200_000);
    let link = Link { rate: Some(rate), ..Link::default() };
    let slow = Host::node(node);
    let paths: Vec<Path> =
        everywhere(strike).into_iter().filter(|(from, to)| *from == slow || *to == slow).collect();
    hold(strike, vec![node], format!("n{node}: {} kB/s", rate / 1_000), &paths, link, Sign::Delayed)
}

fn all_nodes(strike: &Strike<'_>) -> Vec<usize> {
    (1..=strike.world.nodes()).collect()
}

/// Both directions of each pair of nodes.
fn between_nodes(strike: &Strike<'_>) -> Vec<Path> {
    pairs(all_nodes(strike).into_iter().map(Host::node).collect())
}

/// Both directions of each pair of nodes, and of each node and the clients.
fn everywhere(strike: &Strike<'_>) -> Vec<Path> {
    let mut hosts: Vec<Host> = all_nodes(strike).into_iter().map(Host::node).collect();
    hosts.push(Host::CLIENTS);
    pairs(hosts)
}

fn pairs(hosts: Vec<Host>) -> Vec<Path> {
    let directions = hosts.iter().flat_map(|from| hosts.iter().map(move |to| (*from, *to)));
    directions.filter(|(from, to)| from != to).collect()
}
