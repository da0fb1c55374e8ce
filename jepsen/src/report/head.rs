//! The top of the page: the verdict, what was run, and how to run it again.

use ringfence_checker::Verdict;

use crate::directory::Recorded;
use crate::record::Run;

use super::operations::{self, Operation, Outcome};
use super::text::{count, duration, escape};

/// The head of the page.
pub(super) fn draw(recorded: &Recorded, operations: &[Operation]) -> String {
    let run = &recorded.run;
    let faults = if run.nemeses.is_empty() { "no faults".to_owned() } else { run.nemeses.join(" + ") };
    let armed = match run.canaries.as_slice() {
        [] => String::new(),
        canaries => format!(
            "<p class=\"armed\">Made wrong on purpose: <b>{}</b>. A violation is what this run is for.</p>",
            escape(&canaries.join(", "))
        ),
    };
    let left_out = match run.left_out.as_slice() {
        [] => String::new(),
        left_out => format!(
            "<p class=\"note\">This machine could not do, and so the run left out: {}.</p>",
            escape(&left_out.join("; "))
        ),
    };
    format!(
        "<header class=\"{class}\"><p class=\"what\">{workload} under {faults}, on {nodes} nodes</p>\
         <h1><span class=\"mark\" aria-hidden=\"true\">{mark}</span>{words}</h1>\
         <p class=\"summary\">{summary}</p>{armed}{tiles}\
         <div class=\"repeat\"><span>Run it again</span><code>{repeat}</code></div>{left_out}</header>",
        class = verdict_class(recorded.results.verdict),
        workload = escape(&run.workload),
        faults = escape(&faults),
        nodes = run.nodes,
        mark = mark(recorded.results.verdict),
        words = words(recorded.results.verdict),
        summary = escape(&summary(recorded)),
        tiles = tiles(recorded, operations),
        repeat = escape(&command_line(run)),
    )
}

/// The command that does the same again.
#[must_use]
pub fn command_line(run: &Run) -> String {
    let mut command = format!("jepsen run --workload {}", run.workload);
    if !run.nemeses.is_empty() {
        command += &format!(" --nemesis {}", run.nemeses.join(","));
    }
    command +=
        &format!(" --nodes {} --time {}s --rate {} --seed {}", run.nodes, run.seconds, run.rate, run.seed);
    for canary in &run.canaries {
        command += &format!(" --canary {canary}");
    }
    for option in &run.options {
        command += &format!(" {option}");
    }
    command
}

/// A verdict's class in the style sheet.
pub(super) const fn verdict_class(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "good",
        Verdict::Unknown => "unknown",
        Verdict::Violation => "bad",
    }
}

/// A verdict as a sign, for those who tell colours apart badly.
pub(super) const fn mark(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "✓",
        Verdict::Unknown => "?",
        Verdict::Violation => "✕",
    }
}

const fn words(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "No violation found",
        Verdict::Unknown => "Undecided",
        Verdict::Violation => "Violation",
    }
}

fn summary(recorded: &Recorded) -> String {
    let findings = &recorded.results.findings;
    let of = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    let (violations, unknown) = (of(Verdict::Violation), of(Verdict::Unknown));
    match (violations, unknown) {
        (0, 0) => format!("All {} checks passed.", findings.len()),
        (0, _) => format!("{unknown} of {} checks could not be decided, which is no pass.", findings.len()),
        (_, 0) => format!("{violations} of {} checks failed.", findings.len()),
        _ => format!("{violations} of {} checks failed, and {unknown} could not be decided.", findings.len()),
    }
}

fn tiles(recorded: &Recorded, operations: &[Operation]) -> String {
    let run = &recorded.run;
    let [ok, fail, info] = recorded.results.operations;
    let mut latencies: Vec<u64> = operations
        .iter()
        .filter(|operation| operation.outcome == Outcome::Ok)
        .filter_map(Operation::latency)
        .collect();
    latencies.sort_unstable();
    let latency = |part| operations::quantile(&latencies, part).map_or_else(|| "–".to_owned(), duration);
    let effective = recorded.faults.iter().filter(|fault| fault.effective).count();
    let tiles = [
        ("ok", count(ok), "done"),
        ("fail", count(fail), "surely not done"),
        ("info", count(info), "nobody can tell"),
        ("", latency(0.5), "median latency"),
        ("", latency(0.99), "99 % of latencies"),
        ("", format!("{effective} of {}", recorded.faults.len()), "faults took effect"),
        ("", format!("{} s", run.seconds), "of load"),
        ("", format!("{}/s", count(run.rate)), "offered"),
    ];
    let tiles: String = tiles
        .into_iter()
        .map(|(class, figure, name)| {
            format!("<div class=\"tile {class}\"><b>{}</b><span>{name}</span></div>", escape(&figure))
        })
        .collect();
    format!("<div class=\"tiles\">{tiles}</div>")
}
