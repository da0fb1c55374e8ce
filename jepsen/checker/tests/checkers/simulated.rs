//! Histories of stores that are right: each operation takes effect at one moment of its interval, and some answers are
//! lost on the way.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use ringfence_checker::{Event, Function, History, Kind};
use serde_json::{Value, json};

/// How large and how rough a history is.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// How many operations.
    pub operations: usize,
    /// On how many keys.
    pub keys: usize,
    /// By how many processes at once.
    pub processes: u64,
    /// What part of the answers is lost.
    pub lost: f64,
}

/// One operation's times and fate, before it is known what it does.
struct Slot {
    process: u64,
    start: u64,
    /// When it takes effect.
    point: u64,
    end: u64,
    kind: Kind,
    /// Whether it takes effect at all.
    done: bool,
}

/// Draws slots, in the order in which they take effect.
fn slots(shape: Shape, random: &mut StdRng) -> Vec<Slot> {
    let mut processes: Vec<(u64, u64)> = (0..shape.processes).map(|process| (process, 0)).collect();
    let mut fresh = shape.processes;
    let mut slots = Vec::with_capacity(shape.operations);
    for _ in 0..shape.operations {
        let place = random.random_range(0..processes.len());
        let (process, free) = processes[place];
        let start = free + random.random_range(1..200_000);
        let point = start + random.random_range(0..500_000);
        let end = point + random.random_range(0..500_000);
        let lost = random.random_bool(shape.lost);
        let failed = !lost && random.random_bool(shape.lost);
        let kind = if lost {
            Kind::Info
        } else if failed {
            Kind::Fail
        } else {
            Kind::Ok
        };
        let done = !failed && (!lost || random.random_bool(0.5));
        // What was given up may take effect much later.
        let late = if lost && random.random_bool(0.5) { random.random_range(0..20_000_000) } else { 0 };
        slots.push(Slot { process, start, point: point + late, end, kind, done });
        processes[place] = (process, end);
        if lost {
            processes[place].0 = fresh;
            fresh += 1;
        }
    }
    slots.sort_by_key(|slot| slot.point);
    slots
}

/// What was asked and what came of it.
struct Said {
    f: Function,
    key: Option<String>,
    asked: Value,
    answer: Value,
    applied: Option<bool>,
    freshness: Option<String>,
    revision: u64,
}

impl Said {
    fn new(f: Function, asked: Value, revision: u64) -> Said {
        Said { f, key: None, answer: asked.clone(), asked, applied: None, freshness: None, revision }
    }
}

fn history(said: Vec<(Slot, Said)>) -> History {
    let mut events: Vec<Event> = Vec::with_capacity(2 * said.len());
    for (slot, said) in said {
        let ok = slot.kind == Kind::Ok;
        let invoke = Event {
            process: slot.process,
            kind: Kind::Invoke,
            f: said.f,
            key: said.key,
            value: said.asked.clone(),
            time: slot.start,
            applied: None,
            node: Some(slot.process % 5 + 1),
            freshness: said.freshness,
            revision: None,
            error: None,
        };
        let complete = Event {
            kind: slot.kind,
            time: slot.end,
            value: if ok { said.answer } else { said.asked },
            applied: said.applied.filter(|_| ok),
            revision: ok.then_some(said.revision),
            error: (!ok).then(|| "no answer".to_owned()),
            ..invoke.clone()
        };
        events.extend([invoke, complete]);
    }
    events.sort_by_key(|event| (event.time, event.kind != Kind::Invoke));
    events
}

/// All versions of the registers: a read that asks for less may be shown an older one.
struct Registers {
    /// For each key its values, each with the revision and the time from which on it was there.
    versions: Vec<Vec<(u64, u64, Value)>>,
    revision: u64,
}

impl Registers {
    fn now(&self, key: usize) -> Value {
        self.versions[key].last().map_or(Value::Null, |(_, _, value)| value.clone())
    }

    fn set(&mut self, key: usize, time: u64, value: Value) {
        self.revision += 1;
        self.versions[key].push((self.revision, time, value));
    }

    fn at(&self, key: usize, revision: u64) -> Value {
        let version = self.versions[key].iter().rfind(|(at, _, _)| *at <= revision);
        version.map_or(Value::Null, |(_, _, value)| value.clone())
    }

    fn revision_at(&self, time: u64) -> u64 {
        let upto = |versions: &Vec<(u64, u64, Value)>| {
            versions.iter().rfind(|(_, at, _)| *at <= time).map_or(0, |(revision, _, _)| *revision)
        };
        self.versions.iter().map(upto).max().unwrap_or(0)
    }
}

