//! Counters of what clients were refused, by who refused it and why.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use crate::status::{Judge, Trouble};

/// The counters. There are as many as the build has reasons.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    refused: Mutex<BTreeMap<(Judge, &'static str), u64>>,
    /// Changes of guards that an administrator made without the fences that they need.
    overrides: AtomicU64,
}

impl Refusals {
    /// Counts `trouble` if it is a refusal.
    pub(crate) fn count(&self, trouble: &Trouble) {
        if let Some(refusal) = trouble.refusal() {
            // A counter is whole whatever its last holder did.
            *self.refused.lock().unwrap_or_else(PoisonError::into_inner).entry(refusal).or_default() += 1;
        }
    }

    /// Counts a change of a guard by an administrator's override.
    pub(crate) fn count_override(&self) {
        self.overrides.fetch_add(1, Relaxed);
    }

    /// The counters in Prometheus' text format.
    pub(crate) fn write(&self, text: &mut String) {
        text.push_str(
            "# HELP ringfence_refusals_total Calls refused, by who refused (form: the checks of form; gate: before consensus; \
             consensus: for want of a leader, its lease, time or room; state: when applied or read) and why.\n\
             # TYPE ringfence_refusals_total counter\n",
        );
        for ((judge, reason), count) in self.refused.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let judge = match judge {
                Judge::Form => "form",
                Judge::Gate => "gate",
                Judge::Consensus => "consensus",
                Judge::State => "state",
            };
            let _ = writeln!(text, "ringfence_refusals_total{{by=\"{judge}\",reason=\"{reason}\"}} {count}");
        }
        let overrides = self.overrides.load(Relaxed);
        let _ = writeln!(
            text,
            "# HELP ringfence_guard_overrides_total Changes of guards without the fences that they need, by an \
             administrator.\n# TYPE ringfence_guard_overrides_total counter\nringfence_guard_overrides_total {overrides}"
        );
    }
}

#[cfg(test)]
mod tests {
    use ringfence_proto::request::ParseError;
    use ringfence_types::Rejection;

    use super::*;

    #[test]
    fn refusals_are_counted_by_judge_and_reason() {
        let refusals = Refusals::default();
        refusals.count(&Rejection::SessionEnded.into());
        refusals.count(&Rejection::SessionEnded.into());
        refusals.count(&Trouble::StaleAtGate(Rejection::SessionEnded));
        refusals.count(&ParseError::DuplicateKey.into());
        refusals.count(&Trouble::NoDowngrade);
        refusals.count_override();
        let mut text = String::new();
        refusals.write(&mut text);
        let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            samples,
            [
                "ringfence_refusals_total{by=\"form\",reason=\"duplicate_key\"} 1",
                "ringfence_refusals_total{by=\"gate\",reason=\"session_ended\"} 1",
                "ringfence_refusals_total{by=\"state\",reason=\"session_ended\"} 2",
                "ringfence_guard_overrides_total 1",
            ]
        );
    }
}
