//! A new history: what one member of a cluster that has lost its majority still holds becomes the state of a new cluster.
//!
//! Everything in the member's log counts, whether it is known to be committed or not. An entry that was acknowledged to a
//! client may be one of which this member never learnt that it is committed; one that was not acknowledged is one of which
//! its client was told that it may have happened. So nothing that is kept contradicts an answer, and dropping may.

use std::sync::Arc;

use ringfence_disk::Disk;
use ringfence_store::snapshot_file::{self, Summary};
use ringfence_store::{Store, StoreError};
use ringfence_types::{Index, Revision, limits};
use ringfence_wal::Log;

use crate::api::Failure;
use crate::identity;
use crate::raft::quarantine::StateQuarantine;
use crate::raft::types::RaftMembership;
use crate::raft::{codec, log_store, state_machine};
use crate::rt;

/// The copy of the state from which the new one is made; it ends as all snapshots of a node do, so that a start removes it.
const COPY: &str = "recover.snapshot";

/// What a stopped member holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    /// The member's name.
    pub name: String,
    /// The number of its cluster.
    pub cluster_id: u64,
    /// The names of the voters in the last membership that it knows.
    pub voters: Vec<String>,
    /// The last entry that the member knows to be committed.
    pub committed: Option<Index>,
    /// The last entry of its log.
    pub last: Option<Index>,
    /// The revision at that entry.
    pub revision: Revision,
}

impl Survey {
    /// Entries of which the member does not know whether they are committed.
    #[must_use]
    pub fn entries_beyond_commit(&self) -> u64 {
        let next = |index: Option<Index>| index.map_or(0, |index| index.0 + 1);
        next(self.last).saturating_sub(next(self.committed))
    }
}

/// A stopped member with everything in its log applied, in memory: its files say what they said before.
pub struct Survivor {
    survey: Survey,
    store: Store,
    state_disk: Arc<dyn Disk>,
}

impl Survivor {
    /// Opens the data directory on `disk`, which no process may use meanwhile, and applies its log to the end.
    ///
    /// # Errors
    /// [`Failure::Identity`] where it is not that of a member of a cluster; the others as for a start.
    pub fn open(disk: &Arc<dyn Disk>) -> Result<Survivor, Failure> {
        let Some(past) = identity::past(disk.as_ref())?.filter(|past| past.cluster_id != 0) else {
            let reason = "the data directory is not that of a node that has been a member of a cluster";
            return Err(Failure::Identity(reason.to_owned()));
        };
        let disk_failed = |error: std::io::Error| Failure::Disk(error.to_string());
        let log_disk = disk.subdirectory("log").map_err(disk_failed)?;
        let options = ringfence_wal::Options { salt: rt::random_u64(), ..Default::default() };
        let log = Log::open(log_disk, options).map_err(|error| log_store::failure_of(&error))?;
        let state_disk = disk.subdirectory("state").map_err(disk_failed)?;
        // No history may begin with a state that its own node did not believe.
        let quarantine = StateQuarantine::open(state_disk.clone()).map_err(disk_failed)?;
        quarantine.check().map_err(Failure::StateCorrupt)?;
        let store = Store::open(state_disk.clone(), Default::default()).map_err(store_failed)?;
        apply_all(&log, &store)?;
        let malformed = |error: std::io::Error| Failure::LogCorrupt(error.to_string());
        let committed = log.committed().as_ref().map(codec::decode_log_id).transpose().map_err(malformed)?;
        let position = store.applied();
        let membership = state_machine::stored_membership(&position)
            .map_err(|error| Failure::StateCorrupt(error.to_string()))?;
        let survey = Survey {
            name: past.name,
            cluster_id: past.cluster_id,
            voters: voters(membership.membership()),
            committed: committed.map(|log_id| Index(log_id.index())),
            last: position.log_id.map(|log_id| log_id.index),
            revision: store.view().revision(),
        };
        Ok(Survivor { survey, store, state_disk })
    }

    /// What it holds.
    #[must_use]
    pub fn survey(&self) -> &Survey {
        &self.survey
    }

    /// Makes a state in the empty directory `target` with which a new cluster can be founded; see [`snapshot_file::restore`]
    /// for what it keeps.
    ///
    /// # Errors
    /// [`Failure::StateCorrupt`] where the member's state is not what was applied, else as the disk's.
    pub fn begin_anew(&self, target: &dyn Disk) -> Result<Summary, Failure> {
        self.store.write_snapshot(COPY).map_err(store_failed)?;
        let restored = snapshot_file::restore(self.state_disk.as_ref(), COPY, target).map_err(store_failed);
        self.state_disk.remove(COPY).map_err(|error| Failure::Disk(error.to_string()))?;
        restored
    }
}

fn store_failed(error: StoreError) -> Failure {
    state_machine::failure_of(&error)
}

/// Applies the log to its end.
fn apply_all(log: &Log, store: &Store) -> Result<(), Failure> {
    let Some(last) = log.last_index() else { return Ok(()) };
    loop {
        let next = store.applied().log_id.map_or(0, |log_id| log_id.index.0 + 1);
        if next > last {
            return Ok(());
        }
        let records = log
            .read(next, last + 1, limits::WAL_BATCH_BYTES_MAX)
            .map_err(|error| log_store::failure_of(&error))?;
        let entries: Result<Vec<_>, _> =
            records.iter().map(|record| codec::decode_entry(&record.data)).collect();
        let entries = entries.map_err(|error| Failure::LogCorrupt(error.to_string()))?;
        if entries.first().is_none_or(|first| first.log_id.index() != next) {
            return Err(Failure::LogCorrupt(format!(
                "the log does not go on where the state file ends: entry {next} is missing"
            )));
        }
        let entries: Vec<_> = entries.into_iter().map(state_machine::entry_from_raft).collect();
        store.apply(&entries).map_err(store_failed)?;
        if store.is_full() {
            // As a start would do it.
            store.checkpoint().map_err(store_failed)?;
        }
    }
}

fn voters(membership: &RaftMembership) -> Vec<String> {
    let name = |id: u64| membership.get_node(&id).map_or_else(|| id.to_string(), |node| node.name.clone());
    membership.voter_ids().map(name).collect()
}
