//! The report, drawn of runs that never were: it must show what is in them, stand alone, and stay small. The pages are left in
//! the target directory's `tmp/report`, for a look.

#[path = "report/synthetic.rs"]
mod synthetic;

use std::path::{Path, PathBuf};

use ringfence_checker::{Counterexample, Finding, Verdict};
use ringfence_jepsen::directory::Recorded;
use ringfence_jepsen::report;

use synthetic::{Planted, finding, recorded};

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

fn counterexample(finding: &Finding) -> &Counterexample {
    finding.counterexample.as_ref().expect("a planted violation has one")
}

#[test]
fn a_healthy_run_shows_its_figures_and_faults() {
    let run = recorded(None);
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

#[test]
fn every_planted_violation_is_drawn_with_its_culprit() {
    for planted in Planted::ALL {
        let run = recorded(Some(planted));
        let page = page(planted.name(), &run);
        assert_sound(&page, &run);
        let finding = finding(planted);
        assert!(page.contains("<span class=\"mark\" aria-hidden=\"true\">✕</span>Violation"));
        assert!(page.contains(&counterexample(&finding).explanation), "{} is not explained", planted.name());
        assert!(page.contains("culprit\""), "{} has no culprit", planted.name());
        for bar in &counterexample(&finding).bars {
            assert!(page.contains(&format!(">{}</text>", bar.label)), "{} is not drawn", bar.label);
        }
    }
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
