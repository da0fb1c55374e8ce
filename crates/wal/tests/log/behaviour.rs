//! The log as its callers use it, on a disk that does not fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use ringfence_disk::{Disk, OsDisk, SimDisk};
use ringfence_wal::{Entry, Log, Options, Ticket, WalError};

use crate::model::Content;

fn options() -> Options {
    Options { segment_bytes: 16 << 10, cache_bytes: 0, ..Options::default() }
}

fn open(disk: &SimDisk) -> Log {
    Log::open(Arc::new(disk.clone()), options()).unwrap()
}

fn entries(indexes: std::ops::Range<u64>, data: &str) -> Vec<Entry> {
    indexes.map(|index| Entry { index, data: Bytes::from(format!("{data} {index}")) }).collect()
}

#[test]
fn a_batch_that_takes_back_its_own_entries_reads_as_it_ended() {
    let disk = SimDisk::new(1);
    let log = open(&disk);
    log.append(entries(5..10, "old")).unwrap();
    log.truncate_after(Some(6)).unwrap();
    log.append(entries(7..9, "new")).unwrap();
    log.purge(5, "five".into()).unwrap();
    log.save_vote("me".into()).unwrap();
    log.flush().unwrap();
    for log in [log, open(&disk)] {
        let found = log.read(6, 100, usize::MAX).unwrap();
        assert_eq!(found, [entries(6..7, "old"), entries(7..9, "new")].concat());
        assert_eq!((log.first_index(), log.last_index()), (Some(6), Some(8)));
        assert_eq!(log.purged(), Some((5, "five".into())));
        assert_eq!(log.vote(), Some("me".into()));
    }
}

#[test]
fn a_flush_writes_once_and_syncs_once() {
    let disk = SimDisk::new(1);
    let log = open(&disk);
    log.append(entries(1..50, "x")).unwrap();
    log.save_vote("me".into()).unwrap();
    let steps = disk.steps();
    assert!(log.has_staged());
    assert_eq!(log.flush().unwrap(), Ticket(50));
    assert_eq!(disk.steps() - steps, 2);
    assert!(!log.has_staged());
    assert_eq!(log.flush().unwrap(), Ticket(50), "nothing is written where nothing is staged");
    assert_eq!(disk.steps() - steps, 2);
}

#[test]
fn a_ready_spare_keeps_the_making_of_segments_out_of_the_flush() {
    let disk = SimDisk::new(1);
    let log = open(&disk);
    for index in 0..100 {
        if log.wants_spare() {
            log.prepare_spare().unwrap();
        }
        log.append(vec![Entry { index, data: vec![1; 1000].into() }]).unwrap();
        let steps = disk.steps();
        log.flush().unwrap();
        assert_eq!(disk.steps() - steps, 2, "entry {index}");
    }
    assert!(log.stats().segments > 5);
}

#[test]
fn a_batch_is_bounded_and_holds_at_least_one_record() {
    let disk = SimDisk::new(1);
    let log = Log::open(Arc::new(disk), Options { batch_bytes_max: 1000, ..options() }).unwrap();
    let data = |bytes: usize| Bytes::from(vec![3; bytes]);
    let sizes = [400, 400, 400, 5000, 10];
    let staged =
        sizes.into_iter().zip(0..).map(|(bytes, index)| Entry { index, data: data(bytes) }).collect();
    assert_eq!(log.append(staged).unwrap(), Ticket(5));
    let mut tickets = Vec::new();
    while log.has_staged() {
        tickets.push(log.flush().unwrap().0);
        let lengths: Vec<usize> =
            log.read(0, 5, usize::MAX).unwrap().iter().map(|entry| entry.data.len()).collect();
        assert_eq!(lengths, sizes, "what is not yet durable is readable from memory");
    }
    assert_eq!(tickets, [2, 3, 4, 5]);
}

#[test]
fn the_committed_mark_travels_with_the_next_batch() {
    let disk = SimDisk::new(1);
    let log = open(&disk);
    log.note_committed("one".into());
    assert!(!log.has_staged());
    assert_eq!(open(&disk.fork(1)).committed(), None);
    log.append(entries(1..2, "x")).unwrap();
    log.note_committed("two".into());
    log.flush().unwrap();
    log.note_committed("three".into());
    assert_eq!(open(&disk).committed(), Some("two".into()));
}

