//! What holds of all histories: right stores are found right, and the search agrees with brute force.

use proptest::prelude::*;
use ringfence_checker::{Budget, Event, Finding, Function, Kind, Verdict, judge};
use serde_json::json;

use crate::brute_force::is_linearizable;
use crate::script::{Op, cas, delete, finding, history, read, shown, write};
use crate::simulated::{self, Shape};

fn expect_content(history: &[Event], checks: &[&str]) {
    let findings = judge(history, Budget::default());
    let wrong: Vec<&Finding> = findings.iter().filter(|finding| finding.verdict != Verdict::Ok).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    let names: Vec<&str> = findings.iter().map(|finding| finding.check.as_str()).collect();
    assert_eq!(names, checks);
}

#[test]
fn right_stores_are_found_right() {
    let shape = Shape { operations: 600, keys: 3, processes: 8, lost: 0.03 };
    for seed in 0..40 {
        let registers = ["linearizable", "max-age", "stale-reads", "revisions"];
        expect_content(&simulated::registers(shape, seed), &registers);
        expect_content(&simulated::set(shape, seed), &["set", "revisions"]);
        expect_content(&simulated::counter(shape, seed), &["counter", "revisions"]);
        expect_content(&simulated::bank(shape, seed), &["bank", "revisions"]);
        expect_content(&simulated::lists(shape, seed), &["list-append", "revisions"]);
        // With so few keys each is written together with others, and so no register.
        expect_content(&simulated::watches(shape, seed), &["watch", "revisions"]);
    }
}

#[test]
fn a_linearizable_history_with_many_lost_answers_is_decided() {
    let shape = Shape { operations: 2_000, keys: 1, processes: 20, lost: 0.1 };
    for seed in 0..5 {
        let linearizable = finding(&simulated::registers(shape, seed), "linearizable");
        assert_eq!(linearizable.verdict, Verdict::Ok, "seed {seed}: {linearizable:?}");
    }
}

#[test]
fn a_stale_read_in_a_long_history_is_found_and_shown_small() {
    let shape = Shape { operations: 3_000, keys: 2, processes: 10, lost: 0.01 };
    for seed in 0..5 {
        let mut history = simulated::registers(shape, seed);
        make_stale(&mut history);
        let finding = finding(&history, "linearizable");
        assert_eq!(finding.verdict, Verdict::Violation, "seed {seed}: {finding:?}");
        expect_small_picture(&history, &finding, 4);
    }
}

#[test]
fn whatever_a_watch_leaves_out_is_missed() {
    let shape = Shape { operations: 300, keys: 3, processes: 8, lost: 0.03 };
    for seed in 0..20 {
        let whole = simulated::watches(shape, seed);
        let at = whole.len() - 1;
        let events = whole[at].value["events"].as_array().map_or(0, Vec::len);
        for place in (0..events).step_by(7) {
            let mut history = whole.clone();
            let gone = history[at].value["events"].as_array_mut().expect("a list").remove(place);
            let finding = finding(&history, "watch");
            // Nobody else may have heard of a write without an answer; then it need not have been done.
            let revision = |event: &Event| event.kind == Kind::Ok && event.revision == gone[0].as_u64();
            let is_known = whole[..at].iter().any(|event| revision(event) && event.f != Function::Watch);
            assert!(finding.verdict == Verdict::Violation || !is_known, "seed {seed}: {gone}: {finding:?}");
        }
    }
}

/// Lets the last linearizable read of a key find what the first write to it wrote.
fn make_stale(history: &mut [Event]) {
    let is =
        |event: &Event, f, kind| event.f == f && event.kind == kind && event.key.as_deref() == Some("r0");
    let first =
        history.iter().find(|event| is(event, Function::Write, Kind::Ok)).map(|event| event.value.clone());
    let fresh = |event: &&mut Event| is(event, Function::Read, Kind::Ok) && event.freshness.is_none();
    let last = history.iter_mut().rfind(fresh).expect("there are reads");
    last.value = first.expect("there are writes");
}

fn expect_small_picture(history: &[Event], finding: &Finding, bars_max: usize) {
    let picture = finding.counterexample.as_ref().expect("a violation has a picture");
    assert!(picture.bars.len() <= bars_max, "{} bars: {picture:?}", picture.bars.len());
    expect_picture(history, finding);
}

/// A picture has one culprit and is a violation itself, also by brute force where that can be tried.
fn expect_picture(history: &[Event], finding: &Finding) {
    let picture = finding.counterexample.as_ref().expect("a violation has a picture");
    assert_eq!(picture.bars.iter().filter(|bar| bar.culprit).count(), 1, "{picture:?}");
    let part = shown(history, finding);
    let again = self::finding(&part, "linearizable");
    assert_eq!(again.verdict, Verdict::Violation, "the picture alone is no violation: {picture:?}");
    assert!(picture.bars.len() > 8 || !is_linearizable(&part), "{picture:?}");
}

/// Any operation, sensible or not, with few values and much overlap.
fn any_op() -> impl Strategy<Value = (u8, u64, u64, bool, u64, u64, u8)> {
    (0..10_u8, 0..4_u64, 0..4_u64, any::<bool>(), 0..12_u64, 0..8_u64, 0..10_u8)
}

fn op(process: u64, drawn: (u8, u64, u64, bool, u64, u64, u8)) -> Op {
    let (what, one, other, flag, start, length, fate) = drawn;
    let end = start + length;
    let op = match what {
        0..4 if one == 0 => read(process, json!(null), start, end),
        0..4 => read(process, one, start, end),
        4..7 => write(process, one + 1, start, end),
        7..9 => cas(process, one + 1, other + 1, flag, start, end),
        _ if other == 0 => delete(process, start, end),
        _ => delete(process, start, end).applied(flag),
    };
    match fate {
        0 => op.ends(Kind::Info),
        1 => op.ends(Kind::Fail),
        2 => op.unfinished(),
        _ => op,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_search_agrees_with_brute_force(drawn in prop::collection::vec(any_op(), 1..8)) {
        let ops = drawn.into_iter().enumerate().map(|(process, drawn)| op(process as u64, drawn));
        let history = history(ops);
        let finding = finding(&history, "linearizable");
        let expected = if is_linearizable(&history) { Verdict::Ok } else { Verdict::Violation };
        prop_assert_eq!(finding.verdict, expected, "{:?}", finding);
        if expected == Verdict::Violation {
            expect_picture(&history, &finding);
        }
    }

    #[test]
    fn a_changed_answer_is_judged_as_by_brute_force(seed in any::<u64>(), at in any::<prop::sample::Index>(), value in 0..9_u64) {
        let shape = Shape { operations: 9, keys: 1, processes: 3, lost: 0.1 };
        let mut history = simulated::registers(shape, seed);
        history.retain(|event| event.freshness.is_none());
        let fresh = |event: &&mut Event| event.f == Function::Read && event.kind == Kind::Ok;
        let mut reads: Vec<&mut Event> = history.iter_mut().filter(fresh).collect();
        prop_assume!(!reads.is_empty());
        let place = at.index(reads.len());
        reads[place].value = json!(value);
        let finding = finding(&history, "linearizable");
        let expected = if is_linearizable(&history) { Verdict::Ok } else { Verdict::Violation };
        prop_assert_eq!(finding.verdict, expected, "{:?}", finding);
    }
}
