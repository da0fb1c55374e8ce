//! Why a node cannot go on: the first reason reported is the one that counts.

use crate::api::Failure;
use crate::rt::watch;

/// Where every part of a node reports that it has failed for good.
#[derive(Debug, Clone)]
pub(crate) struct Failures(watch::Sender<Option<Failure>>);

impl Failures {
    pub(crate) fn new() -> Failures {
        Failures(watch::Sender::new(None))
    }

    /// Reports a failure; later ones are consequences of the first and are only logged.
    pub(crate) fn report(&self, failure: Failure) {
        tracing::error!("the node fails: {failure}");
        self.0.send_if_modified(|first| {
            let is_first = first.is_none();
            if is_first {
                *first = Some(failure);
            }
            is_first
        });
    }

    /// The first failure, if there is one.
    pub(crate) fn first(&self) -> Option<Failure> {
        self.0.borrow().clone()
    }

    /// Waits for the first failure.
    pub(crate) async fn wait(&self) -> Failure {
        let mut failures = self.0.subscribe();
        let first = failures.wait_for(Option::is_some).await.expect("this handle keeps the channel open");
        first.clone().expect("waited for it")
    }
}
