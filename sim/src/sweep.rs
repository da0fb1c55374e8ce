//! Many seeds, on several threads: each run stays on one thread, and knows nothing of the others.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use crate::run::{Plan, Report, run};

/// Runs the plans of all seeds, and hands each report to `each`, in the order in which they end. Stops early where `each`
/// says so.
pub fn sweep(
    seeds: Range<u64>,
    jobs: usize,
    plan: impl Fn(u64) -> Plan + Sync,
    mut each: impl FnMut(Report) -> bool,
) {
    let next = AtomicU64::new(seeds.start);
    std::thread::scope(|scope| {
        let (reports, reported) = mpsc::sync_channel(jobs);
        for _ in 0..jobs.max(1) {
            let (reports, next, plan) = (reports.clone(), &next, &plan);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || reports.send(run(&plan(seed), None)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(reports);
        while let Ok(report) = reported.recv() {
            if !each(report) {
                // Threads in the middle of a run end it, and find nobody to report to.
                next.store(seeds.end, Ordering::Relaxed);
                return drop(reported);
            }
        }
    });
}
