//! Room: how much a node's state may take, and how much is left on its disk.
//!
//! The leader's gate judges writes by the leader's own file, before they are in the log: apply refuses nothing for want of room, or
//! members whose files differ in size would differ in their states. A leader that has no room raises the alarm NOSPACE and clears
//! it when there is room again; while it is raised, writes that need room for keys are refused. What decides who may do what (leases,
//! and the keys of locks and elections) may use a reserve above the quota, and what gives room back always passes.
//!
//! Every member looks at its disk. One that runs low says so; a leader then counts as one that has no room, and whoever is below the
//! reserve of its disk stops while it can still stop in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use ringfence_proto::command;
use ringfence_store::Store;
use ringfence_types::{Alarm, AlarmKind, Claim, Command, NodeId};

use crate::api::{Failure, ProposeError, TransferError};
use crate::node::Node;
use crate::raft::state_machine::Shelf;
use crate::rt;

/// How often a node looks at its disk, and a leader at the alarm.
const LOOK: Duration = Duration::from_millis(250);
/// How long the entry may take that changes the alarm; the next look makes another.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a leader without room for its own work tries to hand its leadership over before it stops.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(3);
/// From this part of the quota on a node warns, in hundredths; and below it an alarm is cleared, so that it does not come and go
/// with each write.
const WARN_PERCENT: u64 = 90;
/// The reserve above the quota: a part of the quota, and at least so many bytes.
const RESERVE_DIVISOR: u64 = 10;
const RESERVE_BYTES_MIN: u64 = 16 << 20;

/// How much room a node may take. All zero: as much as there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SpaceLimits {
    /// Bytes that the state may need; 0 for any number. All members should have the same: the one that leads counts.
    pub quota_bytes: u64,
    /// A node with less than this free on its disk says so, and takes no more keys while it leads; 0 for never.
    pub disk_low_bytes: u64,
    /// A node with less than this free on its disk stops; 0 for never.
    pub disk_reserve_bytes: u64,
}

/// How a node stands with its room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SpaceStatus {
    /// Bytes that the state needs: its rows in the file, and those that wait in memory.
    pub used_bytes: u64,
    /// The quota; 0 for none.
    pub quota_bytes: u64,
    /// What locks, sessions and leases may use above it.
    pub reserve_bytes: u64,
    /// Whether the state is close to its quota, or above it.
    pub is_quota_near: bool,
    /// Bytes free on the disk, as they were at the last look.
    pub disk_free_bytes: u64,
    /// Whether the disk runs low.
    pub is_disk_low: bool,
    /// Writes that this node's gate has refused for want of room.
    pub refused: u64,
}

/// How full it is here, in rising order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fullness {
    /// There is room.
    Open,
    /// There is none for keys.
    QuotaReached,
    /// There is none for anything.
    ReserveUsed,
}

/// The judge over writes that need room.
#[derive(Debug)]
pub(crate) struct Quota {
    limits: SpaceLimits,
    store: Arc<Store>,
    /// Bytes, as they were at the last look.
    disk_free: AtomicU64,
    is_disk_low: AtomicBool,
    has_warned: AtomicBool,
    refused: AtomicU64,
}

impl Quota {
    pub(crate) fn new(limits: SpaceLimits, store: Arc<Store>) -> Quota {
        Quota {
            limits,
            store,
            disk_free: AtomicU64::new(0),
            is_disk_low: AtomicBool::new(false),
            has_warned: AtomicBool::new(false),
            refused: AtomicU64::new(0),
        }
    }

    /// Refuses a command that needs more room than there is.
    pub(crate) fn admit(&self, encoded: &Bytes) -> Result<(), ProposeError> {
        if !command::may_claim_space(encoded) {
            return Ok(());
        }
        let fullness = self.fullness();
        if fullness == Fullness::Open {
            return Ok(());
        }
        // What cannot be decoded is for apply to refuse.
        let claim = command::decode(encoded).map_or(Claim::Nothing, |command| command.claim());
        let fits = match claim {
            Claim::Nothing => true,
            Claim::Rights => fullness < Fullness::ReserveUsed,
            Claim::Keys => false,
        };
        if fits {
            return Ok(());
        }
        self.refused.fetch_add(1, Ordering::Relaxed);
        Err(ProposeError::NoSpace(self.explain()))
    }

