//! Whether there was ever more than one leader, by the nodes' own words, and whether terms only grew.
//!
//! A node says that it leads while its leader lease holds. Samples are taken one after the other, each within its time limit,
//! so two words can be compared only where more than [`TOLERANCE`] lies between them.

use std::collections::BTreeMap;
use std::time::Duration;

use ringfence_checker::{Finding, Verdict};

use super::{finding, nanoseconds, seconds};
use crate::record::{Sample, What};

/// How far the time of a sample may be from the moment at which the node spoke, and how long two leader leases may overlap
/// where the clocks of two nodes run at 0.8 and 1.2 of the right rate.
pub const TOLERANCE: Duration = Duration::from_secs(1);

/// A leadership: (term, node).
type Leadership = (u64, usize);

/// When a leadership was first and last claimed.
#[derive(Debug, Clone, Copy)]
struct Reign {
    first: u64,
    last: u64,
}

/// Two findings: `one-leader` and `terms-grow`.
pub(super) fn check(samples: &[Sample]) -> [Finding; 2] {
    [one_leader(samples), terms_grow(samples)]
}

fn one_leader(samples: &[Sample]) -> Finding {
    const CHECK: &str = "one-leader";
    let reigns = reigns(samples);
    let tolerance = nanoseconds(TOLERANCE);
    for (index, (old, reign)) in reigns.iter().enumerate() {
        // Leaderships are ordered by term: none after this one is older. Two of one term must be one after the other, too.
        for (new, next) in &reigns[index + 1..] {
            let overlap = if new.0 == old.0 {
                reign.last.min(next.last).saturating_sub(reign.first.max(next.first))
            } else {
                reign.last.saturating_sub(next.first)
            };
            if overlap > tolerance {
                let summary = format!(
                    "n{} led in term {} until {}, although n{} had led in term {} from {} on",
                    old.1,
                    old.0,
                    seconds(reign.last),
                    new.1,
                    new.0,
                    seconds(next.first)
                );
                return finding(CHECK, Verdict::Violation, summary);
            }
        }
    }
    if reigns.is_empty() {
        return finding(CHECK, Verdict::Unknown, "no node ever said that it leads");
    }
    finding(CHECK, Verdict::Ok, format!("{} leaderships, one after the other", reigns.len()))
}

fn reigns(samples: &[Sample]) -> Vec<(Leadership, Reign)> {
    let mut reigns: BTreeMap<Leadership, Reign> = BTreeMap::new();
    for sample in samples {
        if let What::Status { leads: true, term, .. } = sample.what {
            let time = sample.time;
            let reign = reigns.entry((term, sample.node)).or_insert(Reign { first: time, last: time });
            reign.first = reign.first.min(time);
            reign.last = reign.last.max(time);
        }
    }
    reigns.into_iter().collect()
}

/// A node that said that it is in a term never goes back to an older one, not even by a restart: it may have voted.
fn terms_grow(samples: &[Sample]) -> Finding {
    const CHECK: &str = "terms-grow";
    let mut last: BTreeMap<usize, (u64, u64)> = BTreeMap::new();
    let mut words = 0;
    for sample in samples {
        let What::Status { term, .. } = sample.what else { continue };
        // There is no term 0: a node that serves its metrics a moment before it has read its own vote says so.
        if term == 0 {
            continue;
        }
        words += 1;
        if let Some((before, at)) = last.insert(sample.node, (term, sample.time))
            && term < before
        {
            let summary = format!(
                "n{} was in term {before} at {} and in term {term} at {}",
                sample.node,
                seconds(at),
                seconds(sample.time)
            );
            return finding(CHECK, Verdict::Violation, summary);
        }
    }
    if words == 0 {
        return finding(CHECK, Verdict::Unknown, "no node ever told its term");
    }
    finding(CHECK, Verdict::Ok, format!("no node went back to an older term in {words} samples"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::planted::{SECOND, status};

    /// Claims of leadership, each second from one to another.
    fn leads(node: usize, term: u64, from: u64, to: u64) -> Vec<Sample> {
        (from..=to).map(|second| status(second * SECOND, node, true, term, false)).collect()
    }

    fn verdicts(samples: &[Vec<Sample>]) -> [Verdict; 2] {
        let mut samples = samples.concat();
        samples.sort_by_key(|sample| sample.time);
        check(&samples).map(|finding| finding.verdict)
    }

    #[test]
    fn leaders_one_after_the_other_are_lawful() {
        assert_eq!(verdicts(&[leads(1, 1, 0, 5), leads(2, 2, 6, 9), leads(1, 3, 10, 12)]), [Verdict::Ok; 2]);
        assert_eq!(verdicts(&[leads(1, 1, 0, 5), leads(2, 1, 6, 9)])[0], Verdict::Ok, "in turn, in one term");
        assert_eq!(verdicts(&[leads(1, 1, 0, 5), leads(2, 2, 5, 9)])[0], Verdict::Ok, "within the tolerance");
    }

    #[test]
    fn two_leaders_at_once_are_found() {
        assert_eq!(verdicts(&[leads(1, 4, 0, 8), leads(2, 4, 5, 9)])[0], Verdict::Violation, "in one term");
        assert_eq!(
            verdicts(&[leads(1, 1, 0, 8), leads(2, 2, 5, 9)])[0],
            Verdict::Violation,
            "an old one stays"
        );
        assert_eq!(
            verdicts(&[leads(1, 7, 0, 2), leads(1, 7, 8, 9), leads(2, 8, 4, 6)])[0],
            Verdict::Violation
        );
    }

    #[test]
    fn a_term_that_goes_back_is_found() {
        let samples = [
            status(1, 1, false, 5, false),
            Sample { time: 2, node: 1, what: What::Started },
            status(3, 1, false, 4, false),
        ];
        assert_eq!(check(&samples)[1].verdict, Verdict::Violation);
        let not_yet =
            [status(1, 1, false, 5, false), status(2, 1, false, 0, false), status(3, 1, false, 5, false)];
        assert_eq!(check(&not_yet)[1].verdict, Verdict::Ok);
        assert_eq!(check(&samples[..2])[1].verdict, Verdict::Ok);
        assert_eq!(check(&[]).map(|finding| finding.verdict), [Verdict::Unknown; 2]);
    }
}
