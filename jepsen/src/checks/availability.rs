//! Whether the cluster came back: after each fault, writes succeed within a bound, and soon through every member.

use std::time::Duration;

use ringfence_checker::{Finding, Verdict};

use super::operation::{self, Operation};
use super::{Account, finding, nanoseconds, seconds};
use crate::record::Fault;

/// The longest time that may pass from the end of a fault until a write succeeds.
pub const RECOVERY_MAX: Duration = Duration::from_secs(10);
/// The same for a write through each single member. A member that was away may have to take a snapshot first.
pub const MEMBER_RECOVERY_MAX: Duration = Duration::from_secs(20);

/// A time without any fault.
#[derive(Debug, PartialEq, Eq)]
struct Quiet {
    from: u64,
    to: u64,
    /// The faults that had just healed; empty: the run had just begun.
    after: Vec<String>,
}

/// How the cluster came back after one fault, or at the beginning.
#[derive(Debug, PartialEq, Eq)]
enum Recovery {
    /// It did, after this time.
    Within(u64),
    /// It did not, although there was time and it was asked.
    Never,
    /// The next fault came too soon, or nobody asked.
    Unjudged,
}

/// Two findings: `available`, of the cluster, and `members-available`, of each member.
pub(super) fn check(account: &Account<'_>) -> [Finding; 2] {
    let writes: Vec<Operation<'_>> =
        operation::all(account.history).into_iter().filter(Operation::is_write).collect();
    let end = writes.last().map_or(0, Operation::start);
    let quiet = quiet(account.faults, end);
    [of_cluster(&quiet, &writes), of_members(&quiet, &writes, account.nodes)]
}