    /// How it stands.
    pub(crate) fn status(&self) -> SpaceStatus {
        let used_bytes = self.store.used_bytes();
        SpaceStatus {
            used_bytes,
            quota_bytes: self.limits.quota_bytes,
            reserve_bytes: self.limits.reserve_bytes(),
            is_quota_near: self.limits.is_near(used_bytes),
            disk_free_bytes: self.disk_free.load(Ordering::Relaxed),
            is_disk_low: self.is_disk_low.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }

    fn fullness(&self) -> Fullness {
        let used = self.store.used_bytes();
        match self.limits.fullness(used) {
            Fullness::Open if self.is_disk_low.load(Ordering::Relaxed) || self.is_alarm_raised() => {
                Fullness::QuotaReached
            }
            fullness => fullness,
        }
    }

    fn is_alarm_raised(&self) -> bool {
        self.store.view().alarms().iter().any(|alarm| alarm.kind == AlarmKind::NoSpace)
    }

    fn explain(&self) -> String {
        let status = self.status();
        if status.is_disk_low {
            return format!(
                "the leader's disk has {} bytes left, which is too little",
                status.disk_free_bytes
            );
        }
        format!(
            "the leader's state needs {} bytes, and the quota is {}: delete keys and compact, or raise --quota-bytes",
            status.used_bytes, status.quota_bytes
        )
    }

    /// Looks at the disk, and tells people what has changed. An error where too little is left to go on.
    fn look(&self, free: u64) -> Result<(), Failure> {
        self.disk_free.store(free, Ordering::Relaxed);
        let is_low = free < self.limits.disk_low_bytes;
        if is_low != self.is_disk_low.swap(is_low, Ordering::Relaxed) {
            match is_low {
                true => tracing::warn!(free_bytes = free, "the disk runs low: free some space on it soon"),
                false => tracing::info!(free_bytes = free, "there is room on the disk again"),
            }
        }
        let used = self.store.used_bytes();
        let is_near = self.limits.is_near(used);
        if is_near != self.has_warned.swap(is_near, Ordering::Relaxed) {
            let quota = self.limits.quota_bytes;
            match is_near {
                true => tracing::warn!(
                    used_bytes = used,
                    quota_bytes = quota,
                    "the state comes close to its quota: delete keys, compact, or raise --quota-bytes"
                ),
                false => tracing::info!(
                    used_bytes = used,
                    quota_bytes = quota,
                    "the state is well within its quota"
                ),
            }
        }
        if free < self.limits.disk_reserve_bytes {
            return Err(Failure::Disk(format!(
                "{free} bytes are left on it, and {} are needed to go on",
                self.limits.disk_reserve_bytes
            )));
        }
        Ok(())
    }

    /// Whether an alarm that is not raised has to be, or one that is may be cleared; none where it is well as it is.
    fn wants_alarm(&self) -> Option<bool> {
        let used = self.store.used_bytes();
        let is_low = self.is_disk_low.load(Ordering::Relaxed);
        match self.is_alarm_raised() {
            false if is_low || self.limits.fullness(used) > Fullness::Open => Some(true),
            true if !is_low && !self.limits.is_near(used) => Some(false),
            _ => None,
        }
    }
}

impl SpaceLimits {
    fn reserve_bytes(&self) -> u64 {
        match self.quota_bytes {
            0 => 0,
            quota => (quota / RESERVE_DIVISOR).max(RESERVE_BYTES_MIN),
        }
    }

    fn fullness(&self, used: u64) -> Fullness {
        match self.quota_bytes {
            0 => Fullness::Open,
            quota if used < quota => Fullness::Open,
            quota if used < quota.saturating_add(self.reserve_bytes()) => Fullness::QuotaReached,
            _ => Fullness::ReserveUsed,
        }
    }

