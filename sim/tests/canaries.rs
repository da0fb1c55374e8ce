//! The simulator must find what is wrong on purpose, or its silence proves nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use ringfence_canary::Canary;
use ringfence_sim::run::{Plan, run};
use ringfence_sim::scenarios::Scenario;
use ringfence_sim::schedule::Profile;

/// The checks that found something, in the first seed that shows anything of `expected`.
fn caught(canary: Canary, seeds: u64, expected: &[&str], plan: impl Fn(u64) -> Plan) -> BTreeSet<String> {
    for seed in 1..=seeds {
        let report = run(&Plan { canaries: vec![canary], ..plan(seed) }, None);
        let found: BTreeSet<String> = report.findings.into_iter().map(|finding| finding.check).collect();
        if expected.iter().any(|check| found.contains(*check)) {
            return found;
        }
    }
    panic!("{} sings in {seeds} seeds and nothing of {expected:?} notices", canary.name());
}

/// Long enough for each scenario to come about twice.
const LENGTH: Duration = Duration::from_secs(15);

fn drawn(seed: u64) -> Plan {
    Plan::draw(seed, Duration::from_secs(15), Profile { rot: false, ..Profile::LAWFUL })
}

#[test]
fn a_sync_that_does_nothing_is_caught() {
    caught(Canary::LyingSync, 8, &["durable-claims", "node-ended", "linearizable"], drawn);
}

#[test]
fn a_vote_that_is_not_durable_is_caught() {
    caught(Canary::VoteNotDurable, 8, &["durable-claims"], drawn);
}

#[test]
fn a_read_without_a_barrier_is_caught() {
    caught(Canary::LocalRead, 4, &["linearizable"], drawn);
}

#[test]
fn a_compare_that_always_holds_is_caught() {
    caught(Canary::CompareSkipped, 4, &["linearizable"], drawn);
}

/// Every scenario on a thread of its own, which a run never leaves.
fn side_by_side(test: impl Fn(Scenario) + Sync) {
    let test = &test;
    std::thread::scope(|scope| {
        for scenario in Scenario::ALL {
            scope.spawn(move || test(scenario));
        }
    });
}

#[test]
fn every_scenario_shows_what_its_counter_measure_is_for() {
    side_by_side(|scenario| {
        let expected: &[&str] = match scenario {
            // A member lags behind until somebody writes.
            Scenario::SnapshotBelowTail => &["liveness"],
            Scenario::Handovers => &["lease-clock", "lease-ends"],
            Scenario::RenewalMeetsEnd => &["lease-ends"],
            Scenario::RegrantedLease => &["lease-ends", "sessions"],
            Scenario::LaggingFollower | Scenario::PausedHolder => &["tokens"],
            Scenario::RetriedWaiter => &["session-keys"],
            _ => &["linearizable", "one-leader", "leader-completeness", "committed-prefix", "durable-claims"],
        };
        caught(scenario.canary(), 24, expected, |seed| scenario.plan(seed, LENGTH));
    });
}

#[test]
fn no_scenario_shows_anything_with_its_counter_measure() {
    side_by_side(|scenario| {
        for seed in 1..=2 {
            let report = run(&scenario.plan(seed, LENGTH), None);
            assert!(report.findings.is_empty(), "{}: {report}", scenario.name());
        }
    });
}