/// Reads of all freshnesses, writes, compare-and-sets and deletes of registers.
pub fn registers(shape: Shape, seed: u64) -> History {
    let mut random = StdRng::seed_from_u64(seed);
    let mut registers = Registers { versions: vec![Vec::new(); shape.keys], revision: 0 };
    let mut said = Vec::new();
    for (number, slot) in slots(shape, &mut random).into_iter().enumerate() {
        let key = random.random_range(0..shape.keys);
        let mut words = match random.random_range(0..20) {
            0..8 => Said::new(Function::Read, Value::Null, registers.revision),
            8..14 => Said::new(Function::Write, json!(number), 0),
            14..19 => {
                let old = if random.random_bool(0.6) { registers.now(key) } else { json!(number / 2) };
                Said::new(Function::Cas, json!([old, number]), 0)
            }
            _ => Said::new(Function::Delete, Value::Null, 0),
        };
        words.key = Some(format!("r{key}"));
        match words.f {
            Function::Read => read(&registers, key, &slot, &mut words, &mut random),
            _ => write(&mut registers, key, &slot, &mut words),
        }
        said.push((slot, words));
    }
    history(said)
}

fn read(registers: &Registers, key: usize, slot: &Slot, words: &mut Said, random: &mut StdRng) {
    let now = registers.revision;
    match random.random_range(0..20) {
        0 => {
            words.freshness = Some("any".to_owned());
            words.revision = random.random_range(0..=now);
        }
        1 => {
            let wanted = random.random_range(0..=now);
            words.freshness = Some(format!("revision={wanted}"));
            words.revision = random.random_range(wanted..=now);
        }
        2 => {
            words.freshness = Some("max-age=2ms".to_owned());
            words.revision =
                registers.revision_at(slot.start.saturating_sub(random.random_range(0..2_000_000)));
        }
        3 => words.freshness = Some("quorum".to_owned()),
        _ => {}
    }
    words.answer = registers.at(key, words.revision);
}

fn write(registers: &mut Registers, key: usize, slot: &Slot, words: &mut Said) {
    let before = registers.now(key);
    let (applied, value) = match words.f {
        Function::Cas => (words.asked[0] == before, words.asked[1].clone()),
        Function::Delete => (!before.is_null(), Value::Null),
        _ => (true, words.asked.clone()),
    };
    if slot.done && applied {
        registers.set(key, slot.point, value);
    }
    words.applied = (words.f != Function::Write).then_some(applied);
    words.revision = registers.revision;
}

/// A set, read now and then and once at the end.
pub fn set(shape: Shape, seed: u64) -> History {
    let mut elements: Vec<Value> = Vec::new();
    grown(shape, seed, Function::ReadAll, |element, done| {
        elements.extend(element.filter(|_| done));
        json!(elements)
    })
}

/// A counter, read now and then and once at the end.
pub fn counter(shape: Shape, seed: u64) -> History {
    let mut sum = 0;
    grown(shape, seed, Function::Read, |amount, done| {
        sum += amount.filter(|_| done).and_then(|amount| amount.as_i64()).unwrap_or(0);
        json!(sum)
    })
}

fn grown(
    shape: Shape,
    seed: u64,
    look: Function,
    mut add: impl FnMut(Option<Value>, bool) -> Value,
) -> History {
    let mut random = StdRng::seed_from_u64(seed);
    let mut slots = slots(shape, &mut random);
    let end = slots.iter().map(|slot| slot.end.max(slot.point)).max().unwrap_or(0);
    let last =
        Slot { process: 1 << 40, start: end + 1, point: end + 2, end: end + 3, kind: Kind::Ok, done: true };
    slots.push(last);
    let (mut revision, count, mut said) = (0, slots.len(), Vec::new());
    for (number, slot) in slots.into_iter().enumerate() {
        let is_add = number + 1 < count && random.random_bool(0.8);
        revision += u64::from(is_add && slot.done);
        let mut words = if is_add {
            add(Some(json!(number)), slot.done);
            Said::new(Function::Add, json!(number), revision)
        } else {
            Said { answer: add(None, false), ..Said::new(look, Value::Null, revision) }
        };
        words.key = Some("all".to_owned());
        said.push((slot, words));
    }
    history(said)
}

/// A bank of some accounts.
pub fn bank(shape: Shape, seed: u64) -> History {
    let mut random = StdRng::seed_from_u64(seed);
    let mut balances = vec![10_i64; shape.keys];
    let (mut revision, mut said) = (shape.keys as u64, Vec::new());
    for slot in slots(shape, &mut random) {
        let words = if random.random_bool(0.6) {
            let (from, amount) = (random.random_range(0..shape.keys), random.random_range(1..5));
            let to = (from + random.random_range(1..shape.keys)) % shape.keys;
            let enough = balances[from] >= amount;
            if slot.done && enough {
                balances[from] -= amount;
                balances[to] += amount;
                revision += 1;
            }
            let asked = json!({"from": format!("a{from}"), "to": format!("a{to}"), "amount": amount});
            Said { applied: Some(enough), ..Said::new(Function::Transfer, asked, revision) }
        } else {
            let accounts =
                balances.iter().enumerate().map(|(account, money)| (format!("a{account}"), json!(money)));
            let answer = Value::Object(accounts.collect());
            Said { answer, ..Said::new(Function::ReadAll, Value::Null, revision) }
        };
        said.push((slot, words));
    }
    history(said)
}

