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
    let (masked, without): (Vec<&Fault>, Vec<&Fault>) =
        faults.iter().filter(|fault| !fault.effective).partition(|fault| is_masked(fault, faults));
    let named = |faults: &[&Fault]| {
        let named =
            |fault: &&Fault| format!("{} at {} ({})", fault.name, seconds(fault.start), fault.evidence);
        faults.iter().map(named).collect::<Vec<_>>().join("; ")
    };
    if without.is_empty() {
        let mut summary = format!("{} of {} faults had an effect", faults.len() - masked.len(), faults.len());
        if !masked.is_empty() {
            summary += &format!("; others at the same time left nothing to do for {}", named(&masked));
        }
        return finding(CHECK, Verdict::Ok, summary);
    }
    finding(
        CHECK,
        Verdict::Unknown,
        format!("{} of {} faults had no effect: {}", without.len(), faults.len(), named(&without)),
    )
}

/// Whether another fault did something for at least half of this one's time: nothing is sent that a cut could drop while all
/// nodes are down.
fn is_masked(fault: &Fault, faults: &[Fault]) -> bool {
    let in_force = |fault: &Fault| fault.healing.saturating_sub(fault.start);
    let shared = |other: &Fault| {
        let (from, to) = (fault.start.max(other.start), fault.healing.min(other.healing));
        to.saturating_sub(from)
    };
    in_force(fault) > 0 && faults.iter().any(|other| other.effective && 2 * shared(other) >= in_force(fault))
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
        let later = fault("loss", &[1], 2, 3);
        let finding = evidence(&[later, blunt.clone()]);
        assert_eq!(finding.verdict, Verdict::Unknown);
        assert!(
            finding.summary.contains("1 of 2") && finding.summary.contains("no packet"),
            "{}",
            finding.summary
        );
        // A strike that failed at once was in force at no time, so nothing excuses it.
        let failed = Fault { healing: blunt.start, ..blunt };
        assert_eq!(evidence(&[biting, failed]).verdict, Verdict::Unknown);
    }

    #[test]
    fn a_fault_to_which_another_left_nothing_is_excused_and_named() {
        let cut = Fault { effective: false, ..fault("partition-bridge", &[1, 2], 10, 16) };
        let killed = |from, to| fault("kill-all", &[1, 2, 3], from, to);
        let masked = evidence(&[cut.clone(), killed(9, 15)]);
        assert_eq!(masked.verdict, Verdict::Ok);
        assert!(masked.summary.starts_with("1 of 2"), "{}", masked.summary);
        assert!(masked.summary.contains("partition-bridge at 10.0 s"), "{}", masked.summary);
        assert_eq!(evidence(&[cut.clone(), killed(9, 12)]).verdict, Verdict::Unknown, "most of it was alone");
        let blunt = Fault { effective: false, ..killed(9, 15) };
        assert_eq!(evidence(&[cut, blunt]).verdict, Verdict::Unknown, "what did nothing masks nothing");
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
