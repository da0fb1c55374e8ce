//! Who stands first in each queue that somebody waits in or observes: one task looks for all of them.
//!
//! When the applied state has moved, and at most every few milliseconds, the task looks once at each name, however many calls
//! wait for it: whether the key that stood first still does. A queue is read whole only when that key is gone. The call whose
//! key stands first then is woken, and no other; it judges by itself whether it has the lock. Observers of a name share one
//! channel with the newest front.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use parking_lot::Mutex;
use ringfence_consensus::rt;
use ringfence_store::{ReadError, View};
use ringfence_types::Revision;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use crate::limits::{HOLDER_LOOK_INTERVAL, LOCK_CALLS_MAX, LOCK_REMOVALS_MAX};
use crate::queue;
use crate::served::Served;
use crate::status::Trouble;

/// Names that are looked at before other tasks have their turn.
const NAMES_AT_ONCE_MAX: usize = 256;
/// A round of looks is followed by a pause of this many times what it took, so that it never takes a tenth of a thread.
const PAUSE_FACTOR: u32 = 9;

/// The key that stands first in a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Front {
    /// The key.
    pub(crate) key: Bytes,
    /// Its create revision; of the fronts of one queue it only grows.
    pub(crate) created: Revision,
    /// The revision of its last change.
    pub(crate) modified: Revision,
}

/// A cheap handle on the queues that are looked at.
#[derive(Clone)]
pub(crate) struct Holders(Arc<Shared>);

struct Shared {
    names: Mutex<HashMap<Bytes, Name>>,
    /// Wakes the task when a name has come.
    arrived: Notify,
    calls: Arc<Semaphore>,
    removals: Semaphore,
    tasks: TaskTracker,
}

/// One name, while anybody is interested in it.
struct Name {
    /// What was seen last; none until somebody has looked.
    front: Option<Option<Front>>,
    /// The calls that wait, by the create revisions of their keys: those of one session share a key.
    waiters: BTreeMap<Revision, Vec<Arc<Notify>>>,
    observers: watch::Sender<Option<Front>>,
    /// Calls that wait or observe.
    interested: usize,
}

/// A call's place: as long as it lives, the name is looked at.
pub(crate) struct Place {
    shared: Arc<Shared>,
    name: Bytes,
    interest: Interest,
}

enum Interest {
    Waits { created: Revision, called: Arc<Notify> },
    Observes(watch::Receiver<Option<Front>>),
}

/// What a look at the key that stood first has shown.
enum Look {
    Same,
    /// The same key, put again.
    Changed(Front),
    /// The queue has another front, or has one now.
    Moved,
}

impl Holders {
    /// A handle, with its task that runs until the server stops.
    pub(crate) fn start(served: &Served) -> Holders {
        let holders = Holders(Arc::new(Shared {
            names: Mutex::default(),
            arrived: Notify::new(),
            calls: Arc::new(Semaphore::new(LOCK_CALLS_MAX)),
            removals: Semaphore::new(LOCK_REMOVALS_MAX),
            tasks: TaskTracker::new(),
        }));
        holders.0.tasks.spawn(holders.clone().run(served.clone()));
        holders
    }

    /// The permission to wait or to observe, to be kept for as long as anything of the call is left.
    pub(crate) fn admit(&self) -> Result<OwnedSemaphorePermit, Trouble> {
        Arc::clone(&self.0.calls)
            .try_acquire_owned()
            .map_err(|_| Trouble::Busy("as many calls wait for locks and elections as may"))
    }

