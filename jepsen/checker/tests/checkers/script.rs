//! Histories, written down by hand.

use ringfence_checker::{Budget, Event, Finding, Function, History, Kind, Verdict, judge};
use serde_json::{Value, json};

/// One operation to be. It is on key `k`, answered ok with what it was asked with, unless told otherwise.
#[derive(Debug, Clone)]
pub struct Op {
    invoke: Event,
    complete: Event,
    finished: bool,
}

/// An operation of a process from `start` to `end`.
pub fn op(process: u64, f: Function, asked: Value, start: u64, end: u64) -> Op {
    let event = |kind, time, value| Event {
        process,
        kind,
        f,
        key: Some("k".to_owned()),
        value,
        time,
        applied: None,
        node: Some(process + 1),
        freshness: None,
        revision: None,
        error: None,
    };
    Op {
        invoke: event(Kind::Invoke, start, asked.clone()),
        complete: event(Kind::Ok, end, asked),
        finished: true,
    }
}

pub fn write(process: u64, value: u64, start: u64, end: u64) -> Op {
    op(process, Function::Write, json!(value), start, end)
}

pub fn read(process: u64, found: impl Into<Value>, start: u64, end: u64) -> Op {
    op(process, Function::Read, Value::Null, start, end).answer(found.into())
}

pub fn cas(process: u64, old: u64, new: u64, applied: bool, start: u64, end: u64) -> Op {
    op(process, Function::Cas, json!([old, new]), start, end).applied(applied)
}

pub fn delete(process: u64, start: u64, end: u64) -> Op {
    op(process, Function::Delete, Value::Null, start, end)
}

pub fn add(process: u64, value: i64, start: u64, end: u64) -> Op {
    op(process, Function::Add, json!(value), start, end)
}

pub fn read_all(process: u64, found: Value, start: u64, end: u64) -> Op {
    op(process, Function::ReadAll, Value::Null, start, end).answer(found)
}

pub fn transfer(process: u64, from: &str, to: &str, amount: i64, start: u64, end: u64) -> Op {
    let asked = json!({"from": from, "to": to, "amount": amount});
    op(process, Function::Transfer, asked, start, end).applied(true)
}

/// Writes of several keys at once.
pub fn write_all(process: u64, values: Value, start: u64, end: u64) -> Op {
    op(process, Function::WriteAll, values, start, end)
}

/// A watch of `k/` that is told these events, everything from one revision to another.
pub fn watch(process: u64, (from, to): (u64, u64), events: Value, start: u64, end: u64) -> Op {
    let told = json!({ "from": from, "to": to, "events": events });
    op(process, Function::Watch, json!({ "from": from }), start, end)
        .on("k/")
        .answer(told)
        .fresh("any")
        .revision(to)
}

/// A transaction, as it is answered.
pub fn txn(process: u64, micros: Value, start: u64, end: u64) -> Op {
    op(process, Function::Txn, micros, start, end)
}

impl Op {
    pub fn on(mut self, key: &str) -> Op {
        self.invoke.key = Some(key.to_owned());
        self.complete.key = Some(key.to_owned());
        self
    }

    pub fn answer(mut self, value: Value) -> Op {
        self.complete.value = value;
        self
    }

    pub fn applied(mut self, applied: bool) -> Op {
        self.complete.applied = Some(applied);
        self
    }

    pub fn revision(mut self, revision: u64) -> Op {
        self.complete.revision = Some(revision);
        self
    }

    pub fn fresh(mut self, freshness: &str) -> Op {
        self.invoke.freshness = Some(freshness.to_owned());
        self
    }

    pub fn ends(mut self, kind: Kind) -> Op {
        self.complete.kind = kind;
        self
    }

    pub fn unfinished(mut self) -> Op {
        self.finished = false;
        self
    }
}

/// The events of operations, in the order of time.
pub fn history(ops: impl IntoIterator<Item = Op>) -> History {
    let mut events: Vec<Event> = Vec::new();
    for op in ops {
        events.push(op.invoke);
        events.extend(op.finished.then_some(op.complete));
    }
    events.sort_by_key(|event| event.time);
    events
}

/// What one checker says.
pub fn finding(history: &[Event], check: &str) -> Finding {
    let findings = judge(history, Budget::default());
    let found = findings.iter().find(|finding| finding.check == check).cloned();
    found.unwrap_or_else(|| panic!("{check} has nothing to say, only {findings:?}"))
}

/// The events of those operations that a picture shows.
pub fn shown(history: &[Event], finding: &Finding) -> History {
    let picture = finding.counterexample.as_ref().expect("a violation has a picture");
    let in_picture =
        |process, start| picture.bars.iter().any(|bar| (bar.process, bar.start) == (process, start));
    let mut open: Vec<(u64, bool)> = Vec::new();
    let mut events = Vec::new();
    for event in history {
        if event.kind == Kind::Invoke {
            open.retain(|(process, _)| *process != event.process);
            open.push((event.process, in_picture(event.process, event.time)));
        }
        events.extend(open.contains(&(event.process, true)).then(|| event.clone()));
    }
    events
}

/// Demands a violation whose picture has one culprit, is a violation itself, and says `words`.
pub fn expect_violation(ops: impl IntoIterator<Item = Op>, check: &str, culprit: &str, words: &str) {
    let history = history(ops);
    let finding = finding(&history, check);
    assert_eq!(finding.verdict, Verdict::Violation, "{finding:?}");
    let picture = finding.counterexample.as_ref().expect("a violation has a picture");
    let culprits: Vec<&str> =
        picture.bars.iter().filter(|bar| bar.culprit).map(|bar| bar.label.as_str()).collect();
    assert_eq!(culprits, [culprit], "{picture:?}");
    assert!(picture.explanation.contains(words), "{:?} does not say {words:?}", picture.explanation);
    let again = self::finding(&shown(&history, &finding), check);
    assert_eq!(again.verdict, Verdict::Violation, "the picture alone is no violation: {picture:?}");
}

/// Demands that a checker is content.
pub fn expect_ok(ops: impl IntoIterator<Item = Op>, check: &str) {
    let finding = finding(&history(ops), check);
    assert_eq!(finding.verdict, Verdict::Ok, "{finding:?}");
}
