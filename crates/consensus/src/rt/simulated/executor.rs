//! The executor, and the controls of whoever runs a simulation.
//!
//! One executor a thread, so that several simulations may run side by side. Nothing holds it while a task is polled or
//! dropped: tasks call back into it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::Pauses;
use super::clock::{Clock, Host, SimInstant};
use super::task::{JoinHandle, Ready, TaskId, TaskWaker, split};
use super::trace::{Journal, Trace};

/// What a step of a task costs in true time. Without it a task that spins would stop time.
const STEP_NANOSECONDS: u64 = 1_000;
/// The future that runs the simulation.
const ROOT: TaskId = 0;

/// True time in nanoseconds, and a number that tells timers of one moment apart.
pub(super) type TimerKey = (u64, u64);

type TaskFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Task {
    host: Host,
    /// Empty while it is polled.
    future: Option<TaskFuture>,
    waker: Arc<TaskWaker>,
}

struct HostState {
    clock: Clock,
    pauses: Pauses,
    suspended: bool,
    /// Ready tasks of a suspended host.
    parked: Vec<TaskId>,
}

impl Default for HostState {
    fn default() -> Self {
        HostState { clock: Clock::TRUE, pauses: Pauses::QUICK, suspended: false, parked: Vec::new() }
    }
}

/// A task that panicked. As in production, the other tasks of its host go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Panic {
    /// Whose task.
    pub host: Host,
    /// True time in nanoseconds.
    pub time: u64,
    /// What it said, and where.
    pub message: String,
}

/// What came of a simulation.
#[derive(Debug)]
pub struct Finished<T> {
    /// What the root future returned.
    pub value: T,
    /// True time at the end, in nanoseconds since the beginning.
    pub time: u64,
    /// Steps of tasks.
    pub polls: u64,
    /// A digest of all steps: equal for equal seeds.
    pub trace: u64,
    /// Tasks that panicked, in order.
    pub panics: Vec<Panic>,
}

type Observer = Box<dyn FnMut(Host)>;

struct Executor {
    time: u64,
    draws: SmallRng,
    tasks: BTreeMap<TaskId, Task>,
    last_task: TaskId,
    timers: BTreeMap<TimerKey, (Host, Waker)>,
    last_timer: u64,
    hosts: BTreeMap<Host, HostState>,
    ready: Arc<Ready>,
    polls: u64,
    trace: Trace,
    panics: Vec<Panic>,
}

thread_local! {
    static EXECUTOR: RefCell<Option<Executor>> = const { RefCell::new(None) };
    static OBSERVER: RefCell<Option<Observer>> = const { RefCell::new(None) };
    static HOST: Cell<Host> = const { Cell::new(Host::WORLD) };
    static PANIC_MESSAGE: RefCell<Option<String>> = const { RefCell::new(None) };
}

fn with<R>(act: impl FnOnce(&mut Executor) -> R) -> R {
    EXECUTOR.with_borrow_mut(|executor| act(executor.as_mut().expect("this thread runs a simulation")))
}

/// Runs a simulation to the end of `root`, which is the world's; then all tasks are dropped.
pub fn run<T>(seed: u64, journal: Option<Journal>, root: impl Future<Output = T>) -> Finished<T> {
    install(seed, journal);
    let _remove = Removal;
    let value = block_on(root);
    drop_tasks(|_| true);
    with(|executor| {
        executor.trace.finish();
        Finished {
            value,
            time: executor.time,
            polls: executor.polls,
            trace: executor.trace.digest(),
            panics: std::mem::take(&mut executor.panics),
        }
    })
}

/// Removes the executor however a run ends: tasks that outlived it would be dropped where nothing they need is alive.
struct Removal;

impl Drop for Removal {
    fn drop(&mut self) {
        drop_tasks(|_| true);
        drop(OBSERVER.take());
        drop(EXECUTOR.take());
    }
}

fn install(seed: u64, journal: Option<Journal>) {
    keep_panic_messages();
    let executor = Executor {
        time: 0,
        draws: SmallRng::seed_from_u64(seed),
        tasks: BTreeMap::new(),
        last_task: ROOT,
        timers: BTreeMap::new(),
        last_timer: 0,
        hosts: BTreeMap::new(),
        ready: Arc::default(),
        polls: 0,
        trace: Trace::new(journal),
        panics: Vec::new(),
    };
    EXECUTOR.with_borrow_mut(|current| {
        assert!(current.is_none(), "a thread runs one simulation at a time");
        *current = Some(executor);
    });
}

