//! Nemeses: what is done to a cluster while clients use it.
//!
//! Each strike begins a fault, holds it, heals it (also where something goes wrong on the way), and tells what shows that it
//! had an effect: packets that the switch dropped, a question that a stopped node did not answer, bytes that a power cut
//! lost. A fault without an effect fails its run, since silence proves nothing then.
//!
//! Reading order: this page, `schedule` (when what is done), then one family a file.

mod clock;
mod disk;
mod heal;
mod members;
mod network;
mod operation;
mod operator;
mod partition;
mod power;
mod process;
mod rot;
mod rot_snapshot;
mod schedule;
mod target;

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

pub use heal::heal;
pub use schedule::Schedule;

use crate::record::{Fault, What};
use crate::world::{Capability, World};

/// Settings of the nodes with which the faults bite within a short run: a member that was away for ten seconds needs a
/// snapshot, and state reaches its file every few seconds.
pub const NODE_FLAGS: [&str; 2] = ["--checkpoint-interval=2s", "--log-retention-time=6s"];

/// How often whoever holds a fault looks whether the run is being ended.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Faults of one family are never combined with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// Packets.
    Network,
    /// Processes that die or stand still.
    Process,
    /// Clocks.
    Clock,
    /// Power and disks. Nodes die of these, so they are not combined with faults of processes either.
    Disk,
    /// Nothing bad: what an operator may do at any time.
    Operation,
    /// Others, at the same time; or none at all.
    Mix,
}

/// Something that can be done to a cluster.
#[derive(Debug)]
pub struct Nemesis {
    /// Its name on command lines and in reports.
    pub name: &'static str,
    /// What it belongs to.
    pub family: Family,
    /// What the machine must be able to do.
    pub needs: &'static [Capability],
    /// What it does, in half a sentence.
    pub about: &'static str,
    action: Action,
}

/// What a schedule does with a nemesis.
#[derive(Debug, Clone, Copy)]
enum Action {
    /// Leave the cluster alone.
    Nothing,
    /// Strike with it.
    Strike(fn(&mut Strike<'_>) -> Result<Effect>),
    /// Strike with two or three others at once.
    Several,
}

/// One strike: at whom, for how long, and where its choices come from.
struct Strike<'a> {
    world: &'a World,
    rng: StdRng,
    duration: Duration,
    stop: &'a AtomicBool,
}

/// What a strike has done, and what shows it.
#[derive(Debug)]
struct Effect {
    nodes: Vec<usize>,
    detail: String,
    /// When the healing began, in nanoseconds of the run.
    healing: u64,
    evidence: String,
    effective: bool,
    /// What the strike itself showed to be wrong.
    violation: Option<String>,
}

/// All nemeses, by family.
pub fn registry() -> impl Iterator<Item = &'static Nemesis> {
    let families: [&[Nemesis]; 10] = [
        MIXED,
        partition::ALL,
        network::ALL,
        process::ALL,
        clock::ALL,
        power::ALL,
        disk::ALL,
        rot::ALL,
        rot_snapshot::ALL,
        members::ALL,
    ];
    families.into_iter().flatten().chain(operation::ALL)
}

/// The nemesis of that name.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static Nemesis> {
    registry().find(|nemesis| nemesis.name == name)
}

/// The nodes that could reach no majority while a fault was in force, whatever else happened.
#[must_use]
pub fn without_majority(fault: &Fault, nodes: usize) -> Vec<usize> {
    match fault.name.as_str() {
        "partition-halves" | "partition-leader" => fault.nodes.clone(),
        "kill-majority" | "pause-majority" => {
            (1..=nodes).filter(|node| !fault.nodes.contains(node)).collect()
        }
        _ => Vec::new(),
    }
}

const MIXED: &[Nemesis] = &[
    Nemesis { action: Action::Nothing, ..Nemesis::mixed("none", "nothing: the cluster is left alone") },
    Nemesis {
        action: Action::Several,
        ..Nemesis::mixed("mix", "two or three of all others at once, drawn from the seed")
    },
];

