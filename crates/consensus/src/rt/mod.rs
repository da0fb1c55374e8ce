//! The runtime: tasks, time, randomness and channels. Everything in Ringfence but the gRPC layer and the binary uses
//! these and nothing else of an executor, so that a simulator takes over by replacing one alias, [`Runtime`].
//!
//! Channels are tokio's (`mpsc`, `oneshot`, `Notify`): they need no executor and draw no random numbers. Its `watch` does
//! draw some, so that it has a place here, [`watch`].

#[cfg(not(feature = "simulation"))]
mod boot;
#[cfg(any(test, feature = "simulation"))]
pub mod simulated;

use std::future::Future;
use std::time::Duration;

use openraft_rt::AsyncRuntime;
#[cfg(feature = "simulation")]
pub use simulated::watch;
#[cfg(not(feature = "simulation"))]
pub use tokio::sync::watch;

/// The executor in use.
#[cfg(not(feature = "simulation"))]
pub type Runtime = boot::BootRuntime;
/// The executor in use.
#[cfg(feature = "simulation")]
pub type Runtime = simulated::SimRuntime;

/// A moment on the runtime's clock: in production `CLOCK_BOOTTIME`, which goes on while the machine is suspended.
pub type Instant = <Runtime as AsyncRuntime>::Instant;

/// A running task.
pub type JoinHandle<T> = <Runtime as AsyncRuntime>::JoinHandle<T>;

/// The present moment.
#[must_use]
pub fn now() -> Instant {
    <Instant as openraft_rt::Instant>::now()
}

/// The time since `earlier`, zero if it lies ahead.
#[must_use]
pub fn since(earlier: Instant) -> Duration {
    openraft_rt::Instant::elapsed(&earlier)
}

/// Starts a task.
pub fn spawn<T>(future: T) -> JoinHandle<T::Output>
where
    T: Future + Send + 'static,
    T::Output: Send + 'static,
{
    Runtime::spawn(future)
}

/// Runs a worker that blocks: on a thread of its own in production, as a task in simulation. The future may block
/// between its awaits, and waits only on channels.
///
/// # Errors
/// As the system's, when no thread can be made.
pub fn spawn_worker<F>(name: &str, future: F) -> std::io::Result<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    Runtime::spawn_worker(name, future)
}

/// Waits for a time.
pub async fn sleep(duration: Duration) {
    Runtime::sleep(duration).await;
}

/// Waits until a moment.
pub async fn sleep_until(deadline: Instant) {
    Runtime::sleep_until(deadline).await;
}

/// Gives a future until `deadline`; `None` when it took longer.
pub async fn timeout_at<F: Future + Send>(deadline: Instant, future: F) -> Option<F::Output> {
    Runtime::timeout_at(deadline, future).await.ok()
}

/// Gives a future `duration`; `None` when it took longer.
pub async fn timeout<F: Future + Send>(duration: Duration, future: F) -> Option<F::Output> {
    Runtime::timeout(duration, future).await.ok()
}

/// Runs a blocking call off the executor's threads.
///
/// # Errors
/// When the call panicked or the executor is gone.
pub async fn blocking<F, T>(call: F) -> std::io::Result<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    Runtime::spawn_blocking(call).await
}

/// In a simulation, lets the time of a sync pass; in production a sync takes its time by itself.
pub async fn sync_pause() {
    Runtime::sync_pause().await;
}

/// Sixty-four random bits for identities and nonces, never for anything that is replicated without being written down.
#[must_use]
pub fn random_u64() -> u64 {
    Runtime::random_u64()
}
