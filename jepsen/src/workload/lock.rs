//! Locks that are taken, written under, given back, or left to the time of their leases; and writes with the tokens of earlier
//! holders, as of somebody who was paused.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use ringfence_checker::Function;
use ringfence_checker::locks::{DATA, WRITES_OF_A_TOKEN, token_of};
use serde_json::{Value, json};

use super::keys::Keys;
use super::{Done, Generator, Operation, Workload, stored};
use crate::client::{self, Caller, Failure, Freshness, Request, Right};

/// Locks in use at a time.
const LOCKS_LIVE: usize = 4;
/// Operations after which a lock is retired: more than of other keys, since each lock costs a guard, and those are few.
const USES_MAX: u32 = 600;
/// Most locks whose data is read at the end.
const FINAL_LOCKS_MAX: u64 = 300;
/// How long a holder's lease lasts that nobody keeps alive, in seconds: the shortest that there is.
const TTL: i64 = 2;
/// Most calls that stand for one lock at a time.
const STANDING_MAX: usize = 3;
/// Tokens of a lock that are remembered.
const TOKENS_MAX: usize = 8;

/// The workload.
#[derive(Default)]
pub struct Lock {
    shared: Arc<Shared>,
}

/// What processes know of locks.
#[derive(Default)]
struct Shared(Mutex<BTreeMap<String, Known>>);

/// What is known of one lock.
#[derive(Default)]
struct Known {
    /// The keys that held it, by their tokens.
    holders: BTreeMap<u64, String>,
    standing: usize,
    is_guarded: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn holder(&self, name: &str, token: u64) -> Option<String> {
        self.lock().get(name)?.holders.get(&token).cloned()
    }
}

#[tonic::async_trait]
impl Workload for Lock {
    fn generator(&self, seed: u64) -> Box<dyn Generator> {
        Box::new(Locks {
            rng: StdRng::seed_from_u64(seed),
            keys: Keys::new("lock/", LOCKS_LIVE, USES_MAX),
            shared: Arc::clone(&self.shared),
            values: 0,
            given_back: HashSet::new(),
        })
    }

    async fn perform(&self, operation: &Operation, caller: &mut Caller) -> Result<Done, Failure> {
        match operation.f {
            Function::Acquire => self.acquire(operation.key(), caller).await,
            Function::Release => {
                let key = operation.value["key"].as_str().unwrap_or_default().to_owned();
                let token = operation.value["token"].as_u64().unwrap_or(0);
                caller.call(&Request::Right(Right::Release(key, token))).await?;
                Ok(Done::new(operation.value.clone(), 0))
            }
            Function::Write => self.write(operation, caller).await,
            Function::Read => {
                let key = client::Keys::One(operation.key().to_owned());
                let answer = caller.call(&Request::Get(key, Freshness::Linearizable)).await?;
                let value = answer.one(0).map_or(Value::Null, |found| stored(&found.value));
                Ok(Done::new(value, answer.revision))
            }
            other => unreachable!("locks draw no {other:?}"),
        }
    }
}

impl Lock {
    async fn acquire(&self, name: &str, caller: &mut Caller) -> Result<Done, Failure> {
        let taken = self.take(name, caller).await;
        let mut shared = self.shared.lock();
        let known = shared.entry(name.to_owned()).or_default();
        known.standing = known.standing.saturating_sub(1);
        let (token, key, revision) = taken?;
        known.holders.insert(token, key.clone());
        if known.holders.len() > TOKENS_MAX {
            known.holders.pop_first();
        }
        Ok(Done::new(json!({ "token": token, "key": key }), revision))
    }

    async fn take(&self, name: &str, caller: &mut Caller) -> Result<(u64, String, u64), Failure> {
        let is_guarded = self.shared.lock().get(name).is_some_and(|known| known.is_guarded);
        if !is_guarded {
            let guard = Right::Guard { key: format!("{DATA}{name}"), lock: name.to_owned() };
            caller.call(&Request::Right(guard)).await.map_err(|failure| Failure::definite(failure.error))?;
            self.shared.lock().entry(name.to_owned()).or_default().is_guarded = true;
        }
        let answer = caller.call(&Request::Right(Right::Acquire(name.to_owned(), TTL))).await?;
        let found = answer.one(0).ok_or_else(|| Failure::indefinite("the answer tells no key"))?;
        Ok((found.changed_at, found.key.clone(), answer.revision))
    }

