//! openraft's state machine on our store.
//!
//! For openraft a checkpoint is a snapshot: `build_snapshot` hands out the checkpoint's position and makes no file. Only
//! when a member needs a snapshot is a file made, and kept on the [`Shelf`] until nobody sends it any more.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use parking_lot::Mutex;
use ringfence_disk::{Disk, File, Open};
use ringfence_store::{Entry, ExaminedSnapshot, Payload, Position, Progress, Rebuilt, Store, StoreError};
use ringfence_types::{Index, Outcome};
use tokio::sync::Notify;

use super::codec;
use super::gate::Gate;
use super::quarantine::{StateQuarantine, keep_membership};
use super::types::{
    Answer, RaftEntry, RaftLogId, RaftStoredMembership, TypeConfig, log_id_from_raft, log_id_to_raft,
};
use crate::api::Failure;
use crate::failures::Failures;
use crate::rt::{self, watch};

/// Most entries applied before the new state is shown.
const APPLY_BATCH_MAX: usize = 512;
/// A snapshot file that nobody has sent for this long is removed.
const SHELF_TIME: Duration = Duration::from_secs(60);

type Snapshot = openraft::alias::SnapshotOf<TypeConfig, SnapshotHandle>;
type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;

/// What openraft passes around for a snapshot; without a file until a member needs one.
#[derive(Debug, Clone)]
pub(crate) struct SnapshotHandle {
    pub(crate) file: Option<Arc<SnapshotFile>>,
}

/// A snapshot's file on the state machine's disk.
#[derive(Debug)]
pub(crate) struct SnapshotFile {
    /// Names this very file, for transfers that go on after a break.
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) bytes: u64,
    pub(crate) file: Arc<dyn File>,
    pub(crate) meta: SnapshotMeta,
    /// Of a file that came from another member: that it may take the place of the state.
    pub(crate) examined: Option<ExaminedSnapshot>,
}

impl SnapshotFile {
    /// The last entry in it.
    fn index(&self) -> Option<Index> {
        self.meta.last_log_id.map(|log_id| Index(log_id.index()))
    }

    /// That the file may take the place of the state.
    ///
    /// # Errors
    /// Where nobody has looked.
    pub(crate) fn examined(&self) -> io::Result<&ExaminedSnapshot> {
        self.examined.as_ref().ok_or_else(|| io::Error::other(format!("{} was never examined", self.name)))
    }
}

/// The store with what belongs to it: shared by the adapter, the checkpoints and the snapshot channel.
pub(crate) struct Shelf {
    pub(crate) store: Arc<Store>,
    disk: Arc<dyn Disk>,
    pub(super) gate: Arc<Gate>,
    pub(super) failures: Failures,
    /// Whether the state is not to be believed.
    pub(crate) quarantine: StateQuarantine,
    /// Held while the state is replaced by another member's.
    pub(super) rebuilding: tokio::sync::Mutex<()>,
    /// Held while a batch is applied, or passed over.
    pub(super) applying: tokio::sync::Mutex<()>,
    /// The newest index applied and shown, plus one; 0 for none.
    applied: watch::Sender<u64>,
    /// Wakes whoever makes checkpoints.
    pub(crate) checkpoint_wanted: Notify,
    /// Wakes `apply` when a checkpoint has freed the head.
    pub(crate) room: Notify,
    /// Wakes whoever writes the entry that a member needs behind a snapshot.
    pub(crate) snapshot_ended: Notify,
    outgoing: Mutex<Option<Outgoing>>,
    next_file: AtomicU64,
}

struct Outgoing {
    file: Arc<SnapshotFile>,
    used_at: rt::Instant,
}

/// openraft's adapter; clones share the shelf.
#[derive(Clone)]
pub(crate) struct StateMachine(pub(crate) Arc<Shelf>);

