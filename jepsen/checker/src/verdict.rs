//! What a checker says.

use serde::{Deserialize, Serialize};

use crate::operation::Operation;

/// The answer to one question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Nothing wrong was seen, and all was looked at.
    Ok,
    /// It could not be decided within the bounds. Never taken for `Ok`.
    Unknown,
    /// A promise was broken.
    Violation,
}

/// One checker's answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Which question: `linearizable`, `bank-total`, `hashes-equal`.
    pub check: String,
    /// The answer.
    pub verdict: Verdict,
    /// One sentence with figures, for a person.
    pub summary: String,
    /// For a violation: the smallest part of the history that shows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counterexample: Option<Counterexample>,
}

impl Finding {
    /// Nothing wrong was seen.
    pub fn ok(check: &str, summary: impl Into<String>) -> Finding {
        Finding { check: check.into(), verdict: Verdict::Ok, summary: summary.into(), counterexample: None }
    }

    /// It could not be decided.
    pub fn unknown(check: &str, summary: impl Into<String>) -> Finding {
        Finding {
            check: check.into(),
            verdict: Verdict::Unknown,
            summary: summary.into(),
            counterexample: None,
        }
    }

    /// A promise was broken.
    pub fn violation(check: &str, summary: impl Into<String>, counterexample: Counterexample) -> Finding {
        let counterexample = Some(counterexample);
        Finding { check: check.into(), verdict: Verdict::Violation, summary: summary.into(), counterexample }
    }
}

/// The smallest part of a history that shows a violation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Counterexample {
    /// What is wrong with it, in one or two sentences: "read 7 from n3, although 9 had been acknowledged 120 ms before".
    pub explanation: String,
    /// Its operations.
    pub bars: Vec<Bar>,
}

impl Counterexample {
    /// A picture of these operations, in the order of time; the culprit is the one at that place among them.
    pub fn new(
        explanation: impl Into<String>,
        operations: &[&Operation<'_>],
        culprit: usize,
    ) -> Counterexample {
        let bar = |(place, operation): (usize, &&Operation<'_>)| operation.bar(place == culprit);
        let mut bars: Vec<Bar> = operations.iter().enumerate().map(bar).collect();
        bars.sort_by_key(|bar| (bar.start, bar.process));
        Counterexample { explanation: explanation.into(), bars }
    }
}

/// One operation, as a bar in a picture with a row for each process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bar {
    /// Whose row.
    pub process: u64,
    /// From here, in nanoseconds since the run began.
    pub start: u64,
    /// To here; none: it never ended.
    #[serde(default)]
    pub end: Option<u64>,
    /// `write 7`, `read → 9`.
    pub label: String,
    /// How it ended; `Invoke` where it did not.
    pub kind: crate::history::Kind,
    /// The node that was asked.
    #[serde(default)]
    pub node: Option<u64>,
    /// Whether this one cannot be explained.
    pub culprit: bool,
}
