//! One planted violation a test, and beside it the lawful history that looks like it.

use ringfence_checker::{Budget, Function, Kind, Verdict, judge};
use serde_json::{Value, json};

use crate::script::{
    Op, add, cas, delete, expect_ok, expect_violation, finding, history, op, read, read_all, transfer, txn,
    watch, write, write_all,
};

#[test]
fn a_stale_read() {
    let noise = (0..50).flat_map(|n| {
        let at = 1000 + 10 * n;
        [write(7, 100 + n, at, at + 3), read(8, 100 + n, at + 4, at + 6)]
    });
    let stale = [write(0, 7, 2000, 2010), write(1, 9, 2020, 2030), read(2, 7, 2040, 2050)];
    expect_violation(
        noise.chain(stale),
        "linearizable",
        "read → 7",
        "although write 9 through node 2 was over 10 ns",
    );
    expect_ok([write(0, 7, 0, 10), write(1, 9, 20, 45), read(2, 7, 40, 50)], "linearizable");
    // Intervals are closed: what touches is concurrent.
    expect_ok([write(0, 7, 0, 10), write(1, 9, 20, 40), read(2, 7, 40, 50)], "linearizable");
}

#[test]
fn a_lost_update() {
    let both = [write(0, 1, 0, 10), cas(1, 1, 2, true, 20, 30), cas(2, 1, 3, true, 25, 40)];
    expect_violation(both, "linearizable", "cas 1 to 3", "cas 1 to 3");
    expect_ok([write(0, 1, 0, 10), cas(1, 1, 2, true, 20, 30), cas(2, 1, 3, false, 25, 40)], "linearizable");
}

#[test]
fn a_lost_write() {
    let lost = [write(0, 7, 0, 10), read(2, Value::Null, 40, 50)];
    expect_violation(lost, "linearizable", "read → nothing", "although write 7");
    expect_ok([write(0, 7, 0, 10).ends(Kind::Info), read(2, Value::Null, 40, 50)], "linearizable");
    expect_ok([write(0, 7, 0, 10).unfinished(), read(2, 7, 40, 50)], "linearizable");
}

#[test]
fn a_write_that_was_applied_twice() {
    let twice = [
        write(0, 1, 0, 100),
        write(1, 2, 10, 20),
        read(2, 2, 30, 40),
        read(2, 1, 50, 60),
        read(2, 2, 70, 80),
    ];
    expect_violation(twice, "linearizable", "read → 2", "although read → 1");
    let acknowledged = [write(0, 1, 0, 5), write(1, 2, 10, 20), read(2, 2, 30, 40), read(2, 1, 50, 60)];
    expect_violation(acknowledged, "linearizable", "read → 1", "although write 2");
}

#[test]
fn an_invented_value() {
    expect_violation(
        [write(0, 1, 0, 10), read(1, 5, 20, 30)],
        "linearizable",
        "read → 5",
        "nothing had written",
    );
    let failed = [write(0, 5, 0, 10).ends(Kind::Fail), read(1, 5, 20, 30)];
    expect_violation(failed, "linearizable", "read → 5", "nothing had written");
    let early = [read(1, 5, 0, 3), write(0, 5, 4, 10)];
    expect_violation(early, "linearizable", "read → 5", "nothing had written");
}

#[test]
fn a_delete_that_came_back() {
    let undead = [write(0, 1, 0, 10), delete(1, 20, 30).applied(true), read(2, 1, 40, 50)];
    expect_violation(undead, "linearizable", "read → 1", "although delete");
    let nothing = [write(0, 1, 0, 10), delete(1, 20, 30).applied(false)];
    expect_violation(nothing, "linearizable", "delete, refused", "although write 1");
    let something = [delete(1, 20, 30).applied(true)];
    expect_violation(something, "linearizable", "delete", "no order");
}

#[test]
fn open_writes_of_values_that_nobody_read_may_still_refuse_a_cas() {
    let base = [write(0, 1, 0, 10), cas(1, 1, 2, false, 20, 30), read(2, 3, 70, 80), write(3, 3, 50, 60)];
    expect_violation(base.clone(), "linearizable", "cas 1 to 2, refused", "no order");
    expect_ok(base.into_iter().chain([write(4, 9, 5, 6).ends(Kind::Info)]), "linearizable");
}