#[test]
fn a_purge_beyond_the_end_empties_the_log_which_goes_on_after_it() {
    let disk = SimDisk::new(1);
    let log = open(&disk);
    log.append(entries(1..4, "x")).unwrap();
    log.purge(10, "ten".into()).unwrap();
    assert_eq!((log.first_index(), log.last_index()), (None, None));
    assert_eq!(log.read(1, 100, usize::MAX).unwrap(), []);
    log.append(entries(11..12, "y")).unwrap();
    assert_eq!(log.purge(9, "nine".into()).unwrap(), Ticket(5), "a purge never goes back");
    log.flush().unwrap();
    let log = open(&disk);
    assert_eq!(log.purged(), Some((10, "ten".into())));
    assert_eq!(Content::of(&log).unwrap().entries, [(11, "y 11".into())].into());
}

#[test]
#[should_panic(expected = "log rule: an appended entry follows the last one without a gap")]
fn a_gap_is_a_broken_rule() {
    let log = open(&SimDisk::new(1));
    log.append(entries(1..4, "x")).unwrap();
    let _ = log.append(entries(5..6, "x"));
}

#[test]
#[should_panic(expected = "log rule: a truncation after 2 never reaches what is purged (3)")]
fn a_truncation_below_the_purge_mark_is_a_broken_rule() {
    let log = open(&SimDisk::new(1));
    log.append(entries(1..6, "x")).unwrap();
    log.purge(3, "three".into()).unwrap();
    let _ = log.truncate_after(Some(2));
}

#[test]
fn what_does_not_fit_is_refused_whole() {
    let log = open(&SimDisk::new(1));
    let mut staged = entries(1..2, "x");
    staged.push(Entry { index: 2, data: vec![0; 16 << 10].into() });
    assert!(matches!(log.append(staged), Err(WalError::TooLarge { .. })));
    assert!(matches!(
        log.save_vote(vec![0; 2000].into()),
        Err(WalError::TooLarge { bytes: 2000, bytes_max: 1024 })
    ));
    assert!(!log.has_staged());
    let small = Options { segment_bytes: 8 << 10, ..Options::default() };
    assert!(matches!(Log::open(Arc::new(SimDisk::new(1)), small), Err(WalError::Options(_))));
}

#[test]
fn the_largest_entry_and_registers_fit_into_one_segment() {
    let disk = SimDisk::new(1);
    let log = open(&disk);
    log.purge(9, vec![1; 1024].into()).unwrap();
    log.save_vote(vec![2; 1024].into()).unwrap();
    log.note_committed(vec![3; 1024].into());
    let Err(WalError::TooLarge { bytes_max, .. }) =
        log.append(vec![Entry { index: 10, data: vec![0; 16 << 10].into() }])
    else {
        panic!("16 KiB do not fit")
    };
    for index in 10..13 {
        log.append(vec![Entry { index, data: vec![4; bytes_max].into() }]).unwrap();
        log.flush().unwrap();
    }
    while log.has_staged() {
        log.flush().unwrap();
    }
    assert_eq!(Content::of(&open(&disk)).unwrap().entries.len(), 3);
}

#[test]
fn segments_of_another_size_are_used_up_and_then_replaced() {
    let disk = SimDisk::new(1);
    let log = open(&disk);
    log.append(vec![Entry { index: 1, data: vec![1; 9000].into() }]).unwrap();
    log.flush().unwrap();
    log.prepare_spare().unwrap();
    drop(log);
    let larger = Options { segment_bytes: 64 << 10, ..options() };
    let log = Log::open(Arc::new(disk.clone()), larger.clone()).unwrap();
    assert_eq!(log.stats().spares, 0);
    log.append(vec![Entry { index: 2, data: vec![2; 40_000].into() }]).unwrap();
    log.flush().unwrap();
    log.purge(1, "one".into()).unwrap();
    log.flush().unwrap();
    assert_eq!(log.stats().retired, 1);
    log.prepare_spare().unwrap();
    assert_eq!(log.stats().bytes, 2 * (64 << 10), "the small one is gone");
    let log = Log::open(Arc::new(disk), larger).unwrap();
    assert_eq!(Content::of(&log).unwrap().entries, [(2, vec![2; 40_000].into())].into());
}

