//! Power cuts at every step of the disk: after each of them the file holds the state at one checkpoint, replaying the log
//! from there gives the very state that was lost, and installing a snapshot, or a rebuilt file, has happened whole or not at
//! all.

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use ringfence_disk::{Disk, Fault, SimDisk};
use ringfence_store::{Entry, StateHash, Store, StoreError, snapshot_file};
use ringfence_types::{KeyRange, RangeQuery};

use crate::support::{copy_file, entry, generate, log_id, next_index, open};

/// A log of random commands, the same for the same seed.
fn random_log(seed: u64, len: u64) -> Vec<Entry> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut runner =
        TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    (0..len)
        .map(|index| entry(index, &generate::command().new_tree(&mut runner).expect("a command").current()))
        .collect()
}

/// The hash of the state after each entry, by its index; and at the front that of the empty store.
fn hashes(log: &[Entry]) -> Vec<StateHash> {
    let store = open(&SimDisk::new(0)).expect("an empty disk");
    let mut hashes = vec![store.view().hash()];
    for entry in log {
        store.apply(std::slice::from_ref(entry)).expect("the disk works");
        hashes.push(store.view().hash());
    }
    hashes
}

fn next(store: &Store) -> usize {
    usize::try_from(next_index(store)).expect("a small number")
}

/// Applies the log in batches of three, with a checkpoint after every second batch; stops where the disk does.
fn drive(store: &Store, log: &[Entry]) -> Result<(), StoreError> {
    let first = next(store);
    for (place, batch) in log[first..].chunks(3).enumerate() {
        store.apply(batch)?;
        if place % 2 == 1 {
            store.checkpoint()?;
        }
    }
    Ok(())
}

/// Everything that the store says about itself and its keys holds together, and is what the log made.
fn check(store: &Store, hashes: &[StateHash]) {
    let view = store.view();
    assert_eq!(view.hash(), hashes[next(store)], "the state is that after entry {:?}", view.applied());
    // Reads every value, each checked against its row's hash, and every row against the running sum.
    view.range(&RangeQuery::new(KeyRange::all())).expect("readable");
    let meta = store.write_snapshot("check").expect("the disk works");
    assert_eq!(meta.hash, view.hash());
}

#[test]
fn a_power_cut_at_any_step_leaves_a_checkpoint_from_which_the_log_goes_on() {
    for seed in 0..6 {
        let log = random_log(seed, 40);
        let hashes = hashes(&log);
        let whole = SimDisk::new(seed);
        drive(&open(&whole).expect("an empty disk"), &log).expect("no fault");
        let steps = whole.steps();
        assert!(steps > 100, "the history is long enough to be cut in many places");
        for cut in 1..=steps {
            let disk = SimDisk::new(seed * 1_000_003 + cut);
            disk.inject(Fault::CrashAtStep(cut));
            let mut durable = None;
            if let Ok(store) = open(&disk) {
                let end = drive(&store, &log);
                assert!(disk.is_down() || end.is_ok(), "only the power cut stops the store: {end:?}");
                durable = store.checkpointed().log_id;
            }
            disk.crash();
            let store = open(&disk).unwrap_or_else(|error| panic!("seed {seed} cut {cut}: {error}"));
            assert!(
                store.checkpointed().log_id >= durable,
                "seed {seed} cut {cut}: a checkpoint that returned is kept"
            );
            assert_eq!(store.view().hash(), hashes[next(&store)], "seed {seed} cut {cut}");
            drive(&store, &log).expect("no fault any more");
            check(&store, &hashes);
        }
    }
}

#[test]
fn a_failed_write_or_sync_is_final_until_a_restart_and_loses_no_checkpoint() {
    for seed in 0..4 {
        let log = random_log(100 + seed, 40);
        let hashes = hashes(&log);
        let whole = SimDisk::new(seed);
        drive(&open(&whole).expect("an empty disk"), &log).expect("no fault");
        let steps = whole.steps();
        for step in (1..=steps).step_by(3) {
            for fault in [Fault::FailWrite(step), Fault::FailSync(step)] {
                let disk = SimDisk::new(seed * 1_000_003 + step);
                disk.inject(fault);
                let mut durable = None;
                if let Ok(store) = open(&disk) {
                    if drive(&store, &log).is_err() {
                        assert!(matches!(store.checkpoint(), Err(StoreError::Failed)), "{fault:?} is final");
                        let rest = &log[next(&store)..];
                        assert!(matches!(store.apply(rest), Err(StoreError::Failed)), "{fault:?} is final");
                    }
                    durable = store.checkpointed().log_id;
                }
                disk.crash();
                let store = open(&disk).unwrap_or_else(|error| panic!("seed {seed} {fault:?}: {error}"));
                assert!(store.checkpointed().log_id >= durable, "seed {seed} {fault:?}");
                drive(&store, &log).expect("no fault any more");
                check(&store, &hashes);
            }
        }
    }
}

/// A disk with a store at entry 9 and, beside it, a snapshot of the state at entry 29.
fn disk_with_snapshot(seed: u64, log: &[Entry]) -> SimDisk {
    let ahead = SimDisk::new(seed);
    let store = open(&ahead).expect("an empty disk");
    store.apply(&log[..30]).expect("the disk works");
    store.write_snapshot("snapshot").expect("the disk works");
    drop(store);
    let disk = SimDisk::new(seed + 1);
    let store = open(&disk).expect("an empty disk");
    store.apply(&log[..10]).expect("the disk works");
    store.checkpoint().expect("the disk works");
    drop(store);
    copy_file(&ahead, "snapshot", &disk);
    disk
}

