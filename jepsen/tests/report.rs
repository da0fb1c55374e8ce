//! The report, drawn of runs that never were: it must show what is in them, stand alone, and stay small. The pages are left in
//! the target directory's `tmp/report`, for a look.

#[path = "report/clients.rs"]
mod clients;
#[path = "report/synthetic.rs"]
mod synthetic;

use std::path::{Path, PathBuf};

use ringfence_checker::{Counterexample, Finding, Verdict};
use ringfence_jepsen::directory::Recorded;
use ringfence_jepsen::report;

use synthetic::{Planted, recorded};

/// The page of a run, read from its directory as `jepsen report` does.
fn page(name: &str, run: &Recorded) -> String {
    let directory: PathBuf = Path::new(env!("CARGO_TARGET_TMPDIR")).join("report").join(name);
    run.write(&directory).expect("the directory is ours");
    let read = Recorded::read(&directory).expect("what was written can be read");
    let path = report::write(&directory, &read).expect("the directory is ours");
    std::fs::read_to_string(path).expect("the page was just written")
}

/// What holds for every page.
fn assert_sound(page: &str, run: &Recorded) {
    for foreign in ["NaN", "inf\"", "http://", "https://", "<link", "src=", "url(", "@import"] {
        let found = page.replace("http://www.w3.org/2000/svg", "").contains(foreign);
        assert!(!found, "the page contains {foreign}");
    }
    assert!(page.len() < 2_000_000, "the page has {} bytes", page.len());
    for tag in ["svg", "table", "section", "article", "main", "div", "p", "style", "script"] {
        let opened = page.matches(&format!("<{tag} ")).count() + page.matches(&format!("<{tag}>")).count();
        assert_eq!(
            opened,
            page.matches(&format!("</{tag}>")).count(),
            "{tag} is not closed as often as opened"
        );
    }
    for fault in &run.faults {
        assert!(page.contains(&fault.evidence), "the evidence of {} is missing", fault.name);
    }
    for finding in &run.results.findings {
        assert!(page.contains(&finding.check) && page.contains(&finding.summary));
    }
}

#[test]
fn a_healthy_run_shows_its_figures_and_faults() {
    let run = recorded(None);
    for finding in &run.results.findings {
        assert_eq!(finding.verdict, Verdict::Ok, "{}: {}", finding.check, finding.summary);
    }
    let page = page("healthy", &run);
    assert_sound(&page, &run);
    assert!(page.contains("No violation found"));
    assert!(page.contains(
        "jepsen run --workload register --nemesis partition-leader,kill-all,pause-leader,jitter --nodes 5 --time 60s \
         --rate 500 --seed 42"
    ));
    let [ok, fail, info] = run.results.operations.map(|number| {
        let digits = number.to_string();
        let (thousands, rest) = digits.split_at(digits.len().saturating_sub(3));
        if thousands.is_empty() { rest.to_owned() } else { format!("{thousands}\u{202f}{rest}") }
    });
    for (class, figure) in [("ok", ok), ("fail", fail), ("info", info)] {
        assert!(
            page.contains(&format!("<div class=\"tile {class}\"><b>{figure}</b>")),
            "{class} {figure} is missing"
        );
    }
    for shown in
        ["points ok", "points fail", "points info", "rate ok", "role leader", "role read-only", "role down"]
    {
        assert!(page.contains(&format!("class=\"{shown}\"")), "{shown} is not drawn");
    }
    assert!(!page.contains("What went wrong"));
}

/// What the checkers found wrong with a run, which must be one thing.
fn violation(run: &Recorded) -> &Finding {
    let wrong: Vec<&Finding> =
        run.results.findings.iter().filter(|finding| finding.verdict != Verdict::Ok).collect();
    let [one] = wrong[..] else { panic!("one thing is wrong with the run, and found was {wrong:?}") };
    one
}

