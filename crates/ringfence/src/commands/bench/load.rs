//! Running the clients: connections, warm-up, pace, and what each client saw.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use ringfence_client::{endpoint_authority, may_be_sent_again};
use ringfence_proto::etcdserverpb::kv_client::KvClient;
use tokio::task::JoinSet;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use super::report::Report;
use super::work::{Kind, Worker};
use super::{Load, Workload};
use crate::cli::Shared;
use crate::exit::{Exit, Failure};

/// Wait after an error, so that a dead server is not asked as fast as the machine can.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(10);
/// Largest answer that is taken: of a get of many keys.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Largest latency that is told apart, in nanoseconds.
pub(super) const LATENCY_MAX: u64 = 300_000_000_000;

/// What one client saw in the time measured.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) reads: Histogram<u64>,
    pub(super) writes: Histogram<u64>,
    /// Number of attempts that surely changed nothing, and were made again on another connection.
    pub(super) sent_again: u64,
    /// Number of requests that failed for good, by what the last attempt ended in.
    pub(super) errors: BTreeMap<String, u64>,
}

/// The gaps between successes, whichever client had them.
#[derive(Debug)]
struct Gaps {
    /// When the clock of the fields below starts.
    zero: Instant,
    last_success: AtomicU64,
    longest: AtomicU64,
}

/// When the clients begin, when measuring begins, and when it ends.
#[derive(Debug, Clone, Copy)]
struct Window {
    start: Instant,
    from: Instant,
    to: Instant,
}

/// One client of the load.
struct LoadClient {
    worker: Worker,
    channels: Arc<Vec<Channel>>,
    /// Index of the connection in use.
    channel: usize,
    timeout: Duration,
    window: Window,
    gaps: Arc<Gaps>,
    /// Time between two requests, and when the first is due; none where requests follow answers.
    pace: Option<(Duration, Instant)>,
    seen: Seen,
}

/// Runs the load and adds up what the clients saw.
pub(super) async fn run(workload: Workload, load: &Load, shared: &Shared) -> Result<Report, Failure> {
    let channels =
        Arc::new(connect(&shared.endpoints, usize::from(load.connections), shared.timeout()).await?);
    let start = Instant::now();
    let from = start + load.warm_up.0;
    let window = Window { start, from, to: from + load.seconds.0 };
    let gaps = Arc::new(Gaps { zero: from, last_success: AtomicU64::new(0), longest: AtomicU64::new(0) });
    let mut clients = JoinSet::new();
    for number in 0..u64::from(load.clients) {
        let client = LoadClient {
            worker: Worker::new(workload, load, number),
            channels: Arc::clone(&channels),
            channel: number as usize,
            timeout: shared.timeout(),
            window,
            gaps: Arc::clone(&gaps),
            pace: load.rate.map(|rate| pace(rate, load.clients, number, window.start)),
            seen: Seen::new(),
        };
        clients.spawn(client.run());
    }
    let mut seen = Seen::new();
    while let Some(joined) = clients.join_next().await {
        seen.add(
            &joined.map_err(|error| Failure::new(Exit::General, format!("a client broke off: {error}")))?,
        );
    }
    let longest_gap = gaps.finish(window.to);
    Ok(Report::new(workload, load, &shared.endpoints, &seen, longest_gap))
}

/// Makes all connections before the load begins.
pub(super) async fn connect(
    endpoints: &[String],
    connections: usize,
    timeout: Duration,
) -> Result<Vec<Channel>, Failure> {
    let mut channels = Vec::with_capacity(connections);
    for endpoint in endpoints.iter().cycle().take(connections) {
        let authority = endpoint_authority(endpoint)?;
        let channel = Endpoint::from_shared(format!("http://{authority}"))
            .map_err(|error| Failure::new(Exit::Usage, format!("endpoint {endpoint:?}: {error}")))?
            .tcp_nodelay(true)
            .connect_timeout(timeout)
            .connect()
            .await
            .map_err(|error| {
                Failure::new(Exit::Unavailable, format!("cannot connect to {authority}: {error}"))
                    .next("check that the cluster runs: `ringfence status`")
            })?;
        channels.push(channel);
    }
    Ok(channels)
}

/// The time between a client's requests, and when its first is due: the clients take turns.
fn pace(rate: u32, clients: u16, client: u64, start: Instant) -> (Duration, Instant) {
    let interval = Duration::from_secs_f64(f64::from(clients) / f64::from(rate));
    (interval, start + interval.mul_f64(client as f64 / f64::from(clients)))
}

