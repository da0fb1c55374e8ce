//! Whether every fault bit. A run whose faults did nothing proves nothing.

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
}
