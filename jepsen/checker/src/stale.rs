//! What every read of a register owes, however stale it may be: a value that was really there, and, where the answer has
//! a revision, the value of that revision. (Terry et al., "Session guarantees for weakly consistent replicated data",
//! 1994: a read shows a prefix of the writes. That a revision asked for is reached, `revisions` checks.)

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::Value;

use crate::history::{Function, Kind};
use crate::operation::{Malformed, Operation};
use crate::verdict::{Counterexample, Finding};
use crate::words::count;

const CHECK: &str = "stale-reads";

/// Whether reads show what was written; none: no read asked for less than linearizable, or tells its revision.
///
/// # Errors
/// If an operation has the wrong form.
pub fn check(operations: &[Operation<'_>]) -> Result<Option<Finding>, Malformed> {
    let versions = versions(operations)?;
    let (mut reads, mut broken) = (0, Vec::new());
    let unwritten = Versions::default();
    let added = |operation: &&Operation<'_>| operation.f == Function::Add;
    let counters: HashSet<Option<&str>> = operations.iter().filter(added).map(|add| add.key).collect();
    let of_register = |read: &&Operation<'_>| read.f == Function::Read && !counters.contains(&read.key);
    for read in operations.iter().filter(of_register) {
        let (Some(end), Some(value)) = (read.acknowledged(), read.answer) else { continue };
        let versions = versions.get(read.key()?).unwrap_or(&unwritten);
        if !read.freshness.is_linearizable() || read.revision.is_some() {
            reads += 1;
            broken.extend(versions.invented(read, value, end).or_else(|| versions.misplaced(read, value)));
        }
    }
    if reads == 0 {
        return Ok(None);
    }
    let all = count(reads, "read");
    let wrong = broken.len();
    Ok(Some(match broken.into_iter().min_by_key(|picture| picture.bars.len()) {
        Some(picture) => Finding::violation(
            CHECK,
            format!("{all}: {wrong} wrong, such as: {}", picture.explanation),
            picture,
        ),
        None => Finding::ok(CHECK, format!("{all}: each shows what was there once, at its revision")),
    }))
}

/// What was written to one key.
#[derive(Default)]
struct Versions<'o, 'h> {
    /// Who wrote, or tried to write, a value; null is what deletes write.
    writers: HashMap<&'h Value, Vec<&'o Operation<'h>>>,
    /// The changes whose revision is known, and what they wrote.
    known: BTreeMap<u64, (&'o Operation<'h>, &'h Value)>,
}

fn versions<'o, 'h>(
    operations: &'o [Operation<'h>],
) -> Result<HashMap<&'h str, Versions<'o, 'h>>, Malformed> {
    let mut keys: HashMap<&str, Versions<'_, '_>> = HashMap::new();
    for operation in operations {
        let written = match operation.f {
            Function::Write => operation.asked,
            Function::Delete => &Value::Null,
            Function::Cas if operation.applied == Some(false) => continue,
            Function::Cas => {
                operation.asked.get(1).ok_or_else(|| operation.malformed("the value of a cas is a pair"))?
            }
            _ => continue,
        };
        let versions = keys.entry(operation.key()?).or_default();
        versions.writers.entry(written).or_default().push(operation);
        if let Some(revision) = operation.revision.filter(|_| operation.made_revision()) {
            versions.known.insert(revision, (operation, written));
        }
    }
    Ok(keys)
}

impl<'h> Versions<'_, 'h> {
    fn writers(&self, value: &'h Value) -> impl Iterator<Item = &Operation<'h>> {
        self.writers.get(value).into_iter().flatten().copied()
    }

    /// A value that cannot have been there when the read ended.
    fn invented(&self, read: &Operation<'h>, value: &'h Value, end: u64) -> Option<Counterexample> {
        let written = |writer: &Operation<'h>| writer.possible() && writer.start <= end;
        if value.is_null() || self.writers(value).any(written) {
            return None;
        }
        let what = read.in_words();
        Some(match self.writers(value).next() {
            Some(writer) if writer.kind == Kind::Fail => {
                let why = format!("{what}, which had surely not been written.");
                Counterexample::new(why, &[writer, read], 1)
            }
            Some(writer) => {
                let why = format!("{what}, which was written only afterwards.");
                Counterexample::new(why, &[writer, read], 1)
            }
            None => Counterexample::new(format!("{what}, which nobody ever wrote."), &[read], 0),
        })
    }

    /// A value that was not there at the revision of the answer, although all its writers' revisions are known.
    fn misplaced(&self, read: &Operation<'h>, value: &'h Value) -> Option<Counterexample> {
        let revision = read.revision?;
        let newest = self.known.range(..=revision).next_back().map(|(at, version)| (*at, *version));
        let there = newest.map_or(&Value::Null, |(_, (_, written))| written);
        let unknown = |writer: &Operation<'h>| {
            writer.possible() && (writer.revision.is_none() || !writer.made_revision())
        };
        if there == value || self.writers(value).any(unknown) {
            return None;
        }
        let what = format!("{} at revision {revision}", read.in_words());
        let why = match (newest, self.writers(value).next()) {
            (Some((at, (newest, _))), _) => {
                format!("{what}, although revision {at} is {newest}, and nothing is known between.")
            }
            (None, Some(writer)) => {
                format!(
                    "{what}, although it was written at revision {}.",
                    writer.revision.unwrap_or_default()
                )
            }
            (None, None) => format!("{what}, which nobody ever wrote."),
        };
        let mut shown: Vec<&Operation<'_>> = newest.iter().map(|(_, (newest, _))| *newest).collect();
        shown.extend(self.writers(value));
        shown.push(read);
        Some(Counterexample::new(why, &shown, shown.len() - 1))
    }
}
