//! Transactions that append to lists and read them, in Elle's form. Which list a value is in, and where, tells in which
//! order transactions happened.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use ringfence_checker::{Budget, Event, Finding, Function};
use serde_json::{Value, json};

use super::guarded::{Next, Seen, guarded};
use super::keys::Keys;
use super::{Done, Generator, Operation, Workload, second, stored};
use crate::client::{Caller, Failure, Step};

/// Lists in use at a time.
const KEYS_LIVE: usize = 10;
/// Transactions after which a list is retired: each read tells all of it.
const USES_MAX: u32 = 150;
/// Most lists that are read at the end.
const FINAL_KEYS_MAX: u64 = 1_000;
/// Most appends and reads in a transaction.
const MICROS_MAX: usize = 4;

/// The workload.
pub struct ListAppend;

#[tonic::async_trait]
impl Workload for ListAppend {
    fn generator(&self, seed: u64) -> Box<dyn Generator> {
        let keys = Keys::new("list/", KEYS_LIVE, USES_MAX);
        Box::new(Lists { rng: StdRng::seed_from_u64(seed), keys, values: 0 })
    }

    async fn perform(&self, operation: &Operation, caller: &mut Caller) -> Result<Done, Failure> {
        let micros: Vec<Micro> = micros(&operation.value);
        let mut keys: Vec<String> = micros.iter().map(|micro| micro.key().to_owned()).collect();
        keys.sort();
        keys.dedup();
        let (value, revision) = guarded(caller, &keys, |seen| evaluate(&micros, &keys, seen)).await?;
        Ok(Done::new(value, revision))
    }

    fn check(&self, history: &[Event], budget: Budget<'_>) -> Vec<Finding> {
        let mut findings = ringfence_checker::judge(history, budget);
        findings.push(second::opinion(history));
        findings
    }
}

/// One step of a transaction.
#[derive(Debug, Clone, PartialEq)]
enum Micro {
    Append(String, Value),
    Read(String),
}

impl Micro {
    fn key(&self) -> &str {
        match self {
            Micro::Append(key, _) | Micro::Read(key) => key,
        }
    }
}

/// Reads Elle's form, which this file's generator wrote.
fn micros(value: &Value) -> Vec<Micro> {
    let micro = |micro: &Value| {
        let key = micro[1].as_str().expect("a step names a list").to_owned();
        match micro[0].as_str() {
            Some("append") => Micro::Append(key, micro[2].clone()),
            _ => Micro::Read(key),
        }
    };
    value.as_array().map(|list| list.iter().map(micro).collect()).unwrap_or_default()
}

/// What the transaction reads and puts on top of what was seen.
fn evaluate(micros: &[Micro], keys: &[String], seen: &Seen<'_>) -> Result<Next<Value>, Failure> {
    let mut lists = Vec::new();
    for (place, key) in keys.iter().enumerate() {
        let list = seen.key(place).map_or_else(|| json!([]), |found| stored(&found.value));
        match list {
            Value::Array(list) => lists.push((list, false)),
            other => return Err(Failure::definite(format!("{key} holds no list but {other}"))),
        }
    }
    let place = |key: &str| keys.binary_search_by(|other| other.as_str().cmp(key)).expect("all were read");
    let mut outcome = Vec::new();
    for micro in micros {
        let (list, appended) = &mut lists[place(micro.key())];
        match micro {
            Micro::Append(key, value) => {
                list.push(value.clone());
                *appended = true;
                outcome.push(json!(["append", key, value]));
            }
            Micro::Read(key) => outcome.push(json!(["r", key, list])),
        }
    }
    let changed = keys.iter().zip(lists).filter(|(_, (_, appended))| *appended);
    let steps: Vec<Step> =
        changed.map(|(key, (list, _))| Step::Put(key.clone(), Value::Array(list).to_string())).collect();
    match steps.is_empty() {
        true => Ok(Next::Stop(Value::Array(outcome))),
        false => Ok(Next::Change(steps, Value::Array(outcome))),
    }
}

struct Lists {
    rng: StdRng,
    keys: Keys,
    values: u64,
}

impl Generator for Lists {
    fn next(&mut self) -> Operation {
        let count = self.rng.random_range(1..=MICROS_MAX);
        let keys = self.keys.draw_distinct(count, &mut self.rng);
        let mut micros = Vec::new();
        for _ in 0..count {
            // Some lists come twice, so that transactions see their own appends.
            let key = &keys[self.rng.random_range(0..keys.len())];
            if self.rng.random_bool(0.5) {
                self.values += 1;
                micros.push(json!(["append", key, self.values]));
            } else {
                micros.push(json!(["r", key, null]));
            }
        }
        Operation::over_all(Function::Txn, micros)
    }

    fn indefinite(&mut self, operation: &Operation) {
        for micro in micros(&operation.value) {
            self.keys.indefinite(micro.key());
        }
    }

    fn final_reads(&self) -> Vec<Operation> {
        let lists = self.keys.newest(FINAL_KEYS_MAX).into_iter();
        lists.map(|key| Operation::over_all(Function::Txn, vec![json!(["r", key, null])])).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use super::*;
    use crate::client::fake::Script;
    use crate::client::{Answer, Found, Request};

    #[test]
    fn no_value_is_appended_twice_and_transactions_are_short() {
        let mut generator = ListAppend.generator(7);
        let mut values = HashSet::new();
        for _ in 0..5_000 {
            let operation = generator.next();
            let micros = micros(&operation.value);
            assert!((1..=MICROS_MAX).contains(&micros.len()));
            for micro in micros {
                if let Micro::Append(_, value) = micro {
                    let value = value.as_u64().expect("values are numbers");
                    assert!(values.insert(value), "{value} is appended twice");
                }
            }
        }
        assert!(values.len() > 4_000 && generator.final_reads().len() > 30);
    }

    #[tokio::test]
    async fn a_transaction_reads_its_own_appends_and_puts_whole_lists() {
        let found = Found { key: "a".to_owned(), value: "[1]".to_owned(), changed_at: 4 };
        let read = Answer { revision: 5, held: true, got: vec![vec![found], vec![]] };
        let put = Answer { revision: 6, held: true, got: vec![] };
        let script = Script::new([Ok(read), Ok(put)]);
        let mut caller = Caller::new(Box::new(script.clone()), Duration::from_secs(1), false);
        let value = json!([["r", "b", null], ["append", "a", 2], ["r", "a", null]]);
        let done = ListAppend.perform(&Operation::over_all(Function::Txn, value), &mut caller).await;
        let expected = json!([["r", "b", []], ["append", "a", 2], ["r", "a", [1, 2]]]);
        assert_eq!(done, Ok(Done::new(expected, 6)));
        let requests = script.requests();
        let Request::Txn { steps, .. } = &requests[1] else { panic!("{requests:?}") };
        assert_eq!(steps[..], [Step::Put("a".to_owned(), "[1,2]".to_owned())]);
    }
}
