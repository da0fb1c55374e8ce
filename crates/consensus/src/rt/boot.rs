//! The production runtime: tokio, with `CLOCK_BOOTTIME` as its clock.
//!
//! A leader lease is only as good as its clock. tokio's own clock stands still while a machine is suspended, so a
//! leader that slept would believe its lease to be younger than it is (reference: openraft, section 3.2).

// This is where the runtime is made of what the rest of the crate may not touch.
#![allow(clippy::disallowed_methods)]

use std::future::Future;
use std::io;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use openraft_rt::AsyncRuntime;
use openraft_rt_tokio::TokioRuntime;

/// A moment on `CLOCK_BOOTTIME`, in nanoseconds since the machine booted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BootInstant(u64);

/// tokio with another clock.
#[derive(Debug)]
pub struct BootRuntime(TokioRuntime);

impl BootInstant {
    /// Nanoseconds since the machine booted.
    #[must_use]
    pub fn nanoseconds(self) -> u64 {
        self.0
    }

    /// The moment that many nanoseconds after the machine booted.
    #[must_use]
    pub fn from_nanoseconds(nanoseconds: u64) -> BootInstant {
        BootInstant(nanoseconds)
    }
}

impl openraft_rt::Instant for BootInstant {
    fn now() -> Self {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the pointer is to a live timespec, and the call writes nothing else.
        let result = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut time) };
        assert_eq!(result, 0, "CLOCK_BOOTTIME is part of every Linux since 2.6.39");
        BootInstant(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
    }
}

impl Add<Duration> for BootInstant {
    type Output = Self;
    fn add(self, duration: Duration) -> Self {
        BootInstant(self.0.saturating_add(duration.as_nanos() as u64))
    }
}

impl AddAssign<Duration> for BootInstant {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub<Duration> for BootInstant {
    type Output = Self;
    fn sub(self, duration: Duration) -> Self {
        BootInstant(self.0.saturating_sub(duration.as_nanos() as u64))
    }
}

impl SubAssign<Duration> for BootInstant {
    fn sub_assign(&mut self, duration: Duration) {
        *self = *self - duration;
    }
}

impl Sub for BootInstant {
    type Output = Duration;
    fn sub(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl BootRuntime {
    /// See [`super::spawn_worker`].
    pub(super) fn spawn_worker<F>(name: &str, future: F) -> io::Result<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        std::thread::Builder::new().name(name.to_owned()).spawn(move || park_on(future)).map(drop)
    }

    /// See [`super::sync_pause`].
    pub(super) async fn sync_pause() {}

    /// See [`super::random_u64`].
    pub(super) fn random_u64() -> u64 {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).expect("the kernel's random numbers never fail once it has booted");
        u64::from_le_bytes(bytes)
    }

    fn time_left(deadline: BootInstant) -> Duration {
        deadline - <BootInstant as openraft_rt::Instant>::now()
    }
}

/// Runs a future to its end on this thread, which sleeps while the future waits.
fn park_on<F: Future<Output = ()>>(future: F) {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(std::sync::Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    while future.as_mut().poll(&mut context).is_pending() {
        std::thread::park();
    }
}

impl AsyncRuntime for BootRuntime {
    type JoinError = <TokioRuntime as AsyncRuntime>::JoinError;
    type JoinHandle<T: Send + 'static> = <TokioRuntime as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <TokioRuntime as AsyncRuntime>::Sleep;
    type Instant = BootInstant;
    type TimeoutError = <TokioRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + Send> = <TokioRuntime as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = <TokioRuntime as AsyncRuntime>::ThreadLocalRng;
    type Mpsc = <TokioRuntime as AsyncRuntime>::Mpsc;
    type Watch = <TokioRuntime as AsyncRuntime>::Watch;
    type Oneshot = <TokioRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: Send + 'static> = <TokioRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + Send + 'static,
        T::Output: Send + 'static,
    {
        TokioRuntime::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        TokioRuntime::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        TokioRuntime::sleep(Self::time_left(deadline))
    }

    fn timeout<R, F: Future<Output = R> + Send>(duration: Duration, future: F) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + Send>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(Self::time_left(deadline), future)
    }

    fn is_panic(error: &Self::JoinError) -> bool {
        TokioRuntime::is_panic(error)
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        TokioRuntime::thread_rng()
    }

    fn spawn_blocking<F, T>(call: F) -> impl Future<Output = io::Result<T>> + Send
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let task = tokio::task::spawn_blocking(call);
        async move { task.await.map_err(io::Error::other) }
    }

    fn new(threads: usize) -> Self {
        BootRuntime(TokioRuntime::new(threads))
    }

    fn block_on<F: Future<Output = T>, T>(&mut self, future: F) -> T {
        self.0.block_on(future)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_the_runtime_suite_of_openraft() {
        openraft_rt::testing::Suite::<BootRuntime>::test_all();
    }

    #[test]
    fn a_worker_runs_to_its_end_on_its_own_thread() {
        let (send, receive) = std::sync::mpsc::channel();
        let (wake, woken) = tokio::sync::oneshot::channel::<u32>();
        BootRuntime::spawn_worker("worker", async move {
            let value = woken.await.expect("the sender is alive");
            let name = std::thread::current().name().map(str::to_owned);
            send.send((value, name)).expect("the test waits");
        })
        .expect("a thread");
        wake.send(7).expect("the worker waits");
        assert_eq!(receive.recv().expect("an answer"), (7, Some("worker".to_owned())));
    }
}
