//! What an operator may do at any time, done in the middle: it must disturb nobody.

use std::ops::RangeInclusive;

use anyhow::{Context as _, Result};
use rand::seq::IndexedRandom as _;

use super::operator::Operator;
use super::target::{any, leader};
use super::{Effect, Family, Nemesis, Strike, named};

/// Time between two operations.
const INTERVAL: RangeInclusive<u64> = 300..=1_500;
/// Revisions that a compaction leaves readable.
const KEPT_REVISIONS: i64 = 50;

/// All of this file.
pub(super) const ALL: &[Nemesis] = &[
    row("transfer", transfer, "the leader hands leadership over, again and again"),
    row("compaction", compaction, "history is forgotten while clients read and write"),
    row("snapshot", snapshot, "whole snapshots are taken from any node"),
    row("defragment", defragment, "nodes are asked to give space back"),
];

const fn row(
    name: &'static str,
    strike: fn(&mut Strike<'_>) -> Result<Effect>,
    about: &'static str,
) -> Nemesis {
    Nemesis::new(name, Family::Operation, &[], strike, about)
}

/// What came of operations that were repeated.
#[derive(Default)]
struct Tally {
    nodes: Vec<usize>,
    done: u32,
    /// Why the last one that failed did. That is lawful while another fault is in force.
    refused: Option<String>,
    violation: Option<String>,
}

/// Repeats an operation for as long as the strike lasts, and at least once.
fn repeat(
    strike: &mut Strike<'_>,
    word: &str,
    mut operation: impl FnMut(&mut Strike<'_>, &mut Tally) -> Result<()>,
) -> Result<Effect> {
    let deadline = strike.deadline();
    let mut tally = Tally::default();
    loop {
        match operation(strike, &mut tally) {
            Ok(()) => tally.done += 1,
            Err(error) => tally.refused = Some(format!("{error:#}")),
        }
        strike.pause_within(INTERVAL);
        if !strike.goes_on(deadline) {
            break;
        }
    }
    let Tally { mut nodes, done, refused, violation } = tally;
    nodes.sort_unstable();
    nodes.dedup();
    let refusal = refused.map(|why| format!("; last refusal: {why}")).unwrap_or_default();
    Ok(Effect {
        detail: named(&nodes),
        nodes,
        healing: strike.world.clock().now(),
        evidence: format!("{done} {word}{refusal}"),
        effective: done > 0,
        violation,
    })
}

fn transfer(strike: &mut Strike<'_>) -> Result<Effect> {
    repeat(strike, "times leadership was handed over", |strike, tally| {
        let old = leader(strike);
        let others: Vec<usize> = (1..=strike.world.nodes()).filter(|other| *other != old).collect();
        let new = *others.choose(&mut strike.rng).context("there is nobody to hand leadership to")?;
        let status = strike.world.status(new).with_context(|| format!("n{new} does not say who it is"))?;
        Operator::of(strike.world, old).move_leader(status.id)?;
        tally.nodes.push(old);
        Ok(())
    })
}

fn compaction(strike: &mut Strike<'_>) -> Result<Effect> {
    repeat(strike, "compactions, after each of which older revisions were refused", |strike, tally| {
        let node = any(strike);
        let operator = Operator::of(strike.world, node);
        let revision = operator.revision()? - KEPT_REVISIONS;
        anyhow::ensure!(revision > 1, "there is no history yet");
        operator.compact(revision)?;
        tally.nodes.push(node);
        if !operator.is_compacted(revision - 1)? {
            tally.violation =
                Some(format!("n{node} reads at revision {}, which was compacted", revision - 1));
        }
        Ok(())
    })
}

/// A node that makes a snapshot recomputes its hash on the way, and makes none where the running hash differs.
fn snapshot(strike: &mut Strike<'_>) -> Result<Effect> {
    repeat(strike, "whole snapshots were taken", |strike, tally| {
        let node = any(strike);
        let taken = Operator::of(strike.world, node).snapshot();
        if let Err(error) = &taken {
            let words = format!("{error:#}");
            if ["hash differs", "corrupt", "not those that were"].iter().any(|word| words.contains(word)) {
                tally.violation = Some(format!("n{node} cannot make a snapshot: {words}"));
            }
        }
        anyhow::ensure!(taken? > 0, "the snapshot of n{node} is empty");
        tally.nodes.push(node);
        Ok(())
    })
}

fn defragment(strike: &mut Strike<'_>) -> Result<Effect> {
    repeat(strike, "nodes agreed to give space back", |strike, tally| {
        let node = any(strike);
        Operator::of(strike.world, node).defragment()?;
        tally.nodes.push(node);
        Ok(())
    })
}
