//! Accounts, between which money is moved in transactions: the sum stays, and no account goes below zero.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use ringfence_checker::Function;
use serde_json::{Map, Value, json};

use super::guarded::{Next, guarded};
use super::{Done, Generator, Operation, Workload, stored};
use crate::client::{Caller, Demand, Failure, Keys, Request, Step};

/// How many accounts there are.
const ACCOUNTS: usize = 8;
/// What each holds at first.
const BALANCE: u64 = 50;
/// The largest amount that is moved: several such, and an account is empty.
const AMOUNT_MAX: u64 = 20;
/// The accounts lie below it.
const PREFIX: &str = "bank/";

/// The workload.
pub struct Bank;

#[tonic::async_trait]
impl Workload for Bank {
    /// All accounts with their first balances, unless they are there.
    fn founding(&self) -> Option<Request> {
        let keys = || (0..ACCOUNTS).map(|number| key(&account(number)));
        let demands = keys().map(|key| (key, Demand::ChangedAt(0))).collect();
        let steps = keys().map(|key| Step::Put(key, BALANCE.to_string())).collect();
        Some(Request::Txn { demands, steps })
    }

    fn generator(&self, seed: u64) -> Box<dyn Generator> {
        Box::new(Transfers { rng: StdRng::seed_from_u64(seed) })
    }

    async fn perform(&self, operation: &Operation, caller: &mut Caller) -> Result<Done, Failure> {
        match operation.f {
            Function::Transfer => transfer(caller, &operation.value).await,
            Function::ReadAll => {
                let all = Keys::Prefix(PREFIX.to_owned());
                let answer = caller.call(&Request::Get(all, operation.freshness)).await?;
                let balance = |found: &crate::client::Found| {
                    (found.key.trim_start_matches(PREFIX).to_owned(), stored(&found.value))
                };
                let balances: Map<String, Value> = answer.got.iter().flatten().map(balance).collect();
                Ok(Done::new(balances, answer.revision))
            }
            other => unreachable!("banks draw no {other:?}"),
        }
    }
}

async fn transfer(caller: &mut Caller, order: &Value) -> Result<Done, Failure> {
    let name = |field: &str| order[field].as_str().map(key).expect("an order names two accounts");
    let amount = order["amount"].as_u64().expect("an order names an amount");
    let keys = [name("from"), name("to")];
    let (applied, revision) = guarded(caller, &keys, |seen| {
        let balance = |place: usize| seen.key(place).and_then(|found| stored(&found.value).as_u64());
        let (Some(from), Some(to)) = (balance(0), balance(1)) else {
            return Err(Failure::definite(format!("{keys:?} are no accounts")));
        };
        let Some(rest) = from.checked_sub(amount) else { return Ok(Next::Stop(false)) };
        let put = |place: usize, balance: u64| Step::Put(keys[place].clone(), balance.to_string());
        Ok(Next::Change(vec![put(0, rest), put(1, to + amount)], true))
    })
    .await?;
    Ok(Done::conditional(order.clone(), applied, revision))
}

fn account(number: usize) -> String {
    format!("a{number}")
}

fn key(account: &str) -> String {
    format!("{PREFIX}{account}")
}

struct Transfers {
    rng: StdRng,
}

impl Generator for Transfers {
    fn next(&mut self) -> Operation {
        if self.rng.random_bool(0.4) {
            return Operation::over_all(Function::ReadAll, Value::Null);
        }
        let from = self.rng.random_range(0..ACCOUNTS);
        let to = (from + self.rng.random_range(1..ACCOUNTS)) % ACCOUNTS;
        let amount = self.rng.random_range(1..=AMOUNT_MAX);
        let order = json!({ "from": account(from), "to": account(to), "amount": amount });
        Operation::over_all(Function::Transfer, order)
    }

    fn final_reads(&self) -> Vec<Operation> {
        vec![Operation::over_all(Function::ReadAll, Value::Null)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_pays_himself() {
        let mut generator = Bank.generator(7);
        for _ in 0..1_000 {
            let operation = generator.next();
            if operation.f == Function::Transfer {
                assert_ne!(operation.value["from"], operation.value["to"]);
            }
        }
    }
}
