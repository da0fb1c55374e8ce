//! `ringfence bench watch`: many watchers, some writers, and how long each event takes from its put to whoever watches.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use ringfence_proto::etcdserverpb::kv_client::KvClient;
use ringfence_proto::etcdserverpb::watch_client::WatchClient;
use ringfence_proto::etcdserverpb::watch_request::RequestUnion;
use ringfence_proto::etcdserverpb::{PutRequest, WatchCreateRequest, WatchRequest, WatchResponse};
use ringfence_types::KeyRange;
use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tonic::Streaming;
use tonic::transport::Channel;

use super::load::{LATENCY_MAX, connect, nanoseconds};
use super::work::{Random, value};
use super::{Keys, Watch};
use crate::cli::Shared;
use crate::exit::{Exit, Failure};
use crate::output::{Output, print_json, print_line};

/// Bytes at the front of a value that tell when its put was due.
const STAMP_BYTES: usize = 8;
/// After the last put, events may take this long each to come, before they are called missing.
const STRAGGLER_PATIENCE: Duration = Duration::from_secs(5);

/// What came of it.
#[derive(Debug, Serialize)]
struct Report {
    watchers: u32,
    streams: usize,
    distinct: bool,
    seconds: f64,
    puts: u64,
    /// Puts acknowledged a second.
    put_rate: f64,
    /// Events that arrived within the time measured, a second.
    event_rate: f64,
    /// From when a put was due, or sent, to its event at a watcher.
    delay_ms: Delay,
    /// Events of acknowledged puts that never came.
    missing: u64,
    errors: u64,
}

#[derive(Debug, Serialize)]
struct Delay {
    p50: f64,
    p99: f64,
    max: f64,
}

/// What everybody counts, and the clock that they share.
#[derive(Debug)]
struct Counts {
    zero: Instant,
    /// When measuring begins and ends, from `zero`.
    window: (Duration, Duration),
    puts: AtomicU64,
    puts_measured: AtomicU64,
    events: AtomicU64,
    events_measured: AtomicU64,
    errors: AtomicU64,
}

impl Counts {
    fn now(&self) -> u64 {
        nanoseconds(self.zero.elapsed())
    }

    fn is_measured(&self, at: u64) -> bool {
        (self.window.0..self.window.1).contains(&Duration::from_nanos(at))
    }
}

impl Watch {
    pub(super) async fn run(&self, shared: &Shared) -> Result<(), Failure> {
        let channels = connect(&shared.endpoints, usize::from(self.connections), shared.timeout()).await?;
        let streams = self.open(&channels).await?;
        let opened = streams.len();
        let sleeping = self.sleep(shared).await?;
        let warm_up = self.warm_up.0;
        let counts = Arc::new(Counts {
            zero: Instant::now(),
            window: (warm_up, warm_up + self.seconds.0),
            puts: AtomicU64::new(0),
            puts_measured: AtomicU64::new(0),
            events: AtomicU64::new(0),
            events_measured: AtomicU64::new(0),
            errors: AtomicU64::new(0),
        });
        let (over, is_over) = watch::channel(false);
        let mut watching = JoinSet::new();
        for stream in streams {
            watching.spawn(receive(stream, Arc::clone(&counts), is_over.clone()));
        }
        let mut writing = JoinSet::new();
        for client in 0..self.clients {
            let channel = channels[usize::from(client) % channels.len()].clone();
            writing.spawn(self.clone().write(channel, client, Arc::clone(&counts)));
        }
        while let Some(ended) = writing.join_next().await {
            ended.map_err(|error| Failure::new(Exit::General, format!("a writer broke off: {error}")))?;
        }
        let missing = self.wait_for_stragglers(&counts).await;
        over.send_replace(true);
        drop(sleeping);
        let mut delays = histogram();
        while let Some(ended) = watching.join_next().await {
            let seen =
                ended.map_err(|error| Failure::new(Exit::General, format!("a stream broke off: {error}")))?;
            delays.add(&seen).expect("all histograms have the same bounds");
        }
        self.show(shared.output, &counts, &delays, opened, missing)
    }

