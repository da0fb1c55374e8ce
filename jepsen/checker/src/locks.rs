//! Locks and what is written under them: of two writes the later one never carries the older token, and no token counts any more
//! once a newer one has been in force, or it was given back.
//!
//! A write under the lock `l` is a write of the key `data/l`. Its value is the token that it was to carry, times
//! [`WRITES_OF_A_TOKEN`], and a number; a write without a token has none, and must be refused.

use std::collections::{BTreeMap, HashMap};

use crate::history::Function;
use crate::operation::{Malformed, Operation};
use crate::verdict::{Counterexample, Finding};
use crate::words::count;

const CHECK: &str = "locks";
/// How many values there are for writes with one token.
pub const WRITES_OF_A_TOKEN: u64 = 10_000_000;
/// What the key of the writes under a lock begins with; the lock's name follows.
pub const DATA: &str = "data/";

/// Whether locks fence writes off; none: nobody took a lock.
///
/// # Errors
/// If an answer tells no token, or a value is no number.
pub fn check(operations: &[Operation<'_>]) -> Result<Option<Finding>, Malformed> {
    let mut locks: BTreeMap<&str, Lock<'_, '_>> = BTreeMap::new();
    for operation in operations.iter().filter(|operation| operation.f == Function::Acquire) {
        let lock = locks.entry(operation.key()?).or_default();
        if operation.acknowledged().is_some() {
            lock.acquires.push((token(operation)?, operation));
        }
    }
    if locks.is_empty() {
        return Ok(None);
    }
    for operation in operations {
        let name = operation.key.map(|key| key.strip_prefix(DATA).unwrap_or(key));
        let Some(lock) = name.and_then(|name| locks.get_mut(name)) else { continue };
        lock.take(operation)?;
    }
    let (acquires, writes) =
        locks.values().fold((0, 0), |sum, lock| (sum.0 + lock.acquires.len(), sum.1 + lock.writes.len()));
    let all = format!("{} and {}", count(acquires, "holder"), count(writes, "fenced write"));
    Ok(Some(match locks.values_mut().find_map(Lock::broken) {
        Some(picture) => Finding::violation(CHECK, format!("{all}: {}", picture.explanation), picture),
        None => Finding::ok(CHECK, format!("{all}: no token counted after a newer one")),
    }))
}

/// The token that a value tells.
#[must_use]
pub fn token_of(value: u64) -> u64 {
    value / WRITES_OF_A_TOKEN
}

fn token(operation: &Operation<'_>) -> Result<u64, Malformed> {
    let value = operation.answer.unwrap_or(operation.asked);
    let token = value.get("token").and_then(serde_json::Value::as_u64);
    token.ok_or_else(|| operation.malformed(format!("{} tells no token", operation.f.name())))
}

/// One lock, each operation with its token; only what was done.
#[derive(Default)]
struct Lock<'o, 'h> {
    acquires: Vec<(u64, &'o Operation<'h>)>,
    releases: HashMap<u64, &'o Operation<'h>>,
    writes: Vec<(u64, &'o Operation<'h>)>,
    reads: Vec<(u64, &'o Operation<'h>)>,
}

impl<'o, 'h> Lock<'o, 'h> {
    fn take(&mut self, operation: &'o Operation<'h>) -> Result<(), Malformed> {
        if operation.acknowledged().is_none() {
            return Ok(());
        }
        let number = |value: &serde_json::Value| {
            value.as_u64().ok_or_else(|| operation.malformed("a value under a lock is a number"))
        };
        match (operation.f, operation.answer) {
            (Function::Release, _) => drop(self.releases.insert(token(operation)?, operation)),
            (Function::Write, _) => self.writes.push((token_of(number(operation.asked)?), operation)),
            (Function::Read, Some(value)) if !value.is_null() => {
                self.reads.push((token_of(number(value)?), operation));
            }
            _ => {}
        }
        Ok(())
    }

    /// What is wrong with it, if anything.
    fn broken(&mut self) -> Option<Counterexample> {
        self.writes.sort_by_key(|(_, write)| write.revision);
        self.acquires.sort_by_key(|(_, acquire)| acquire.revision);
        self.tokens_fall()
            .or_else(|| self.without_token())
            .or_else(|| self.stale())
            .or_else(|| self.disorder())
            .or_else(|| self.seen_stale())
            .or_else(|| self.given_back())
    }

    /// Tokens grow from one holder to the next, and no two sessions have one.
    fn tokens_fall(&self) -> Option<Counterexample> {
        let mut by_end = self.acquires.clone();
        by_end.sort_by_key(|(_, acquire)| acquire.end);
        let mut highest: Vec<(u64, &Operation<'_>)> = Vec::with_capacity(by_end.len());
        for (token, acquire) in &by_end {
            let best = highest.last().copied().filter(|(best, _)| best > token);
            highest.push(best.unwrap_or((*token, acquire)));
        }
        for (token, acquire) in &self.acquires {
            let over = by_end.partition_point(|(_, other)| other.end < Some(acquire.start));
            if let Some((newer, earlier)) = over.checked_sub(1).map(|last| highest[last])
                && newer >= *token
            {
                let why = format!("The lock was taken with token {token} after it had been with {newer}.");
                return Some(Counterexample::new(why, &[earlier, acquire], 1));
            }
        }
        let mut keys: HashMap<u64, (Option<&str>, &Operation<'_>)> = HashMap::new();
        self.acquires.iter().find_map(|(token, acquire)| {
            let key = acquire.answer.and_then(|answer| answer.get("key")).and_then(serde_json::Value::as_str);
            let (known, first) = *keys.entry(*token).or_insert((key, acquire));
            let why = || format!("Two sessions hold the lock with token {token}.");
            (known != key).then(|| Counterexample::new(why(), &[first, acquire], 1))
        })
    }

    fn without_token(&self) -> Option<Counterexample> {
        let (_, write) = self.writes.iter().find(|(token, _)| *token == 0)?;
        Some(Counterexample::new("A write without a token was applied to guarded keys.", &[write], 0))
    }

    /// A write with an older token after a revision at which a newer one was in force.
    fn stale(&self) -> Option<Counterexample> {
        let mut acquires = self.acquires.iter().filter(|(_, acquire)| acquire.revision.is_some()).peekable();
        let mut newest: Option<(u64, &Operation<'_>)> = None;
        self.writes.iter().find_map(|(token, write)| {
            while let Some((newer, acquire)) = acquires.next_if(|(_, acquire)| acquire.revision < write.revision) {
                newest = newest.filter(|(newest, _)| newest > newer).or(Some((*newer, acquire)));
            }
            let (newer, acquire) = newest.filter(|(newest, _)| newest > token)?;
            let why = format!(
                "A write with token {token} was applied at revision {}, and token {newer} was in force at {}.",
                write.revision.unwrap_or(0),
                acquire.revision.unwrap_or(0)
            );
            Some(Counterexample::new(why, &[acquire, write], 1))
        })
    }

    fn disorder(&self) -> Option<Counterexample> {
        let fall = self.writes.windows(2).find(|pair| pair[0].0 > pair[1].0)?;
        let ((newer, first), (older, second)) = (fall[0], fall[1]);
        let why = format!("A write with token {older} was applied after one with {newer}.");
        Some(Counterexample::new(why, &[first, second], 1))
    }

    /// A value with an older token, whose write nobody acknowledged, stands where a newer one had been written.
    fn seen_stale(&self) -> Option<Counterexample> {
        self.reads.iter().find_map(|(token, read)| {
            let before = self.writes.partition_point(|(_, write)| write.revision <= read.revision);
            let (newer, write) = *self.writes[..before].last().filter(|(newer, _)| newer > token)?;
            let why = format!("A value with token {token} is there after a write with {newer}.");
            Some(Counterexample::new(why, &[write, read], 1))
        })
    }

    fn given_back(&self) -> Option<Counterexample> {
        self.writes.iter().find_map(|(token, write)| {
            let release = *self.releases.get(token)?;
            let why = || format!("A write with token {token} was applied after the lock was given back.");
            release.acknowledged_before(write.start).then(|| Counterexample::new(why(), &[release, write], 1))
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::history::{Event, Kind};
    use crate::operation::operations;
    use crate::verdict::Verdict;

    struct Script(Vec<Event>);

    impl Script {
        /// An operation of a process of its own, from `start` to `start` + 1.
        fn with(mut self, f: Function, key: &str, value: Value, start: u64, revision: u64) -> Script {
            let process = self.0.len() as u64;
            let event = |kind, time, revision| Event {
                process,
                kind,
                f,
                key: Some(key.to_owned()),
                value: value.clone(),
                time,
                applied: None,
                node: None,
                freshness: None,
                revision,
                error: None,
            };
            self.0.push(event(Kind::Invoke, start, None));
            self.0.push(event(Kind::Ok, start + 1, Some(revision)));
            self
        }

        fn acquire(self, token: u64, key: &str, start: u64, revision: u64) -> Script {
            self.with(Function::Acquire, "l", json!({ "token": token, "key": key }), start, revision)
        }

        fn release(self, token: u64, start: u64) -> Script {
            self.with(Function::Release, "l", json!({ "token": token, "key": "" }), start, 1_000)
        }

        fn write(self, token: u64, start: u64, revision: u64) -> Script {
            let value = token * WRITES_OF_A_TOKEN + start;
            self.with(Function::Write, "data/l", json!(value), start, revision)
        }

        fn read(self, token: u64, start: u64, revision: u64) -> Script {
            self.with(Function::Read, "data/l", json!(token * WRITES_OF_A_TOKEN), start, revision)
        }

        fn assert(&self, expected: Option<&str>) {
            let operations = operations(&self.0).expect("the script is a history");
            let finding = check(&operations).expect("it is well formed").expect("there are locks");
            match expected {
                None => assert_eq!(finding.verdict, Verdict::Ok, "{}", finding.summary),
                Some(words) => {
                    assert_eq!(finding.verdict, Verdict::Violation, "{words}");
                    assert!(finding.summary.contains(words), "{}", finding.summary);
                }
            }
        }
    }

    fn lawful() -> Script {
        let script = Script(Vec::new()).acquire(5, "l/a", 10, 5).write(5, 20, 6).acquire(7, "l/b", 30, 9);
        script.write(7, 40, 10).read(7, 50, 10).release(7, 60)
    }

    #[test]
    fn a_lawful_history_is_one() {
        lawful().assert(None);
        // Not yet known to be over when the newer token comes into force: the order is that of revisions.
        lawful().write(5, 31, 8).assert(None);
    }

    #[test]
    fn each_way_to_break_a_lock_is_seen() {
        for (script, words) in [
            (lawful().write(5, 70, 12), "token 5 was applied at revision 12, and token 7 was in force at 9"),
            (lawful().acquire(6, "l/c", 70, 13), "taken with token 6 after it had been with 7"),
            (lawful().acquire(8, "l/c", 70, 13).acquire(8, "l/d", 70, 13), "Two sessions"),
            (lawful().write(0, 70, 12), "without a token"),
            (lawful().write(7, 70, 12), "after the lock was given back"),
            (lawful().read(5, 70, 12), "token 5 is there after a write with 7"),
            (
                Script(Vec::new()).acquire(5, "l/a", 1, 20).write(9, 2, 10).write(8, 2, 11),
                "with token 8 was applied after one with 9",
            ),
        ] {
            script.assert(Some(words));
        }
    }

    #[test]
    fn without_locks_there_is_nothing_to_say() {
        let script = Script(Vec::new()).write(5, 1, 3);
        assert_eq!(check(&operations(&script.0).expect("a history")).expect("well formed"), None);
    }
}
