//! Single keys, read, written, compared-and-set and deleted.

use std::collections::{HashMap, VecDeque};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use ringfence_checker::Function;
use serde_json::{Value, json};

use super::keys::Keys;
use super::{Done, Generator, Operation, Workload, stored};
use crate::client::{self, Caller, Demand, Failure, Freshness, Request, Step};

/// Keys in use at a time.
const KEYS_LIVE: usize = 8;
/// Operations after which a key is retired.
const USES_MAX: u32 = 300;
/// Newest values of a key that a compare is drawn from: few, so that it holds now and then.
const RECENT_MAX: usize = 3;
/// Most keys that are read at the end.
const FINAL_KEYS_MAX: u64 = 1_000;

/// The workload.
pub struct Register;

#[tonic::async_trait]
impl Workload for Register {
    fn generator(&self, seed: u64) -> Box<dyn Generator> {
        Box::new(Registers {
            rng: StdRng::seed_from_u64(seed),
            keys: Keys::new("register/", KEYS_LIVE, USES_MAX),
            recent: HashMap::new(),
            values: 0,
        })
    }

    async fn perform(&self, operation: &Operation, caller: &mut Caller) -> Result<Done, Failure> {
        let key = operation.key().to_owned();
        match operation.f {
            Function::Read => read(caller, key, operation.freshness).await,
            Function::Write => {
                let answer = caller.call(&Request::Put(key, operation.value.to_string())).await?;
                Ok(Done::new(operation.value.clone(), answer.revision))
            }
            Function::Delete => {
                let answer = caller.call(&Request::Delete(key)).await?;
                Ok(Done::conditional(Value::Null, answer.held, answer.revision))
            }
            Function::Cas => {
                let (old, new) = (operation.value[0].to_string(), operation.value[1].to_string());
                let demands = vec![(key.clone(), Demand::Value(old))];
                let steps = vec![Step::Put(key, new)];
                let answer = caller.call(&Request::Txn { demands, steps }).await?;
                Ok(Done::conditional(operation.value.clone(), answer.held, answer.revision))
            }
            other => unreachable!("registers draw no {other:?}"),
        }
    }
}

async fn read(caller: &mut Caller, key: String, freshness: Freshness) -> Result<Done, Failure> {
    let answer = caller.call(&Request::Get(client::Keys::One(key), freshness)).await?;
    let value = answer.one(0).map_or(Value::Null, |found| stored(&found.value));
    Ok(Done::new(value, answer.revision))
}

struct Registers {
    rng: StdRng,
    keys: Keys,
    recent: HashMap<String, VecDeque<u64>>,
    /// Values drawn so far; each is drawn once.
    values: u64,
}

impl Registers {
    fn value(&mut self, key: &str) -> u64 {
        self.values += 1;
        let recent = self.recent.entry(key.to_owned()).or_default();
        recent.push_back(self.values);
        if recent.len() > RECENT_MAX {
            recent.pop_front();
        }
        self.values
    }

    /// A value that the key may well have.
    fn guess(&mut self, key: &str) -> u64 {
        match self.recent.get(key) {
            Some(recent) if !recent.is_empty() => recent[self.rng.random_range(0..recent.len())],
            _ => 0,
        }
    }
}

impl Generator for Registers {
    fn next(&mut self) -> Operation {
        let key = self.keys.draw(&mut self.rng);
        match self.rng.random_range(0..100) {
            0..30 => Operation::on(key, Function::Read, Value::Null),
            30..45 => Operation::on(key, Function::Read, Value::Null).as_fresh_as(Freshness::Any),
            45..70 => {
                let value = self.value(&key);
                Operation::on(key, Function::Write, value)
            }
            70..96 => {
                let (old, new) = (self.guess(&key), self.value(&key));
                Operation::on(key, Function::Cas, json!([old, new]))
            }
            _ => Operation::on(key, Function::Delete, Value::Null),
        }
    }

    fn indefinite(&mut self, operation: &Operation) {
        self.keys.indefinite(operation.key());
    }

    fn final_reads(&self) -> Vec<Operation> {
        let keys = self.keys.newest(FINAL_KEYS_MAX).into_iter();
        keys.map(|key| Operation::on(key, Function::Read, Value::Null)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_value_is_drawn_twice_and_keys_rotate() {
        let mut generator = Register.generator(7);
        let (mut values, mut keys) = (HashSet::new(), HashSet::new());
        for _ in 0..20_000 {
            let operation = generator.next();
            keys.insert(operation.key().to_owned());
            let value = match operation.f {
                Function::Write => operation.value.as_u64(),
                Function::Cas => operation.value[1].as_u64(),
                _ => continue,
            };
            let value = value.expect("values are numbers");
            assert!(values.insert(value), "{value} is drawn twice");
        }
        assert!(keys.len() >= 20_000 / USES_MAX as usize, "{} keys", keys.len());
        let read: HashSet<String> =
            generator.final_reads().iter().map(|operation| operation.key().to_owned()).collect();
        assert!(keys.is_subset(&read), "every key is read at the end");
    }
}
