//! `ringfence bench leases`: keep many leases alive, let others end, and see whether all of it comes in time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use hdrhistogram::Histogram;
use ringfence_client::{Client, Error, Options};
use ringfence_proto::etcdserverpb::LeaseKeepAliveRequest;
use ringfence_proto::etcdserverpb::lease_client::LeaseClient;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use super::Leases;
use super::load::connect;
use crate::cli::Shared;
use crate::exit::{Exit, Failure};
use crate::output::{Output, print_json, print_line};

/// Grants that are under way at once.
const GRANTS_AT_ONCE: u64 = 64;
/// Keep-alives of a stream that may wait for their answers.
const STREAM_WINDOW: usize = 4_096;
/// The shortest time to live, which those get that are let go.
const SHORT_TTL: i64 = 2;
/// Largest latency that is told apart, in nanoseconds.
const LATENCY_MAX: u64 = 60_000_000_000;

/// What came of it.
#[derive(Debug, Serialize)]
struct Report {
    leases: u64,
    seconds: f64,
    /// Keep-alives answered a second.
    keep_alives: f64,
    /// From when a keep-alive was due to its answer.
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    /// Leases that ended although they were kept alive.
    lost: u64,
    /// Leases granted a second only to end.
    let_go: f64,
    errors: u64,
}

/// What the streams counted.
#[derive(Debug, Default)]
struct Counts {
    answered: AtomicU64,
    lost: AtomicU64,
    let_go: AtomicU64,
    errors: AtomicU64,
}

impl Leases {
    pub(super) async fn run(&self, shared: &Shared) -> Result<(), Failure> {
        let client = shared.client_with(Options { connections_per_node: 2, ..Options::default() })?;
        let began = Instant::now();
        let ids = grant_all(&client, self.count, self.ttl_seconds).await?;
        if shared.output == Output::Table && !self.json {
            print_line(&format!("{} leases granted in {:.1} s", ids.len(), began.elapsed().as_secs_f64()))?;
        }
        let channels = connect(&shared.endpoints, usize::from(self.streams), shared.timeout()).await?;
        let counts = Arc::<Counts>::default();
        let until = Instant::now() + self.seconds.0;
        let mut streams = JoinSet::new();
        let share = ids.len().div_ceil(channels.len());
        for (channel, ids) in channels.into_iter().zip(ids.chunks(share)) {
            streams.spawn(keep_alive(channel, ids.to_vec(), self.interval.0, until, Arc::clone(&counts)));
        }
        let letting_go = tokio::spawn(let_go(client, self.ends, until, Arc::clone(&counts)));
        let mut latencies = histogram();
        while let Some(ended) = streams.join_next().await {
            let seen =
                ended.map_err(|error| Failure::new(Exit::General, format!("a stream broke off: {error}")))?;
            latencies.add(&seen).expect("all histograms have the same bounds");
        }
        letting_go
            .await
            .map_err(|error| Failure::new(Exit::General, format!("the grants broke off: {error}")))?;
        self.show(shared.output, &counts, &latencies)
    }

    fn show(&self, output: Output, counts: &Counts, latencies: &Histogram<u64>) -> Result<(), Failure> {
        let seconds = self.seconds.0.as_secs_f64();
        let ms = |quantile| latencies.value_at_quantile(quantile) as f64 / 1e6;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let report = Report {
            leases: self.count,
            seconds,
            keep_alives: count(&counts.answered) as f64 / seconds,
            p50_ms: ms(0.5),
            p99_ms: ms(0.99),
            max_ms: latencies.max() as f64 / 1e6,
            lost: count(&counts.lost),
            let_go: count(&counts.let_go) as f64 / seconds,
            errors: count(&counts.errors),
        };
        if self.json || output == Output::Json {
            return print_json(&report);
        }
        print_line(&format!(
            "{:.0} keep-alives a second, from due to answered p50 {:.1} ms, p99 {:.1} ms, longest {:.1} ms",
            report.keep_alives, report.p50_ms, report.p99_ms, report.max_ms
        ))?;
        print_line(&format!("{:.0} leases a second were let go", report.let_go))?;
        print_line(&format!("lost although kept alive: {}, errors: {}", report.lost, report.errors))
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1_000, LATENCY_MAX, 3).expect("the bounds are constants in their lawful order")
}

async fn grant(client: &Client, ttl: i64) -> Result<i64, Error> {
    Ok(client.lease_grant(ttl, 0).await?.id)
}

async fn grant_all(client: &Client, count: u64, ttl: i64) -> Result<Vec<i64>, Error> {
    let grants = stream::iter((0..count).map(|_| grant(client, ttl)));
    let ids: Vec<_> = grants.buffer_unordered(GRANTS_AT_ONCE as usize).collect().await;
    ids.into_iter().collect()
}

/// Grants short leases at a rate and forgets them: as many end each second.
async fn let_go(client: Client, a_second: u32, until: Instant, counts: Arc<Counts>) {
    if a_second == 0 {
        return;
    }
    let mut due = tokio::time::interval(Duration::from_secs(1) / a_second);
    let mut under_way = JoinSet::new();
    while Instant::now() < until {
        due.tick().await;
        while under_way.len() as u64 >= GRANTS_AT_ONCE {
            under_way.join_next().await;
        }
        let (client, counts) = (client.clone(), Arc::clone(&counts));
        under_way.spawn(async move {
            let counter =
                if grant(&client, SHORT_TTL).await.is_ok() { &counts.let_go } else { &counts.errors };
            counter.fetch_add(1, Ordering::Relaxed);
        });
    }
    under_way.join_all().await;
}

/// Keeps the leases of one stream alive, each once an interval, evenly spread. Returns from due to answered, of each.
async fn keep_alive(
    channel: Channel,
    ids: Vec<i64>,
    interval: Duration,
    until: Instant,
    counts: Arc<Counts>,
) -> Histogram<u64> {
    let mut latencies = histogram();
    let (questions, waiting) = mpsc::channel::<LeaseKeepAliveRequest>(STREAM_WINDOW);
    let questions_in_turn =
        stream::unfold(waiting, |mut waiting| async move { Some((waiting.recv().await?, waiting)) });
    // Answers come in the order of the questions.
    let (dues, mut due_in_turn) = mpsc::channel(STREAM_WINDOW);
    let asking = async move {
        let pace = interval / u32::try_from(ids.len()).unwrap_or(u32::MAX);
        let mut due = Instant::now();
        for id in ids.iter().cycle() {
            if due >= until {
                break;
            }
            tokio::time::sleep_until(due.into()).await;
            let sent = questions.send(LeaseKeepAliveRequest { id: *id }).await;
            if sent.is_err() || dues.send(due).await.is_err() {
                break;
            }
            due += pace;
        }
    };
    let answering = async {
        let opened = LeaseClient::new(channel).lease_keep_alive(questions_in_turn).await;
        let Ok(answers) = opened else { return Err(()) };
        let mut answers = answers.into_inner();
        while let Some(answer) = answers.next().await {
            let (Ok(answer), Some(due)) = (answer, due_in_turn.recv().await) else { return Err(()) };
            let took = u64::try_from(due.elapsed().as_nanos()).unwrap_or(u64::MAX);
            latencies.saturating_record(took);
            let counter = if answer.ttl > 0 { &counts.answered } else { &counts.lost };
            counter.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    };
    if let ((), Err(())) = tokio::join!(asking, answering) {
        counts.errors.fetch_add(1, Ordering::Relaxed);
    }
    latencies
}
