//! A second opinion on transactions: the crate `adya`, which reads Elle's histories as they are.

use std::fmt::Write as _;
use std::time::Duration;

use adya::{Opts, Report, Valid, Workload};
use ringfence_checker::{Bar, Counterexample, Event, Finding, Function, Kind, Verdict};

/// Most of the words of an explanation that are shown.
const WORDS_MAX: usize = 600;
/// How long the search for a cycle may take in one strongly connected part of the graph.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(10);
/// What the crate calls a graph without edges: nobody read what somebody wrote. No fault, and no proof either.
const NOTHING_TO_SAY: &str = "empty-transaction-graph";

/// What the crate says of the transactions in a history.
#[must_use]
pub fn opinion(history: &[Event]) -> Finding {
    let transactions: Vec<&Event> = history.iter().filter(|event| event.f == Function::Txn).collect();
    let mut lines = String::new();
    for event in &transactions {
        let line = serde_json::to_string(event).expect("an event has a JSON form");
        // A write to a string cannot fail.
        let _ = writeln!(lines, "{line}");
    }
    let parsed = match adya::History::from_json(&lines) {
        Ok(parsed) => parsed,
        Err(error) => return finding(Verdict::Unknown, format!("the history cannot be read: {error}"), None),
    };
    let options = Opts { timeout: SEARCH_TIMEOUT, ..Opts::default() };
    judge(&adya::check(&parsed, Workload::ListAppend, &options), &transactions)
}

fn judge(report: &Report, transactions: &[&Event]) -> Finding {
    let named = report.anomaly_types.join(", ");
    match report.valid {
        Valid::True => {
            let count = transactions.iter().filter(|event| event.kind == Kind::Ok).count();
            finding(Verdict::Ok, format!("{count} transactions are strictly serializable"), None)
        }
        Valid::Unknown if report.anomaly_types.iter().all(|kind| kind == NOTHING_TO_SAY) => {
            finding(Verdict::Unknown, "no transaction read what another wrote".to_owned(), None)
        }
        Valid::Unknown => finding(Verdict::Unknown, format!("it cannot be decided: {named}"), None),
        Valid::False => {
            let not = report.not.join(", ");
            let summary = format!("the transactions are not {not}: {named}");
            finding(Verdict::Violation, summary, counterexample(report, transactions))
        }
    }
}

fn finding(verdict: Verdict, summary: String, counterexample: Option<Counterexample>) -> Finding {
    Finding { check: "adya".to_owned(), verdict, summary, counterexample }
}

/// The anomaly of the fewest transactions. The crate names an operation by the place of its end among the transactions'
/// events.
fn counterexample(report: &Report, transactions: &[&Event]) -> Option<Counterexample> {
    let anomalies = report.anomalies.values().flatten().filter(|anomaly| !anomaly.ops.is_empty());
    let smallest = anomalies.min_by_key(|anomaly| anomaly.ops.len())?;
    let places = smallest.ops.iter().filter_map(|&place| usize::try_from(place).ok());
    let bars = places.filter_map(|place| bar(place, transactions)).collect();
    let explanation = smallest.explanation.chars().take(WORDS_MAX).collect();
    Some(Counterexample { explanation, bars })
}

fn bar(end: usize, transactions: &[&Event]) -> Option<Bar> {
    let event = transactions.get(end)?;
    let begin = transactions[..end]
        .iter()
        .rev()
        .find(|earlier| earlier.process == event.process && earlier.kind == Kind::Invoke);
    Some(Bar {
        process: event.process,
        start: begin.map_or(event.time, |begin| begin.time),
        end: Some(event.time),
        label: event.value.to_string(),
        kind: event.kind,
        node: event.node,
        culprit: true,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A transaction of a process of its own, from `start` to `start` + 2.
    fn txn(process: u64, start: u64, asked: Value, told: Value) -> [Event; 2] {
        let event = |kind, value, time| Event {
            process,
            kind,
            f: Function::Txn,
            key: None,
            value,
            time,
            applied: None,
            node: Some(1),
            freshness: None,
            revision: None,
            error: None,
        };
        [event(Kind::Invoke, asked, start), event(Kind::Ok, told, start + 2)]
    }

    fn append(process: u64, start: u64, value: u64) -> [Event; 2] {
        let micro = json!([["append", "x", value]]);
        txn(process, start, micro.clone(), micro)
    }

    fn read(process: u64, start: u64, list: Value) -> [Event; 2] {
        txn(process, start, json!([["r", "x", null]]), json!([["r", "x", list]]))
    }

    #[test]
    fn a_lawful_history_is_one() {
        let history =
            [append(0, 0, 1), read(1, 10, json!([1])), append(2, 20, 2), read(3, 30, json!([1, 2]))];
        let finding = opinion(&history.concat());
        assert_eq!(finding.verdict, Verdict::Ok, "{finding:?}");
    }

    #[test]
    fn a_stale_read_is_seen_and_drawn() {
        let history =
            [append(0, 0, 1), append(1, 10, 2), read(2, 20, json!([1])), read(3, 30, json!([1, 2]))];
        let finding = opinion(&history.concat());
        assert_eq!(finding.verdict, Verdict::Violation, "{finding:?}");
        let picture = finding.counterexample.expect("it is drawn");
        assert!(picture.bars.iter().any(|bar| bar.process == 2 && bar.start == 20), "{picture:?}");
        assert!(picture.bars.iter().all(|bar| bar.end == Some(bar.start + 2)), "{picture:?}");
    }

    #[test]
    fn a_history_without_transactions_proves_nothing() {
        assert_eq!(opinion(&[]).verdict, Verdict::Unknown);
    }
}
