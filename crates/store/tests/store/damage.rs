//! Files that are not what the store wrote: cut short, changed, empty, or of another format. Each is named, none is taken
//! for a state, and none ends the process in the middle of a read.

use ringfence_disk::{Disk, Open, SimDisk};
use ringfence_store::{ReadError, STATE_FILE, Store, StoreError, snapshot_file};
use ringfence_types::{Command, KeyRange, LeaseId, Put, PutLease, PutValue, RangeQuery};

use crate::support::{apply, bytes, open};

/// The size of redb's smallest pages.
const PAGE_BYTES: u64 = 4_096;

fn put(key: &str, value: &str) -> Command {
    Command::Put(Put {
        key: bytes(key),
        value: PutValue::Set(bytes(value)),
        lease: PutLease::Set(LeaseId(0)),
        prev_kv: false,
    })
}

/// A disk with a state of some hundred pages.
fn filled() -> SimDisk {
    let disk = SimDisk::new(5);
    let store = open(&disk).expect("an empty disk");
    for round in 0..4 {
        for key in 0..300 {
            apply(&store, &put(&format!("key-{key:04}"), &format!("{round}-{key}-").repeat(40)))
                .expect("applied");
        }
        store.checkpoint().expect("the disk works");
    }
    drop(store);
    disk
}

/// Reads everything that there is.
fn read_all(store: &Store) -> Result<(), StoreError> {
    match store.view().range(&RangeQuery::new(KeyRange::all())) {
        Ok(reply) => {
            assert_eq!(reply.count, 300);
            Ok(())
        }
        Err(ReadError::Store(error)) => Err(error),
        Err(ReadError::Rejected(rejection)) => panic!("no revision was asked for: {rejection}"),
    }
}

fn is_corrupt(error: &StoreError) -> bool {
    matches!(error, StoreError::Corrupt(_))
}

#[test]
fn a_file_cut_short_anywhere_is_called_corrupt() {
    let disk = filled();
    let len = disk.open(STATE_FILE, Open::Existing).expect("there").len().expect("a length");
    let mut cuts: Vec<u64> = (0..len).step_by(4_096 * 7 + 13).collect();
    cuts.extend([0, 1, 63, 64, 320, 511, 512, 4_095, 4_096, len - 4_096, len - 1]);
    for cut in cuts {
        let disk = disk.fork(cut);
        disk.open(STATE_FILE, Open::Existing).expect("there").set_len(cut).expect("cut");
        let error = open(&disk).map(drop).expect_err("a cut file does not open");
        assert!(is_corrupt(&error), "cut at {cut}: {error}");
        let error = snapshot_file::inspect(&disk, STATE_FILE).expect_err("nor is it a snapshot");
        assert!(is_corrupt(&error), "cut at {cut}: {error}");
    }
}

#[test]
fn a_flipped_bit_in_a_value_is_found_by_whoever_reads_it() {
    let disk = filled();
    let file = disk.open(STATE_FILE, Open::Existing).expect("there");
    let mut content = vec![0; usize::try_from(file.len().expect("a length")).expect("small")];
    file.read_exact_at(&mut content, 0).expect("whole");
    let needle = b"3-17-3-17-3-17-";
    let places: Vec<usize> =
        (0..content.len() - needle.len()).filter(|place| content[*place..].starts_with(needle)).collect();
    assert!(!places.is_empty(), "the newest value of a key lies in the file");
    // Freed pages keep copies of the value, so not every place matters; the one that is in use must.
    let mut found = 0;
    for place in places {
        let disk = disk.fork(1);
        disk.corrupt(STATE_FILE, place as u64 + 3, 0x10);
        let store = open(&disk).expect("opening reads no values");
        if let Err(error) = read_all(&store) {
            assert!(is_corrupt(&error), "{error}");
            assert!(error.to_string().contains("not what was written"), "{error}");
            assert!(is_corrupt(&store.write_snapshot("copy").expect_err("nor is it handed on")));
            assert!(!disk.list().expect("listed").iter().any(|name| name.starts_with("copy")));
            assert!(is_corrupt(&snapshot_file::inspect(&disk, STATE_FILE).expect_err("nor taken for good")));
            found += 1;
        }
    }
    assert!(found > 0, "the value that is in use was among them");
}

