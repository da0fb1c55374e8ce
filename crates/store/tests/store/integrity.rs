//! How divergence and decay are found: hashes at agreed entries, and the scrub of what is there. Neither may ever complain
//! of a state that is whole, whatever housekeeping does at the same time.

use proptest::prelude::*;
use ringfence_disk::{Disk, Open, SimDisk};
use ringfence_store::{HASH_MARKS_MAX, HASH_STEP, STATE_FILE, Scrub, ScrubStep, Store, StoreError};
use ringfence_types::{Command, DeleteRange, Index, KeyRange, LeaseId, Put, PutLease, PutValue, Revision};

use crate::support::{bytes, entry, next_index, open};

fn put(key: u64, value: &str) -> Command {
    Command::Put(Put {
        key: bytes(&format!("key-{key:04}")),
        value: PutValue::Set(bytes(value)),
        lease: PutLease::Set(LeaseId(0)),
        prev_kv: false,
    })
}

/// What the entry at `index` does: some hundred keys that change, go and come back.
fn command(index: u64) -> Command {
    match index % 11 {
        10 => Command::DeleteRange(DeleteRange {
            range: KeyRange::single(bytes(&format!("key-{:04}", index % 173))),
            prev_kv: false,
        }),
        _ => put(index % 173, &format!("value {index}")),
    }
}

fn apply_through(store: &Store, last: u64, batch: usize) {
    let indexes: Vec<u64> = (next_index(store)..=last).collect();
    for batch in indexes.chunks(batch) {
        let entries: Vec<_> = batch.iter().map(|index| entry(*index, &command(*index))).collect();
        store.apply(&entries).expect("the disk works");
    }
}

/// Scrubs to the end, doing something else after each step; how often it had to begin anew.
fn scrub(store: &Store, step_bytes: u64, mut between: impl FnMut()) -> Result<u32, StoreError> {
    let mut begun_anew = 0;
    let mut scrub = Scrub::begin(&store.view());
    loop {
        match scrub.step(&store.view(), step_bytes)? {
            ScrubStep::More => between(),
            ScrubStep::Sound { .. } => return Ok(begun_anew),
            ScrubStep::Overtaken => {
                begun_anew += 1;
                scrub = Scrub::begin(&store.view());
            }
        }
    }
}

#[test]
fn marks_lie_at_the_same_entries_with_the_same_hashes_whatever_the_batches() {
    let last = HASH_STEP * 5 + 17;
    let reference = open(&SimDisk::new(0)).expect("an empty disk");
    apply_through(&reference, last, 1);
    let marks = reference.hash_marks(Index(0));
    let indexes: Vec<u64> = marks.iter().map(|mark| mark.index.0).collect();
    assert_eq!(indexes, (1..=5).map(|step| step * HASH_STEP).collect::<Vec<_>>());
    for batch in [7, 512, HASH_STEP as usize, 3_000] {
        let disk = SimDisk::new(1);
        let store = open(&disk).expect("an empty disk");
        apply_through(&store, HASH_STEP * 2 + 5, batch);
        store.checkpoint().expect("the disk works");
        drop(store);
        // What was before the restart is forgotten, and what comes after is the same.
        let store = open(&disk).expect("whole");
        apply_through(&store, last, batch);
        assert_eq!(store.hash_marks(Index(0)), marks[2..], "in batches of {batch}");
        assert_eq!(store.hash_marks(Index(HASH_STEP * 4)), marks[4..]);
    }
}

#[test]
fn marks_are_bounded_and_forgotten_with_the_state_that_they_are_of() {
    let disk = SimDisk::new(0);
    let store = open(&disk).expect("an empty disk");
    apply_through(&store, HASH_STEP * (HASH_MARKS_MAX as u64 + 3), 512);
    assert_eq!(store.hash_marks(Index(0)).len(), HASH_MARKS_MAX);
    store.write_snapshot("copy").expect("the disk works");
    crate::support::replace(&store, "copy").expect("whole");
    assert_eq!(store.hash_marks(Index(0)), []);
}

#[test]
fn a_scrub_of_a_sound_state_never_complains_while_it_is_written_checkpointed_and_compacted() {
    let store = open(&SimDisk::new(0)).expect("an empty disk");
    apply_through(&store, 4_000, 100);
    let mut round = 0;
    for step_bytes in [1, 9_000, 100_000] {
        let between = || {
            round += 1;
            if round % 3 == 0 {
                let next = next_index(&store);
                apply_through(&store, next + 40, 7);
            }
            if round % 25 == 0 {
                let compact = Command::Compact { revision: Revision(store.view().revision().0 - 150) };
                let outcome = store.apply(&[entry(next_index(&store), &compact)]);
                drop(outcome.expect("the disk works"));
            }
            if round % 5 == 0 {
                store.checkpoint().expect("the disk works");
            }
        };
        // Writers may overtake it for ever if they compact faster than it reads: here they stop.
        let mut steps = 0;
        let mut between = between;
        scrub(&store, step_bytes, || {
            steps += 1;
            if steps < 400 {
                between();
            }
        })
        .expect("nothing is wrong");
        assert!(steps > 0);
    }
}

