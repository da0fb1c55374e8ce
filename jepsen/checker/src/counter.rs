//! Counters: a read lies between what was surely added before it and what can have been added by its end (as Jepsen's
//! `counter`), counted from nothing and counted from the last read that was over before it.

use std::collections::{BTreeMap, HashSet};

use crate::history::Function;
use crate::operation::{Malformed, Operation};
use crate::verdict::{Counterexample, Finding};
use crate::words::count;

const CHECK: &str = "counter";

/// Whether reads of counters show what was added to them; none: there are no counters, keys that are added to and read.
///
/// # Errors
/// If an amount or a count is no whole number.
pub fn check(operations: &[Operation<'_>]) -> Result<Option<Finding>, Malformed> {
    let read = |operation: &&Operation<'_>| operation.f == Function::Read;
    let keys: HashSet<Option<&str>> = operations.iter().filter(read).map(|read| read.key).collect();
    let mut counters: BTreeMap<Option<&str>, (Vec<Add<'_, '_>>, Vec<Read<'_, '_>>)> = BTreeMap::new();
    for operation in operations.iter().filter(|add| add.f == Function::Add && keys.contains(&add.key)) {
        let adds = &mut counters.entry(operation.key).or_default().0;
        adds.extend(Add::of(operation)?);
    }
    for operation in operations.iter().filter(read) {
        if let Some((_, reads)) = counters.get_mut(&operation.key) {
            reads.extend(Read::of(operation)?);
        }
    }
    let findings = counters.into_values().map(|(adds, reads)| Counter::new(adds, reads).find());
    Ok(findings.max_by_key(|finding| finding.verdict))
}

/// An add that may have had an effect.
struct Add<'o, 'h> {
    operation: &'o Operation<'h>,
    amount: i64,
}

struct Read<'o, 'h> {
    operation: &'o Operation<'h>,
    value: i64,
    end: u64,
}

impl<'o, 'h> Add<'o, 'h> {
    fn of(operation: &'o Operation<'h>) -> Result<Option<Self>, Malformed> {
        let amount = operation.asked.as_i64();
        let amount = amount.ok_or_else(|| operation.malformed("an amount is a whole number"))?;
        Ok(operation.possible().then_some(Add { operation, amount }))
    }
}

impl<'o, 'h> Read<'o, 'h> {
    fn of(operation: &'o Operation<'h>) -> Result<Option<Self>, Malformed> {
        let (Some(end), Some(answer)) = (operation.acknowledged(), operation.answer) else { return Ok(None) };
        let value = if answer.is_null() { Some(0) } else { answer.as_i64() };
        let value = value.ok_or_else(|| operation.malformed("a count is a whole number"))?;
        Ok(Some(Read { operation, value, end }))
    }
}

/// A sum of gains and a sum of losses.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    gain: i64,
    loss: i64,
}

impl Sum {
    fn plus(self, amount: i64) -> Sum {
        Sum { gain: self.gain + amount.max(0), loss: self.loss + amount.min(0) }
    }
}

/// Sums over time.
struct Running {
    /// At each time, the sum up to and with it.
    totals: Vec<(u64, Sum)>,
}

impl Running {
    fn new(amounts: impl Iterator<Item = (u64, i64)>) -> Running {
        let mut amounts: Vec<(u64, i64)> = amounts.collect();
        amounts.sort_unstable();
        let add = |sum: &mut Sum, (time, amount)| {
            *sum = sum.plus(amount);
            Some((time, *sum))
        };
        Running { totals: amounts.into_iter().scan(Sum::default(), add).collect() }
    }

    fn before(&self, time: u64) -> Sum {
        let place = self.totals.partition_point(|(at, _)| *at < time);
        place.checked_sub(1).map(|last| self.totals[last].1).unwrap_or_default()
    }

    fn until(&self, time: u64) -> Sum {
        self.before(time.saturating_add(1))
    }
}

/// One counter's adds, in the order of their starts, and reads, in the order of their ends.
struct Counter<'o, 'h> {
    adds: Vec<Add<'o, 'h>>,
    reads: Vec<Read<'o, 'h>>,
    by_start: Running,
    by_acknowledgement: Running,
}

