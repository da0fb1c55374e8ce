//! What is asked of a run beside the values in its clients' history: whether the cluster came back after each fault, whether
//! it ever had two leaders, what nodes did that were cut off, how processes ended, and whether all nodes are equal at the end.
//!
//! Each check is a pure function of the record of a run, so `jepsen check` can repeat it from the files.

pub mod availability;
pub mod effects;
pub mod exits;
pub mod hashes;
pub mod leadership;
pub mod minority;
mod operation;

use std::fmt::Display;
use std::time::Duration;

use ringfence_checker::{Event, Finding, Verdict};

use crate::record::{Fault, Sample};

/// The record of a run.
#[derive(Debug, Clone, Copy)]
pub struct Account<'a> {
    /// How many nodes the cluster had.
    pub nodes: usize,
    /// What was done to it, in any order.
    pub faults: &'a [Fault],
    /// What its nodes said of themselves, in the order of time.
    pub samples: &'a [Sample],
    /// What its clients saw, in the order of time.
    pub history: &'a [Event],
}

/// Every check that needs only the record. The check of equality at the end ([`hashes`]) needs the nodes themselves.
#[must_use]
pub fn all(account: &Account<'_>) -> Vec<Finding> {
    let mut findings = Vec::from(effects::check(account.faults));
    findings.extend(availability::check(account));
    findings.extend(leadership::check(account.samples));
    findings.push(minority::check(account));
    findings.push(exits::check(account.samples));
    findings
}

fn finding(check: &str, verdict: Verdict, summary: impl Display) -> Finding {
    Finding { check: check.to_owned(), verdict, summary: summary.to_string(), counterexample: None }
}

/// A time of the record, which counts nanoseconds, as a person reads it.
fn seconds(nanoseconds: u64) -> String {
    format!("{:.1} s", Duration::from_nanos(nanoseconds).as_secs_f64())
}

/// A length of time in the record's unit.
const fn nanoseconds(duration: Duration) -> u64 {
    // Constants of seconds: far below the 584 years that fit.
    duration.as_nanos() as u64
}

#[cfg(test)]
mod planted {
    //! Records to plant faults in.

    use ringfence_checker::{Event, Function, Kind};
    use serde_json::Value;

    use crate::record::{Fault, Sample, What};

    /// One second, in the record's unit.
    pub const SECOND: u64 = 1_000_000_000;

    pub fn fault(name: &str, nodes: &[usize], start: u64, end: u64) -> Fault {
        Fault {
            name: name.to_owned(),
            nodes: nodes.to_vec(),
            detail: String::new(),
            start: start * SECOND,
            healing: end * SECOND,
            end: end * SECOND,
            evidence: "12 packets dropped".to_owned(),
            effective: true,
            violation: None,
        }
    }

    /// A write through `node` that begins and ends at these times.
    pub fn write(process: u64, node: u64, start: u64, end: u64, kind: Kind) -> [Event; 2] {
        let event = |kind, time| Event {
            process,
            kind,
            f: Function::Write,
            key: Some("k".to_owned()),
            value: Value::from(process),
            time,
            applied: None,
            node: Some(node),
            freshness: None,
            revision: None,
            error: None,
        };
        [event(Kind::Invoke, start), event(kind, end)]
    }

    /// A write to `node` in each tenth of a second from one second to another, each ended at once, and as told.
    pub fn writes(node: u64, from: u64, to: u64, kind: Kind) -> Vec<Event> {
        let begin = |tenth| (from * 10 + tenth) * SECOND / 10;
        let tenths = 0..(to - from) * 10;
        tenths
            .flat_map(|tenth| {
                write(node * 10_000 + from * 100 + tenth, node, begin(tenth), begin(tenth) + 1, kind)
            })
            .collect()
    }

    pub fn status(time: u64, node: usize, leads: bool, term: u64, read_only: bool) -> Sample {
        let what = What::Status { leads, term, leader: leads.then_some(node), applied: 0, read_only };
        Sample { time, node, what }
    }
}
