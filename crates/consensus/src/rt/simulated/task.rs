//! Tasks: their wakers, and the handles that wait for their end.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use parking_lot::Mutex;

/// Numbers tasks in the order in which they were spawned; never used twice.
pub(super) type TaskId = u64;

/// Which tasks want to go on. Wakers must be shareable between threads by their type; one thread alone uses them.
#[derive(Debug, Default)]
pub(super) struct Ready(Mutex<Vec<TaskId>>);

impl Ready {
    pub(super) fn push(&self, id: TaskId) {
        self.0.lock().push(id);
    }

    /// Takes one of them: the one at the place that `draw` says, given their number.
    pub(super) fn take(&self, draw: impl FnOnce(usize) -> usize) -> Option<TaskId> {
        let mut ready = self.0.lock();
        let count = ready.len();
        (count > 0).then(|| ready.swap_remove(if count == 1 { 0 } else { draw(count) }))
    }
}

/// Wakes one task; a task that is ready already is not made so twice.
#[derive(Debug)]
pub(super) struct TaskWaker {
    id: TaskId,
    queued: AtomicBool,
    ready: Arc<Ready>,
}

impl TaskWaker {
    pub(super) fn new(id: TaskId, ready: Arc<Ready>) -> Arc<TaskWaker> {
        Arc::new(TaskWaker { id, queued: AtomicBool::new(false), ready })
    }

    /// The task is about to be polled: the next wake counts again.
    pub(super) fn taken(&self) {
        self.queued.store(false, Ordering::Relaxed);
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            self.ready.push(self.id);
        }
    }
}

/// Why a task gave no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinError {
    /// Its host crashed, or the simulation ended.
    Dropped,
    /// It panicked.
    Panicked,
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            JoinError::Dropped => "the task was dropped",
            JoinError::Panicked => "the task panicked",
        })
    }
}

impl std::error::Error for JoinError {}

struct Join<T> {
    ended: Option<Result<T, JoinError>>,
    waiting: Option<Waker>,
}

/// Waits for a task's end. Dropping it lets the task go on.
pub struct JoinHandle<T>(Arc<Mutex<Join<T>>>);

/// The task's side: whatever becomes of the task, the handle is told.
struct Teller<T>(Arc<Mutex<Join<T>>>);

impl<T> Teller<T> {
    fn tell(&self, ended: Result<T, JoinError>) {
        let waiting = {
            let mut join = self.0.lock();
            join.ended.get_or_insert(ended);
            join.waiting.take()
        };
        if let Some(waiting) = waiting {
            waiting.wake();
        }
    }
}

impl<T> Drop for Teller<T> {
    fn drop(&mut self) {
        // Says nothing more where the result was told just before.
        self.tell(Err(if std::thread::panicking() { JoinError::Panicked } else { JoinError::Dropped }));
    }
}

/// A future as a task, and the handle to its result.
pub(super) fn split<T, F>(future: F) -> (Pin<Box<dyn Future<Output = ()> + Send>>, JoinHandle<T>)
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let join = Arc::new(Mutex::new(Join { ended: None, waiting: None }));
    let teller = Teller(join.clone());
    let task = Box::pin(async move {
        let value = future.await;
        teller.tell(Ok(value));
    });
    (task, JoinHandle(join))
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut join = self.0.lock();
        match join.ended.take() {
            Some(ended) => Poll::Ready(ended),
            None => {
                join.waiting = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}
