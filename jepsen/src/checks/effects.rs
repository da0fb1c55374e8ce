//! Whether every fault bit, and what faults showed by themselves. A run whose faults did nothing proves nothing.

use ringfence_checker::{Finding, Verdict};

use super::{finding, seconds};
use crate::record::Fault;

/// Two findings: `fault-evidence` and `fault-answers`.
pub(super) fn check(faults: &[Fault]) -> [Finding; 2] {
    [evidence(faults), answers(faults)]
}

fn answers(faults: &[Fault]) -> Finding {
    const CHECK: &str = "fault-answers";
    let of = |fault: &Fault| {
        let violation = fault.violation.as_ref()?;
        Some(format!("{} at {}: {violation}", fault.name, seconds(fault.start)))
    };
    let wrong: Vec<String> = faults.iter().filter_map(of).collect();
    if wrong.is_empty() {
        return finding(CHECK, Verdict::Ok, "no node answered a fault in a way that is a fault of its own");
    }
    finding(CHECK, Verdict::Violation, wrong.join("; "))
}

fn evidence(faults: &[Fault]) -> Finding {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::planted::fault;

    #[test]
    fn a_fault_without_effect_spoils_the_run() {
        let biting = fault("loss", &[1], 1, 2);
        let blunt =
            Fault { effective: false, evidence: "no packet was dropped".to_owned(), ..biting.clone() };
        assert_eq!(evidence(std::slice::from_ref(&biting)).verdict, Verdict::Ok);
        let finding = evidence(&[biting, blunt]);
        assert_eq!(finding.verdict, Verdict::Unknown);
        assert!(
            finding.summary.contains("1 of 2") && finding.summary.contains("no packet"),
            "{}",
            finding.summary
        );
    }

    #[test]
    fn what_a_fault_shows_by_itself_is_a_violation() {
        let lawful = fault("rot-log", &[2], 1, 2);
        let wrong = Fault { violation: Some("n2 started".to_owned()), ..lawful.clone() };
        assert_eq!(answers(std::slice::from_ref(&lawful)).verdict, Verdict::Ok);
        let finding = answers(&[lawful, wrong]);
        assert_eq!(
            (finding.verdict, finding.summary.as_str()),
            (Verdict::Violation, "rot-log at 1.0 s: n2 started")
        );
    }
}