#[test]
fn a_flipped_bit_in_a_snapshot_keeps_it_from_being_installed_and_changes_nothing() {
    let disk = filled();
    let store = open(&disk).expect("whole");
    store.write_snapshot("snapshot").expect("the disk works");
    let (hash, applied) = (store.view().hash(), store.applied());
    let len = disk.open("snapshot", Open::Existing).expect("there").len().expect("a length");
    let (mut refused, mut harmless) = (0, 0);
    for place in (0..len).step_by(1_531) {
        let fork = disk.fork(place);
        let store = open(&fork).expect("whole");
        fork.corrupt("snapshot", place, 0x04);
        match crate::support::install(&store, "snapshot") {
            Err(StoreError::Corrupt(_) | StoreError::Format { .. }) => refused += 1,
            // The bit lies in a page, or a part of one, that nothing uses.
            Ok(_) => harmless += 1,
            Err(error) => panic!("byte {place}: {error}"),
        }
        assert_eq!(store.view().hash(), hash, "byte {place}");
        assert_eq!(store.applied(), applied);
        read_all(&store).expect("the state is whole");
    }
    assert!(refused > harmless, "most of a snapshot is in use: {refused} refused, {harmless} harmless");
}

#[test]
fn an_empty_file_is_no_new_store() {
    let disk = SimDisk::new(1);
    disk.open(STATE_FILE, Open::New).expect("new");
    let error = open(&disk).map(drop).expect_err("an empty file was never written");
    assert!(is_corrupt(&error) && error.to_string().contains("empty"), "{error}");
}

#[test]
fn a_file_of_something_else_is_called_corrupt() {
    let disk = SimDisk::new(1);
    let file = disk.open(STATE_FILE, Open::New).expect("new");
    file.write_all_at(&[0x5a; 20_000], 0).expect("written");
    assert!(is_corrupt(&open(&disk).map(drop).expect_err("not a state file")));
}

#[test]
fn a_flipped_bit_anywhere_in_the_state_file_never_ends_a_read_in_a_panic() {
    let disk = filled();
    let len = disk.open(STATE_FILE, Open::Existing).expect("there").len().expect("a length");
    let (mut corrupt, mut harmless) = (0, 0);
    for place in (0..len).step_by(3_571) {
        let fork = disk.fork(place);
        fork.corrupt(STATE_FILE, place, 0x40);
        let outcome = open(&fork).and_then(|store| {
            read_all(&store)?;
            store.apply(&[crate::support::entry(
                crate::support::next_index(&store),
                &put("key-0007", "new"),
            )])?;
            store.checkpoint()?;
            read_all(&store)
        });
        match outcome {
            Ok(()) => harmless += 1,
            Err(StoreError::Corrupt(_) | StoreError::Format { .. } | StoreError::Failed) => corrupt += 1,
            Err(error) => panic!("byte {place}: {error}"),
        }
    }
    assert!(corrupt > 0 && harmless > 0, "{corrupt} corrupt, {harmless} harmless");
}

#[test]
fn a_flipped_bit_in_the_front_of_a_page_never_ends_a_read_in_a_panic() {
    let disk = filled();
    let len = disk.open(STATE_FILE, Open::Existing).expect("there").len().expect("a length");
    // The front of each page says where the rest of it lies. What a read misses for it is the scrubber's to find.
    let fronts = (0..len / PAGE_BYTES)
        .flat_map(|page| (0..8).map(move |part| page * PAGE_BYTES + part * 24 + page * 7 % 24));
    let mut corrupt = 0;
    for place in fronts {
        let fork = disk.fork(place);
        fork.corrupt(STATE_FILE, place, 0x40);
        let all = RangeQuery::new(KeyRange::all());
        match open(&fork).map_err(ReadError::from).and_then(|store| store.view().range(&all)) {
            Ok(_) => {}
            Err(ReadError::Store(error)) if is_corrupt(&error) => corrupt += 1,
            Err(error) => panic!("byte {place}: {error}"),
        }
    }
    assert!(corrupt > 0, "no flip was noticed at all");
}
