//! The final phase: everything is healed, and the cluster must become healthy and all nodes equal, in bounded time.

use std::thread;
use std::time::{Duration, Instant};

use ringfence_checker::{Finding, Verdict};

use super::operator::Operator;
use crate::checks::hashes::{self, Holding};
use crate::world::World;

/// How long the cluster may take to be healthy after the last fault. It includes the start of every node.
pub const HEALTHY_MAX: Duration = Duration::from_secs(30);
/// How long members may take, from then on, to have applied the same; no client writes any more.
pub const EQUAL_MAX: Duration = Duration::from_secs(30);
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Takes every fault back, whatever is in force, starts every node, and waits until the cluster is healthy and all nodes
/// hold the same. No client may write meanwhile. Two findings: `healthy-at-end` and `hashes-equal`.
#[must_use]
pub fn heal(world: &World) -> [Finding; 2] {
    let restarted = take_back(world);
    let begun = Instant::now();
    let finding = |verdict, summary| Finding {
        check: "healthy-at-end".to_owned(),
        verdict,
        summary,
        counterexample: None,
    };
    let healthy = loop {
        let Some(ailment) = ailment(world) else {
            let summary = format!(
                "every node was ready and one led {:.1} s after everything was healed",
                begun.elapsed().as_secs_f64()
            );
            break finding(Verdict::Ok, summary);
        };
        // Nobody starts a process again that ends from now on: there is nothing to wait for.
        if ended(world).is_some() || begun.elapsed() > HEALTHY_MAX {
            let seconds = begun.elapsed().as_secs_f64();
            let summary = format!("{seconds:.1} s after everything was healed, {ailment}");
            break finding(Verdict::Violation, summary);
        }
        thread::sleep(LOOK_INTERVAL);
    };
    let healthy = match restarted {
        Ok(()) => healthy,
        Err(error) => finding(Verdict::Violation, format!("a node cannot be started: {error:#}")),
    };
    [healthy, equal(world)]
}

/// Nothing is left of any fault after this.
fn take_back(world: &World) -> anyhow::Result<()> {
    if let Some(switch) = world.network() {
        switch.heal();
    }
    let mut result = Ok(());
    for node in 1..=world.nodes() {
        if let Some(clock) = world.clock_of(node) {
            clock.heal();
        }
        if let Some(syncs) = world.syncs_of(node) {
            syncs.heal();
        }
        if let Some(disk) = world.disk(node) {
            result = result.and(disk.thaw()).and(disk.free().map_err(Into::into));
        }
        if world.cpu_throttled(node).is_some() {
            result = result.and(world.cpu(node, None));
        }
        world.forbid_exit(node);
        if !world.signal(node, libc::SIGCONT) {
            result = result.and(world.start_node(node));
        }
    }
    result
}

/// A node that does not run.
fn ended(world: &World) -> Option<usize> {
    (1..=world.nodes()).find(|node| !world.is_running(*node))
}

/// What keeps the cluster from being healthy; none: it is.
fn ailment(world: &World) -> Option<String> {
    if let Some(node) = ended(world) {
        return Some(format!("n{node} does not run"));
    }
    let mut leaders = Vec::new();
    for node in 1..=world.nodes() {
        if let Err(why) = world.ready(node) {
            return Some(format!("n{node} was not ready: {why}"));
        }
        if world.status(node).is_some_and(|status| status.leads) {
            leaders.push(node);
        }
    }
    (leaders.len() != 1).then(|| format!("the nodes {leaders:?} led, and not just one"))
}

/// Compares what the nodes hold once all that run have applied the same.
fn equal(world: &World) -> Finding {
    let begun = Instant::now();
    loop {
        let (holdings, silent) = holdings(world);
        let agree = holdings.windows(2).all(|pair| pair[0].applied == pair[1].applied);
        let none_will_tell = silent.iter().all(|node| !world.is_running(*node));
        if (agree && none_will_tell) || begun.elapsed() > EQUAL_MAX {
            return hashes::check(&holdings, &silent);
        }
        thread::sleep(LOOK_INTERVAL);
    }
}

/// What each node holds, and the nodes that did not tell.
fn holdings(world: &World) -> (Vec<Holding>, Vec<usize>) {
    let (mut holdings, mut silent) = (Vec::new(), Vec::new());
    for node in 1..=world.nodes() {
        match Operator::of(world, node).holding() {
            Ok(Some(holding)) => holdings.push(holding),
            Ok(None) | Err(_) => silent.push(node),
        }
    }
    (holdings, silent)
}
