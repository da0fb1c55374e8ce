//! Workloads: what clients do, and what of it must hold whatever happens to the cluster.
//!
//! Reading order: [`operation`], [`keys`] (when a key is given up for another), `guarded` (transactions), then one workload
//! a file, and [`second`], another project's opinion on transactions.

mod bank;
mod counter;
mod guarded;
pub mod keys;
mod lease;
mod list_append;
mod lock;
pub mod operation;
mod register;
pub mod second;
mod set;
mod watch;

use std::sync::Arc;

use anyhow::bail;
use ringfence_checker::{Budget, Event, Finding};
use serde_json::Value;

use crate::client::{Caller, Failure, Request};

pub use operation::{Done, Operation};

/// A workload. It is shared by all processes; what changes while it goes on is its generator's.
#[tonic::async_trait]
pub trait Workload: Send + Sync {
    /// What must be in the store before the load begins; done again until it is answered, so twice must be as once.
    fn founding(&self) -> Option<Request> {
        None
    }

    /// Where its operations come from. The same seed draws the same ones.
    fn generator(&self, seed: u64) -> Box<dyn Generator>;

    /// Does one operation.
    ///
    /// # Errors
    /// A [`Failure`], which says whether the operation may have changed something.
    async fn perform(&self, operation: &Operation, caller: &mut Caller) -> Result<Done, Failure>;

    /// Judges what clients saw.
    fn check(&self, history: &[Event], budget: Budget<'_>) -> Vec<Finding> {
        ringfence_checker::judge(history, budget)
    }
}

/// Draws operations.
pub trait Generator: Send {
    /// The next one.
    fn next(&mut self) -> Operation;

    /// Hears of one that has no outcome.
    fn indefinite(&mut self, _operation: &Operation) {}

    /// What is read through every node once the cluster is healthy again, so that what was acknowledged and lost is seen.
    fn final_reads(&self) -> Vec<Operation>;
}

/// A value as it was stored: JSON, as everything that workloads store. What is none was never stored, and is shown to the
/// checkers as the text that it is.
fn stored(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::from(text))
}

/// A workload's entry in the list.
#[derive(Clone, Copy)]
pub struct Entry {
    /// How it is chosen.
    pub name: &'static str,
    /// What it does and what it shows, in a sentence.
    pub description: &'static str,
    make: Option<fn() -> Arc<dyn Workload>>,
}

impl Entry {
    const fn ready(name: &'static str, description: &'static str, make: fn() -> Arc<dyn Workload>) -> Entry {
        Entry { name, description, make: Some(make) }
    }

    const fn reserved(name: &'static str) -> Entry {
        Entry { name, description: "comes with its feature", make: None }
    }

    /// Whether it can be chosen today.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.make.is_some()
    }
}

/// All workloads by name, those that later features bring included.
#[must_use]
pub fn registry() -> &'static [Entry] {
    const REGISTRY: &[Entry] = &[
        Entry::ready(
            "register",
            "read, write, compare-and-set and delete single keys: each key must be linearizable",
            || Arc::new(register::Register),
        ),
        Entry::ready(
            "counter",
            "add to counters in guarded transactions: nothing may be added twice or lost",
            || Arc::new(counter::Counter),
        ),
        Entry::ready(
            "set",
            "add elements, read all: what was acknowledged stays, nothing else appears",
            || Arc::new(set::Set),
        ),
        Entry::ready(
            "list-append",
            "transactions that append to lists and read them: they must be strictly serializable",
            || Arc::new(list_append::ListAppend),
        ),
        Entry::ready("bank", "move money between accounts: every read must show the same total", || {
            Arc::new(bank::Bank)
        }),
        Entry::ready(
            "lock",
            "take locks and write under them, with tokens in force and with old ones: no old token may count",
            || Arc::new(lock::Lock::default()),
        ),
        Entry::ready(
            "lease",
            "grant leases, keep some alive, look at all: none may end early, and none late",
            || Arc::new(lease::Lease::default()),
        ),
        Entry::ready(
            "watch",
            "write keys, one or several at once, and watch them from then on or before: each change is told once, in order, whole",
            || Arc::new(watch::Watch::default()),
        ),
        Entry::reserved("membership"),
    ];
    REGISTRY
}

/// The workload of this name.
///
/// # Errors
/// Where there is none, or its feature does not exist yet.
pub fn named(name: &str) -> anyhow::Result<Arc<dyn Workload>> {
    match registry().iter().find(|entry| entry.name == name) {
        Some(Entry { make: Some(make), .. }) => Ok(make()),
        Some(_) => bail!("the workload {name} comes with its feature; today there are {}", ready_names()),
        None => bail!("there is no workload {name:?}; there are {}", ready_names()),
    }
}

fn ready_names() -> String {
    let names: Vec<&str> =
        registry().iter().filter(|entry| entry.is_ready()).map(|entry| entry.name).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_described() {
        let names: HashSet<&str> = registry().iter().map(|entry| entry.name).collect();
        assert_eq!(names.len(), registry().len());
        assert!(registry().iter().all(|entry| !entry.description.is_empty()));
    }

    #[test]
    fn a_workload_to_come_is_a_clear_error() {
        for entry in registry() {
            assert_eq!(named(entry.name).is_ok(), entry.is_ready(), "{}", entry.name);
        }
        let error = named("membership").err().expect("it does not exist yet").to_string();
        assert!(error.contains("comes with its feature") && error.contains("register, counter"), "{error}");
        let error = named("regsiter").err().expect("it is misspelt").to_string();
        assert!(error.contains("no workload \"regsiter\"") && error.contains("list-append"), "{error}");
    }

    #[test]
    fn the_same_seed_draws_the_same_operations_and_another_seed_others() {
        // What has been drawn and answered is a part of what some workloads draw from: each begins anew.
        let drawn = |name, seed| {
            let mut generator = named(name).expect("it is ready").generator(seed);
            (0..200).map(|_| generator.next()).collect::<Vec<_>>()
        };
        for entry in registry().iter().filter(|entry| entry.is_ready()) {
            assert!(drawn(entry.name, 1) == drawn(entry.name, 1), "{}", entry.name);
            assert!(drawn(entry.name, 1) != drawn(entry.name, 2), "{}", entry.name);
        }
    }
}
