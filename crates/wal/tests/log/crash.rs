//! Random histories on a disk that fails at every step in turn. After each failure the log must hold what it had
//! reported as durable, and nothing but whole batches besides, and must go on working.

use std::sync::Arc;

use ringfence_disk::{Disk, Fault, SimDisk};
use ringfence_wal::{Log, Options, WalError};

use crate::model::{Draws, Driven, Expected};

/// Random things done in one life.
const LIFE_STEPS: u64 = 40;

fn options(seed: u64) -> Options {
    Options {
        segment_bytes: 16 << 10,
        // Some logs keep all in memory, some nothing beyond what is not durable.
        cache_bytes: if seed.is_multiple_of(2) { 0 } else { 1 << 20 },
        recycled_segments_max: usize::try_from(seed % 3).unwrap(),
        salt: seed,
        ..Options::default()
    }
}

/// One life of a log: opens it, compares it with what is expected, and does random things until it fails or is tired.
struct Life<'a> {
    disk: &'a SimDisk,
    seed: u64,
    story: &'a str,
}

impl Life<'_> {
    /// Returns what may be found after the life, and the error that ended it.
    fn live(&self, number: u64, expected: Expected) -> (Expected, Option<WalError>) {
        let log = match Log::open(Arc::new(self.disk.clone()), options(self.seed)) {
            Ok(log) => log,
            Err(error) => return (expected, Some(error)),
        };
        if let Ok(names) = self.disk.list() {
            assert!(
                names.iter().all(|name| name.ends_with(".log")),
                "{}: nothing unfinished stays",
                self.story
            );
        }
        if let Err(error) = expected.check(&log, self.story) {
            return (expected, Some(error));
        }
        let mut draws = Draws::new(self.seed * 1000 + number);
        let mut driven = match Driven::new(log) {
            Ok(driven) => driven,
            Err(error) => return (expected, Some(error)),
        };
        for step in 0..LIFE_STEPS {
            if let Err(error) = driven.step(&mut draws, number * 1000 + step) {
                if !self.disk.is_down() {
                    assert_stopped(&driven.log, &error);
                }
                return (driven.expected(), Some(error));
            }
        }
        (driven.expected(), None)
    }
}

/// After a failed write or sync nothing succeeds any more, and the cause is named.
fn assert_stopped(log: &Log, cause: &WalError) {
    let failures = [
        log.flush().map(|_| ()),
        log.save_vote("late".into()).map(|_| ()),
        log.append(vec![]).map(|_| ()),
        log.truncate_after(Some(1 << 40)).map(|_| ()),
        log.purge(1 << 40, "late".into()).map(|_| ()),
        log.prepare_spare(),
        log.read(0, 1, 1).map(|_| ()),
    ];
    for failure in failures {
        let error = failure.expect_err("a poisoned log refuses everything");
        assert!(matches!(error, WalError::Poisoned(_)), "{error}");
        assert!(error.to_string().contains(&cause.to_string()), "{error} does not name {cause}");
    }
}

/// How many steps the first `lives` lives take if nothing fails.
fn steps_without_faults(seed: u64, lives: u64) -> u64 {
    let disk = SimDisk::new(seed);
    let mut expected = Expected::nothing();
    for number in 0..lives {
        let story = format!("seed {seed}, without faults, life {number}");
        let error;
        (expected, error) = Life { disk: &disk, seed, story: &story }.live(number, expected);
        assert!(error.is_none(), "{story}: {error:?}");
        disk.crash();
    }
    disk.steps()
}

#[test]
fn a_crash_at_any_step_loses_nothing_durable_and_leaves_nothing_half_done() {
    for seed in 0..25 {
        for step in 1..=steps_without_faults(seed, 2) {
            let disk = SimDisk::new(seed * 10_000 + step);
            let mut draws = Draws::new(step);
            disk.inject(Fault::CrashAtStep(step));
            let mut expected = Expected::nothing();
            for number in 0..4 {
                let story = format!("seed {seed}, crash at step {step}, life {number}");
                let error;
                (expected, error) = Life { disk: &disk, seed, story: &story }.live(number, expected);
                assert!(error.is_none() || disk.is_down(), "{story}: {error:?}");
                disk.crash();
                // The second crash may well hit the opening that mends what the first one left.
                disk.inject(Fault::CrashAtStep(disk.steps() + 1 + draws.below(60)));
            }
        }
    }
}

#[test]
fn a_killed_process_loses_nothing_even_if_the_machine_dies_right_after_it_has_started_again() {
    for seed in 100..130 {
        for step in (1..=steps_without_faults(seed, 1)).step_by(3) {
            let disk = SimDisk::new(seed * 10_000 + step);
            let mut draws = Draws::new(step);
            disk.inject(Fault::CrashAtStep(step));
            let mut expected = Expected::nothing();
            for number in 0..4 {
                let story = format!("seed {seed}, killed at step {step}, life {number}");
                let error;
                (expected, error) = Life { disk: &disk, seed, story: &story }.live(number, expected);
                assert!(error.is_none() || disk.is_down(), "{story}: {error:?}");
                disk.kill();
                if draws.below(2) == 0 {
                    expected = survives_a_power_cut(&disk, seed, expected, &story);
                }
            }
        }
    }
}

