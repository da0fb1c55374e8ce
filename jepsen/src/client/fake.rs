//! A client for tests, which answers from a script and remembers what it was asked.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::time::Instant;

use super::{Answer, Client, Failure, Request};

/// The script. Clones share it.
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