/// Transactions on lists.
pub fn lists(shape: Shape, seed: u64) -> History {
    let mut random = StdRng::seed_from_u64(seed);
    let mut lists: Vec<Vec<usize>> = vec![Vec::new(); shape.keys];
    let (mut revision, mut element, mut said) = (0, 0, Vec::new());
    for slot in slots(shape, &mut random) {
        let mut after: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        let (mut asked, mut answer, mut appends) = (Vec::new(), Vec::new(), false);
        for _ in 0..random.random_range(1..5) {
            let key = random.random_range(0..shape.keys);
            let name = format!("l{key}");
            let list = after.entry(key).or_insert_with(|| lists[key].clone());
            if random.random_bool(0.5) {
                element += 1;
                appends = true;
                list.push(element);
                asked.push(json!(["append", name, element]));
                answer.push(json!(["append", name, element]));
            } else {
                asked.push(json!(["r", name, null]));
                answer.push(json!(["r", name, list]));
            }
        }
        if slot.done {
            after.into_iter().for_each(|(key, list)| lists[key] = list);
            revision += u64::from(appends);
        }
        said.push((slot, Said { answer: json!(answer), ..Said::new(Function::Txn, json!(asked), revision) }));
    }
    history(said)
}

/// Writes of one key or several, deletes, and watches of all keys or one, with one of everything at the end.
pub fn watches(shape: Shape, seed: u64) -> History {
    let mut random = StdRng::seed_from_u64(seed);
    let mut slots = slots(shape, &mut random);
    let end = slots.iter().map(|slot| slot.end.max(slot.point)).max().unwrap_or(0);
    let last =
        Slot { process: 1 << 40, start: end + 1, point: end + 2, end: end + 3, kind: Kind::Ok, done: true };
    slots.push(last);
    let key = |random: &mut StdRng| format!("w/{}", random.random_range(0..shape.keys));
    let (mut store, count, mut said) = (Watched::default(), slots.len(), Vec::new());
    for (number, slot) in slots.into_iter().enumerate() {
        let words = match random.random_range(0..20) {
            _ if number + 1 == count => store.watch("w/", 0, store.revision),
            0..8 => store.write(Function::Write, &[(key(&mut random), json!(number))], slot.done),
            8..12 => {
                let values = [0.1, 0.2].map(|part| (key(&mut random), json!(number as f64 + part)));
                store.write(Function::WriteAll, &values, slot.done)
            }
            12..14 => store.write(Function::Delete, &[(key(&mut random), Value::Null)], slot.done),
            drawn => {
                let from = random.random_range(0..=store.revision + 1);
                let to = random.random_range(from..=store.revision + 1) - u64::from(from > 0);
                let watched = if drawn < 17 { "w/".to_owned() } else { key(&mut random) };
                store.watch(&watched, from, to.min(store.revision))
            }
        };
        said.push((slot, words));
    }
    history(said)
}

/// All that happened to keys: the revision, the key, and what it became.
#[derive(Default)]
struct Watched {
    happened: Vec<(u64, String, Value)>,
    revision: u64,
}

impl Watched {
    fn write(&mut self, f: Function, values: &[(String, Value)], done: bool) -> Said {
        let values: BTreeMap<&String, &Value> = values.iter().map(|(key, value)| (key, value)).collect();
        let (key, value) = values.first_key_value().expect("something is written");
        let newest = self.happened.iter().rfind(|(_, other, _)| other == *key);
        let is_there = newest.is_some_and(|(_, _, value)| !value.is_null());
        let applied = f != Function::Delete || is_there;
        if done && applied {
            self.revision += 1;
            let at = |(key, value): (&&String, &&Value)| (self.revision, (*key).clone(), (*value).clone());
            self.happened.extend(values.iter().map(at));
        }
        let is_one = f != Function::WriteAll;
        let asked = if is_one { (*value).clone() } else { json!(values) };
        let key = is_one.then(|| (*key).clone());
        let applied = (f == Function::Delete).then_some(applied);
        Said { key, applied, ..Said::new(f, asked, self.revision) }
    }

    fn watch(&self, key: &str, from: u64, to: u64) -> Said {
        let is_told = |(at, other, _): &&(u64, String, Value)| {
            (from..=to).contains(at) && (key == "w/" || key == other)
        };
        let told = self.happened.iter().filter(is_told).map(|(at, key, value)| json!([at, key, value]));
        let answer = json!({ "from": from, "to": to, "events": told.collect::<Vec<_>>() });
        let said = Said::new(Function::Watch, json!({ "from": from }), to);
        Said { key: Some(key.to_owned()), answer, freshness: Some("any".to_owned()), ..said }
    }
}
