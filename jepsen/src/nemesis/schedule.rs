//! When what is done: strike, rest, strike, from a seed.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{RngExt as _, SeedableRng as _};

use super::{Action, LOOK_INTERVAL, Nemesis, by_name, registry};
use crate::checks::availability::RECOVERY_MAX;
use crate::record::Fault;
use crate::world::{Capabilities, Capability, World};

/// How long the cluster is left alone before the first strike, in milliseconds.
const FIRST_REST: u64 = 2_000;
/// How long a fault lasts, in milliseconds.
const HOLD: RangeInclusive<u64> = 2_000..=6_000;
/// How long the cluster is left alone between most strikes, in milliseconds. Often that is too short to recover from one
/// before the next, on purpose.
const SHORT_REST: RangeInclusive<u64> = 500..=4_000;
/// After so many strikes on average there is a rest in which the cluster must recover.
const LONG_REST_EVERY: u32 = 3;
/// The longest time for which parts of a mix wait for each other.
const MIX_OFFSET: RangeInclusive<u64> = 0..=1_500;

/// Strikes one after the other, or several at once.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// Each is struck with at once; most are of one.
    nemeses: Vec<Vec<&'static Nemesis>>,
    /// What a mix is drawn from.
    available: Vec<&'static Nemesis>,
    seed: u64,
}

impl Schedule {
    /// A schedule of the nemeses with these names, each in turn, in an order drawn from `seed`. `a+b` is both at once.
    ///
    /// # Errors
    /// Where a name is unknown, one of them needs what this machine cannot do, or two cannot be in force at once.
    pub fn new(names: &[String], seed: u64, capabilities: &Capabilities) -> Result<Schedule> {
        let possible = |name: &str| possible(name, capabilities);
        let together = |names: &String| names.split('+').map(possible).collect::<Result<Vec<_>>>();
        let nemeses: Vec<Vec<_>> = names.iter().map(together).collect::<Result<_>>()?;
        for parts in &nemeses {
            for (index, part) in parts.iter().enumerate() {
                if let Some(other) = parts[..index].iter().find(|other| !other.is_compatible(part)) {
                    bail!("{} and {} cannot be in force at once", other.name, part.name);
                }
            }
        }
        let has_all = |nemesis: &&Nemesis| nemesis.needs.iter().all(|need| capabilities.has(*need));
        let strikes = |nemesis: &&Nemesis| matches!(nemesis.action, Action::Strike(_));
        let available = registry().filter(strikes).filter(has_all).collect();
        Ok(Schedule { nemeses, available, seed })
    }

    /// Strikes until the run's clock shows `until` or `stop` is true, then returns all faults, each of them healed. The last
    /// one is begun early enough to be over by then; one at least is begun if any may be. `told` hears what is in force.
    pub fn run(
        &self,
        world: &World,
        until: u64,
        stop: &AtomicBool,
        told: &(dyn Fn(&str) + Sync),
    ) -> Vec<Fault> {
        let mut random = StdRng::seed_from_u64(self.seed);
        let mut waiting: Vec<Vec<&'static Nemesis>> = Vec::new();
        let mut faults: Vec<Fault> = Vec::new();
        rest(world, FIRST_REST, until, stop);
        loop {
            let hold = Duration::from_millis(random.random_range(HOLD));
            let left = Duration::from_nanos(until.saturating_sub(world.clock().now()));
            if stop.load(Ordering::Relaxed) || (left < hold && !(faults.is_empty() && left > Duration::ZERO))
            {
                return faults;
            }
            if waiting.is_empty() {
                waiting.clone_from(&self.nemeses);
                waiting.shuffle(&mut random);
            }
            let Some(together) = waiting.pop() else { return faults };
            let mut parts = Vec::new();
            for nemesis in together {
                match nemesis.action {
                    Action::Nothing => {}
                    Action::Strike(_) => parts.push(nemesis),
                    Action::Several => parts.extend(self.mix(&mut random)),
                }
            }
            if !parts.is_empty() {
                told(&parts.iter().map(|part| part.name).collect::<Vec<_>>().join(" + "));
            }
            faults.extend(strike(world, &parts, &mut random, hold.min(left), stop));
            told("");
            rest(world, rest_after(&mut random), until, stop);
        }
    }

    /// Two or three nemeses that may be in force at once.
    fn mix(&self, random: &mut StdRng) -> Vec<&'static Nemesis> {
        let count = random.random_range(2..=3);
        let mut parts: Vec<&'static Nemesis> = Vec::new();
        while parts.len() < count {
            let fitting: Vec<&'static Nemesis> = self
                .available
                .iter()
                .copied()
                .filter(|candidate| parts.iter().all(|part| part.is_compatible(candidate)))
                .collect();
            let Some(part) = fitting.choose(random) else { break };
            parts.push(part);
        }
        parts
    }
}