impl Nemesis {
    /// A row of a family's table.
    const fn new(
        name: &'static str,
        family: Family,
        needs: &'static [Capability],
        strike: fn(&mut Strike<'_>) -> Result<Effect>,
        about: &'static str,
    ) -> Nemesis {
        Nemesis { name, family, needs, about, action: Action::Strike(strike) }
    }

    const fn mixed(name: &'static str, about: &'static str) -> Nemesis {
        Nemesis { name, family: Family::Mix, needs: &[], about, action: Action::Nothing }
    }

    /// Whether both may be in force at once: each heals what it did, so they must not do it to the same thing.
    fn is_compatible(&self, other: &Nemesis) -> bool {
        let of_nodes = |family| matches!(family, Family::Process | Family::Disk);
        self.family != other.family && !(of_nodes(self.family) && of_nodes(other.family))
    }

    /// Begins the fault, holds it for about `duration` (shorter once `stop` is true), and heals it. A strike that fails is a
    /// fault without an effect. None: this nemesis does nothing by itself.
    #[must_use]
    fn strike(&self, world: &World, seed: u64, duration: Duration, stop: &AtomicBool) -> Option<Fault> {
        let Action::Strike(action) = self.action else { return None };
        let start = world.clock().now();
        let mut strike = Strike { world, rng: StdRng::seed_from_u64(seed), duration, stop };
        let effect = action(&mut strike).unwrap_or_else(|error| Effect {
            nodes: Vec::new(),
            detail: "the strike failed".to_owned(),
            healing: start,
            evidence: format!("{error:#}"),
            effective: false,
            violation: None,
        });
        let Effect { nodes, detail, healing, evidence, effective, violation } = effect;
        let (name, end) = (self.name.to_owned(), world.clock().now());
        Some(Fault { name, nodes, detail, start, healing, end, evidence, effective, violation })
    }
}

impl Strike<'_> {
    /// Holds what was begun, for as long as the fault shall last.
    fn hold(&self) {
        self.pause(self.duration);
    }

    /// When what was begun shall end.
    fn deadline(&self) -> Instant {
        Instant::now() + self.duration
    }

    /// Whether the fault shall stay in force.
    fn goes_on(&self, deadline: Instant) -> bool {
        Instant::now() < deadline && !self.stop.load(Ordering::Relaxed)
    }

    /// Sleeps for a time within these bounds, in milliseconds.
    fn pause_within(&mut self, milliseconds: RangeInclusive<u64>) {
        let duration = Duration::from_millis(self.rng.random_range(milliseconds));
        self.pause(duration);
    }

    /// Sleeps, but no longer than the run lasts.
    fn pause(&self, duration: Duration) {
        let deadline = Instant::now() + duration;
        while self.goes_on(deadline) {
            thread::sleep(LOOK_INTERVAL.min(deadline.saturating_duration_since(Instant::now())));
        }
    }
}

/// Heals when it is dropped, so also where a strike ends early.
struct Healing<F: FnMut()>(F);

impl<F: FnMut()> Drop for Healing<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// The exit code with which a node ended by itself last; none: it never did, or a signal ended it.
fn last_exit(world: &World, node: usize) -> Option<i32> {
    world.samples().into_iter().rev().filter(|sample| sample.node == node).find_map(|sample| match sample
        .what
    {
        What::Exited { code, .. } => Some(code),
        What::Status { .. } | What::Started | What::Stopped { .. } => None,
    })?
}

/// Nodes as the report shows them: `n1,n4`.
fn named(nodes: &[usize]) -> String {
    nodes.iter().map(|node| format!("n{node}")).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_nemesis_has_a_name_of_its_own_and_is_described() {
        let mut names = BTreeSet::new();
        for nemesis in registry() {
            assert!(names.insert(nemesis.name), "{} is there twice", nemesis.name);
            assert!(
                nemesis.about.len() > 15 && nemesis.about.len() < 100,
                "{}: {:?}",
                nemesis.name,
                nemesis.about
            );
            assert!(nemesis.name.chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{}", nemesis.name);
            assert_eq!(by_name(nemesis.name).map(|found| found.about), Some(nemesis.about));
        }
        assert!(names.len() >= 40, "{names:?}");
        assert!(by_name("nonsense").is_none());
    }

    #[test]
    fn what_kills_nodes_is_not_combined_with_what_else_kills_them() {
        let of = |name| by_name(name).expect("it is registered");
        assert!(of("delay").is_compatible(of("kill-one")));
        assert!(of("clock-rate").is_compatible(of("power-all")));
        assert!(!of("delay").is_compatible(of("loss")));
        assert!(!of("kill-one").is_compatible(of("power-one")));
    }
}
