//! What clients saw of a cluster that never was: lawful all the time, but for what is planted.

use std::collections::HashMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use ringfence_checker::{Event, Function, History, Kind};
use serde_json::{Value, json};

use super::Planted;
use super::synthetic::{MS, NODES, RATE, SECOND, leader, runs};

/// What clients grant an operation.
const DEADLINE: u64 = 2 * SECOND;
/// The background's processes have higher numbers than those that see what is planted.
const PROCESSES_FROM: u64 = 1_000;
/// Keys in use at a time, and operations until all are retired.
const KEYS_LIVE: u64 = 20;
const USES: u64 = 3_000;

/// A minute of operations.
pub fn history(planted: Option<Planted>) -> History {
    let mut events = background();
    events.extend(planted.map(seen).unwrap_or_default());
    events.sort_by_key(|event| event.time);
    events
}

/// An operation before it is known what it shows.
struct Draft {
    number: u64,
    start: u64,
    latency: u64,
    kind: Kind,
    f: Function,
}

impl Draft {
    fn event(&self, kind: Kind, value: &Value, shown: &Shown) -> Event {
        let (is_ok, is_asked) = (kind == Kind::Ok, kind == Kind::Invoke);
        Event {
            process: PROCESSES_FROM + self.number,
            kind,
            f: self.f,
            key: Some(self.key()),
            value: value.clone(),
            time: self.start + if is_asked { 0 } else { self.latency },
            applied: shown.applied.filter(|_| is_ok),
            node: Some(self.number % NODES as u64 + 1),
            freshness: None,
            revision: is_ok.then_some(shown.revision),
            error: (!is_ok && !is_asked).then(|| "no leader".to_owned()),
        }
    }

    fn key(&self) -> String {
        format!("r{}", self.number / USES * KEYS_LIVE + self.number % KEYS_LIVE)
    }
}

/// What an operation shows to who asked for it.
#[derive(Default)]
struct Shown {
    value: Value,
    applied: Option<bool>,
    revision: u64,
}

/// A store of registers, each a number, that never errs.
#[derive(Default)]
struct Registers {
    values: HashMap<String, u64>,
    revision: u64,
}

impl Registers {
    /// Does an operation; `asked` is what it was asked with.
    fn apply(&mut self, draft: &Draft, asked: &Value) -> Shown {
        let key = draft.key();
        let held = self.values.get(&key).copied();
        let (value, applied) = match draft.f {
            Function::Write => {
                self.values.insert(key, draft.number);
                (asked.clone(), None)
            }
            Function::Cas => {
                let holds = asked[0].as_u64() == held;
                if holds {
                    self.values.insert(key, draft.number);
                }
                (asked.clone(), Some(holds))
            }
            Function::Delete => {
                self.values.remove(&key);
                (Value::Null, Some(held.is_some()))
            }
            _ => (json!(held), None),
        };
        if draft.f != Function::Read && applied != Some(false) {
            self.revision += 1;
        }
        Shown { value, applied, revision: self.revision }
    }

    /// What an operation asks with; every second compare holds.
    fn asked(&self, draft: &Draft) -> Value {
        match draft.f {
            Function::Write => json!(draft.number),
            Function::Cas if draft.number.is_multiple_of(2) => {
                json!([self.values.get(&draft.key()).copied().unwrap_or(0), draft.number])
            }
            Function::Cas => json!([0, draft.number]),
            _ => Value::Null,
        }
    }
}

fn background() -> History {
    let mut random = StdRng::seed_from_u64(42);
    let mut drafts: Vec<Draft> = (0..60 * RATE).map(|number| draft(&mut random, number + 1)).collect();
    // Each takes effect in its middle, those that are not done never do.
    drafts.sort_by_key(|draft| draft.start + draft.latency / 2);
    let mut registers = Registers::default();
    let mut events = Vec::new();
    for draft in drafts {
        let asked = registers.asked(&draft);
        let shown = match draft.kind {
            Kind::Ok => registers.apply(&draft, &asked),
            _ => Shown { value: asked.clone(), ..Shown::default() },
        };
        events.push(draft.event(Kind::Invoke, &asked, &shown));
        // Some answers never come.
        if draft.kind != Kind::Info || random.random_range(0..10) > 0 {
            events.push(draft.event(draft.kind, &shown.value, &shown));
        }
    }
    events
}

