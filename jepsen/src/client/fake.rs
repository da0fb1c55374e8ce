//! Clients for tests: one that answers from a script and remembers what it was asked, and one with a store in memory that
//! now and then loses an answer.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use tokio::time::Instant;

use super::{Answer, Client, Demand, Failure, Found, Keys, Request, Step, Told, Watched, Watching};

/// A client that answers from a script. Clones share it.
#[derive(Clone)]
pub(crate) struct Script(Arc<Mutex<State>>);

struct State {
    answers: VecDeque<Result<Answer, Failure>>,
    hangs: bool,
    requests: Vec<Request>,
}

impl Script {
    /// Answers like this, in this order.
    pub(crate) fn new(answers: impl IntoIterator<Item = Result<Answer, Failure>>) -> Script {
        let answers = answers.into_iter().collect();
        Script(Arc::new(Mutex::new(State { answers, hangs: false, requests: Vec::new() })))
    }

    /// Never answers.
    pub(crate) fn hanging() -> Script {
        let state = State { answers: VecDeque::new(), hangs: true, requests: Vec::new() };
        Script(Arc::new(Mutex::new(state)))
    }

    /// What it was asked so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.0.lock().expect("no test panics while it asks").requests.clone()
    }

    fn next(&self, request: &Request) -> Option<Result<Answer, Failure>> {
        let mut state = self.0.lock().expect("no test panics while it asks");
        state.requests.push(request.clone());
        if state.hangs {
            return None;
        }
        Some(state.answers.pop_front().expect("the script has an answer for every request"))
    }
}

#[tonic::async_trait]
impl Client for Script {
    fn node(&self) -> Option<u64> {
        Some(1)
    }

    async fn call(&mut self, request: &Request, _deadline: Instant) -> Result<Answer, Failure> {
        match self.next(request) {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    }
}

/// A client with a store of its own, which does everything that it is asked and loses the answer to every so many-eth change.
pub(crate) struct Memory {
    keys: BTreeMap<String, Found>,
    /// What watches are told.
    happened: Vec<Told>,
    revision: u64,
    changes: u64,
    lost_one_in: u64,
}

impl Memory {
    pub(crate) fn new(lost_one_in: u64) -> Memory {
        Memory { keys: BTreeMap::new(), happened: Vec::new(), revision: 1, changes: 0, lost_one_in }
    }

    fn found(&self, keys: &Keys) -> Vec<Found> {
        match keys {
            Keys::One(key) => self.keys.get(key).cloned().into_iter().collect(),
            Keys::Prefix(prefix) => {
                self.keys.values().filter(|found| found.key.starts_with(prefix)).cloned().collect()
            }
        }
    }

    fn is_as_demanded(&self, (key, demand): &(String, Demand)) -> bool {
        let found = self.keys.get(key);
        match demand {
            Demand::Value(value) => found.is_some_and(|found| found.value == *value),
            Demand::ChangedAt(revision) => found.map_or(0, |found| found.changed_at) == *revision,
        }
    }

    fn put(&mut self, key: &str, value: &str) {
        let found = Found { key: key.to_owned(), value: value.to_owned(), changed_at: self.revision };
        self.keys.insert(key.to_owned(), found);
        self.note(key, Some(value.to_owned()));
    }

    fn note(&mut self, key: &str, value: Option<String>) {
        self.happened.push(Told { revision: self.revision, key: key.to_owned(), value });
    }

    fn carry_out(&mut self, request: &Request) -> Answer {
        let (mut held, mut got) = (true, Vec::new());
        match request {
            Request::Get(keys, _) => got.push(self.found(keys)),
            Request::Put(key, value) => {
                self.revision += 1;
                self.put(key, value);
            }
            Request::Delete(key) => {
                held = self.keys.remove(key).is_some();
                self.revision += u64::from(held);
                if held {
                    self.note(key, None);
                }
            }
            Request::Txn { demands, steps } => {
                held = demands.iter().all(|demand| self.is_as_demanded(demand));
                self.revision += u64::from(held && request.changes());
                for step in steps.iter().filter(|_| held) {
                    match step {
                        Step::Get(keys) => got.push(self.found(keys)),
                        Step::Put(key, value) => self.put(key, value),
                    }
                }
            }
            Request::Right(right) => panic!("this store has no leases and locks: {right:?}"),
        }
        Answer { revision: self.revision, held, got }
    }
}

#[tonic::async_trait]
impl Client for Memory {
    fn node(&self) -> Option<u64> {
        Some(1)
    }

    async fn call(&mut self, request: &Request, _deadline: Instant) -> Result<Answer, Failure> {
        let answer = self.carry_out(request);
        self.changes += u64::from(request.changes());
        match request.changes() && self.changes.is_multiple_of(self.lost_one_in) {
            true => Err(Failure::indefinite("the answer is lost")),
            false => Ok(answer),
        }
    }

    async fn watch(&mut self, watching: &Watching, _deadline: Instant) -> Result<Watched, Failure> {
        let from = if watching.from == 0 { self.revision + 1 } else { watching.from };
        let is_told = |told: &&Told| told.revision >= from && watching.keys.hold(&told.key);
        let events = self.happened.iter().filter(is_told).cloned().collect();
        Ok(Watched { from, to: self.revision, events, ..Watched::default() })
    }
}
