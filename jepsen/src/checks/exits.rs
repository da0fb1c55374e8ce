//! How processes ended. A node may end by itself only where the fault in force makes that lawful, as a disk that fails does.

use ringfence_checker::{Finding, Verdict};

use super::{finding, seconds};
use crate::record::{Sample, What};

/// The finding `exits`.
pub(super) fn check(samples: &[Sample]) -> Finding {
    const CHECK: &str = "exits";
    let mut lawful = 0;
    let mut unlawful = Vec::new();
    for sample in samples {
        match &sample.what {
            What::Exited { expected: true, .. } => lawful += 1,
            What::Exited { code, expected: false, reason } => {
                let how = code.map_or("by a signal".to_owned(), |code| format!("with code {code}"));
                unlawful.push(format!("n{} ended {how} at {}: {reason}", sample.node, seconds(sample.time)));
            }
            What::Status { .. } | What::Started | What::Stopped { .. } => {}
        }
    }
    if unlawful.is_empty() {
        let summary = format!("no node ended by itself without need; {lawful} ended because of a fault");
        return finding(CHECK, Verdict::Ok, summary);
    }
    finding(CHECK, Verdict::Violation, unlawful.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exited(code: Option<i32>, expected: bool) -> Sample {
        Sample {
            time: 1_500_000_000,
            node: 2,
            what: What::Exited { code, expected, reason: "last words".to_owned() },
        }
    }

    #[test]
    fn an_exit_that_no_fault_explains_is_a_violation() {
        assert_eq!(check(&[]).verdict, Verdict::Ok);
        assert_eq!(check(&[exited(Some(16), true)]).verdict, Verdict::Ok);
        let finding = check(&[exited(Some(16), true), exited(Some(17), false)]);
        assert_eq!(finding.verdict, Verdict::Violation);
        assert_eq!(finding.summary, "n2 ended with code 17 at 1.5 s: last words");
        assert!(check(&[exited(None, false)]).summary.contains("by a signal"));
    }
}