impl Shelf {
    /// Takes a store over and removes what an earlier process left of snapshots.
    pub(crate) fn new(
        store: Arc<Store>,
        disk: Arc<dyn Disk>,
        gate: Arc<Gate>,
        failures: Failures,
        quarantine: StateQuarantine,
    ) -> io::Result<Shelf> {
        for name in disk.list()?.into_iter().filter(|name| name.contains(".snapshot")) {
            disk.remove(&name)?;
        }
        keep_membership(disk.as_ref(), &store.checkpointed())?;
        let applied = store.applied().log_id.map_or(0, |log_id| log_id.index.0 + 1);
        Ok(Shelf {
            store,
            disk,
            gate,
            failures,
            quarantine,
            rebuilding: tokio::sync::Mutex::default(),
            applying: tokio::sync::Mutex::default(),
            applied: watch::Sender::new(applied),
            checkpoint_wanted: Notify::new(),
            room: Notify::new(),
            snapshot_ended: Notify::new(),
            outgoing: Mutex::default(),
            next_file: AtomicU64::new(rt::random_u64()),
        })
    }

    /// The disk that holds the state and snapshot files.
    pub(crate) fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// To follow what is applied: the index plus one, 0 for nothing.
    pub(crate) fn applied(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    /// Waits until the state shows everything up to `index`.
    pub(crate) async fn wait_applied(&self, index: Index) {
        let mut applied = self.applied.subscribe();
        let waiting = applied.wait_for(|applied| *applied > index.0);
        waiting.await.map(drop).expect("the shelf keeps the channel open");
    }

    pub(super) fn show_applied(&self, log_id: Option<RaftLogId>) {
        self.applied.send_replace(log_id.map_or(0, |log_id| log_id.index() + 1));
    }

    /// A new name for a snapshot file.
    pub(crate) fn new_name(&self, kind: &str) -> (u64, String) {
        let id = self.next_file.fetch_add(1, Ordering::Relaxed);
        (id, format!("{kind}-{id:016x}.snapshot"))
    }

    /// Writes a snapshot of the newest state to a file of this name. A state that does not match its running hash is not
    /// believed any longer: it would go on to answer with what nobody wrote.
    pub(crate) fn write_verified(&self, name: &str) -> Result<ringfence_store::SnapshotMeta, Failure> {
        self.quarantine.check().map_err(Failure::StateCorrupt)?;
        self.store.write_snapshot(name).map_err(|error| {
            if matches!(error, StoreError::Corrupt(_)) {
                self.state_failed(&error);
            }
            failure_of(&error)
        })
    }

    /// Writes the state file anew. As with a snapshot, a state that does not match its running hash is not believed any
    /// longer; a disk that has no room for a second file is another matter.
    pub(crate) fn rebuild_verified(&self) -> Result<Option<Rebuilt>, Failure> {
        self.quarantine.check().map_err(Failure::StateCorrupt)?;
        let mut tell = |progress: Progress| {
            tracing::debug!(
                rows = progress.row_bytes,
                behind = progress.revisions_behind,
                "the new state file has been written, and follows the old one"
            );
        };
        self.store.rebuild(&mut tell).map_err(|error| {
            if self.store.has_failed() || matches!(error, StoreError::Corrupt(_)) {
                self.state_failed(&error);
            }
            failure_of(&error)
        })
    }

    /// Writes a snapshot of the newest state to a file of its own, off the executor's threads.
    pub(crate) async fn write_file(self: &Arc<Self>, kind: &str) -> Result<SnapshotFile, Failure> {
        let (id, name) = self.new_name(kind);
        let shelf = self.clone();
        let writing = move || -> Result<SnapshotFile, Failure> {
            let began = rt::now();
            let written = shelf.write_verified(&name)?;
            let seconds = rt::since(began).as_secs_f64();
            tracing::info!("wrote the state into a file of {} bytes in {seconds:.1} s", written.bytes);
            let disk_failed = |error: io::Error| Failure::Disk(error.to_string());
            let file = shelf.disk.open(&name, Open::Existing).map_err(disk_failed)?;
            let bytes = file.len().map_err(disk_failed)?;
            let meta = snapshot_meta(&written.position).map_err(disk_failed)?;
            Ok(SnapshotFile { id, name, bytes, file, meta, examined: None })
        };
        rt::blocking(writing).await.map_err(|error| Failure::Disk(error.to_string()))?
    }

    /// Makes the file that a member needs.
    pub(crate) async fn make_file(self: &Arc<Self>) -> Result<Arc<SnapshotFile>, Failure> {
        // What a checkpoint made meanwhile lets go of, the member would need behind this file.
        self.gate.note_transfer(self.store.checkpointed().log_id.map(|log_id| log_id.index));
        let written = self.write_file("outgoing").await.map(Arc::new);
        let mut outgoing = self.outgoing.lock();
        let (file, previous) = match written {
            Ok(file) => (file.clone(), outgoing.replace(Outgoing { file, used_at: rt::now() })),
            Err(failure) => {
                self.gate.note_transfer(outgoing.as_ref().and_then(|outgoing| outgoing.file.index()));
                return Err(failure);
            }
        };
        // The log after this file must stay until the member has it.
        self.gate.note_transfer(outgoing.as_ref().and_then(|outgoing| outgoing.file.index()));
        drop(outgoing);
        if let Some(previous) = previous {
            self.remove(&previous.file);
        }
        Ok(file)
    }

    /// Keeps a file on the shelf while it is sent.
    pub(crate) fn pin(self: &Arc<Self>, file: &Arc<SnapshotFile>) -> Pin {
        self.touch(file.id);
        Pin { shelf: self.clone(), id: file.id, _file: file.clone() }
    }

    fn touch(&self, id: u64) {
        if let Some(outgoing) = self.outgoing.lock().as_mut().filter(|outgoing| outgoing.file.id == id) {
            outgoing.used_at = rt::now();
        }
    }

    /// Removes a file that nobody has sent for a while, and frees what the store has replaced.
    pub(crate) async fn tidy(&self) {
        self.remove_stale_file();
        let store = self.store.clone();
        // That a view is still held is no failure, and a failure to close a file that nobody needs is none either.
        drop(rt::blocking(move || store.tidy()).await);
    }

    fn remove_stale_file(&self) {
        let mut outgoing = self.outgoing.lock();
        let is_stale = |outgoing: &Outgoing| {
            Arc::strong_count(&outgoing.file) == 1 && rt::since(outgoing.used_at) > SHELF_TIME
        };
        if outgoing.as_ref().is_some_and(is_stale)
            && let Some(stale) = outgoing.take()
        {
            self.gate.note_transfer(None);
            self.remove(&stale.file);
        }
    }

    /// Takes a file that a member found not to be whole off the shelf. It would be found rotten for as long as it is sent; the
    /// next try makes another.
    pub(crate) fn discard(&self, file: &SnapshotFile) {
        let mut outgoing = self.outgoing.lock();
        if outgoing.take_if(|outgoing| outgoing.file.id == file.id).is_some() {
            self.gate.note_transfer(None);
            self.remove(file);
        }
    }

    pub(crate) fn remove(&self, file: &SnapshotFile) {
        if let Err(error) = self.disk.remove(&file.name) {
            tracing::warn!("the snapshot file {} stays: {error}", file.name);
        }
    }

    /// The newest snapshot: a file if there is one, else the checkpoint's position alone.
    fn current(&self) -> io::Result<Option<Snapshot>> {
        if let Some(outgoing) = self.outgoing.lock().as_ref() {
            let (meta, file) = (outgoing.file.meta.clone(), Some(outgoing.file.clone()));
            return Ok(Some(Snapshot { meta, snapshot: SnapshotHandle { file } }));
        }
        self.checkpoint_snapshot()
    }

    fn checkpoint_snapshot(&self) -> io::Result<Option<Snapshot>> {
        let position = self.at_least_lost(self.store.checkpointed());
        if position.log_id.is_none() {
            return Ok(None);
        }
        Ok(Some(Snapshot { meta: snapshot_meta(&position)?, snapshot: SnapshotHandle { file: None } }))
    }

    /// The last entry that the state holds, and the last one that its file holds.
    pub(crate) fn positions(&self) -> (Option<RaftLogId>, Option<RaftLogId>) {
        let checkpointed = self.at_least_lost(self.store.checkpointed());
        (self.position().log_id.map(log_id_to_raft), checkpointed.log_id.map(log_id_to_raft))
    }

    /// How far the state is, as openraft has to see it: of a state that was lost, what it held.
    fn position(&self) -> Position {
        self.at_least_lost(self.store.applied())
    }

    fn at_least_lost(&self, position: Position) -> Position {
        match self.quarantine.now().and_then(|known| known.lost) {
            Some(lost) if lost.log_id > position.log_id => lost,
            _ => position,
        }
    }

    /// The state could not be read, written or believed. Where others have it too, that is the end of the state and not of
    /// the node: whether it is in state quarantine now. Else the node has failed.
    pub(crate) fn state_failed(&self, error: &StoreError) -> bool {
        if self.quarantine.is_on() {
            return true;
        }
        let StoreError::Corrupt(reason) = error else {
            self.failures.report(failure_of(error));
            return false;
        };
        if !self.is_shared() {
            self.failures.report(failure_of(error));
            return false;
        }
        self.report_disk(self.quarantine.enter(&format!("the state file is damaged: {reason}"), None));
        true
    }

    /// A disk that refuses what must be written down ends the node.
    pub(crate) fn report_disk(&self, result: io::Result<()>) {
        if let Err(error) = result {
            self.failures.report(Failure::Disk(error.to_string()));
        }
    }

    /// Whether another voter has the same state.
    fn is_shared(&self) -> bool {
        let membership = stored_membership(&self.store.applied());
        membership.is_ok_and(|stored| stored.membership().voter_ids().count() > 1)
    }

    fn store_error(&self, error: &StoreError) -> io::Error {
        self.failures.report(failure_of(error));
        io::Error::other(error.to_string())
    }
}

/// While it lives, the file that it names stays on the shelf.
pub(crate) struct Pin {
    shelf: Arc<Shelf>,
    id: u64,
    _file: Arc<SnapshotFile>,
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.shelf.touch(self.id);
    }
}

