//! Disks that fail, fill up, turn read-only, freeze or crawl. A node may stop because of its own disk; no other may.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rand::RngExt as _;

use super::process::start;
use super::target::{any, leader};
use super::{Effect, Family, Healing, Nemesis, Strike, last_exit};
use crate::world::{Capability, Image, NodeSyncs, World};

/// How long a node may go on after a sync has failed. It should stop at once; it must not go on as if nothing had been.
const STOP_MAX: Duration = Duration::from_secs(10);
/// The exit code with which a node says that its disk has failed or is full.
const DISK_FAILED: i32 = 16;
/// How often a slow disk changes its pace, in milliseconds.
const PACE_KEPT: RangeInclusive<u64> = 200..=1_500;

/// All of this file.
pub(super) const ALL: &[Nemesis] = &[
    row("sync-error", &[Capability::Shim], sync_error, "syncs of a node fail, with EIO or ENOSPC"),
    row("disk-full", &[Capability::Disk], full, "a node's disk is full but for some hundred kilobytes"),
    row(
        "disk-read-only",
        &[Capability::Disk],
        read_only,
        "a node's file system finds an error and turns read-only",
    ),
    row(
        "disk-freeze",
        &[Capability::Disk, Capability::Freeze],
        freeze,
        "a node's disk freezes: whoever writes waits, and then goes on",
    ),
    row("disk-slow", &[Capability::Shim], slow, "each sync of a node takes 10 to 400 ms longer"),
];

const fn row(
    name: &'static str,
    needs: &'static [Capability],
    strike: fn(&mut Strike<'_>) -> Result<Effect>,
    about: &'static str,
) -> Nemesis {
    Nemesis::new(name, Family::Disk, needs, strike, about)
}

/// A node whose disk is made to fail. Dropping it, the node may not end by itself any more, and runs again.
struct Patient<'a> {
    world: &'a World,
    node: usize,
}

impl<'a> Patient<'a> {
    /// Often the leader, whose disk matters most.
    fn choose(strike: &mut Strike<'a>, reason: &str) -> Patient<'a> {
        let node = if strike.rng.random_bool(0.5) { leader(strike) } else { any(strike) };
        strike.world.allow_exit(node, reason);
        Patient { world: strike.world, node }
    }

    fn disk(&self) -> Result<&'a Image> {
        self.world.disk(self.node).context("the node has no disk of its own")
    }

    fn syncs(&self) -> Result<&'a NodeSyncs> {
        self.world.syncs_of(self.node).context("syncs cannot be made to fail without the shim")
    }

    /// What was done to it, and what became of it. Where it has ended, it must have named its disk.
    fn effect(&self, strike: &Strike<'_>, detail: String, evidence: String, effective: bool) -> Effect {
        let (world, node) = (self.world, self.node);
        let (fate, violation) = match world.is_running(node) {
            true => ("went on".to_owned(), None),
            false => {
                let fate = format!("ended with {:?}", last_exit(world, node));
                let is_right = last_exit(world, node) == Some(DISK_FAILED);
                let violation = format!("n{node} {fate}, and not with {DISK_FAILED}, because of its disk");
                (fate, (!is_right).then_some(violation))
            }
        };
        Effect {
            nodes: vec![node],
            detail: format!("n{node}: {detail}"),
            healing: strike.world.clock().now(),
            evidence: format!("{evidence}; n{node} {fate}"),
            effective,
            violation,
        }
    }
}

impl Drop for Patient<'_> {
    fn drop(&mut self) {
        start(self.world, self.node);
        self.world.forbid_exit(self.node);
    }
}

fn sync_error(strike: &mut Strike<'_>) -> Result<Effect> {
    let (error, word) =
        if strike.rng.random_bool(0.7) { (libc::EIO, "EIO") } else { (libc::ENOSPC, "ENOSPC") };
    let patient = Patient::choose(strike, "its syncs fail");
    let syncs = patient.syncs()?;
    let heal = Healing(|| syncs.heal());
    let before = syncs.failed();
    syncs.fail(strike.rng.random_range(0..=50), error);
    let begun = Instant::now();
    strike.hold();
    while syncs.failed() > before && patient.world.is_running(patient.node) && begun.elapsed() < STOP_MAX {
        strike.pause(Duration::from_millis(100));
    }
    let failed = syncs.failed() - before;
    let mut effect = patient.effect(
        strike,
        format!("syncs fail with {word}"),
        format!("{failed} syncs failed"),
        failed > 0,
    );
    if failed > 0 && patient.world.is_running(patient.node) {
        effect.violation =
            Some(format!("n{} went on for {STOP_MAX:?} although a sync had failed", patient.node));
    }
    drop(heal);
    Ok(effect)
}

