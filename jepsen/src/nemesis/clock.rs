//! Clocks that run too fast or too slowly, and wall clocks that jump.

use std::ops::RangeInclusive;

use anyhow::{Context as _, Result};
use rand::RngExt as _;
use rand::rngs::StdRng;

use super::target::leader;
use super::{Effect, Family, Healing, Nemesis, Strike};
use crate::world::{Capability, NodeClock};

const NEEDS: &[Capability] = &[Capability::Shim];
/// How long a clock keeps its rate.
const RATE_KEPT: RangeInclusive<u64> = 300..=2_000;
/// The largest difference between clocks that leader leases are promised to bear, in millionths.
const PROMISED_PPM: i64 = 20_000;
/// What hardware never does, and what nothing but reads by the leader lease may suffer from.
const HARD_PPM: i64 = 200_000;

/// All of this file.
pub(super) const ALL: &[Nemesis] = &[
    Nemesis::new(
        "clock-rate",
        Family::Clock,
        NEEDS,
        |strike| change_rates(strike, HARD_PPM),
        "each node's clocks run up to 20 % too fast or too slowly, changing while they run",
    ),
    Nemesis::new(
        "clock-rate-small",
        Family::Clock,
        NEEDS,
        |strike| change_rates(strike, PROMISED_PPM),
        "the same within 2 %, which leader leases are promised to bear",
    ),
    Nemesis::new(
        "clock-rate-leader",
        Family::Clock,
        NEEDS,
        slow_leader,
        "the leader's clocks run 20 % too slowly, those of all others 20 % too fast",
    ),
    Nemesis::new(
        "wall-jump",
        Family::Clock,
        NEEDS,
        jump,
        "wall clocks jump by seconds to months, forth and back",
    ),
];

fn clocks<'a>(strike: &Strike<'a>) -> Result<Vec<&'a NodeClock>> {
    let world = strike.world;
    let of = |node| world.clock_of(node).context("the nodes' clocks cannot be changed without the shim");
    (1..=world.nodes()).map(of).collect()
}

/// Each node gets another rate again and again, half of them at the edge, where most goes wrong.
fn change_rates(strike: &mut Strike<'_>, ppm: i64) -> Result<Effect> {
    rule_rates(strike, format!("±{} %", ppm / 10_000), |random, _| {
        let edge = if random.random_bool(0.5) { ppm } else { -ppm };
        if random.random_bool(0.5) { edge } else { random.random_range(-ppm..=ppm) }
    })
}

/// The rates at which a leader trusts its lease longest, and the others wait for its end the shortest.
fn slow_leader(strike: &mut Strike<'_>) -> Result<Effect> {
    let old = leader(strike);
    let detail = format!("n{old} -{} %, all others +{} %", HARD_PPM / 10_000, HARD_PPM / 10_000);
    rule_rates(strike, detail, |_, node| if node == old { -HARD_PPM } else { HARD_PPM })
}

/// Sets each node's rate to what `rate_of` says, now and then anew, for as long as the strike lasts.
fn rule_rates(
    strike: &mut Strike<'_>,
    detail: String,
    mut rate_of: impl FnMut(&mut StdRng, usize) -> i64,
) -> Result<Effect> {
    let clocks = clocks(strike)?;
    let heal = Healing(|| clocks.iter().for_each(|clock| clock.set_rate(0)));
    let before: Vec<(i64, u64)> =
        clocks.iter().map(|clock| (clock.gained(), clock.wrong_readings())).collect();
    let deadline = strike.deadline();
    let mut changes = 0;
    while strike.goes_on(deadline) {
        for (index, clock) in clocks.iter().enumerate() {
            clock.set_rate(rate_of(&mut strike.rng, index + 1));
        }
        changes += 1;
        strike.pause_within(RATE_KEPT);
    }
    let healing = strike.world.clock().now();
    let gained: Vec<String> = clocks
        .iter()
        .zip(&before)
        .map(|(clock, (before, _))| format!("{:+} ms", (clock.gained() - before) / 1_000_000))
        .collect();
    let reached =
        clocks.iter().zip(&before).filter(|(clock, (_, before))| clock.wrong_readings() > *before).count();
    drop(heal);
    Ok(Effect {
        nodes: (1..=clocks.len()).collect(),
        detail: format!("{detail}, set {changes} times"),
        healing,
        evidence: format!(
            "{reached} of {} nodes read wrong clocks, which gained {}",
            clocks.len(),
            gained.join(", ")
        ),
        effective: reached > 0,
        violation: None,
    })
}

fn jump(strike: &mut Strike<'_>) -> Result<Effect> {
    let clocks = clocks(strike)?;
    let heal = Healing(|| clocks.iter().for_each(|clock| clock.set_wall_offset(0)));
    let before: u64 = clocks.iter().map(|clock| clock.wrong_readings()).sum();
    let deadline = strike.deadline();
    let mut jumps: i64 = 0;
    let mut farthest: u64 = 0;
    while strike.goes_on(deadline) {
        let clock = clocks[strike.rng.random_range(0..clocks.len())];
        // From a second to four months, evenly over the orders of magnitude.
        let seconds = 10_f64.powf(strike.rng.random_range(0.0..=7.0)) as i64;
        let offset = if strike.rng.random_bool(0.5) { seconds } else { -seconds };
        clock.set_wall_offset(offset * 1_000_000_000);
        jumps += 1;
        farthest = farthest.max(offset.unsigned_abs());
        strike.pause_within(100..=800);
    }
    let healing = strike.world.clock().now();
    let wrong = clocks.iter().map(|clock| clock.wrong_readings()).sum::<u64>() - before;
    drop(heal);
    Ok(Effect {
        nodes: (1..=clocks.len()).collect(),
        detail: format!("{jumps} jumps, the farthest by {farthest} s"),
        healing,
        evidence: format!("wrong clocks were read {wrong} times"),
        effective: wrong > 0,
        violation: None,
    })
}
