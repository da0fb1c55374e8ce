//! The first test of all: the same seed gives the same run, step for step. Without it a seed that failed proves nothing, and
//! cannot be looked at again.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use ringfence_sim::run::{Plan, run};
use ringfence_sim::schedule::Profile;
use ringfence_sim::sweep::sweep;

const LENGTH: Duration = Duration::from_secs(4);

/// Runs a seed in a process of its own; returns its trace, which holds every step of every task.
fn trace_of(seed: u64, directory: &Path, name: &str) -> Vec<u8> {
    let path = directory.join(name);
    let output = Command::new(env!("CARGO_BIN_EXE_sim"))
        .args(["run", "--seconds", "4", "--seed"])
        .arg(seed.to_string())
        .arg("--trace")
        .arg(&path)
        .output()
        .expect("the simulator runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    std::fs::read(&path).expect("a trace was written")
}

#[test]
fn the_same_seed_gives_the_same_trace_in_two_processes() {
    let directory = tempfile::tempdir().expect("a directory");
    for seed in [3, 4, 5] {
        let (first, second) = (trace_of(seed, directory.path(), "a"), trace_of(seed, directory.path(), "b"));
        let lines =
            |trace: &[u8]| String::from_utf8_lossy(trace).lines().map(str::to_owned).collect::<Vec<_>>();
        assert!(first.len() > 200_000, "the trace of seed {seed} holds {} bytes only", first.len());
        if first != second {
            let (first, second) = (lines(&first), lines(&second));
            let apart = first.iter().zip(&second).position(|(one, other)| one != other);
            let at = apart.unwrap_or(first.len().min(second.len()));
            panic!("seed {seed}: line {at} is {:?}, then {:?}", first.get(at), second.get(at));
        }
    }
}

#[test]
fn a_seed_runs_in_a_sweep_as_it_does_alone() {
    let plan = |seed| Plan::draw(seed, LENGTH, Profile::LAWFUL);
    let mut swept = Vec::new();
    sweep(20..26, 2, plan, |report| {
        swept.push((report.seed, report.trace, report.polls, report.operations));
        true
    });
    swept.sort_unstable();
    assert_eq!(swept.len(), 6);
    for (seed, trace, polls, operations) in swept {
        let alone = run(&plan(seed), None);
        assert_eq!((alone.trace, alone.polls, alone.operations), (trace, polls, operations), "seed {seed}");
    }
}

#[test]
fn another_seed_gives_another_run() {
    let run = |seed| run(&Plan::draw(seed, Duration::from_secs(2), Profile::LAWFUL), None).trace;
    assert_ne!(run(6), run(12), "two seeds of one shape");
}