    async fn write(&self, operation: &Operation, caller: &mut Caller) -> Result<Done, Failure> {
        let key = operation.key().to_owned();
        let (number, lock) = (operation.value.as_u64().unwrap_or(0), key.trim_start_matches(DATA).to_owned());
        let (value, token) = (number.to_string(), token_of(number));
        let request = match token {
            0 => Request::Put(key, value),
            token => {
                let holder = self.shared.holder(&lock, token);
                let holder = holder.ok_or_else(|| Failure::definite("the token is forgotten"))?;
                Request::Right(Right::PutUnder { key, value, lock, holder, token })
            }
        };
        let answer = caller.call(&request).await?;
        Ok(Done::new(operation.value.clone(), answer.revision))
    }
}

struct Locks {
    rng: StdRng,
    keys: Keys,
    shared: Arc<Shared>,
    values: u64,
    given_back: HashSet<u64>,
}

impl Locks {
    /// A write of a value that no other has, with this token.
    fn write(&mut self, name: &str, token: u64) -> Operation {
        self.values = (self.values + 1) % WRITES_OF_A_TOKEN;
        Operation::on(format!("{DATA}{name}"), Function::Write, token * WRITES_OF_A_TOKEN + self.values)
    }
}

impl Generator for Locks {
    fn next(&mut self) -> Operation {
        let name = self.keys.draw(&mut self.rng);
        let drawn = self.rng.random_range(0..100);
        let shared = Arc::clone(&self.shared);
        let mut known = shared.lock();
        let known = known.entry(name.clone()).or_default();
        let tokens: Vec<u64> = known.holders.keys().copied().collect();
        let (Some(newest), 15..) = (tokens.last().copied(), drawn) else {
            if known.standing >= STANDING_MAX {
                return Operation::on(format!("{DATA}{name}"), Function::Read, Value::Null);
            }
            known.standing += 1;
            return Operation::on(name, Function::Acquire, Value::Null);
        };
        match drawn {
            15..22 if self.given_back.insert(newest) => {
                let value = json!({ "token": newest, "key": known.holders[&newest] });
                Operation::on(name, Function::Release, value)
            }
            15..75 => self.write(&name, newest),
            75..87 => {
                let token = tokens[self.rng.random_range(0..tokens.len())];
                self.write(&name, token)
            }
            87..90 => self.write(&name, 0),
            _ => Operation::on(format!("{DATA}{name}"), Function::Read, Value::Null),
        }
    }

    fn indefinite(&mut self, operation: &Operation) {
        self.keys.indefinite(operation.key().trim_start_matches(DATA));
    }

    fn final_reads(&self) -> Vec<Operation> {
        let names = self.keys.newest(FINAL_LOCKS_MAX).into_iter();
        names.map(|name| Operation::on(format!("{DATA}{name}"), Function::Read, Value::Null)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_taken_before_anything_is_written_under_it() {
        let lock = Lock::default();
        let mut generator = lock.generator(7);
        for _ in 0..50 {
            let operation = generator.next();
            assert!(matches!(operation.f, Function::Acquire | Function::Read), "{operation:?}");
        }
        lock.shared.lock().entry("lock/0".to_owned()).or_default().holders.insert(9, "lock/0/5f".to_owned());
        let drawn: Vec<Operation> = (0..400).map(|_| generator.next()).collect();
        let of = |token: u64| {
            let is_write = |operation: &&Operation| operation.f == Function::Write;
            drawn
                .iter()
                .filter(is_write)
                .filter(|write| token_of(write.value.as_u64().unwrap_or(0)) == token)
                .count()
        };
        assert!(of(9) > 20 && of(0) > 0, "{} with its token, {} without any", of(9), of(0));
        assert_eq!(drawn.iter().filter(|operation| operation.f == Function::Release).count(), 1);
    }
}
