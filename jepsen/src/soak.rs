//! A soak: random workloads under random faults, one run after the other, from one seed. It stops at nothing but the end of
//! its time; what failed is kept.

use std::collections::VecDeque;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use ringfence_checker::Verdict;

use crate::load;
use crate::nemesis::{self, Nemesis};
use crate::run::{self, Order, Outcome, Watcher};
use crate::workload;
use crate::world::{Capabilities, Storage};

/// How many directories of good runs are kept: the last ones, for a look.
const GOOD_KEPT: usize = 3;
/// How long a run lasts, in seconds.
const RUN_SECONDS: std::ops::RangeInclusive<u64> = 25..=60;
/// The nemesis that draws others by itself.
const MIX: &str = "mix";
/// So many runs of a hundred are under that one, the others under one or two by name.
const MIX_PERCENT: u32 = 40;

/// What is to be soaked, and for how long.
#[derive(Debug, Clone)]
pub struct Soak {
    /// No run begins after this time.
    pub time: Duration,
    /// How many nodes each cluster has.
    pub nodes: usize,
    /// Operations a second.
    pub rate: u64,
    /// What is run is drawn from this.
    pub seed: u64,
    /// Where nodes' disks are.
    pub storage: Storage,
    /// The directory in which each run gets its own.
    pub directory: PathBuf,
}

/// One run of a soak.
#[derive(Debug, Clone)]
pub struct Row {
    /// Its number, from 1.
    pub number: usize,
    /// What was run.
    pub order: Order,
    /// What came of it; or why it could not be run.
    pub outcome: Result<Figures, String>,
}

/// What a summary shows of a run.
#[derive(Debug, Clone)]
pub struct Figures {
    /// The verdict.
    pub verdict: Verdict,
    /// Operations by outcome: ok, fail, info.
    pub operations: [u64; 3],
    /// How many faults had an effect.
    pub faults: usize,
    /// What was not ok, a sentence each.
    pub failures: Vec<String>,
}

impl Row {
    /// Whether nothing was wrong and all was decided.
    #[must_use]
    pub fn is_good(&self) -> bool {
        matches!(&self.outcome, Ok(figures) if figures.verdict == Verdict::Ok)
    }
}

impl Soak {
    /// Runs until the time is over or `stop` is true, and returns all rows; `told` hears each as it is done.
    pub fn run(
        &self,
        capabilities: &Capabilities,
        stop: &AtomicBool,
        watch: Watcher<'_>,
        told: &mut dyn FnMut(&Row),
    ) -> Vec<Row> {
        let mut random = StdRng::seed_from_u64(self.seed);
        let begun = Instant::now();
        let mut rows = Vec::new();
        let mut good: VecDeque<PathBuf> = VecDeque::new();
        while begun.elapsed() < self.time && !stop.load(Ordering::Relaxed) {
            let order = self.draw(&mut random, capabilities);
            let outcome = run::run(&order, capabilities, stop, watch);
            let outcome = outcome.map(|outcome| figures(&outcome)).map_err(|error| format!("{error:#}"));
            let row = Row { number: rows.len() + 1, order, outcome };
            if row.is_good() {
                good.push_back(row.order.directory.clone());
            }
            if good.len() > GOOD_KEPT
                && let Some(oldest) = good.pop_front()
                && let Err(error) = fs::remove_dir_all(&oldest)
            {
                eprintln!("{} cannot be removed: {error}", oldest.display());
            }
            told(&row);
            rows.push(row);
        }
        rows
    }

    /// Draws the next run.
    fn draw(&self, random: &mut StdRng, capabilities: &Capabilities) -> Order {
        let ready: Vec<&str> =
            workload::registry().iter().filter(|entry| entry.is_ready()).map(|entry| entry.name).collect();
        let possible: Vec<&Nemesis> = nemesis::registry()
            .filter(|nemesis| nemesis.name != MIX && nemesis.needs.iter().all(|need| capabilities.has(*need)))
            .collect();
        let nemeses: Vec<String> = if random.random_ratio(MIX_PERCENT, 100) {
            vec![MIX.to_owned()]
        } else {
            let count = random.random_range(1..=2);
            possible.sample(random, count).map(|nemesis| nemesis.name.to_owned()).collect()
        };
        let order = Order {
            workload: (*ready.choose(random).expect("some workloads can be chosen")).to_owned(),
            nemeses,
            nodes: self.nodes,
            time: Duration::from_secs(random.random_range(RUN_SECONDS)),
            rate: self.rate,
            processes: load::PROCESSES,
            // Seeds are typed by people, so they are not as long as they could be.
            seed: u64::from(random.random::<u32>()),
            storage: self.storage,
            canaries: Vec::new(),
            flags: Vec::new(),
            until_exit: false,
            directory: PathBuf::new(),
        };
        Order { directory: self.directory.join(order.directory_name()), ..order }
    }
}

fn figures(outcome: &Outcome) -> Figures {
    let results = &outcome.recorded.results;
    let failed = results.findings.iter().filter(|finding| finding.verdict != Verdict::Ok);
    Figures {
        verdict: results.verdict,
        operations: results.operations,
        faults: outcome.recorded.faults.iter().filter(|fault| fault.effective).count(),
        failures: failed.map(|finding| format!("{}: {}", finding.check, finding.summary)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same_runs_and_only_possible_ones() {
        let capabilities = Capabilities::none("this is a test");
        let soak = |seed| Soak {
            time: Duration::ZERO,
            nodes: 3,
            rate: 10,
            seed,
            storage: Storage::Memory,
            directory: PathBuf::from("runs"),
        };
        let draw = |seed| -> Vec<(String, Vec<String>, Duration, u64)> {
            let mut random = StdRng::seed_from_u64(seed);
            let order = |_| soak(seed).draw(&mut random, &capabilities);
            (0..100).map(order).map(|it| (it.workload, it.nemeses, it.time, it.seed)).collect()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        for (workload, nemeses, _, _) in draw(3) {
            assert!(workload::named(&workload).is_ok());
            for name in nemeses {
                let nemesis = nemesis::by_name(&name).expect("it is registered");
                assert!(nemesis.needs.is_empty(), "{name} needs what this machine has not");
            }
        }
    }
}
