//! Sets that only grow: nothing acknowledged is lost, nothing is invented, nothing is there twice (as Jepsen's
//! `set-full`).

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::Value;

use crate::history::Function;
use crate::operation::{Malformed, Operation};
use crate::verdict::{Counterexample, Finding};
use crate::words::count;

const CHECK: &str = "set";

/// Whether reads of sets show what was added to them; none: there are no sets.
///
/// # Errors
/// If an answer is no list.
pub fn check(operations: &[Operation<'_>]) -> Result<Option<Finding>, Malformed> {
    let counted = |operation: &&Operation<'_>| operation.f == Function::Read;
    let counters: HashSet<Option<&str>> = operations.iter().filter(counted).map(|read| read.key).collect();
    let mut sets: BTreeMap<Option<&str>, Set<'_, '_>> = BTreeMap::new();
    for operation in operations.iter().filter(|add| add.f == Function::Add && !counters.contains(&add.key)) {
        sets.entry(operation.key).or_default().add(operation);
    }
    for operation in operations.iter().filter(|operation| operation.f == Function::ReadAll) {
        if operation.answer.is_some_and(Value::is_array) || sets.contains_key(&operation.key) {
            sets.entry(operation.key).or_default().read(operation)?;
        }
    }
    let findings: Vec<Finding> = sets.values().map(Set::find).collect();
    Ok(findings.into_iter().max_by_key(|finding| finding.verdict))
}

/// One set's adds and reads.
#[derive(Default)]
struct Set<'o, 'h> {
    elements: HashMap<&'h Value, Element<'o, 'h>>,
    /// In the order in which they were first tried, so that answers do not depend on a hash.
    order: Vec<&'h Value>,
    reads: Vec<Read<'o, 'h>>,
    last_acknowledged: u64,
}

#[derive(Default)]
struct Element<'o, 'h> {
    adds: Vec<&'o Operation<'h>>,
    /// The first answer to show that it is in, and when that was over.
    known: Option<(u64, &'o Operation<'h>)>,
}

struct Read<'o, 'h> {
    operation: &'o Operation<'h>,
    end: u64,
    elements: Vec<&'h Value>,
}

impl<'o, 'h> Element<'o, 'h> {
    fn know(&mut self, end: u64, by: &'o Operation<'h>) {
        if self.known.is_none_or(|(known, _)| end < known) {
            self.known = Some((end, by));
        }
    }
}

impl<'o, 'h> Set<'o, 'h> {
    fn add(&mut self, add: &'o Operation<'h>) {
        let element = self.elements.entry(add.asked).or_insert_with(|| {
            self.order.push(add.asked);
            Element::default()
        });
        element.adds.push(add);
        if let Some(end) = add.acknowledged() {
            element.know(end, add);
            self.last_acknowledged = self.last_acknowledged.max(end);
        }
    }

    fn read(&mut self, operation: &'o Operation<'h>) -> Result<(), Malformed> {
        let (Some(end), Some(answer)) = (operation.acknowledged(), operation.answer) else { return Ok(()) };
        let elements = match answer {
            Value::Array(elements) => elements.iter().collect(),
            Value::Null => Vec::new(),
            _ => return Err(operation.malformed("a set is read as a list")),
        };
        for value in &elements {
            if let Some(element) = self.elements.get_mut(value) {
                element.know(end, operation);
            }
        }
        self.reads.push(Read { operation, end, elements });
        Ok(())
    }

    fn find(&self) -> Finding {
        let known = self.elements.values().filter(|element| element.known.is_some()).count();
        let all = format!("{} known to be in, {}", count(known, "element"), count(self.reads.len(), "read"));
        let broken = self.reads.iter().find_map(|read| self.wrong(read).or_else(|| self.lost(read)));
        if let Some(picture) = broken {
            return Finding::violation(CHECK, format!("{all}: {}", picture.explanation), picture);
        }
        let is_final = |read: &Read<'_, '_>| {
            read.operation.freshness.is_linearizable() && read.operation.start > self.last_acknowledged
        };
        if self.reads.iter().any(is_final) {
            Finding::ok(CHECK, format!("{all}: nothing lost, nothing invented"))
        } else {
            Finding::unknown(CHECK, format!("{all}: no read after the last acknowledged add"))
        }
    }

    /// An element that is there twice, or cannot be there.
    fn wrong(&self, read: &Read<'_, 'h>) -> Option<Counterexample> {
        let mut met = HashSet::new();
        for value in &read.elements {
            let adds = self.elements.get(value).map(|element| element.adds.as_slice()).unwrap_or_default();
            let what = format!("read-all at {}", read.operation.place());
            let reason = if !met.insert(*value) {
                format!("{what} found {value} twice.")
            } else if adds.is_empty() {
                format!("{what} found {value}, which nobody ever added.")
            } else if !adds.iter().any(|add| add.possible()) {
                format!("{what} found {value}, which had surely not been added.")
            } else if !adds.iter().any(|add| add.possible() && add.start <= read.end) {
                format!("{what} found {value}, which was added only afterwards.")
            } else {
                continue;
            };
            let shown: Vec<&Operation<'_>> = adds.iter().copied().chain([read.operation]).collect();
            return Some(Counterexample::new(reason, &shown, shown.len() - 1));
        }
        None
    }

    /// Elements that a fresh read should have found.
    fn lost(&self, read: &Read<'_, 'h>) -> Option<Counterexample> {
        if !read.operation.freshness.is_linearizable() {
            return None;
        }
        let found: HashSet<&Value> = read.elements.iter().copied().collect();
        let mut lost = self.order.iter().filter_map(|value| {
            let (known, by) = self.elements[value].known?;
            (known < read.operation.start && !found.contains(value)).then_some((value, by))
        });
        let (value, by) = lost.next()?;
        let others = match lost.count() {
            0 => String::new(),
            others => format!(" (nor {})", count(others, "other")),
        };
        let shown = if by.f == Function::Add { "acknowledged" } else { "read" };
        let why = format!(
            "read-all at {} did not find {value}{others}, which had been {shown} before.",
            read.operation.place()
        );
        let mut bars: Vec<&Operation<'_>> = vec![by, read.operation];
        bars.extend(self.elements[value].adds.iter().filter(|add| add.event != by.event));
        Some(Counterexample::new(why, &bars, 1))
    }
}