/// Panics of tasks are findings: what they say is kept, and not printed.
fn keep_panic_messages() {
    static HOOK: std::sync::Once = std::sync::Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if HOST.get() == Host::WORLD {
                before(info);
            } else {
                tracing::error!("{info}\n{}", std::backtrace::Backtrace::capture());
                PANIC_MESSAGE.set(Some(info.to_string()));
            }
        }));
    });
}

fn block_on<F: Future>(root: F) -> F::Output {
    let mut root = std::pin::pin!(root);
    let ready = with(|executor| executor.ready.clone());
    let root_waker = TaskWaker::new(ROOT, ready.clone());
    std::task::Wake::wake_by_ref(&root_waker);
    loop {
        with(Executor::fire_timers);
        match ready.take(|count| random_below(count as u64) as usize) {
            Some(ROOT) => {
                root_waker.taken();
                with(|executor| executor.count_step(ROOT, Host::WORLD));
                let waker = Waker::from(root_waker.clone());
                if let Poll::Ready(value) = root.as_mut().poll(&mut Context::from_waker(&waker)) {
                    return value;
                }
            }
            Some(id) => poll_task(id),
            None => with(Executor::pass_time),
        }
    }
}

/// One step of a task, unless it has ended or its host is suspended.
fn poll_task(id: TaskId) {
    let Some((host, mut future, waker)) = with(|executor| executor.begin_step(id)) else { return };
    let waker = Waker::from(waker);
    let polled = enter(host, || {
        catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut Context::from_waker(&waker))))
    });
    // Whoever crashed the host from within this task has taken it from the table: then it is dropped here.
    let left = with(|executor| match (&polled, executor.tasks.get_mut(&id)) {
        (Ok(Poll::Pending), Some(task)) => {
            task.future = Some(future);
            None
        }
        _ => {
            executor.tasks.remove(&id);
            Some(future)
        }
    });
    enter(host, || drop(left));
    if polled.is_err() {
        let message = PANIC_MESSAGE.take().unwrap_or_default();
        with(|executor| {
            let time = executor.time;
            executor.panics.push(Panic { host, time, message });
        });
    }
    if let Some(mut observer) = OBSERVER.take() {
        observer(host);
        OBSERVER.set(Some(observer));
    }
}

/// Does something as if a task of that host did it: dropping what is the host's, say.
pub fn enter<R>(host: Host, act: impl FnOnce() -> R) -> R {
    let before = HOST.replace(host);
    let result = act();
    HOST.set(before);
    result
}

/// Drops the tasks that `which` names, oldest first, and those that come to be meanwhile.
fn drop_tasks(which: impl Fn(Host) -> bool) {
    loop {
        let dead: Vec<(Host, Task)> = EXECUTOR.with_borrow_mut(|executor| {
            let Some(executor) = executor else { return Vec::new() };
            let ids: Vec<TaskId> =
                executor.tasks.iter().filter(|(_, task)| which(task.host)).map(|(id, _)| *id).collect();
            let dead = ids.into_iter().filter_map(|id| executor.tasks.remove(&id));
            dead.map(|task| (task.host, task)).collect()
        });
        if dead.is_empty() {
            return;
        }
        for (host, task) in dead {
            enter(host, || drop(task));
        }
    }
}

impl Executor {
    fn begin_step(&mut self, id: TaskId) -> Option<(Host, TaskFuture, Arc<TaskWaker>)> {
        let task = self.tasks.get_mut(&id)?;
        let host = task.host;
        if let Some(state) = self.hosts.get_mut(&host).filter(|state| state.suspended) {
            // It stays marked as queued, so that it is parked once.
            state.parked.push(id);
            return None;
        }
        task.waker.taken();
        let (future, waker) = (task.future.take()?, task.waker.clone());
        self.count_step(id, host);
        Some((host, future, waker))
    }

    fn count_step(&mut self, id: TaskId, host: Host) {
        self.polls += 1;
        self.time += STEP_NANOSECONDS;
        self.trace.step(self.time, [id, u64::from(host.0), 0], format_args!("host {} task {id}", host.0));
    }

    fn fire_timers(&mut self) {
        while let Some(timer) = self.timers.first_entry().filter(|timer| timer.key().0 <= self.time) {
            timer.remove().1.wake();
        }
    }

    /// Nothing is ready: time goes on to the next timer.
    fn pass_time(&mut self) {
        let next =
            self.timers.keys().next().expect("a simulation in which nothing is ready waits for some timer");
        self.time = self.time.max(next.0);
    }