#[test]
fn retention_counts_whole_segments() {
    let disk = SimDisk::new(1);
    let log = open(&disk);
    for index in 1..=60 {
        log.append(vec![Entry { index, data: vec![1; 1500].into() }]).unwrap();
        log.flush().unwrap();
    }
    let segments = log.stats().segments;
    assert!(segments >= 6);
    assert_eq!(log.purge_to_fit(1 << 30), None);
    let through = log.purge_to_fit(3 * (16 << 10)).unwrap();
    log.purge(through, "bound".into()).unwrap();
    log.flush().unwrap();
    let stats = log.stats();
    assert_eq!((stats.segments, stats.retired), (3, segments - 3));
    assert_eq!(log.purge_to_fit(3 * (16 << 10)), None);
    let through = log.purge_to_fit(0).unwrap();
    assert!(through < 60, "the segment being written stays");
    log.prepare_spare().unwrap();
    assert_eq!(log.stats().retired, 1, "two are kept, one of which has become the spare");
}

#[test]
fn memory_grows_with_batches_and_not_with_entries() {
    let log = open(&SimDisk::new(1));
    for batch in 0..20 {
        log.append(entries(batch * 50..batch * 50 + 50, "x")).unwrap();
        log.flush().unwrap();
    }
    let stats = log.stats();
    assert_eq!((stats.positions, stats.cached_bytes, stats.batches, stats.records), (20, 0, 20, 1000));
}

#[test]
fn reading_stops_at_the_bound_but_returns_at_least_one() {
    let disk = SimDisk::new(1);
    for cache_bytes in [0, 1 << 20] {
        let log = Log::open(Arc::new(disk.fork(1)), Options { cache_bytes, ..options() }).unwrap();
        for index in 0..10 {
            log.append(vec![Entry { index, data: vec![1; 100].into() }]).unwrap();
            log.flush().unwrap();
        }
        let lengths = |from, until, bytes_max| log.read(from, until, bytes_max).unwrap().len();
        assert_eq!(
            [lengths(0, 10, 0), lengths(0, 10, 350), lengths(0, 2, 350), lengths(9, 99, 350)],
            [1, 3, 2, 1]
        );
        assert_eq!([lengths(10, 99, 350), lengths(5, 5, 350), lengths(6, 5, 350)], [0, 0, 0]);
    }
}

/// One thread flushes, one makes room, one reads: readers see consecutive entries with the right data, whatever moves.
#[test]
fn readers_run_beside_flushes_and_recycling() {
    let directory = tempfile::tempdir().unwrap();
    let disk = OsDisk::open(directory.path().join("log")).unwrap();
    let log = Log::open(disk.clone(), options()).unwrap();
    let done = AtomicBool::new(false);
    let data = |index: u64| Bytes::from(index.to_le_bytes().repeat(1 + usize::try_from(index % 40).unwrap()));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                if log.wants_spare() {
                    log.prepare_spare().unwrap();
                }
                std::thread::yield_now();
            }
        });
        scope.spawn(|| {
            let mut read = 0;
            while !done.load(Ordering::Acquire) {
                let Some(first) = log.first_index() else { continue };
                for (entry, index) in log.read(first, u64::MAX, 4000).unwrap().into_iter().zip(first..) {
                    assert_eq!((entry.index, &entry.data), (index, &data(index)));
                    read += 1;
                }
            }
            assert!(read > 0);
        });
        for index in 0..3000 {
            log.append(vec![Entry { index, data: data(index) }]).unwrap();
            log.flush().unwrap();
            if index % 100 == 99 {
                log.purge(index - 60, Bytes::from(format!("{index}"))).unwrap();
            }
        }
        log.flush().unwrap();
        done.store(true, Ordering::Release);
    });
    drop(log);
    let names = disk.list().unwrap();
    assert!(names.len() < 10 && !names.contains(&"0000000000000001.log".to_owned()), "{names:?}");
    let log = Log::open(disk, options()).unwrap();
    assert_eq!((log.first_index(), log.last_index()), (Some(2940), Some(2999)));
    assert!(Content::of(&log).unwrap().entries.iter().all(|(index, found)| *found == data(*index)));
}
