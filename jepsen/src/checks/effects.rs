//! Whether every fault bit, and what faults showed by themselves. A run whose faults did nothing proves nothing.

use ringfence_checker::{Finding, Verdict};

use super::{finding, seconds};
use crate::record::Fault;

/// The finding `fault-evidence`.
pub(super) fn check(faults: &[Fault]) -> Finding {
    const CHECK: &str = "fault-evidence";
    let without: Vec<String> = faults
        .iter()
        .filter(|fault| !fault.effective)
        .map(|fault| format!("{} at {} ({})", fault.name, seconds(fault.start), fault.evidence))
        .collect();
    if without.is_empty() {
        return finding(CHECK, Verdict::Ok, format!("each of {} faults had an effect", faults.len()));
    }
    finding(
        CHECK,
        Verdict::Unknown,
        format!("{} of {} faults had no effect: {}", without.len(), faults.len(), without.join("; ")),
    )
}

/// The finding `fault-violations`: what strikes saw that must not be, whatever clients happened to read.
pub(super) fn violations(faults: &[Fault]) -> Finding {
    const CHECK: &str = "fault-violations";
    let seen: Vec<String> = faults
        .iter()
        .filter_map(|fault| {
            let violation = fault.violation.as_ref()?;
            Some(format!("{} at {}: {violation}", fault.name, seconds(fault.start)))
        })
        .collect();
    if seen.is_empty() {
        return finding(CHECK, Verdict::Ok, "no fault showed anything wrong by itself");
    }
    finding(CHECK, Verdict::Violation, seen.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::planted::fault;

    #[test]
    fn a_fault_without_effect_spoils_the_run() {
        let biting = fault("loss", &[1], 1, 2);
        let blunt =
            Fault { effective: false, evidence: "no packet was dropped".to_owned(), ..biting.clone() };
        assert_eq!(check(std::slice::from_ref(&biting)).verdict, Verdict::Ok);
        let finding = check(&[biting, blunt]);
        assert_eq!(finding.verdict, Verdict::Unknown);
        assert!(
            finding.summary.contains("1 of 2") && finding.summary.contains("no packet"),
            "{}",
            finding.summary
        );
    }

    #[test]
    fn what_a_strike_saw_is_a_violation() {
        let quiet = fault("rot-log", &[1], 1, 2);
        let telling = Fault { violation: Some("n1 started on a rotten log".to_owned()), ..quiet.clone() };
        assert_eq!(violations(std::slice::from_ref(&quiet)).verdict, Verdict::Ok);
        let finding = violations(&[quiet, telling]);
        assert_eq!(finding.verdict, Verdict::Violation);
        assert!(finding.summary.contains("rot-log at 1.0 s: n1 started"), "{}", finding.summary);
    }
}
