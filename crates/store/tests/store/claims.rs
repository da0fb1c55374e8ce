//! What a store says of its file after a restart must be on disk, and not merely in the memory of a machine that has not
//! lost its power yet: the log is dropped up to `checkpointed()`, so a power cut after that leaves nothing to go back to.
//!
//! Each test ends a process in the middle of writing, starts it again on the same machine, asks how far the file is, and
//! only then cuts the power.

use ringfence_disk::{Fault, SimDisk};
use ringfence_store::{Entry, Store, StoreError};
use ringfence_types::{Command, LeaseId, Put, PutLease, PutValue};

use crate::support::{bytes, copy_file, entry, log_id, next_index, open};

/// A log that overwrites a few keys again and again.
fn log(len: u64) -> Vec<Entry> {
    let put = |index: u64| Put {
        key: bytes(&format!("key-{}", index % 7)),
        value: PutValue::Set(bytes(&format!("value-{index}"))),
        lease: PutLease::Set(LeaseId(0)),
        prev_kv: false,
    };
    (0..len).map(|index| entry(index, &Command::Put(put(index)))).collect()
}

/// Applies the log, with a checkpoint after every third entry.
fn drive(store: &Store, log: &[Entry]) -> Result<(), StoreError> {
    let first = usize::try_from(next_index(store)).expect("a small number");
    for batch in log[first..].chunks(3) {
        store.apply(batch)?;
        store.checkpoint()?;
    }
    Ok(())
}

/// The ways in which a process ends at a step: killed there, or by a failure that it stops for.
fn ends(step: u64) -> [Fault; 3] {
    [Fault::CrashAtStep(step), Fault::FailWrite(step), Fault::FailSync(step)]
}

/// Restarts the store on a machine that stayed up, and then on one that lost its power: the second must know of all that
/// the first one claimed. `next` is what the first one does before the power fails.
fn restart_and_cut_power(disk: &SimDisk, told: &str, next: impl FnOnce(&Store)) -> Store {
    disk.kill();
    let store = open(disk).unwrap_or_else(|error| panic!("{told}: after the restart: {error}"));
    next(&store);
    let claimed = store.checkpointed().log_id;
    // Dropped only after the power is gone, so that nothing is tidied up on the way out.
    disk.crash();
    drop(store);
    let store = open(disk).unwrap_or_else(|error| panic!("{told}: after the power cut: {error}"));
    let kept = store.checkpointed().log_id;
    assert!(kept >= claimed, "{told}: the log may be gone up to {claimed:?}, and the file is at {kept:?}");
    store
}

/// The state is the one that the log makes, to the end.
fn check(store: &Store, log: &[Entry], told: &str) {
    drive(store, log).unwrap_or_else(|error| panic!("{told}: going on: {error}"));
    let expected = open(&SimDisk::new(0)).expect("an empty disk");
    expected.apply(log).expect("the disk works");
    assert_eq!(store.view().hash(), expected.view().hash(), "{told}");
    assert_eq!(store.write_snapshot("check").expect("readable").hash, expected.view().hash(), "{told}");
}

#[test]
fn a_checkpoint_found_after_a_restart_survives_a_power_cut() {
    let log = log(12);
    for seed in 0..2 {
        let whole = SimDisk::new(seed);
        drive(&open(&whole).expect("an empty disk"), &log).expect("no fault");
        for step in 1..=whole.steps() {
            for end in ends(step) {
                for goes_on in [false, true] {
                    let disk = SimDisk::new(seed * 1_000_003 + step);
                    disk.inject(end);
                    // Where it ends is what is tried: before, while and after the file is made.
                    let before = open(&disk).map(|store| (drive(&store, &log), store));
                    let told = format!("seed {seed}, {end:?}, goes on: {goes_on}");
                    let store = restart_and_cut_power(&disk, &told, |store| {
                        let applied = usize::try_from(next_index(store)).expect("a small number");
                        if goes_on && applied + 3 <= log.len() {
                            drive(store, &log[..applied + 3]).expect("no fault any more");
                        }
                    });
                    drop(before);
                    check(&store, &log, &told);
                }
            }
        }
    }
}

#[test]
fn a_snapshot_found_installed_after_a_restart_survives_a_power_cut() {
    let log = log(30);
    let ahead = SimDisk::new(90);
    let store = open(&ahead).expect("an empty disk");
    store.apply(&log[..20]).expect("the disk works");
    store.write_snapshot("snapshot").expect("the disk works");
    let prepared = SimDisk::new(91);
    let store = open(&prepared).expect("an empty disk");
    store.apply(&log[..5]).expect("the disk works");
    store.checkpoint().expect("the disk works");
    drop(store);
    copy_file(&ahead, "snapshot", &prepared);
    let mut installed = 0;
    for seed in 0..8 {
        let whole = prepared.fork(seed);
        let store = open(&whole).expect("no fault");
        let begun = whole.steps();
        crate::support::install(&store, "snapshot").expect("no fault");
        for step in 1..=whole.steps() - begun {
            for end in ends(step) {
                let disk = prepared.fork(seed * 1_000_003 + step);
                let store = open(&disk).expect("no fault yet");
                let at = disk.steps();
                disk.inject(match end {
                    Fault::CrashAtStep(step) => Fault::CrashAtStep(at + step),
                    Fault::FailWrite(step) => Fault::FailWrite(at + step),
                    _ => Fault::FailSync(at + step),
                });
                drop(crate::support::install(&store, "snapshot"));
                let told = format!("seed {seed}, {end:?}");
                let after = restart_and_cut_power(&disk, &told, |_| ());
                drop(store);
                installed += u64::from(after.checkpointed().log_id == Some(log_id(19)));
                check(&after, &log, &told);
            }
        }
    }
    assert!(installed > 0, "ends after the swap were tried");
}
