//! Rot of a snapshot on its way: a member is away until it needs one, and the file that another made for it rots before it is
//! sent. The member must refuse it, and get a sound one.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rand::RngExt as _;

use super::process::start;
use super::target::{any, leader};
use super::{Effect, Family, Healing, Nemesis, Strike, rot};
use crate::world::World;

/// How long a member may have to be away until the others have forgotten what it lacks: they forget in steps of a thousand
/// entries, and up to two of these must be written and grow old first.
const AWAY_MAX: Duration = Duration::from_secs(60);
/// How long it may take until somebody makes a snapshot for it.
const MAKING_MAX: Duration = Duration::from_secs(10);
/// How often the others are asked, and how often their files are looked at: a file is sent soon after it was made.
const ASK_INTERVAL: Duration = Duration::from_millis(250);
const LOOK_INTERVAL: Duration = Duration::from_millis(2);

/// All of this file.
pub(super) const ALL: &[Nemesis] = &[Nemesis::new(
    "rot-snapshot",
    Family::Disk,
    &[],
    rot_snapshot,
    "bits flip in a snapshot that was made for a member which was away for too long",
)];

fn rot_snapshot(strike: &mut Strike<'_>) -> Result<Effect> {
    let world = strike.world;
    let led = leader(strike);
    let away = Some(any(strike)).filter(|node| *node != led).unwrap_or(led % world.nodes() + 1);
    let id = world.status(away).with_context(|| format!("n{away} does not say who it is"))?.id;
    let others: Vec<usize> = (1..=world.nodes()).filter(|node| *node != away).collect();
    let back = Healing(|| start(world, away));
    world.kill(away);
    let left = Instant::now();
    while !others.iter().any(|node| is_behind(world, *node, id)) {
        ensure!(left.elapsed() < AWAY_MAX, "after {AWAY_MAX:?} the others still had all that n{away} lacked");
        strike.pause(ASK_INTERVAL);
        ensure!(
            strike.goes_on(Instant::now() + ASK_INTERVAL),
            "the run ended before n{away} needed a snapshot"
        );
    }
    drop(back);
    let (maker, rotten) = rot_first(strike, &others)?;
    let lacking = world
        .status(away)
        .is_none_or(|status| world.status(maker).is_some_and(|maker| status.applied < maker.applied));
    strike.hold();
    Ok(Effect {
        nodes: vec![away, maker],
        detail: format!("n{away} was away for {:.0} s; {rotten}", left.elapsed().as_secs_f64()),
        healing: world.clock().now(),
        evidence: format!("it rotted {} n{away} had caught up", if lacking { "before" } else { "after" }),
        effective: lacking,
        violation: None,
    })
}

/// Whether a node says that a member needs a snapshot.
fn is_behind(world: &World, node: usize, member: u64) -> bool {
    let Ok((_, page)) = world.http(node, "/metrics") else { return false };
    let name = format!("ringfence_peer_behind_retention{{member=\"{member}\"");
    page.lines().any(|line| line.starts_with(&name) && line.ends_with(" 1"))
}

/// Flips bits of the first snapshot that a node makes for another. Returns whose it was, and what was done to it.
fn rot_first(strike: &mut Strike<'_>, makers: &[usize]) -> Result<(usize, String)> {
    let seed = strike.rng.random();
    let begun = Instant::now();
    while begun.elapsed() < MAKING_MAX {
        for maker in makers {
            let rotten = strike.world.in_data_dir(*maker, |directory| -> Result<Option<rot::Rotten>> {
                match outgoing(&directory.join("state")) {
                    Some(path) => Ok(Some(rot::flip_pages(*maker, &path, rot::PAGE_SHARE, seed)?)),
                    None => Ok(None),
                }
            })??;
            if let Some(rotten) = rotten {
                return Ok((*maker, rotten.detail));
            }
        }
        thread::sleep(LOOK_INTERVAL);
    }
    bail!("nobody made a snapshot within {MAKING_MAX:?}")
}

/// A snapshot that is complete and waits to be sent.
fn outgoing(directory: &Path) -> Option<PathBuf> {
    fs::read_dir(directory).ok()?.flatten().map(|entry| entry.path()).find(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("outgoing-") && name.ends_with(".snapshot")
    })
}
