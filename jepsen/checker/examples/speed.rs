//! How long it takes to read and to judge 100,000 operations on 20 keys, by 10 processes, with 0.2 % of the answers lost;
//! then the other workloads, set and watches smaller, because they are read whole.
//!
//! `cargo run --release -p ringfence-checker --example speed [SEED]`

#[path = "../tests/checkers/simulated.rs"]
mod simulated;

use std::time::{Duration, Instant};

use ringfence_checker::{Budget, History, Malformed, history, judge, linearizable, operations};
use simulated::Shape;

const SHAPE: Shape = Shape { operations: 100_000, keys: 20, processes: 10, lost: 0.002 };

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let seed = std::env::args().nth(1).map_or(Ok(1), |seed| seed.parse())?;
    let mut lines = Vec::new();
    for event in simulated::registers(SHAPE, seed) {
        history::write(&mut lines, &event)?;
    }
    let (registers, reading) = timed(|| history::read(lines.as_slice()));
    let registers = registers?;
    let (order, searching) = timed(|| linearizable::check(&operations(&registers)?, Budget::default()));
    println!("read {} events: {reading:.1?}", registers.len());
    println!("linearizability alone: {searching:.1?}, {:?}", order.map_err(|error: Malformed| error)?);

    report("registers", &registers);
    report("counter", &simulated::counter(SHAPE, seed));
    report("bank", &simulated::bank(SHAPE, seed));
    report("lists", &simulated::lists(Shape { keys: 1_000, ..SHAPE }, seed));
    report("set", &simulated::set(Shape { operations: 2_000, ..SHAPE }, seed));
    report("watches", &simulated::watches(Shape { operations: 2_000, ..SHAPE }, seed));
    Ok(())
}

fn report(workload: &str, history: &History) {
    let (findings, judging) = timed(|| judge(history, Budget::default()));
    println!("{workload}: {} events judged in {judging:.1?}", history.len());
    for finding in findings {
        println!("  {:?} {}: {}", finding.verdict, finding.check, finding.summary);
    }
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let begun = Instant::now();
    (work(), begun.elapsed())
}