#[test]
fn a_failed_write_or_sync_stops_the_log_and_loses_nothing_durable() {
    for seed in 200..230 {
        for step in 1..=steps_without_faults(seed, 1) {
            for fault in [Fault::FailSync(step), Fault::FailWrite(step)] {
                let disk = SimDisk::new(seed * 10_000 + step);
                disk.inject(fault);
                let story = format!("seed {seed}, {fault:?}");
                let (expected, error) =
                    Life { disk: &disk, seed, story: &story }.live(0, Expected::nothing());
                if let Some(error) = error {
                    assert!(matches!(error, WalError::Io { .. }), "{story}: {error}");
                }
                disk.kill();
                let mut expected = expected;
                for (number, cut) in [(1, step.is_multiple_of(2)), (2, true), (3, false)] {
                    let story = format!("{story}, life {number}");
                    if cut {
                        expected = survives_a_power_cut(&disk, seed, expected, &story);
                    }
                    let error;
                    (expected, error) = Life { disk: &disk, seed, story: &story }.live(number, expected);
                    assert!(error.is_none(), "{story}: {error:?}");
                }
            }
        }
    }
}

/// Opens the log and cuts the power at once: what the opening has shown must be there still. Returns just that.
fn survives_a_power_cut(disk: &SimDisk, seed: u64, expected: Expected, story: &str) -> Expected {
    let log = Log::open(Arc::new(disk.clone()), options(seed)).expect(story);
    expected.check(&log, story).expect(story);
    let shown = Expected::exactly(&log).expect(story);
    disk.crash();
    shown
}

#[test]
fn a_read_error_while_opening_changes_nothing() {
    for seed in 300..310 {
        let disk = SimDisk::new(seed);
        let (expected, _) = Life { disk: &disk, seed, story: "to be read" }.live(0, Expected::nothing());
        disk.crash();
        let begun = disk.steps();
        for step in begun + 1..begun + 40 {
            let attempt = disk.fork(step);
            attempt.inject(Fault::FailRead(step));
            let log = match Log::open(Arc::new(attempt.clone()), options(seed)) {
                Ok(log) => log,
                Err(WalError::Io { .. }) => {
                    attempt.crash();
                    Log::open(Arc::new(attempt.clone()), options(seed)).unwrap()
                }
                Err(error) => panic!("seed {seed}, step {step}: {error}"),
            };
            attempt.clear_faults();
            expected.check(&log, "after a read error").unwrap();
        }
    }
}

#[test]
fn a_full_disk_stops_the_log_and_loses_nothing_durable() {
    for (seed, segments) in (400..440).zip([1, 2, 3, 4].into_iter().cycle()) {
        let disk = SimDisk::new(seed);
        disk.inject(Fault::Full { bytes: segments * (16 << 10) + seed * 100 });
        let log = Log::open(Arc::new(disk.clone()), options(seed)).unwrap();
        let mut driven = Driven::new(log).unwrap();
        let mut draws = Draws::new(seed);
        let error = loop {
            driven.append(&mut draws, 1500).unwrap();
            if let Err(error) = driven.flush() {
                break error;
            }
        };
        let WalError::Io { source, .. } = &error else { panic!("{error}") };
        assert_eq!(source.kind(), std::io::ErrorKind::StorageFull);
        assert_stopped(&driven.log, &error);

        let expected = driven.expected();
        drop(driven);
        disk.crash();
        let story = format!("seed {seed}, full at {segments} segments");
        let (_, error) = Life { disk: &disk, seed, story: &story }.live(1, expected);
        assert!(error.is_none(), "{story}: {error:?}");
    }
}

#[test]
fn a_disk_too_full_for_a_spare_segment_does_not_stop_the_log() {
    let disk = SimDisk::new(1);
    disk.inject(Fault::Full { bytes: 20 << 10 });
    let log = Log::open(Arc::new(disk.clone()), options(1)).unwrap();
    let mut driven = Driven::new(log).unwrap();
    assert!(driven.log.wants_spare());
    let error = driven.log.prepare_spare().unwrap_err();
    assert!(
        matches!(&error, WalError::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull)
    );
    assert_eq!(disk.list().unwrap().len(), 1, "what was begun is removed");
    driven.append(&mut Draws::new(1), 100).unwrap();
    driven.flush().unwrap();
    driven.check().unwrap();
    disk.clear_faults();
    driven.log.prepare_spare().unwrap();
    assert_eq!(driven.log.stats().spares, 1);
}
