//! Canaries: each with the load and the faults that must expose it. A harness that does not notice what was made wrong on
//! purpose proves nothing by its silence.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use ringfence_checker::{Finding, Verdict};

use crate::load::PROCESSES;
use crate::nemesis::Schedule;
use crate::run::{self, Order, Outcome, RETRYING_CLIENTS, Watcher};
use crate::world::{Capabilities, Storage};

/// How often a canary is tried, each time from another seed, before it counts as not caught: whether a fault hits the moment
/// that matters is a matter of luck. The least lucky trap, `lease-without-margin`, closes at two of three tries or more.
pub const TRIES_MAX: u64 = 5;

/// A canary, and what exposes it.
#[derive(Debug, Clone, Copy)]
pub struct Trap {
    /// The canary's name.
    pub canary: &'static str,
    /// The workload's.
    pub workload: &'static str,
    /// The nemeses'.
    pub nemeses: &'static [&'static str],
    /// How long a try lasts, in seconds.
    pub seconds: u64,
    /// How many nodes.
    pub nodes: usize,
    /// Operations a second.
    pub rate: u64,
    /// How many operations may be under way at once.
    pub processes: u16,
    /// More flags of `ringfence serve`.
    pub flags: &'static [&'static str],
    /// The findings that may catch it. Others prove nothing about the canary.
    pub caught_by: &'static [&'static str],
}

/// Findings that clients' histories can yield.
const VALUES: &[&str] = &["linearizable", "revisions", "set", "counter", "stale-reads"];

/// Every canary that the harness can expose; the simulator has the others.
pub const TRAPS: &[Trap] = &[
    Trap {
        canary: "lying-sync",
        workload: "register",
        nemeses: &["power-all"],
        seconds: 12,
        nodes: 3,
        rate: 300,
        processes: PROCESSES,
        flags: &[],
        caught_by: &["linearizable", "revisions", "exits", "hashes-equal", "healthy-at-end"],
    },
    Trap {
        canary: "local-read",
        workload: "register",
        nemeses: &["partition-leader"],
        seconds: 10,
        nodes: 3,
        rate: 300,
        processes: PROCESSES,
        flags: &[],
        caught_by: VALUES,
    },
    Trap {
        canary: "lease-without-margin",
        workload: "register",
        // A margin matters only where the old leader's clock runs slower than those of the others. A long lease makes the time
        // between the others' election and its end long, and the more there are of them, the earlier the first one campaigns; so
        // many processes leave some free to read through the old leader then, while others wait for their writes.
        nemeses: &["clock-rate-leader+partition-leader"],
        seconds: 24,
        nodes: 5,
        rate: 150,
        processes: 240,
        flags: &["--leader-lease=1600ms"],
        caught_by: VALUES,
    },
    Trap {
        canary: "vote-not-durable",
        workload: "register",
        nemeses: &["kill-leader", "kill-all"],
        seconds: 30,
        nodes: 3,
        rate: 300,
        processes: PROCESSES,
        flags: &[],
        caught_by: &["one-leader", "terms-grow", "linearizable", "revisions", "exits"],
    },
    Trap {
        canary: "compare-skipped",
        workload: "counter",
        nemeses: &["none"],
        seconds: 5,
        nodes: 3,
        rate: 300,
        processes: PROCESSES,
        flags: &[],
        caught_by: &["counter", "revisions"],
    },
    Trap {
        canary: RETRYING_CLIENTS,
        // An element is made once: an attempt after one that was applied is refused, or does not even reach its member, and is
        // told as a failure. The longer packets take, the more entries others have, and commit, when their leader dies.
        workload: "set",
        nemeses: &["delay+kill-leader"],
        seconds: 12,
        nodes: 3,
        rate: 500,
        processes: PROCESSES,
        flags: &[],
        caught_by: VALUES,
    },
    Trap {
        canary: "hash-without-table",
        workload: "register",
        nemeses: &["snapshot"],
        seconds: 8,
        nodes: 3,
        rate: 200,
        processes: PROCESSES,
        flags: &[],
        // Nodes whose rows do not match their hash leave their service when they find out: when they make a snapshot, or scrub.
        // None is left then whose state another could have.
        caught_by: &["healthy-at-end"],
    },
    Trap {
        canary: "torn-is-corrupt",
        // Only a batch of several sectors can be torn, and lists make entries long.
        workload: "list-append",
        nemeses: &["power-all"],
        seconds: 25,
        nodes: 3,
        rate: 300,
        processes: PROCESSES,
        flags: &[],
        caught_by: &["exits", "healthy-at-end"],
    },
    Trap {
        canary: "corrupt-is-torn",
        workload: "register",
        nemeses: &["rot-log-majority"],
        seconds: 12,
        nodes: 3,
        rate: 300,
        processes: PROCESSES,
        flags: &[],
        caught_by: &["linearizable", "revisions", "fault-answers", "exits", "hashes-equal"],
    },
    Trap {
        canary: "fence-skipped",
        workload: "lock",
        // Where packets take their time, a holder's writes are still on their way to the leader when the lock is another's: the
        // gate of the member that took them knew nothing of that.
        nemeses: &["delay"],
        seconds: 8,
        nodes: 3,
        rate: 400,
        processes: 120,
        flags: &[],
        caught_by: &["locks"],
    },
    Trap {
        canary: "end-unjudged",
        workload: "lease",
        // The longer an entry takes, the more often a keep-alive is applied between a leader's look and the end that it proposes.
        nemeses: &["delay"],
        seconds: 14,
        nodes: 3,
        rate: 300,
        processes: PROCESSES,
        flags: &[],
        caught_by: &["leases"],
    },
    Trap {
        canary: "keep-alive-early",
        workload: "lease",
        // A leader that is cut off takes keep-alives as if they could still reach the log.
        nemeses: &["partition-leader"],
        seconds: 10,
        nodes: 3,
        rate: 300,
        processes: PROCESSES,
        flags: &[],
        caught_by: &["leases", "minority-read-only"],
    },
    Trap {
        canary: "watch-joins-unread",
        workload: "watch",
        nemeses: &["none"],
        seconds: 3,
        nodes: 3,
        rate: 400,
        processes: PROCESSES,
        flags: &[],
        caught_by: &["watch"],
    },
];

