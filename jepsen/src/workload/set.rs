//! Sets: each element is a key of its own below its set's prefix, created once.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use ringfence_checker::Function;
use serde_json::Value;

use super::keys::Keys;
use super::{Done, Generator, Operation, Workload, stored};
use crate::client::{self, Caller, Demand, Failure, Request, Step};

/// Sets in use at a time.
const KEYS_LIVE: usize = 2;
/// Operations after which a set is retired: reads tell all of it, and the history holds every read.
const USES_MAX: u32 = 400;
/// Most sets that are read at the end.
const FINAL_KEYS_MAX: u64 = 1_000;

/// The workload.
pub struct Set;

#[tonic::async_trait]
impl Workload for Set {
    fn generator(&self, seed: u64) -> Box<dyn Generator> {
        let keys = Keys::new("set/", KEYS_LIVE, USES_MAX);
        Box::new(Sets { rng: StdRng::seed_from_u64(seed), keys, elements: 0 })
    }

    async fn perform(&self, operation: &Operation, caller: &mut Caller) -> Result<Done, Failure> {
        let set = operation.key();
        match operation.f {
            Function::Add => add(caller, set, &operation.value).await,
            Function::ReadAll => {
                let below = client::Keys::Prefix(format!("{set}/"));
                let answer = caller.call(&Request::Get(below, operation.freshness)).await?;
                let elements: Vec<Value> =
                    answer.got.iter().flatten().map(|found| stored(&found.value)).collect();
                Ok(Done::new(elements, answer.revision))
            }
            other => unreachable!("sets draw no {other:?}"),
        }
    }
}

async fn add(caller: &mut Caller, set: &str, element: &Value) -> Result<Done, Failure> {
    let key = format!("{set}/{element}");
    let demands = vec![(key.clone(), Demand::ChangedAt(0))];
    let answer =
        caller.call(&Request::Txn { demands, steps: vec![Step::Put(key, element.to_string())] }).await?;
    match answer.held {
        true => Ok(Done::new(element.clone(), answer.revision)),
        false => Err(Failure::definite("exists already")),
    }
}

struct Sets {
    rng: StdRng,
    keys: Keys,
    elements: u64,
}

impl Generator for Sets {
    fn next(&mut self) -> Operation {
        let set = self.keys.draw(&mut self.rng);
        match self.rng.random_range(0..100) {
            0..92 => {
                self.elements += 1;
                Operation::on(set, Function::Add, self.elements)
            }
            _ => Operation::on(set, Function::ReadAll, Value::Null),
        }
    }

    fn indefinite(&mut self, operation: &Operation) {
        self.keys.indefinite(operation.key());
    }

    fn final_reads(&self) -> Vec<Operation> {
        let sets = self.keys.newest(FINAL_KEYS_MAX).into_iter();
        sets.map(|set| Operation::on(set, Function::ReadAll, Value::Null)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_element_is_added_twice_and_every_set_is_read_at_the_end() {
        let mut generator = Set.generator(7);
        let (mut elements, mut sets) = (HashSet::new(), HashSet::new());
        for _ in 0..5_000 {
            let operation = generator.next();
            sets.insert(operation.key().to_owned());
            if operation.f == Function::Add {
                let element = operation.value.as_u64().expect("elements are numbers");
                assert!(elements.insert(element), "{element} is added twice");
            }
        }
        let read: HashSet<String> =
            generator.final_reads().iter().map(|operation| operation.key().to_owned()).collect();
        assert!(sets.len() >= 12 && sets.is_subset(&read), "{sets:?}");
    }
}
