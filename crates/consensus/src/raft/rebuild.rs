//! Rebuilding a state that is not to be believed, beneath openraft: a snapshot that another member made takes its place,
//! and this node's own log brings it to where the node stands.
//!
//! openraft has no part in it. For openraft this node has applied everything that was committed, and it never installs a
//! snapshot below that (reference: openraft, section 5); what it believes becomes true again here.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use ringfence_store::{Entry, StoreError};
use ringfence_types::limits;

use super::log_store::LogStore;
use super::state_machine::{Shelf, SnapshotFile, entry_from_raft, failure_of, snapshot_meta};
use super::types::{RaftLogId, log_id_to_raft};
use crate::rt;

/// How long a node that lags behind the snapshot may take to catch up with it.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(60);
/// Pause between two looks at how far this node is.
const LOOK: Duration = Duration::from_millis(10);

impl Shelf {
    /// Puts a whole and true snapshot in the place of the quarantined state, applies what this node's log has behind it, and
    /// ends the quarantine. The file is gone afterwards.
    pub(crate) async fn rebuild(self: &Arc<Self>, file: &SnapshotFile, log: &LogStore) -> io::Result<()> {
        let _one_at_a_time = self.rebuilding.lock().await;
        let rebuilt = self.rebuild_alone(file, log).await;
        if rebuilt.is_err() && self.disk().list()?.contains(&file.name) {
            self.remove(file);
        }
        rebuilt
    }

    async fn rebuild_alone(self: &Arc<Self>, file: &SnapshotFile, log: &LogStore) -> io::Result<()> {
        if !self.quarantine.is_on() {
            return Err(io::Error::other("this node is not in state quarantine"));
        }
        self.wait_handled(file.meta.last_log_id).await?;
        check_log(log, file.meta.last_log_id)?;
        // Whatever was being applied when the quarantine began has ended after this.
        drop(self.applying.lock().await);
        let (shelf, snapshot, expected) = (self.clone(), file.examined()?.clone(), file.meta.clone());
        let replacing = move || -> io::Result<()> {
            let position = shelf.store.replace_with(&snapshot).map_err(io::Error::other)?;
            let found = snapshot_meta(&position)?;
            if found != expected {
                return Err(io::Error::other(format!("the snapshot is {found}, not {expected} as was said")));
            }
            Ok(())
        };
        rt::blocking(replacing).await??;
        self.replay_all(log).await?;
        // The log may have been dropped up to a checkpoint of the state that was lost. The file must not end before it.
        let shelf = self.clone();
        rt::blocking(move || shelf.store.checkpoint().map_err(|error| shelf.not_written(&error))).await??;
        while !self.try_end_quarantine().await? {
            self.replay_all(log).await?;
        }
        Ok(())
    }

    /// Applies what this node's log has, up to where the node stands.
    async fn replay_all(self: &Arc<Self>, log: &LogStore) -> io::Result<()> {
        while self.store.applied().log_id.map(log_id_to_raft) != self.gate.applied() {
            let (shelf, log) = (self.clone(), log.clone());
            rt::blocking(move || shelf.replay(&log)).await??;
        }
        Ok(())
    }

    /// Waits until this node has handled everything up to here: then its log has all that is behind it.
    async fn wait_handled(&self, log_id: Option<RaftLogId>) -> io::Result<()> {
        let deadline = rt::now() + CATCH_UP_TIMEOUT;
        while self.gate.applied() < log_id {
            if rt::now() >= deadline {
                return Err(io::Error::other("this node lags too far behind the snapshot"));
            }
            rt::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Ends the quarantine if the state is where the node stands. Nothing can be applied in between.
    async fn try_end_quarantine(&self) -> io::Result<bool> {
        let _applying = self.applying.lock().await;
        let position = self.store.applied();
        let applied = position.log_id.map(log_id_to_raft);
        if applied != self.gate.applied() {
            return Ok(false);
        }
        super::quarantine::keep_membership(self.disk().as_ref(), &position)?;
        self.quarantine.leave()?;
        self.show_applied(applied);
        Ok(true)
    }

    /// Applies the next entries of the log, some megabytes at a time.
    fn replay(&self, log: &LogStore) -> io::Result<()> {
        let next = self.store.applied().log_id.map_or(0, |log_id| log_id.index.0 + 1);
        let until = self.gate.applied().map_or(0, |handled| handled.index() + 1);
        let entries = log.entries(next, until, limits::WAL_BATCH_BYTES_MAX)?;
        if entries.first().is_none_or(|first| first.log_id.index() != next) {
            return Err(io::Error::other(format!(
                "this node's log lacks entry {next}, which the snapshot needs"
            )));
        }
        let entries: Vec<Entry> = entries.into_iter().map(entry_from_raft).collect();
        self.store.apply(&entries).map_err(|error| self.not_written(&error))?;
        if self.store.is_full() {
            self.store.checkpoint().map_err(|error| self.not_written(&error))?;
        }
        Ok(())
    }

    /// A new state that fails at once is no longer about the old one.
    fn not_written(&self, error: &StoreError) -> io::Error {
        self.failures.report(failure_of(error));
        io::Error::other(error.to_string())
    }
}

/// The snapshot must belong to this log's history.
fn check_log(log: &LogStore, log_id: Option<RaftLogId>) -> io::Result<()> {
    let Some(log_id) = log_id else { return Err(io::Error::other("the snapshot holds nothing")) };
    let entries = log.entries(log_id.index(), log_id.index() + 1, usize::MAX)?;
    match entries.first() {
        Some(entry) if entry.log_id != log_id => Err(io::Error::other(format!(
            "the snapshot ends at {log_id}, and the log has {} there",
            entry.log_id
        ))),
        // The entry itself may be gone from the log; what follows it may not, and `replay` sees to that.
        _ => Ok(()),
    }
}
