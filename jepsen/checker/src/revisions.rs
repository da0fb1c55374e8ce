//! Revisions: one number that grows with each change orders everything, so a lost write or a second leader shows at
//! once, whatever the workload (the "real-time" clause of linearizability, on the store as one object).
//!
//! - A change's revision is its own.
//! - An answer that must be fresh has at least the revision of every answer that was over before; a change has a higher
//!   one. It does not matter how fresh the *earlier* answer had to be: what it shows is committed.
//! - An answer of bounded age has at least the revision of every answer that was over so much earlier.
//! - An answer that had to have a revision has it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::freshness::Freshness;
use crate::operation::Operation;
use crate::verdict::{Counterexample, Finding};
use crate::words::{count, duration};

const CHECK: &str = "revisions";

/// Whether the answers' revisions fit together; none: no answer has one.
pub fn check(operations: &[Operation<'_>]) -> Option<Finding> {
    let answers: Vec<Answer<'_, '_>> = operations.iter().filter_map(Answer::of).collect();
    if answers.is_empty() {
        return None;
    }
    let all = count(answers.len(), "answer");
    let broken = twice(&answers).or_else(|| backwards(&answers));
    Some(match broken {
        Some(picture) => Finding::violation(CHECK, format!("{all}: {}", picture.explanation), picture),
        None => Finding::ok(CHECK, format!("{all}: revisions never go back, and each change has its own")),
    })
}

/// An answer with a revision.
struct Answer<'o, 'h> {
    operation: &'o Operation<'h>,
    revision: u64,
    end: u64,
}

impl<'o, 'h> Answer<'o, 'h> {
    fn of(operation: &'o Operation<'h>) -> Option<Answer<'o, 'h>> {
        Some(Answer { operation, revision: operation.revision?, end: operation.acknowledged()? })
    }
}

fn twice(answers: &[Answer<'_, '_>]) -> Option<Counterexample> {
    let mut makers = HashMap::new();
    for answer in answers.iter().filter(|answer| answer.operation.made_revision()) {
        match makers.entry(answer.revision) {
            Entry::Vacant(slot) => {
                slot.insert(answer);
            }
            Entry::Occupied(first) => {
                let first = first.get().operation;
                let (this, revision) = (answer.operation, answer.revision);
                let why =
                    format!("{} and {} both made revision {revision}.", first.in_words(), this.in_words());
                return Some(Counterexample::new(why, &[first, this], 1));
            }
        }
    }
    None
}

fn backwards(answers: &[Answer<'_, '_>]) -> Option<Counterexample> {
    let mut by_end: Vec<&Answer<'_, '_>> = answers.iter().collect();
    by_end.sort_by_key(|answer| answer.end);
    // highest[n] has the highest revision of the first n + 1 answers to end.
    let mut highest: Vec<&Answer<'_, '_>> = Vec::with_capacity(by_end.len());
    for answer in &by_end {
        let best = highest.last().filter(|best| best.revision >= answer.revision);
        highest.push(best.unwrap_or(answer));
    }
    let over_before = |time: u64| {
        let over = by_end.partition_point(|answer| answer.end < time);
        over.checked_sub(1).map(|last| highest[last])
    };
    answers.iter().find_map(|answer| match answer.operation.freshness {
        Freshness::Linearizable => too_old(over_before(answer.operation.start)?, answer),
        Freshness::MaxAge(age) => {
            too_old(over_before(Freshness::oldest_question(answer.operation.start, age))?, answer)
        }
        Freshness::Revision(wanted) if answer.revision < wanted => {
            let (what, revision) = (answer.operation.in_words(), answer.revision);
            let why = format!("{what} at revision {revision}, although it had asked for {wanted}.");
            Some(Counterexample::new(why, &[answer.operation], 0))
        }
        Freshness::Revision(_) | Freshness::Any => None,
    })
}

/// Whether `answer` should have seen more than it did, because `earlier` was over before.
fn too_old(earlier: &Answer<'_, '_>, answer: &Answer<'_, '_>) -> Option<Counterexample> {
    let least = earlier.revision + u64::from(answer.operation.made_revision());
    if answer.revision >= least {
        return None;
    }
    let why = format!(
        "{} at revision {}, although {} was over {} before at revision {}.",
        answer.operation.in_words(),
        answer.revision,
        earlier.operation.in_words(),
        duration(answer.operation.start - earlier.end),
        earlier.revision,
    );
    Some(Counterexample::new(why, &[earlier.operation, answer.operation], 1))
}
