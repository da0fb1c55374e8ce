//! Leases: none ends before its time has passed since its last acknowledged renewal was sent, and none is there much longer than
//! its time after the last moment at which it can have been renewed.
//!
//! What a lease may be late by is a second, with the time in which nothing was acknowledged, and a second more for each such time:
//! another leader took over then, perhaps, and began with what the log told it of the time.

use std::collections::BTreeMap;

use crate::history::{Function, Kind};
use crate::operation::{Malformed, Operation};
use crate::verdict::{Counterexample, Finding};
use crate::words::{count, duration};

const CHECK: &str = "leases";
const SECOND: u64 = 1_000_000_000;
/// How far the clocks of nodes and clients may be apart, in parts of a hundred.
const CLOCK_PERCENT: u64 = 2;
/// So long without an answer, and there was no leader.
const OUTAGE_MIN: u64 = SECOND / 4;
/// What a lease may be late by without a change of leader; and a tenth for a machine that does other things too.
const LATE_MAX: u64 = SECOND + SECOND / 10;

/// Whether leases end when they should; none: there are none.
///
/// # Errors
/// If one does not say how long it lasts.
pub fn check(operations: &[Operation<'_>]) -> Result<Option<Finding>, Malformed> {
    let about = |operation: &&Operation<'_>| {
        matches!(operation.f, Function::Grant | Function::Renew | Function::Look)
    };
    let mut leases: BTreeMap<&str, Lease<'_, '_>> = BTreeMap::new();
    for operation in operations.iter().filter(about) {
        let seconds = operation.asked.as_u64();
        let seconds = seconds.ok_or_else(|| operation.malformed("a lease says how long it lasts"))?;
        let lease = leases.entry(operation.key()?).or_default();
        lease.ttl = seconds * SECOND;
        lease.operations.push(operation);
    }
    if leases.is_empty() {
        return Ok(None);
    }
    let outages = Outages::of(operations);
    let looks = operations.iter().filter(|operation| operation.f == Function::Look).count();
    let all = format!("{} looked at {looks} times", count(leases.len(), "lease"));
    let broken = leases.values().find_map(|lease| lease.early().or_else(|| lease.late(&outages)));
    Ok(Some(match broken {
        Some(picture) => Finding::violation(CHECK, format!("{all}: {}", picture.explanation), picture),
        None => {
            let ends = leases.values().filter(|lease| lease.gone().next().is_some()).count();
            let (times, lost) = (outages.0.len(), outages.0.iter().map(|(from, to)| to - from).sum());
            let without = format!("{} without a leader, {} in all", count(times, "time"), duration(lost));
            Finding::ok(CHECK, format!("{all}, {ends} seen to end: none early, and none late ({without})"))
        }
    }))
}

/// One lease, with all that was done about it in the order in which it began.
#[derive(Default)]
struct Lease<'o, 'h> {
    ttl: u64,
    operations: Vec<&'o Operation<'h>>,
}

impl<'o, 'h> Lease<'o, 'h> {
    /// What may have begun its time anew.
    fn renewals(&self) -> impl Iterator<Item = &'o Operation<'h>> {
        let renews = |operation: &&&Operation<'_>| {
            matches!(operation.f, Function::Grant | Function::Renew) && operation.applied != Some(false)
        };
        self.operations.iter().filter(renews).copied()
    }

    /// What saw that it was not there.
    fn gone(&self) -> impl Iterator<Item = &'o Operation<'h>> {
        let gone =
            |operation: &&&Operation<'_>| operation.kind == Kind::Ok && operation.applied == Some(false);
        self.operations.iter().filter(gone).copied()
    }

    /// It is gone, although its time since its last acknowledged renewal was not over.
    fn early(&self) -> Option<Counterexample> {
        let least = self.ttl - self.ttl * CLOCK_PERCENT / 100;
        self.gone().find_map(|gone| {
            // It ended before that answer came.
            let end = gone.end?;
            let renewed = self.renewals().filter(|renewal| renewal.acknowledged_before(gone.start));
            let newest = renewed.max_by_key(|renewal| renewal.start)?;
            (end < newest.start + least).then(|| {
                let after = duration(end.saturating_sub(newest.start));
                let why = format!(
                    "The lease, which lasts {}, had ended {after} after its last acknowledged renewal was sent.",
                    duration(self.ttl)
                );
                Counterexample::new(why, &[newest, gone], 1)
            })
        })
    }

    /// It is there, although its time since its last possible renewal has long been over.
    fn late(&self, outages: &Outages) -> Option<Counterexample> {
        let there = |look: &&&Operation<'_>| look.f == Function::Look && look.applied == Some(true);
        self.operations.iter().filter(there).find_map(|look| {
            // One that was answered was done by then; one that was not may have been done at any time after.
            let possible =
                self.renewals().filter(|renewal| renewal.possible() && renewal.start <= look.start);
            let done = possible.map(|renewal| (renewal.acknowledged(), renewal));
            let last = done.max_by_key(|(done, _)| done.unwrap_or(u64::MAX))?;
            let (begun, renewal) = (last.0?, last.1);
            let allowed =
                self.ttl + self.ttl * CLOCK_PERCENT / 100 + LATE_MAX + outages.between(begun, look.start);
            (look.start > begun + allowed).then(|| {
                let why = format!(
                    "The lease, which lasts {}, is there {} after its last renewal; {} were allowed.",
                    duration(self.ttl),
                    duration(look.start - begun),
                    duration(allowed)
                );
                Counterexample::new(why, &[renewal, look], 1)
            })
        })
    }
}

