//! Linearizability of registers (Herlihy & Wing, "Linearizability: a correctness condition for concurrent objects",
//! 1990), one key at a time: a history is linearizable if and only if each key's part of it is (section 3.2 there).
//!
//! Reads that asked for less are not part of it. Reads of `max-age=T` have a question of their own, [`check_aged`]: they
//! are linearizable reads that may have begun T earlier.

mod register;
mod search;
mod shrink;

use std::collections::{BTreeMap, BTreeSet};

use register::{ABSENT, Register, Sees, Step};
use search::{Outcome, search};
use shrink::shrink;

use crate::budget::Budget;
use crate::freshness::Freshness;
use crate::history::Function;
use crate::operation::{Malformed, Operation};
use crate::verdict::{Counterexample, Finding};
use crate::words::{count, duration};

/// Whether all linearizable operations on registers have an order; none: there are no registers.
///
/// # Errors
/// If an operation has the wrong form.
pub fn check(operations: &[Operation<'_>], budget: Budget<'_>) -> Result<Option<Finding>, Malformed> {
    let registers = registers(operations, Freshness::is_linearizable)?;
    if registers.is_empty() {
        return Ok(None);
    }
    find("linearizable", &registers, budget).map(Some)
}

/// Whether they still have one together with the reads of bounded age; none: there are no such reads.
///
/// # Errors
/// If an operation has the wrong form.
pub fn check_aged(operations: &[Operation<'_>], budget: Budget<'_>) -> Result<Option<Finding>, Malformed> {
    let asked = |freshness| matches!(freshness, Freshness::Linearizable | Freshness::MaxAge(_));
    let mut registers = registers(operations, asked)?;
    registers.retain(|_, operations| operations.iter().any(|one| !one.freshness.is_linearizable()));
    if registers.is_empty() {
        return Ok(None);
    }
    find("max-age", &registers, budget).map(Some)
}

/// The operations of each register that ask for one of these freshnesses. A key that something is added to is none, nor is one
/// that is written together with others.
fn registers<'h>(
    operations: &[Operation<'h>],
    asked: impl Fn(Freshness) -> bool,
) -> Result<BTreeMap<&'h str, Vec<Operation<'h>>>, Malformed> {
    let added = |operation: &&Operation<'h>| operation.f == Function::Add;
    let mut not_registers: BTreeSet<Option<&str>> =
        operations.iter().filter(added).map(|add| add.key).collect();
    let together = operations.iter().filter(|operation| operation.f == Function::WriteAll);
    let keys = together.filter_map(|write| write.asked.as_object()).flat_map(|values| values.keys());
    not_registers.extend(keys.map(|key| Some(key.as_str())));
    let mut registers: BTreeMap<&str, Vec<Operation<'_>>> = BTreeMap::new();
    for operation in operations {
        let on_key =
            matches!(operation.f, Function::Read | Function::Write | Function::Cas | Function::Delete);
        if on_key && !not_registers.contains(&operation.key) {
            let key = operation.key()?;
            if asked(operation.freshness) {
                registers.entry(key).or_default().push(*operation);
            }
        }
    }
    Ok(registers)
}

/// A key without an order.
struct Broken<'a, 'h> {
    key: &'h str,
    operations: &'a [Operation<'h>],
    register: Register,
    stuck: usize,
}

fn find(
    check: &str,
    registers: &BTreeMap<&str, Vec<Operation<'_>>>,
    budget: Budget<'_>,
) -> Result<Finding, Malformed> {
    let mut broken = Vec::new();
    let mut undecided = Vec::new();
    let mut steps = 0;
    for (key, operations) in registers {
        let register = Register::new(operations)?;
        steps += register.steps.len();
        match search(&register.steps, &mut budget.meter()) {
            Outcome::Linearizable => {}
            Outcome::Stuck(stuck) => {
                broken.push(Broken { key, operations: operations.as_slice(), register, stuck })
            }
            Outcome::Exhausted => undecided.push(*key),
        }
    }
    let all = format!("{} on {}", count(steps, "operation"), count(registers.len(), "key"));
    // The one that goes wrong first is likely to be told in the fewest steps.
    if let Some(first) = broken.iter().min_by_key(|broken| broken.register.steps[broken.stuck].end) {
        let summary =
            format!("{all}: {} without an order, key {} first", count(broken.len(), "key"), first.key);
        return Ok(Finding::violation(check, summary, picture(first, budget)));
    }
    if !undecided.is_empty() {
        let summary = format!("{all}: undecided within the budget: {}", undecided.join(", "));
        return Ok(Finding::unknown(check, summary));
    }
    Ok(Finding::ok(check, format!("{all}: each key has an order")))
}

fn picture(broken: &Broken<'_, '_>, budget: Budget<'_>) -> Counterexample {
    let Broken { key, operations, register, stuck } = broken;
    let smallest = shrink(&register.steps, *stuck, &mut budget.meter());
    let shown: Vec<&Operation<'_>> =
        smallest.steps.iter().map(|step| &operations[register.origin[*step]]).collect();
    let culprit = smallest.steps.iter().position(|step| *step == smallest.culprit);
    let culprit = culprit.expect("the step that cannot be placed is one of the steps");
    let steps: Vec<_> = smallest.steps.iter().map(|step| register.steps[*step]).collect();
    Counterexample::new(format!("Key {key}: {}", explain(&shown, &steps, culprit)), &shown, culprit)
}

/// Why the culprit has no place, as far as that can be said in a sentence.
fn explain(operations: &[&Operation<'_>], steps: &[Step], culprit: usize) -> String {
    let (operation, step) = (operations[culprit], steps[culprit]);
    let what = operation.in_words();
    if let Sees::Exactly(seen) = step.sees {
        let writes_it = |other: &usize| *other != culprit && steps[*other].writes == Some(seen);
        if seen != ABSENT && !(0..steps.len()).any(|other| writes_it(&other)) {
            return format!("{what}, which nothing had written by then.");
        }
        let before = |other: &usize| {
            let shows = steps[*other].writes.or(match steps[*other].sees {
                Sees::Exactly(symbol) => Some(symbol),
                _ => None,
            });
            operations[*other].acknowledged_before(step.start) && shows.is_some_and(|shows| shows != seen)
        };
        if let Some(last) = (0..steps.len()).filter(before).max_by_key(|other| steps[*other].end) {
            let late = duration(operation.start - steps[last].end.unwrap_or(operation.start));
            return format!("{what}, although {} was over {late} before.", operations[last].in_words());
        }
        let replaces =
            |at: usize| seen != ABSENT && steps[at].sees == Sees::Exactly(seen) && steps[at].writes.is_some();
        if let Some(rival) = (0..steps.len()).find(|other| *other != culprit && replaces(*other))
            && replaces(culprit)
        {
            let rival = operations[rival].in_words();
            return format!("{what}, although {rival} replaced the same value, which was there only once.");
        }
    }
    format!("no order of operations explains {what}.")
}
