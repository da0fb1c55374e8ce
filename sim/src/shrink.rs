//! Looks for the shortest schedule that still fails: steps are left out, many at once and then one by one, for as long as
//! the run goes on to show something of the same kind.
//!
//! A run without a step is another run, not the same one with less in it: every choice after the step may fall otherwise.
//! So what is found is a short schedule that fails, and perhaps not the shortest.

use std::collections::BTreeSet;

use crate::run::{Plan, Report, run};

/// The shortest plan found within so many runs, with its report. `tell` is told of each run.
pub fn shrink(
    plan: &Plan,
    report: &Report,
    runs_max: usize,
    mut tell: impl FnMut(usize, usize),
) -> (Plan, Report) {
    let wanted = checks(report);
    let (mut best, mut shown) = (plan.clone(), report.clone());
    let mut runs = 0;
    let mut size = best.steps.len().div_ceil(2);
    while size > 0 && runs < runs_max {
        let mut at = 0;
        let mut shrunk = false;
        while at < best.steps.len() && runs < runs_max {
            let mut shorter = best.clone();
            shorter.steps.drain(at..(at + size).min(best.steps.len()));
            let tried = run(&shorter, None);
            runs += 1;
            if checks(&tried).intersection(&wanted).next().is_some() {
                (best, shown, shrunk) = (shorter, tried, true);
            } else {
                at += size;
            }
            tell(runs, best.steps.len());
        }
        if !shrunk || size > 1 {
            size /= 2;
        }
    }
    (best, shown)
}

fn checks(report: &Report) -> BTreeSet<String> {
    report.findings.iter().map(|finding| finding.check.clone()).collect()
}