/// Plants a violation, has it found, and demands its smallest picture: these operations and no others, of which the last
/// cannot be explained, and a sentence that says why.
fn assert_drawn(planted: Planted, smallest: &[&str], why: &str) {
    let run = recorded(Some(planted));
    let page = page(planted.name(), &run);
    assert_sound(&page, &run);
    let finding = violation(&run);
    assert_eq!((finding.check.as_str(), finding.verdict), ("linearizable", Verdict::Violation));
    let Counterexample { explanation, bars } =
        finding.counterexample.as_ref().expect("the checker gives a picture");
    let labels: Vec<&str> = bars.iter().map(|bar| bar.label.as_str()).collect();
    assert_eq!(labels, smallest, "{explanation}");
    assert!(explanation.contains(why), "{explanation}");
    let culprits: Vec<bool> = bars.iter().map(|bar| bar.culprit).collect();
    assert_eq!(culprits.iter().position(|culprit| *culprit), Some(bars.len() - 1), "{explanation}");
    assert!(page.contains("<span class=\"mark\" aria-hidden=\"true\">✕</span>Violation"));
    assert!(page.contains(explanation), "{} is not explained", planted.name());
    assert!(page.contains("culprit\""), "{} has no culprit", planted.name());
    for label in labels {
        assert!(page.contains(&format!(">{label}</text>")), "{label} is not drawn");
    }
}

#[test]
fn a_stale_read_is_drawn() {
    assert_drawn(Planted::StaleRead, &["write 7", "write 9", "read → 7"], "although write 9 ");
}

#[test]
fn a_lost_update_is_drawn() {
    assert_drawn(Planted::LostUpdate, &["write 4", "cas 4 to 5", "cas 4 to 6"], "replaced the same value");
}

#[test]
fn a_write_that_a_power_cut_lost_is_drawn() {
    assert_drawn(Planted::LostWrite, &["write 30", "write 31", "read → 30"], "although write 31 ");
}

#[test]
fn a_write_that_was_applied_twice_is_drawn() {
    assert_drawn(Planted::DoubleApply, &["write 1", "read → 1", "write 2", "read → 1"], "although write 2 ");
}

#[test]
fn a_violation_that_has_no_picture_is_told_above_the_tables() {
    let mut run = recorded(None);
    run.results.verdict = Verdict::Violation;
    let summary = "n2 went from term 7 back to term 6";
    run.results.findings.push(Finding {
        check: "terms-grow".to_owned(),
        verdict: Verdict::Violation,
        summary: summary.to_owned(),
        counterexample: None,
    });
    let page = page("no-picture", &run);
    assert_sound(&page, &run);
    let told = page.find("What went wrong").expect("there is a place for what went wrong");
    let first = page.find(summary).expect("the violation is told");
    assert!(told < first && first < page.find("<h2>Checks").expect("there is a table of checks"));
}

#[test]
fn what_could_not_be_decided_is_never_shown_as_passed() {
    let mut run = recorded(None);
    run.results.verdict = Verdict::Unknown;
    run.results.findings[0].verdict = Verdict::Unknown;
    let page = page("undecided", &run);
    assert_sound(&page, &run);
    assert!(page.contains("Undecided") && page.contains("which is no pass"));
    assert!(!page.contains("No violation found"));
}

#[test]
fn a_run_in_which_nothing_happened_has_a_page_too() {
    let mut run = recorded(None);
    run.history.clear();
    run.faults.clear();
    run.samples.clear();
    run.results.operations = [0; 3];
    assert_sound(&page("empty", &run), &run);
}

#[test]
fn the_same_run_gives_the_same_page() {
    let run = recorded(Some(Planted::StaleRead));
    assert_eq!(report::page(&run), report::page(&run));
}

#[test]
fn names_from_outside_are_text_and_nothing_else() {
    let mut run = recorded(None);
    run.run.workload = "<script>alert(1)</script>".to_owned();
    run.faults[0].detail = "</script><b>bold</b>".to_owned();
    let page = report::page(&run);
    assert!(!page.contains("<script>alert") && !page.contains("<b>bold"));
    assert!(page.contains("&lt;script&gt;alert(1)"));
}