#[test]
fn many_open_writes_do_not_explode() {
    let open = (0..200).map(|n| write(100 + n, 1000 + n, 5 + n, 500).ends(Kind::Info));
    let refused = (0..20).map(|n| cas(20 + n, 1, 2, false, 300 + n, 400));
    let stale = [write(0, 1, 0, 1), write(1, 7, 600, 610), write(1, 9, 620, 630), read(2, 7, 640, 650)];
    expect_violation(open.chain(refused).chain(stale), "linearizable", "read → 7", "although write 9");
}

#[test]
fn an_exhausted_budget_is_never_ok() {
    let history = history([write(0, 1, 0, 10), write(1, 2, 0, 10), read(2, 1, 20, 30)]);
    let linearizable = |budget: Budget<'_>| {
        let findings = judge(&history, budget);
        findings.iter().find(|finding| finding.check == "linearizable").map(|finding| finding.verdict)
    };
    assert_eq!(linearizable(Budget::steps(1)), Some(Verdict::Unknown));
    assert_eq!(linearizable(Budget::steps(1024).until(&|| true)), Some(Verdict::Unknown));
    assert_eq!(linearizable(Budget::steps(1000)), Some(Verdict::Ok));
}

#[test]
fn a_read_older_than_its_age() {
    let writes = [write(0, 1, 0, 10), write(0, 2, 1000, 1010)];
    let aged = |start: u64| read(1, 1, start, start + 5).fresh("max-age=500ns");
    expect_ok(writes.iter().cloned().chain([aged(1400)]), "max-age");
    expect_violation(writes.iter().cloned().chain([aged(1600)]), "max-age", "read → 1", "although write 2");
    expect_ok(writes.iter().cloned().chain([aged(1600)]), "linearizable");
}

#[test]
fn a_weak_read_of_what_was_never_there() {
    let weak = |found: u64| read(1, found, 100, 110).fresh("any");
    expect_ok([write(0, 1, 0, 10), write(0, 2, 20, 30), weak(1)], "stale-reads");
    expect_violation([write(0, 1, 0, 10), weak(5)], "stale-reads", "read → 5", "nobody ever wrote");
    let failed = [write(0, 5, 0, 10).ends(Kind::Fail), weak(5)];
    expect_violation(failed, "stale-reads", "read → 5", "surely not");
    let later = [write(0, 5, 120, 130), weak(5)];
    expect_violation(later, "stale-reads", "read → 5", "only afterwards");
}

#[test]
fn a_read_that_does_not_fit_its_revision() {
    let writes = [write(0, 1, 0, 10).revision(4), write(0, 2, 20, 30).revision(6)];
    let at = |found: u64, revision| read(1, found, 100, 110).fresh("any").revision(revision);
    expect_ok(writes.iter().cloned().chain([at(1, 5)]), "stale-reads");
    expect_ok(writes.iter().cloned().chain([at(2, 6)]), "stale-reads");
    expect_violation(
        writes.iter().cloned().chain([at(1, 6)]),
        "stale-reads",
        "read → 1",
        "revision 6 is write 2",
    );
    expect_violation(
        writes.iter().cloned().chain([at(2, 5)]),
        "stale-reads",
        "read → 2",
        "revision 4 is write 1",
    );
    expect_violation(
        writes.iter().cloned().chain([at(1, 3)]),
        "stale-reads",
        "read → 1",
        "written at revision 4",
    );
    let unknown = write(3, 3, 15, 25).ends(Kind::Info);
    expect_ok(writes.iter().cloned().chain([unknown, at(3, 5)]), "stale-reads");
}

#[test]
fn revisions_that_go_back() {
    let forth =
        [write(0, 1, 0, 10).revision(4), read(1, 1, 20, 30).revision(4), write(2, 2, 40, 50).revision(5)];
    expect_ok(forth, "revisions");
    let back = [write(0, 1, 0, 10).revision(4), read(1, 1, 20, 30).revision(3)];
    expect_violation(back, "revisions", "read → 1", "at revision 3, although write 1");
    let lost = [read(1, 1, 0, 10).fresh("any").revision(4), write(0, 2, 20, 30).revision(4)];
    expect_violation(lost, "revisions", "write 2", "at revision 4, although read → 1");
    let split = [write(0, 1, 0, 50).revision(4), write(1, 2, 0, 50).revision(4)];
    expect_violation(split, "revisions", "write 2", "both made revision 4");
    let asked = [read(0, 1, 0, 10).fresh("revision=5").revision(4)];
    expect_violation(asked, "revisions", "read → 1", "asked for 5");
    let weak = [write(0, 1, 0, 10).revision(4), read(1, 1, 20, 30).fresh("any").revision(3)];
    expect_ok(weak, "revisions");
    let aged = |start: u64| read(1, 1, start, start + 10).fresh("max-age=100ns").revision(3);
    expect_ok([write(0, 1, 0, 10).revision(4), aged(100)], "revisions");
    expect_violation(
        [write(0, 1, 0, 10).revision(4), aged(200)],
        "revisions",
        "read → 1",
        "although write 1",
    );
    let seen = [write(0, 1, 0, 10).revision(4), cas(1, 2, 3, false, 20, 30).revision(4)];
    expect_ok(seen, "revisions");
}