/// What an error of the store means for the node.
pub(crate) fn failure_of(error: &StoreError) -> Failure {
    match error {
        StoreError::Io(_) => Failure::Disk(error.to_string()),
        StoreError::Failed => Failure::Disk("the state file failed before".to_owned()),
        _ => Failure::StateCorrupt(error.to_string()),
    }
}

/// Whether a position read from the state file makes sense. What is found later would be told as a bug of consensus.
pub(crate) fn check_position(position: &Position) -> io::Result<()> {
    stored_membership(position).map(drop)
}

/// An entry as the store takes it.
pub(crate) fn entry_from_raft(entry: RaftEntry) -> Entry {
    let payload = match entry.payload {
        EntryPayload::Blank => Payload::Blank,
        EntryPayload::Normal(sealed) => Payload::Command(sealed.command),
        EntryPayload::Membership(membership) => Payload::Membership(codec::encode_membership(&membership)),
    };
    Entry { log_id: log_id_from_raft(&entry.log_id), payload }
}

pub(crate) fn stored_membership(position: &Position) -> io::Result<RaftStoredMembership> {
    let Some((log_id, membership)) = &position.membership else { return Ok(RaftStoredMembership::default()) };
    let membership = codec::decode_membership(membership)?;
    Ok(RaftStoredMembership::new(log_id.map(log_id_to_raft), membership))
}