    fn is_near(&self, used: u64) -> bool {
        self.quota_bytes > 0 && used / WARN_PERCENT >= self.quota_bytes / 100
    }
}

/// Looks at the disk and keeps the alarm, until the node fails.
pub(crate) async fn watch(node: Node, quota: Arc<Quota>) {
    if quota.limits == SpaceLimits::default() {
        return;
    }
    let parts = &node.0;
    while parts.failures.first().is_none() {
        match free_bytes(&parts.shelf).await {
            Ok(free) => {
                if let Err(failure) = quota.look(free) {
                    return give_up(&node, failure).await;
                }
            }
            Err(error) => tracing::warn!("cannot see how much room the disk has: {error}"),
        }
        // Whoever has a reading of the lease clock leads, and has applied the first entry of its leadership.
        if node.lease_clock().is_some() {
            keep_alarm(&node, &quota).await;
        }
        rt::sleep(LOOK).await;
    }
}

async fn free_bytes(shelf: &Arc<Shelf>) -> std::io::Result<u64> {
    let disk = shelf.disk().clone();
    rt::blocking(move || disk.free_bytes()).await?
}

/// Raises the alarm for want of room, or clears it when there is room again.
async fn keep_alarm(node: &Node, quota: &Quota) {
    let Some(raised) = quota.wants_alarm() else {
        if quota.is_alarm_raised() {
            // What deletions and compaction have freed is seen when the head has become part of the file.
            node.0.shelf.checkpoint_wanted.notify_one();
        }
        return;
    };
    let alarms: Vec<Alarm> = match raised {
        true => vec![Alarm { member: node.node_id(), kind: AlarmKind::NoSpace }],
        false => {
            let alarms = node.view().alarms().into_iter();
            alarms.filter(|alarm| alarm.kind == AlarmKind::NoSpace).collect()
        }
    };
    for alarm in alarms {
        match node.propose(&Command::ChangeAlarm { alarm, raised }, rt::now() + CHANGE_TIMEOUT).await {
            Ok(_) => report(alarm.member, raised, quota.status()),
            Err(error) => tracing::debug!("the alarm NOSPACE is not changed yet: {error}"),
        }
    }
}

fn report(member: NodeId, raised: bool, status: SpaceStatus) {
    let SpaceStatus { used_bytes, quota_bytes, disk_free_bytes, .. } = status;
    match raised {
        true => tracing::warn!(
            used_bytes,
            quota_bytes,
            disk_free_bytes,
            "alarm NOSPACE of node {member}: what needs room for keys is refused until there is room again"
        ),
        false => tracing::info!(
            used_bytes,
            quota_bytes,
            "alarm NOSPACE of node {member} is over: there is room again"
        ),
    }
}

/// Stops a node whose disk has too little left for its own work, not without a successor where it leads.
async fn give_up(node: &Node, failure: Failure) {
    match node.hand_over(None, rt::now() + HANDOVER_TIMEOUT).await {
        Ok(to) => tracing::warn!("handed leadership over to node {to}: there is no room on the disk"),
        Err(TransferError::NotLeader) => {}
        Err(error) => tracing::warn!("leadership is not handed over: {error}"),
    }
    node.0.failures.report(failure);
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_reserve_lies_above_the_quota() {
        let limits = |quota_bytes| SpaceLimits { quota_bytes, ..SpaceLimits::default() };
        assert_eq!(limits(0).fullness(u64::MAX), Fullness::Open, "no quota is never reached");
        assert_eq!(limits(0).reserve_bytes(), 0);
        let small = limits(10 * MIB);
        assert_eq!(small.fullness(10 * MIB - 1), Fullness::Open);
        assert_eq!(small.fullness(10 * MIB), Fullness::QuotaReached);
        assert_eq!(small.fullness(26 * MIB - 1), Fullness::QuotaReached);
        assert_eq!(small.fullness(26 * MIB), Fullness::ReserveUsed);
        assert_eq!(limits(1_000 * MIB).reserve_bytes(), 100 * MIB);
        assert_eq!(limits(u64::MAX).fullness(u64::MAX - 1), Fullness::Open);
    }

    #[test]
    fn a_warning_comes_before_the_quota() {
        let limits = SpaceLimits { quota_bytes: 10 * MIB, ..SpaceLimits::default() };
        assert!(!limits.is_near(8 * MIB) && limits.is_near(91 * MIB / 10) && limits.is_near(u64::MAX));
        assert!(!SpaceLimits::default().is_near(u64::MAX));
    }
}