#[test]
fn sets_that_lose_or_invent() {
    let adds = || [add(0, 1, 0, 10), add(1, 2, 0, 10).ends(Kind::Info), add(2, 3, 0, 10).ends(Kind::Fail)];
    expect_ok(adds().into_iter().chain([read_all(3, json!([1]), 20, 30)]), "set");
    expect_ok(adds().into_iter().chain([read_all(3, json!([2, 1]), 20, 30)]), "set");
    let wrong = |found: Value, words: &str| {
        let label = format!("read-all → {found}");
        expect_violation(adds().into_iter().chain([read_all(3, found, 20, 30)]), "set", &label, words);
    };
    wrong(json!([2]), "did not find 1, which had been acknowledged");
    wrong(json!([1, 3]), "surely not been added");
    wrong(json!([1, 4]), "nobody ever added");
    wrong(json!([1, 1]), "twice");
    let flicker = [read_all(3, json!([1, 2]), 20, 30), read_all(4, json!([1]), 40, 50)];
    expect_violation(adds().into_iter().chain(flicker), "set", "read-all → [1]", "had been read before");
    let early = [read_all(3, json!([1]), 0, 5), add(0, 1, 6, 10), read_all(3, json!([1]), 20, 30)];
    expect_violation(early, "set", "read-all → [1]", "only afterwards");
    let unread = finding(&history(adds().into_iter().chain([read_all(3, json!([1]), 5, 30)])), "set");
    assert_eq!(unread.verdict, Verdict::Unknown, "{unread:?}");
}

#[test]
fn counters_that_lose_or_count_twice() {
    let adds = || [add(0, 3, 0, 10), add(1, 5, 0, 10).ends(Kind::Info), add(2, 7, 0, 10).ends(Kind::Fail)];
    expect_ok(adds().into_iter().chain([read(3, 3, 20, 30)]), "counter");
    expect_ok(adds().into_iter().chain([read(3, 8, 20, 30)]), "counter");
    let wrong = |found: u64| {
        let label = format!("read → {found}");
        expect_violation(adds().into_iter().chain([read(3, found, 20, 30)]), "counter", &label, "3 to 8");
    };
    wrong(2);
    wrong(9);
    let back = [read(3, 8, 20, 30), read(4, 3, 40, 50)];
    let back = finding(&history(adds().into_iter().chain(back)), "counter");
    assert_eq!(back.verdict, Verdict::Violation, "{back:?}");
    assert!(back.summary.contains("read → 3 from node 5 after read → 8 from node 4"), "{back:?}");
    let lost = [add(0, 3, 0, 10), read(3, 3, 20, 30), add(0, 4, 40, 50), read(3, 3, 60, 70)];
    expect_violation(lost, "counter", "read → 3", "should be 7.");
    let weak = adds().into_iter().chain([read(3, 0, 20, 30).fresh("any"), read(3, 3, 40, 50)]);
    expect_ok(weak, "counter");
    let unread = finding(&history(adds().into_iter().chain([read(3, 3, 5, 30)])), "counter");
    assert_eq!(unread.verdict, Verdict::Unknown, "{unread:?}");
}

