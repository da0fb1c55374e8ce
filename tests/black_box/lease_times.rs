//! The times of leases through changes of leader, as clients see them: what is kept alive never ends, and the rest no earlier
//! than its time and soon after. Each test takes seconds; with `RINGFENCE_LONG_TESTS=1` in the environment it goes on for five
//! minutes with leases of ten seconds, and `--nocapture` shows what it measured.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ringfence_client::{Client, Error, Options};
use ringfence_tests::cluster::Cluster;
use ringfence_tests::wait::{self, PATIENCE};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Leases that are kept alive from the beginning to the end.
const KEPT: i64 = 20;
/// Numbers from here on are those of leases that are left alone.
const LEFT: i64 = 1_000_000;
/// Time between two leases that are left alone.
const LEAVE_INTERVAL: Duration = Duration::from_millis(250);
/// A put that takes longer than this says that there was no leader meanwhile.
const OUTAGE_MIN: Duration = Duration::from_millis(100);
/// What the promise says that a lease may be late by.
const LATE_MAX: Duration = Duration::from_secs(1);
/// What a machine may add to that which runs other tests too. With long tests it is given nothing.
const BUSY: Duration = Duration::from_millis(1_500);

/// How long a test goes on.
#[derive(Clone, Copy)]
struct Length {
    ttl: Duration,
    faults: Duration,
    kill_interval: Duration,
    busy: Duration,
}

impl Length {
    fn of_this_run() -> Length {
        match std::env::var_os("RINGFENCE_LONG_TESTS") {
            Some(_) => Length {
                ttl: Duration::from_secs(10),
                faults: Duration::from_secs(300),
                kill_interval: Duration::from_secs(10),
                busy: Duration::ZERO,
            },
            None => Length {
                ttl: Duration::from_secs(4),
                faults: Duration::from_secs(10),
                kill_interval: Duration::from_secs(5),
                busy: BUSY,
            },
        }
    }
}

/// A lease that was left alone. Its time begins between the two moments.
#[derive(Debug, Clone, Copy)]
struct Left {
    asked: Instant,
    answered: Instant,
    /// The begin of the last look that showed it.
    seen: Option<Instant>,
    /// The end of the first look that did not.
    gone: Option<Instant>,
}

/// What clients saw.
#[derive(Default)]
struct Seen {
    left: Mutex<BTreeMap<i64, Left>>,
    outages: Mutex<Vec<(Instant, Instant)>>,
    changes: Mutex<Vec<Instant>>,
    stops_leaving: AtomicBool,
    stops: AtomicBool,
    renewals: Mutex<u64>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a test measured.
struct Figures {
    kept: i64,
    renewals: u64,
    left: usize,
    changes: usize,
    outages: Duration,
    earliest: Duration,
    latest: Duration,
    worst: Duration,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figures { kept, renewals, left, changes, outages, earliest, latest, worst } = self;
        write!(
            f,
            "{changes} changes of leader, {outages:.3?} without one; {kept} leases kept alive {renewals} times, none ended; \
             {left} left alone: they ended {earliest:.3?} after they were asked for at the earliest, and were seen {latest:.3?} \
             after their time at the latest, {worst:.3?} without what was allowed for"
        )
    }
}

/// Has clients use leases while `faults` goes on, and judges what they saw. For each change of leader, `late_per_change` is added
/// to what a lease may be late by, with the measured time without a leader if it is not zero.
fn judge(
    cluster: &mut Cluster,
    length: Length,
    late_per_change: Duration,
    faults: impl FnOnce(&mut Cluster, &Seen),
) -> Figures {
    let seen = Arc::new(Seen::default());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime can be started");
    let (endpoints, acting) = (cluster.endpoints(), Arc::clone(&seen));
    let clients = runtime.spawn(async move { act(&endpoints, length.ttl, acting).await });
    faults(cluster, &seen);
    seen.stops_leaving.store(true, Ordering::Relaxed);
    wait::until("the leases that were left alone to end", length.ttl + PATIENCE, || {
        let left = lock(&seen.left).values().filter(|left| left.gone.is_none()).count();
        if clients.is_finished() || left == 0 { Ok(()) } else { Err(format!("{left} are there")) }
    });
    seen.stops.store(true, Ordering::Relaxed);
    runtime.block_on(clients).expect("what is kept alive does not end");
    figures(&seen, length, late_per_change)
}

fn figures(seen: &Seen, length: Length, late_per_change: Duration) -> Figures {
    let (left, outages, changes) = (lock(&seen.left), lock(&seen.outages), lock(&seen.changes));
    let mut figures = Figures {
        kept: KEPT,
        renewals: *lock(&seen.renewals),
        left: left.len(),
        changes: changes.len(),
        outages: outages.iter().map(|(from, to)| *to - *from).sum(),
        earliest: Duration::MAX,
        latest: Duration::ZERO,
        worst: Duration::ZERO,
    };
    for (lease, left) in left.iter() {
        let gone = left.gone.expect("all have ended");
        let lasted = gone - left.asked;
        assert!(lasted >= length.ttl, "{lease} ended {lasted:?} after it was asked for");
        figures.earliest = figures.earliest.min(lasted);
        let Some(seen) = left.seen else { continue };
        let late = seen.saturating_duration_since(left.answered + length.ttl);
        let mut allowed = Duration::ZERO;
        if late_per_change > Duration::ZERO {
            let within = |at: &&Instant| (left.asked..=seen).contains(*at);
            let count = u32::try_from(changes.iter().filter(within).count()).expect("there are few");
            let cut = |(from, to): &(Instant, Instant)| {
                (*to).min(seen).saturating_duration_since((*from).max(left.asked))
            };
            allowed = outages.iter().map(cut).sum::<Duration>() + late_per_change * count;
        }
        figures.latest = figures.latest.max(late);
        figures.worst = figures.worst.max(late.saturating_sub(allowed));
        let limit = LATE_MAX + allowed + length.busy;
        assert!(late <= limit, "{lease} was there {late:?} after its time; {limit:?} were allowed");
    }
    figures
}

