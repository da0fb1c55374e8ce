//! Counters, added to in transactions that read, then put if nobody else has put meanwhile.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use ringfence_checker::Function;
use serde_json::Value;

use super::guarded::{Next, guarded};
use super::keys::Keys;
use super::{Done, Generator, Operation, Workload, stored};
use crate::client::{self, Caller, Failure, Request, Step};

/// Counters in use at a time: enough that additions seldom meet.
const KEYS_LIVE: usize = 8;
/// Operations after which a counter is retired.
const USES_MAX: u32 = 1_000;
/// Most counters that are read at the end.
const FINAL_KEYS_MAX: u64 = 500;
/// The largest amount.
const AMOUNT_MAX: u64 = 5;

/// The workload.
pub struct Counter;

#[tonic::async_trait]
impl Workload for Counter {
    fn generator(&self, seed: u64) -> Box<dyn Generator> {
        let keys = Keys::new("counter/", KEYS_LIVE, USES_MAX);
        Box::new(Counters { rng: StdRng::seed_from_u64(seed), keys })
    }

    async fn perform(&self, operation: &Operation, caller: &mut Caller) -> Result<Done, Failure> {
        let key = operation.key().to_owned();
        match operation.f {
            Function::Add => add(caller, key, &operation.value).await,
            Function::Read => {
                let answer = caller.call(&Request::Get(client::Keys::One(key), operation.freshness)).await?;
                let value = answer.one(0).map_or(Value::from(0), |found| stored(&found.value));
                Ok(Done::new(value, answer.revision))
            }
            other => unreachable!("counters draw no {other:?}"),
        }
    }
}

async fn add(caller: &mut Caller, key: String, amount: &Value) -> Result<Done, Failure> {
    let keys = [key];
    let ((), revision) = guarded(caller, &keys, |seen| {
        let before = seen.key(0).map_or(Value::from(0), |found| stored(&found.value));
        let (Some(before), Some(amount)) = (before.as_u64(), amount.as_u64()) else {
            return Err(Failure::definite(format!("{before} is no counter")));
        };
        Ok(Next::Change(vec![Step::Put(keys[0].clone(), (before + amount).to_string())], ()))
    })
    .await?;
    Ok(Done::new(amount.clone(), revision))
}

struct Counters {
    rng: StdRng,
    keys: Keys,
}

impl Generator for Counters {
    fn next(&mut self) -> Operation {
        let key = self.keys.draw(&mut self.rng);
        match self.rng.random_range(0..100) {
            0..60 => Operation::on(key, Function::Add, self.rng.random_range(1..=AMOUNT_MAX)),
            _ => Operation::on(key, Function::Read, Value::Null),
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
