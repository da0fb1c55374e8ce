//! What happens before a node runs: its settings are checked, its data directory is opened, and openraft is started over it.

use std::sync::Arc;
use std::time::Duration;

use ringfence_canary::Canary;
use ringfence_disk::Disk;
use ringfence_store::{STATE_FILE, Store, StoreError};
use ringfence_types::{Index, Revision, limits};
use ringfence_wal::{Log, WalError};

use crate::api::{Config, Failure, Timing};
use crate::authority::Authority;
use crate::failures::Failures;
use crate::identity::{Found, Identity};
use crate::net::{FoundDurable, Links, PeerBook, PeerNetworkFactory};
use crate::quarantine::Quarantine;
use crate::raft::codec;
use crate::raft::gate::Gate;
use crate::raft::log_store::{self, LogStore};
use crate::raft::quarantine::{self, StateQuarantine};
use crate::raft::state_machine::{self, Shelf, StateMachine};
use crate::raft::types::{Raft, log_id_from_raft, log_id_to_raft};
use crate::rt;

/// What lies in a data directory.
pub(crate) struct Opened {
    pub(crate) identity: Arc<Identity>,
    pub(crate) log: LogStore,
    pub(crate) shelf: Arc<Shelf>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) peers: PeerBook,
    pub(crate) quarantine: Arc<Quarantine>,
    /// All that earlier processes have acknowledged.
    pub(crate) found: FoundDurable,
}

/// What a state file is called that could not be read.
const DAMAGED_FILE: &str = "state.redb.damaged";

/// The smallest segment of the log that holds an entry of the largest size with room to spare.
const WAL_SEGMENT_BYTES_MIN: u64 = 2 * limits::ENTRY_BYTES_MAX as u64 + (64 << 10);

/// Refuses settings that do not fit each other.
pub(crate) fn check(config: &Config) -> Result<(), Failure> {
    if config.wal_segment_bytes < WAL_SEGMENT_BYTES_MIN {
        return Err(Failure::Config(format!(
            "segments of {} bytes are too small for the log: at least {WAL_SEGMENT_BYTES_MIN}",
            config.wal_segment_bytes
        )));
    }
    let Timing { heartbeat, leader_lease } = config.timing;
    let wrong = |reason: String| Err(Failure::Config(reason));
    if leader_lease < Timing::LEADER_LEASE_MIN {
        return wrong(format!(
            "a leader lease of {leader_lease:?} is too short: at least {:?}",
            Timing::LEADER_LEASE_MIN
        ));
    }
    if heartbeat < Duration::from_millis(10) || heartbeat >= config.timing.election_timeout_min() {
        return wrong(format!(
            "a heartbeat of {heartbeat:?} does not fit a leader lease of {leader_lease:?}: at least 10ms, and less than a quarter"
        ));
    }
    Ok(())
}

/// Opens the data directory on `disk`.
pub(crate) fn open(config: &Config, disk: Arc<dyn Disk>, failures: Failures) -> Result<Opened, Failure> {
    let disk_failed = |error: std::io::Error| Failure::Disk(error.to_string());
    let log_disk = disk.subdirectory("log").map_err(disk_failed)?;
    let options = ringfence_wal::Options {
        segment_bytes: config.wal_segment_bytes,
        salt: rt::random_u64(),
        ..Default::default()
    };
    let log = Log::open(log_disk, options).map_err(|error| log_store::failure_of(&error))?;
    let state_disk = disk.subdirectory("state").map_err(disk_failed)?;
    let options = ringfence_store::Options {
        cache_bytes: config.store_cache_bytes,
        rebuild_free_bytes_min: config.rebuild_free_bytes_min,
        hash_step: config.integrity.hash_step.max(1),
        ..Default::default()
    };
    let state_quarantine = StateQuarantine::open(state_disk.clone()).map_err(disk_failed)?;
    let store = Arc::new(open_state(&state_disk, options, &log, &state_quarantine)?);
    let identity = Arc::new(Identity::open(disk.clone(), config, found(&log, &store))?);
    let gate = Arc::new(Gate::default());
    let log = LogStore::start(log, gate.clone(), failures.clone()).map_err(disk_failed)?;
    let (vote, last, committed) = log.positions().map_err(unreadable_positions)?;
    let shelf = Shelf::new(store.clone(), state_disk, gate.clone(), failures.clone(), state_quarantine)
        .map_err(disk_failed)?;
    let (applied, checkpointed) = shelf.positions();
    gate.open(vote, last, committed, applied, checkpointed.map(|log_id| Index(log_id.index())));
    tracing::info!(
        node = %identity.node_id(),
        cluster = format!("{:016x}", identity.cluster_id()),
        start = identity.boot_number(),
        last = ?last.as_ref().map(log_id_from_raft),
        committed = ?committed.as_ref().map(log_id_from_raft),
        checkpointed = ?store.checkpointed().log_id,
        "opened the data directory of {}", identity.name(),
    );
    let found = FoundDurable {
        vote: vote.as_ref().map(codec::vote_to_wire),
        // After a snapshot was installed the log may come back as it was before; what was acknowledged is in the state.
        last_log_id: last
            .max(store.checkpointed().log_id.map(log_id_to_raft))
            .as_ref()
            .map(codec::log_id_to_wire),
    };
    // The canary votes and campaigns at once, as if nothing had been granted.
    let lease_may_run = vote.is_some() && !Canary::NoQuarantine.sings();
    let quarantine = Quarantine::open(disk.clone(), failures, vote.is_some(), lease_may_run)?;
    Ok(Opened {
        identity,
        log,
        shelf: Arc::new(shelf),
        gate,
        peers: PeerBook::open(disk)?,
        quarantine: Arc::new(quarantine),
        found,
    })
}

