//! Power cuts: what was not synced is gone, but for sectors that had reached the disk all the same.
//!
//! The kernel's cut takes everything that was not synced, or whole ranges of many pages. A disk tears finer than that, so the
//! harness remembers what the files held, and afterwards gives back a random part of the sectors that were lost.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::process::start;
use super::target::Target;
use super::{Effect, Family, Healing, Nemesis, Strike, named};
use crate::world::{Capability, Keep, World};

const NEEDS: &[Capability] = &[Capability::Disk];
/// How slow syncs are just before the cut, in milliseconds. A fast disk would nearly always be caught with nothing unsynced.
const SLOW_SYNC: std::ops::RangeInclusive<u64> = 30..=120;
/// For how long they are: some batches must be in between writing and syncing.
const SLOW_TIME: Duration = Duration::from_millis(400);
/// What disks write whole.
const SECTOR: usize = 512;

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

/// The contents of a node's files.
type Contents = BTreeMap<PathBuf, Vec<u8>>;

/// Sectors that a power cut took, and those of them that were given back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tear {
    lost: usize,
    kept: usize,
}

fn cut(strike: &mut Strike<'_>, target: Target) -> Result<Effect> {
    let world = strike.world;
    let nodes = target.choose(strike);
    let restart = Healing(|| nodes.iter().for_each(|node| revive(world, *node)));
    slow_down(strike, &nodes);
    // A process does not outlive its machine's power. All of them end first, so that all cuts are one moment.
    world.kill_all(&nodes);
    nodes.iter().filter_map(|node| world.syncs_of(*node)).for_each(|syncs| syncs.heal());
    let before: Vec<Contents> = nodes.iter().map(|node| contents(world, *node)).collect::<Result<_>>()?;
    world.cut_power(&nodes, Keep::NOTHING)?;
    strike.hold();
    let healing = world.clock().now();
    let mut torn = Tear::default();
    for (node, before) in nodes.iter().zip(&before) {
        world.restore_power(*node)?;
        let mut random = StdRng::seed_from_u64(strike.rng.random());
        let survivors = match random.random_range(0..4) {
            0 => Survivors::None,
            1 => Survivors::Share(random.random_range(0.1..=0.9)),
            _ => Survivors::First,
        };
        let tear =
            world.in_data_dir(*node, |directory| tear(directory, before, survivors, &mut random))??;
        torn = Tear { lost: torn.lost + tear.lost, kept: torn.kept + tear.kept };
    }
    drop(restart);
    Ok(Effect {
        detail: named(&nodes),
        nodes,
        healing,
        evidence: format!(
            "the cut took the disks' witnesses, and {} sectors of the nodes' files, of which {} had been written all the same",
            torn.lost, torn.kept
        ),
        // A cut that does not even take the witness is an error of the restoration.
        effective: true,
        violation: None,
    })
}

/// Starts a node with its disk mounted anew: nothing is left of a cut then, even where a strike ended in its middle.
fn revive(world: &World, node: usize) {
    if !world.is_running(node)
        && let Err(error) = world.restore_power(node)
    {
        eprintln!("n{node} gets no power: {error:#}");
    }
    start(world, node);
}

/// Makes syncs slow for a moment, where that can be done, so that the cut finds something unsynced.
fn slow_down(strike: &mut Strike<'_>, nodes: &[usize]) {
    let syncs: Vec<_> = nodes.iter().filter_map(|node| strike.world.syncs_of(*node)).collect();
    for syncs in &syncs {
        syncs.delay(Duration::from_millis(strike.rng.random_range(SLOW_SYNC)));
    }
    if !syncs.is_empty() {
        strike.pause(SLOW_TIME);
    }
}

/// All files of a stopped node, as the node saw them.
fn contents(world: &World, node: usize) -> Result<Contents> {
    let read = |directory: &Path| -> io::Result<Contents> {
        let mut contents = Contents::new();
        let mut waiting = vec![directory.to_path_buf()];
        while let Some(folder) = waiting.pop() {
            for entry in fs::read_dir(&folder)? {
                let path = entry?.path();
                match path.is_dir() {
                    true => waiting.push(path),
                    false => drop(contents.insert(path.clone(), fs::read(&path)?)),
                }
            }
        }
        Ok(contents)
    };
    Ok(world.in_data_dir(node, read)??)
}

/// Which of the sectors that were not synced a disk has written all the same.
#[derive(Debug, Clone, Copy)]
enum Survivors {
    /// None, as where the cache of a disk is empty at once.
    None,
    /// Any, so many of them.
    Share(f64),
    /// The first ones of each file, as where a disk writes in order until its power is gone.
    First,
}

/// Gives back some of the sectors that were lost of files that are still there.
fn tear(directory: &Path, before: &Contents, survivors: Survivors, random: &mut StdRng) -> io::Result<Tear> {
    let mut tear = Tear::default();
    for (path, before) in before.iter().filter(|(path, _)| path.starts_with(directory)) {
        let Ok(after) = fs::read(path) else {
            tear.lost += before.len().div_ceil(SECTOR);
            continue;
        };
        let file = File::options().write(true).open(path)?;
        let sectors = before.chunks(SECTOR).zip(after.chunks(SECTOR)).enumerate();
        let lost: Vec<(usize, &[u8])> = sectors
            .filter(|(_, (was, is))| was != is && was.len() == is.len())
            .map(|(number, (was, _))| (number, was))
            .collect();
        tear.lost += lost.len() + before.len().saturating_sub(after.len()).div_ceil(SECTOR);
        let first = random.random_range(0..=lost.len());
        for (place, (number, was)) in lost.into_iter().enumerate() {
            let survives = match survivors {
                Survivors::None => false,
                Survivors::Share(share) => random.random_bool(share),
                Survivors::First => place < first,
            };
            if survives {
                file.write_all_at(was, (number * SECTOR) as u64)?;
                tear.kept += 1;
            }
        }
        file.sync_all()?;
    }
    Ok(tear)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tear_gives_back_some_sectors_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let path = folder.path().join("log");
        let lost = 100..200;
        let mut before = vec![1; 300 * SECTOR];
        before[lost.start * SECTOR..lost.end * SECTOR].fill(2);
        fs::write(&path, vec![1; 300 * SECTOR]).expect("the folder is writable");
        let contents =
            Contents::from([(path.clone(), before), (folder.path().join("gone"), vec![3; SECTOR + 1])]);
        let tear = |survivors| {
            let mut random = StdRng::seed_from_u64(1);
            tear(folder.path(), &contents, survivors, &mut random).expect("it is writable")
        };
        let torn = tear(Survivors::None);
        assert_eq!((torn.lost, torn.kept), (102, 0));
        let torn = tear(Survivors::Share(0.4));
        assert!((20..60).contains(&torn.kept), "{torn:?}");
        let now = fs::read(&path).expect("the file is readable");
        let new: Vec<usize> = (0..300).filter(|sector| now[sector * SECTOR] == 2).collect();
        assert!(new.len() == torn.kept && new.iter().all(|sector| lost.contains(sector)), "{new:?}");
        assert!(!folder.path().join("gone").exists());
        fs::write(&path, vec![1; 300 * SECTOR]).expect("the folder is writable");
        let torn = tear(Survivors::First);
        let now = fs::read(&path).expect("the file is readable");
        let new: Vec<usize> = (0..300).filter(|sector| now[sector * SECTOR] == 2).collect();
        let first: Vec<usize> = lost.take(torn.kept).collect();
        assert!(torn.kept > 0 && torn.kept < 100, "{torn:?}");
        assert_eq!(new, first, "they are the first ones");
    }
}
