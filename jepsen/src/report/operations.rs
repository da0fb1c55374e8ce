//! A history's events, joined to operations.

use std::collections::HashMap;

use ringfence_checker::{Event, Function, Kind};

/// How an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    /// Done.
    Ok,
    /// Surely not done.
    Fail,
    /// Nobody can tell; also where it never ended.
    Info,
}

impl Outcome {
    /// All of them, in the order of legends.
    pub(super) const ALL: [Outcome; 3] = [Outcome::Ok, Outcome::Fail, Outcome::Info];

    /// The name, which is the class in the style sheet too.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::Fail => "fail",
            Outcome::Info => "info",
        }
    }
}

/// One operation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Operation {
    pub(super) function: Function,
    pub(super) outcome: Outcome,
    /// When it was invoked, in nanoseconds since the run began.
    pub(super) start: u64,
    /// When it ended; none: it never did.
    pub(super) end: Option<u64>,
}

impl Operation {
    /// How long it took; none: it never ended.
    pub(super) fn latency(&self) -> Option<u64> {
        Some(self.end?.saturating_sub(self.start))
    }

    /// Where it stands on the time axis: at its end, or where it began if it has none.
    pub(super) fn time(&self) -> u64 {
        self.end.unwrap_or(self.start)
    }
}

/// Joins each invocation with what came of it, in the order of [`Operation::time`].
pub(super) fn join(history: &[Event]) -> Vec<Operation> {
    let mut open: HashMap<u64, &Event> = HashMap::new();
    let mut operations = Vec::with_capacity(history.len() / 2);
    for event in history {
        let outcome = match event.kind {
            Kind::Invoke => {
                // A process whose operation never ended goes on in a damaged history only; what it did first stays seen.
                if let Some(left) = open.insert(event.process, event) {
                    operations.push(unfinished(left));
                }
                continue;
            }
            Kind::Ok => Outcome::Ok,
            Kind::Fail => Outcome::Fail,
            Kind::Info => Outcome::Info,
        };
        if let Some(invocation) = open.remove(&event.process) {
            operations.push(Operation {
                function: invocation.f,
                outcome,
                start: invocation.time,
                end: Some(event.time),
            });
        }
    }
    operations.extend(open.into_values().map(unfinished));
    operations.sort_by_key(|operation| (operation.time(), operation.start, operation.outcome));
    operations
}

fn unfinished(invocation: &Event) -> Operation {
    Operation { function: invocation.f, outcome: Outcome::Info, start: invocation.time, end: None }
}

/// Every function, in the order of the page.
const ORDER: [Function; 15] = [
    Function::Read,
    Function::ReadAll,
    Function::Write,
    Function::WriteAll,
    Function::Cas,
    Function::Delete,
    Function::Txn,
    Function::Add,
    Function::Transfer,
    Function::Acquire,
    Function::Release,
    Function::Grant,
    Function::Renew,
    Function::Look,
    Function::Watch,
];

/// The functions that occur, each with its operations.
pub(super) fn by_function(operations: &[Operation]) -> Vec<(Function, Vec<Operation>)> {
    ORDER
        .into_iter()
        .map(|function| {
            (
                function,
                operations.iter().copied().filter(|operation| operation.function == function).collect(),
            )
        })
        .filter(|(_, operations): &(_, Vec<_>)| !operations.is_empty())
        .collect()
}

/// The value below which that part of the sorted values lies; none of nothing.
pub(super) fn quantile(sorted: &[u64], part: f64) -> Option<u64> {
    let last = sorted.len().checked_sub(1)?;
    Some(sorted[(last as f64 * part).round() as usize])
}

#[cfg(test)]
mod tests {
    use ringfence_checker::{Event, Function, Kind};
    use serde_json::Value;

    use super::{Outcome, join, quantile};

    fn event(process: u64, kind: Kind, time: u64) -> Event {
        Event {
            process,
            kind,
            f: Function::Write,
            key: None,
            value: Value::Null,
            time,
            applied: None,
            node: None,
            freshness: None,
            revision: None,
            error: None,
        }
    }

    #[test]
    fn an_operation_that_never_ended_is_as_unknown_as_one_that_said_so() {
        let history = [
            event(1, Kind::Invoke, 10),
            event(2, Kind::Invoke, 20),
            event(3, Kind::Invoke, 30),
            event(2, Kind::Ok, 40),
            event(3, Kind::Info, 50),
        ];
        let joined: Vec<(Outcome, u64, Option<u64>)> = join(&history)
            .iter()
            .map(|operation| (operation.outcome, operation.start, operation.end))
            .collect();
        assert_eq!(
            joined,
            [(Outcome::Info, 10, None), (Outcome::Ok, 20, Some(40)), (Outcome::Info, 30, Some(50))]
        );
    }

    #[test]
    fn quantiles_of_nothing_are_none() {
        assert_eq!(quantile(&[], 0.5), None);
        assert_eq!(quantile(&[1, 2, 3], 0.5), Some(2));
        assert_eq!(quantile(&[1, 2, 3], 1.0), Some(3));
    }
}
