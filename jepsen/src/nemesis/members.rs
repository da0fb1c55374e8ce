//! Members that come and go: a disk that is emptied, whose node rejoins as a new member, and a member that is removed and joins
//! anew. What the cluster had acknowledged must be there all the same, and nobody may need a second command.

use std::fs;
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use ringfence_proto::etcdserverpb::Member;

use super::operator::Operator;
use super::process::start;
use super::target::any;
use super::{Effect, Family, Healing, Nemesis, Strike};
use crate::world::World;

/// How long a change of members may take while other faults are in force.
const CHANGE_MAX: Duration = Duration::from_secs(60);
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// All of this file. The nodes' processes come and go, so these are not combined with what else kills them.
pub(super) const ALL: &[Nemesis] = &[
    Nemesis::new(
        "wipe-one",
        Family::Disk,
        &[],
        |strike| come_back(strike, Leave::Wiped),
        "a node is killed and its disk emptied; it rejoins as a new member",
    ),
    Nemesis::new(
        "remove-one",
        Family::Disk,
        &[],
        |strike| come_back(strike, Leave::Removed),
        "a member is removed, the leader too, and joins anew on an empty disk",
    ),
];

/// How a member goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leave {
    /// Its process is killed and its disk emptied.
    Wiped,
    /// It is removed while it serves.
    Removed,
}

fn come_back(strike: &mut Strike<'_>, leave: Leave) -> Result<Effect> {
    let world = strike.world;
    let node = any(strike);
    let name = format!("node{node}");
    let witness =
        (1..=world.nodes()).find(|other| *other != node).context("a cluster of one loses itself")?;
    let old = member(world, witness, &name)?;
    world.allow_exit(node, "it is removed");
    let patient = Healing(|| {
        world.forbid_exit(node);
        // Wherever the strike ended early: started on what is there, it finds its way or says why not.
        start(world, node);
    });
    if leave == Leave::Removed {
        patiently("the removal", || Operator::of(world, witness).remove_member(old.id))?;
    }
    world.kill(node);
    world.in_data_dir(node, empty)??;
    strike.hold();
    if leave == Leave::Wiped {
        patiently("the replacement", || Operator::of(world, witness).replace_member(&old))?;
    }
    world.forbid_exit(node);
    world.start_joining(node)?;
    let new = patiently("its vote", || {
        let new = member(world, witness, &name)?;
        let is_back =
            new.id != old.id && !new.is_learner && !members(world, witness)?.iter().any(|m| m.id == old.id);
        ensure!(is_back, "it does not vote yet: {new:?}");
        Ok(new)
    })?;
    drop(patient);
    Ok(Effect {
        nodes: vec![node],
        detail: format!("{leave:?} and back on an empty disk"),
        healing: world.clock().now(),
        evidence: format!("n{node} was member {:x} and votes as member {:x}", old.id, new.id),
        effective: true,
        violation: None,
    })
}

/// Tries until it works or time is over: other faults may be in force.
fn patiently<T>(what: &str, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + CHANGE_MAX;
    loop {
        match attempt() {
            Ok(done) => return Ok(done),
            Err(error) if Instant::now() >= deadline => {
                return Err(error.context(format!("{what} has not come about within {CHANGE_MAX:?}")));
            }
            Err(_) => thread::sleep(LOOK_INTERVAL),
        }
    }
}

fn members(world: &World, witness: usize) -> Result<Vec<Member>> {
    Operator::of(world, witness).members()
}

/// The newest member of that name.
fn member(world: &World, witness: usize, name: &str) -> Result<Member> {
    let named = members(world, witness)?.into_iter().filter(|member| member.name == name);
    named.max_by_key(|member| member.id).with_context(|| format!("no member is named {name}"))
}

/// Removes everything in a directory.
fn empty(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