pub(super) fn snapshot_meta(position: &Position) -> io::Result<SnapshotMeta> {
    Ok(SnapshotMeta {
        last_log_id: position.log_id.map(log_id_to_raft),
        last_membership: stored_membership(position)?,
    })
}

/// Hands out checkpoints as snapshots.
pub(crate) struct CheckpointHandles(Arc<Shelf>);

impl RaftSnapshotBuilder<TypeConfig> for CheckpointHandles {
    type SnapshotData = SnapshotHandle;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let empty = || Snapshot { meta: SnapshotMeta::default(), snapshot: SnapshotHandle { file: None } };
        Ok(self.0.checkpoint_snapshot()?.unwrap_or_else(empty))
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotHandle;
    type SnapshotBuilder = CheckpointHandles;

    async fn applied_state(&mut self) -> io::Result<(Option<RaftLogId>, RaftStoredMembership)> {
        let position = self.0.position();
        Ok((position.log_id.map(log_id_to_raft), stored_membership(&position)?))
    }

    async fn apply<S>(&mut self, entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let shelf = &self.0;
        let mut batches = entries.ready_chunks(APPLY_BATCH_MAX);
        while let Some(batch) = batches.next().await {
            let _applying = shelf.applying.lock().await;
            let mut items = Vec::with_capacity(batch.len());
            let mut responders = Vec::with_capacity(batch.len());
            let mut changes_members = false;
            for item in batch {
                let (entry, responder) = item?;
                shelf.gate.apply(&entry.log_id)?;
                responders.push(responder);
                changes_members |= matches!(entry.payload, EntryPayload::Membership(_));
                items.push(entry_from_raft(entry));
            }
            let outcomes = shelf.apply(&items).await?;
            let mut outcomes = outcomes.into_iter().flatten();
            for responder in responders {
                let outcome = outcomes.next();
                if let Some(responder) = responder {
                    responder.send(Answer(outcome));
                }
            }
            if changes_members {
                keep_membership(shelf.disk.as_ref(), &shelf.store.applied())?;
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> CheckpointHandles {
        CheckpointHandles(self.0.clone())
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotHandle) -> io::Result<()> {
        let shelf = self.0.clone();
        let Some(file) = snapshot.file else {
            // A checkpoint of this very store: what it describes is already in force.
            return self.check_own_checkpoint(meta);
        };
        shelf.gate.install(meta.last_log_id)?;
        let expected = meta.clone();
        let installing = move || -> io::Result<Option<RaftLogId>> {
            let is_rebuilt = shelf.quarantine.is_on();
            let installed = match is_rebuilt {
                true => shelf.store.replace_with(file.examined()?),
                false => shelf.store.install_snapshot(file.examined()?),
            };
            let position = installed.map_err(|error| shelf.store_error(&error))?;
            let found = snapshot_meta(&position)?;
            if found != expected {
                return Err(io::Error::other(format!("the snapshot is {found}, not {expected} as was said")));
            }
            keep_membership(shelf.disk.as_ref(), &position)?;
            if is_rebuilt {
                shelf.quarantine.leave()?;
            }
            Ok(found.last_log_id)
        };
        let installed = rt::blocking(installing).await??;
        self.0.show_applied(installed);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        self.0.current()
    }
}

impl StateMachine {
    fn check_own_checkpoint(&self, meta: &SnapshotMeta) -> io::Result<()> {
        let applied = self.0.position().log_id.map(log_id_to_raft);
        if applied < meta.last_log_id {
            return Err(io::Error::other("a checkpoint's handle without a file, from another node"));
        }
        Ok(())
    }
}

impl Shelf {
    /// Applies entries and shows what they made. No outcomes where the state is not to be believed.
    async fn apply(&self, entries: &[Entry]) -> io::Result<Option<Vec<Outcome>>> {
        self.wait_for_room().await;
        if self.quarantine.is_on() {
            return Ok(None);
        }
        match self.store.apply(entries) {
            Ok(outcomes) => {
                self.show_applied(entries.last().map(|entry| log_id_to_raft(entry.log_id)));
                if self.store.is_checkpoint_due() {
                    self.checkpoint_wanted.notify_one();
                }
                Ok(Some(outcomes))
            }
            Err(error) if self.state_failed(&error) => Ok(None),
            Err(error) => Err(io::Error::other(error.to_string())),
        }
    }

    /// A full head takes nothing more until a checkpoint has freed it.
    async fn wait_for_room(&self) {
        while self.store.is_full() && !self.quarantine.is_on() {
            let freed = self.room.notified();
            self.checkpoint_wanted.notify_one();
            if !self.store.is_full() {
                return;
            }
            freed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use ringfence_disk::SimDisk;

    use super::*;

    #[tokio::test]
    async fn a_discarded_file_is_not_offered_again() {
        let disk = SimDisk::new(3);
        let directory = |name: &str| disk.subdirectory(name).expect("a fresh disk");
        let store = Store::open(directory("state"), Default::default()).expect("a fresh state file");
        let quarantine = StateQuarantine::open(directory("state")).expect("a fresh disk");
        let shelf =
            Shelf::new(Arc::new(store), directory("state"), Arc::default(), Failures::new(), quarantine);
        let shelf = Arc::new(shelf.expect("a fresh disk"));
        let offered = || shelf.outgoing.lock().as_ref().map(|outgoing| outgoing.file.clone());
        shelf.make_file().await.expect("the disk works");
        let first = offered().expect("it was just made");
        shelf.make_file().await.expect("the disk works");
        shelf.discard(&first);
        let second = offered().expect("a newer file stays");
        shelf.discard(&second);
        assert!(offered().is_none());
        let names = directory("state").list().expect("the disk works");
        assert!(!names.iter().any(|name| name.contains(".snapshot")), "{names:?}");
    }
}