impl LoadClient {
    async fn run(mut self) -> Seen {
        loop {
            let due = match self.pace.as_mut() {
                None => Instant::now(),
                Some((interval, due)) => {
                    let now_due = *due;
                    *due += *interval;
                    tokio::time::sleep_until(now_due.into()).await;
                    now_due
                }
            };
            if due >= self.window.to {
                return self.seen;
            }
            self.request(due).await;
        }
    }

    async fn request(&mut self, due: Instant) {
        let deadline = Instant::now() + self.timeout;
        let mut sent_again = 0;
        let answer = loop {
            let channel = self.channels[self.channel % self.channels.len()].clone();
            let mut client = KvClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
            let asking = self.worker.request(&mut client);
            let answer = tokio::time::timeout_at(deadline.into(), asking).await;
            match &answer {
                Ok((_, Err(status))) if may_be_sent_again(status) && Instant::now() < deadline => {
                    sent_again += 1
                }
                _ => break answer,
            }
            self.go_on_elsewhere().await;
        };
        let now = Instant::now();
        let measured = now >= self.window.from && now < self.window.to;
        if measured {
            self.seen.sent_again += sent_again;
        }
        match answer {
            Ok((kind, Ok(()))) => {
                if measured {
                    self.gaps.success(now);
                    self.seen.success(kind, now - due);
                }
            }
            failed => {
                if measured {
                    let what = match failed {
                        Ok((_, Err(status))) => describe(&status),
                        _ => "no answer in time".to_owned(),
                    };
                    *self.seen.errors.entry(what).or_default() += 1;
                }
                self.go_on_elsewhere().await;
            }
        }
    }

    /// The next connection may lead to a node that is better off.
    async fn go_on_elsewhere(&mut self) {
        self.channel += 1;
        tokio::time::sleep(PAUSE_AFTER_ERROR).await;
    }
}

/// An error's kind: its code and message, which servers keep fixed.
fn describe(status: &Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}

impl Gaps {
    fn success(&self, now: Instant) {
        let now = nanoseconds(now.saturating_duration_since(self.zero));
        let before = self.last_success.fetch_max(now, Ordering::Relaxed);
        self.longest.fetch_max(now.saturating_sub(before), Ordering::Relaxed);
    }

    /// The longest gap, the one before the end included.
    fn finish(&self, end: Instant) -> Duration {
        self.success(end);
        Duration::from_nanos(self.longest.load(Ordering::Relaxed))
    }
}

impl Seen {
    fn new() -> Seen {
        let histogram = || {
            Histogram::new_with_bounds(1_000, LATENCY_MAX, 3)
                .expect("the bounds are constants in their lawful order")
        };
        Seen { reads: histogram(), writes: histogram(), sent_again: 0, errors: BTreeMap::new() }
    }

    fn success(&mut self, kind: Kind, latency: Duration) {
        let histogram = match kind {
            Kind::Read => &mut self.reads,
            Kind::Write => &mut self.writes,
        };
        histogram.saturating_record(nanoseconds(latency));
    }

    fn add(&mut self, other: &Seen) {
        self.reads.add(&other.reads).expect("all histograms have the same bounds");
        self.writes.add(&other.writes).expect("all histograms have the same bounds");
        self.sent_again += other.sent_again;
        for (what, count) in &other.errors {
            *self.errors.entry(what.clone()).or_default() += count;
        }
    }
}

/// All of it that can matter here.
pub(super) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_gap_counts_start_and_end() {
        let zero = Instant::now();
        let at = |millis| zero + Duration::from_millis(millis);
        let gaps = |successes: &[u64]| {
            let gaps = Gaps { zero, last_success: AtomicU64::new(0), longest: AtomicU64::new(0) };
            successes.iter().for_each(|millis| gaps.success(at(*millis)));
            gaps.finish(at(1_000)).as_millis()
        };
        assert_eq!(gaps(&[100, 200, 900]), 700);
        assert_eq!(gaps(&[600, 900]), 600);
        assert_eq!(gaps(&[100, 300]), 700);
        assert_eq!(gaps(&[]), 1_000);
        // Two clients may report out of order; that is no gap.
        assert_eq!(gaps(&[500, 400, 900]), 500);
    }

    #[test]
    fn clients_take_turns_at_the_rate_asked_for() {
        let start = Instant::now();
        let (interval, first) = pace(1_000, 10, 5, start);
        assert_eq!(interval, Duration::from_millis(10));
        assert_eq!(first - start, Duration::from_millis(5));
    }
}
