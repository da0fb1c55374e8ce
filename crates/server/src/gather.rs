//! Letting a connection's task run after all that is ready to run, so that it finds many answers at once.
//!
//! The writes of one batch are answered together: many calls become ready at the same moment. tokio runs the task that was
//! woken last before all others, and each call that ends wakes its connection; so the connection would run after each
//! single call, and write each single answer to the socket. Measured: 0.7 system calls for each answer, at 64 clients on 4
//! connections.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A task that goes to the end of the queue each time it is woken, and does its work when its turn comes.
#[derive(Debug)]
pub(crate) struct Gather<F> {
    inner: Pin<Box<F>>,
    has_waited: bool,
}

impl<F> Gather<F> {
    pub(crate) fn new(inner: F) -> Gather<F> {
        Gather { inner: Box::pin(inner), has_waited: false }
    }
}

impl<F: Future> Future for Gather<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        if !self.has_waited {
            self.has_waited = true;
            // A task that wakes itself while it runs is put behind those that are ready.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.has_waited = false;
        self.inner.as_mut().poll(context)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn runs_once_after_all_that_were_ready() {
        let (trace, answered) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Notify::new()));
        let (seen, woken) = (trace.clone(), answered.clone());
        let connection = tokio::spawn(Gather::new(async move {
            woken.notified().await;
            seen.lock().expect("no holder panics").push("connection");
        }));
        // The connection waits before any call ends.
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
        let calls: Vec<_> = (0..3)
            .map(|_| {
                let (trace, answered) = (trace.clone(), answered.clone());
                tokio::spawn(async move {
                    trace.lock().expect("no holder panics").push("call");
                    answered.notify_one();
                })
            })
            .collect();
        for call in calls {
            call.await.expect("no call panics");
        }
        connection.await.expect("the connection ends");
        assert_eq!(*trace.lock().expect("no holder panics"), ["call", "call", "call", "connection"]);
    }
}
