//! What nodes did that could not reach a majority: they must say that they are read-only, and nothing that needs a majority
//! may succeed through them.

use std::time::Duration;

use ringfence_checker::{Counterexample, Finding, Verdict};

use super::operation;
use super::{Account, finding, nanoseconds, seconds};
use crate::nemesis;
use crate::record::{Fault, What};

/// A node may take this long to notice that nobody answers. By the defaults it takes two leader leases, 0.8 s; a machine that
/// does much else at the same time is slow.
pub const NOTICE_MAX: Duration = Duration::from_secs(3);

/// A time in which a node certainly reached no majority.
struct Isolation<'a> {
    node: usize,
    fault: &'a Fault,
    from: u64,
    to: u64,
}

/// The finding `minority-read-only`.
pub(super) fn check(account: &Account<'_>) -> Finding {
    const CHECK: &str = "minority-read-only";
    let isolations = isolations(account);
    if isolations.is_empty() {
        return finding(
            CHECK,
            Verdict::Ok,
            "no node was cut off from a majority for long enough to be judged",
        );
    }
    for operation in
        operation::all(account.history).into_iter().filter(|operation| operation.needs_majority())
    {
        let (Some(node), Some(done)) = (operation.node(), operation.done()) else { continue };
        let within = |isolation: &&Isolation<'_>| {
            isolation.node as u64 == node && isolation.from <= operation.start() && done <= isolation.to
        };
        if let Some(isolation) = isolations.iter().find(within) {
            let explanation = format!(
                "n{node} answered at {} what needs a majority, and reached none since {} ({})",
                seconds(done),
                seconds(isolation.fault.start),
                isolation.fault.name
            );
            let picture = Counterexample { explanation: explanation.clone(), bars: vec![operation.bar()] };
            return Finding {
                counterexample: Some(picture),
                ..finding(CHECK, Verdict::Violation, explanation)
            };
        }
    }
    match boast(account, &isolations) {
        Some(summary) => finding(CHECK, Verdict::Violation, summary),
        None => finding(
            CHECK,
            Verdict::Ok,
            format!(
                "{} times a node was cut off from a majority, and it said so and served nothing",
                isolations.len()
            ),
        ),
    }
}

/// A word of a node that is cut off and does not say so. A follower that still hears its leader knows it too: the leader tells it
/// that no majority answers.
fn boast(account: &Account<'_>, isolations: &[Isolation<'_>]) -> Option<String> {
    for isolation in isolations.iter().filter(|isolation| is_alone(isolation, account.faults)) {
        let own = account.samples.iter().filter(|sample| sample.node == isolation.node);
        for sample in own.filter(|sample| isolation.from <= sample.time && sample.time <= isolation.to) {
            let What::Status { leads, read_only, .. } = sample.what else { continue };
            if leads || !read_only {
                return Some(format!(
                    "n{} reached no majority since {} ({}), and at {} said that it {}",
                    isolation.node,
                    seconds(isolation.fault.start),
                    isolation.fault.name,
                    seconds(sample.time),
                    if leads { "leads" } else { "takes writes" }
                ));
            }
        }
    }
    None
}

/// Whether nothing else was done to the node at that time: one that was also stopped has its own reasons to be slow.
fn is_alone(isolation: &Isolation<'_>, faults: &[Fault]) -> bool {
    faults.iter().all(|fault| {
        std::ptr::eq(fault, isolation.fault)
            || !fault.nodes.contains(&isolation.node)
            || fault.end < isolation.fault.start
            || fault.start > isolation.to
    })
}

fn isolations<'a>(account: &Account<'a>) -> Vec<Isolation<'a>> {
    let mut isolations = Vec::new();
    for fault in account.faults {
        let (from, to) = (fault.start + nanoseconds(NOTICE_MAX), fault.healing);
        if from < to {
            let nodes = nemesis::without_majority(fault, account.nodes);
            isolations.extend(nodes.into_iter().map(|node| Isolation { node, fault, from, to }));
        }
    }
    isolations
}

#[cfg(test)]
mod tests {
    use ringfence_checker::{Event, Kind};

    use super::*;
    use crate::checks::planted::{SECOND, fault, status, write};
    use crate::record::Sample;

    fn verdict(samples: &[Sample], history: &[Event]) -> Finding {
        let faults = [fault("partition-halves", &[1], 10, 20)];
        check(&Account { nodes: 3, faults: &faults, samples, history })
    }

    #[test]
    fn a_node_that_is_cut_off_says_so_and_serves_nothing() {
        let samples = [
            status(11 * SECOND, 1, true, 3, false),
            status(14 * SECOND, 1, false, 3, true),
            status(14 * SECOND, 2, true, 4, false),
            status(21 * SECOND, 1, false, 4, false),
        ];
        let refused = write(1, 1, 14 * SECOND, 15 * SECOND, Kind::Fail);
        let elsewhere = write(2, 2, 14 * SECOND, 15 * SECOND, Kind::Ok);
        let afterwards = write(3, 1, 19 * SECOND, 21 * SECOND, Kind::Ok);
        let history = [refused, elsewhere, afterwards].concat();
        let finding = verdict(&samples, &history);
        assert_eq!(finding.verdict, Verdict::Ok, "{}", finding.summary);
        assert!(finding.summary.starts_with("1 times"), "{}", finding.summary);
    }

    #[test]
    fn a_write_or_a_fresh_read_through_it_is_a_violation() {
        let mut history = write(1, 1, 14 * SECOND, 15 * SECOND, Kind::Ok);
        let finding = verdict(&[], &history);
        assert_eq!(finding.verdict, Verdict::Violation);
        assert_eq!(finding.counterexample.expect("there is a picture").bars.len(), 1);
        history.iter_mut().for_each(|event| event.f = ringfence_checker::Function::Read);
        assert_eq!(verdict(&[], &history).verdict, Verdict::Violation);
        history.iter_mut().for_each(|event| event.freshness = Some("any".to_owned()));
        assert_eq!(verdict(&[], &history).verdict, Verdict::Ok);
    }

    #[test]
    fn a_follower_that_is_cut_off_with_its_leader_says_so_too() {
        let faults = [fault("partition-halves", &[1, 2], 10, 20)];
        let mut follower = status(14 * SECOND, 2, false, 3, false);
        let What::Status { leader, .. } = &mut follower.what else { panic!("a status is one") };
        *leader = Some(1);
        let verdict =
            |samples: &[Sample]| check(&Account { nodes: 5, faults: &faults, samples, history: &[] }).verdict;
        assert_eq!(verdict(std::slice::from_ref(&follower)), Verdict::Violation);
        let What::Status { read_only, .. } = &mut follower.what else { panic!("a status is one") };
        *read_only = true;
        assert_eq!(verdict(std::slice::from_ref(&follower)), Verdict::Ok);
    }

    #[test]
    fn a_boast_is_a_violation() {
        assert_eq!(verdict(&[status(14 * SECOND, 1, false, 3, false)], &[]).verdict, Verdict::Violation);
        assert_eq!(verdict(&[status(14 * SECOND, 1, true, 3, true)], &[]).verdict, Verdict::Violation);
    }
}
