//! openraft's own suite for storage, on ours.

use std::io;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use openraft::entry::RaftEntry as _;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{OptionalSend, StorageError};
use ringfence_disk::{Disk, SimDisk};
use ringfence_store::Store;
use ringfence_wal::Log;

use super::gate::Gate;
use super::log_store::LogStore;
use super::quarantine::StateQuarantine;
use super::state_machine::{Shelf, SnapshotFile, SnapshotHandle, StateMachine};
use super::types::{RaftEntry, RaftLogId, RaftStoredMembership, TypeConfig};
use crate::failures::Failures;

struct OnSimulatedDisk;

impl StoreBuilder<TypeConfig, LogStore, Gapless> for OnSimulatedDisk {
    async fn build(&self) -> Result<((), LogStore, Gapless), StorageError<TypeConfig>> {
        let disk = SimDisk::new(7);
        let directory = |name: &str| disk.subdirectory(name).expect("a fresh disk");
        // The suite does what no leader does (it appends without a vote and purges without a checkpoint), so the gate,
        // which has tests of its own, stands open.
        let gate = Arc::new(Gate::without_rules());
        let failures = Failures::new();
        let options = ringfence_wal::Options { segment_bytes: 1 << 20, ..Default::default() };
        let log = Log::open(directory("log"), options).expect("a fresh log");
        let log = LogStore::start(log, gate.clone(), failures.clone()).expect("threads");
        let store = Store::open(directory("state"), Default::default()).expect("a fresh state file");
        let quarantine = StateQuarantine::open(directory("state")).expect("a fresh disk");
        let shelf = Shelf::new(Arc::new(store), directory("state"), gate, failures, quarantine);
        let shelf = shelf.expect("a fresh disk");
        Ok(((), log, Gapless(StateMachine(Arc::new(shelf)))))
    }
}

/// Our state machine takes exactly the next entry; the suite leaves entries out. This puts blank ones in between.
struct Gapless(StateMachine);

impl RaftStateMachine<TypeConfig> for Gapless {
    type SnapshotData = SnapshotHandle;
    type SnapshotBuilder = FileBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<RaftLogId>, RaftStoredMembership)> {
        self.0.applied_state().await
    }

    async fn apply<S>(&mut self, entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let mut next = self.applied_state().await?.0.map_or(0, |applied| applied.index() + 1);
        let filled = entries.flat_map(|item| {
            let log_id = item.as_ref().expect("the suite's own entries").0.log_id;
            let blanks = next..log_id.index();
            next = log_id.index() + 1;
            let blank = move |index| {
                let entry = RaftEntry::new_blank(RaftLogId::new(*log_id.committed_leader_id(), index));
                Ok((entry, None))
            };
            futures_util::stream::iter(blanks.map(blank).chain([item]).collect::<Vec<_>>())
        });
        self.0.apply(filled).await
    }

    async fn get_snapshot_builder(&mut self) -> FileBuilder {
        FileBuilder(self.0.0.clone())
    }

    async fn install_snapshot(
        &mut self,
        meta: &openraft::alias::SnapshotMetaOf<TypeConfig>,
        snapshot: SnapshotHandle,
    ) -> io::Result<()> {
        // The snapshot channel in short: the file's bytes go to the receiver's disk.
        let sent = snapshot.file.expect("the suite's builder makes a file");
        let mut bytes = vec![0; sent.bytes as usize];
        sent.file.read_exact_at(&mut bytes, 0)?;
        let file = self.0.0.disk().open(&sent.name, ringfence_disk::Open::New)?;
        file.write_all_at(&bytes, 0)?;
        file.sync_data()?;
        let (id, name) = (sent.id, sent.name.clone());
        let examined = self.0.0.store.examine_snapshot(&name).map_err(io::Error::other)?;
        let (bytes, meta_sent) = (sent.bytes, meta.clone());
        let received = SnapshotFile { id, name, bytes, file, meta: meta_sent, examined: Some(examined) };
        self.0.install_snapshot(meta, SnapshotHandle { file: Some(Arc::new(received)) }).await
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> io::Result<Option<openraft::alias::SnapshotOf<TypeConfig, SnapshotHandle>>> {
        self.0.get_current_snapshot().await
    }
}

/// Makes a file for each snapshot, as when a member needs one.
struct FileBuilder(Arc<Shelf>);

impl RaftSnapshotBuilder<TypeConfig> for FileBuilder {
    type SnapshotData = SnapshotHandle;

    async fn build_snapshot(
        &mut self,
    ) -> io::Result<openraft::alias::SnapshotOf<TypeConfig, SnapshotHandle>> {
        self.0.make_file().await.map_err(io::Error::other)?;
        StateMachine(self.0.clone()).get_current_snapshot().await.map(|made| made.expect("just made"))
    }
}

#[test]
fn passes_the_storage_suite_of_openraft() {
    use openraft::AsyncRuntime;
    crate::rt::Runtime::new(2)
        .block_on(Suite::<TypeConfig, _, _, _, ()>::test_all(OnSimulatedDisk))
        .expect("the suite passes");
}
