use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use openraft_rt::Instant as _;

use super::*;

#[test]
fn passes_the_runtime_suite_of_openraft() {
    openraft_rt::testing::Suite::<SimRuntime>::test_all();
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Tasks on three hosts that tell each other numbers; the order in which they come is up to the seed.
fn talk(seed: u64) -> Finished<Vec<u32>> {
    run(seed, None, async {
        let (sender, mut receiver) = tokio::sync::mpsc::channel(4);
        for number in 1..=3 {
            let sender = sender.clone();
            drop(spawn_on(Host(number), async move {
                for _ in 0..20 {
                    SimRuntime::sleep(Duration::from_micros(random_below(3))).await;
                    sender.send(number).await.expect("the root listens");
                }
            }));
        }
        drop(sender);
        let mut heard = Vec::new();
        while let Some(number) = receiver.recv().await {
            heard.push(number);
        }
        heard
    })
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_one_another() {
    let (first, again, other) = (talk(1), talk(1), talk(2));
    assert_eq!((&first.value, first.trace, first.polls), (&again.value, again.trace, again.polls));
    assert_ne!(first.value, other.value);
    assert_ne!(first.trace, other.trace);
}

#[test]
fn a_crash_drops_a_hosts_tasks_and_no_others() {
    let finished = run(3, None, async {
        let counters: [Arc<AtomicU64>; 2] = Default::default();
        let mut handles = Vec::new();
        for (host, counter) in (1..).zip(&counters) {
            let counter = counter.clone();
            handles.push(spawn_on(Host(host), async move {
                loop {
                    SimRuntime::sleep(seconds(1)).await;
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            }));
        }
        SimRuntime::sleep(Duration::from_millis(5_500)).await;
        crash(Host(1));
        SimRuntime::sleep(seconds(5)).await;
        let ended: Result<(), JoinError> = handles.remove(0).await;
        (ended, counters.map(|counter| counter.load(Ordering::Relaxed)))
    });
    assert_eq!(finished.value, (Err(JoinError::Dropped), [5, 10]));
}

#[test]
fn a_suspended_host_stands_still_while_its_clock_goes_on() {
    let finished = run(4, None, async {
        let task = spawn_on(Host(1), async {
            let before = SimInstant::now();
            SimRuntime::sleep(seconds(1)).await;
            SimInstant::now() - before
        });
        yield_now().await;
        SimRuntime::sleep(Duration::from_millis(1)).await;
        suspend(Host(1));
        SimRuntime::sleep(seconds(9)).await;
        resume(Host(1));
        task.await
    });
    let slept = finished.value.expect("the task ended");
    assert!(slept > seconds(8) && slept < seconds(10), "{slept:?}");
}

#[test]
fn clocks_differ_in_rate_and_a_change_moves_timers() {
    let finished = run(5, None, async {
        let started = true_time();
        let task = spawn_on(Host(1), async { SimRuntime::sleep(seconds(10)).await });
        SimRuntime::sleep(seconds(5)).await;
        set_rate(Host(1), 250_000);
        task.await.expect("the task ended");
        true_time() - started
    });
    // Five seconds at the true rate, and five at five quarters of it.
    let passed = Duration::from_nanos(finished.value);
    assert!(passed > seconds(9) - Duration::from_millis(1) && passed < seconds(9) + Duration::from_millis(1));
}

#[test]
fn a_panic_is_kept_and_ends_its_task_alone() {
    let finished = run(6, None, async {
        let other = spawn_on(Host(1), async { SimRuntime::sleep(seconds(1)).await });
        let panicking = spawn_on(Host(1), async { panic!("a broken rule") });
        let ended: Result<(), JoinError> = panicking.await;
        (ended, other.await)
    });
    assert_eq!(finished.value, (Err(JoinError::Panicked), Ok(())));
    let [panic] = &finished.panics[..] else { panic!("one panic, not {:?}", finished.panics) };
    assert!(panic.host == Host(1) && panic.message.contains("a broken rule"), "{panic:?}");
}

#[test]
fn the_observer_sees_every_step_of_every_host() {
    let seen = Arc::new(AtomicU64::new(0));
    let counter = seen.clone();
    let finished = run(7, None, async move {
        observe(move |host| {
            counter.fetch_add(u64::from(host.0), Ordering::Relaxed);
        });
        let task = spawn_on(Host(100), async {
            yield_now().await;
            yield_now().await;
        });
        task.await
    });
    assert_eq!(finished.value, Ok(()));
    assert_eq!(seen.load(Ordering::Relaxed), 300);
}

#[test]
fn a_worker_is_a_task_of_its_host_and_syncs_take_drawn_times() {
    let work = || {
        let (send, receive) = tokio::sync::oneshot::channel();
        let finished = run(8, None, async {
            let slow = Pauses { sync: (seconds(1), seconds(3)), ..Pauses::QUICK };
            set_pauses(Host(1), slow);
            let starting = spawn_on(Host(1), async {
                SimRuntime::spawn_worker("log", async {
                    let before = SimInstant::now();
                    SimRuntime::sync_pause().await;
                    let seen = (host(), SimInstant::now() - before, SimRuntime::random_u64());
                    send.send(seen).expect("the test waits");
                })
            });
            starting.await.expect("no crash").expect("tasks can always be made");
            receive.await.expect("the worker's word")
        });
        finished.value
    };
    let (host, paused, drawn) = work();
    assert_eq!(host, Host(1));
    assert!(paused >= seconds(1) && paused < seconds(4), "{paused:?}");
    assert_eq!(work(), (host, paused, drawn));
}
