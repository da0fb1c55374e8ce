//! Which questions a history is asked: all that its functions allow.

use crate::budget::Budget;
use crate::history::Event;
use crate::operation::{Malformed, operations};
use crate::verdict::Finding;
use crate::{bank, counter, leases, linearizable, list_append, locks, revisions, set, stale, watch};

/// Asks a history every question that applies to it.
///
/// A history that cannot be understood, or to which no question applies, is [`Unknown`](crate::Verdict::Unknown).
pub fn judge(history: &[Event], budget: Budget<'_>) -> Vec<Finding> {
    let operations = match operations(history) {
        Ok(operations) => operations,
        Err(malformed) => return vec![Finding::unknown("history", malformed.to_string())],
    };
    let mut findings: Vec<Finding> = [
        ("linearizable", linearizable::check(&operations, budget)),
        ("max-age", linearizable::check_aged(&operations, budget)),
        ("stale-reads", stale::check(&operations)),
        ("set", set::check(&operations)),
        ("counter", counter::check(&operations)),
        ("bank", bank::check(&operations)),
        ("list-append", list_append::check(&operations)),
        ("locks", locks::check(&operations)),
        ("leases", leases::check(&operations)),
        ("watch", watch::check(&operations)),
        ("revisions", Ok(revisions::check(&operations))),
    ]
    .into_iter()
    .filter_map(|(check, found)| {
        found.unwrap_or_else(|malformed: Malformed| Some(incomprehensible(check, &malformed)))
    })
    .collect();
    if findings.is_empty() {
        findings.push(Finding::unknown("history", "there is nothing in it that could be checked"));
    }
    findings
}

fn incomprehensible(check: &str, malformed: &Malformed) -> Finding {
    Finding::unknown(check, format!("the history cannot be understood: {malformed}"))
}
