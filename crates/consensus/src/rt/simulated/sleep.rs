//! Waiting for a moment on a host's clock.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::clock::{Host, SimInstant};
use super::executor::{self, TimerKey};

/// Ends once the clock of the host that made it shows its deadline.
#[derive(Debug)]
pub struct Sleep {
    deadline: SimInstant,
    host: Host,
    timer: Option<TimerKey>,
}

impl Sleep {
    pub(super) fn until(deadline: SimInstant) -> Sleep {
        Sleep { deadline, host: executor::host(), timer: None }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let previous = self.timer.take();
        // Set anew each time: the task may be another one, and the clock may go at another rate.
        self.timer = executor::set_timer(previous, self.host, self.deadline, context.waker());
        if self.timer.is_some() { Poll::Pending } else { Poll::Ready(()) }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(timer) = self.timer {
            executor::clear_timer(timer);
        }
    }
}

/// Gives a future until a deadline.
#[derive(Debug)]
pub struct Timeout<F> {
    sleep: Sleep,
    future: Pin<Box<F>>,
}

/// The future took too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elapsed;

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the deadline has passed")
    }
}

impl std::error::Error for Elapsed {}

impl<F> Timeout<F> {
    pub(super) fn new(sleep: Sleep, future: F) -> Timeout<F> {
        Timeout { sleep, future: Box::pin(future) }
    }
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(value) = self.future.as_mut().poll(context) {
            return Poll::Ready(Ok(value));
        }
        Pin::new(&mut self.sleep).poll(context).map(|()| Err(Elapsed))
    }
}