#[test]
fn banks_that_make_or_lose_money() {
    let found = |a: i64, b: i64, start: u64| read_all(9, json!({"a": a, "b": b}), start, start + 10);
    let moved = || transfer(0, "a", "b", 3, 20, 30).revision(5);
    expect_ok([found(10, 10, 0).revision(4), moved(), found(7, 13, 40).revision(5)], "bank");
    let skewed = [found(10, 10, 0), moved(), found(7, 10, 40)];
    expect_violation(skewed, "bank", r#"read-all → {"a":7,"b":10}"#, "found 17 in all, where 20");
    let overdrawn = [found(1, 1, 0), transfer(0, "a", "b", 3, 20, 30), found(-2, 4, 40)];
    expect_violation(overdrawn, "bank", r#"read-all → {"a":-2,"b":4}"#, "-2 in account a");
    let lost = [found(10, 10, 0).revision(4), moved(), found(10, 10, 40).revision(6)];
    expect_violation(lost, "bank", r#"read-all → {"a":10,"b":10}"#, "make it 7");
    let twice = [found(10, 10, 0).revision(4), moved(), found(4, 16, 40).revision(6)];
    expect_violation(twice, "bank", r#"read-all → {"a":4,"b":16}"#, "make it 7");
    let perhaps = transfer(1, "a", "b", 3, 20, 30).ends(Kind::Info);
    expect_ok([found(10, 10, 0).revision(4), moved(), perhaps, found(4, 16, 40).revision(6)], "bank");
}

#[test]
fn lists_that_no_order_explains() {
    let one = || txn(0, json!([["append", "x", 1]]), 0, 10);
    let two = || txn(1, json!([["append", "x", 2]]), 20, 30);
    let reads = |process, list: Value, start| txn(process, json!([["r", "x", list]]), start, start + 5);
    expect_ok([one(), two(), reads(2, json!([1, 2]), 40)], "list-append");
    let wrong =
        |ops: Vec<_>, culprit: &str, words: &str| expect_violation(ops, "list-append", culprit, words);
    wrong(vec![one(), reads(2, json!([1, 1]), 40)], "r x → [1,1]", "found 1 twice");
    wrong(vec![one(), reads(2, json!([1, 5]), 40)], "r x → [1,5]", "nobody ever appended");
    let aborted = vec![one().ends(Kind::Fail), reads(2, json!([1]), 40)];
    wrong(aborted, "r x → [1]", "G1a");
    let forked = vec![one(), two(), reads(2, json!([1, 2]), 40), reads(3, json!([2]), 40)];
    wrong(forked, "r x → [2]", "another order");
    let middle = txn(0, json!([["append", "x", 1], ["append", "x", 2]]), 0, 10);
    wrong(vec![middle, reads(2, json!([1]), 5)], "r x → [1]", "G1b");
    let own = txn(0, json!([["append", "x", 1], ["r", "x", []]]), 0, 10);
    wrong(vec![own], "append x 1, r x → []", "what it did itself");
}

#[test]
fn lost_appends_and_stale_lists() {
    let one = || txn(0, json!([["append", "x", 1]]), 0, 10);
    let reads = |process, list: Value, start| txn(process, json!([["r", "x", list]]), start, start + 5);
    let lost = [one(), reads(2, json!([]), 40)];
    expect_violation(lost, "list-append", "r x → []", "in real time");
    let stale = [one(), reads(2, json!([1]), 20), reads(3, json!([]), 40)];
    expect_violation(stale, "list-append", "r x → []", "in real time");
    let behind = [one(), txn(1, json!([["append", "x", 2]]), 20, 30), reads(3, json!([1]), 40)];
    expect_violation(behind, "list-append", "r x → [1]", "in real time");
    expect_ok([one(), reads(2, json!([1]), 20), reads(3, json!([]), 40).fresh("any")], "list-append");
    expect_ok([one().ends(Kind::Info), reads(3, json!([]), 40), reads(3, json!([1]), 50)], "list-append");
}

#[test]
fn cycles_between_concurrent_transactions() {
    let concurrent = |process, micros: Value| txn(process, micros, 0, 100 + process);
    let flow = [
        concurrent(0, json!([["append", "x", 1], ["r", "y", [2]]])),
        concurrent(1, json!([["append", "y", 2], ["r", "x", [1]]])),
    ];
    expect_violation(flow, "list-append", "append y 2, r x → [1]", "G1c");
    let skew = [
        concurrent(0, json!([["append", "x", 1], ["append", "y", 2]])),
        concurrent(1, json!([["r", "x", [1]], ["r", "y", []]])),
    ];
    expect_violation(skew, "list-append", "r x → [1], r y → []", "G-single");
    let write_skew = [
        concurrent(0, json!([["r", "x", []], ["append", "y", 1]])),
        concurrent(1, json!([["r", "y", []], ["append", "x", 2]])),
    ];
    expect_violation(write_skew, "list-append", "r y → [], append x 2", "G2");
    let written = [
        concurrent(0, json!([["append", "x", 1], ["append", "y", 1]])),
        concurrent(1, json!([["append", "x", 2], ["append", "y", 2]])),
        concurrent(2, json!([["r", "x", [1, 2]]])),
        concurrent(3, json!([["r", "y", [2, 1]]])),
    ];
    let finding = finding(&history(written), "list-append");
    let picture = finding.counterexample.expect("writes in two orders are a violation");
    assert!(picture.explanation.contains("G0"), "{picture:?}");
}

/// What happens in the histories of watches: at revision 5 a write of `k/a`, at 6 one of `k/a` and `k/b` at once, at 7 one without
/// an answer, at 8 a delete of `k/b`, at 9 a write of what nobody watches.
fn watched() -> [Op; 6] {
    [
        write(0, 1, 0, 10).on("k/a").revision(5),
        write_all(1, json!({ "k/a": 2, "k/b": 3 }), 20, 30).revision(6),
        write(2, 4, 40, 50).on("k/a").ends(Kind::Info),
        write(3, 9, 40, 50).on("k/a").ends(Kind::Fail),
        delete(4, 60, 70).on("k/b").applied(true).revision(8),
        write(5, 6, 75, 80).on("other").revision(9),
    ]
}

/// All that a watch of `k/` is told of it.
fn all_told() -> Value {
    json!([[5, "k/a", 1], [6, "k/a", 2], [6, "k/b", 3], [7, "k/a", 4], [8, "k/b", null]])
}

#[test]
fn watches_that_tell_what_happened() {
    let lawful = |watches: Vec<Op>| expect_ok(watched().into_iter().chain(watches), "watch");
    let whole = || watch(8, (1, 9), all_told(), 90, 100);
    lawful(vec![whole()]);
    let some = json!([[6, "k/b", 3], [8, "k/b", null]]);
    lawful(vec![whole(), watch(9, (6, 8), some, 35, 72).on("k/b")]);
    // What comes next is not told yet, and nothing is claimed of it.
    lawful(vec![
        whole(),
        watch(9, (6, 5), json!([]), 35, 90),
        watch(10, (5, 5), json!([[5, "k/a", 1]]), 5, 90),
    ]);
    // A write without an answer need not have been done.
    let undone = json!([[5, "k/a", 1], [6, "k/a", 2], [6, "k/b", 3], [8, "k/b", null]]);
    lawful(vec![watch(8, (1, 9), undone, 90, 100)]);
    let met = json!({ "from": 2, "to": 1, "events": [], "compacted": 5 });
    lawful(vec![whole(), watch(9, (2, 1), Value::Null, 90, 100).answer(met)]);
    let early =
        finding(&history(watched().into_iter().chain([watch(8, (1, 9), all_told(), 75, 100)])), "watch");
    assert_eq!(early.verdict, Verdict::Unknown, "{early:?}");
    let short = watch(8, (1, 5), json!([[5, "k/a", 1]]), 90, 100);
    let short = finding(&history(watched().into_iter().chain([short])), "watch");
    assert_eq!(short.verdict, Verdict::Unknown, "{short:?}");
}

#[test]
fn watches_that_leave_something_out_or_tell_it_wrong() {
    let wrong = |events: Value, words: &str| {
        let label = format!("watch of k/ from 5 → {} events up to 9", events.as_array().map_or(0, Vec::len));
        let watching = watch(8, (5, 9), events, 90, 100);
        expect_violation(watched().into_iter().chain([watching]), "watch", &label, words);
    };
    let but = |place: usize, instead: Option<Value>| {
        let mut events = all_told().as_array().cloned().unwrap_or_default();
        events.splice(place..=place, instead);
        Value::Array(events)
    };
    wrong(but(0, None), "was not told of k/a at 5, as write 1");
    wrong(but(4, None), "was not told of k/b at 8, as delete");
    wrong(but(2, None), "a part of revision 6, and not what k/b became");
    wrong(but(1, Some(json!([5, "k/a", 1]))), "k/a = 1 at revision 5 twice");
    wrong(
        json!([[6, "k/a", 2], [6, "k/b", 3], [5, "k/a", 1], [8, "k/b", null]]),
        "k/a = 1 at revision 5 after k/b = 3 at revision 6",
    );
    wrong(but(0, Some(json!([5, "k/a", 77]))), "k/a = 77 at revision 5, which nobody wrote");
    wrong(but(3, Some(json!([7, "k/a", 9]))), "which had surely not been written");
    wrong(but(3, Some(json!([7, "k/b", 4]))), "which was written to another key");
    wrong(but(3, Some(json!([7, "k/a", null]))), "nobody deleted it then");
    wrong(but(4, Some(json!([8, "k/a", null]))), "which is that of delete");
    wrong(but(4, Some(json!([9, "k/b", null]))), "which is that of write 6");
    wrong(but(0, Some(json!([4, "k/a", 1]))), "tells k/a = 1 at revision 4");
    wrong(but(3, Some(json!([7, "other", 6]))), "which nobody asked for");
    // The write without an answer at the revision of another one, and another one at its revision.
    wrong(but(0, Some(json!([5, "k/a", 4]))), "which is that of write 1");
    wrong(but(3, Some(json!([7, "k/a", 1]))), "write 1 through node 1 made revision 5");
}

#[test]
fn watches_that_do_not_agree() {
    let (whole, events) =
        (|| watch(8, (1, 9), all_told(), 90, 100), |events| watch(9, (7, 9), events, 90, 100));
    let wrong = |watches: [Op; 2], culprit: &str, words: &str| {
        expect_violation(watched().into_iter().chain(watches), "watch", culprit, words);
    };
    let other = "watch of k/ from 7 → 1 event up to 9";
    wrong([whole(), events(json!([[8, "k/b", null]]))], other, "was not told of k/a at 7, as write 4");
    let twice = events(json!([[7, "k/a", 4], [8, "k/b", null]]));
    let moved = json!([[5, "k/a", 1], [6, "k/a", 2], [6, "k/b", 3], [8, "k/b", null], [10, "k/a", 4]]);
    let moved = watch(8, (1, 10), moved, 91, 100);
    wrong([twice, moved], "watch of k/ from 1 → 5 events up to 10", "write 4 from node 3 made revision 7");
    // A delete without an answer is seen by one alone.
    let open = || delete(6, 40, 50).on("k/c").ends(Kind::Info);
    let gone = |process, events| watch(process, (10, 11), events, 90, 100);
    expect_ok(watched().into_iter().chain([open(), gone(8, json!([[11, "k/c", null]]))]), "watch");
    let unseen = [open(), gone(8, json!([[11, "k/c", null]])), gone(9, json!([]))];
    let culprit = "watch of k/ from 10 → 0 events up to 11";
    expect_violation(watched().into_iter().chain(unseen), "watch", culprit, "was not told of k/c at 11");
}

#[test]
fn watches_that_end_without_need_or_in_confusion() {
    let whole = || watched().into_iter().chain([watch(8, (1, 9), all_told(), 90, 100)]);
    let ended = |told: Value| watch(9, (6, 5), Value::Null, 90, 100).answer(told);
    let met = |oldest: u64| ended(json!({ "from": 6, "to": 5, "events": [], "compacted": oldest }));
    expect_ok(whole().chain([met(7)]), "watch");
    let label = "watch of k/ from 6 → 0 events up to 5";
    expect_violation(whole().chain([met(6)]), "watch", label, "for want of history, which begins at 6");
    let confused = ended(json!({ "from": 6, "to": 5, "events": [], "broken": "an event of revision 3" }));
    expect_violation(whole().chain([confused]), "watch", label, "what cannot be: an event of revision 3");
    let backwards = ended(json!({ "from": 6, "to": 5, "events": [[6, "k/a", 2]] }));
    let unknown = finding(&history(whole().chain([backwards])), "watch");
    assert_eq!(unknown.verdict, Verdict::Unknown, "{unknown:?}");
    let before = [watch(0, (5, 9), json!([[5, "k/a", 1]]), 0, 5), write(1, 1, 6, 10).on("k/a").revision(5)];
    expect_violation(before, "watch", "watch of k/ from 5 → 1 event up to 9", "only afterwards");
}

#[test]
fn histories_that_no_client_can_have_seen() {
    let unknown = |history: &[_], words: &str| {
        let findings = judge(history, Budget::default());
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(findings[0].verdict, Verdict::Unknown, "{findings:?}");
        assert!(findings[0].summary.contains(words), "{findings:?}");
    };
    unknown(&[], "nothing in it");
    unknown(&history([write(0, 1, 0, 10), write(0, 2, 5, 20)]), "two things at once");
    unknown(&history([write(0, 1, 0, 10)])[1..], "never began");
    unknown(&history([write(0, 1, 0, 10).fresh("warm")]), "no freshness");
    let mut mixed = history([write(0, 1, 0, 10)]);
    mixed[1].f = Function::Read;
    unknown(&mixed, "something else");
    unknown(&history([op(0, Function::Cas, json!([1, 2]), 0, 10)]), "whether it was applied");
    let pair = finding(&history([op(0, Function::Cas, json!(1), 0, 10).applied(true)]), "linearizable");
    assert_eq!(pair.verdict, Verdict::Unknown, "{pair:?}");
}
