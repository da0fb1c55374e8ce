//! A channel for the newest value, as tokio's `watch` and openraft's, whose receivers wake in the order in which they
//! began to wait: tokio's wake in a random order.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use openraft_rt::watch as openraft;
use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The channel's kind, for openraft.
pub struct Watch;

/// The channel is closed: nobody will send any more.
pub use openraft_rt::watch::RecvError;
/// Nobody receives any more.
pub use openraft_rt::watch::SendError;

struct Shared<T> {
    value: RwLock<T>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    version: u64,
    senders: usize,
    receivers: usize,
    /// Who waits for a change, by the order in which they began to.
    waiting: BTreeMap<u64, Waker>,
    waited: u64,
}

/// Sets the value. Clones set the same one.
pub struct Sender<T>(Arc<Shared<T>>);

/// Sees the value, and waits for the next.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    seen: u64,
}

/// A look at the value. Nothing can be sent while it lives.
pub struct Ref<'a, T>(RwLockReadGuard<'a, T>);

impl<T> Deref for Ref<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> Shared<T> {
    /// On one thread a lock that is taken will never be freed by waiting for it.
    fn look(&self) -> Ref<'_, T> {
        Ref(self.value.try_read().expect("a value is looked at only while nobody changes it"))
    }

    fn change(&self) -> RwLockWriteGuard<'_, T> {
        self.value.try_write().expect("a value is changed only while nobody looks at it")
    }

    fn tell(&self) {
        let mut state = self.state.lock();
        state.version += 1;
        Self::wake(state);
    }

    fn wake(mut state: parking_lot::MutexGuard<'_, State>) {
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        for waker in waiting.into_values() {
            waker.wake();
        }
    }

    fn receiver(self: &Arc<Self>, seen: u64) -> Receiver<T> {
        self.state.lock().receivers += 1;
        Receiver { shared: self.clone(), seen }
    }
}

/// A channel with its first value, which counts as seen.
pub fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
    let sender = Sender::new(value);
    let receiver = sender.subscribe();
    (sender, receiver)
}

impl<T> Sender<T> {
    /// A channel with its first value and no receiver yet.
    pub fn new(value: T) -> Sender<T> {
        let state = State { senders: 1, ..State::default() };
        Sender(Arc::new(Shared { value: RwLock::new(value), state: Mutex::new(state) }))
    }

    /// A receiver that has seen the present value.
    pub fn subscribe(&self) -> Receiver<T> {
        let seen = self.0.state.lock().version;
        self.0.receiver(seen)
    }

    /// The present value.
    pub fn borrow(&self) -> Ref<'_, T> {
        self.0.look()
    }

    /// Sets the value and returns the one before.
    pub fn send_replace(&self, value: T) -> T {
        let before = std::mem::replace(&mut *self.0.change(), value);
        self.0.tell();
        before
    }

    /// Changes the value; receivers are told if `modify` says that it did.
    pub fn send_if_modified(&self, modify: impl FnOnce(&mut T) -> bool) -> bool {
        let modified = modify(&mut *self.0.change());
        if modified {
            self.0.tell();
        }
        modified
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.state.lock().senders += 1;
        Sender(self.0.clone())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.senders -= 1;
        if state.senders == 0 {
            Shared::<T>::wake(state);
        }
    }
}

impl<T> Receiver<T> {
    /// The present value; whether it counts as seen does not change.
    pub fn borrow(&self) -> Ref<'_, T> {
        self.shared.look()
    }

    /// The present value, which now counts as seen.
    pub fn borrow_and_update(&mut self) -> Ref<'_, T> {
        self.mark_unchanged();
        self.shared.look()
    }

    /// The present value counts as seen.
    pub fn mark_unchanged(&mut self) {
        self.seen = self.shared.state.lock().version;
    }

    /// Waits for a value that was not seen, which then counts as seen.
    ///
    /// # Errors
    /// When all senders are gone.
    pub async fn changed(&mut self) -> Result<(), RecvError> {
        Changed { receiver: self, place: None }.await
    }

    /// Waits for a value that fits, the present one included.
    ///
    /// # Errors
    /// When all senders are gone.
    pub async fn wait_for(&mut self, mut fits: impl FnMut(&T) -> bool) -> Result<Ref<'_, T>, RecvError> {
        loop {
            self.mark_unchanged();
            if fits(&self.shared.look()) {
                return Ok(self.shared.look());
            }
            self.changed().await?;
        }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        self.shared.receiver(self.seen)
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.shared.state.lock().receivers -= 1;
    }
}

struct Changed<'a, T> {
    receiver: &'a mut Receiver<T>,
    place: Option<u64>,
}

impl<T> Future for Changed<'_, T> {
    type Output = Result<(), RecvError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mut state = this.receiver.shared.state.lock();
        if state.version != this.receiver.seen {
            this.receiver.seen = state.version;
            return Poll::Ready(Ok(()));
        }
        if state.senders == 0 {
            return Poll::Ready(Err(openraft::RecvError(())));
        }
        state.waited += 1;
        let next = state.waited;
        state.waiting.insert(*this.place.get_or_insert(next), context.waker().clone());
        Poll::Pending
    }
}

impl<T> Drop for Changed<'_, T> {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.receiver.shared.state.lock().waiting.remove(&place);
        }
    }
}

impl openraft::Watch for Watch {
    type Sender<T: Send + Sync> = Sender<T>;
    type Receiver<T: Send + Sync> = Receiver<T>;
    type Ref<'a, T: Send + 'a> = Ref<'a, T>;

    fn channel<T: Send + Sync>(value: T) -> (Sender<T>, Receiver<T>) {
        channel(value)
    }
}

impl<T: Send + Sync> openraft::WatchSender<Watch, T> for Sender<T> {
    fn send(&self, value: T) -> Result<(), SendError<T>> {
        if self.0.state.lock().receivers == 0 {
            return Err(openraft::SendError(value));
        }
        drop(self.send_replace(value));
        Ok(())
    }

    fn send_if_modified<F: FnOnce(&mut T) -> bool>(&self, modify: F) -> bool {
        Sender::send_if_modified(self, modify)
    }

    fn borrow_watched(&self) -> Ref<'_, T> {
        self.borrow()
    }

    fn subscribe(&self) -> Receiver<T> {
        Sender::subscribe(self)
    }
}

impl<T: Send + Sync> openraft::WatchReceiver<Watch, T> for Receiver<T> {
    async fn changed(&mut self) -> Result<(), RecvError> {
        Receiver::changed(self).await
    }

    fn borrow_watched(&self) -> Ref<'_, T> {
        self.borrow()
    }

    fn borrow_and_update(&mut self) -> Ref<'_, T> {
        Receiver::borrow_and_update(self)
    }
}

impl<T: fmt::Debug> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sender").field(&self.0.value).finish()
    }
}

impl<T: fmt::Debug> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("value", &self.shared.value).field("seen", &self.seen).finish()
    }
}