    /// Opens the streams with all watchers on them; returns when every one is confirmed.
    async fn open(&self, channels: &[Channel]) -> Result<Vec<Streaming<WatchResponse>>, Failure> {
        let numbers: Vec<u64> = (0..u64::from(self.watchers)).collect();
        let mut opening = JoinSet::new();
        for (at, numbers) in numbers.chunks(usize::from(self.per_stream)).enumerate() {
            let ranges: Vec<KeyRange> = numbers.iter().map(|number| self.range(*number)).collect();
            opening.spawn(open_stream(channels[at % channels.len()].clone(), ranges));
        }
        let mut streams = Vec::new();
        while let Some(opened) = opening.join_next().await {
            let opened = opened
                .map_err(|error| Failure::new(Exit::General, format!("a stream broke off: {error}")))?;
            streams.push(
                opened.map_err(|error| Failure::new(Exit::Unavailable, format!("cannot watch: {error}")))?,
            );
        }
        Ok(streams)
    }

    /// Opens the streams that nobody reads. Each has a connection of its own, whose window they fill.
    async fn sleep(&self, shared: &Shared) -> Result<Vec<Streaming<WatchResponse>>, Failure> {
        let mut sleeping = Vec::new();
        for channel in connect(&shared.endpoints, usize::from(self.sleepers), shared.timeout()).await? {
            let range = KeyRange::prefix(self.key_prefix.clone().into());
            let opened = open_stream(channel, vec![range]).await;
            sleeping.push(
                opened.map_err(|error| Failure::new(Exit::Unavailable, format!("cannot watch: {error}")))?,
            );
        }
        Ok(sleeping)
    }

    /// What a watcher watches.
    fn range(&self, number: u64) -> KeyRange {
        if self.distinct {
            KeyRange::single(self.keys().key(number).into())
        } else {
            KeyRange::prefix(self.key_prefix.clone().into())
        }
    }

    /// As many keys as there are watchers, so that in `--distinct` each has one.
    fn keys(&self) -> Keys {
        Keys {
            value_size: self.value_size,
            key_count: u64::from(self.watchers),
            key_prefix: self.key_prefix.clone(),
        }
    }

