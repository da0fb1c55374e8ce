//! The simulated runtime: one thread, virtual time, and every choice drawn from a seed.
//!
//! A simulation runs whole clusters as tasks of one thread. Each task belongs to the [`Host`] that spawned it: a host has
//! a clock with a rate of its own, can be suspended, and dies between two awaits with all its tasks ([`crash`]). Which of
//! the ready tasks goes on is drawn; time passes only when none is ready, and by a little with each step. Nothing here, and
//! nothing that runs on it, may depend on the real clock, on threads, on addresses in memory, or on an unordered map:
//! then the same seed gives the same steps, and [`Finished::trace`] proves it.
//!
//! Reading order: [`run`] and the controls in `executor`, then `clock`, `task`, `sleep`, [`watch`] and `trace`.

mod clock;
mod executor;
mod sleep;
mod task;
mod trace;
pub mod watch;

use std::future::Future;
use std::io;
use std::time::Duration;

pub use clock::{Host, SimInstant};
pub use executor::{
    Finished, Panic, crash, enter, host, note, observe, poll_count, random_below, resume, run, set_pauses,
    set_rate, spawn_on, suspend, true_time, yield_now,
};
use openraft_rt::AsyncRuntime;
use openraft_rt_tokio::TokioRuntime;
use rand::SeedableRng;
use rand::rngs::SmallRng;
pub use sleep::{Elapsed, Sleep, Timeout};
pub use task::{JoinError, JoinHandle};
pub use trace::Journal;

/// The executor of a simulation, as openraft takes it.
#[derive(Debug)]
pub struct SimRuntime(());

/// The time that a host's disk takes, drawn anew for each wait between the two bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pauses {
    /// For a sync of the log.
    pub sync: (Duration, Duration),
    /// For a call that is made off the executor's threads: a checkpoint, a chunk of a snapshot.
    pub blocking: (Duration, Duration),
}

impl Pauses {
    /// A good disk.
    pub const QUICK: Pauses = Pauses {
        sync: (Duration::from_micros(50), Duration::from_micros(600)),
        blocking: (Duration::from_micros(20), Duration::from_micros(2_000)),
    };
}

impl SimRuntime {
    /// See [`super::spawn_worker`].
    pub(super) fn spawn_worker<F>(_name: &str, future: F) -> io::Result<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        drop(spawn_on(host(), future));
        Ok(())
    }

    /// See [`super::random_u64`].
    pub(super) fn random_u64() -> u64 {
        executor::random_u64()
    }

    /// See [`super::sync_pause`].
    pub(super) async fn sync_pause() {
        Self::sleep(executor::draw_pause(|pauses| pauses.sync)).await;
    }
}

impl AsyncRuntime for SimRuntime {
    type JoinError = JoinError;
    type JoinHandle<T: Send + 'static> = JoinHandle<T>;
    type Sleep = Sleep;
    type Instant = SimInstant;
    type TimeoutError = Elapsed;
    type Timeout<R, T: Future<Output = R> + Send> = Timeout<T>;
    type ThreadLocalRng = SmallRng;
    // Channels that need no executor and draw no random numbers are tokio's; its watch wakes in a random order.
    type Mpsc = <TokioRuntime as AsyncRuntime>::Mpsc;
    type Watch = watch::Watch;
    type Oneshot = <TokioRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: Send + 'static> = <TokioRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> JoinHandle<T::Output>
    where
        T: Future + Send + 'static,
        T::Output: Send + 'static,
    {
        spawn_on(host(), future)
    }

    fn sleep(duration: Duration) -> Sleep {
        Sleep::until(<SimInstant as openraft_rt::Instant>::now() + duration)
    }

    fn sleep_until(deadline: SimInstant) -> Sleep {
        Sleep::until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + Send>(duration: Duration, future: F) -> Timeout<F> {
        Timeout::new(Self::sleep(duration), future)
    }

    fn timeout_at<R, F: Future<Output = R> + Send>(deadline: SimInstant, future: F) -> Timeout<F> {
        Timeout::new(Sleep::until(deadline), future)
    }

    fn is_panic(error: &JoinError) -> bool {
        matches!(error, JoinError::Panicked)
    }

    fn thread_rng() -> SmallRng {
        SmallRng::seed_from_u64(executor::random_u64())
    }

    /// The call is made by a task of its own, a while later: a crash can come before it, and never in its middle.
    fn spawn_blocking<F, T>(call: F) -> impl Future<Output = io::Result<T>> + Send
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let task = Self::spawn(async move {
            Self::sleep(executor::draw_pause(|pauses| pauses.blocking)).await;
            call()
        });
        async move { task.await.map_err(io::Error::other) }
    }

    fn new(_threads: usize) -> Self {
        SimRuntime(())
    }

    /// Each call is a simulation of its own.
    fn block_on<F: Future<Output = T>, T>(&mut self, future: F) -> T {
        run(0, None, future).value
    }
}

#[cfg(test)]
mod tests;
