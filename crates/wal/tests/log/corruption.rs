//! Damage: what had been durable and is not there any more stops the log; what was never reported as durable is cut.

use std::sync::Arc;

use bytes::Bytes;
use ringfence_disk::{Disk, Fault, Open, SimDisk};
use ringfence_wal::{Entry, Log, Options, WalError};

use crate::model::{Draws, Driven, Expected};

const BLOCK: u64 = 512;

fn options() -> Options {
    Options { segment_bytes: 16 << 10, salt: 77, ..Options::default() }
}

fn open(disk: &SimDisk) -> Result<Log, WalError> {
    Log::open(Arc::new(disk.clone()), options())
}

/// A segment's name, and where in it a batch begins and ends (without padding).
type Batch = (String, u64, u64);

/// Writes a batch a round and notes where it went and what the log held after it.
fn write_batches(disk: &SimDisk, rounds: u64) -> (Vec<Batch>, Vec<Expected>) {
    let mut driven = Driven::new(open(disk).unwrap()).unwrap();
    let (mut batches, mut contents) = (Vec::new(), vec![Expected::nothing()]);
    let mut draws = Draws::new(5);
    for _ in 0..rounds {
        driven.append(&mut draws, 1000).unwrap();
        driven.flush().unwrap();
        contents.push(driven.expected());
        batches.push(last_batch(disk));
    }
    (batches, contents)
}