/// All clients, until they are stopped.
async fn act(endpoints: &str, ttl: Duration, seen: Arc<Seen>) {
    let options = Options { timeout: PATIENCE, ..Options::default() };
    let client = Client::connect(endpoints.split(','), options).expect("the endpoints are lawful");
    let mut acting = JoinSet::new();
    for lease in 1..=KEPT {
        acting.spawn(keep(client.clone(), lease, ttl, Arc::clone(&seen)));
    }
    acting.spawn(leave(client.clone(), ttl, Arc::clone(&seen)));
    acting.spawn(look(client.clone(), Arc::clone(&seen)));
    acting.spawn(put(client, seen));
    while let Some(ended) = acting.join_next().await {
        ended.expect("no client fails");
    }
}

/// Keeps a lease alive, asking three times in its life.
async fn keep(client: Client, lease: i64, ttl: Duration, seen: Arc<Seen>) {
    grant(&client, lease, ttl).await;
    while !seen.stops.load(Ordering::Relaxed) {
        let answer = client.lease_keep_alive_once(lease).await.expect("somebody answers in time");
        assert!(answer.ttl > 0, "the lease {lease} has ended although it was kept alive");
        *lock(&seen.renewals) += 1;
        sleep(ttl / 3).await;
    }
}

/// Grants a lease now and then, and leaves it alone.
async fn leave(client: Client, ttl: Duration, seen: Arc<Seen>) {
    for lease in LEFT.. {
        if seen.stops_leaving.load(Ordering::Relaxed) {
            return;
        }
        let asked = Instant::now();
        grant(&client, lease, ttl).await;
        lock(&seen.left).insert(lease, Left { asked, answered: Instant::now(), seen: None, gone: None });
        sleep(LEAVE_INTERVAL).await;
    }
}

/// A grant whose answer was lost is asked for again, and is there then.
async fn grant(client: &Client, lease: i64, ttl: Duration) {
    let seconds = i64::try_from(ttl.as_secs()).expect("it is short");
    loop {
        match client.lease_grant(seconds, lease).await {
            Ok(_) => return,
            Err(Error::Refused { message, .. }) if message.contains("already exists") => return,
            Err(Error::Indefinite { .. }) => {}
            Err(error) => panic!("the lease {lease} is not granted: {error}"),
        }
    }
}

/// Looks which leases are in force, again and again.
async fn look(client: Client, seen: Arc<Seen>) {
    while !seen.stops.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let leases = client.leases().await.expect("somebody answers in time");
        let ended = Instant::now();
        let leases: std::collections::BTreeSet<i64> = leases.leases.iter().map(|lease| lease.id).collect();
        for (lease, left) in lock(&seen.left).iter_mut().filter(|(_, left)| left.answered < begun) {
            if leases.contains(lease) {
                assert!(left.gone.is_none(), "the lease {lease} is there again");
                left.seen = Some(begun);
            } else {
                left.gone.get_or_insert(ended);
            }
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// Puts all the time, and tells when that took long.
async fn put(client: Client, seen: Arc<Seen>) {
    while !seen.stops.load(Ordering::Relaxed) {
        let begun = Instant::now();
        while let Err(error) = client.put_value("lease-times", "v").await {
            assert!(matches!(error, Error::Indefinite { .. }), "{error}");
        }
        let ended = Instant::now();
        if ended - begun > OUTAGE_MIN {
            lock(&seen.outages).push((begun, ended));
        }
        sleep(Duration::from_millis(10)).await;
    }
}

/// Waits while clients go on.
fn pass(time: Duration) {
    std::thread::sleep(time);
}

#[test]
fn a_handover_of_the_leadership_costs_a_lease_no_time() {
    let length = Length::of_this_run();
    let mut cluster = Cluster::start(3);
    let figures = judge(&mut cluster, length, Duration::ZERO, |cluster, seen| {
        let begun = Instant::now();
        while begun.elapsed() < length.faults {
            pass(Duration::from_secs(3));
            drop(cluster.run(["leader", "transfer"]).succeeded());
            lock(&seen.changes).push(Instant::now());
        }
    });
    println!("handovers: {figures}");
}

#[test]
fn the_death_of_a_leader_costs_a_lease_a_second_at_most() {
    let length = Length::of_this_run();
    let mut cluster = Cluster::start(3);
    let figures = judge(&mut cluster, length, LATE_MAX, |cluster, seen| {
        let begun = Instant::now();
        while begun.elapsed() < length.faults {
            let next = Instant::now() + length.kill_interval;
            let leader = cluster.leader();
            lock(&seen.changes).push(Instant::now());
            cluster.nodes[leader].kill();
            pass(Duration::from_secs(1));
            cluster.nodes[leader].start();
            cluster.wait_ready();
            pass(next.saturating_duration_since(Instant::now()));
        }
    });
    println!("deaths: {figures}");
}
