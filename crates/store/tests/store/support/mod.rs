//! What the tests of the store share: a naive model of etcd's data model, commands to try on both, and a store to drive.

pub mod generate;
pub mod model;
pub mod rights;

use std::sync::Arc;

use bytes::Bytes;
use ringfence_disk::{Disk, Open, SimDisk};
use ringfence_proto::command;
use ringfence_store::{Entry, Options, Payload, Position, Store, StoreError};
use ringfence_types::{Command, Index, LogId, NodeId, Outcome, Term};

/// A store with small limits.
pub fn open(disk: &SimDisk) -> Result<Store, StoreError> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let options = Options {
        cache_bytes: 1 << 20,
        head_bytes_soft: 64 << 10,
        head_bytes_max: 1 << 20,
        rebuild_free_bytes_min: 64 << 10,
        ..Options::default()
    };
    Store::open(disk, options)
}

/// The entry at `index` that carries `command`.
pub fn entry(index: u64, command: &Command) -> Entry {
    Entry { log_id: log_id(index), payload: Payload::Command(command::encode(command)) }
}

/// The log id at `index`, of a leader that never changed.
pub fn log_id(index: u64) -> LogId {
    LogId { term: Term(3), node: NodeId(1), index: Index(index) }
}

/// The index of the next entry.
pub fn next_index(store: &Store) -> u64 {
    store.applied().log_id.map_or(0, |log_id| log_id.index.0 + 1)
}

/// Applies one command as a batch of its own.
pub fn apply(store: &Store, command: &Command) -> Outcome {
    let mut outcomes = store.apply(&[entry(next_index(store), command)]).expect("the disk works");
    assert_eq!(outcomes.len(), 1, "one outcome an entry");
    outcomes.remove(0)
}

/// Shared bytes of a text.
pub fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// Puts a snapshot in the place of a store's state, if it is whole.
pub fn install(store: &Store, name: &str) -> Result<Position, StoreError> {
    store.install_snapshot(&store.examine_snapshot(name)?)
}

/// The same for a state that is damaged or wrong.
pub fn replace(store: &Store, name: &str) -> Result<Position, StoreError> {
    store.replace_with(&store.examine_snapshot(name)?)
}

/// Copies a file from one disk to another, durably.
pub fn copy_file(from: &SimDisk, name: &str, to: &SimDisk) {
    let source = from.open(name, Open::Existing).expect("there");
    let mut content = vec![0; usize::try_from(source.len().expect("a length")).expect("small")];
    source.read_exact_at(&mut content, 0).expect("whole");
    let target = to.open(name, Open::New).expect("new");
    target.write_all_at(&content, 0).expect("written");
    target.sync_data().expect("synced");
    to.sync_dir().expect("synced");
}
