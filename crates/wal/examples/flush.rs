//! Times flushes on a real directory: `cargo run --release -p ringfence-wal --example flush -- DIRECTORY [SECONDS]`.
//!
//! Prints, for batches of 1 and of 64 entries of 256 bytes, how long one write with its sync takes, and how long the log
//! that came of it takes to open.

// A measurement needs the clock that the crate itself may not read.
#![allow(clippy::disallowed_methods)]

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ringfence_disk::OsDisk;
use ringfence_wal::{Entry, Log, Options};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().ok_or("the first argument is the directory to write into")?;
    let seconds = arguments.next().map_or(Ok(2), |seconds| seconds.parse())?;
    for entries in [1, 64] {
        measure(&format!("{directory}/flush-{entries}"), entries, Duration::from_secs(seconds))?;
    }
    Ok(())
}

fn measure(directory: &str, entries: u64, duration: Duration) -> Result<(), Box<dyn Error>> {
    let log = Log::open(OsDisk::open(directory)?, Options::default())?;
    let data = Bytes::from(vec![7; 256]);
    let mut times = Vec::new();
    let mut next = log.last_index().map_or(1, |last| last + 1);
    let begun = Instant::now();
    while begun.elapsed() < duration {
        let batch = (next..next + entries).map(|index| Entry { index, data: data.clone() }).collect();
        next += entries;
        log.append(batch)?;
        let flushed = Instant::now();
        log.flush()?;
        times.push(flushed.elapsed());
        if log.wants_spare() {
            log.prepare_spare()?;
        }
    }
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    let stats = log.stats();
    println!(
        "{entries} entries a flush: {} flushes, p50 {:?}, p99 {:?}, max {:?}",
        times.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
    drop(log);
    let opened = Instant::now();
    Log::open(OsDisk::open(directory)?, Options::default()).map(Arc::new)?;
    println!("  {} MiB in {} segments open in {:?}", stats.bytes >> 20, stats.segments, opened.elapsed());
    Ok(())
}
