//! Power cuts: what was not synced is gone, but for what happened to be written back.

use std::time::Duration;

use anyhow::Result;
use rand::RngExt as _;

use super::process::start;
use super::target::Target;
use super::{Effect, Family, Healing, Nemesis, Strike, named};
use crate::world::{Capability, Keep, Loss};

const NEEDS: &[Capability] = &[Capability::Disk];
/// How slow syncs are just before the cut, in milliseconds. A fast disk would nearly always be caught with nothing unsynced.
const SLOW_SYNC: std::ops::RangeInclusive<u64> = 20..=80;
/// For how long they are: some batches must be in between writing and syncing.
const SLOW_TIME: Duration = Duration::from_millis(300);

/// All of this file.
pub(super) const ALL: &[Nemesis] = &[
    Nemesis::new(
        "power-one",
        Family::Disk,
        NEEDS,
        |strike| cut(strike, Target::One),
        "the power of one node is cut: unsynced data is lost, or torn",
    ),
    Nemesis::new(
        "power-all",
        Family::Disk,
        NEEDS,
        |strike| cut(strike, Target::All),
        "the power of all nodes is cut at once: unsynced data is lost, or torn",
    ),
];

fn cut(strike: &mut Strike<'_>, target: Target) -> Result<Effect> {
    let world = strike.world;
    let nodes = target.choose(strike);
    let slow =
        Healing(|| nodes.iter().filter_map(|node| world.syncs_of(*node)).for_each(|syncs| syncs.heal()));
    for node in &nodes {
        if let Some(syncs) = world.syncs_of(*node) {
            syncs.delay(Duration::from_millis(strike.rng.random_range(SLOW_SYNC)));
        }
    }
    strike.pause(SLOW_TIME);
    let restart = Healing(|| nodes.iter().for_each(|node| start(world, *node)));
    // In half of the cuts nothing unsynced survives, as with a disk whose cache is empty at once.
    let share = if strike.rng.random_bool(0.5) { 0.0 } else { strike.rng.random_range(0.1..=0.9) };
    world.cut_power(&nodes, Keep { share, seed: strike.rng.random() })?;
    drop(slow);
    strike.hold();
    let healing = world.clock().now();
    let mut lost = Loss::default();
    for node in &nodes {
        let loss = world.restore_power(*node)?;
        lost.files += loss.files;
        lost.bytes += loss.bytes;
    }
    drop(restart);
    Ok(Effect {
        detail: format!("{}, {:.0} % of what was unsynced kept", named(&nodes), share * 100.0),
        nodes,
        healing,
        evidence: format!("{} bytes in {} files were lost", lost.bytes, lost.files),
        effective: lost.bytes > 0,
        violation: None,
    })
}
