//! `ringfence bench watch`: the delay from a put to its events, where many watch.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream;
use hdrhistogram::Histogram;
use ringfence_client::{Client, Options};
use ringfence_proto::etcdserverpb::watch_client::WatchClient;
use ringfence_proto::etcdserverpb::watch_request::RequestUnion;
use ringfence_proto::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use ringfence_types::KeyRange;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::Watch;
use super::load::connect;
use super::work::Random;
use crate::cli::Shared;
use crate::exit::{Exit, Failure};
use crate::output::{Output, print_json, print_line};

/// Requests of a stream that may wait.
const STREAM_WINDOW: usize = 256;
/// How long events may take after the last put.
const LATE_MAX: Duration = Duration::from_secs(2);
/// Largest latency that is told apart, in nanoseconds.
const LATENCY_MAX: u64 = 60_000_000_000;
/// Bytes of a value that say when it was sent.
const STAMP_BYTES: usize = 8;

/// What came of it.
#[derive(Debug, Serialize)]
struct Report {
    watches: u64,
    distinct: bool,
    puts: u64,
    failed_puts: u64,
    /// Events that were received, and that should have been.
    events: u64,
    expected: u64,
    /// Events received a second.
    rate: f64,
    /// From the sending of a put to an event's arrival.
    delay_p50_ms: f64,
    delay_p99_ms: f64,
    delay_max_ms: f64,
    put_p50_ms: f64,
    put_p99_ms: f64,
}

/// What a stream has received.
struct Seen {
    delays: Histogram<u64>,
    last: Instant,
}

impl Watch {
    pub(super) async fn run(&self, shared: &Shared) -> Result<(), Failure> {
        let streams = usize::from(self.streams);
        let channels = connect(&shared.endpoints, streams, shared.timeout()).await?;
        let share = self.watches.div_ceil(streams as u64).max(1);
        let start = Instant::now();
        let (stop, mut receiving) = (CancellationToken::new(), JoinSet::new());
        for (at, channel) in channels.into_iter().enumerate() {
            let (first, end) = (at as u64 * share, ((at as u64 + 1) * share).min(self.watches));
            if first < end {
                let responses = self.open(channel, first..end).await.map_err(broken)?;
                receiving.spawn(receive(responses, start, stop.clone()));
            }
        }
        let client = shared.client_with(Options::default())?;
        let begun = Instant::now();
        let (puts, failed, put_times) = self.put_all(client, start).await;
        let expected = puts * if self.distinct { 1 } else { self.watches };
        let late = tokio::spawn({
            let stop = stop.clone();
            async move {
                tokio::time::sleep(LATE_MAX).await;
                stop.cancel();
            }
        });
        let (mut delays, mut last) = (histogram(), begun);
        while let Some(seen) = receiving.join_next().await {
            let seen = seen
                .map_err(|error| Failure::new(Exit::General, format!("a stream broke off: {error}")))?
                .map_err(broken)?;
            delays.add(&seen.delays).expect("all histograms have the same bounds");
            last = last.max(seen.last);
        }
        late.abort();
        let ms = |histogram: &Histogram<u64>, quantile| histogram.value_at_quantile(quantile) as f64 / 1e6;
        self.show(
            shared.output,
            &Report {
                watches: self.watches,
                distinct: self.distinct,
                puts,
                failed_puts: failed,
                events: delays.len(),
                expected,
                rate: delays.len() as f64 / (last - begun).as_secs_f64().max(1e-9),
                delay_p50_ms: ms(&delays, 0.5),
                delay_p99_ms: ms(&delays, 0.99),
                delay_max_ms: delays.max() as f64 / 1e6,
                put_p50_ms: ms(&put_times, 0.5),
                put_p99_ms: ms(&put_times, 0.99),
            },
        )
    }