#[test]
fn a_power_cut_while_a_snapshot_is_installed_leaves_the_old_state_or_the_new_one() {
    for seed in 0..4 {
        let log = random_log(200 + seed, 40);
        let hashes = hashes(&log);
        let prepared = disk_with_snapshot(seed, &log);
        let (mut old, mut new) = (0, 0);
        for cut in 1.. {
            let disk = prepared.fork(seed * 7_919 + cut);
            let store = open(&disk).expect("no fault yet");
            disk.inject(Fault::CrashAtStep(disk.steps() + cut));
            let installed = crate::support::install(&store, "snapshot");
            let finished = installed.is_ok();
            if finished && !disk.is_down() {
                drop(store);
                assert!(old > 0 && new > 0, "cuts before and after the swap were tried");
                break;
            }
            disk.crash();
            drop(store);
            let store = open(&disk).unwrap_or_else(|error| panic!("seed {seed} cut {cut}: {error}"));
            match store.applied().log_id {
                at if at == Some(log_id(9)) => old += 1,
                at if at == Some(log_id(29)) => new += 1,
                at => panic!("seed {seed} cut {cut}: half a state, at {at:?}"),
            }
            assert!(
                !finished || store.applied().log_id == Some(log_id(29)),
                "an installation that returned is kept"
            );
            check(&store, &hashes);
            drive(&store, &log).expect("no fault any more");
            check(&store, &hashes);
        }
    }
}

#[test]
fn a_power_cut_while_a_snapshot_is_written_leaves_no_snapshot_or_a_whole_one() {
    let log = random_log(300, 30);
    let hashes = hashes(&log);
    let prepared = SimDisk::new(300);
    drive(&open(&prepared).expect("an empty disk"), &log).expect("no fault");
    let mut whole = 0;
    for cut in 1.. {
        let disk = prepared.fork(cut);
        let store = open(&disk).expect("no fault yet");
        disk.inject(Fault::CrashAtStep(disk.steps() + cut));
        let written = store.write_snapshot("snapshot").is_ok();
        if written && !disk.is_down() {
            assert!(cut > 10, "the writing took many steps");
            break;
        }
        disk.crash();
        drop(store);
        match snapshot_file::inspect(&disk, "snapshot") {
            Ok(summary) => {
                assert_eq!(&summary.hash, hashes.last().expect("a log"));
                whole += 1;
            }
            Err(StoreError::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => {
                assert!(!written, "a snapshot that was reported is there");
            }
            Err(error) => panic!("cut {cut}: {error}"),
        }
        let store = open(&disk).expect("the state is untouched");
        assert!(
            disk.list().expect("listed").iter().all(|name| !name.ends_with(".unfinished")),
            "cleared away"
        );
        drive(&store, &log).expect("no fault any more");
        check(&store, &hashes);
    }
    assert!(whole > 0, "a cut after the renaming was tried");
}

/// Rebuilds the file while the log goes on: entries and checkpoints fall between its steps.
fn rebuild_beside(store: &Store, log: &[Entry]) -> Result<(), StoreError> {
    let mut driven = Ok(());
    let rebuilt = store.rebuild(&mut |_| {
        let first = next(store);
        driven = driven_further(store, &log[first..(first + 6).min(log.len())]);
    });
    driven?;
    rebuilt.map(|rebuilt| assert!(rebuilt.is_some(), "no snapshot came between"))
}

fn driven_further(store: &Store, log: &[Entry]) -> Result<(), StoreError> {
    for batch in log.chunks(3) {
        store.apply(batch)?;
        store.checkpoint()?;
    }
    Ok(())
}

#[test]
fn a_power_cut_or_a_fault_while_the_file_is_rebuilt_loses_no_checkpoint() {
    for seed in 0..3 {
        let log = random_log(400 + seed, 40);
        let hashes = hashes(&log);
        let prepared = SimDisk::new(seed);
        drive(&open(&prepared).expect("an empty disk"), &log[..30]).expect("no fault");
        let mut finished = false;
        for step in 1.. {
            if finished {
                assert!(step > 20, "the rebuild took many steps");
                break;
            }
            for fault in [Fault::CrashAtStep as fn(u64) -> Fault, Fault::FailWrite, Fault::FailSync] {
                let disk = prepared.fork(seed * 7_919 + step);
                let store = open(&disk).expect("no fault yet");
                disk.inject(fault(disk.steps() + step));
                let end = rebuild_beside(&store, &log);
                finished = end.is_ok() && !disk.is_down();
                let durable = store.checkpointed().log_id;
                if end.is_err() && !disk.is_down() && !store.has_failed() {
                    // A fault of the new file: the old one is in force, and the store goes on.
                    drive(&store, &log).expect("no fault any more");
                    check(&store, &hashes);
                }
                disk.crash();
                drop(store);
                let store = open(&disk).unwrap_or_else(|error| panic!("seed {seed} step {step}: {error}"));
                assert!(store.checkpointed().log_id >= durable, "seed {seed} step {step}");
                assert_eq!(store.view().hash(), hashes[next(&store)], "seed {seed} step {step}");
                let names = disk.list().expect("listed");
                assert!(names.iter().all(|name| !name.ends_with(".unfinished")), "cleared away");
                drive(&store, &log).expect("no fault any more");
                check(&store, &hashes);
            }
        }
    }
}
