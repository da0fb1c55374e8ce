//! Rebuilding the state file: what is free goes back to the disk, nothing else changes, and nobody waits.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use ringfence_disk::{Disk, Fault, Open, SimDisk};
use ringfence_store::{Progress, STATE_FILE, Store, StoreError};
use ringfence_types::{
    Command, DeleteRange, KeyRange, LeaseId, Put, PutLease, PutValue, RangeQuery, RangeReply, Revision,
};

use crate::support::{apply, bytes, entry, next_index, open};

fn put(key: &str, value: &str) -> Command {
    Command::Put(Put {
        key: bytes(key),
        value: PutValue::Set(bytes(value)),
        lease: PutLease::Set(LeaseId(0)),
        prev_kv: false,
    })
}

fn delete(prefix: &str) -> Command {
    Command::DeleteRange(DeleteRange { range: KeyRange::prefix(bytes(prefix)), prev_kv: false })
}

fn everything(store: &Store) -> RangeReply {
    store.view().range(&RangeQuery::new(KeyRange::all())).expect("readable")
}

fn compact_all(store: &Store) {
    let revision = store.view().revision();
    apply(store, &Command::Compact { revision }).expect("applied");
    while store.checkpoint().expect("the disk works").is_some() {}
}

fn file_bytes(disk: &SimDisk) -> u64 {
    disk.open(STATE_FILE, Open::Existing).expect("there").len().expect("a length")
}

/// A store whose file is mostly free: of many keys few are left.
fn hollow(disk: &SimDisk) -> Store {
    let store = open(disk).expect("an empty disk");
    for key in 0..1_000 {
        let keeper = if key % 50 == 0 { "kept" } else { "gone" };
        apply(&store, &put(&format!("{keeper}-{key:04}"), &"x".repeat(1_000))).expect("applied");
    }
    store.checkpoint().expect("the disk works");
    apply(&store, &delete("gone")).expect("applied");
    compact_all(&store);
    store
}

fn ignore(_: Progress) {}

#[test]
fn a_hollow_file_is_due_and_shrinks_and_all_else_stays() {
    let disk = SimDisk::new(1);
    let store = hollow(&disk);
    assert!(store.is_rebuild_due().expect("the disk works"));
    let (before, hash, kept) = (file_bytes(&disk), store.view().hash(), everything(&store));
    let old_view = store.view();
    assert_eq!(kept.count, 20);
    let rebuilt = store.rebuild(&mut ignore).expect("the disk works").expect("nothing came between");
    assert!(
        rebuilt.disk_bytes_before <= before && rebuilt.disk_bytes_after <= file_bytes(&disk),
        "{rebuilt:?}"
    );
    assert!(file_bytes(&disk) < before / 4, "{} of {before}", file_bytes(&disk));
    assert_eq!((store.view().hash(), everything(&store)), (hash, kept.clone()));
    assert_eq!(old_view.range(&RangeQuery::new(KeyRange::all())).expect("still readable"), kept);
    let stats = store.stats().expect("stats");
    let given_back = rebuilt.disk_bytes_before - rebuilt.disk_bytes_after;
    assert_eq!((stats.rebuilds, stats.bytes_given_back), (1, given_back));
    assert!(!store.is_rebuild_due().expect("the disk works"));

    drop(old_view);
    store.tidy();
    apply(&store, &put("new", "row")).expect("applied");
    store.checkpoint().expect("the disk works");
    let hash = store.view().hash();
    drop(store);
    let store = open(&disk).expect("whole");
    assert_eq!((store.view().hash(), everything(&store).count), (hash, 21));
    store.write_snapshot("snapshot").expect("the copy agrees with the running hash");
}

#[test]
fn what_happens_meanwhile_is_taken_over() {
    let disk = SimDisk::new(3);
    let store = hollow(&disk);
    let mut steps = 0;
    store
        .rebuild(&mut |_| {
            if steps < 3 {
                apply(&store, &put(&format!("kept-{steps}00"), "changed")).expect("applied");
                apply(&store, &delete("kept-0050")).expect("applied");
                apply(&store, &put("fresh", &steps.to_string())).expect("applied");
                // Compaction is agreed on at once and carried out later: the copy knows the rows that it removes.
                let revision = store.view().revision();
                apply(&store, &Command::Compact { revision }).expect("applied");
                store.checkpoint().expect("the disk works");
                assert!(!store.is_checkpoint_due(), "compaction waits for the rebuild");
            }
            steps += 1;
            apply(&store, &put("in the head alone", &steps.to_string())).expect("applied");
        })
        .expect("the disk works")
        .expect("nothing came between");
    assert!(steps > 0);
    assert!(store.is_checkpoint_due(), "compaction goes on");
    let (hash, all) = (store.view().hash(), everything(&store));
    assert!(all.kvs.iter().any(|kv| kv.key == bytes("in the head alone")));
    compact_all(&store);
    assert_eq!(everything(&store), all);
    store.write_snapshot("snapshot").expect("the copy agrees with the running hash");
    // Nothing of the old versions has survived: a key is written again and again, and one version of each is left.
    let summary = ringfence_store::snapshot_file::inspect(&disk, "snapshot").expect("whole");
    assert_eq!(summary.versions, summary.keys);
    assert_ne!(hash, ringfence_store::StateHash(0));
}

