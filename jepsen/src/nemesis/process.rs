//! Processes that are killed, that stand still, or that get no processor.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use rand::RngExt as _;

use super::target::Target;
use super::{Effect, Family, Healing, Nemesis, Strike, named};
use crate::world::{Capability, World};

const NEEDS: &[Capability] = &[];

/// All of this file.
pub(super) const ALL: &[Nemesis] = &[
    row("kill-one", |strike| kill(strike, Target::One), "kill -9 of any node"),
    row("kill-leader", |strike| kill(strike, Target::Leader), "kill -9 of the leader"),
    row(
        "kill-minority",
        |strike| kill(strike, Target::Minority),
        "kill -9 of as many as a majority can do without",
    ),
    row(
        "kill-majority",
        |strike| kill(strike, Target::Majority),
        "kill -9 of so many that the others are no majority",
    ),
    row("kill-all", |strike| kill(strike, Target::All), "kill -9 of all nodes at once"),
    row(
        "pause-one",
        |strike| pause(strike, Target::One),
        "any node stands still, and goes on as if nothing had been",
    ),
    row(
        "pause-leader",
        |strike| pause(strike, Target::Leader),
        "the leader stands still, and goes on believing that it leads",
    ),
    row(
        "pause-minority",
        |strike| pause(strike, Target::Minority),
        "as many stand still as a majority can do without",
    ),
    row(
        "pause-majority",
        |strike| pause(strike, Target::Majority),
        "so many stand still that the others are no majority",
    ),
    row("pause-all", |strike| pause(strike, Target::All), "all nodes stand still at once"),
    Nemesis::new(
        "cpu-starve",
        Family::Process,
        &[Capability::CpuLimit],
        starve,
        "a node, often the leader, gets 2 to 10 % of a processor",
    ),
];

const fn row(
    name: &'static str,
    strike: fn(&mut Strike<'_>) -> Result<Effect>,
    about: &'static str,
) -> Nemesis {
    Nemesis::new(name, Family::Process, NEEDS, strike, about)
}

fn kill(strike: &mut Strike<'_>, target: Target) -> Result<Effect> {
    let world = strike.world;
    let nodes = target.choose(strike);
    // Whatever happens: who was killed comes back.
    let restart = Healing(|| nodes.iter().for_each(|node| start(world, *node)));
    let ran = world.kill_all(&nodes);
    let down = Instant::now();
    strike.hold();
    let healing = world.clock().now();
    let stayed_down = nodes.iter().all(|node| !world.is_running(*node));
    let evidence = format!("{} killed, and down for {:.1} s", named(&ran), down.elapsed().as_secs_f64());
    drop(restart);
    let effective = stayed_down && !ran.is_empty();
    Ok(Effect { detail: named(&nodes), nodes, healing, evidence, effective, violation: None })
}

/// Starts a node that does not run. One that cannot be started is seen by the checks of availability.
pub(super) fn start(world: &World, node: usize) {
    if !world.is_running(node)
        && let Err(error) = world.start_node(node)
    {
        eprintln!("n{node} cannot be started: {error:#}");
    }
}

/// `SIGSTOP`, and then `SIGCONT`.
fn pause(strike: &mut Strike<'_>, target: Target) -> Result<Effect> {
    let world = strike.world;
    let nodes = target.choose(strike);
    let resume = Healing(|| {
        nodes.iter().for_each(|node| {
            world.signal(*node, libc::SIGCONT);
        })
    });
    for node in &nodes {
        world.signal(*node, libc::SIGSTOP);
    }
    let stopped = Instant::now();
    let deadline = strike.deadline();
    let (mut asked, mut answered) = (0, 0);
    while strike.goes_on(deadline) {
        strike.pause(Duration::from_millis(300));
        for node in &nodes {
            asked += 1;
            answered += usize::from(world.status(*node).is_some());
        }
    }
    let healing = world.clock().now();
    let evidence = format!(
        "{} stood still for {:.1} s; {answered} of {asked} questions were answered",
        named(&nodes),
        stopped.elapsed().as_secs_f64()
    );
    drop(resume);
    let effective = asked > 0 && answered == 0;
    Ok(Effect { detail: named(&nodes), nodes, healing, evidence, effective, violation: None })
}

fn starve(strike: &mut Strike<'_>) -> Result<Effect> {
    let world = strike.world;
    let target = if strike.rng.random_bool(0.7) { Target::Leader } else { Target::One };
    let nodes = target.choose(strike);
    let node = nodes[0];
    let percent = strike.rng.random_range(2..=10);
    let before = world.cpu_throttled(node).unwrap_or_default();
    let free = Healing(|| drop(world.cpu(node, None)));
    world.cpu(node, Some(percent))?;
    strike.hold();
    let healing = world.clock().now();
    let Some(after) = world.cpu_throttled(node) else {
        bail!("the kernel does not tell whether n{node} waited")
    };
    drop(free);
    ensure!(after >= before, "the time that n{node} waited went back");
    let waited = after - before;
    let evidence = format!("it was kept from running for {:.1} s", waited.as_secs_f64());
    let detail = format!("n{node}: {percent} % of a processor");
    Ok(Effect { nodes, detail, healing, evidence, effective: !waited.is_zero(), violation: None })
}