/// Times in which nothing was acknowledged, as clients see it that ask all the time: a look needs a leader too.
struct Outages(Vec<(u64, u64)>);

impl Outages {
    fn of(operations: &[Operation<'_>]) -> Outages {
        let mut done: Vec<u64> = operations.iter().filter_map(Operation::acknowledged).collect();
        done.sort_unstable();
        let gap = |pair: &[u64]| (pair[1] - pair[0] > OUTAGE_MIN).then_some((pair[0], pair[1]));
        Outages(done.windows(2).filter_map(gap).collect())
    }

    /// What a lease may be late by because of those between two moments.
    fn between(&self, from: u64, to: u64) -> u64 {
        let within = |(begin, end): &(u64, u64)| match (*end.min(&to)).saturating_sub(*begin.max(&from)) {
            0 => 0,
            time => time + SECOND,
        };
        self.0.iter().map(within).sum()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::history::Event;
    use crate::operation::operations;
    use crate::verdict::Verdict;

    /// What is done about a lease of 4 s, each within a tenth of a second, by processes of their own.
    fn script(steps: &[(Function, f64, Kind, Option<bool>)]) -> Vec<Event> {
        let mut events = Vec::new();
        for (process, (f, start, kind, applied)) in (0..).zip(steps) {
            let event = |kind, time: f64, applied| Event {
                process,
                kind,
                f: *f,
                key: Some("7".to_owned()),
                value: json!(4),
                time: (time * 1e9) as u64,
                applied,
                node: None,
                freshness: None,
                revision: None,
                error: None,
            };
            events.push(event(Kind::Invoke, *start, None));
            events.push(event(*kind, *start + 0.1, *applied));
        }
        events
    }

    /// Changes of another lease all the time, but for some.
    fn busy(but: std::ops::Range<u64>) -> Vec<Event> {
        let tenths = (0..200_u64).filter(|tenth| !but.contains(tenth));
        let mut events: Vec<Event> = tenths
            .flat_map(|tenth| script(&[(Function::Renew, tenth as f64 / 10.0, Kind::Ok, Some(true))]))
            .collect();
        for (number, event) in events.iter_mut().enumerate() {
            event.process = 1_000 + number as u64 / 2;
            event.key = Some("8".to_owned());
        }
        events
    }

    fn judge(mut history: Vec<Event>) -> Finding {
        history.sort_by_key(|event| (event.time, event.kind != Kind::Invoke));
        check(&operations(&history).expect("a history")).expect("well formed").expect("there are leases")
    }

    #[test]
    fn a_lease_that_ends_in_time_is_lawful() {
        let steps = script(&[
            (Function::Grant, 0.0, Kind::Ok, None),
            (Function::Renew, 2.0, Kind::Ok, Some(true)),
            (Function::Look, 5.9, Kind::Ok, Some(true)),
            (Function::Look, 7.0, Kind::Ok, Some(false)),
        ]);
        let finding = judge([steps, busy(0..0)].concat());
        assert_eq!(finding.verdict, Verdict::Ok, "{}", finding.summary);
        assert!(finding.summary.contains("1 seen to end"), "{}", finding.summary);
    }

    #[test]
    fn a_lease_that_ends_early_is_seen() {
        let steps = script(&[
            (Function::Grant, 0.0, Kind::Ok, None),
            (Function::Renew, 2.0, Kind::Ok, Some(true)),
            (Function::Look, 5.7, Kind::Ok, Some(false)),
        ]);
        let finding = judge(steps);
        assert_eq!(finding.verdict, Verdict::Violation, "{}", finding.summary);
        assert!(finding.summary.contains("had ended"), "{}", finding.summary);
    }

    #[test]
    fn a_renewal_that_is_told_of_a_lost_lease_shows_it_too() {
        let steps =
            script(&[(Function::Grant, 0.0, Kind::Ok, None), (Function::Renew, 3.0, Kind::Ok, Some(false))]);
        assert_eq!(judge(steps).verdict, Verdict::Violation);
    }

    #[test]
    fn a_lease_that_stays_is_seen_unless_nobody_led_or_it_may_have_been_renewed() {
        let steps = |renewed: Kind| {
            script(&[
                (Function::Grant, 0.0, Kind::Ok, None),
                (Function::Renew, 2.0, renewed, (renewed == Kind::Ok).then_some(true)),
                (Function::Look, 7.6, Kind::Ok, Some(true)),
            ])
        };
        let late = judge([steps(Kind::Ok), busy(0..0)].concat());
        assert_eq!(late.verdict, Verdict::Violation, "{}", late.summary);
        assert!(late.summary.contains("is there"), "{}", late.summary);
        let without_leader = judge([steps(Kind::Ok), busy(30..36)].concat());
        assert_eq!(without_leader.verdict, Verdict::Ok, "{}", without_leader.summary);
        let unknown = judge([steps(Kind::Info), busy(0..0)].concat());
        assert_eq!(unknown.verdict, Verdict::Ok, "{}", unknown.summary);
        let failed = judge([steps(Kind::Fail), busy(0..0)].concat());
        assert_eq!(failed.verdict, Verdict::Violation, "{}", failed.summary);
    }
}