fn content(disk: &SimDisk, name: &str) -> Vec<u8> {
    let file = disk.open(name, Open::Existing).unwrap();
    let mut bytes = vec![0; file.len().unwrap().try_into().unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// The last batch of the newest segment, found by walking through it.
fn last_batch(disk: &SimDisk) -> Batch {
    let name =
        disk.list().unwrap().into_iter().rfind(|name| batches_in(&content(disk, name)).next().is_some());
    let name = name.expect("a batch was written");
    let (begin, end) = batches_in(&content(disk, &name)).last().unwrap();
    (name, begin, end)
}

fn batches_in(bytes: &[u8]) -> impl Iterator<Item = (u64, u64)> {
    let mut offset = BLOCK;
    std::iter::from_fn(move || {
        let header = bytes.get(offset as usize..)?.first_chunk::<56>()?;
        let length = u32::from_le_bytes(header[12..16].try_into().unwrap());
        let begin = offset;
        let end = begin + 56 + u64::from(length);
        offset = end.next_multiple_of(BLOCK);
        (&header[0..4] == b"RFB1").then_some((begin, end))
    })
}

#[test]
fn damage_in_any_batch_but_the_last_is_corruption_and_in_the_last_it_is_cut() {
    let disk = SimDisk::new(1);
    let (batches, contents) = write_batches(&disk, 40);
    assert!(batches.iter().map(|batch| &batch.0).collect::<std::collections::BTreeSet<_>>().len() > 3);
    let mut draws = Draws::new(9);
    for (at, (name, begin, end)) in batches.iter().enumerate() {
        let header = [0, 4, 8, 12, 16, 24, 32, 40, 44, 48];
        let drawn: Vec<u64> = (0..20).map(|_| draws.below(end - begin)).collect();
        for offset in header.into_iter().chain([55, end - begin - 1]).chain(drawn) {
            let damaged = disk.fork(1);
            damaged.corrupt(name, begin + offset, 1 << draws.below(8));
            let steps = damaged.steps();
            match open(&damaged) {
                Ok(log) => {
                    assert_eq!(at, batches.len() - 1, "byte {offset} of batch {at}");
                    contents[at].check(&log, "without the last batch").unwrap();
                }
                Err(WalError::Corrupt { segment, offset: found, .. }) => {
                    assert!(at < batches.len() - 1, "byte {offset} of the last batch");
                    assert_eq!((format!("{segment:016x}.log"), found), (name.clone(), *begin));
                    damaged.inject(Fault::FailWrite(steps));
                    assert!(matches!(open(&damaged), Err(WalError::Corrupt { .. })), "nothing is patched");
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[test]
fn a_cut_batch_never_comes_back() {
    let disk = SimDisk::new(1);
    let (batches, contents) = write_batches(&disk, 10);
    let (name, begin, end) = batches.last().unwrap();
    let torn = content(&disk, name);
    let last_byte = end - 1;
    disk.corrupt(name, last_byte, 1);
    let log = open(&disk).unwrap();
    contents[9].check(&log, "cut").unwrap();
    drop(log);
    // Whatever is written to the place later, even the rest of the very batch that was cut, does not complete it.
    disk.open(name, Open::Existing)
        .unwrap()
        .write_all_at(&torn[(begin + BLOCK) as usize..], begin + BLOCK)
        .unwrap();
    contents[9].check(&open(&disk).unwrap(), "cut for good").unwrap();
}

#[test]
fn a_lost_or_short_segment_is_corruption() {
    let disk = SimDisk::new(1);
    write_batches(&disk, 40);
    let names = disk.list().unwrap();
    for name in &names[..names.len() - 1] {
        let damaged = disk.fork(1);
        damaged.remove(name).unwrap();
        assert!(matches!(open(&damaged), Err(WalError::Corrupt { .. })), "{name} is lost");
    }
    let damaged = disk.fork(1);
    open(&damaged).unwrap().prepare_spare().unwrap();
    names.iter().for_each(|name| damaged.remove(name).unwrap());
    assert_eq!(damaged.list().unwrap().len(), 1);
    assert!(matches!(open(&damaged), Err(WalError::Corrupt { .. })), "all but the spare segment is lost");
    for name in &names {
        for bytes in [0, 100, BLOCK, 16 * 1024 - BLOCK, 17 * 1024] {
            let damaged = disk.fork(1);
            damaged.open(name, Open::Existing).unwrap().set_len(bytes).unwrap();
            assert!(matches!(open(&damaged), Err(WalError::Corrupt { .. })), "{name} has {bytes} bytes");
        }
        for offset in [0, 12, 20, 30, 39] {
            let damaged = disk.fork(1);
            damaged.corrupt(name, offset, 4);
            assert!(matches!(open(&damaged), Err(WalError::Corrupt { .. })), "byte {offset} of {name}");
        }
        let newer = disk.fork(1);
        newer.corrupt(name, 8, 4);
        assert!(matches!(open(&newer), Err(WalError::Format { found: 5, known: 1, .. })));
    }
}

#[test]
fn damage_after_opening_is_found_when_the_batch_is_read() {
    let disk = SimDisk::new(1);
    let (batches, _) = write_batches(&disk, 10);
    let log = Log::open(Arc::new(disk.clone()), Options { cache_bytes: 0, ..options() }).unwrap();
    let last = log.last_index().unwrap();
    let (name, _, end) = &batches[4];
    disk.corrupt(name, end - 1, 1);
    let error = log.read(log.first_index().unwrap(), last + 1, usize::MAX).unwrap_err();
    assert!(matches!(&error, WalError::Corrupt { .. }), "{error}");
}

#[test]
fn a_salted_log_is_not_taken_in_by_entries_that_look_like_batches() {
    // A log without a secret, whose raw blocks a client writes as a value into one with a secret.
    let forger = SimDisk::new(1);
    write_batches(&forger, 3);
    let forged = Bytes::from(
        content(&forger, &forger.list().unwrap()[0])[BLOCK as usize..8 * BLOCK as usize].to_vec(),
    );

    let disk = SimDisk::new(2);
    let log = Log::open(Arc::new(disk.clone()), Options { salt: 78, ..options() }).unwrap();
    // Wherever the blocks of the segment fall, one of the copies lies at a block's beginning.
    let shift = BLOCK - (56 + 5 + 5 + 8) % BLOCK;
    let data: Bytes = [&vec![0; shift as usize][..], &forged].concat().into();
    log.append(vec![Entry { index: 1, data: data.clone() }]).unwrap();
    log.flush().unwrap();
    let name = &disk.list().unwrap()[0];
    let bytes = content(&disk, name);
    let copies = (1..bytes.len() / 512).filter(|block| bytes[block * 512..].starts_with(b"RFB1")).count();
    assert!(copies >= 2, "the forged batch lies where a batch could");
    drop(log);
    disk.corrupt(name, BLOCK + 60, 1);
    let log = open(&disk).unwrap();
    assert_eq!(log.last_index(), None, "the torn batch is cut, and the forged one is not seen");
}

#[test]
fn stale_batches_of_a_recycled_segment_are_never_replayed() {
    let disk = SimDisk::new(3);
    let mut driven = Driven::new(open(&disk).unwrap()).unwrap();
    let mut draws = Draws::new(3);
    for round in 0..60 {
        driven.append(&mut draws, 1000).unwrap();
        driven.flush().unwrap();
        let last = driven.log.last_index().unwrap();
        driven.purge_through(last - 1, round).unwrap();
        driven.flush().unwrap();
        if driven.log.wants_spare() {
            driven.log.prepare_spare().unwrap();
        }
        let stats = driven.log.stats();
        assert!(stats.bytes <= 6 * (16 << 10), "segments are recycled: {stats:?}");
        // The spare segment is full of batches of its earlier life.
        let reopened = disk.fork(round);
        reopened.crash();
        driven.expected().check(&open(&reopened).unwrap(), "recycled").unwrap();
    }
    let newest = disk.list().unwrap().pop().unwrap();
    assert!(content(&disk, &newest)[512..].starts_with(b"RFB1"), "the file was used before");
    assert!(newest.as_str() > "0000000000000008.log", "{newest}");
}

/// Overwrites a file, or makes it.
fn put(disk: &SimDisk, name: &str, bytes: &[u8]) {
    let file = disk.open(name, Open::Any).unwrap();
    file.set_len(0).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir().unwrap();
}

#[test]
fn a_segment_of_another_course_of_events_is_corruption() {
    // Two logs that begin alike and differ in one entry of the first segment.
    let disks: Vec<SimDisk> = [1, 2]
        .map(|byte| {
            let disk = SimDisk::new(1);
            let log = open(&disk).unwrap();
            for index in 1..20 {
                let byte = if index == 5 { byte } else { 0 };
                log.append(vec![Entry { index, data: vec![byte; 1500].into() }]).unwrap();
                log.flush().unwrap();
            }
            disk
        })
        .into();
    let names = disks[0].list().unwrap();
    assert!(names.len() > 2 && names == disks[1].list().unwrap());
    let (first, other) = (content(&disks[0], &names[0]), content(&disks[1], &names[0]));
    let (begin, end) = batches_in(&first).nth(4).unwrap();
    let (begin, end) = (begin as usize, end as usize);
    assert!(first[begin..end] != other[begin..end], "the fifth batch differs");
    let one_batch = [&first[..begin], &other[begin..end], &first[end..]].concat();
    for bytes in [other, one_batch] {
        put(&disks[0], &names[0], &bytes);
        let error = open(&disks[0]).unwrap_err();
        assert!(matches!(error, WalError::Corrupt { .. }), "{error}");
    }
}

#[test]
fn a_removed_segment_that_comes_back_changes_nothing() {
    let disk = SimDisk::new(1);
    let options = Options { recycled_segments_max: 0, ..options() };
    let log = Log::open(Arc::new(disk.clone()), options.clone()).unwrap();
    for index in 1..60 {
        log.append(vec![Entry { index, data: vec![0; 1500].into() }]).unwrap();
        log.flush().unwrap();
    }
    let first = disk.list().unwrap().remove(0);
    let returning = content(&disk, &first);
    log.purge(50, "fifty".into()).unwrap();
    log.flush().unwrap();
    log.prepare_spare().unwrap();
    let expected = Expected::exactly(&log).unwrap();
    drop(log);

    assert!(!disk.list().unwrap().contains(&first));
    put(&disk, &first, &returning);
    let log = Log::open(Arc::new(disk.clone()), options).unwrap();
    expected.check(&log, "with an old segment").unwrap();
    log.prepare_spare().unwrap();
    assert!(!disk.list().unwrap().contains(&first), "it is removed once more");
}
