//! Transactions of appends and reads of lists (Kingsbury & Alvaro, "Elle: inferring isolation anomalies from experimental
//! observations", VLDB 2020, sections 3 to 5), checked for strict serializability.
//!
//! Each element is appended once, so a list tells the order of the writes to its key, and that gives the dependencies
//! between transactions: `graph` looks for cycles in them. What no order can mend is looked for before that: elements
//! that appear from nowhere, from failed or unfinished transactions, twice, or in two orders.

mod components;
mod graph;

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::Value;

use crate::history::{Function, Kind};
use crate::operation::{Malformed, Operation};
use crate::verdict::{Counterexample, Finding};
use crate::words::count;

const CHECK: &str = "list-append";

/// An element of a list.
pub type Element = i64;

/// One part of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Micro<'h> {
    /// Appends to the list of a key.
    Append(&'h str, Element),
    /// Reads the list of a key; none: nobody knows what it found.
    Read(&'h str, Option<Vec<Element>>),
}

/// A transaction, with what it found where it is ok.
#[derive(Debug, Clone)]
pub struct Transaction<'o, 'h> {
    /// The operation that it is.
    pub operation: &'o Operation<'h>,
    /// Its parts, in their order.
    pub micros: Vec<Micro<'h>>,
}

impl<'o, 'h> Transaction<'o, 'h> {
    fn of(operation: &'o Operation<'h>) -> Result<Self, Malformed> {
        let value = operation.answer.unwrap_or(operation.asked);
        let micros = value.as_array().ok_or_else(|| operation.malformed("a transaction is a list"))?;
        let micro = |value| {
            let malformed = || {
                operation.malformed("a part of a transaction is [\"append\",key,number] or [\"r\",key,list]")
            };
            micro(value, operation.kind == Kind::Ok).ok_or_else(malformed)
        };
        Ok(Transaction { operation, micros: micros.iter().map(micro).collect::<Result<_, _>>()? })
    }

    fn appends(&self) -> impl Iterator<Item = (&'h str, Element)> {
        self.micros.iter().filter_map(|micro| match micro {
            Micro::Append(key, element) => Some((*key, *element)),
            Micro::Read(..) => None,
        })
    }

    fn reads(&self) -> impl Iterator<Item = (&'h str, &[Element])> {
        self.micros.iter().filter_map(|micro| match micro {
            Micro::Read(key, Some(list)) => Some((*key, list.as_slice())),
            Micro::Append(..) | Micro::Read(_, None) => None,
        })
    }

    fn picture(&self, reason: &str) -> Counterexample {
        Counterexample::new(format!("{} {reason}.", self.operation.in_words()), &[self.operation], 0)
    }

    fn picture_with(&self, other: &Transaction<'_, '_>, reason: &str) -> Counterexample {
        let why = format!("{} {reason} {}.", self.operation.in_words(), other.operation.in_words());
        Counterexample::new(why, &[other.operation, self.operation], 1)
    }
}

fn micro(value: &Value, known: bool) -> Option<Micro<'_>> {
    let [name, key, value] = value.as_array()?.as_slice() else { return None };
    let key = key.as_str()?;
    match name.as_str()? {
        "append" => Some(Micro::Append(key, value.as_i64()?)),
        "r" if !known => Some(Micro::Read(key, None)),
        "r" if value.is_null() => Some(Micro::Read(key, Some(Vec::new()))),
        "r" => {
            let list: Option<Vec<Element>> = value.as_array()?.iter().map(Value::as_i64).collect();
            Some(Micro::Read(key, Some(list?)))
        }
        _ => None,
    }
}

/// All transactions of a history, in the order of their invocations.
///
/// # Errors
/// If one has the wrong form.
pub fn transactions<'o, 'h>(operations: &'o [Operation<'h>]) -> Result<Vec<Transaction<'o, 'h>>, Malformed> {
    operations.iter().filter(|operation| operation.f == Function::Txn).map(Transaction::of).collect()
}