#[test]
fn what_was_written_since_counts_neither_for_a_scrub_nor_for_the_hash_of_an_old_revision() {
    let store = open(&SimDisk::new(0)).expect("an empty disk");
    apply_through(&store, 500, 100);
    let revision = store.view().revision();
    let hash = store.view().hash_kv(revision).expect("readable").hash;
    let mut scrub = Scrub::begin(&store.view());
    for _ in 0..3 {
        assert!(matches!(scrub.step(&store.view(), 20_000), Ok(ScrubStep::More)));
        let next = next_index(&store);
        apply_through(&store, next + 100, 7);
        assert_eq!(store.view().hash_kv(revision).expect("readable").hash, hash, "in memory");
        store.checkpoint().expect("the disk works");
        assert_eq!(store.view().hash_kv(revision).expect("readable").hash, hash, "in the file");
    }
    let step = scrub.step(&store.view(), u64::MAX).expect("nothing is wrong");
    assert_eq!(step, ScrubStep::Sound { revision });
}

#[test]
fn a_scrub_of_a_state_that_was_replaced_begins_anew() {
    let store = open(&SimDisk::new(0)).expect("an empty disk");
    apply_through(&store, 1_000, 100);
    store.checkpoint().expect("the disk works");
    let mut replaced = false;
    let begun_anew = scrub(&store, 50_000, || {
        if !replaced {
            replaced = true;
            store.write_snapshot("copy").expect("the disk works");
            crate::support::replace(&store, "copy").expect("whole");
        }
    });
    assert_eq!(begun_anew.expect("nothing is wrong"), 1);
}

#[test]
fn a_rotten_store_is_whole_again_once_it_is_rebuilt_from_another() {
    let sound_disk = SimDisk::new(0);
    let sound = open(&sound_disk).expect("an empty disk");
    apply_through(&sound, 2_000, 100);
    let disk = SimDisk::new(1);
    let store = open(&disk).expect("an empty disk");
    apply_through(&store, 1_500, 100);
    store.checkpoint().expect("the disk works");
    drop(store);
    let length = disk.open(STATE_FILE, Open::Existing).expect("there").len().expect("a length");
    let (mut found, mut unopened) = (0, 0);
    sound.write_snapshot("copy").expect("the disk works");
    for place in (4_096 * 4..length).step_by(3_001) {
        let disk = disk.fork(place);
        disk.corrupt(STATE_FILE, place, 0x20);
        let Ok(store) = open(&disk) else {
            unopened += 1;
            continue;
        };
        match scrub(&store, 64 << 10, || ()) {
            // The bit lies where nothing is, or in what only housekeeping reads.
            Ok(_) => continue,
            Err(error) => assert!(matches!(error, StoreError::Corrupt(_)), "byte {place}: {error}"),
        }
        found += 1;
        crate::support::copy_file(&sound_disk, "copy", &disk);
        crate::support::replace(&store, "copy").expect("the copy is whole");
        assert_eq!(store.view().hash(), sound.view().hash(), "byte {place}");
        scrub(&store, 64 << 10, || ()).expect("nothing is wrong any more");
        apply_through(&store, 2_100, 100);
        store.checkpoint().expect("the disk works");
    }
    assert!(found > 10, "{found} found, {unopened} not opened");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_scrub_counts_every_version_once_wherever_its_steps_end(step_bytes in 1_u64..40_000, cut in 1_u64..1_000) {
        let store = open(&SimDisk::new(0)).expect("an empty disk");
        apply_through(&store, cut, 50);
        store.checkpoint().expect("the disk works");
        apply_through(&store, 1_200, 50);
        let whole = {
            let mut scrub = Scrub::begin(&store.view());
            let step = scrub.step(&store.view(), u64::MAX).expect("nothing is wrong");
            prop_assert_eq!(step, ScrubStep::Sound { revision: store.view().revision() });
            scrub.progress()
        };
        let mut scrub = Scrub::begin(&store.view());
        while let ScrubStep::More = scrub.step(&store.view(), step_bytes).expect("nothing is wrong") {}
        prop_assert_eq!(scrub.progress(), whole);
    }
}