    fn clock(&self, host: Host) -> Clock {
        self.hosts.get(&host).map_or(Clock::TRUE, |state| state.clock)
    }
}

/// The host whose task is running.
#[must_use]
pub fn host() -> Host {
    HOST.get()
}

/// True time in nanoseconds since the simulation began.
#[must_use]
pub fn true_time() -> u64 {
    with(|executor| executor.time)
}

pub(super) fn local_time() -> SimInstant {
    with(|executor| executor.clock(HOST.get()).local(executor.time))
}

/// Steps of tasks so far.
#[must_use]
pub fn poll_count() -> u64 {
    with(|executor| executor.polls)
}

pub(super) fn random_u64() -> u64 {
    with(|executor| executor.draws.next_u64())
}

/// A number below `bound`, which is not 0.
#[must_use]
pub fn random_below(bound: u64) -> u64 {
    ((u128::from(random_u64()) * u128::from(bound)) >> 64) as u64
}

pub(super) fn draw_pause(which: impl FnOnce(&Pauses) -> (Duration, Duration)) -> Duration {
    let (min, max) = with(|executor| which(&executor.hosts.entry(HOST.get()).or_default().pauses));
    let spread = max.saturating_sub(min).as_nanos() as u64;
    min + Duration::from_nanos(random_below(spread + 1))
}

/// Starts a task on a host.
pub fn spawn_on<T, F>(host: Host, future: F) -> JoinHandle<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let (future, handle) = split(future);
    let waker = with(|executor| {
        executor.last_task += 1;
        let waker = TaskWaker::new(executor.last_task, executor.ready.clone());
        let task = Task { host, future: Some(future), waker: waker.clone() };
        executor.tasks.insert(executor.last_task, task);
        waker
    });
    Waker::from(waker).wake();
    handle
}

/// Drops all tasks of a host, wherever they are: its process is gone. The clock goes on.
pub fn crash(host: Host) {
    drop_tasks(|of| of == host);
}

/// No task of the host goes on until [`resume`]; its clock does. So a process behaves that is stopped.
pub fn suspend(host: Host) {
    with(|executor| executor.hosts.entry(host).or_default().suspended = true);
}

/// The host's tasks go on.
pub fn resume(host: Host) {
    with(|executor| {
        let state = executor.hosts.entry(host).or_default();
        state.suspended = false;
        for id in state.parked.drain(..) {
            executor.ready.push(id);
        }
    });
}

/// From now on the host's clock deviates from true time by `ppm` millionths.
pub fn set_rate(host: Host, ppm: i64) {
    with(|executor| {
        let time = executor.time;
        executor.hosts.entry(host).or_default().clock.set_rate(time, ppm);
        // Timers were set by the old rate: whoever waits looks again.
        executor.timers.retain(|_, (of, waker)| {
            if *of == host {
                waker.wake_by_ref();
            }
            *of != host
        });
    });
}

/// From now on the host's disk takes this long.
pub fn set_pauses(host: Host, pauses: Pauses) {
    with(|executor| executor.hosts.entry(host).or_default().pauses = pauses);
}

/// Has `observer` called after each step of a task with the task's host.
pub fn observe(observer: impl FnMut(Host) + 'static) {
    OBSERVER.set(Some(Box::new(observer)));
}

/// Takes an event of the world into the trace: what is told apart by `words`, and described by `line`.
pub fn note(words: [u64; 3], line: fmt::Arguments<'_>) {
    with(|executor| executor.trace.step(executor.time, words, line));
}

/// Lets other ready tasks go first, perhaps.
pub async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Sets a timer in the place of a previous one; none where the deadline has passed.
pub(super) fn set_timer(
    previous: Option<TimerKey>,
    host: Host,
    deadline: SimInstant,
    waker: &Waker,
) -> Option<TimerKey> {
    with(|executor| {
        if let Some(previous) = previous {
            executor.timers.remove(&previous);
        }
        let when = executor.clock(host).when(deadline);
        if when <= executor.time {
            return None;
        }
        executor.last_timer += 1;
        let key = (when, executor.last_timer);
        executor.timers.insert(key, (host, waker.clone()));
        Some(key)
    })
}

/// Takes a timer back. It may have fired, and the simulation may have ended.
pub(super) fn clear_timer(timer: TimerKey) {
    EXECUTOR
        .with_borrow_mut(|executor| executor.as_mut().and_then(|executor| executor.timers.remove(&timer)));
}