    /// One client that puts, at its share of the rate or one put after the other.
    async fn write(self, channel: Channel, client: u16, counts: Arc<Counts>) {
        let mut kv = KvClient::new(channel);
        let (keys, mut random) = (self.keys(), Random::new(self.seed.wrapping_add(u64::from(client))));
        let filler = value(&mut random, self.value_size);
        let interval =
            self.rate.map(|rate| Duration::from_secs_f64(f64::from(self.clients) / f64::from(rate)));
        let mut due = interval.unwrap_or_default().mul_f64(f64::from(client) / f64::from(self.clients));
        loop {
            match interval {
                Some(interval) => {
                    tokio::time::sleep_until((counts.zero + due).into()).await;
                    due += interval;
                }
                None => due = counts.zero.elapsed(),
            }
            let sent_at = nanoseconds(interval.map_or(due, |interval| due - interval));
            if Duration::from_nanos(sent_at) >= counts.window.1 {
                return;
            }
            let key = keys.key(random.below(keys.key_count)).into();
            let request = PutRequest { key, value: stamped(sent_at, &filler), ..PutRequest::default() };
            match kv.put(request).await {
                Ok(_) => {
                    counts.puts.fetch_add(1, Ordering::Relaxed);
                    if counts.is_measured(counts.now()) {
                        counts.puts_measured.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Err(_) => {
                    counts.errors.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// Waits for the events of what was put; how many never came.
    async fn wait_for_stragglers(&self, counts: &Counts) -> u64 {
        let each = if self.distinct { 1 } else { u64::from(self.watchers) };
        let expected = counts.puts.load(Ordering::Relaxed) * each;
        let (mut last, mut moved) = (0, Instant::now());
        loop {
            let arrived = counts.events.load(Ordering::Relaxed);
            if arrived >= expected || moved.elapsed() > STRAGGLER_PATIENCE {
                return expected.saturating_sub(arrived);
            }
            if arrived > last {
                (last, moved) = (arrived, Instant::now());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn show(
        &self,
        output: Output,
        counts: &Counts,
        delays: &Histogram<u64>,
        streams: usize,
        missing: u64,
    ) -> Result<(), Failure> {
        let seconds = self.seconds.0.as_secs_f64();
        let ms = |nanoseconds: u64| nanoseconds as f64 / 1e6;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let report = Report {
            watchers: self.watchers,
            streams,
            distinct: self.distinct,
            seconds,
            puts: count(&counts.puts),
            put_rate: count(&counts.puts_measured) as f64 / seconds,
            event_rate: count(&counts.events_measured) as f64 / seconds,
            delay_ms: Delay {
                p50: ms(delays.value_at_quantile(0.5)),
                p99: ms(delays.value_at_quantile(0.99)),
                max: ms(delays.max()),
            },
            missing,
            errors: count(&counts.errors),
        };
        if self.json || output == Output::Json {
            return print_json(&report);
        }
        let Report { put_rate, event_rate, delay_ms, .. } = &report;
        print_line(&format!("{put_rate:.0} puts and {event_rate:.0} events a second"))?;
        print_line(&format!(
            "from put to event p50 {:.1} ms, p99 {:.1} ms, longest {:.1} ms",
            delay_ms.p50, delay_ms.p99, delay_ms.max
        ))?;
        print_line(&format!("events that never came: {missing}, errors: {}", report.errors))
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1_000, LATENCY_MAX, 3).expect("the bounds are constants in their lawful order")
}

/// A value that tells when its put was due.
fn stamped(at: u64, filler: &Bytes) -> Bytes {
    let mut value = at.to_be_bytes().to_vec();
    value.extend_from_slice(filler.get(STAMP_BYTES..).unwrap_or_default());
    value.into()
}

/// When the put was due that wrote this value; none of a value that is not one of ours.
fn stamp(value: &[u8]) -> Option<u64> {
    value.first_chunk().map(|front| u64::from_be_bytes(*front))
}

/// Opens a stream and begins a watch of each range on it.
async fn open_stream(
    channel: Channel,
    ranges: Vec<KeyRange>,
) -> Result<Streaming<WatchResponse>, tonic::Status> {
    let expected = ranges.len();
    // All questions are sent at once, and the stream stays open for as long as the answers are read.
    let (questions, mut waiting) = mpsc::channel(expected.max(1));
    for range in ranges {
        let range_end = range.etcd_range_end();
        let create = WatchCreateRequest { key: range.start, range_end, ..WatchCreateRequest::default() };
        let question = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        questions.try_send(question).expect("there is room for each");
    }
    let in_turn = futures_util::stream::poll_fn(move |context| {
        // The sender lives in here, so that the end of the questions is not the end of the stream.
        let _kept = &questions;
        waiting.poll_recv(context)
    });
    let mut answers = WatchClient::new(channel).watch(in_turn).await?.into_inner();
    for _ in 0..expected {
        let answer =
            answers.message().await?.ok_or_else(|| tonic::Status::unavailable("the stream ended"))?;
        if !answer.created || answer.canceled {
            return Err(tonic::Status::failed_precondition(format!(
                "a watch was refused: {}",
                answer.cancel_reason
            )));
        }
    }
    Ok(answers)
}

/// Reads a stream until all is over; the delays of the events in the time measured.
async fn receive(
    mut stream: Streaming<WatchResponse>,
    counts: Arc<Counts>,
    mut is_over: watch::Receiver<bool>,
) -> Histogram<u64> {
    let mut delays = histogram();
    loop {
        let answer = tokio::select! {
            biased;
            answer = stream.message() => answer,
            _ = is_over.wait_for(|is_over| *is_over) => return delays,
        };
        let Ok(Some(answer)) = answer else {
            counts.errors.fetch_add(1, Ordering::Relaxed);
            return delays;
        };
        let now = counts.now();
        counts.events.fetch_add(answer.events.len() as u64, Ordering::Relaxed);
        if !counts.is_measured(now) {
            continue;
        }
        counts.events_measured.fetch_add(answer.events.len() as u64, Ordering::Relaxed);
        for event in &answer.events {
            if let Some(sent_at) = event.kv.as_ref().and_then(|kv| stamp(&kv.value)) {
                delays.saturating_record(now.saturating_sub(sent_at));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_tells_when_it_was_put_and_has_the_size_asked_for() {
        let filler = Bytes::from(vec![7; 256]);
        let value = stamped(1 << 40 | 5, &filler);
        assert_eq!((value.len(), stamp(&value)), (256, Some(1 << 40 | 5)));
        assert_eq!(stamped(9, &Bytes::new()).len(), STAMP_BYTES, "never smaller than its stamp");
        assert_eq!(stamp(b"short"), None);
    }
}