/// Whether the transactions are strictly serializable; none: there are none.
///
/// # Errors
/// If one has the wrong form, or an element is appended twice.
pub fn check(operations: &[Operation<'_>]) -> Result<Option<Finding>, Malformed> {
    let transactions = transactions(operations)?;
    if transactions.is_empty() {
        return Ok(None);
    }
    let lists = Lists::new(&transactions)?;
    let all =
        format!("{} on {}", count(transactions.len(), "transaction"), count(lists.longest.len(), "list"));
    let ok = |transaction: &&Transaction<'_, '_>| transaction.operation.kind == Kind::Ok;
    let known: Vec<&Transaction<'_, '_>> = transactions.iter().filter(ok).collect();
    let wrong =
        |transaction: &&Transaction<'_, '_>| inconsistent(transaction).or_else(|| lists.wrong(transaction));
    let own = lists.impossible().or_else(|| known.iter().find_map(wrong));
    Ok(Some(match own.or_else(|| graph::cycle(&transactions, &lists)) {
        Some(picture) => Finding::violation(CHECK, format!("{all}: {}", picture.explanation), picture),
        None if lists.longest.is_empty() => Finding::unknown(CHECK, format!("{all}: no list was ever read")),
        None => Finding::ok(CHECK, format!("{all}: strictly serializable")),
    }))
}

/// What all transactions together tell of the lists. Transactions are named by their places.
struct Lists<'t, 'o, 'h> {
    transactions: &'t [Transaction<'o, 'h>],
    /// Who appended an element to a key, and whether it was the last one that it appended there.
    writers: HashMap<(&'h str, Element), Writer>,
    /// The longest list that was read of each key, and who read it.
    longest: BTreeMap<&'h str, (&'t [Element], usize)>,
}

#[derive(Clone, Copy)]
struct Writer {
    transaction: usize,
    is_last: bool,
}

impl<'t, 'o, 'h> Lists<'t, 'o, 'h> {
    fn new(transactions: &'t [Transaction<'o, 'h>]) -> Result<Self, Malformed> {
        let mut lists = Lists { transactions, writers: HashMap::new(), longest: BTreeMap::new() };
        for (place, transaction) in transactions.iter().enumerate() {
            let appends: Vec<(&str, Element)> = transaction.appends().collect();
            for (index, (key, element)) in appends.iter().enumerate() {
                let is_last = !appends[index + 1..].iter().any(|(other, _)| other == key);
                if lists.writers.insert((key, *element), Writer { transaction: place, is_last }).is_some() {
                    let reason = format!("{element} is appended to {key} a second time");
                    return Err(transaction.operation.malformed(reason));
                }
            }
            for (key, list) in transaction.reads() {
                let longest = lists.longest.entry(key).or_insert((list, place));
                if list.len() > longest.0.len() {
                    *longest = (list, place);
                }
            }
        }
        Ok(lists)
    }

    /// An element that cannot be in a list. All lists of a key begin the longest one, so only that is looked through.
    fn impossible(&self) -> Option<Counterexample> {
        self.longest.iter().find_map(|(key, (list, reader))| {
            let reader = &self.transactions[*reader];
            let mut met = HashSet::new();
            list.iter().find_map(|element| {
                if !met.insert(element) {
                    return Some(reader.picture(&format!("found {element} twice in {key}")));
                }
                let Some(writer) = self.writers.get(&(*key, *element)) else {
                    return Some(
                        reader.picture(&format!("found {element} in {key}, which nobody ever appended")),
                    );
                };
                let writer = &self.transactions[writer.transaction];
                let aborted = !writer.operation.possible();
                let reason = || format!("found {element} in {key} (G1a, aborted read) of");
                aborted.then(|| reader.picture_with(writer, &reason()))
            })
        })
    }

    /// A list that does not begin the longest one, or ends where no transaction can have left it.
    fn wrong(&self, reader: &Transaction<'_, 'h>) -> Option<Counterexample> {
        reader.reads().find_map(|(key, list)| {
            let (longest, by) = self.longest[key];
            if !longest.starts_with(list) {
                let other = &self.transactions[by];
                return Some(reader.picture_with(other, &format!("read {key} in another order than")));
            }
            self.halfway(reader, key, list)
        })
    }

    /// A read between two appends of one other transaction.
    fn halfway(
        &self,
        reader: &Transaction<'_, 'h>,
        key: &'h str,
        list: &[Element],
    ) -> Option<Counterexample> {
        let writer = self.writers.get(&(key, *list.last()?))?;
        let other = &self.transactions[writer.transaction];
        let foreign = other.operation.event != reader.operation.event;
        (foreign && !writer.is_last).then(|| {
            reader.picture_with(other, &format!("read {key} (G1b, intermediate read) in the middle of"))
        })
    }
}

/// A transaction that does not find what it did or found itself before.
fn inconsistent(transaction: &Transaction<'_, '_>) -> Option<Counterexample> {
    // What a key's list must end with, and whether that is all of it.
    let mut expected: HashMap<&str, (Vec<Element>, bool)> = HashMap::new();
    for micro in &transaction.micros {
        match micro {
            Micro::Append(key, element) => expected.entry(key).or_default().0.push(*element),
            Micro::Read(_, None) => {}
            Micro::Read(key, Some(list)) => {
                if let Some((tail, whole)) = expected.get(key) {
                    let fits = if *whole { list == tail } else { list.ends_with(tail) };
                    if !fits {
                        return Some(
                            transaction.picture(&format!("does not find in {key} what it did itself")),
                        );
                    }
                }
                expected.insert(key, (list.clone(), true));
            }
        }
    }
    None
}