/// Opens the state. One that cannot be read is set aside where the others' can take its place: the log and the membership
/// are enough to go on with until then, in state quarantine.
fn open_state(
    disk: &Arc<dyn Disk>,
    options: ringfence_store::Options,
    log: &Log,
    quarantine: &StateQuarantine,
) -> Result<Store, Failure> {
    let opened =
        Store::open(disk.clone(), options).map_err(|error| (state_machine::failure_of(&error), error));
    let (failure, reason) = match opened {
        Ok(store) => match state_machine::check_position(&store.applied()) {
            Ok(()) => return Ok(store),
            Err(error) => (Failure::StateCorrupt(error.to_string()), error.to_string()),
        },
        Err((failure, StoreError::Corrupt(reason))) => (failure, reason),
        Err((failure, _)) => return Err(failure),
    };
    let disk_failed = |error: std::io::Error| Failure::Disk(error.to_string());
    let Some(lost) = quarantine::lost_state(disk.as_ref(), log).map_err(disk_failed)? else {
        return Err(failure);
    };
    quarantine.enter(&format!("the state file cannot be read: {reason}"), Some(lost)).map_err(disk_failed)?;
    disk.rename(STATE_FILE, DAMAGED_FILE).map_err(disk_failed)?;
    Store::open(disk.clone(), options).map_err(|error| state_machine::failure_of(&error))
}

/// What it means that the log's positions cannot be read: a disk that refuses is no damage.
fn unreadable_positions(error: std::io::Error) -> Failure {
    match error.downcast::<WalError>() {
        Ok(error) => log_store::failure_of(&error),
        Err(error) => Failure::LogCorrupt(error.to_string()),
    }
}

/// What a data directory holds besides its identity.
fn found(log: &Log, store: &Store) -> Found {
    if log.vote().is_some() || log.last_index().is_some() || store.applied().log_id.is_some() {
        return Found::Used;
    }
    let view = store.view();
    let is_empty = view.revision() == Revision::EMPTY;
    Found::Fresh { restored: if is_empty { 0 } else { view.hash().0 } }
}

/// openraft's settings for ours.
fn raft_config(timing: Timing, campaigns_at_once: bool) -> Result<openraft::Config, Failure> {
    let milliseconds = |time: Duration| time.as_millis() as u64;
    let raft_config = openraft::Config {
        cluster_name: "ringfence".to_owned(),
        heartbeat_interval: milliseconds(timing.heartbeat),
        election_timeout_min: milliseconds(timing.election_timeout_min()),
        election_timeout_max: milliseconds(timing.election_timeout_max()),
        max_payload_entries: 512,
        snapshot_policy: openraft::SnapshotPolicy::Never,
        // Each checkpoint counts as a snapshot, after which openraft would purge all but so many entries by itself. How
        // much of the log stays is for the retention and the snapshots in transfer to say: housekeeping asks for purges.
        max_in_snapshot_log_to_keep: u64::MAX,
        api_channel_size: Some(limits::PROPOSALS_WAITING_MAX as u64 * 2),
        enable_elect: campaigns_at_once,
        enable_pre_vote: Some(true),
        // On in the canary alone: see ARCHITECTURE.md for what it breaks.
        enable_leader_restore: Some(Canary::LeaderRestored.sings()),
        allow_log_reversion: Some(false),
        // No shorter than two leases, which openraft insists on.
        quorum_loss_probe_interval: Some(milliseconds(timing.leader_lease * 2).max(1_000)),
        ..Default::default()
    };
    raft_config.validate().map_err(|error| Failure::Config(error.to_string()))
}

/// Starts openraft over what was opened.
pub(crate) async fn start_raft(
    config: &Config,
    log: &LogStore,
    shelf: &Arc<Shelf>,
    links: Arc<Links>,
    authority: Arc<Authority>,
) -> Result<Raft, Failure> {
    // Without a history there is nothing to wait for, and a cluster to be founded.
    let raft_config = raft_config(config.timing, links.local.quarantine.check_vote().is_ok())?;
    let node = authority.node().0;
    let factory = PeerNetworkFactory { links, shelf: shelf.clone(), authority };
    let machine = StateMachine(shelf.clone());
    Raft::new(node, Arc::new(raft_config), factory, log.clone(), machine)
        .await
        .map_err(|fatal| Failure::Consensus(fatal.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openraft_takes_every_timing_that_is_offered() {
        for timing in [Timing::LOCAL, Timing::WIDE_AREA] {
            if let Err(refused) = raft_config(timing, true) {
                panic!("{timing:?}: {refused}");
            }
        }
    }

    #[test]
    fn a_disk_that_refuses_to_be_read_is_not_taken_for_damage() {
        let refused = WalError::Io { doing: "reading a batch", source: std::io::Error::other("refused") };
        assert!(matches!(unreadable_positions(std::io::Error::other(refused)), Failure::Disk(_)));
        let malformed = std::io::Error::other("no vote");
        assert!(matches!(unreadable_positions(malformed), Failure::LogCorrupt(_)));
    }
}