/// The nemesis of that name, if this machine can do it.
fn possible(name: &str, capabilities: &Capabilities) -> Result<&'static Nemesis> {
    let Some(nemesis) = by_name(name) else { bail!("there is no nemesis {name:?}; `jepsen list` shows all") };
    let lacks = |capability: &Capability| Some((*capability, capabilities.why_not(*capability)?.to_owned()));
    if let Some((capability, why)) = nemesis.needs.iter().find_map(lacks) {
        bail!("{name} needs the capability {capability}, which this machine has not: {why}");
    }
    Ok(nemesis)
}

/// How long the cluster is left alone, in milliseconds.
fn rest_after(random: &mut StdRng) -> u64 {
    if random.random_ratio(1, LONG_REST_EVERY) {
        return u64::try_from(RECOVERY_MAX.as_millis()).unwrap_or(u64::MAX) + 1_000;
    }
    random.random_range(SHORT_REST)
}

/// Strikes with all parts, each on a thread of its own, beginning at moments of its own.
fn strike(
    world: &World,
    parts: &[&'static Nemesis],
    random: &mut StdRng,
    hold: Duration,
    stop: &AtomicBool,
) -> Vec<Fault> {
    thread::scope(|scope| {
        let strikes: Vec<_> = parts
            .iter()
            .enumerate()
            .map(|(index, part)| {
                let seed = random.random();
                let offset = if index == 0 { 0 } else { random.random_range(MIX_OFFSET) };
                scope.spawn(move || {
                    thread::sleep(Duration::from_millis(offset));
                    part.strike(world, seed, hold, stop)
                })
            })
            .collect();
        let faults = strikes.into_iter().filter_map(|strike| match strike.join() {
            Ok(fault) => fault,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        faults.collect()
    })
}

/// Leaves the cluster alone for so many milliseconds, but not beyond `until`.
fn rest(world: &World, milliseconds: u64, until: u64, stop: &AtomicBool) {
    let end = until.min(world.clock().now() + milliseconds * 1_000_000);
    while world.clock().now() < end && !stop.load(Ordering::Relaxed) {
        thread::sleep(LOOK_INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(names: &[&str]) -> Result<Schedule> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        Schedule::new(&names, 7, &Capabilities::none("this is a test"))
    }

    #[test]
    fn what_is_unknown_or_impossible_is_refused_with_a_reason() {
        let refused = |names: &[&str]| schedule(names).expect_err("it cannot be").to_string();
        assert!(refused(&["kill-one", "nonsense"]).contains("no nemesis \"nonsense\""));
        assert!(
            refused(&["partition-ring"]).contains("network")
                && refused(&["delay"]).contains("this is a test")
        );
        assert!(
            refused(&["kill-one+pause-one"]).contains("kill-one and pause-one cannot be in force at once")
        );
        let together = schedule(&["kill-one+transfer"]).expect("they are compatible");
        assert_eq!(together.nemeses.iter().map(Vec::len).collect::<Vec<_>>(), [2]);
        assert_eq!(schedule(&["none", "kill-one", "mix"]).expect("it needs nothing").nemeses.len(), 3);
    }

    #[test]
    fn a_mix_has_parts_that_are_compatible_and_is_drawn_from_the_seed() {
        let mut all = schedule(&["mix"]).expect("it needs nothing");
        all.available = registry().filter(|nemesis| matches!(nemesis.action, Action::Strike(_))).collect();
        let names = |seed| -> Vec<Vec<&str>> {
            let mut random = StdRng::seed_from_u64(seed);
            let mix = |_| all.mix(&mut random).iter().map(|part| part.name).collect();
            (0..200).map(mix).collect()
        };
        for mix in names(1) {
            assert!((2..=3).contains(&mix.len()), "{mix:?}");
            let parts: Vec<&Nemesis> =
                mix.iter().map(|name| by_name(name).expect("it is registered")).collect();
            for (index, part) in parts.iter().enumerate() {
                assert!(parts[..index].iter().all(|other| other.is_compatible(part)), "{mix:?}");
            }
        }
        assert_eq!(names(1), names(1));
        assert_ne!(names(1), names(2));
    }

    #[test]
    fn rests_are_short_at_times_and_long_enough_to_recover_at_others() {
        let mut random = StdRng::seed_from_u64(3);
        let rests: Vec<u64> = (0..100).map(|_| rest_after(&mut random)).collect();
        let long = rests.iter().filter(|rest| u128::from(**rest) > RECOVERY_MAX.as_millis()).count();
        assert!((20..50).contains(&long), "{long} of 100 rests are long");
    }
}