fn full(strike: &mut Strike<'_>) -> Result<Effect> {
    let patient = Patient::choose(strike, "its disk is full");
    let disk = patient.disk()?;
    let leave = strike.rng.random_range(0..=512) << 10;
    let heal = Healing(|| drop(disk.free()));
    let taken = disk.fill(leave)?;
    strike.hold();
    let evidence = format!("{} MiB were taken, {} KiB were left", taken >> 20, leave >> 10);
    let effect = patient.effect(strike, "disk full".to_owned(), evidence, taken > 0);
    drop(heal);
    Ok(effect)
}

fn read_only(strike: &mut Strike<'_>) -> Result<Effect> {
    let patient = Patient::choose(strike, "its disk is read-only");
    let disk = patient.disk()?;
    // The disk can be mounted anew only once nobody uses it.
    let heal = Healing(|| {
        patient.world.kill(patient.node);
        if let Err(error) = patient.world.restore_power(patient.node) {
            eprintln!("the disk of n{} stays read-only: {error:#}", patient.node);
        }
    });
    disk.turn_read_only()?;
    let refusal = disk.check_writable().err();
    strike.hold();
    let evidence = match &refusal {
        Some(error) => format!("writing to the disk ended with: {error}"),
        None => "writing to the disk still worked".to_owned(),
    };
    let effect = patient.effect(strike, "disk read-only".to_owned(), evidence, refusal.is_some());
    drop(heal);
    Ok(effect)
}

fn freeze(strike: &mut Strike<'_>) -> Result<Effect> {
    let patient = Patient::choose(strike, "its disk is frozen");
    let disk = patient.disk()?;
    let before = log_syncs(&patient);
    let heal = Healing(|| {
        if let Err(error) = disk.thaw() {
            eprintln!("the disk of n{} stays frozen: {error:#}", patient.node);
        }
    });
    disk.freeze()?;
    let begun = Instant::now();
    // A sync may have been ending just then.
    strike.pause(Duration::from_millis(200));
    let frozen = log_syncs(&patient);
    strike.hold();
    let after = log_syncs(&patient);
    let ended = match (frozen, after) {
        (Some(frozen), Some(after)) => after - frozen,
        // It stopped, or waits for its disk with all that it has.
        _ => 0,
    };
    let evidence = format!(
        "frozen for {:.1} s, during which {ended} syncs of the log ended, after {} before",
        begun.elapsed().as_secs_f64(),
        before.unwrap_or_default()
    );
    let effect = patient.effect(strike, "disk frozen".to_owned(), evidence, ended == 0);
    drop(heal);
    Ok(effect)
}

fn slow(strike: &mut Strike<'_>) -> Result<Effect> {
    let patient = Patient::choose(strike, "its disk is slow");
    let syncs = patient.syncs()?;
    let heal = Healing(|| syncs.heal());
    let before = syncs.delayed();
    let deadline = strike.deadline();
    let mut slowest = 0;
    while strike.goes_on(deadline) {
        let delay = strike.rng.random_range(10..=400);
        slowest = slowest.max(delay);
        syncs.delay(Duration::from_millis(delay));
        strike.pause_within(PACE_KEPT);
    }
    let delayed = syncs.delayed() - before;
    let detail = format!("syncs take up to {slowest} ms longer");
    let effect = patient.effect(strike, detail, format!("{delayed} syncs were delayed"), delayed > 0);
    drop(heal);
    Ok(effect)
}

/// How many syncs of its log a node has counted since its start; none: it does not answer.
fn log_syncs(patient: &Patient<'_>) -> Option<u64> {
    let (_, page) = patient.world.http(patient.node, "/metrics").ok()?;
    let count =
        page.lines().find_map(|line| line.strip_prefix("etcd_disk_wal_fsync_duration_seconds_count "))?;
    count.trim().parse().ok()
}
