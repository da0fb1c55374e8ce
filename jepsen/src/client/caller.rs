//! What a process of the load holds: a client, held to a deadline, with the rules that are the same for every kind.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::{Answer, Applied, Client, Failure, Request, Watched, Watching};

/// How much longer than its deadline a client may take to give up by itself.
const GRACE: Duration = Duration::from_millis(500);

/// A client with the rules.
pub struct Caller {
    client: Box<dyn Client>,
    retry_indefinite: bool,
    timeout: Duration,
    deadline: Instant,
}

impl Caller {
    /// A caller whose operations, with all of their requests, must each end within `timeout`.
    ///
    /// With `retry_indefinite`, the canary, an indefinite change is sent again, and the second answer is told as the only one.
    #[must_use]
    pub fn new(client: Box<dyn Client>, timeout: Duration, retry_indefinite: bool) -> Caller {
        Caller { client, retry_indefinite, timeout, deadline: Instant::now() + timeout }
    }

    /// The number of the node that the next request goes to; none where that is not known.
    #[must_use]
    pub fn node(&self) -> Option<u64> {
        self.client.node()
    }

    /// Begins an operation: its time runs from now.
    pub fn begin(&mut self) {
        self.deadline = Instant::now() + self.timeout;
    }

    /// Makes one request of the operation.
    ///
    /// # Errors
    /// A [`Failure`]; of a request that changes nothing it is always definite.
    pub async fn call(&mut self, request: &Request) -> Result<Answer, Failure> {
        match self.attempt(request).await {
            Err(failure) if self.retry_indefinite && failure.applied == Applied::Unknown => {
                self.begin();
                self.attempt(request).await
            }
            answer => answer,
        }
    }

    /// Watches, as the operation's only request.
    ///
    /// # Errors
    /// A [`Failure`], which is always definite.
    pub async fn watch(&mut self, watching: &Watching) -> Result<Watched, Failure> {
        let watch = self.client.watch(watching, self.deadline);
        match timeout_at(self.deadline + GRACE, watch).await {
            Ok(result) => result.map_err(|failure| Failure { applied: Applied::No, ..failure }),
            Err(_elapsed) => Err(Failure::definite("given up after the deadline")),
        }
    }

    async fn attempt(&mut self, request: &Request) -> Result<Answer, Failure> {
        let call = self.client.call(request, self.deadline);
        let result = match timeout_at(self.deadline + GRACE, call).await {
            Ok(result) => result,
            Err(_elapsed) => Err(Failure::indefinite("given up after the deadline")),
        };
        result.map_err(|failure| match request.changes() {
            true => failure,
            false => Failure { applied: Applied::No, ..failure },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::fake::Script;
    use crate::client::{Freshness, Keys};

    fn put() -> Request {
        Request::Put("a".to_owned(), "1".to_owned())
    }

    fn caller(script: &Script, retry_indefinite: bool) -> Caller {
        Caller::new(Box::new(script.clone()), Duration::from_secs(1), retry_indefinite)
    }

    #[tokio::test]
    async fn a_request_that_changes_nothing_is_never_indefinite() {
        let script = Script::new([Err(Failure::indefinite("lost")), Err(Failure::indefinite("lost"))]);
        let mut caller = caller(&script, false);
        let get = Request::Get(Keys::One("a".to_owned()), Freshness::Any);
        assert_eq!(caller.call(&get).await, Err(Failure::definite("lost")));
        assert_eq!(caller.call(&put()).await, Err(Failure::indefinite("lost")));
    }

    #[tokio::test]
    async fn only_the_canary_sends_an_indefinite_change_again() {
        for (retry_indefinite, sent) in [(false, 1), (true, 2)] {
            let script = Script::new([Err(Failure::indefinite("lost")), Ok(Answer::default())]);
            let result = caller(&script, retry_indefinite).call(&put()).await;
            assert_eq!((result.is_ok(), script.requests().len()), (retry_indefinite, sent));
            let script = Script::new([Err(Failure::definite("refused")), Ok(Answer::default())]);
            let result = caller(&script, retry_indefinite).call(&put()).await;
            assert_eq!((result.is_ok(), script.requests().len()), (false, 1));
        }
    }

    #[tokio::test]
    async fn a_client_that_hangs_is_given_up() {
        let mut caller = Caller::new(Box::new(Script::hanging()), Duration::ZERO, false);
        let answer = caller.call(&put()).await;
        assert_eq!(answer.map_err(|failure| failure.applied), Err(Applied::Unknown));
    }
}