fn of_cluster(quiet: &[Quiet], writes: &[Operation<'_>]) -> Finding {
    const CHECK: &str = "available";
    let all: Vec<&Operation<'_>> = writes.iter().collect();
    let recoveries: Vec<Recovery> =
        quiet.iter().map(|quiet| recovery(quiet, &all, nanoseconds(RECOVERY_MAX))).collect();
    if let Some(at) = recoveries.iter().position(|recovery| *recovery == Recovery::Never) {
        let Quiet { from, .. } = quiet[at];
        let summary = format!(
            "no write succeeded in the {RECOVERY_MAX:?} after {}, at {}",
            quiet[at].what_ended(),
            seconds(from)
        );
        return finding(CHECK, Verdict::Violation, summary);
    }
    let times: Vec<u64> = recoveries
        .iter()
        .filter_map(|r| if let Recovery::Within(time) = r { Some(*time) } else { None })
        .collect();
    match times.iter().max() {
        None => {
            finding(CHECK, Verdict::Unknown, "no fault was followed by a time in which writes were tried")
        }
        Some(longest) => finding(
            CHECK,
            Verdict::Ok,
            format!(
                "writes succeeded at most {} after each of {} times at which all faults had healed",
                seconds(*longest),
                times.len()
            ),
        ),
    }
}

fn of_members(quiet: &[Quiet], writes: &[Operation<'_>], nodes: usize) -> Finding {
    const CHECK: &str = "members-available";
    let mut longest = None;
    for node in 1..=nodes {
        let own: Vec<&Operation<'_>> =
            writes.iter().filter(|write| write.node() == Some(node as u64)).collect();
        for quiet in quiet {
            match recovery(quiet, &own, nanoseconds(MEMBER_RECOVERY_MAX)) {
                Recovery::Never => {
                    let summary = format!(
                        "no write through n{node} succeeded in the {MEMBER_RECOVERY_MAX:?} after {}, at {}",
                        quiet.what_ended(),
                        seconds(quiet.from)
                    );
                    return finding(CHECK, Verdict::Violation, summary);
                }
                Recovery::Within(time) => longest = longest.max(Some(time)),
                Recovery::Unjudged => {}
            }
        }
    }
    match longest {
        None => finding(CHECK, Verdict::Unknown, "no member was asked to write while there was no fault"),
        Some(longest) => finding(
            CHECK,
            Verdict::Ok,
            format!(
                "writes through each member succeeded at most {} after faults had healed",
                seconds(longest)
            ),
        ),
    }
}

/// How writes came back in a quiet time. The first success may lie within the next fault: it shows what it shows.
fn recovery(quiet: &Quiet, writes: &[&Operation<'_>], bound: u64) -> Recovery {
    let begun = writes.partition_point(|write| write.start() < quiet.from);
    let in_time = writes[begun..].iter().take_while(|write| write.start() <= quiet.from + bound);
    let attempts = in_time.clone().count();
    match in_time.filter_map(|write| write.done()).min() {
        Some(done) if done <= quiet.from + bound => Recovery::Within(done - quiet.from),
        _ if attempts > 0 && quiet.to - quiet.from >= bound => Recovery::Never,
        _ => Recovery::Unjudged,
    }
}

/// The times without any fault, from the beginning of the run to `end`.
fn quiet(faults: &[Fault], end: u64) -> Vec<Quiet> {
    let mut faults: Vec<&Fault> = faults.iter().collect();
    faults.sort_by_key(|fault| fault.start);
    let mut times = Vec::new();
    let mut healed = 0;
    let mut after: Vec<String> = Vec::new();
    for fault in faults {
        if fault.start > healed {
            times.push(Quiet { from: healed, to: fault.start.min(end), after: std::mem::take(&mut after) });
        }
        healed = healed.max(fault.end);
        after.push(fault.name.clone());
    }
    times.push(Quiet { from: healed, to: end, after });
    times.retain(|quiet| quiet.from < quiet.to);
    times
}

impl Quiet {
    fn what_ended(&self) -> String {
        if self.after.is_empty() {
            "the beginning".to_owned()
        } else {
            format!("{} healed", self.after.join(" and "))
        }
    }
}

#[cfg(test)]
mod tests {
    use ringfence_checker::{Event, Kind};

    use super::*;
    use crate::checks::planted::{SECOND, fault, writes};

    fn verdicts(faults: &[Fault], mut history: Vec<Event>) -> [(Verdict, String); 2] {
        history.sort_by_key(|event| event.time);
        let account = Account { nodes: 2, faults, samples: &[], history: &history };
        check(&account).map(|finding| (finding.verdict, finding.summary))
    }

    #[test]
    fn a_cluster_that_comes_back_is_available() {
        let history =
            [writes(1, 0, 10, Kind::Ok), writes(1, 10, 23, Kind::Info), writes(1, 23, 40, Kind::Ok)];
        let [cluster, _] = verdicts(&[fault("kill-all", &[1, 2], 10, 20)], history.concat());
        assert_eq!(cluster.0, Verdict::Ok);
        assert!(cluster.1.contains("at most 3.0 s after each of 2 times"), "{}", cluster.1);
    }

    #[test]
    fn a_cluster_that_stays_away_is_not() {
        let history =
            [writes(1, 0, 10, Kind::Ok), writes(1, 10, 32, Kind::Info), writes(1, 32, 40, Kind::Ok)];
        let [cluster, _] = verdicts(&[fault("kill-all", &[1, 2], 10, 20)], history.concat());
        assert_eq!(cluster.0, Verdict::Violation);
        assert!(cluster.1.contains("in the 10s after kill-all healed, at 20.0 s"), "{}", cluster.1);
    }

    #[test]
    fn a_member_that_stays_away_is_found_behind_a_cluster_that_serves() {
        let history = [writes(1, 0, 50, Kind::Ok), writes(2, 0, 10, Kind::Ok), writes(2, 10, 50, Kind::Fail)];
        let [cluster, members] = verdicts(&[fault("pause-one", &[2], 10, 20)], history.concat());
        assert_eq!(cluster.0, Verdict::Ok);
        assert_eq!(members.0, Verdict::Violation);
        assert!(members.1.contains("through n2"), "{}", members.1);
    }

    #[test]
    fn too_short_a_rest_and_no_attempt_prove_nothing() {
        let faults = [fault("a", &[1], 0, 10), fault("b", &[1], 15, 20)];
        let [cluster, _] = verdicts(&faults, writes(1, 0, 21, Kind::Fail));
        assert_eq!(cluster.0, Verdict::Unknown);
        assert_eq!(verdicts(&[], Vec::new())[0].0, Verdict::Unknown);
    }

    #[test]
    fn overlapping_faults_make_one_time_of_trouble() {
        let faults = [fault("a", &[1], 10, 30), fault("b", &[1], 20, 25), fault("c", &[1], 28, 35)];
        let quiet = quiet(&faults, 60 * SECOND);
        assert_eq!(quiet.len(), 2);
        assert_eq!((quiet[0].from, quiet[0].to), (0, 10 * SECOND));
        assert_eq!((quiet[1].from, quiet[1].to), (35 * SECOND, 60 * SECOND));
        assert_eq!(quiet[1].after, ["a", "b", "c"]);
    }
}