    /// The turn to remove the key of a call that has ended.
    pub(crate) async fn removal(&self) -> Option<tokio::sync::SemaphorePermit<'_>> {
        self.0.removals.acquire().await.ok()
    }

    /// Runs what must come to its end although the call it belongs to does not. Each such task holds the permission of its
    /// call, so that there are no more of them than calls may be.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.0.tasks.spawn(task)
    }

    /// A place for a call whose key in the queue of `name` was created at `created`.
    pub(crate) fn wait(&self, name: Bytes, created: Revision) -> Place {
        let called = Arc::new(Notify::new());
        self.enter(&name, |entry| entry.waiters.entry(created).or_default().push(Arc::clone(&called)));
        Place { shared: Arc::clone(&self.0), name, interest: Interest::Waits { created, called } }
    }

    /// A place for a call that observes the queue of `name`.
    pub(crate) fn observe(&self, name: Bytes) -> Place {
        let fronts = self.enter(&name, |entry| entry.observers.subscribe());
        Place { shared: Arc::clone(&self.0), name, interest: Interest::Observes(fronts) }
    }

    fn enter<T>(&self, name: &Bytes, enter: impl FnOnce(&mut Name) -> T) -> T {
        let entered = {
            let mut names = self.0.names.lock();
            let entry = names.entry(name.clone()).or_insert_with(|| Name {
                front: None,
                waiters: BTreeMap::new(),
                observers: watch::Sender::new(None),
                interested: 0,
            });
            entry.interested += 1;
            enter(entry)
        };
        self.0.arrived.notify_one();
        entered
    }

    async fn run(self, served: Served) {
        let mut applied = served.node.applied_changes();
        let looking = async {
            let mut seen = None;
            loop {
                let started = rt::now();
                seen = self.look(&served, seen).await;
                rt::sleep(HOLDER_LOOK_INTERVAL.max(rt::since(started) * PAUSE_FACTOR)).await;
                if self.0.names.lock().is_empty() {
                    self.0.arrived.notified().await;
                    continue;
                }
                tokio::select! {
                    () = self.0.arrived.notified() => {}
                    moved = applied.changed() => if moved.is_err() { return },
                }
            }
        };
        tokio::select! {
            () = served.shutdown.cancelled() => {}
            () = looking => {}
        }
    }

    /// Looks at each name once. Returns the revision looked at: names that were seen at it need no other look.
    async fn look(&self, served: &Served, seen: Option<Revision>) -> Option<Revision> {
        let Ok(view) = served.node.believed_view() else { return seen };
        let revision = view.revision();
        let known: Vec<(Bytes, Option<Option<Front>>)> = {
            let names = self.0.names.lock();
            let due = names.iter().filter(|(_, name)| name.front.is_none() || seen != Some(revision));
            due.map(|(name, entry)| (name.clone(), entry.front.clone())).collect()
        };
        let mut moved = Vec::new();
        for (at, (name, front)) in known.into_iter().enumerate() {
            if at % NAMES_AT_ONCE_MAX == NAMES_AT_ONCE_MAX - 1 {
                tokio::task::yield_now().await;
            }
            match look_at(&view, &name, front.as_ref()) {
                Ok(Look::Same) => {}
                Ok(Look::Changed(front)) => self.show(&name, Some(front)),
                Ok(Look::Moved) => moved.push(name),
                Err(error) => drop(served.status(&error.into())),
            }
        }
        drop(view);
        let read = moved.into_iter().map(|name| async {
            let wanted = name.clone();
            (name, served.read_long(move |view| queue::oldest(view, &wanted)).await)
        });
        for (name, oldest) in join_all(read).await {
            match oldest {
                Ok(oldest) => self.show(&name, oldest.map(Front::from)),
                Err(trouble) => drop(served.status(&trouble)),
            }
        }
        Some(revision)
    }

    /// Lets those know whom a front concerns.
    fn show(&self, name: &Bytes, front: Option<Front>) {
        let mut names = self.0.names.lock();
        let Some(entry) = names.get_mut(name) else { return };
        if let Some(front) = &front {
            let called = entry.waiters.get(&front.created).into_iter().flatten();
            called.for_each(|waiter| waiter.notify_one());
        }
        entry.observers.send_if_modified(|shown| {
            let is_new = *shown != front;
            shown.clone_from(&front);
            is_new
        });
        entry.front = Some(front);
    }
}

/// Whether the key that stood first still does.
fn look_at(view: &View, name: &Bytes, front: Option<&Option<Front>>) -> Result<Look, ReadError> {
    match front {
        None => Ok(Look::Moved),
        Some(None) => {
            let any = view.scan(&queue::keys_of(name), None, None, true, 1, usize::MAX)?;
            Ok(if any.kvs.is_empty() { Look::Same } else { Look::Moved })
        }
        Some(Some(front)) => Ok(match queue::get(view, &front.key)? {
            Some(now) if now.create_revision != front.created => Look::Moved,
            Some(now) if now.mod_revision != front.modified => Look::Changed(now.into()),
            Some(_) => Look::Same,
            None => Look::Moved,
        }),
    }
}

impl From<ringfence_types::KeyValue> for Front {
    fn from(kv: ringfence_types::KeyValue) -> Front {
        Front { key: kv.key, created: kv.create_revision, modified: kv.mod_revision }
    }
}

impl Place {
    /// Waits until the call's key stands first; may also wake where it does not.
    pub(crate) async fn called(&mut self) {
        match &mut self.interest {
            Interest::Waits { called, .. } => called.notified().await,
            // The sender lives as long as the place.
            Interest::Observes(fronts) => drop(fronts.changed().await),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut names = self.shared.names.lock();
        let Some(entry) = names.get_mut(&self.name) else { return };
        if let Interest::Waits { created, called } = &self.interest
            && let Some(waiters) = entry.waiters.get_mut(created)
        {
            waiters.retain(|waiter| !Arc::ptr_eq(waiter, called));
            if waiters.is_empty() {
                entry.waiters.remove(created);
            }
        }
        entry.interested -= 1;
        if entry.interested == 0 {
            names.remove(&self.name);
        }
    }
}