    /// Opens a stream with some of the watches, and waits until all have begun.
    async fn open(
        &self,
        channel: Channel,
        numbers: std::ops::Range<u64>,
    ) -> Result<(Streaming<WatchResponse>, mpsc::Sender<WatchRequest>), Status> {
        let (requests, waiting) = mpsc::channel(STREAM_WINDOW);
        let outgoing = stream::unfold(waiting, |mut waiting: mpsc::Receiver<WatchRequest>| async move {
            Some((waiting.recv().await?, waiting))
        });
        let count = numbers.end - numbers.start;
        let creating = {
            let requests = requests.clone();
            let ranges: Vec<KeyRange> = numbers.map(|number| self.range(number)).collect();
            tokio::spawn(async move {
                for range in ranges {
                    let range_end = range.etcd_range_end();
                    let request = WatchCreateRequest { key: range.start, range_end, ..Default::default() };
                    let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(request)) };
                    if requests.send(request).await.is_err() {
                        return;
                    }
                }
            })
        };
        let mut responses =
            WatchClient::new(channel).max_decoding_message_size(1 << 30).watch(outgoing).await?.into_inner();
        for _ in 0..count {
            match responses.message().await? {
                Some(created) if created.created && !created.canceled => {}
                other => {
                    return Err(Status::failed_precondition(format!("a watch did not begin: {other:?}")));
                }
            }
        }
        drop(creating.await);
        Ok((responses, requests))
    }

    fn range(&self, number: u64) -> KeyRange {
        if self.distinct {
            KeyRange::single(self.keys.key(number).into())
        } else {
            KeyRange::prefix(Bytes::copy_from_slice(self.keys.key_prefix.as_bytes()))
        }
    }

    /// Puts at the rate, one after the other. Returns how many, how many failed, and how long they took.
    async fn put_all(&self, client: Client, start: Instant) -> (u64, u64, Histogram<u64>) {
        let (mut random, mut times) = (Random::new(1), histogram());
        let (mut puts, mut failed) = (0, 0);
        let mut due = tokio::time::interval(Duration::from_secs(1) / self.rate);
        due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let until = Instant::now() + self.seconds.0;
        while Instant::now() < until {
            due.tick().await;
            let number = random.below(if self.distinct { self.watches } else { self.keys.key_count });
            let sent = Instant::now();
            let mut value = nanoseconds(sent - start).to_be_bytes().to_vec();
            value.resize(value.len().max(self.keys.value_size as usize), b'v');
            match client.put_value(self.keys.key(number), value).await {
                Ok(_) => puts += 1,
                Err(_) => failed += 1,
            }
            times.saturating_record(nanoseconds(sent.elapsed()));
        }
        (puts, failed, times)
    }

    fn show(&self, output: Output, report: &Report) -> Result<(), Failure> {
        if self.json || output == Output::Json {
            return print_json(report);
        }
        print_line(&format!(
            "{} puts, {} events of {} to {} watches, {:.0} a second",
            report.puts, report.events, report.expected, report.watches, report.rate
        ))?;
        print_line(&format!(
            "from put to event p50 {:.2} ms, p99 {:.2} ms, longest {:.1} ms; put p50 {:.2} ms, p99 {:.2} ms",
            report.delay_p50_ms,
            report.delay_p99_ms,
            report.delay_max_ms,
            report.put_p50_ms,
            report.put_p99_ms
        ))?;
        print_line(&format!("failed puts: {}", report.failed_puts))
    }
}

/// Notes how old each event is, until it is told to stop.
async fn receive(
    (mut responses, requests): (Streaming<WatchResponse>, mpsc::Sender<WatchRequest>),
    start: Instant,
    stop: CancellationToken,
) -> Result<Seen, Status> {
    let mut seen = Seen { delays: histogram(), last: start };
    loop {
        let response = tokio::select! {
            response = responses.message() => response?,
            () = stop.cancelled() => break,
        };
        let Some(response) = response else { break };
        seen.last = Instant::now();
        let now = nanoseconds(seen.last - start);
        for kv in response.events.iter().filter_map(|event| event.kv.as_ref()) {
            if let Some(stamp) = kv.value.first_chunk::<STAMP_BYTES>() {
                seen.delays.saturating_record(now.saturating_sub(u64::from_be_bytes(*stamp)));
            }
        }
    }
    drop(requests);
    Ok(seen)
}

fn broken(status: Status) -> Failure {
    Failure::new(Exit::Unavailable, format!("a stream of watches broke off: {}", status.message()))
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1_000, LATENCY_MAX, 3).expect("the bounds are constants in their lawful order")
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