fn draft(random: &mut StdRng, number: u64) -> Draft {
    let start = number * SECOND / RATE;
    let (kind, latency) = outcome(random, start);
    let f = match random.random_range(0..10) {
        0..5 => Function::Read,
        5..8 => Function::Write,
        8 => Function::Cas,
        _ => Function::Delete,
    };
    Draft { number, start, latency, kind, f }
}

/// How an operation ends, and how long it takes: as the cluster fares at the time.
fn outcome(random: &mut StdRng, start: u64) -> (Kind, u64) {
    let shape: f64 = (0..4).map(|_| random.random_range(0.0..1.0)).sum::<f64>() / 2.0;
    let typical = (250_000.0 * 6.0_f64.powf(shape * shape)) as u64;
    if leader(start).is_none() || !runs(start) {
        return match random.random_range(0..8) {
            0 => (Kind::Info, DEADLINE - random.random_range(0..SECOND)),
            1..6 => (Kind::Fail, typical * 3),
            _ => (Kind::Fail, DEADLINE - random.random_range(0..MS)),
        };
    }
    let jitter = (39_000..52_000).contains(&(start / MS));
    let slow = random.random_range(0..400) == 0;
    let latency = typical
        + if jitter { random.random_range(2 * MS..34 * MS) } else { 0 }
        + if slow { 30 * MS } else { 0 };
    (Kind::Ok, latency)
}

/// What a violation looks like to clients, on a key of its own, together with more that was seen there.
fn seen(planted: Planted) -> History {
    let write = |value: u64| (Function::Write, json!(value), json!(value));
    let read = |value: u64| (Function::Read, Value::Null, json!(value));
    let swap = |old: u64, new: u64| (Function::Cas, json!([old, new]), json!([old, new]));
    let all = match planted {
        Planted::StaleRead => vec![
            (2, 1, [10_120, 10_124], write(7), Kind::Ok),
            (5, 2, [10_300, 10_303], read(7), Kind::Ok),
            (4, 1, [11_071, 11_102], write(9), Kind::Ok),
            (7, 2, [11_150, 11_153], read(9), Kind::Ok),
            (9, 3, [11_220, 11_221], read(7), Kind::Ok),
            (2, 1, [11_300, 11_302], read(9), Kind::Ok),
        ],
        Planted::LostUpdate => vec![
            (1, 1, [20_000, 20_003], write(4), Kind::Ok),
            (5, 2, [20_010, 20_019], swap(4, 5), Kind::Ok),
            (6, 4, [20_012, 20_024], swap(4, 6), Kind::Ok),
            (5, 2, [20_031, 20_033], read(6), Kind::Ok),
        ],
        Planted::LostWrite => vec![
            (3, 5, [26_411, 26_415], write(30), Kind::Ok),
            (8, 5, [27_981, 27_988], write(31), Kind::Ok),
            (11, 5, [27_999, 29_999], write(32), Kind::Info),
            (14, 1, [34_700, 34_703], read(30), Kind::Ok),
            (3, 2, [35_100, 35_102], read(30), Kind::Ok),
        ],
        Planted::DoubleApply => vec![
            (20, 3, [43_200, 43_203], write(9), Kind::Ok),
            (21, 3, [44_000, 46_000], write(1), Kind::Info),
            (23, 1, [44_300, 44_303], read(1), Kind::Ok),
            (22, 1, [44_800, 44_806], write(2), Kind::Ok),
            (24, 2, [45_100, 45_104], read(2), Kind::Ok),
            (23, 1, [45_300, 45_303], read(1), Kind::Ok),
        ],
    };
    let events = all.into_iter().flat_map(|(process, node, [start, end], (f, asked, answered), kind)| {
        let event = |kind, time: u64, value| Event {
            process,
            kind,
            f,
            key: Some("planted".to_owned()),
            value,
            time: time * MS,
            applied: (f == Function::Cas && kind == Kind::Ok).then_some(true),
            node: Some(node),
            freshness: None,
            revision: None,
            error: (kind == Kind::Info).then(|| "deadline exceeded".to_owned()),
        };
        [event(Kind::Invoke, start, asked), event(kind, end, answered)]
    });
    events.collect()
}
