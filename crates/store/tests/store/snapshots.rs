//! Snapshots: the whole way round, beside writers and readers, and into a new cluster.

use ringfence_disk::{Disk, SimDisk};
use ringfence_store::{Position, STATE_FILE, Store, StoreError, snapshot_file};
use ringfence_types::{
    Command, DeleteRange, KeyRange, LeaseId, NodeId, Put, PutLease, PutValue, RangeQuery, Revision,
};

use crate::support::{apply, bytes, open};

fn put(key: &str, value: &str) -> Command {
    Command::Put(Put {
        key: bytes(key),
        value: PutValue::Set(bytes(value)),
        lease: PutLease::Set(LeaseId(0)),
        prev_kv: false,
    })
}

fn delete(key: &str) -> Command {
    Command::DeleteRange(DeleteRange { range: KeyRange::single(bytes(key)), prev_kv: false })
}

fn everything(store: &Store, revision: Option<Revision>) -> ringfence_types::RangeReply {
    store.view().range(&RangeQuery { revision, ..RangeQuery::new(KeyRange::all()) }).expect("readable")
}

/// A store with rows in the base and in the head, tombstones, a compaction and a member.
fn lived_in(disk: &SimDisk) -> Store {
    let store = open(disk).expect("an empty disk");
    let member = Command::PublishMember {
        id: NodeId(2),
        name: "two".into(),
        peer_urls: vec!["http://two:1".into()],
        client_urls: Vec::new(),
    };
    apply(&store, &member).expect("applied");
    for round in 0..3 {
        for key in 0..50 {
            apply(&store, &put(&format!("key-{key:02}"), &format!("{round}"))).expect("applied");
        }
        apply(&store, &delete(&format!("key-{round:02}"))).expect("applied");
        if round == 0 {
            apply(&store, &Command::Compact { revision: Revision(20) }).expect("applied");
            store.checkpoint().expect("the disk works");
        }
    }
    store
}

#[test]
fn a_snapshot_carries_the_whole_state_from_one_store_to_another() {
    let (from, to) = (SimDisk::new(1), SimDisk::new(2));
    let source = lived_in(&from);
    let meta = source.write_snapshot("snapshot").expect("the disk works");
    assert_eq!((meta.position.clone(), meta.revision), (source.applied(), source.view().revision()));
    let summary = snapshot_file::inspect(&from, "snapshot").expect("just written");
    assert_eq!((summary.keys, summary.hash, summary.bytes), (49, source.view().hash(), meta.bytes));
    assert_eq!((summary.position, summary.compacted), (source.applied(), Revision(20)));

    let target = open(&to).expect("an empty disk");
    apply(&target, &put("old", "state")).expect("applied");
    let before = target.view();
    crate::support::copy_file(&from, "snapshot", &to);
    assert_eq!(crate::support::install(&target, "snapshot").expect("just written"), source.applied());
    assert!(!to.list().expect("listed").contains(&"snapshot".to_owned()), "the file has become the state");
    assert_eq!(
        before.range(&RangeQuery::new(KeyRange::all())).expect("still readable").kvs[0].key,
        bytes("old")
    );
    for revision in [None, Some(Revision(20)), Some(Revision(60))] {
        assert_eq!(everything(&target, revision), everything(&source, revision));
    }
    assert_eq!(target.view().members(), source.view().members());
    assert_eq!((target.applied(), target.checkpointed()), (source.applied(), source.applied()));
    // Both go on alike.
    for store in [&source, &target] {
        apply(store, &put("key-07", "more")).expect("applied");
        store.checkpoint().expect("the disk works");
    }
    assert_eq!(target.view().hash(), source.view().hash());
    assert_eq!(
        target.view().hash_kv(Revision(0)).expect("readable"),
        source.view().hash_kv(Revision(0)).expect("readable")
    );
}

#[test]
fn a_restored_cluster_keeps_its_keys_and_never_gives_a_revision_twice() {
    let (from, to) = (SimDisk::new(1), SimDisk::new(2));
    let old = lived_in(&from);
    old.write_snapshot("snapshot").expect("the disk works");
    let summary = snapshot_file::restore(&from, "snapshot", &to).expect("whole");
    let revision = Revision(old.view().revision().0 + snapshot_file::RESTORED_REVISION_STEP);
    assert_eq!((summary.revision, summary.compacted), (revision, revision));
    assert_eq!((summary.keys, summary.versions), (49, 49));

    let new = open(&to).expect("a state file");
    assert_eq!(new.applied(), Position::default());
    assert_eq!(everything(&new, None).kvs, everything(&old, None).kvs);
    assert!(new.view().members().is_empty());
    assert!(
        new.view()
            .range(&RangeQuery { revision: Some(Revision(60)), ..RangeQuery::new(KeyRange::all()) })
            .is_err()
    );
    assert_eq!(apply(&new, &put("key-07", "more")).expect("applied").revision, revision.next());
    assert_eq!(everything(&new, None).kvs.iter().map(|kv| kv.version).max(), Some(4));
    assert!(new.checkpoint().expect("the disk works").is_some());
    assert!(!new.is_checkpoint_due(), "nothing is left to compact");

    let again = snapshot_file::restore(&from, "snapshot", &to).expect_err("there is a state already");
    assert!(matches!(again, StoreError::Io(error) if error.kind() == std::io::ErrorKind::AlreadyExists));
    assert!(to.list().expect("listed") == [STATE_FILE]);
}

#[test]
fn looking_at_a_state_file_in_use_shows_its_last_checkpoint_and_changes_nothing() {
    let disk = SimDisk::new(1);
    let store = lived_in(&disk);
    store.checkpoint().expect("the disk works");
    let (hash, steps) = (store.view().hash(), disk.steps());
    apply(&store, &put("later", "")).expect("applied");
    let dead = disk.fork(9);
    dead.crash();
    assert_eq!(snapshot_file::inspect(&dead, STATE_FILE).expect("whole").hash, hash);
    assert!(dead.steps() > steps);
    assert_eq!(open(&dead).expect("whole").view().hash(), hash);
}