impl Trap {
    /// Whether this machine can do what the trap needs.
    ///
    /// # Errors
    /// Says what it cannot do.
    pub fn can_be_set(&self, capabilities: &Capabilities) -> Result<()> {
        Schedule::new(&self.nemesis_names(), 0, capabilities).map(drop)
    }

    fn nemesis_names(&self) -> Vec<String> {
        self.nemeses.iter().map(|name| (*name).to_owned()).collect()
    }
}

/// What came of a canary.
#[derive(Debug, Clone)]
pub struct Catch {
    /// The canary and its trap.
    pub trap: &'static Trap,
    /// How often it was tried.
    pub tries: u64,
    /// What caught it; none: nothing did.
    pub finding: Option<Finding>,
    /// The last try's page, or why there is none.
    pub report: Result<std::path::PathBuf, String>,
}

/// The traps of these canaries; of all, where none is named.
///
/// # Errors
/// Where one is unknown, or not the harness's.
pub fn traps(names: &[String]) -> Result<Vec<&'static Trap>> {
    if names.is_empty() {
        return Ok(TRAPS.iter().collect());
    }
    names
        .iter()
        .map(|name| match TRAPS.iter().find(|trap| trap.canary == name) {
            Some(trap) => Ok(trap),
            None => {
                let known: Vec<&str> = TRAPS.iter().map(|trap| trap.canary).collect();
                bail!("the harness has no trap for a canary {name:?}; it has those for {}", known.join(", "))
            }
        })
        .collect()
}

/// Tries to catch a canary; `stop` ends that early.
#[must_use]
pub fn catch(
    trap: &'static Trap,
    directory: &Path,
    seed: u64,
    capabilities: &Capabilities,
    stop: &AtomicBool,
    watch: Watcher<'_>,
) -> Catch {
    let mut last = Catch { trap, tries: 0, finding: None, report: Err("it was not tried".to_owned()) };
    while last.tries < TRIES_MAX && !stop.load(Ordering::Relaxed) {
        let seed = seed.wrapping_add(last.tries);
        last.tries += 1;
        match run::run(&order(trap, directory, seed), capabilities, stop, watch) {
            Ok(outcome) => {
                last.finding = caught(trap, &outcome).cloned();
                last.report = Ok(outcome.report);
            }
            Err(error) => last.report = Err(format!("{error:#}")),
        }
        if last.finding.is_some() {
            break;
        }
    }
    last
}

fn order(trap: &Trap, directory: &Path, seed: u64) -> Order {
    Order {
        workload: trap.workload.to_owned(),
        nemeses: trap.nemesis_names(),
        nodes: trap.nodes,
        time: Duration::from_secs(trap.seconds),
        rate: trap.rate,
        processes: trap.processes,
        seed,
        storage: Storage::Memory,
        canaries: vec![trap.canary.to_owned()],
        flags: trap.flags.iter().map(|flag| (*flag).to_owned()).collect(),
        until_exit: trap.caught_by.contains(&"exits"),
        directory: directory.join(format!("{}-{seed}", trap.canary)),
    }
}

/// The finding that shows the canary. What could not be decided shows nothing.
fn caught<'o>(trap: &Trap, outcome: &'o Outcome) -> Option<&'o Finding> {
    let shows = |finding: &&Finding| {
        finding.verdict == Verdict::Violation && trap.caught_by.contains(&finding.check.as_str())
    };
    outcome.recorded.results.findings.iter().find(shows)
}

#[cfg(test)]
mod tests {
    use ringfence_canary::Canary;

    use super::{Capabilities, RETRYING_CLIENTS, TRAPS, traps};
    use crate::{nemesis, workload};

    #[test]
    fn every_trap_is_set_with_what_there_is() {
        for trap in TRAPS {
            assert!(
                trap.canary == RETRYING_CLIENTS || Canary::from_name(trap.canary).is_some(),
                "there is no canary {}",
                trap.canary
            );
            assert!(workload::named(trap.workload).is_ok(), "{} cannot be chosen", trap.workload);
            for name in trap.nemeses.iter().flat_map(|names| names.split('+')) {
                assert!(nemesis::by_name(name).is_some(), "there is no nemesis {name}");
            }
            assert!(!trap.caught_by.is_empty());
        }
    }

    #[test]
    fn a_trap_that_the_machine_cannot_set_says_what_it_lacks() {
        let nothing = Capabilities::none("this is a test");
        let trap = |name: &str| traps(&[name.to_owned()]).expect("there is one")[0];
        trap("compare-skipped").can_be_set(&nothing).expect("it needs nothing");
        let error = trap("local-read").can_be_set(&nothing).expect_err("it cuts links").to_string();
        assert!(error.contains("network") && error.contains("this is a test"), "{error}");
    }

    #[test]
    fn a_canary_without_a_trap_is_a_clear_error() {
        assert_eq!(traps(&[]).expect("all of them").len(), TRAPS.len());
        let error = traps(&["cuckoo".to_owned()]).expect_err("there is none").to_string();
        assert!(error.contains("cuckoo") && error.contains("lying-sync"), "{error}");
    }
}