#[test]
fn a_snapshot_installed_meanwhile_wins() {
    let (disk, from) = (SimDisk::new(4), SimDisk::new(5));
    let other = hollow(&from);
    for number in 0..2_000 {
        apply(&other, &put("other", &number.to_string())).expect("applied");
    }
    other.write_snapshot("snapshot").expect("the disk works");
    crate::support::copy_file(&from, "snapshot", &disk);
    let store = hollow(&disk);
    let rebuilt = store.rebuild(&mut |_| drop(crate::support::install(&store, "snapshot").expect("whole")));
    assert!(rebuilt.expect("the disk works").is_none());
    assert_eq!(store.view().hash(), other.view().hash());
    assert!(disk.list().expect("listed").iter().all(|name| !name.ends_with(".unfinished")));
    assert!(store.rebuild(&mut ignore).expect("the disk works").is_some(), "the next one is not hindered");
    assert_eq!(store.view().hash(), other.view().hash());
}

#[test]
fn a_full_disk_refuses_a_rebuild_and_harms_nothing() {
    let disk = SimDisk::new(6);
    let store = hollow(&disk);
    let hash = store.view().hash();
    for spare in [0, 30_000, 60_000] {
        disk.inject(Fault::Full { bytes: file_bytes(&disk) + spare });
        let error = store.rebuild(&mut ignore).expect_err("there is no room");
        assert!(
            matches!(&error, StoreError::Io(error) if error.kind() == std::io::ErrorKind::StorageFull),
            "{error}"
        );
        assert!(!store.has_failed());
        assert!(disk.list().expect("listed").iter().all(|name| !name.ends_with(".unfinished")));
        apply(&store, &put("kept-0000", "more")).expect("the old file is in force");
    }
    assert_ne!(store.view().hash(), hash);
}

#[test]
fn a_value_that_rotted_stops_the_rebuild() {
    let disk = SimDisk::new(7);
    let store = open(&disk).expect("an empty disk");
    apply(&store, &put("key", "a value that is found again")).expect("applied");
    store.checkpoint().expect("the disk works");
    let file = disk.open(STATE_FILE, Open::Existing).expect("there");
    let mut content = vec![0; usize::try_from(file.len().expect("a length")).expect("small")];
    file.read_exact_at(&mut content, 0).expect("whole");
    drop(store);
    let needle = b"a value that is found again";
    for place in (0..content.len() - needle.len()).filter(|place| content[*place..].starts_with(needle)) {
        disk.corrupt(STATE_FILE, place as u64, 1);
    }
    let store = open(&disk).expect("opening reads no values");
    let error = store.rebuild(&mut ignore).expect_err("it is not what was written");
    assert!(matches!(error, StoreError::Corrupt(_)), "{error}");
    assert!(disk.list().expect("listed").iter().all(|name| !name.ends_with(".unfinished")));
}

#[test]
fn views_are_whole_while_the_file_is_rebuilt_again_and_again() {
    let store = open(&SimDisk::new(8)).expect("an empty disk");
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..4_000_u32 {
                while store.is_full() {
                    thread::yield_now();
                }
                let key = format!("{}-{:02}", number % 2, number / 2 % 40);
                let mut batch = vec![entry(next_index(&store), &put(&key, &number.to_string()))];
                if number % 100 == 99 {
                    let revision = Revision(i64::from(number) - 50);
                    batch.push(entry(next_index(&store) + 1, &Command::Compact { revision }));
                }
                let outcomes = store.apply(&batch).expect("the disk works");
                assert!(outcomes.iter().all(Result::is_ok));
            }
            done.store(true, Ordering::Release);
        });
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                store.checkpoint().expect("the disk works");
            }
        });
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                store.rebuild(&mut ignore).expect("the disk works").expect("nothing came between");
            }
        });
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                let view = store.view();
                let reply = view.range(&RangeQuery::new(KeyRange::all())).expect("readable");
                assert_eq!(view.range(&RangeQuery::new(KeyRange::all())).expect("readable"), reply);
                thread::yield_now();
            }
        });
    });
    assert!(store.stats().expect("stats").rebuilds > 0);
    compact_all(&store);
    store.write_snapshot("snapshot").expect("the copy agrees with the running hash");
}
