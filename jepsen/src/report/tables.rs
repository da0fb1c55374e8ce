//! The page's tables: findings, faults, operations; and the violations with their pictures.

use std::cmp::Reverse;

use ringfence_checker::{Finding, Verdict};

use crate::record::Fault;

use super::head::{mark, verdict_class};
use super::operations::{self, Operation, Outcome};
use super::text::{count, duration, escape, moment};
use super::{counterexample, faults};

/// Every checker's answer, the worst first.
pub(super) fn findings(findings: &[Finding]) -> String {
    let mut sorted: Vec<&Finding> = findings.iter().collect();
    sorted.sort_by_key(|finding| Reverse(finding.verdict));
    let rows: String = sorted
        .into_iter()
        .map(|finding| {
            format!(
                "<tr><td>{}</td><th scope=\"row\">{}</th><td>{}</td></tr>",
                chip(finding.verdict, word(finding.verdict)),
                escape(&finding.check),
                escape(&finding.summary)
            )
        })
        .collect();
    format!("<section><h2>Checks</h2><table class=\"findings\">{rows}</table></section>")
}

/// What the bars of a counterexample mean.
const BARS_LEGEND: &str = "<p class=\"legend\"><span class=\"key ok\">done</span>\
    <span class=\"key info\">nobody can tell whether it was done</span><span class=\"key fail\">surely not done</span>\
    <span class=\"key culprit\">cannot be explained</span><span>Moments are in order, not to scale.</span></p>";

/// Each violation with its counterexample, or its sentence where it is not one of single operations; nothing where there is
/// none.
pub(super) fn violations(findings: &[Finding], faults: &[Fault]) -> String {
    let violations = || findings.iter().filter(|finding| finding.verdict == Verdict::Violation);
    let shown: String = violations().map(|finding| violation(finding, faults)).collect();
    if shown.is_empty() {
        return shown;
    }
    let legend = if violations().any(|finding| finding.counterexample.is_some()) { BARS_LEGEND } else { "" };
    format!("<section class=\"violations\"><h2>What went wrong</h2>{shown}{legend}</section>")
}

fn violation(finding: &Finding, faults: &[Fault]) -> String {
    let (told, picture) = match &finding.counterexample {
        Some(example) => (&example.explanation, counterexample::draw(example, faults)),
        None => (&finding.summary, String::new()),
    };
    format!("<article><h3>{}</h3><p>{}</p>{picture}</article>", escape(&finding.check), escape(told))
}

/// The faults with their evidence.
pub(super) fn faults(list: &[Fault]) -> String {
    if list.is_empty() {
        return String::new();
    }
    let rows: String = list
        .iter()
        .zip(faults::colours(list))
        .map(|(fault, colour)| {
            let (in_force, healing) = faults::lengths(fault);
            let (effect, word) = match (&fault.violation, fault.effective) {
                (Some(_), _) => (Verdict::Violation, "violation"),
                (None, true) => (Verdict::Ok, "seen"),
                (None, false) => (Verdict::Unknown, "none"),
            };
            let violation = fault.violation.as_ref().map_or_else(String::new, |violation| {
                format!("<br><b class=\"bad\">{}</b>", escape(violation))
            });
            format!(
                "<tr><th scope=\"row\"><i class=\"swatch c{colour}\"></i>{}</th><td>{}</td><td>{}</td>\
                 <td class=\"figure\">{}</td><td class=\"figure\">{in_force}</td><td class=\"figure\">{healing}</td>\
                 <td>{}{violation}</td><td>{}</td></tr>",
                escape(&fault.name),
                faults::node_names(&fault.nodes),
                escape(&fault.detail),
                moment(fault.start),
                escape(&fault.evidence),
                chip(effect, word),
            )
        })
        .collect();
    format!(
        "<section><h2>Faults</h2><div class=\"wide\"><table><thead><tr><th>fault</th><th>nodes</th><th>what</th>\
         <th class=\"figure\">from</th><th class=\"figure\">for</th><th class=\"figure\">healing</th><th>evidence</th><th>effect</th></tr></thead>{rows}\
         </table></div></section>"
    )
}

/// Outcomes and latencies of each function.
pub(super) fn operations(all: &[Operation]) -> String {
    let rows: String = operations::by_function(all)
        .iter()
        .map(|(function, of_function)| {
            let of = |outcome| of_function.iter().filter(move |operation| operation.outcome == outcome);
            let counts = Outcome::ALL.map(|outcome| of(outcome).count() as u64);
            let mut latencies: Vec<u64> = of(Outcome::Ok).filter_map(Operation::latency).collect();
            latencies.sort_unstable();
            let counts: String =
                counts.iter().map(|number| format!("<td class=\"figure\">{}</td>", count(*number))).collect();
            let latencies: String = [0.5, 0.9, 0.99, 1.0]
                .map(|part| operations::quantile(&latencies, part).map_or_else(|| "–".to_owned(), duration))
                .map(|latency| format!("<td class=\"figure\">{latency}</td>"))
                .concat();
            format!("<tr><th scope=\"row\">{}</th>{counts}{latencies}</tr>", function.name())
        })
        .collect();
    format!(
        "<section><h2>Operations</h2><div class=\"wide\"><table><thead><tr><th>function</th><th class=\"figure\">ok</th>\
         <th class=\"figure\">fail</th><th class=\"figure\">info</th><th class=\"figure\">median of ok</th>\
         <th class=\"figure\">90 %</th><th class=\"figure\">99 %</th><th class=\"figure\">longest</th></tr></thead>{rows}\
         </table></div></section>"
    )
}

fn chip(verdict: Verdict, word: &str) -> String {
    format!("<span class=\"chip {}\">{} {word}</span>", verdict_class(verdict), mark(verdict))
}

const fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "ok",
        Verdict::Unknown => "unknown",
        Verdict::Violation => "violation",
    }
}