impl<'o, 'h> Counter<'o, 'h> {
    fn new(mut adds: Vec<Add<'o, 'h>>, mut reads: Vec<Read<'o, 'h>>) -> Self {
        adds.sort_by_key(|add| add.operation.start);
        reads.sort_by_key(|read| read.end);
        let by_start = Running::new(adds.iter().map(|add| (add.operation.start, add.amount)));
        let acknowledged = |add: &Add<'_, '_>| add.operation.acknowledged().map(|end| (end, add.amount));
        let by_acknowledgement = Running::new(adds.iter().filter_map(acknowledged));
        Counter { adds, reads, by_start, by_acknowledgement }
    }

    fn find(&self) -> Finding {
        let all = format!("{}, {}", count(self.adds.len(), "possible add"), count(self.reads.len(), "read"));
        if let Some(picture) = self.reads.iter().find_map(|read| self.wrong(read)) {
            return Finding::violation(CHECK, format!("{all}: {}", picture.explanation), picture);
        }
        let last = self.adds.iter().filter_map(|add| add.operation.acknowledged()).max().unwrap_or(0);
        let is_final =
            |read: &Read<'_, '_>| read.operation.freshness.is_linearizable() && read.operation.start > last;
        match self.reads.iter().rev().find(|read| is_final(read)) {
            Some(read) => Finding::ok(CHECK, format!("{all}: all within bounds, {} at the end", read.value)),
            None => Finding::unknown(CHECK, format!("{all}: no read after the last acknowledged add")),
        }
    }

    fn wrong(&self, read: &Read<'o, 'h>) -> Option<Counterexample> {
        let possible = self.by_start.until(read.end);
        if !read.operation.freshness.is_linearizable() {
            return self.outside(read, None, possible.loss, possible.gain);
        }
        let certain = self.by_acknowledgement.before(read.operation.start);
        let (low, high) = (certain.gain + possible.loss, possible.gain + certain.loss);
        let over = self.reads.partition_point(|earlier| earlier.end < read.operation.start);
        let earlier = over.checked_sub(1).map(|last| &self.reads[last]);
        let since = earlier.filter(|earlier| earlier.operation.freshness.is_linearizable());
        since
            .and_then(|earlier| self.wrong_since(earlier, read))
            .or_else(|| self.outside(read, None, low, high))
    }

    /// Checks a read against a read that was over before it.
    fn wrong_since(&self, earlier: &Read<'o, 'h>, read: &Read<'o, 'h>) -> Option<Counterexample> {
        let between =
            self.adds.iter().skip(self.adds.partition_point(|add| add.operation.start <= earlier.end));
        let between = between.take_while(|add| add.operation.start < read.operation.start);
        let certain = between
            .filter(|add| add.operation.acknowledged_before(read.operation.start))
            .fold(Sum::default(), |sum, add| sum.plus(add.amount));
        let by_end = self.by_start.until(read.end);
        let counted = self.by_acknowledgement.before(earlier.operation.start);
        let low = earlier.value + certain.gain + by_end.loss - counted.loss;
        let high = earlier.value + certain.loss + by_end.gain - counted.gain;
        self.outside(read, Some(earlier), low, high)
    }

    fn outside(
        &self,
        read: &Read<'o, 'h>,
        since: Option<&Read<'o, 'h>>,
        low: i64,
        high: i64,
    ) -> Option<Counterexample> {
        if (low..=high).contains(&read.value) {
            return None;
        }
        let matters = |add: &&Add<'_, '_>| {
            let counted = since.is_some_and(|since| add.operation.acknowledged_before(since.operation.start));
            let in_time = if read.value < low {
                add.operation.acknowledged_before(read.operation.start)
            } else {
                add.operation.start <= read.end
            };
            in_time && !counted
        };
        let adds = self.adds.iter().filter(matters).map(|add| add.operation);
        let shown: Vec<&Operation<'_>> =
            [read.operation].into_iter().chain(since.map(|read| read.operation)).chain(adds).collect();
        let after = since.map_or_else(String::new, |since| format!(" after {}", since.operation.in_words()));
        let right = if low == high { low.to_string() } else { format!("{low} to {high}") };
        let why = format!("{}{after}, which should be {right}.", read.operation.in_words());
        Some(Counterexample::new(why, &shown, 0))
    }
}
